"""Mail that the gateway itself writes to one person."""

from typing import Protocol


class Mail(Protocol):
    """A mail server."""

    @property
    def is_there(self) -> bool:
        """Whether there is one: ``[mail]``."""
        ...

    async def send(self, to: str, subject: str, text: str) -> None:
        """Hand one mail over; raises Fault when that cannot be done. ``subject`` is one line."""
        ...
