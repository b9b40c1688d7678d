"""What happened, on its way to those who are to be told."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gatekeeper.rules.notices import Claim, Delivery, Event, Subscription, Wanted


class Events(Protocol):
    """Where whoever sees something happen says so. What nobody subscribes to is not written."""

    def tell(self, wanted: Wanted | None) -> None:
        """From now on these events are written, by ``emit`` and with every settle; None: none at all."""
        ...

    async def emit(self, kind: str, event_id: str, customer_id: str | None, content: Mapping[str, Any]) -> bool:
        """Write an event, durably; True when it is new. ``event_id`` (printable ASCII without blanks and points, at
        most 200) names what happened, so that it is told once. Raises Fault."""
        ...

    async def first(self, name: str, now_ms: int, until_ms: int) -> bool:
        """Whether this caller is the first of all processes to ask for ``name``; nobody else is until then. Raises
        Fault."""
        ...


class Deliveries(Protocol):
    """The queue of what is to be told, shared by all processes. Each method is one transaction; each raises Fault."""

    async def due(self, targets: Sequence[str], now_ms: int) -> tuple[bool, Sequence[str]]:
        """(whether events wait to be handed out, the targets for which deliveries are due). Only reads."""
        ...

    async def fan_out(self, subscriptions: Sequence[Subscription], now_ms: int, *, limit: int = 200) -> int:
        """Hand the oldest new events out to the targets that take them; returns how many events that were."""
        ...

    async def claim(self, target: str, now_ms: int, lease_ms: int, limit: int) -> Sequence[Claim]:
        """Take deliveries that are due, the oldest first. Nobody else gets them until ``lease_ms``; who has neither
        reported them delivered nor failed by then has lost them."""
        ...

    async def delivered(self, claim: Claim, now_ms: int) -> None:
        """The target has it."""
        ...

    async def failed(self, claim: Claim, error: str, next_ms: int | None, now_ms: int) -> None:
        """The target does not have it: try again at ``next_ms``, or give up (None). Does nothing when the lease was
        lost to somebody else."""
        ...

    async def prune(self, now_ms: int, *, limit: int = 500, nobody: bool = False) -> int:
        """Forget what is old, at most ``limit`` rows of each sort; returns how many there were of the largest. With
        ``nobody`` also events that wait to be handed out: there is no target."""
        ...

    async def deliveries(
        self,
        *,
        event_id: str | None = None,
        state: str | None = None,
        target: str | None = None,
        after: tuple[int, str, str] | None = None,
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """Latest event first; ``after`` is the ``created_ms`` and id of the event of the last one seen, and its
        target."""
        ...

    async def event(self, event_id: str) -> Event | None:
        """One event, or None."""
        ...

    async def retry(self, now_ms: int, *, event_id: str | None = None, target: str | None = None) -> int:
        """Begin anew, at once, with what was given up or waits after a failure; returns how many deliveries. Without
        an event: all that were given up."""
        ...
