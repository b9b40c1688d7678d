"""What was spent: sums over records, what they are told apart by, and their pace. Pure figures."""

from dataclasses import dataclass
from enum import StrEnum

from gatekeeper.rules.windows import HOUR_MS


class SpendBy(StrEnum):
    """What sums are told apart by."""

    DAY = "day"
    HOUR = "hour"
    CUSTOMER = "customer"
    USER = "user"
    AGENT = "agent"
    KEY = "key"
    PLAN = "plan"
    ROUTE = "route"
    MODEL = "model"


class Amount(StrEnum):
    """What a pace is of."""

    COST = "cost"
    CHARGE = "charge"
    UNITS = "units"


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over records, with their corrections. ``part`` is what they were told apart by: a name (users and agents as
    ``customer/name``, None for calls that had none), a UTC day, or the start of an hour in milliseconds as text.
    ``unpriced`` counts the requests whose cost nobody knows."""

    part: str | None = None
    requests: int = 0
    units_micro: int = 0
    charge_nano: int = 0
    cost_nano: int = 0
    unpriced: int = 0

    @property
    def margin_nano(self) -> int:
        """What is charged by use less what providers take; monthly prices are not in it."""
        return self.charge_nano - self.cost_nano

    def per_hour(self, passed_ms: int) -> "Spent":
        """The mean of an hour, rounded down; an hour at least, so that a minute is not taken for a habit."""
        passed_ms = max(HOUR_MS, passed_ms)
        return Spent(
            self.part,
            self.requests * HOUR_MS // passed_ms,
            self.units_micro * HOUR_MS // passed_ms,
            self.charge_nano * HOUR_MS // passed_ms,
            self.cost_nano * HOUR_MS // passed_ms,
            self.unpriced * HOUR_MS // passed_ms,
        )
