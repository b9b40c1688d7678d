"""Whether one call may be admitted, or go on: all its stock and rate lines fit, or nothing (more) is held.

The law: a grant never makes ``used + held`` pass the cap of a block limit, and it gives the most output that fits.
A cap of None is unlimited, a cap of 0 is none. A limit that is used up admits nothing at all, not even a call that
promises to take nothing: that promise is an estimate. Warn, soft and overage limits count and never refuse.
"""

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from gatekeeper.errors import LimitState
from gatekeeper.rules import rates as buckets_of
from gatekeeper.rules.holds import HeldLine, HeldRate, Hold, held_lines
from gatekeeper.rules.latches import LATCH, is_latch, shown
from gatekeeper.rules.limits import (
    BucketKey,
    BucketRow,
    CounterKey,
    CounterRow,
    Denied,
    Granted,
    Mode,
    RateLine,
    Reason,
    StockLine,
)
from gatekeeper.rules.rates import INT64_MAX

_ZEROS = CounterRow()
_BLOCK = Mode.BLOCK
# As quick as a tuple: a class of named fields takes two to four times as long to call.
_new = tuple.__new__
_EMPTY = BucketRow()


class Decision(NamedTuple):
    """The answer, and what it changes: the hold to store and the rows to write. A denial changes nothing."""

    verdict: Granted | Denied
    hold: Hold | None = None
    counters: Mapping[CounterKey, CounterRow] = MappingProxyType({})
    buckets: Mapping[BucketKey, BucketRow] = MappingProxyType({})


def decide(
    stock: Sequence[StockLine],
    rates: Sequence[RateLine],
    output_tokens: int,
    output_tokens_min: int,
    counters: Mapping[CounterKey, CounterRow],
    buckets: Mapping[BucketKey, BucketRow],
    now_ms: int,
    *,
    rates_now_ms: int | None = None,
) -> Decision:
    """Grant as many of ``output_tokens`` as fit, at least ``output_tokens_min``, or deny.

    ``counters`` and ``buckets`` are the rows as they stand (a missing row is zeros). ``rates_now_ms`` is the instant of
    the clock that dates the buckets, where that is not ``now_ms``. Lines of one order that share a row count once, with
    the largest amount. Of several limits that deny, the one is named that keeps the call out longest, so that waiting
    its Retry-After is enough. Raises ValueError for figures that cannot be an order.
    """
    if not 0 <= output_tokens_min <= output_tokens:
        raise ValueError(f"output tokens between {output_tokens_min} and {output_tokens} are no order")
    clock_ms = now_ms if rates_now_ms is None else rates_now_ms
    granted = output_tokens
    denied: list[Denied] = []
    rows: list[CounterRow] = []
    groups = _twins(stock)
    for line in stock:
        cap, fixed, per_output = line.cap, line.fixed, line.per_output
        if fixed < 0 or per_output < 0 or (cap is not None and cap < 0):
            raise ValueError(f"a negative figure in {line}")
        row = counters.get(line.key, _ZEROS)
        rows.append(row)
        used, others = row
        # As ``_limiting_cap``, ``_most_output``: every call comes by with each of its limits.
        most = INT64_MAX if cap is None or line.mode is not _BLOCK or cap > INT64_MAX else cap
        room = most - used - others
        if groups is not None:
            fits = min([_most_output(twin, room) for twin in groups[line.key]])
        elif fixed > room:
            fits = -1
        else:
            fits = (room - fixed) // per_output if per_output else INT64_MAX
        if fits < output_tokens_min or used >= most:
            least = max([twin.amount(output_tokens_min) for twin in ([line] if groups is None else groups[line.key])])
            denied.append(denied_stock(line, row, least, now_ms))
        elif fits < granted:
            granted = fits
    charged, rated, told = _charged(rates, buckets, clock_ms, denied)
    if denied:
        return Decision(max(denied, key=keeps_out_s))
    changed: dict[CounterKey, CounterRow] = {}
    if groups is None:
        held, states = _stood_on(stock, rows, granted, changed)
    else:
        held = held_lines(stock, granted)
        for mine in held:
            used, others = counters.get(mine.key, _ZEROS)
            changed[mine.key] = _new(CounterRow, (used, others + mine.amount))
        states = stock_states(stock, changed)
    verdict = _new(Granted, (granted, states, told))
    return _new(Decision, (verdict, _new(Hold, (held, rated, tuple(stock))), changed, charged))


def _charged(
    rates: Sequence[RateLine], buckets: Mapping[BucketKey, BucketRow], now_ms: int, denied: list[Denied]
) -> tuple[dict[BucketKey, BucketRow], tuple[HeldRate, ...], tuple[LimitState, ...]]:
    """The buckets with what the lines charge, what that is, and their states. What does not pass is put to ``denied``:
    then nothing of it counts."""
    charged: dict[BucketKey, BucketRow] = {}
    rated: list[HeldRate] = []
    told: list[LimitState] = []
    for rate in rates:
        if rate.amount < 0 or rate.least < 0 or rate.cap < 0 or rate.key[3] <= 0:
            raise ValueError(f"a negative figure in {rate}")
    for rate in _merged(rates):
        key, least, cap = rate.key, rate.least, rate.cap
        bucket = buckets.get(key, _EMPTY)
        after = buckets_of.charge(bucket, rate, now_ms) if cap > 0 and least <= cap else None
        if after is None:
            denied.append(_denied_rate(rate, bucket, now_ms))
        elif not denied:
            charged[key], amount, state = after
            rated.append(_new(HeldRate, (key, rate.limit, cap, amount)))
            told.append(state)
    return charged, tuple(rated), tuple(told)


def _stood_on(
    stock: Sequence[StockLine], rows: Sequence[CounterRow], granted: int, changed: dict[CounterKey, CounterRow]
) -> tuple[tuple[HeldLine, ...], tuple[LimitState, ...]]:
    """``held_lines``, the rows with them, and ``stock_states``, in one step where no two lines share a row."""
    held: list[HeldLine] = []
    states: list[LimitState] = []
    for line, (used, others) in zip(stock, rows, strict=True):
        key, limit, cap = line.key, line.limit, line.cap
        amount = line.fixed + line.per_output * granted
        held.append(_new(HeldLine, (key, limit, cap, line.mode, amount, None)))
        all_held = others + amount
        changed[key] = _new(CounterRow, (used, all_held))
        scope, _, dimension, window, _ = key
        if dimension[:4] == LATCH:
            dimension, window = shown(key)
        states.append(_new(LimitState, (limit, scope, dimension, window, cap, used, all_held, line.ends_ms)))
    return tuple(held), tuple(states)


def extend(
    stock: Sequence[StockLine],
    granted: int,
    output_tokens: int,
    output_tokens_min: int,
    counters: Mapping[CounterKey, CounterRow],
    now_ms: int,
) -> Decision:
    """Hold for as many of ``output_tokens`` as fit on top of the ``granted`` ones, at least ``output_tokens_min``.

    ``stock`` is what the hold was ordered with; ``counters`` hold it. A limit that needs no more for more output cuts
    nothing, however much of it is used. Raises ValueError for figures that cannot be.
    """
    if not 0 <= output_tokens_min <= output_tokens:
        raise ValueError(f"output tokens between {output_tokens_min} and {output_tokens} are no order")
    more = output_tokens
    denied: list[Denied] = []
    own = {line.key: line.amount for line in held_lines(stock, granted)}
    groups = _twins(stock)
    for line in stock:
        if line.fixed < 0 or line.per_output < 0 or (line.cap is not None and line.cap < 0):
            raise ValueError(f"a negative figure in {line}")
        row, twins = counters.get(line.key, _ZEROS), (line,) if groups is None else groups[line.key]
        room = own[line.key] + max(0, _limiting_cap(line) - row.used - row.held)
        fits = min(_most_output(twin, room) for twin in twins) - granted
        if fits < output_tokens_min:
            least = max(twin.amount(granted + output_tokens_min) for twin in twins)
            denied.append(denied_stock(line, row, least, now_ms, own[line.key]))
        more = min(more, fits)
    if denied:
        return Decision(max(denied, key=keeps_out_s))
    held = held_lines(stock, granted + more)
    changed: dict[CounterKey, CounterRow] = {}
    for mine in held:
        row = counters.get(mine.key, _ZEROS)
        changed[mine.key] = CounterRow(row.used, row.held - own[mine.key] + mine.amount)
    return Decision(Granted(more, stock_states(stock, changed)), Hold(held, (), tuple(stock)), changed)


def stock_states(lines: Iterable[StockLine], counters: Mapping[CounterKey, CounterRow]) -> tuple[LimitState, ...]:
    """Each line's limit as its counter stands."""
    return tuple([_stock_state(line, counters.get(line.key, _ZEROS)) for line in lines])


def rate_states(
    lines: Iterable[RateLine], buckets: Mapping[BucketKey, BucketRow], now_ms: int
) -> tuple[LimitState, ...]:
    """Each line's rate as its bucket stands at ``now_ms``."""
    return tuple([buckets_of.state(line, buckets.get(line.key, _EMPTY), now_ms) for line in lines])


def _twins(stock: Sequence[StockLine]) -> dict[CounterKey, list[StockLine]] | None:
    """The lines of each row; None where no two share one, which is the usual case."""
    if len(stock) < 2 or len({line.key for line in stock}) == len(stock):
        return None
    groups: dict[CounterKey, list[StockLine]] = {}
    for line in stock:
        groups.setdefault(line.key, []).append(line)
    return groups


def _merged(rates: Sequence[RateLine]) -> Sequence[RateLine]:
    """One line for each bucket: where two share one, the smaller cap and the larger amounts."""
    if len(rates) < 2 or len({line.key for line in rates}) == len(rates):
        return rates
    merged: dict[BucketKey, RateLine] = {}
    for line in rates:
        twin = merged.get(line.key, line)
        name = line.limit if line.cap < twin.cap else twin.limit
        merged[line.key] = RateLine(
            line.key, name, min(line.cap, twin.cap), max(line.amount, twin.amount), max(line.least, twin.least)
        )
    return list(merged.values())


def _limiting_cap(line: StockLine) -> int:
    """What the counter may grow to: the cap where it blocks, and never more than the database can store."""
    cap = line.cap
    return INT64_MAX if cap is None or line.mode is not _BLOCK or cap > INT64_MAX else cap


def _most_output(line: StockLine, room: int) -> int:
    """The most output tokens with which the line's amount fits the room; -1 when it does not fit with none."""
    if line.fixed > room:
        return -1
    return (room - line.fixed) // line.per_output if line.per_output else INT64_MAX


def _stock_state(line: StockLine, row: CounterRow) -> LimitState:
    key = line.key
    dimension, window = key.dimension, key.window
    if dimension[:4] == LATCH:
        dimension, window = shown(key)
    return _new(LimitState, (line.limit, key.scope, dimension, window, line.cap, row.used, row.held, line.ends_ms))


def denied_stock(line: StockLine, row: CounterRow, least: int, now_ms: int, own: int = 0) -> Denied:
    """USED: what was used leaves nothing. HELD: it would fit were nothing held by others. EXCEEDS_LIMIT: it would not.
    ``own`` is what the call itself holds of the ``least`` that it needs."""
    cap = _limiting_cap(line)
    shortfall = max(0, row.used + row.held - own + least - cap)
    if row.used < cap and row.used + least <= cap:
        return Denied(Reason.HELD, _stock_state(line, row), shortfall, 1)
    reason = Reason.USED if row.used >= cap else Reason.EXCEEDS_LIMIT
    if reason is Reason.USED and is_latch(line.key):
        reason = Reason.CLOSED
    # A new window helps only a call that fits an empty one.
    turns = line.ends_ms is not None and cap > 0 and least <= cap
    retry_s = max(1, -(-(line.ends_ms - now_ms) // 1000)) if turns and line.ends_ms is not None else None
    return Denied(reason, _stock_state(line, row), shortfall, retry_s)


def _denied_rate(line: RateLine, row: BucketRow, now_ms: int) -> Denied:
    if not buckets_of.passes(line):
        short = max(0, line.least - line.cap)
        return Denied(Reason.EXCEEDS_RATE, buckets_of.state(line, row, now_ms), short, None)
    spent = buckets_of.decayed(row, line.cap, line.key.per_ms, now_ms)
    shortfall = spent + buckets_of.wanted(line) - line.cap
    wait_s = buckets_of.wait_s(row, line, now_ms)
    return Denied(Reason.RATE, buckets_of.state(line, row, now_ms), shortfall, wait_s)


def keeps_out_s(denied: Denied) -> float:
    """How long a denial keeps its call out; for ever where no wait helps."""
    return float("inf") if denied.retry_after_s is None else denied.retry_after_s
