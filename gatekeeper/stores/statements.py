"""What a customer's period comes to. See ``ports.Statements``. The rule: reports only, and none delays an admission."""

from collections.abc import Mapping, Sequence

from gatekeeper.rules.statements import StatementLine
from gatekeeper.stores.database import Database, alone


class SqlStatements:
    """See ``ports.Statements``."""

    _database: Database

    async def statement_lines(self, customer_id: str, start_ms: int, end_ms: int) -> Sequence[StatementLine]:
        """What was used between two instants for each plan, route and model, the dearest first."""
        work = alone("statement_lines", customer_id=customer_id, start_ms=start_ms, end_ms=end_ms)
        return [StatementLine(*row) for row in await self._database.report(work)]

    async def statement_batches(self, customer_id: str, start_ms: int) -> Mapping[str, int]:
        """Units in the batches of the period that began then, by their state."""
        rows = await self._database.report(alone("statement_batches", customer_id=customer_id, start_ms=start_ms))
        return {row[0]: row[1] for row in rows}

    async def customers_by_plan(self) -> Mapping[str, int]:
        """How many customers that are not disabled each plan has."""
        return {row[0]: row[1] for row in await self._database.report(alone("customers_by_plan"))}
