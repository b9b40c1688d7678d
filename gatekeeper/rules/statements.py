"""What one billing period of a customer comes to: the monthly price, what it includes, each line of what lies above.

The rule: nothing is priced here. The lines are sums of what the records were charged; ``expected_nano`` is the same
worked out once from the plan, and both are equal to the digit where one plan held for the whole period.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gatekeeper.money import dollars_to_nano
from gatekeeper.rules.limits import Mode, Window
from gatekeeper.rules.plans import Plan


class StatementLine(NamedTuple):
    """What was used on one plan, route and model."""

    plan_id: str
    route: str
    model: str | None
    requests: int
    units_micro: int
    charge_nano: int


@dataclass(frozen=True, slots=True)
class Statement:
    """One period of one customer. ``fee_nano`` is the monthly price of the present plan, ``included_micro`` what it
    includes (None: unlimited). ``told`` are the units of the period's batches by state, empty where nothing is told.
    ``expected_nano`` None: nothing can be worked out at once, because the plan changed or its quota turns at another
    time."""

    customer_id: str
    plan_id: str
    start_ms: int
    end_ms: int
    fee_nano: int
    included_micro: int | None
    lines: tuple[StatementLine, ...]
    expected_nano: int | None
    told: Mapping[str, int] = field(default_factory=dict)

    @property
    def used_micro(self) -> int:
        """All units of the period."""
        return sum(line.units_micro for line in self.lines)

    @property
    def overage_micro(self) -> int:
        """Units above what is included."""
        return 0 if self.included_micro is None else max(0, self.used_micro - self.included_micro)

    @property
    def overage_nano(self) -> int:
        """What the records were charged."""
        return sum(line.charge_nano for line in self.lines)

    @property
    def total_nano(self) -> int:
        """The monthly price and what was charged above it."""
        return self.fee_nano + self.overage_nano

    @property
    def agrees(self) -> bool:
        """Whether the sum of the charges is what the plan says of the whole; also where that cannot be worked out."""
        return self.expected_nano is None or self.expected_nano == self.total_nano


def statement(
    customer_id: str,
    plan_id: str,
    plan: Plan | None,
    period: tuple[int, int],
    lines: Iterable[StatementLine],
    told: Mapping[str, int],
) -> Statement:
    """The statement of a period. ``plan`` None: it is not on sale any more, and its monthly price is not known here."""
    found = tuple(lines)
    used = sum(line.units_micro for line in found)
    fee = 0 if plan is None else dollars_to_nano(plan.monthly_price)
    included = None if plan is None or plan.quota is None else plan.quota.cap
    expected = None
    if plan is not None and _is_one_sum(plan) and all(line.plan_id == plan_id for line in found):
        expected = plan.period_charge_nano(used)
    return Statement(customer_id, plan_id, *period, fee, included, found, expected, dict(told))


def _is_one_sum(plan: Plan) -> bool:
    """Whether all units of a billing period count on one counter that prices them (or on none that does)."""
    quota = plan.quota
    if plan.overage is None or quota is None:
        return True
    return quota.mode is Mode.OVERAGE and quota.window is Window.BILLING_PERIOD
