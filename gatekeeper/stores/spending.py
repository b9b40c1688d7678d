"""What was spent, told apart by time, subject or model. See ``ports.Spending``.

The rule: reports only. Each is one statement on an index that holds all that it sums, and none delays an admission.
"""

from collections.abc import Sequence
from typing import Any

from gatekeeper.rules.declared import UNDER_CUSTOMER
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import Amount, SpendBy, Spent
from gatekeeper.rules.spikes import Pace
from gatekeeper.rules.windows import HOUR_MS
from gatekeeper.stores.database import Database, Row, alone

_TIMES = (SpendBy.DAY, SpendBy.HOUR)


class SqlSpending:
    """See ``ports.Spending``."""

    _database: Database

    async def spend_total(self, scope: Scope, subject: str, start_ms: int, end_ms: int) -> Spent:
        """All of it."""
        name, who = _of(scope, subject)
        rows = await self._database.report(alone(f"spend_total{name}", start_ms=start_ms, end_ms=end_ms, **who))
        return Spent(*rows[0])

    async def spend_by(
        self, by: SpendBy, scope: Scope, subject: str, start_ms: int, end_ms: int, *, limit: int = 100
    ) -> Sequence[Spent]:
        """Days and hours in order, the last ``limit`` of them; anything else the dearest first."""
        name, who = _of(scope, subject)
        query = f"spend_per/{by}{name}" if by in _TIMES else f"spend_by/{by}{name}"
        work = alone(query, start_ms=start_ms, end_ms=end_ms, limit=limit, **who)
        found = [_spent(by, row) for row in await self._database.report(work)]
        return found[::-1] if by in _TIMES else found

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
        """What each subject of ``by`` took since ``recent_ms``, and before it since ``start_ms``."""
        name, who = _of(scope, subject)
        work = alone(
            f"paces/{by}/{amount}{name}",
            start_ms=start_ms,
            recent_ms=recent_ms,
            end_ms=end_ms,
            least=least,
            limit=limit,
            **who,
        )
        return [Pace(*row) for row in await self._database.report(work)]


def _of(scope: Scope, subject: str) -> tuple[str, dict[str, Any]]:
    """The ending of the query's name that narrows to a subject, and its parameters."""
    if scope is Scope.GLOBAL:
        return "", {}
    if scope in UNDER_CUSTOMER:
        customer_id, _, name = subject.partition("/")
        return f"/of_{scope}", {"customer_id": customer_id, "subject": name}
    return f"/of_{scope}", {"subject": subject}


def _spent(by: SpendBy, row: Row) -> Spent:
    part = row[0]
    if by is SpendBy.HOUR:
        part = str(part * HOUR_MS)
    return Spent(part, *row[1:])
