"""What customers want to be told of: their own thresholds, which limit nothing."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from gatekeeper.rules.limits import Window


class Measure(StrEnum):
    """What is compared with the threshold."""

    UNITS = "units"
    CHARGE = "charge"


@dataclass(frozen=True, slots=True)
class Alert:
    """One threshold of one customer. ``threshold`` is in millionths of a unit, or nano-dollars of what use is charged
    with. ``told_ms`` is the start of the window in which it was told last."""

    id: str
    customer_id: str
    measure: Measure
    window: Window
    threshold: int
    created_ms: int
    told_ms: int | None = None


class Alerts(Protocol):
    """The list of them. Each method raises Fault."""

    async def add_alert(self, alert: Alert, most: int) -> bool:
        """False when the customer has ``most`` of them, or this one."""
        ...

    async def alerts(self, customer_id: str) -> Sequence[Alert]:
        """One customer's, in the order in which they were made."""
        ...

    async def drop_alert(self, customer_id: str, alert_id: str) -> bool:
        """False when this customer has none of that id."""
        ...

    async def alerts_in_use(self, since_ms: int, *, after: str = "", limit: int = 100) -> Sequence[tuple[Alert, int]]:
        """Of customers who called since then, in the order of ids: each with the start of the customer's first billing
        period."""
        ...

    async def alert_told(self, alert_id: str, window_ms: int) -> None:
        """In the window that began then it was told."""
        ...
