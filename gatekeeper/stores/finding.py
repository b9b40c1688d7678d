"""Finding single calls by what they have in common. See ``ports.Reports.search_records``.

The rule: a page looks at a bounded number of records, however few pass the filter; where that was too few, it says
where the next page goes on. Calls that did not end well have an index of their own.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from gatekeeper.meters.reading import Outcome
from gatekeeper.ports import RecordFilter, RecordsFound, UsageRecord
from gatekeeper.stores.database import Ask, Database, Rows, Steps
from gatekeeper.stores.rows import CORRECTION, record_of

# Records that one page looks at: some 30 ms of a small machine, and twice that where none of them is in memory.
LOOKED_AT_MAX = 5_000
_FOR_EVER_MS = 2**62


class SqlFinding:
    """Records by a filter."""

    _database: Database

    async def search_records(
        self, wanted: RecordFilter, *, after: tuple[int, str] | None = None, limit: int = 100
    ) -> RecordsFound:
        """See ``ports.Reports``."""
        before_ms, before_id = (_FOR_EVER_MS, "") if after is None else after
        who = {(False, False): "", (True, False): "/customer", (False, True): "/key", (True, True): "/both"}
        ending = who[(wanted.customer_id is not None, wanted.key_id is not None)]
        if _is_odd(wanted):
            ending += "/odd"
        args: dict[str, Any] = {**asdict(wanted), "before_ms": before_ms, "before_id": before_id}
        # One upper bound, and the sharper one: SQLite seeks by one of two and reads up to the other.
        args |= {"limit": limit + 1, "skipped": LOOKED_AT_MAX, "end_ms": min(wanted.end_ms, before_ms + 1)}
        # Every record passes: as many are looked at as are told.
        plain = replace(wanted, customer_id=None, key_id=None, start_ms=0, end_ms=_FOR_EVER_MS) == RecordFilter()

        def work() -> Steps[tuple[Rows, int | None]]:
            yield Ask("read_little")
            if wanted.call_id is not None and after is None:
                names = {"call_id": wanted.call_id, "correction": wanted.call_id + CORRECTION}
                if rows := (yield Ask(f"records_found/named{ending}", {**args, **names, "limit": 2})):
                    return rows, None
            floor = () if plain else (yield Ask(f"records_floor{ending}", args))
            floor_ms = floor[0][0] if floor else None
            asked = args if floor_ms is None else {**args, "start_ms": floor_ms}
            return (yield Ask(f"records_found{ending}", asked)), floor_ms

        rows, floor_ms = await self._database.report(work)
        records = [record_of(row) for row in rows[:limit]]
        if len(rows) > limit:
            return RecordsFound(records, (records[-1].started_ms, records[-1].call_id))
        return RecordsFound(records, None if floor_ms is None else (floor_ms, ""))

    async def find_records(
        self, wanted: RecordFilter, *, after: tuple[int, str] | None = None, limit: int = 100
    ) -> Sequence[UsageRecord]:
        """See ``ports.UsageQuery``: page after page, until there are enough of them."""
        found: list[UsageRecord] = []
        while True:
            page = await self.search_records(wanted, after=after, limit=limit - len(found))
            found += page.records
            after = page.next
            if after is None or len(found) >= limit:
                return found


def _is_odd(wanted: RecordFilter) -> bool:
    """Whether all that is wanted is in the index of calls that did not end well."""
    ended_badly = wanted.outcome not in (None, Outcome.COMPLETE.value)
    return ended_badly or max(wanted.status or 0, (wanted.status_class or 0) * 100) >= 400
