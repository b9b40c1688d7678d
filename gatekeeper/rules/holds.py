"""What a hold is, and what happens to the rows it stands on when it ends: settled, released, recovered or corrected.

The law: a counter's ``held`` is the sum of its open holds and its ``used`` the sum of what calls took, to the digit.
A hold remembers its own lines, so a plan that changed in the meantime changes nothing for a call in flight.
"""

from collections.abc import Container, Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from gatekeeper.rules import rates as buckets_of
from gatekeeper.rules.latches import LATCH, closing, is_latch
from gatekeeper.rules.limits import (
    ONE_REQUEST,
    REQUESTS,
    UNITS,
    BucketKey,
    BucketRow,
    CounterKey,
    CounterRow,
    Mode,
    RateLine,
    Scope,
    StockLine,
    model_of,
)
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.rates import INT64_MAX

_BLOCK = Mode.BLOCK
_CUSTOMER = Scope.CUSTOMER.value
# As quick as a tuple: a class of named fields takes two to four times as long to call.
_new = tuple.__new__


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
    # A record that corrects nothing stands on all lines of the hold: see ``counted``.
    all_counted: bool = False


def held_lines(stock: Iterable[StockLine], output_tokens: int) -> tuple[HeldLine, ...]:
    """What so much output holds, one line for each row: lines of one order that share a row count once, with the
    largest amount, under the mode that matters most (overage prices the row, block refuses)."""
    held: dict[CounterKey, HeldLine] = {}
    for line in stock:
        key, mode, amount = line.key, line.mode, line.fixed + line.per_output * output_tokens
        twin = held.get(key)
        if twin is None:
            held[key] = _new(HeldLine, (key, line.limit, line.cap, mode, amount, None))
        else:
            mode = next((one for one in (Mode.OVERAGE, Mode.BLOCK) if one in (twin.mode, mode)), twin.mode)
            # A latch closes at the smallest of the caps; on other rows the caps stand in ``stock``.
            cap = min(twin.cap, line.cap) if twin.cap is not None and line.cap is not None else twin.cap
            held[key] = twin._replace(cap=cap, mode=mode, amount=max(twin.amount, amount))
    return tuple(held.values())


def unheld(stock: Iterable[StockLine], rates: Iterable[RateLine]) -> Hold:
    """The lines of a call whose hold the ledger does not know: it counts on them, and holds nothing."""
    stock = tuple(stock)
    return Hold(
        tuple([line._replace(amount=0) for line in held_lines(stock, 0)]),
        tuple([HeldRate(rate.key, rate.limit, rate.cap, 0) for rate in rates]),
        stock,
    )


def settle(
    hold: Hold,
    state: HoldState,
    actual: Mapping[str, int],
    plan: Plan | None,
    counters: Mapping[CounterKey, CounterRow],
    buckets: Mapping[BucketKey, BucketRow],
    now_ms: int,
    *,
    model: str | None = None,
    since_ms: int | None = None,
) -> Ending:
    """Count what was really taken, and give back what an open hold still holds.

    ``model`` is the one that served: a limit of another one, held because that might have served, counts nothing.

    A dimension that ``actual`` does not name took nothing. After a recovery only the difference is counted. Rates are
    corrected only for a call that was in flight until now (open): later it would slow down calls that are not to blame.
    For a call that was never held ``since_ms`` is when it began: its rates count what has not drained since.
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
    quota = None if plan is None else plan.priced_quota
    latches: list[HeldLine] = []
    all_counted = True
    for line in hold.lines:
        key, limit, cap, mode, amount, counted = line
        scope, subject, dimension, window, _ = key
        if dimension[:4] == LATCH:
            latches.append(line)
            continue
        if model is not None and scope[-5:] == "model" and model_of(scope, subject) != model:
            taken, all_counted = 0, False
        else:
            taken = actual.get(dimension, 0)
            if taken < 0:
                raise ValueError(f"a call cannot take {taken} of {dimension}")
        before_used, before_held = counters[key]
        used = before_used
        if used < INT64_MAX:
            used += taken - counted if counted else taken
            if used > INT64_MAX:
                used = INT64_MAX
        held = before_held - amount if is_open else before_held
        assert used >= 0 and held >= 0, (line, counters[key])
        changed[key] = _new(CounterRow, (used, held))
        ended.append(_new(HeldLine, (key, limit, cap, mode, amount, taken)))
        if quota is not None and scope == _CUSTOMER and dimension == quota.dimension and window == quota.window:
            # One counter alone prices the overage.
            assert plan is not None
            quota, charge_nano = None, max(-INT64_MAX, min(plan.overage_nano(before_used, used), INT64_MAX))
        if mode is _BLOCK and taken - amount > overrun_micro and dimension == UNITS:
            overrun_micro = taken - amount
    for latch in latches:
        all_counted = False
        line, changed[latch.key] = _latched(latch, counters[latch.key], changed, model)
        ended.append(line)
    if state is HoldState.RELEASED:
        overrun_micro = 0
    corrected = _corrected(hold.rates, state, actual, buckets, now_ms, model, since_ms)
    after = _new(Hold, (tuple(ended), hold.rates, hold.stock))
    return _new(Ending, (after, changed, corrected, charge_nano, overrun_micro, all_counted))


def _corrected(
    rates: Iterable[HeldRate],
    state: HoldState,
    actual: Mapping[str, int],
    buckets: Mapping[BucketKey, BucketRow],
    now_ms: int,
    model: str | None,
    since_ms: int | None,
) -> dict[BucketKey, BucketRow]:
    """The rates of a call that has ended; see ``settle``."""
    corrected: dict[BucketKey, BucketRow] = {}
    is_open = state is HoldState.OPEN
    if not is_open and (state is not HoldState.RELEASED or since_ms is None):
        return corrected
    for key, _, size, charged in rates:
        scope, subject, dimension, per_ms = key
        other = model is not None and scope[-5:] == "model" and model_of(scope, subject) != model
        taken = 0 if other else actual.get(dimension, 0)
        if not is_open and since_ms is not None:
            charged = 0
            taken = buckets_of.decayed(BucketRow(taken, since_ms), size, per_ms, now_ms)
        corrected[key] = buckets_of.correct(buckets[key], size, per_ms, charged, taken, now_ms)
    return corrected


def _latched(
    latch: HeldLine, row: CounterRow, changed: Mapping[CounterKey, CounterRow], model: str | None
) -> tuple[HeldLine, CounterRow]:
    """By the row beside it as this call leaves it: what was counted before a correction is counted anew."""
    others = row.used - (latch.actual or 0)
    taken = 0 if _of_another(latch.key, model) else closing(latch.key, latch.cap, others, changed)
    return latch._replace(actual=taken), CounterRow(others + taken, row.held)


def counted(lines: Iterable[HeldLine], model: str | None, before: Container[CounterKey] = ()) -> tuple[HeldLine, ...]:
    """The lines that a record of this model stands on, and those that were counted on ``before`` it. A latch only where
    the call closed it."""
    return tuple(
        [
            line
            for line in lines
            if line.key in before or (not _of_another(line.key, model) and (line.actual or not is_latch(line.key)))
        ]
    )


def _of_another(key: CounterKey | BucketKey, model: str | None) -> bool:
    """Whether the row counts a model, and not this one."""
    return model is not None and key.scope[-5:] == "model" and model_of(key.scope, key.subject) != model


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
