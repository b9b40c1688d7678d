"""What a plan is, and what usage costs on it. Pure figures: no files, no database."""

from dataclasses import dataclass
from decimal import Decimal

from gatekeeper.money import Price, dollars_to_nano
from gatekeeper.rules.limits import Mode, RateLimit, StockLimit

# As ``Plan.on_cancel``: the customer is disabled.
DISABLE = "disable"


@dataclass(frozen=True, slots=True)
class Example:
    """A promise that ``gatekeeper check`` executes: so many units in one period are charged exactly so.

    ``charge`` None means that the usage must be refused (a blocked quota).
    """

    units_micro: int
    charge: Decimal | None
    name: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a customer bought. ``overage`` prices each unit above ``quota.cap`` where the quota's mode is OVERAGE.

    ``limits`` and ``rates`` hold for each subject of their scope by itself; those that hold for some by name stand in
    ``subjects``, as (name of the limit, subject).
    """

    id: str
    name: str
    monthly_price: Decimal
    quota: StockLimit | None
    overage: Price | None = None
    limits: tuple[StockLimit, ...] = ()
    rates: tuple[RateLimit, ...] = ()
    clamp_output: bool = False
    stripe_price: str | None = None
    metered_price: str | None = None
    examples: tuple[Example, ...] = ()
    # Chains of models, the dearest first: what serves instead where a soft limit asks for it.
    downgrade: tuple[tuple[str, ...], ...] = ()
    # What becomes of a customer whose subscription has ended: another plan, or DISABLE; None: [keys] default_plan.
    on_cancel: str | None = None
    trial_days: int = 0
    subjects: tuple[tuple[str, str], ...] = ()

    def named(self, limit: StockLimit | RateLimit) -> str | None:
        """The subject that one of its limits or rates is for; None: each of its scope."""
        return next((subject for name, subject in self.subjects if name == limit.name), None)

    def admits(self, units_micro: int) -> bool:
        """Whether so much use in one period can pass the quota."""
        quota = self.quota
        if quota is None or quota.cap is None or quota.mode not in (Mode.BLOCK, Mode.SOFT):
            return True
        return units_micro <= quota.cap

    @property
    def priced_quota(self) -> StockLimit | None:
        """The quota whose counter prices the overage: the customer's, in mode OVERAGE."""
        quota = self.quota
        return quota if quota is not None and quota.mode is Mode.OVERAGE else None

    def overage_nano(self, before_micro: int, after_micro: int) -> int:
        """What a step of the quota counter from ``before`` to ``after`` costs above the included units."""
        quota = self.quota
        if self.overage is None or quota is None or quota.cap is None:
            return 0
        cap = quota.cap
        if after_micro <= cap and before_micro <= cap:
            return 0
        return self.overage.step_nano(max(0, before_micro - cap), max(0, after_micro - cap))

    def period_charge_nano(self, units_micro: int) -> int:
        """The whole of one period: the monthly price and the overage of ``units_micro`` millionths of a unit."""
        return dollars_to_nano(self.monthly_price) + self.overage_nano(0, units_micro)
