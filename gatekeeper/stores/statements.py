"""What a customer's period comes to. See ``ports.Statements``. The rule: reports only, and none delays an admission."""

from collections.abc import Mapping, Sequence

from gatekeeper.rules import billing
from gatekeeper.rules.allowances import Counted
from gatekeeper.rules.billing import Owing
from gatekeeper.rules.statements import StatementLine
from gatekeeper.stores.database import Ask, Database, Steps, alone


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

    async def counted(self, customer_id: str, start_ms: int, since_ms: int, now_ms: int) -> Counted:
        """What counts against what a subscription item includes."""
        item = {"customer_id": customer_id, "start_ms": start_ms, "since_ms": since_ms}
        ages = {"grace_ms": billing.SETTLED_GRACE_MS, "old_ms": now_ms - billing.AGE_MAX_MS}

        def work() -> Steps[Counted]:
            units = {row[0]: row[1] for row in (yield Ask("allowance_batches", item))}
            owed = [
                (Owing(plan_id, begin_ms, end_ms, bool(late), bool(old)), micro)
                for plan_id, begin_ms, end_ms, late, old, micro in (
                    yield Ask("allowance_owed", {"customer_id": customer_id, **ages})
                )
            ]
            left = {row[0]: row[1] for row in (yield Ask("residues", {"customer_id": customer_id}))}
            return Counted(units.get("sent", 0), units.get("waiting", 0), owed, left)

        return await self._database.report(work)

    async def batch_charge_nano(self, batch_id: str) -> int | None:
        """What the calls of a batch were charged above what their plan includes."""
        ((rows, nano),) = await self._database.report(alone("batch_charge", batch_id=batch_id))
        return nano if rows else None

    async def customers_by_plan(self) -> Mapping[str, int]:
        """How many customers that are not disabled each plan has."""
        return {row[0]: row[1] for row in await self._database.report(alone("customers_by_plan"))}
