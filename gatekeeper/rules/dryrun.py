"""Recorded calls read by another expression: what each customer would have been charged, before it charges anybody.

The rule: the difference is that of the customer's whole periods until the last of these calls: what was counted then,
moved by what would be counted otherwise, at today's prices. What cannot be read again stays as it was, and is counted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gatekeeper.rules.charges import on_quota
from gatekeeper.rules.limits import Mode
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.simulate import Past


class Changed(NamedTuple):
    """One customer. ``unread`` calls could not be read again and count as they did. ``refused`` calls would have found
    a quota used up. ``unplaced`` calls differ, but where they stood on their counter was not noted: their charge is as
    it was."""

    customer_id: str
    calls: int
    unread: int
    unplaced: int
    refused: int
    units_now_micro: int
    units_then_micro: int
    charge_now_nano: int
    charge_then_nano: int

    @property
    def difference_nano(self) -> int:
        """What the customer would pay more."""
        return self.charge_then_nano - self.charge_now_nano


@dataclass(slots=True)
class _Counter:
    """One window of a quota: the highest that was noted, and by how much it would be another figure by now."""

    plan: Plan
    used: int = 0
    shift: int = 0

    def difference_nano(self) -> int:
        then = self.plan.overage_nano(0, max(0, self.used + self.shift))
        return then - self.plan.overage_nano(0, self.used)


@dataclass(slots=True)
class _Customer:
    calls: int = 0
    unread: int = 0
    unplaced: int = 0
    refused: int = 0
    units_now: int = 0
    units_then: int = 0
    charge_now: int = 0
    counters: dict[tuple[str, int], _Counter] = field(default_factory=dict)


class DryRun:
    """Takes the calls of many customers, each customer's in the order of their admission."""

    def __init__(self, plans: Mapping[str, Plan]) -> None:
        self._plans = plans
        self._customers: dict[str, _Customer] = {}

    def take(self, customer_id: str, past: Past) -> None:
        """One call; no corrections."""
        assert past.corrects is None
        one = self._customers.setdefault(customer_id, _Customer())
        units = past.units_micro if past.units_then_micro is None else past.units_then_micro
        one.calls += 1
        one.unread += past.units_then_micro is None
        one.units_now += past.units_micro
        one.charge_now += past.charge_nano
        one.units_then += self._count(one, past, units)

    def customers(self) -> list[Changed]:
        """Each with its sums, the largest difference first."""
        found = [
            Changed(
                customer_id,
                one.calls,
                one.unread,
                one.unplaced,
                one.refused,
                one.units_now,
                one.units_then,
                one.charge_now,
                one.charge_now + sum(counter.difference_nano() for counter in one.counters.values()),
            )
            for customer_id, one in self._customers.items()
        ]
        return sorted(
            found,
            key=lambda one: (
                -abs(one.difference_nano),
                -abs(one.units_then_micro - one.units_now_micro),
                one.customer_id,
            ),
        )

    def _count(self, one: _Customer, past: Past, units: int) -> int:
        """What the call would have counted."""
        plan = self._plans.get(past.plan_id)
        line = on_quota(past.counted, plan)
        if plan is None or plan.quota is None or line is None or line.used is None:
            one.unplaced += units != past.units_micro and (plan is None or plan.quota is not None)
            return units
        counter = one.counters.setdefault((past.plan_id, line.key.start_ms), _Counter(plan))
        quota, before = plan.quota, line.used - line.taken
        blocks = quota.mode in (Mode.BLOCK, Mode.SOFT) and quota.cap is not None
        # What was admitted beyond its cap (calls that ran beside each other) is not refused now either.
        if blocks and quota.cap is not None and units > 0 and before < quota.cap <= before + counter.shift:
            one.refused += 1
            units = 0
        counter.used = max(counter.used, line.used)
        counter.shift += units - past.units_micro
        return units
