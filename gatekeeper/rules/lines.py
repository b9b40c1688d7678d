"""From a plan, the declared limits and an ask to the lines that one call holds. Pure: instant and customer are handed
in."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple, TypeAlias

from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.rules.declared import UNDER_CUSTOMER, DeclaredLimit, DeclaredRate
from gatekeeper.rules.latches import latch_dimension
from gatekeeper.rules.limits import (
    DOLLARS,
    ONE_REQUEST,
    REQUESTS,
    UNITS,
    BucketKey,
    CounterKey,
    Mode,
    RateLimit,
    RateLine,
    Release,
    Scope,
    Scoped,
    StockLimit,
    StockLine,
    Window,
    parts_of,
)
from gatekeeper.rules.met import met, met_rates
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import window_bounds

# Where a subject of each scope stands; of GLOBAL there is one.
_FIELDS = {
    Scope.PLAN: "plan_id",
    Scope.CUSTOMER: "customer_id",
    Scope.USER: "user_id",
    Scope.AGENT: "agent_id",
    Scope.KEY: "key_id",
    Scope.ROUTE: "route",
    Scope.MODEL: "model",
}


@dataclass(frozen=True, slots=True)
class Subject:
    """Who and what a call belongs to: the subjects of every scope."""

    customer_id: str
    plan_id: str
    route: str
    anchor_ms: int
    key_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    model: str | None = None

    def of(self, scope: Scoped) -> str | None:
        """The subject in that scope; users and agents live under their customer. None: the scope does not apply. Of a
        pair both subjects, with a comma between them."""
        if not isinstance(scope, Scope):
            found = [self.of(part) for part in parts_of(scope)]
            return None if None in found else ",".join(each or "" for each in found)
        name = _FIELDS.get(scope)
        if name is None:
            return "*"
        mine: str | None = getattr(self, name)
        if not mine:
            return None
        return f"{self.customer_id}/{mine}" if scope in UNDER_CUSTOMER else mine


class Take(NamedTuple):
    """What a call may take of one dimension, in its stored unit: ``fixed``, and so much for each token of output."""

    fixed: int
    per_output: int


class Charge(NamedTuple):
    """What a rate is charged at admission, and the part of it that is certain."""

    amount: int
    least: int


_WINDOW = Release.WINDOW
# A call is one request; of most named meters nothing is known beforehand, so it holds one unit: used-up caps refuse it,
# and what runs beside each other may pass a cap by what it really takes.
_ONE = Take(ONE_REQUEST, 0)
_ONE_CHARGE = Charge(ONE_REQUEST, ONE_REQUEST)
_NOTHING = Take(0, 0)
_NO_CHARGE = Charge(0, 0)

# When the count of a limit was begun anew: (scope, subject, dimension, window) -> the instant.
Resets: TypeAlias = Mapping[tuple[str, str, str, str], int]
NO_RESETS: Resets = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one call may take before anything is known of the answer.

    ``units`` and ``dollars`` are bounds for stock limits, ``rate_units`` and ``rate_dollars`` usual figures for rates.
    ``meters`` are the bounds of those named meters (by dimension) of which one is known.
    """

    output_tokens: int = 0
    output_tokens_min: int = 0
    units: Take = _NOTHING
    dollars: Take = _NOTHING
    rate_units: Charge = _NO_CHARGE
    rate_dollars: Charge = _NO_CHARGE
    meters: tuple[tuple[str, Take], ...] = ()

    def take(self, dimension: str) -> Take:
        """The bound in one dimension."""
        if dimension == UNITS:
            return self.units
        if dimension == DOLLARS:
            return self.dollars
        return next((take for name, take in self.meters if name == dimension), _ONE)

    def charge(self, dimension: str) -> Charge:
        """The charge of a rate in one dimension."""
        if dimension == UNITS:
            return self.rate_units
        return self.rate_dollars if dimension == DOLLARS else _ONE_CHARGE


def token_bounds(
    input_bound: int, input_usual: int, input_least: int, output: int, output_min: int, rate_output: int
) -> Bounds:
    """The bounds of a call whose meter counts tokens, without dollars."""
    return Bounds(
        output_tokens=output,
        output_tokens_min=output_min,
        units=Take(input_bound * MICRO_PER_UNIT, MICRO_PER_UNIT),
        rate_units=Charge((input_usual + rate_output) * MICRO_PER_UNIT, input_least * MICRO_PER_UNIT),
    )


def dearest(found: Sequence[Bounds]) -> Bounds:
    """What holds for whichever of several models or upstreams serves: the largest of each figure."""
    if len(found) == 1:
        return found[0]
    return Bounds(
        output_tokens=max(each.output_tokens for each in found),
        output_tokens_min=max(each.output_tokens_min for each in found),
        units=_larger([each.units for each in found]),
        dollars=_larger([each.dollars for each in found]),
        rate_units=_larger_charge([each.rate_units for each in found]),
        rate_dollars=_larger_charge([each.rate_dollars for each in found]),
        meters=tuple([(name, _larger([each.take(name) for each in found])) for name, _ in found[0].meters]),
    )


def _larger(takes: Sequence[Take]) -> Take:
    return Take(max(take.fixed for take in takes), max(take.per_output for take in takes))


def _larger_charge(charges: Sequence[Charge]) -> Charge:
    return Charge(max(charge.amount for charge in charges), max(charge.least for charge in charges))


def counts_dollars(
    plan: Plan, limits: Iterable[DeclaredLimit], rates: Iterable[DeclaredRate], subject: Subject
) -> bool:
    """Whether any limit or rate that the call meets is in dollars: then its price must be known."""
    stock = any(each.dimension == DOLLARS for each in met(limits, plan, subject.of))
    return stock or any(each.dimension == DOLLARS for each in met_rates(rates, plan, subject.of))


def stock_lines(
    plan: Plan,
    subject: Subject,
    bounds: Bounds,
    now_ms: int,
    limits: Iterable[DeclaredLimit] = (),
    resets: Resets = NO_RESETS,
) -> tuple[StockLine, ...]:
    """One line for each stock limit that applies, unlimited ones too: what they count is shown."""
    lines: list[StockLine] = []
    for limit in met(limits, plan, subject.of):
        line = _stock_line(limit, subject, bounds, now_ms, resets)
        if line is None:
            continue
        lines.append(line)
        if limit.release is not _WINDOW and limit.cap:
            key, ends_ms = latch_of(limit, line.key.subject, subject.anchor_ms, now_ms, resets)
            # Nothing is held on it: a call that runs is not stopped by it. A soft limit that is closed asks for a
            # cheaper model as it did on the day when it was used up.
            soft_at = 100 if limit.mode is Mode.SOFT else None
            lines.append(StockLine(key, limit.name, limit.cap, Mode.BLOCK, 0, 0, ends_ms, soft_at))
    return tuple(lines)


def count_start_ms(limit: StockLimit, subject: str, start_ms: int, now_ms: int, resets: Resets) -> int:
    """Since when a limit counts in the window that began at ``start_ms``: since then, or since a reset in it.

    A quota that is priced never begins anew: its price is worked out from the use of the whole window, so what is
    included would be given twice. A reset by a clock that is ahead of ``now_ms`` is not yet.
    """
    if not resets or limit.mode is Mode.OVERAGE:
        return start_ms
    reset_ms = resets.get((limit.scope, subject, limit.dimension, limit.window))
    return reset_ms if reset_ms is not None and start_ms <= reset_ms <= now_ms else start_ms


def _stock_line(limit: StockLimit, subject: Subject, bounds: Bounds, now_ms: int, resets: Resets) -> StockLine | None:
    mine = subject.of(limit.scope)
    if mine is None:
        return None
    start_ms, end_ms = window_bounds(limit.window, now_ms, zone=limit.zone, anchor_ms=subject.anchor_ms)
    start_ms = count_start_ms(limit, mine, start_ms, now_ms, resets)
    take = bounds.take(limit.dimension)
    mode, is_soft = limit.mode, limit.mode is Mode.SOFT
    return StockLine(
        # Plain texts: databases and JSON take a member of an enum the long way.
        CounterKey(str(limit.scope), mine, limit.dimension, str(limit.window), start_ms),
        limit.name,
        limit.cap,
        Mode.BLOCK if is_soft else mode,
        take.fixed,
        take.per_output,
        end_ms,
        limit.soft_at if is_soft else None,
    )


def latch_of(
    limit: StockLimit, subject: str, anchor_ms: int, now_ms: int, resets: Resets
) -> tuple[CounterKey, int | None]:
    """The row that keeps a limit closed until the billing period turns, and when that is; see ``latches``."""
    # As the biller's periods are, whatever the zone of the limit's own window.
    start_ms, end_ms = window_bounds(Window.BILLING_PERIOD, now_ms, anchor_ms=anchor_ms)
    start_ms = count_start_ms(limit, subject, start_ms, now_ms, resets)
    dimension = latch_dimension(limit.window, limit.dimension)
    return CounterKey(str(limit.scope), subject, dimension, str(Window.BILLING_PERIOD), start_ms), end_ms


def rate_lines(
    plan: Plan, subject: Subject, bounds: Bounds, rates: Iterable[DeclaredRate] = ()
) -> tuple[RateLine, ...]:
    """One line for each rate that applies."""
    found = met_rates(rates, plan, subject.of)
    return tuple([line for rate in found if (line := _rate_line(rate, subject, bounds)) is not None])


def _rate_line(rate: RateLimit, subject: Subject, bounds: Bounds) -> RateLine | None:
    mine = subject.of(rate.scope)
    if mine is None:
        return None
    charge = bounds.charge(rate.dimension)
    return RateLine(
        key=BucketKey(str(rate.scope), mine, rate.dimension, rate.per_ms),
        limit=rate.name,
        cap=rate.cap,
        # At most the cap: the first call on a small limit is admitted, and the next one waits for it.
        amount=min(rate.cap, charge.amount) if rate.dimension != REQUESTS else charge.amount,
        least=charge.least,
    )
