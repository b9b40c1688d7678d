"""``[[limits]]`` and ``[[rates]]``, in gateway.toml (for everybody or one subject by name) and in plans.

The rule: two limits that count the same thing for the same subject in the same way are a slip, and are said so. A plan
is for whoever buys it: it may name what every customer has, as a route and a model, and nobody's own.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from gatekeeper.config.amounts import CAPS, zone
from gatekeeper.config.kinds import choice, text, whole, word
from gatekeeper.config.reading import Cell, Table, Wrong, read_cell
from gatekeeper.diagnostics import suggest
from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.rules.declared import EACH, UNDER_CUSTOMER, DeclaredLimit, DeclaredRate
from gatekeeper.rules.latches import mistake
from gatekeeper.rules.limits import (
    UNITS,
    Mode,
    Pair,
    RateLimit,
    Release,
    Scope,
    Scoped,
    StockLimit,
    Window,
    parts_of,
    scope_named,
    subjects_of,
)

limit_name = word(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, '.', '_' or '-'")

_SUBJECT = r"[A-Za-z0-9._:@-]{1,128}"
_ONE = word(_SUBJECT, "1 to 128 letters, digits, '.', '_', ':', '@' or '-'")
_UNDER = word(rf"(?:{_SUBJECT}/)?{_SUBJECT}", "a name, or the customer and the name: acme/alice")
# As requests may name a model.
_MODEL = word(r"[^\x00-\x1f*]{1,256}", "the name of one model, without '*'")
_METER = word(r"[A-Za-z][A-Za-z0-9_-]{0,63}", "a letter, then letters, digits, '_' or '-'")


class Per(StrEnum):
    """The spans of time that a rate limit may name."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"


class LimitMode(StrEnum):
    """What a limit does when it is reached: refuse, or only count and show. SOFT lets a cheaper model serve before it
    refuses."""

    BLOCK = "block"
    WARN = "warn"
    SOFT = "soft"


_PER_MS = {Per.SECOND: 1_000, Per.MINUTE: 60_000, Per.HOUR: 3_600_000}


@dataclass(frozen=True, slots=True)
class Names:
    """What limits may refer to by name."""

    routes: Collection[str]
    plans: Collection[str]
    meters: Collection[str]


def read_limits(top: Table, names: Names) -> tuple[tuple[DeclaredLimit, ...], tuple[DeclaredRate, ...]]:
    """All of gateway.toml; to be used only if nothing in the file is wrong."""
    limits = [(table, read_stock(table, names)) for table in top.tables("limits")]
    rates = [(table, read_rate(table, names)) for table in top.tables("rates")]
    # A wrong limit stands as a placeholder that could look like another one.
    if not top.file.wrong:
        complain_of_twins([*limits, *rates], "in this file")
    for table, limit in limits:
        check_meter(table, limit.limit.dimension, names.meters)
    for table, rate in rates:
        check_meter(table, rate.limit.dimension, names.meters)
    return tuple(limit for _, limit in limits), tuple(rate for _, rate in rates)


def read_stock(table: Table, names: Names | None) -> DeclaredLimit:
    """One entry of ``[[limits]]``; ``names`` None is that of a plan, whose routes ``check_routes`` knows later."""
    dimension, cap = _dimension(table)
    window = table.need("window", choice(Window), Window.DAY, 'as in "day" or "billing_period"')
    scope, subject = _whom(table, names)
    mode = table.take("mode", _mode, LimitMode.BLOCK)
    limit = StockLimit(
        name=table.take("name", limit_name, _name(scope, subject, dimension, window.value)),
        scope=scope,
        dimension=dimension,
        window=window,
        cap=cap,
        mode=Mode(mode.value),
        zone=table.take("zone", zone, "UTC"),
        soft_at=soft_at(table, soft=mode is LimitMode.SOFT),
        release=table.take("release", choice(Release), Release.WINDOW),
    )
    check_windows(table, limit)
    table.finish()
    return DeclaredLimit(limit, subject)


def read_rate(table: Table, names: Names | None) -> DeclaredRate:
    """One entry of ``[[rates]]``. "unlimited" is for a named subject that the default should not hold back; ``names``
    None is that of a plan, where it is no word: what a plan sells is a number."""
    dimension, cap = _dimension(table)
    span = table.take("per", choice(Per), Per.MINUTE)
    scope, subject = _whom(table, names)
    exempt = cap is None and subject != EACH and names is not None
    if not cap and not exempt:
        hint = "take the [[rates]] away instead" if cap is None else 'a [[limits]] of 0 in the window "total" shuts out'
        if cap is None and subject != EACH:
            hint = "a number that is large enough; only gateway.toml takes a default away from a subject"
        key = dimension.partition(":")[0]
        table.file.complain((*table.path, key), "a rate limit is a number above 0", hint)
    rate = RateLimit(
        name=table.take("name", limit_name, _name(scope, subject, dimension, f"per-{span.value}")),
        scope=scope,
        dimension=dimension,
        cap=cap or MICRO_PER_UNIT,
        per_ms=_PER_MS[span],
    )
    table.finish()
    return DeclaredRate(rate, subject, exempt=exempt)


def soft_at(table: Table, *, soft: bool) -> int:
    """The per cent of the cap at which a soft limit asks for a cheaper model."""
    percent = table.take("soft_at", whole(1, 100), 80)
    if not soft and table.has("soft_at"):
        hint = 'mode = "soft", or when_used = "soft" in a quota'
        table.file.complain((*table.path, "soft_at"), "only a soft limit has a soft_at", hint, at_key=True)
    return percent


def check_windows(table: Table, limit: StockLimit) -> None:
    """Complain about a window or a release that nobody whom the limit counts has."""
    wrong = mistake(limit)
    if wrong is not None:
        key, message, hint = wrong
        table.file.complain((*table.path, key), message, hint)


def complain_of_twins(
    found: Sequence[tuple[Table, DeclaredLimit | DeclaredRate]], where: str, taken: Sequence[DeclaredLimit] = ()
) -> None:
    """Names tell limits apart for people, and what they count tells their rows apart in the ledger. ``taken`` are
    limits of other tables beside them."""
    names = {"quota", *(each.limit.name for each in taken)}
    counted = {_counts(each) for each in taken}
    for table, each in found:
        if each.limit.name in names or _counts(each) in counted:
            whose = f"one {each.limit.scope}" if each.subject == EACH else f"{each.limit.scope} {each.subject!r}"
            counts = f"counts the {each.limit.dimension} of {whose} in the same time"
            what = counts if _counts(each) in counted else f"is named {each.limit.name!r}"
            hint = "keep the one that is meant" if _counts(each) in counted else "give each a name of its own"
            table.file.complain(table.path, f"another limit {where} {what}", hint, at_key=True)
        names.add(each.limit.name)
        counted.add(_counts(each))


def check_meter(table: Table, dimension: str, meters: Collection[str]) -> None:
    """Complain about a limit on a meter that no route has: it would never count anything."""
    name = dimension.partition(":")[2]
    if name and name not in meters:
        known = f"known meters: {', '.join(sorted(meters))}" if meters else f'meters = {{ {name} = "..." }} in a route'
        message = f"no route has a meter {name!r}"
        table.file.complain((*table.path, "meter"), message, suggest(name, meters) or known)


def check_routes(table: Table, scope: Scoped, subject: str, routes: Collection[str]) -> None:
    """Complain about a limit of a plan on a route that there is not."""
    for part, one in zip(parts_of(scope), subjects_of(scope, subject), strict=True):
        if part is Scope.ROUTE and one not in (EACH, *routes):
            table.file.complain((*table.path, "subject"), f"there is no route {one!r}", suggest(one, routes))


def _counts(each: DeclaredLimit | DeclaredRate) -> tuple[object, ...]:
    # A warning below a block is no slip: both may count the same.
    mode = each.limit.mode if isinstance(each.limit, StockLimit) else None
    return (*each.row, each.subject, Mode.BLOCK if mode is Mode.OVERAGE else mode)


def _name(scope: Scoped, subject: str, dimension: str, span: str) -> str:
    parts = [scope.value, *(() if subject == EACH else (subject,)), dimension, span]
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in "-".join(parts))[:64]


def _dimension(table: Table) -> tuple[str, int | None]:
    """What is counted and how much of it, from the one of the keys of ``CAPS`` that is there."""
    # A wrong value stands as 1, which is no second mistake anywhere.
    found = {key: table.take(key, kind, 1) for key, kind in CAPS.items() if table.has(key)}
    meter = table.take("meter", _METER, None)
    if len(found) != 1:
        hint = 'units = 10_000, requests = 60 or dollars = "5.00"'
        table.file.complain(table.path, "a limit counts one of units, requests and dollars", hint, at_key=True)
        return UNITS, 1
    dimension, cap = next(iter(found.items()))
    if meter is not None and dimension != UNITS:
        table.file.complain((*table.path, "meter"), f"a meter counts units, not {dimension}", "write units = ...")
    return (f"{UNITS}:{meter}" if meter is not None else dimension), cap


def _mode(cell: Cell) -> LimitMode:
    if cell.value == Mode.OVERAGE.value:
        hint = 'when_used = "overage" in the [quota] of a plan'
        raise Wrong("only a plan's quota goes on with overage, because only there is a price for it", hint)
    return choice(LimitMode)(cell)


def _whom(table: Table, names: Names | None) -> tuple[Scoped, str]:
    scope: Scoped | None = table.take("scope", _scope, Scope.CUSTOMER if names is None else None)
    if scope is None:
        if not table.has("scope"):
            hint = f"one of {', '.join(each.value for each in Scope)}, or two of them: user,model"
            table.file.complain(table.path, "'scope' is missing here", hint, at_key=True)
        table.has("subject")
        return Scope.CUSTOMER, EACH
    if not table.has("subject"):
        return scope, EACH
    cell = table.cell("subject")
    return scope, EACH if cell is None else read_cell(cell, lambda cell: _subject(cell, scope, names), EACH)


def _scope(cell: Cell) -> Scoped:
    written = text(cell)
    if "," not in written:
        return choice(Scope)(cell)
    if written not in set(Pair):
        raise Wrong(f"{written!r} is no pair of scopes", no_pair(written))
    return scope_named(written)


def no_pair(written: str) -> str:
    """Why two scopes are none of the pairs, or what was meant."""
    pairs = [each.value for each in Pair]
    parts = sorted((part.strip() for part in written.split(",")), key=lambda part: [*Scope, part].index(part))
    if ",".join(parts) in pairs:
        return f"write {','.join(parts)!r}: one spelling of each, and the model last"
    if len(parts) == 2 and len(set(parts)) == 2 and set(parts) <= set(Scope):
        if parts[0] == Scope.GLOBAL:
            return f"{parts[1]!r} alone says the same"
        if parts[0] == Scope.CUSTOMER:
            return f"{parts[1]!r} alone says the same: users, agents and keys are a customer's own"
        return "a [[limits]] in the plan's own file holds for each of its customers"
    return suggest(",".join(parts), pairs) or f"one of {' '.join(pairs)}"


def _subject(cell: Cell, scope: Scoped, names: Names | None) -> str:
    written = text(cell)
    if written == EACH:
        return EACH
    if isinstance(scope, Scope):
        return _one_subject(cell, scope, names)
    parts = parts_of(scope)
    found = written.split(",", 1)
    if len(found) < len(parts):
        hint = f'"each", or both with a comma between them, as in "each,{written}"'
        raise Wrong(f"the scope {scope.value} counts pairs, and this is one subject", hint)
    for part, one in zip(parts, found, strict=True):
        if one != EACH:
            _one_subject(replace(cell, value=one), part, names)
    return EACH if found == [EACH, EACH] else written


def _one_subject(cell: Cell, scope: Scope, names: Names | None) -> str:
    written = text(cell)
    if scope is Scope.GLOBAL:
        raise Wrong("the scope global has no subjects", "take it away: all calls count together", at_key=True)
    if names is None:
        return _of_everybody(cell, scope)
    known: Mapping[Scope, Collection[str]] = {Scope.ROUTE: names.routes, Scope.PLAN: names.plans}
    if scope in known:
        if written not in known[scope]:
            raise Wrong(f"there is no {scope.value} {written!r}", suggest(written, known[scope]))
        return written
    shape: Callable[[Cell], str] = _UNDER if scope in UNDER_CUSTOMER else _MODEL if scope is Scope.MODEL else _ONE
    return shape(cell)


def _of_everybody(cell: Cell, scope: Scope) -> str:
    """A subject that a plan may name: one that whoever buys it may have."""
    written = text(cell)
    if scope is Scope.PLAN:
        raise Wrong(
            "a plan's limits hold for its own customers", 'write "each"; that of another plan stands in its file'
        )
    if scope in (Scope.CUSTOMER, Scope.KEY):
        hint = "a limit for one of them by name stands in gateway.toml"
        raise Wrong(f"a plan is for whoever buys it, so it names no {scope.value}", hint)
    if scope in UNDER_CUSTOMER:
        if "/" in written:
            own = written.partition("/")[2]
            hint = f'"{own}" is that of whichever customer; one customer\'s stands in gateway.toml'
            raise Wrong(f"a plan is for whoever buys it, and {written!r} is one customer's", hint)
        return _ONE(cell)
    return _MODEL(cell) if scope is Scope.MODEL else limit_name(cell)
