"""Looking back: for whoever checks, explains and replays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gatekeeper.ports.ledger import UsageRecord
from gatekeeper.rules.charges import Counted
from gatekeeper.rules.diagnosis import Figures
from gatekeeper.rules.limits import CounterKey


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the records as it was appended, with the counters it counted on. ``corrects`` names the call whose
    recovery it corrects: then its figures are differences."""

    record: UsageRecord
    counted: tuple[Counted, ...]
    corrects: str | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """A hold as it stands: what is held on each counter (key, limit, amount). ``state`` is that of ``HoldState``."""

    call_id: str
    customer_id: str
    plan_id: str
    route: str
    model: str | None
    state: str
    started_ms: int
    expires_ms: int
    output_tokens: int
    progress_units_micro: int
    held: tuple[tuple[CounterKey, str, int], ...]


class Audit(Protocol):
    """Looking back, for whoever checks, explains and replays. Nothing here writes; each method reads one snapshot."""

    async def schema(self) -> tuple[int, int]:
        """(the newest migration of the database, the newest that this code knows)."""
        ...

    async def figures(self, since_ms: int, overdue_ms: int, *, unbilled_ms: int = 0, limit: int = 20) -> Figures:
        """All that ``diagnosis`` asks for. Marks are counted from ``since_ms``; a hold that expired before
        ``overdue_ms`` is overdue, and so is what is owed since before ``unbilled_ms`` in no batch; of what is wrong at
        most ``limit`` rows of a kind are told."""
        ...

    async def entries(self, call_id: str) -> Sequence[Entry]:
        """The record of a call, then its correction where there is one."""
        ...

    async def holding(self, call_id: str) -> Holding | None:
        """The hold of a call in flight, or of one that was recovered in the last days."""
        ...

    async def plans_used(self, start_ms: int, end_ms: int) -> Sequence[str]:
        """The ids of the plans of the records between two instants, in order."""
        ...

    async def next_user(self, after: str) -> tuple[str, int] | None:
        """The first customer (id, start of the first billing period) after an id who has any records."""
        ...

    async def history(
        self, customer_id: str, start_ms: int, end_ms: int, *, after: tuple[int, str] | None = None, limit: int = 1_000
    ) -> Sequence[Entry]:
        """A page of a customer's records, in the order of their admission; ``after`` is the last one's ``started_ms``
        and ``call_id``."""
        ...

    async def latest(self, before: tuple[int, str], *, limit: int = 100) -> Sequence[Entry]:
        """A page of everybody's records before a place (``started_ms`` and ``call_id``), latest admission first."""
        ...
