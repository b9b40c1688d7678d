"""The dry-run: the last recorded calls of a route, read by another expression, customer by customer.

The rule: streams are not kept, so what is read again is what a record kept: the usage record, the evidence of its own
meter, the names that every record has. Where an expression needs more, that is counted and said, never guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from functools import partial
from typing import Any

from gatekeeper.config.gateway import Gateway, Route
from gatekeeper.errors import Code, Refusal
from gatekeeper.explanation import again_on, seen_of
from gatekeeper.meters import Meter
from gatekeeper.money import dollars_text, plain, units_text
from gatekeeper.ports import Audit, Entry
from gatekeeper.rules.dryrun import Changed, DryRun
from gatekeeper.rules.remeter import evidence_of
from gatekeeper.rules.simulate import Past
from gatekeeper.web.playground.turns import Turns

LAST = 1_000
LAST_MAX = 5_000
# Other routes' records lie between; a page of this size is parsed in a few milliseconds, between two calls.
_PAGE = 200
_SCANNED_MAX = 20_000
_TOTAL_S = 10.0
# Why calls could not be read again: reasons name what is missing, and there are few.
_REASONS_MAX = 10
# Before the first record of all.
START = (2**62, "")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is tried on the records: ``expression`` in place of the route's meter, ``meters`` beside it. ``before`` is
    where to begin (latest first), ``last`` how many calls of the route to read."""

    route: Route
    expression: Meter | None
    meters: Mapping[str, Meter] = field(default_factory=dict)
    last: int = LAST
    before: tuple[int, str] = START


@dataclass(slots=True)
class Sums:
    """What a named meter read then, and what it would read; ``unread`` calls stand in neither."""

    now: Decimal = Decimal(0)
    then: Decimal = Decimal(0)
    unread: int = 0


@dataclass(slots=True)
class Told:
    """What came out. ``scanned`` records were looked at, ``calls`` of them are of the route. ``before`` is where to go
    on; None: there is nothing before."""

    customers: Sequence[Changed] = ()
    calls: int = 0
    scanned: int = 0
    corrections: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    named: dict[str, dict[str, Sums]] = field(default_factory=dict)
    oldest_ms: int | None = None
    newest_ms: int | None = None
    before: tuple[int, str] | None = START


async def dry_run(wish: Wish, audit: Audit, turns: Turns, gateway: Gateway) -> Told:
    """Reads pages of records until it has enough calls, has looked at 20,000 records, or its time is over. Raises
    Refusal, Fault."""
    told = Told(before=wish.before)
    found: list[tuple[str, Past]] = []
    until_s = turns.clock.monotonic_s() + _TOTAL_S
    while told.calls < wish.last and told.scanned < _SCANNED_MAX and told.before is not None:
        page = await audit.latest(told.before, limit=_PAGE)
        # Each page has its turn, so that whoever types in the playground meanwhile waits for one page at most.
        taken = await turns.take(partial(_read_page, wish, page, told, found))
        if taken == 0 and page:
            raise Refusal(Code.BAD_REQUEST, "Reading one record again takes too long.")
        if taken == len(page) and len(page) < _PAGE:
            told.before = None
        if taken < len(page) or turns.clock.monotonic_s() >= until_s:
            break
    run = DryRun(gateway.plans)
    for customer_id, past in reversed(found):
        run.take(customer_id, past)
    told.customers = run.customers()
    return told


def _read_page(
    wish: Wish, page: Sequence[Entry], told: Told, found: list[tuple[str, Past]], go_on: Callable[[], bool]
) -> int:
    """Returns how many records of the page were looked at; it ends where there are enough, or its time is over."""
    route = wish.route if wish.expression is None else replace(wish.route, meter=wish.expression)
    for number, entry in enumerate(page):
        if told.calls >= wish.last or not go_on():
            return number
        record = entry.record
        told.before = record.started_ms, record.call_id
        told.scanned += 1
        if record.route != route.name:
            continue
        if entry.corrects is not None:
            told.corrections += 1
            continue
        told.calls += 1
        told.oldest_ms = record.started_ms
        told.newest_ms = told.newest_ms or record.started_ms
        again = again_on(route, record)
        if again.units_micro is None and (again.why in told.reasons or len(told.reasons) < _REASONS_MAX):
            told.reasons[again.why] = told.reasons.get(again.why, 0) + 1
        past = Past(
            record.call_id,
            record.started_ms,
            record.plan_id,
            record.units_micro,
            record.charge_nano,
            entry.counted,
            None,
            again.units_micro,
        )
        found.append((record.customer_id, past))
        if wish.meters:
            _read_named(wish.meters, entry, told)
    return len(page)


def _read_named(meters: Mapping[str, Meter], entry: Entry, told: Told) -> None:
    record = entry.record
    evidence = evidence_of(seen_of(record))
    for name, meter in meters.items():
        sums = told.named.setdefault(record.customer_id, {}).setdefault(name, Sums())
        units = meter.replay(evidence).units
        if units is None:
            sums.unread += 1
            continue
        sums.then += units
        sums.now += Decimal(record.meters.get(name, "0"))


def told_json(wish: Wish, told: Told, expression: str | None) -> dict[str, Any]:
    """For machines; amounts are decimal texts, ``exact`` says whether every call could be read again."""
    unread = sum(one.unread for one in told.customers)
    return {
        "route": wish.route.name,
        "expression": expression,
        "route_meter": wish.route.meter.text,
        "calls": told.calls,
        "scanned": told.scanned,
        "corrections_left_out": told.corrections,
        "oldest_ms": told.oldest_ms,
        "newest_ms": told.newest_ms,
        "exact": unread == 0,
        "not_read_again": unread,
        "why_not": [{"why": why, "calls": calls} for why, calls in told.reasons.items()],
        "customers": [_customer_json(one, told.named.get(one.customer_id, {})) for one in told.customers],
        "total": total_json(told.customers),
        "next": None if told.before is None else f"{told.before[0]}:{told.before[1]}",
    }


def _customer_json(one: Changed, named: Mapping[str, Sums]) -> dict[str, Any]:
    return {
        "customer": one.customer_id,
        **total_json([one]),
        "meters": {
            name: {"before": plain(sums.now), "after": plain(sums.then), "not_read_again": sums.unread}
            for name, sums in named.items()
        },
    }


def total_json(customers: Sequence[Changed]) -> dict[str, Any]:
    """Sums over customers."""
    units_now, units_then = (sum(getattr(one, name) for one in customers) for name in _UNITS)
    charge_now, charge_then = (sum(getattr(one, name) for one in customers) for name in _CHARGES)
    return {
        "calls": sum(one.calls for one in customers),
        "not_read_again": sum(one.unread for one in customers),
        "charge_unknown": sum(one.unplaced for one in customers),
        "refused": sum(one.refused for one in customers),
        "units_before": units_text(units_now),
        "units_after": units_text(units_then),
        "units_difference": units_text(units_then - units_now),
        "charge_before": dollars_text(charge_now),
        "charge_after": dollars_text(charge_then),
        "charge_difference": dollars_text(charge_then - charge_now),
    }


_UNITS = ("units_now_micro", "units_then_micro")
_CHARGES = ("charge_now_nano", "charge_then_nano")
