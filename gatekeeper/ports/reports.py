"""What dashboards and the admin API ask: activity of a period, its history, what it is told apart by, and single
calls."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gatekeeper.ports.ledger import RecordFilter, UsageRecord
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import Activity, Overview, SpendBy


@dataclass(frozen=True, slots=True)
class RecordsFound:
    """A page of records, latest first, and where the next one begins (``started_ms`` and ``call_id``); None: there are
    no more. A page may be short, or empty, and have a next one: so many records are looked at for one page at most."""

    records: Sequence[UsageRecord]
    next: tuple[int, str] | None


class Reports(Protocol):
    """Bounds and scopes as of ``Spending``. Each is one snapshot, the same to the digit as adding the records up, and
    reads sums of closed hours and days where there are any. Each raises Fault."""

    async def overview(self, start_ms: int, end_ms: int) -> Overview:
        """All calls of a period."""
        ...

    async def activity(self, scope: Scope, subject: str, start_ms: int, end_ms: int) -> Activity:
        """All calls of a subject."""
        ...

    async def series(
        self, scope: Scope, subject: str, start_ms: int, end_ms: int, step_ms: int
    ) -> Sequence[tuple[int, Activity]]:
        """(start, sums) of each step of the period, also of those without calls. Steps that are whole hours, from a
        whole hour on, are quick; others read all records of the period. Raises ValueError for more than 2,000 steps."""
        ...

    async def breakdown(
        self, by: SpendBy, scope: Scope, subject: str, start_ms: int, end_ms: int, *, limit: int = 100
    ) -> Sequence[Activity]:
        """As ``Spending.spend_by``."""
        ...

    async def search_records(
        self, wanted: RecordFilter, *, after: tuple[int, str] | None = None, limit: int = 100
    ) -> RecordsFound:
        """Calls as they were appended, those before ``after``. However few pass the filter, a bounded number of records
        is looked at."""
        ...


class Rollups(Protocol):
    """Making those sums, in the background: see stores/rolling.py. Each method raises Fault."""

    async def elect_roller(self, owner: str, now_ms: int, lease_ms: int) -> bool:
        """Whether ``owner`` is the one process that makes them; asked again by the same, it stays."""
        ...

    async def roll_fence(self) -> tuple[int, int]:
        """(the oldest transaction that may be under way, the next one): what was under way when the second was ``n`` is
        over when the first is ``n``."""
        ...

    async def roll(self, safe_ms: int, *, steps: int = 8) -> int:
        """Sum up some hours and days that ended before ``safe_ms``, late ones first, then the latest; returns how many:
        fewer than ``steps`` means that there is nothing left to do."""
        ...
