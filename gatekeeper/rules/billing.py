"""How usage becomes batches for a biller, when one is sent (again), and what follows from an answer. Pure figures.

The rule: a batch is fixed for ever before anything of it is sent (customer, meter, period, value, instant), so that a
resend is harmless; what is not a whole unit is carried to the next batch, so that all batches add up to the ledger.
Bounds are Stripe's, for meter events: a whole number of at most 15 digits, not older than 35 days, not more than 5
minutes ahead, an identifier that is refused a second time for at least 24 hours.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, NamedTuple

from gatekeeper.errors import Fault, FaultKind, GatekeeperError
from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.rules.limits import Window
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import DAY_MS, HOUR_MS, window_bounds

MINUTE_MS = 60_000
# Stripe finalizes an invoice an hour after the period's end: what is settled within 50 minutes is frozen within 5 more
# (flush_interval_s is at most that) and has 5 to arrive.
SETTLED_GRACE_MS = 50 * MINUTE_MS
FROZEN_GRACE_MS = 55 * MINUTE_MS
FINAL_MS = HOUR_MS
AHEAD_MAX_MS = 5 * MINUTE_MS
AGE_MAX_MS = 35 * DAY_MS - HOUR_MS
# A month before it is too late.
AGE_WARNED_MS = 3 * DAY_MS
# The identifier is good for 24 hours; an hour for clocks that differ and for an attempt that takes long.
RESEND_SAFE_MS = 23 * HOUR_MS
VALUE_MAX = 10**15 - 1
# Above this age ``/readyz`` says that the outbox is behind.
BACKLOG_BOUND_MS = HOUR_MS
# A report that was accepted and later found wrong, this often, needs a person.
REOPENED_MAX = 3
# In one minute of one customer: more would have 65,536 sums.
_UNKNOWN_MAX = 16
# On what no biller is told of: a plan without a metered price.
UNTOLD = "-"
_FIRST_DELAY_MS = 5_000
_DELAY_GROWTH = 3
_LONGEST_DELAY_MS = HOUR_MS
_SPREAD = 0.2


class BatchState(StrEnum):
    """WAITING is to be sent (again). SENT: the biller has it. DEAD: a person must look. EMPTY: less than a unit, which
    the next batch carries."""

    WAITING = "waiting"
    SENT = "sent"
    DEAD = "dead"
    EMPTY = "empty"


class Reported(StrEnum):
    """What a biller said of a batch. DUPLICATE: it has had it before, which is as good."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"


class NotTaken(GatekeeperError):
    """The biller has understood a batch and refuses it for good. ``public`` is shown to operators; no secrets."""

    def __init__(self, public: str) -> None:
        self.public = public
        super().__init__(public)


class Throttled(Fault):
    """The biller takes no more for now; nothing was acted on."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("biller", FaultKind.PROTOCOL, message, retryable=True)


@dataclass(frozen=True, slots=True)
class Batch:
    """Usage of one customer on one meter in one billing period. ``value`` are whole units; ``carried_micro`` came from
    the batch before it, ``left_micro`` goes to the next. ``late``: some of it was used in an earlier period.

    ``first_sent_ms`` is when it was first sent without a clear no since. ``attempts`` counts, and is the proof of a
    lease. ``account`` is the customer's id at Stripe. ``reopened``: how often it was found wrong after it was accepted.
    """

    id: str
    customer_id: str
    meter: str
    period_start_ms: int
    period_end_ms: int
    value: int
    ts_ms: int
    identifier: str
    state: BatchState
    late: bool
    carried_micro: int
    left_micro: int
    created_ms: int
    next_ms: int
    attempts: int = 0
    reopened: int = 0
    first_sent_ms: int | None = None
    sent_ms: int | None = None
    error: str | None = None
    account: str | None = None


class Owing(NamedTuple):
    """Rows that are owed alike: one plan, one period. ``settled_late``: more than the grace after its end;
    ``too_old``: used so long ago that no biller takes it."""

    plan_id: str
    period_start_ms: int
    period_end_ms: int
    settled_late: bool
    too_old: bool


class Target(NamedTuple):
    """The batch that such rows go into. Sorts in the order of freezing."""

    start_ms: int
    end_ms: int
    meter: str
    too_old: bool
    late: bool


class Next(Enum):
    """What is to be done with a batch that is due."""

    SEND = 1
    COMPARE = 2
    TOO_OLD = 3
    REDATE = 4


class Compared(Enum):
    """What a biller's own sum says of a batch whose fate is unknown."""

    HAS_IT = 1
    HAS_NOT = 2
    UNCLEAR = 3


class Backlog(NamedTuple):
    """What is still to be told. ``oldest_ms`` is when the oldest of it was settled or frozen; None: nothing waits."""

    waiting: int
    dead: int
    unfrozen: int
    oldest_ms: int | None

    def age_s(self, now_ms: int) -> int:
        """How long the oldest has been waiting, in whole seconds."""
        return 0 if self.oldest_ms is None else max(0, now_ms - self.oldest_ms) // 1000

    def is_behind(self, now_ms: int) -> bool:
        """Whether that is longer than any flush explains."""
        return self.age_s(now_ms) * 1000 > BACKLOG_BOUND_MS


def is_metered(plan: Plan) -> bool:
    """Whether a biller is told of each unit: where a price follows from them. A licence alone (Enterprise) has none."""
    return plan.overage is not None or plan.metered_price is not None


def meters_of(plans: Mapping[str, Plan], meter: str) -> dict[str, str | None]:
    """On which meter each plan is reported; None: on none. A plan that is gone is reported as it may have been sold."""
    return {plan_id: meter if is_metered(plan) else None for plan_id, plan in plans.items()}


def target(owing: Owing, meter: str, now_ms: int, anchor_ms: int) -> Target | None:
    """Where these rows are billed: in their own period while its invoice is open, else in the present one. None: not
    yet, their period has not begun by this clock."""
    if owing.period_start_ms > now_ms + AHEAD_MAX_MS:
        return None
    start_ms, end_ms = owing.period_start_ms, owing.period_end_ms
    if owing.too_old:
        return Target(start_ms, end_ms, meter, True, False)
    if not owing.settled_late and now_ms <= end_ms + FROZEN_GRACE_MS:
        return Target(start_ms, end_ms, meter, False, False)
    start_ms, end = window_bounds(Window.BILLING_PERIOD, now_ms, anchor_ms=anchor_ms)
    assert end is not None
    return Target(start_ms, end, meter, False, True)


def whole(carried_micro: int, units: int, rest_micro: int) -> tuple[int, int]:
    """(whole units to report, millionths to carry on) of what was carried and ``units`` and ``rest_micro`` beside it.
    Never reports less than nothing: what a correction took back is carried until use makes up for it."""
    total = carried_micro + units * MICRO_PER_UNIT + rest_micro
    value = max(0, total // MICRO_PER_UNIT)
    return value, total - value * MICRO_PER_UNIT


def stamp(latest_ms: int, period: Target, now_ms: int, items_ms: int = 0) -> int:
    """The instant of a batch: the last use in it, inside its period and never ahead of this clock. What is late gets
    the present. Not before ``items_ms``, since when the subscription has its prices: what was used before and settled
    after would be counted on an item that was invoiced and is gone."""
    ts_ms = now_ms if period.late else min(max(latest_ms, items_ms), now_ms)
    return max(period.start_ms, min(ts_ms, period.end_ms - 1))


def redated(now_ms: int, anchor_ms: int) -> tuple[int, int, int]:
    """(start, end, instant) of a batch that goes to the present period."""
    start_ms, end_ms = window_bounds(Window.BILLING_PERIOD, now_ms, anchor_ms=anchor_ms)
    assert end_ms is not None
    return start_ms, end_ms, now_ms


def objection(value: int, ts_ms: int, now_ms: int) -> str | None:
    """Why no biller would take such a batch; None: it may be sent."""
    if value > VALUE_MAX:
        return f"{value} units are more than the 15 digits that a biller takes"
    if ts_ms < now_ms - AGE_MAX_MS:
        return "it was used more than 35 days ago: 'outbox charge ID' makes an invoice item of it"
    return None


def next_step(batch: Batch, now_ms: int) -> Next:
    """What to do with a batch that is due. The biller refuses an identifier twice for a day only: after that a resend
    could be counted again, so its own sum is asked first. What was never sent until its invoice was closed goes to the
    present period, as what is frozen too late for it does."""
    if objection(batch.value, batch.ts_ms, now_ms) is not None:
        return Next.TOO_OLD
    if batch.first_sent_ms is not None and now_ms - batch.first_sent_ms > RESEND_SAFE_MS:
        return Next.COMPARE
    # Counted nowhere for sure, or it would be counted twice.
    return Next.REDATE if batch.first_sent_ms is None and arrives_late(batch, now_ms) else Next.SEND


def minute_of(ts_ms: int) -> tuple[int, int]:
    """The whole minute around an instant, half-open: summaries are told by minutes."""
    start_ms = ts_ms - ts_ms % MINUTE_MS
    return start_ms, start_ms + MINUTE_MS


def compared(batch: Batch, beside: Iterable[Batch], told: int) -> Compared:
    """Whether the biller, who says ``told`` for the minute of ``batch``, has it. ``beside`` are all batches of that
    customer, meter and minute. Several of unknown fate are told apart where only sums with this one, or only sums
    without it, explain what the biller says."""
    missing, others = told, []
    for one in beside:
        if one.id == batch.id:
            continue
        if one.state is BatchState.SENT:
            missing -= one.value
        elif one.first_sent_ms is not None:
            others.append(one.value)
    if len(others) > _UNKNOWN_MAX:
        return Compared.UNCLEAR
    sums = {0}
    for value in others:
        sums |= {each + value for each in sums}
    with_it, without_it = missing - batch.value in sums, missing in sums
    if with_it is without_it:
        return Compared.UNCLEAR
    return Compared.HAS_IT if with_it else Compared.HAS_NOT


def retry_delay_ms(attempts: int, chance: float, retry_after_s: float | None = None) -> int:
    """How long to wait after so many attempts: 5 s, 15 s, 45 s, up to an hour, and never less than the biller asks for
    (a day at most). ``chance`` in [0, 1) keeps apart what failed together."""
    assert attempts >= 1 and 0 <= chance < 1, (attempts, chance)
    delay_ms = min(_FIRST_DELAY_MS * _DELAY_GROWTH ** min(attempts - 1, 10), _LONGEST_DELAY_MS)
    asked_ms = 0 if retry_after_s is None else int(min(max(retry_after_s, 0.0), 86_400.0) * 1000)
    return int(max(delay_ms, asked_ms) * (1 + _SPREAD * chance))


def arrives_late(batch: Batch, now_ms: int) -> bool:
    """Whether the invoice of its period was closed before the batch arrived."""
    return batch.ts_ms < batch.period_end_ms and now_ms > batch.period_end_ms + FINAL_MS


def batch_content(batch: Batch, why: str | None) -> dict[str, Any]:
    """What is told of a batch, as plain JSON."""
    return {
        "batch": batch.id,
        "customer_id": batch.customer_id,
        "meter": batch.meter,
        "identifier": batch.identifier,
        "period_start_ms": batch.period_start_ms,
        "ts_ms": batch.ts_ms,
        "units": str(batch.value),
        "attempts": batch.attempts,
        "error": why,
    }
