"""What was used and spent, told apart by time, subject or model. See ``ports.Spending`` and ``ports.Reports``.

The rule: reports only; none delays an admission. Each reads, in one snapshot, which hours and days are summed up (see
``rolling``), and then those sums, and the records of the rest: the same figures, whatever is summed up yet.
"""

import json
from collections.abc import Sequence
from typing import Any

from gatekeeper.ports import UsageDay, UsageTotal
from gatekeeper.rules.declared import UNDER_CUSTOMER
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.rollups import Pieces, Rolled, joined, pieces
from gatekeeper.rules.spent import Activity, Amount, Overview, SpendBy, Spent, percentile
from gatekeeper.rules.spikes import Pace
from gatekeeper.rules.windows import DAY_MS, HOUR_MS, utc_day
from gatekeeper.stores.database import Ask, Database, Row, Rows, Steps

# More are no chart.
SERIES_MAX = 2_000
_STEPS = {SpendBy.DAY: DAY_MS, SpendBy.HOUR: HOUR_MS}
_ALL = 2**31 - 1
# What sums of each depth tell apart, the smallest first. A day has all depths; an hour those two, and "each" until its
# day is whole.
_WHAT = frozenset({"plan", "route", "upstream", "model"})
_DEPTHS: tuple[tuple[str, frozenset[str]], ...] = (
    ("all", _WHAT),
    ("customer", frozenset({"customer"})),
    ("key", frozenset({"key"})),
    ("agent", frozenset({"agent"})),
    ("user", frozenset({"user"})),
    ("sold", _WHAT | {"customer"}),
)
_LASTING = ("all", "customer")


class SqlSpending:
    """See ``ports.Spending``, ``ports.Reports`` and the sums of ``ports.UsageQuery``."""

    _database: Database

    async def spend_total(self, scope: Scope, subject: str, start_ms: int, end_ms: int) -> Spent:
        """All of it."""
        rows = await self._sums("spent/all", "dearest", scope, subject, start_ms, end_ms)
        return Spent(*rows[0][:6]) if rows else Spent()

    async def spend_by(
        self, by: SpendBy, scope: Scope, subject: str, start_ms: int, end_ms: int, *, limit: int = 100
    ) -> Sequence[Spent]:
        """Days and hours in order, the last ``limit`` of them; anything else the dearest first."""
        rows = await self._parts("spent", by, scope, subject, start_ms, end_ms, limit)
        return [Spent(*row[:6]) for row in rows]

    async def activity(self, scope: Scope, subject: str, start_ms: int, end_ms: int) -> Activity:
        """All calls of a subject."""
        rows = await self._sums("activity/all", "dearest", scope, subject, start_ms, end_ms)
        return Activity(*rows[0]) if rows else Activity()

    async def breakdown(
        self, by: SpendBy, scope: Scope, subject: str, start_ms: int, end_ms: int, *, limit: int = 100
    ) -> Sequence[Activity]:
        """As ``spend_by``."""
        return [Activity(*row) for row in await self._parts("activity", by, scope, subject, start_ms, end_ms, limit)]

    async def series(
        self, scope: Scope, subject: str, start_ms: int, end_ms: int, step_ms: int
    ) -> Sequence[tuple[int, Activity]]:
        """(start, sums) of each step of the period, also of those without calls. Raises ValueError for more than
        ``SERIES_MAX`` of them."""
        if step_ms < 1 or end_ms - start_ms > step_ms * SERIES_MAX:
            raise ValueError(f"a series has at most {SERIES_MAX} steps")
        steps = (start_ms, step_ms)
        rows = await self._sums("activity/time", "latest", scope, subject, start_ms, end_ms, steps=steps)
        found = {row[0]: Activity(None, *row[1:]) for row in rows}
        starts = range(start_ms, end_ms, step_ms)
        return [(at_ms, found.get(number, Activity())) for number, at_ms in enumerate(starts)]

    async def overview(self, start_ms: int, end_ms: int) -> Overview:
        """All calls of a period."""

        def work() -> Steps[tuple[Rows, Rows]]:
            found = yield from _pieces(start_ms, end_ms, "all")
            depths = {"day_depth": "all", "hour_depth": "all"}
            sums = yield Ask("activity/all/dearest", {**_texts(found), **depths, "limit": 1})
            return sums, (yield Ask("waits", _texts(found)))

        sums, waits = await self._database.report(work)
        counted = [(row[0], row[1]) for row in waits]
        total = Activity(*sums[0]) if sums else Activity()
        return Overview(total, percentile(counted, 50), percentile(counted, 99))

    async def usage_total(
        self, start_ms: int, end_ms: int, *, customer_id: str | None = None, key_id: str | None = None
    ) -> UsageTotal:
        """Sums, filtered by customer and key where given."""
        rows = await self._used("all", start_ms, end_ms, customer_id, key_id)
        return _total(rows[0]) if rows else UsageTotal()

    async def usage_by_day(
        self, start_ms: int, end_ms: int, *, customer_id: str | None = None, key_id: str | None = None
    ) -> Sequence[UsageDay]:
        """One row a day that has records, oldest first."""
        rows = await self._used("time", start_ms, end_ms, customer_id, key_id)
        first_ms = start_ms - start_ms % DAY_MS
        return [UsageDay(utc_day(first_ms + row[0] * DAY_MS), _total(row)) for row in reversed(rows)]

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
        ending, who = _of(scope, subject)
        args = {**_depths({by.value, *_told_apart(scope)} - {"global"}), **who, "recent_ms": recent_ms, "least": least}

        def work() -> Steps[Rows]:
            before = yield from _pieces(start_ms, min(recent_ms, end_ms), args["hour_depth"])
            since = yield from _pieces(max(start_ms, recent_ms), end_ms, args["hour_depth"])
            asked = {**args, **_texts(joined(before, since)), "limit": limit}
            return (yield Ask(f"paces/{by}/{amount}{ending}", asked))

        return [Pace(*row) for row in await self._database.report(work)]

    async def _parts(
        self, name: str, by: SpendBy, scope: Scope, subject: str, start_ms: int, end_ms: int, limit: int
    ) -> Rows:
        step_ms = _STEPS.get(by)
        if step_ms is None:
            return await self._sums(f"{name}/{by}", "dearest", scope, subject, start_ms, end_ms, limit=limit)
        steps = (start_ms - start_ms % step_ms, step_ms)
        rows = await self._sums(f"{name}/time", "latest", scope, subject, start_ms, end_ms, steps=steps, limit=limit)
        first_ms, _ = steps
        return [(_time(by, first_ms + row[0] * step_ms), *row[1:]) for row in reversed(rows)]

    async def _sums(
        self,
        query: str,
        order: str,
        scope: Scope,
        subject: str,
        start_ms: int,
        end_ms: int,
        *,
        steps: tuple[int, int] | None = None,
        limit: int = _ALL,
    ) -> Rows:
        ending, who = _of(scope, subject)
        by = query.partition("/")[2]
        needed = {by, *_told_apart(scope)} - {"all", "time"}
        return await self._asked(f"{query}{ending}/{order}", needed, who, start_ms, end_ms, steps, limit)

    async def _used(self, by: str, start_ms: int, end_ms: int, customer_id: str | None, key_id: str | None) -> Rows:
        needed, ending, who = set[str](), "", dict[str, Any]()
        if customer_id is not None and key_id is not None:
            needed, ending, who = {"customer", "key"}, "/of_both", {"customer_id": customer_id, "subject": key_id}
        elif customer_id is not None:
            needed, (ending, who) = {"customer"}, _of(Scope.CUSTOMER, customer_id)
        elif key_id is not None:
            needed, (ending, who) = {"key"}, _of(Scope.KEY, key_id)
        steps = (start_ms - start_ms % DAY_MS, DAY_MS)
        return await self._asked(f"spent/{by}{ending}/latest", needed, who, start_ms, end_ms, steps)

    async def _asked(
        self,
        query: str,
        needed: set[str],
        who: dict[str, Any],
        start_ms: int,
        end_ms: int,
        steps: tuple[int, int] | None,
        limit: int = _ALL,
    ) -> Rows:
        """``steps``: where they begin, and how long each is. Nothing is read that lies in two of them."""
        first_ms, step_ms = steps if steps is not None else (0, DAY_MS)
        longest_ms = next((span for span in (DAY_MS, HOUR_MS) if step_ms % span == first_ms % span == 0), 0)
        args = {**_depths(needed), **who, "start_ms": first_ms, "step_ms": step_ms, "limit": limit}

        def work() -> Steps[Rows]:
            found = yield from _pieces(start_ms, end_ms, args["hour_depth"], longest_ms)
            return (yield Ask(query, {**args, **_texts(found)}))

        return await self._database.report(work)


def _pieces(start_ms: int, end_ms: int, hour_depth: str, longest_ms: int = DAY_MS) -> Steps[Pieces]:
    bounds = {"start_ms": start_ms, "end_ms": end_ms}
    yield Ask("read_little")
    days = yield Ask("rolled_days", bounds)
    late = yield Ask("late_hours", {**bounds, "limit": _ALL})
    lasting = hour_depth in _LASTING
    rolled = {day_ms: Rolled(hours if lasting else hours & fine, whole > 0) for day_ms, hours, fine, whole, _ in days}
    return pieces(start_ms, end_ms, rolled, [row[0] for row in late], longest_ms=longest_ms)


def _texts(found: Pieces) -> dict[str, str]:
    return {"days": json.dumps(found.days), "hours": json.dumps(found.hours), "spans": json.dumps(found.spans)}


def _depths(needed: set[str]) -> dict[str, str]:
    """The smallest sums that tell apart what is needed."""

    least = next((name for name, told in _DEPTHS if needed <= told), "each")
    return {"day_depth": least, "hour_depth": least if least in _LASTING else "each"}


def _told_apart(scope: Scope) -> tuple[str, ...]:
    """What must be told apart to narrow to a subject."""
    if scope is Scope.GLOBAL:
        return ()
    return ("customer", scope.value) if scope in UNDER_CUSTOMER else (scope.value,)


def _of(scope: Scope, subject: str) -> tuple[str, dict[str, Any]]:
    """The ending of the query's name that narrows to a subject, and its parameters."""
    if scope is Scope.GLOBAL:
        return "", {}
    if scope in UNDER_CUSTOMER:
        customer_id, _, name = subject.partition("/")
        return f"/of_{scope}", {"customer_id": customer_id, "subject": name}
    return f"/of_{scope}", {"subject": subject}


def _time(by: SpendBy, at_ms: int) -> str:
    return utc_day(at_ms) if by is SpendBy.DAY else str(at_ms)


def _total(row: Row) -> UsageTotal:
    """Of a row of ``spent``: its parts stand after what they are told apart by."""
    _, requests, units_micro, charge_nano, cost_nano, _, last_ms = row
    return UsageTotal(requests, units_micro, charge_nano, cost_nano, last_ms)
