"""Rate limits as leaky buckets: a bucket of ``cap`` drains by ``cap`` every ``per_ms`` milliseconds.

The law: what is admitted in any interval of T milliseconds is at most ``cap + cap * T / per_ms``. Every rounding is
against the caller, by less than one stored unit. A clock that goes backwards drains nothing.
"""

from gatekeeper.errors import LimitState
from gatekeeper.rules.limits import BucketKey, BucketRow, RateLine

# A BIGINT. A debt is kept at most so large, because the database cannot store more.
INT64_MAX = 2**63 - 1
# As quick as a tuple: a class of named fields takes two to four times as long to call.
_new = tuple.__new__
_PERIODS = {1_000: "second", 60_000: "minute", 3_600_000: "hour", 86_400_000: "day"}


def decayed(row: BucketRow, cap: int, per_ms: int, now_ms: int) -> int:
    """What is left in the bucket at ``now_ms``."""
    spent, at_ms = row
    if spent == 0 or now_ms <= at_ms:
        return spent
    spent -= cap * (now_ms - at_ms) // per_ms
    return max(0, spent)


def passes(line: RateLine) -> bool:
    """Whether the line can ever pass: what is known for sure fits an empty bucket, and a cap of 0 is none."""
    return line.cap > 0 and line.least <= line.cap


def charge(row: BucketRow, line: RateLine, now_ms: int) -> tuple[BucketRow, int, LimitState] | None:
    """The bucket with the line's amount in it, that amount, and the limit as it then stands; None when it does not fit
    now. In one step, because every call comes by with each of its rates."""
    key, cap, amount = line.key, line.cap, line.amount
    scope, _, dimension, per_ms = key
    spent, at_ms = row
    if amount > cap:
        amount = cap
    if now_ms <= at_ms:
        # The time of the row never goes back: else a clock that does would drain the same span twice.
        spent += amount
    else:
        # As in ``decayed``.
        spent -= cap * (now_ms - at_ms) // per_ms
        spent = amount if spent < 0 else spent + amount
        at_ms = now_ms
    if spent > cap:
        return None
    empty_ms = at_ms + -(-spent * per_ms // cap) if cap else None
    span = _PERIODS.get(per_ms) or f"{per_ms}ms"
    shown = _new(LimitState, (line.limit, scope, dimension, span, cap, spent, 0, empty_ms))
    return _new(BucketRow, (spent, at_ms)), amount, shown


def wanted(line: RateLine) -> int:
    """What the line charges at admission: its estimate, never more than an empty bucket takes."""
    return min(line.cap, line.amount)


def wait_s(row: BucketRow, line: RateLine, now_ms: int) -> int:
    """The least number of whole seconds after which the same line passes if nothing else happens. At least 1."""
    per_ms = line.key.per_ms
    excess = row.spent + wanted(line) - line.cap
    drained_ms = -(-excess * per_ms // line.cap)
    return max(1, -(-(row.at_ms + drained_ms - now_ms) // 1000))


def correct(row: BucketRow, cap: int, per_ms: int, charged: int, actual: int, now_ms: int) -> BucketRow:
    """The bucket when the truth is known: ``actual - charged`` is added, down to 0. It may leave a debt above the cap,
    which delays the next call."""
    spent, at_ms = row
    if now_ms > at_ms:
        # As in ``decayed``.
        spent -= cap * (now_ms - at_ms) // per_ms
        if spent < 0:
            spent = 0
        at_ms = now_ms
    spent += actual - charged
    return _new(BucketRow, (0 if spent < 0 else min(INT64_MAX, spent), at_ms))


def state(line: RateLine, row: BucketRow, now_ms: int) -> LimitState:
    """The limit as it stands at ``now_ms``; it "resets" when the bucket is empty."""
    cap, (scope, _, dimension, per_ms), at_ms = line.cap, line.key, row.at_ms
    spent = decayed(row, cap, per_ms, now_ms)
    empty_ms = max(at_ms, now_ms) + -(-spent * per_ms // cap) if cap else None
    return _new(LimitState, (line.limit, scope, dimension, period(line.key), cap, spent, 0, empty_ms))


def period(key: BucketKey) -> str:
    """The span of a rate in words: ``minute``, ``5000ms``."""
    return _PERIODS.get(key.per_ms) or f"{key.per_ms}ms"
