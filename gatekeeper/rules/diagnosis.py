"""What the figures of a ledger say of its health: each check with what was counted, and whether it is as it must be.

The rule: a call in flight explains what it holds and alarms nobody; what no call accounts for is WRONG.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gatekeeper.money import amount_text, dollars_text, units_text
from gatekeeper.rules.limits import CounterKey

# A share says nothing about a handful of calls.
JUDGED_CALLS_MIN = 20


class Odd(NamedTuple):
    """One row that is not as it must be: which, and what of it."""

    place: str
    what: str


class Found(NamedTuple):
    """How many rows are not as they must be, and the first of them."""

    total: int = 0
    rows: tuple[Odd, ...] = ()


NOTHING = Found()


class OffCounter(NamedTuple):
    """A stock counter, and what its calls add up to."""

    key: CounterKey
    used: int
    held: int
    used_sum: int
    held_sum: int


class OffCustomer(NamedTuple):
    """What a customer's records charge, and what the biller is to be told."""

    customer_id: str
    charge_nano: int
    owed_nano: int


class RouteMarks(NamedTuple):
    """How many complete calls of a route were read how."""

    route: str
    measured: int
    default: int
    estimated: int
    nothing: int

    @property
    def calls(self) -> int:
        """All of them."""
        return self.measured + self.default + self.estimated + self.nothing

    @property
    def guessed(self) -> int:
        """Those that were charged (or given away) without a measurement."""
        return self.calls - self.measured


@dataclass(frozen=True, slots=True)
class Figures:
    """One snapshot of a ledger. Each list of what is off holds the first rows only, beside how many there are."""

    records: int = 0
    corrections: int = 0
    counters: int = 0
    owed: int = 0
    batches: int = 0
    batch_units: int = 0
    dead_batches: int = 0
    open_holds: int = 0
    oldest_ms: int | None = None
    expiry_ms: int | None = None
    recovered_holds: int = 0
    held: tuple[tuple[str, int], ...] = ()
    overdue: Found = NOTHING
    ghosts: Found = NOTHING
    off_counters: tuple[int, tuple[OffCounter, ...]] = (0, ())
    unlike_counters: tuple[int, tuple[OffCounter, ...]] = (0, ())
    lines: Found = NOTHING
    off_customers: tuple[int, tuple[OffCustomer, ...]] = (0, ())
    strange_owed: Found = NOTHING
    unbilled: Found = NOTHING
    strange_batches: Found = NOTHING
    strange_figures: Found = NOTHING
    strange_marks: Found = NOTHING
    strange_corrections: Found = NOTHING
    whole_days: int = 0
    strange_sums: Found = NOTHING
    routes: tuple[RouteMarks, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One question and its answer. ``found`` are the rows that are wrong, ``figures`` what was counted."""

    name: str
    ok: bool
    said: str
    found: Found = NOTHING
    figures: Mapping[str, Any] = field(default_factory=dict)


def check_schema(applied: int, known: int) -> Check:
    """Whether the database has the tables that this code asks for; if not, nothing else can be asked."""
    said = f"migration {applied} of {known}"
    if applied < known:
        said += ": run 'gatekeeper migrate'"
    elif applied > known:
        said += ": install the newer gatekeeper that made this database"
    return Check("schema", applied == known, said, figures={"applied": applied, "known": known})


def diagnose(figures: Figures, now_ms: int, alarm_percent: int) -> tuple[Check, ...]:
    """All checks, in the order in which a person wants to read them. A route is alarming where more than
    ``alarm_percent`` of its complete calls were not measured."""
    return (
        _in_flight(figures, now_ms),
        _overdue(figures, now_ms),
        _counters(figures),
        _recount(figures),
        _check("lines", figures.lines, f"{figures.records} records count where and what they say"),
        _owed(figures),
        *_batches(figures),
        _check("figures", figures.strange_figures, "none is negative or no number"),
        _check("marks", figures.strange_marks, f"{figures.records} records say how their units are known"),
        _check("corrections", figures.strange_corrections, f"{figures.corrections}, each of a recovered call"),
        _check("sums", figures.strange_sums, f"{figures.whole_days} days, and hours, are their records"),
        *(_route(marks, alarm_percent) for marks in figures.routes),
    )


def _check(name: str, found: Found, said: str, **counted: Any) -> Check:
    if found.total:
        said = f"{found.total} are not as they must be"
    return Check(name, not found.total, said, found, {"wrong": found.total, **counted})


def _in_flight(figures: Figures, now_ms: int) -> Check:
    held = ", ".join(f"{amount_text(dimension, amount)} {dimension}" for dimension, amount in figures.held)
    counted = {
        "calls": figures.open_holds,
        "recovered": figures.recovered_holds,
        "held": {dimension: amount_text(dimension, amount) for dimension, amount in figures.held},
    }
    if figures.ghosts.total:
        return _check("in flight", figures.ghosts, "", **counted)
    if figures.open_holds:
        oldest_s = max(0, now_ms - (figures.oldest_ms or now_ms)) // 1000
        plural = "call holds" if figures.open_holds == 1 else "calls hold"
        said = f"{figures.open_holds} {plural} {held or 'nothing'}; the oldest began {oldest_s} s ago"
        return Check("in flight", True, said, figures=counted)
    said = f"no call, and yet {held} are held" if figures.held else "no call, and nothing is held"
    return Check("in flight", not figures.held, said, figures=counted)


def _overdue(figures: Figures, now_ms: int) -> Check:
    found = figures.overdue
    if found.total:
        said = f"{found.total} are past their time: a gateway that runs on this database settles them"
        return Check("holds", False, said, found, {"overdue": found.total})
    expired = figures.expiry_ms is not None and figures.expiry_ms <= now_ms
    said = "none is long past its time; the sweeper has yet to come by" if expired else "none is past its time"
    return Check("holds", True, said, figures={"overdue": 0})


def _counters(figures: Figures) -> Check:
    total, rows = figures.off_counters
    odd = Found(total, tuple(Odd(_named(row.key), _off(row)) for row in rows))
    return _check("counters", odd, f"{figures.counters} are the sums of their calls", counters=figures.counters)


def _off(row: OffCounter) -> str:
    def shown(amount: int) -> str:
        return amount_text(row.key.dimension, amount)

    parts = []
    if row.used != row.used_sum:
        parts.append(f"{shown(row.used)} used, the records say {shown(row.used_sum)}")
    if row.held != row.held_sum:
        parts.append(f"{shown(row.held)} held, the calls in flight say {shown(row.held_sum)}")
    return "; ".join(parts)


def _recount(figures: Figures) -> Check:
    total, rows = figures.unlike_counters
    odd = Found(
        total,
        tuple(
            Odd(_named(row.key), f"{units_text(row.used)} used, its records have {units_text(row.used_sum)} units")
            for row in rows
        ),
    )
    return _check(
        "recount", odd, f"counters of units are the units of {figures.records} records", records=figures.records
    )


def _owed(figures: Figures) -> Check:
    total, rows = figures.off_customers
    sums = tuple(
        Odd(
            f"customer {row.customer_id}",
            f"${dollars_text(row.charge_nano)} charged, ${dollars_text(row.owed_nano)} owed",
        )
        for row in rows
    )
    found = Found(total + figures.strange_owed.total, (*sums, *figures.strange_owed.rows))
    said = f"{figures.owed} rows for the biller are the charges of their records, customer by customer"
    return _check("owed", found, said, owed=figures.owed)


def _batches(figures: Figures) -> tuple[Check, ...]:
    """Only of a ledger from which a biller was told, or should have been."""
    checks: tuple[Check, ...] = ()
    if figures.batches or figures.strange_batches.total:
        said = f"{figures.batches} with {figures.batch_units} units are their rows and what they carry"
        counted = {"batches": figures.batches, "units": figures.batch_units}
        checks += (_check("batches", figures.strange_batches, said, **counted),)
        dead = figures.dead_batches
        given_up = f"{dead} batches were given up: 'gatekeeper outbox list --state dead' shows them"
        checks += (Check("dead letters", not dead, given_up if dead else "none", figures={"dead": dead}),)
    if figures.unbilled.total:
        found = figures.unbilled
        said = f"{found.total} customers owe what nobody is told: is a gateway running, have they an account at Stripe?"
        checks += (Check("unbilled", False, said, found, {"customers": found.total}),)
    return checks


def _route(marks: RouteMarks, alarm_percent: int) -> Check:
    share = 100 * marks.guessed / marks.calls
    judged = marks.calls >= JUDGED_CALLS_MIN
    alarming = judged and marks.guessed * 100 > alarm_percent * marks.calls
    said = f"{share:.1f} % of {marks.calls} complete calls were not measured"
    if marks.guessed:
        said += f" (default {marks.default}, estimated {marks.estimated}, nothing {marks.nothing})"
    if alarming:
        said += f"; more than {alarm_percent} %: does the meter fit what the provider sends?"
    counted = {
        "calls": marks.calls,
        "measured": marks.measured,
        "default": marks.default,
        "estimated": marks.estimated,
        "nothing": marks.nothing,
    }
    return Check(f"route {marks.route}", not alarming, said, figures=counted)


def _named(key: CounterKey) -> str:
    return f"{key.scope} {key.subject}, {key.dimension} per {key.window} from {key.start_ms}"


def all_well(checks: Iterable[Check]) -> bool:
    """Whether nothing is wrong."""
    return all(check.ok for check in checks)
