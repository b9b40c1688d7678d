"""What operators change while the gateway runs, and what they ask of it."""

from collections.abc import Sequence
from typing import Protocol

from gatekeeper.ports.ledger import CounterState
from gatekeeper.rules.limits import CounterKey, Scope
from gatekeeper.rules.overlays import Overlay, Snapshot
from gatekeeper.rules.spent import Amount, SpendBy, Spent
from gatekeeper.rules.spikes import Pace


class Overlays(Protocol):
    """Limits as operators set them, and their resets. Every change is one transaction; each method raises Fault."""

    async def limits_revision(self) -> int:
        """How often anything was changed: cheap, to be asked often."""
        ...

    async def limits_snapshot(self, since_ms: int) -> Snapshot:
        """All overlays, and the last reset of each count that is not older than ``since_ms`` (or counts in total)."""
        ...

    async def add_overlay(self, overlay: Overlay) -> bool:
        """False when an operator has set a limit on that row."""
        ...

    async def change_overlay(self, overlay: Overlay) -> bool:
        """Name, cap, mode and zone, with the next version; False when it is not (any more) at ``overlay``'s version."""
        ...

    async def drop_overlay(self, overlay: Overlay) -> bool:
        """False when it is not (any more) at ``overlay``'s version."""
        ...

    async def add_reset(self, key: CounterKey, reason: str) -> None:
        """From ``key.start_ms`` on that limit counts anew."""
        ...

    async def top_counters(
        self, scope: str, dimension: str, window: str, start_ms: int, now_ms: int, *, limit: int = 10
    ) -> Sequence[CounterState]:
        """Who used most since ``start_ms``: of each subject the counter that began last, the largest first."""
        ...


class Spending(Protocol):
    """What was spent. Bounds: ``start_ms`` inclusive, ``end_ms`` exclusive, on the time of admission. A scope narrows
    to its ``subject`` (users and agents as ``customer/name``); GLOBAL narrows to nothing."""

    async def spend_total(self, scope: Scope, subject: str, start_ms: int, end_ms: int) -> Spent:
        """All of it."""
        ...

    async def spend_by(
        self, by: SpendBy, scope: Scope, subject: str, start_ms: int, end_ms: int, *, limit: int = 100
    ) -> Sequence[Spent]:
        """Days and hours in order, the last ``limit`` of them; anything else the dearest first."""
        ...

    async def paces(
        self,
        by: Scope,
        amount: Amount,
        scope: Scope,
        subject: str,
        start_ms: int,
        recent_ms: int,
        end_ms: int,
        *,
        least: int,
        limit: int = 100,
    ) -> Sequence[Pace]:
        """What each subject of ``by`` took since ``recent_ms``, where that is at least ``least``, and before it since
        ``start_ms``; the largest first."""
        ...
