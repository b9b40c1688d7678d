"""What a hold is, and what happens to the rows it stands on when it ends: settled, released, recovered or corrected.

The law: a counter's ``held`` is the sum of its open holds and its ``used`` the sum of what calls took, to the digit.
A hold remembers its own lines, so a plan that changed in the meantime changes nothing for a call in flight.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from gatekeeper.rules import rates as buckets_of
from gatekeeper.rules.limits import (
    ONE_REQUEST,
    REQUESTS,
    UNITS,
    BucketKey,
    BucketRow,
    CounterKey,
    CounterRow,
    Mode,
    Scope,
    StockLine,
)
from gatekeeper.rules.plans import Plan


class HoldState(StrEnum):
    """OPEN holds amounts. RECOVERED was closed by the sweeper and may be corrected once by the true settle. RELEASED
    holds nothing (any more)."""

    OPEN = "open"
    RELEASED = "released"
    RECOVERED = "recovered"


class HeldLine(NamedTuple):
    """``amount`` held on one stock counter; ``actual`` is what the call took in the end, None until it is known."""

    key: CounterKey
    limit: str
    cap: int | None
    mode: Mode
    amount: int
    actual: int | None = None


class HeldRate(NamedTuple):
    """``amount`` charged on one bucket of size ``cap``."""

    key: BucketKey
    limit: str
    cap: int
    amount: int


class Hold(NamedTuple):
    """The lines of one call, one for each row. ``stock`` is what was ordered: from it and the output tokens granted so
    far follow the amounts of ``lines``, also after an extension."""

    lines: tuple[HeldLine, ...] = ()
    rates: tuple[HeldRate, ...] = ()
    stock: tuple[StockLine, ...] = ()


class Ending(NamedTuple):
    """What the end of a call changes. ``charge_nano`` is this step's overage, negative only in a correction;
    ``overrun_micro`` is how far the units went past what a block limit had held for them."""

    hold: Hold
    counters: Mapping[CounterKey, CounterRow]
    buckets: Mapping[BucketKey, BucketRow] = MappingProxyType({})
    charge_nano: int = 0
    overrun_micro: int = 0


def held_lines(stock: Iterable[StockLine], output_tokens: int) -> tuple[HeldLine, ...]:
    """What so much output holds, one line for each row: lines of one order that share a row count once, with the
    largest amount, under the mode that matters most (overage prices the row, block refuses)."""
    held: dict[CounterKey, HeldLine] = {}
    for line in stock:
        key, mode, amount = line.key, line.mode, line.fixed + line.per_output * output_tokens
        twin = held.get(key)
        if twin is None:
            held[key] = HeldLine(key, line.limit, line.cap, mode, amount)
        else:
            mode = next((one for one in (Mode.OVERAGE, Mode.BLOCK) if one in (twin.mode, mode)), twin.mode)
            held[key] = twin._replace(mode=mode, amount=max(twin.amount, amount))
    return tuple(held.values())


def settle(
    hold: Hold,
    state: HoldState,
    actual: Mapping[str, int],
    plan: Plan | None,
    counters: Mapping[CounterKey, CounterRow],
    buckets: Mapping[BucketKey, BucketRow],
    now_ms: int,
) -> Ending:
    """Count what was really taken, and give back what an open hold still holds.

    A dimension that ``actual`` does not name took nothing. After a recovery only the difference is counted. Rates are
    corrected only for a call that was in flight until now (open): later it would slow down calls that are not to blame.
    ``counters`` must have every row of the hold.

    A counter never passes what 64 bits hold: upstreams that lie can state so much, and a settle that fails for ever
    would keep its hold for ever. One that has reached INT64_MAX is full and stays there, also under a correction. For
    it alone the law is waived, and records remain true: their lines and overruns say what was taken. A charge follows
    the counter, and is as bounded.
    """
    is_open = state is HoldState.OPEN
    ended: list[HeldLine] = []
    changed: dict[CounterKey, CounterRow] = {}
    charge_nano = overrun_micro = 0
    quota = quota_line(hold, plan)
    for line in hold.lines:
        key, limit, cap, mode, amount, counted = line
        dimension = key.dimension
        taken = actual.get(dimension, 0)
        if taken < 0:
            raise ValueError(f"a call cannot take {taken} of {dimension}")
        before = counters[key]
        full = before.used >= buckets_of.INT64_MAX
        used = before.used if full else min(before.used + taken - (counted or 0), buckets_of.INT64_MAX)
        held = before.held - amount if is_open else before.held
        assert used >= 0 and held >= 0, (line, before)
        changed[key] = CounterRow(used, held)
        ended.append(HeldLine(key, limit, cap, mode, amount, taken))
        if line is quota and plan is not None:
            charge_nano = plan.overage_nano(before.used, used)
            charge_nano = max(-buckets_of.INT64_MAX, min(charge_nano, buckets_of.INT64_MAX))
        if mode is Mode.BLOCK and dimension == UNITS and taken - amount > overrun_micro:
            overrun_micro = taken - amount
    if state is HoldState.RELEASED:
        overrun_micro = 0
    corrected: dict[BucketKey, BucketRow] = {}
    if is_open:
        for bucket, _, size, charged in hold.rates:
            taken = actual.get(bucket.dimension, 0)
            corrected[bucket] = buckets_of.correct(buckets[bucket], size, bucket.per_ms, charged, taken, now_ms)
    return Ending(Hold(tuple(ended), hold.rates, hold.stock), changed, corrected, charge_nano, overrun_micro)


def release(
    hold: Hold, counters: Mapping[CounterKey, CounterRow], buckets: Mapping[BucketKey, BucketRow], now_ms: int
) -> Ending:
    """Give back all of an open hold whose call never began."""
    changed = {
        line.key: CounterRow(counters[line.key].used, counters[line.key].held - line.amount) for line in hold.lines
    }
    refunded = {
        rate.key: buckets_of.correct(buckets[rate.key], rate.cap, rate.key.per_ms, rate.amount, 0, now_ms)
        for rate in hold.rates
    }
    return Ending(hold, changed, refunded)


def recovered_actual(hold: Hold, progress_units_micro: int, *, output_seen: bool) -> dict[str, int]:
    """What a call is taken to have used when its owner died: its last persisted progress.

    Nothing without progress. One request once the upstream was seen. Of any other dimension (dollars, a named meter)
    the same share of its hold as the units took of theirs: nothing better is known, and the record says "estimated".
    """
    if progress_units_micro == 0 and not output_seen:
        return {}
    actual = {UNITS: progress_units_micro, REQUESTS: ONE_REQUEST}
    units = max((line.amount for line in hold.lines if line.key.dimension == UNITS), default=0)
    for line in hold.lines:
        if line.key.dimension not in (UNITS, REQUESTS):
            share = line.amount * min(progress_units_micro, units) // units if units else 0
            actual[line.key.dimension] = max(actual.get(line.key.dimension, 0), share)
    return actual


def quota_line(hold: Hold, plan: Plan | None) -> HeldLine | None:
    """The line whose counter prices the overage: the customer's quota of this plan, in mode overage."""
    quota = None if plan is None else plan.quota
    if quota is None or quota.mode is not Mode.OVERAGE:
        return None
    for line in hold.lines:
        key = line.key
        if key.window == quota.window and key.scope == Scope.CUSTOMER and key.dimension == quota.dimension:
            return line
    return None
