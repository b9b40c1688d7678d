"""Looking back at the ledger: the doctor's figures, and records with the counters they counted on. See ``ports.Audit``.

The rule: it never writes, and each method asks one snapshot, so that a gateway that runs meanwhile disturbs no sum.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gatekeeper.ports import Entry, Holding
from gatekeeper.rules.diagnosis import Figures, Found, Odd, OffCounter, OffCustomer, RouteMarks
from gatekeeper.rules.limits import CounterKey
from gatekeeper.stores.database import Ask, Database, Rows, Steps, alone
from gatekeeper.stores.migrate import applied_migrations, migrations
from gatekeeper.stores.rows import entry_of, holding_of


class SqlAudit:
    """See ``ports.Audit``."""

    _database: Database

    async def schema(self) -> tuple[int, int]:
        """(the newest migration of the database, the newest that this code knows)."""
        applied = await self._database.report(applied_migrations)
        return max(applied, default=0), len(migrations())

    async def figures(self, since_ms: int, overdue_ms: int, *, unbilled_ms: int = 0, limit: int = 20) -> Figures:
        """All that ``diagnosis`` asks for, in one transaction that only reads. It reads every record."""
        args = {"since_ms": since_ms, "overdue_ms": overdue_ms, "unbilled_ms": unbilled_ms, "limit": limit}
        return await self._database.report(lambda: _figures(args))

    async def entries(self, call_id: str) -> Sequence[Entry]:
        """The record of a call, then its correction where there is one."""
        return [entry_of(row) for row in await self._database.report(alone("entries", call_id=call_id))]

    async def holding(self, call_id: str) -> Holding | None:
        """The hold of a call in flight, or of one that was recovered in the last days."""
        rows = await self._database.report(alone("holding", call_id=call_id))
        return holding_of(rows[0]) if rows else None

    async def plans_used(self, start_ms: int, end_ms: int) -> Sequence[str]:
        """The ids of the plans of the records between two instants, in order."""
        rows = await self._database.report(alone("plans_used", start_ms=start_ms, end_ms=end_ms))
        return [row[0] for row in rows]

    async def next_user(self, after: str) -> tuple[str, int] | None:
        """The first customer (id, start of the first billing period) after an id who has any records."""
        rows = await self._database.report(alone("next_user", after=after))
        return (rows[0][0], rows[0][1]) if rows else None

    async def history(
        self, customer_id: str, start_ms: int, end_ms: int, *, after: tuple[int, str] | None = None, limit: int = 1_000
    ) -> Sequence[Entry]:
        """A page of a customer's records, in the order of their admission."""
        after_ms, after_id = after if after is not None else (start_ms, "")
        work = alone(
            "history",
            customer_id=customer_id,
            start_ms=max(start_ms, after_ms),
            end_ms=end_ms,
            after_ms=after_ms,
            after_id=after_id,
            limit=limit,
        )
        return [entry_of(row) for row in await self._database.report(work)]

    async def latest(self, before: tuple[int, str], *, limit: int = 100) -> Sequence[Entry]:
        """A page of everybody's records before a place (``started_ms`` and ``call_id``), latest admission first."""
        work = alone("latest", before_ms=before[0], before_id=before[1], limit=limit)
        return [entry_of(row) for row in await self._database.report(work)]


def _figures(args: Mapping[str, Any]) -> Steps[Figures]:
    ((records, corrections, counters, owed),) = yield Ask("counts")
    ((batches, batch_units, dead),) = yield Ask("batch_counts")
    ((open_holds, oldest_ms, expiry_ms, recovered),) = yield Ask("holds_now")
    held = yield Ask("held_now")
    ((whole_days, _),) = yield Ask("summed_up")
    found: dict[str, Rows] = {}
    for query in _ASKED:
        found[query] = yield Ask(query, args)
    routes = yield Ask("marks_by_route", args)
    return Figures(
        records=records,
        corrections=corrections,
        counters=counters,
        owed=owed,
        batches=batches,
        batch_units=batch_units,
        dead_batches=dead,
        unbilled=_odd(found["unbilled"], lambda row: f"owes what no batch has since {row[1]}"),
        strange_batches=_odd(found["strange_batches"]),
        open_holds=open_holds,
        oldest_ms=oldest_ms,
        expiry_ms=expiry_ms,
        recovered_holds=recovered,
        held=tuple((dimension, amount) for dimension, amount in held),
        overdue=_odd(found["overdue_holds"], lambda row: f"has expired at {row[1]}"),
        ghosts=_odd(found["ghost_holds"]),
        off_counters=(
            _total(found["unbalanced_counters"]),
            tuple(OffCounter(CounterKey(*row[:5]), *row[5:9]) for row in found["unbalanced_counters"]),
        ),
        unlike_counters=(
            _total(found["unlike_counters"]),
            tuple(OffCounter(CounterKey(*row[:5]), row[5], 0, row[6], 0) for row in found["unlike_counters"]),
        ),
        lines=_odd(found["strange_lines"]),
        off_customers=(
            _total(found["unbalanced_customers"]),
            tuple(OffCustomer(*row[:3]) for row in found["unbalanced_customers"]),
        ),
        strange_owed=_odd(found["strange_owed"]),
        strange_figures=_odd(found["strange_figures"]),
        strange_marks=_odd(found["strange_marks"]),
        strange_corrections=_odd(found["strange_corrections"]),
        whole_days=whole_days,
        strange_sums=_odd(found["strange_sums"]),
        routes=tuple(RouteMarks(*row) for row in routes),
    )


_ASKED = (
    "overdue_holds",
    "ghost_holds",
    "unbalanced_counters",
    "unlike_counters",
    "strange_lines",
    "unbalanced_customers",
    "strange_owed",
    "unbilled",
    "strange_batches",
    "strange_figures",
    "strange_marks",
    "strange_corrections",
    "strange_sums",
)


def _total(rows: Rows) -> int:
    """The last column says how many rows there are, of which these are the first."""
    return rows[0][-1] if rows else 0


def _odd(rows: Rows, what: Callable[[Sequence[Any]], str] = lambda row: row[1]) -> Found:
    return Found(_total(rows), tuple(Odd(row[0], what(row)) for row in rows))
