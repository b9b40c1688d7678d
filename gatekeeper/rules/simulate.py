"""Recorded usage under other plans: what a customer's calls would have been charged, and which ones refused.

The rule: plans that did not change give the charges that were recorded, to the nano-dollar. So where nothing is
counted otherwise, a call is priced where it stood on its counter; only where units differ or calls fall away is a
counter kept anew. Memory grows with periods, not with calls.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gatekeeper.money import dollars_to_nano
from gatekeeper.rules.charges import Counted, on_quota
from gatekeeper.rules.limits import Mode, Release, StockLimit, Window
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import DAY_MS, HOUR_MS, window_bounds


class Past(NamedTuple):
    """One record of the customer. ``units_micro`` and ``charge_nano`` are what was counted, ``units_then_micro`` what
    another meter reads (the same where none does). A correction has differences, and names its call in ``corrects``."""

    call_id: str
    started_ms: int
    plan_id: str
    units_micro: int
    charge_nano: int
    counted: tuple[Counted, ...] = ()
    corrects: str | None = None
    units_then_micro: int | None = None


class Period(NamedTuple):
    """One window of a quota. ``overage_*`` are the charges beyond the plan's price, now and then."""

    window: str
    start_ms: int
    units_now_micro: int
    units_then_micro: int
    overage_now_nano: int
    overage_then_nano: int


class Replayed(NamedTuple):
    """One customer. ``fees_*`` are the monthly prices of the billing periods with calls. ``refused`` calls would have
    found the quota used up; ``cut`` ones would have reached its end."""

    calls: int
    periods: tuple[Period, ...]
    fees_now_nano: int
    fees_then_nano: int
    refused: int
    cut: int

    @property
    def now_nano(self) -> int:
        """The whole charge as it was."""
        return self.fees_now_nano + sum(period.overage_now_nano for period in self.periods)

    @property
    def then_nano(self) -> int:
        """The whole charge as it would have been."""
        return self.fees_then_nano + sum(period.overage_then_nano for period in self.periods)


@dataclass(frozen=True, slots=True)
class Terms:
    """``now`` are the plans that are sold, ``then`` those to try, ``moves`` puts the customers of one plan of now on
    another of then. Only records from ``since_ms`` are summed: earlier ones fill the counters."""

    now: Mapping[str, Plan]
    then: Mapping[str, Plan]
    moves: Mapping[str, str] = field(default_factory=dict)
    since_ms: int = 0

    def moved(self, plan_id: str) -> str:
        """Which plan of ``then`` stands for one of now."""
        return self.moves.get(plan_id, plan_id)


def lead_ms(plans: Mapping[str, Plan]) -> int | None:
    """How long before a first record its quota's window may have begun, or the billing period that a quota waits for;
    None: at the beginning of all records."""
    quotas = [plan.quota for plan in plans.values() if plan.quota is not None]
    windows = {Window.BILLING_PERIOD if _waits(quota) else quota.window for quota in quotas}
    if Window.TOTAL in windows:
        return None
    # A day with a change of clocks, a month of 31 days with one: and a little.
    leads = {Window.HOUR: 2 * HOUR_MS, Window.DAY: 26 * HOUR_MS}
    return max((leads.get(window, 32 * DAY_MS) for window in windows), default=0)


@dataclass(slots=True)
class _Counter:
    """One window of a quota, replayed in two ways: ``placed`` prices each call where it stood on the recorded counter,
    ``running`` on a counter that is kept anew. The first is right until something is ``changed``."""

    used: int = 0
    changed: bool = False
    summed: int = 0
    units_now: int = 0
    units_then: int = 0
    overage_now: int = 0
    placed: int = 0
    running: int = 0


class Replay:
    """One customer's records, taken in the order of their admission (a correction after its call)."""

    def __init__(self, terms: Terms, anchor_ms: int) -> None:
        self._terms = terms
        self._anchor_ms = anchor_ms
        self._counters: dict[tuple[str, int], _Counter] = {}
        self._fees: dict[int, tuple[int, int]] = {}
        # Refused calls of the latest instant: only a correction, which follows at once, asks for them.
        self._refused: tuple[int, set[str]] = (0, set())
        # Of each billing period the windows in which a quota that waits for its end was used up.
        self._closed: dict[int, set[tuple[str, int]]] = {}
        self._calls = self._refusals = self._cuts = 0

    def take(self, past: Past) -> None:
        """One record. Raises KeyError for a plan that ``Terms.then`` has not."""
        terms = self._terms
        then = terms.then[terms.moved(past.plan_id)]
        now = terms.now.get(past.plan_id)
        summed = past.started_ms >= terms.since_ms
        if summed and past.corrects is None:
            self._calls += 1
            self._fee(past.started_ms, now, then)
        line = on_quota(past.counted, then)
        key = self._window(past, now, then, line)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter()
        placed = line is not None and line.used is not None and line.key.start_ms == key[1]
        units = past.units_micro if past.units_then_micro is None else past.units_then_micro
        if units != past.units_micro or (past.units_micro and then.quota is not None and not placed):
            counter.changed = True
        before = counter.used
        refused = self._refuses(past, now, then, before, units)
        if refused:
            units, counter.changed = 0, True
        if then.quota is not None:
            counter.used = max(0, before + units)
            self._latch(past.started_ms, then.quota, key, counter.used)
        if not summed:
            return
        counter.summed += 1
        counter.units_now += past.units_micro
        counter.units_then += units
        counter.overage_now += past.charge_nano
        counter.running += then.overage_nano(before, counter.used)
        if placed and line is not None and line.used is not None:
            counter.placed += then.overage_nano(line.used - line.taken, line.used)

    def finish(self) -> Replayed:
        """The sums, periods in order."""
        periods = tuple(
            Period(
                window,
                start_ms,
                counter.units_now,
                counter.units_then,
                counter.overage_now,
                counter.running if counter.changed else counter.placed,
            )
            for (window, start_ms), counter in sorted(self._counters.items(), key=lambda item: (item[0][1], item[0][0]))
            if counter.summed
        )
        fees_now, fees_then = (sum(fees[side] for fees in self._fees.values()) for side in (0, 1))
        return Replayed(self._calls, periods, fees_now, fees_then, self._refusals, self._cuts)

    def _window(self, past: Past, now: Plan | None, then: Plan, line: Counted | None) -> tuple[str, int]:
        """The quota's window of a call: the recorded one where the quota is counted as it was (an anchor or a plan may
        have been changed since), else as it would be today."""
        quota = then.quota
        window = Window.BILLING_PERIOD if quota is None else quota.window
        if line is not None and now is not None and _same_window(now.quota, quota):
            return window, line.key.start_ms
        zone = "UTC" if quota is None else quota.zone
        start_ms, _ = window_bounds(window, past.started_ms, zone=zone, anchor_ms=self._anchor_ms)
        return window, start_ms

    def _fee(self, started_ms: int, now: Plan | None, then: Plan) -> None:
        """The last plan in a period names its price."""
        start_ms = self._period_ms(started_ms)
        fee_then = dollars_to_nano(then.monthly_price)
        self._fees[start_ms] = (fee_then if now is None else dollars_to_nano(now.monthly_price), fee_then)

    def _period_ms(self, started_ms: int) -> int:
        return window_bounds(Window.BILLING_PERIOD, started_ms, anchor_ms=self._anchor_ms)[0]

    def _latch(self, started_ms: int, quota: StockLimit, window: tuple[str, int], used: int) -> None:
        """What keeps a quota closed that waits for its billing period; see ``latches``. A correction may open it."""
        if not _waits(quota) or not quota.cap:
            return
        closed = self._closed.setdefault(self._period_ms(started_ms), set())
        if used >= quota.cap:
            closed.add(window)
        else:
            closed.discard(window)

    def _is_closed(self, started_ms: int, quota: StockLimit) -> bool:
        return _waits(quota) and bool(self._closed.get(self._period_ms(started_ms)))

    def _refuses(self, past: Past, now: Plan | None, then: Plan, used: int, units: int) -> bool:
        """Whether the new quota is used up before the call. What its own quota admitted is not refused by one that is
        no tighter: calls that ran beside each other may have passed it together."""
        if self._refused[0] != past.started_ms:
            self._refused = (past.started_ms, set())
        if past.corrects is not None:
            return past.corrects in self._refused[1]
        quota = then.quota
        if quota is None or quota.mode not in (Mode.BLOCK, Mode.SOFT) or quota.cap is None or units <= 0:
            return False
        if now is not None and _no_tighter(quota, now.quota):
            return False
        if used < quota.cap and not self._is_closed(past.started_ms, quota):
            self._cuts += used + units > quota.cap and past.started_ms >= self._terms.since_ms
            return False
        self._refused[1].add(past.call_id)
        self._refusals += past.started_ms >= self._terms.since_ms
        return True


def _waits(quota: StockLimit) -> bool:
    return quota.release is Release.BILLING_PERIOD


def _same_window(one: StockLimit | None, other: StockLimit | None) -> bool:
    return one is not None and other is not None and (one.window, one.zone) == (other.window, other.zone)


def _no_tighter(quota: StockLimit, own: StockLimit | None) -> bool:
    if own is None or own.mode not in (Mode.BLOCK, Mode.SOFT) or own.cap is None or quota.cap is None:
        return False
    return _same_window(quota, own) and quota.cap >= own.cap and (_waits(own) or not _waits(quota))
