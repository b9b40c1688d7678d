"""What the dispatcher asks of a way to tell somebody, and how such a way says that it could not."""

from typing import Protocol

from gatekeeper.errors import GatekeeperError
from gatekeeper.ports import Customer
from gatekeeper.rules.notices import Event


class Undelivered(GatekeeperError):
    """A target did not take an event. The message goes into the database and to people: it holds no secret and no URL.
    ``final`` means that trying again cannot help."""

    def __init__(self, message: str, *, final: bool = False) -> None:
        self.final = final
        super().__init__(message)


class Notifier(Protocol):
    """One way to one target."""

    async def send(self, event: Event, customer: Customer | None) -> None:
        """Returns when the target has taken the event, which is about that customer. Raises Undelivered. Cancelled:
        the target may have it."""
        ...

    async def close(self) -> None:
        """Close what is open."""
        ...
