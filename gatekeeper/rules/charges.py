"""What a step of the quota counter costs, with the whole arithmetic: for whoever has to explain a charge.

The rule: nothing here charges. It repeats what ``holds.settle`` and ``plans`` have decided, from what a record says.
"""

from collections.abc import Iterable
from typing import NamedTuple

from gatekeeper.money import Price
from gatekeeper.rules.limits import CounterKey, Scope
from gatekeeper.rules.plans import Plan


class Counted(NamedTuple):
    """What a call took of one stock counter, and how the counter stood afterwards (None: it was not noted)."""

    key: CounterKey
    limit: str
    taken: int
    used: int | None

    @property
    def before(self) -> int | None:
        """How the counter stood before the call was counted."""
        return None if self.used is None else self.used - self.taken


class OverageStep(NamedTuple):
    """From ``before`` to ``after`` on the quota counter: what lies above ``included``, and its price. All amounts in
    millionths of a unit; the charge is the difference of two rounded totals."""

    before_micro: int
    after_micro: int
    included_micro: int
    price: Price

    @property
    def beyond_before_micro(self) -> int:
        """Above what is included, before."""
        return max(0, self.before_micro - self.included_micro)

    @property
    def beyond_after_micro(self) -> int:
        """Above what is included, after."""
        return max(0, self.after_micro - self.included_micro)

    @property
    def charge_nano(self) -> int:
        """The same figure as ``Plan.overage_nano``."""
        return self.price.step_nano(self.beyond_before_micro, self.beyond_after_micro)


def on_quota(lines: Iterable[Counted], plan: Plan | None) -> Counted | None:
    """The line of the customer's quota of a plan; None where the call did not count on it."""
    quota = None if plan is None else plan.quota
    if quota is None:
        return None
    for line in lines:
        key = line.key
        if key.scope == Scope.CUSTOMER and key.dimension == quota.dimension and key.window == quota.window:
            return line
    return None


def overage_step(plan: Plan, before_micro: int, after_micro: int) -> OverageStep | None:
    """The arithmetic of such a step; None where the plan prices no overage."""
    quota = plan.quota
    if plan.overage is None or quota is None or quota.cap is None:
        return None
    return OverageStep(before_micro, after_micro, quota.cap, plan.overage)
