"""What the billing room asks of a biller's account when plans are brought into it."""

from collections.abc import Collection
from typing import NamedTuple, Protocol

from gatekeeper.rules.drift import Account, Change


class Made(NamedTuple):
    """What a change has touched. ``secret`` is told once, when a webhook endpoint is made."""

    id: str
    secret: str | None = None

    def __repr__(self) -> str:
        return f"Made({self.id})"


class Catalogue(Protocol):
    """Products and prices of one account. Methods raise ``billing.NotTaken``, ``billing.Throttled`` and Fault as those
    of ``Biller`` do."""

    @property
    def live(self) -> bool:
        """Whether real money moves there."""
        ...

    async def read(self, names: Collection[str]) -> Account:
        """All that is ours, and the prices of these ids or lookup keys. Raises ``billing.NotTaken`` also where an
        object is of the other mode than the key."""
        ...

    async def perform(self, change: Change, idempotency_key: str) -> Made:
        """Carry out one change. The key is only sent where something is made: the same key makes one thing, and repeats
        its first answer for a day, whatever has become of it. Cancelled: the outcome is unknown."""
        ...

    async def shown(self, endpoint: Change, endpoint_id: str) -> None:
        """Remember in the account that a person has seen the secret of the endpoint that this change made."""
        ...
