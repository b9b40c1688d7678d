"""What customers want to be told of. See ``ports.Alerts``."""

from collections.abc import Sequence

from gatekeeper.ports.alerts import Alert, Measure
from gatekeeper.rules.limits import Window
from gatekeeper.stores.database import Database, Row, alone


class SqlAlerts:
    """See ``ports.Alerts``."""

    _database: Database

    async def add_alert(self, alert: Alert, most: int) -> bool:
        """False when the customer has ``most`` of them, or this one."""
        # Two at the same moment may be one too many: the bound is there against heaps, not against one.
        work = alone(
            "add_alert",
            id=alert.id,
            customer_id=alert.customer_id,
            measure=alert.measure.value,
            span=alert.window.value,
            threshold=alert.threshold,
            created_ms=alert.created_ms,
            most=most,
        )
        return bool(await self._database.write(work))

    async def alerts(self, customer_id: str) -> Sequence[Alert]:
        """One customer's, in the order in which they were made."""
        return [_alert(row) for row in await self._database.read(alone("alerts", customer_id=customer_id))]

    async def drop_alert(self, customer_id: str, alert_id: str) -> bool:
        """False when this customer has none of that id."""
        return bool(await self._database.write(alone("drop_alert", customer_id=customer_id, id=alert_id)))

    async def alerts_in_use(self, since_ms: int, *, after: str = "", limit: int = 100) -> Sequence[tuple[Alert, int]]:
        """Of customers who called since then, each with the start of the customer's first billing period."""
        rows = await self._database.report(alone("alerts_in_use", since_ms=since_ms, after=after, limit=limit))
        return [(_alert(row[:-1]), row[-1]) for row in rows]

    async def alert_told(self, alert_id: str, window_ms: int) -> None:
        """In the window that began then it was told."""
        await self._database.write(alone("alert_told", id=alert_id, told_ms=window_ms))


def _alert(row: Row) -> Alert:
    return Alert(row[0], row[1], Measure(row[2]), Window(row[3]), row[4], row[5], row[6])
