"""Subscriptions, what the biller sends, and its invoices. See ``ports.Standings`` and ``ports.Mailroom``.

The rule: a decision, what it does to the customer and what is told of it are one transaction, which is none where
somebody else has decided since; an event is on the disk before it is answered.
"""

from collections.abc import Sequence
from dataclasses import asdict, astuple, fields
from typing import Any

from gatekeeper.ports import Customer
from gatekeeper.ports.subscriptions import Invoice, Kept, Letter
from gatekeeper.rules.hints import Event
from gatekeeper.rules.subscriptions import Decision, News, Standing
from gatekeeper.stores.database import Ask, AskMany, Database, Row, Steps, alone
from gatekeeper.stores.lane import Lane
from gatekeeper.stores.rows import customer_of, json_text

_INVOICE = tuple(field.name for field in fields(Invoice))


class SqlSubscriptions:
    """See ``ports.Standings`` and ``ports.Mailroom``."""

    _database: Database
    _lane: Lane

    async def customer_of_account(self, account: str) -> Customer | None:
        """Whose account at the biller this is."""
        rows = await self._database.read(alone("customer_of_account", account=account))
        return customer_of(rows[0]) if rows else None

    async def link_account(self, customer_id: str, account: str) -> str | None:
        """Give a customer who has none this account; returns the one that he has then."""

        def work() -> Steps[str | None]:
            yield Ask("link_account", {"customer_id": customer_id, "account": account})
            rows = yield Ask("account_of", {"customer_id": customer_id})
            return rows[0][0] if rows else None

        return await self._database.write(work)

    async def standing(self, customer_id: str) -> Standing | None:
        """What was decided of him the last time."""
        rows = await self._database.read(alone("standing", customer_id=customer_id))
        return Standing(*rows[0]) if rows else None

    async def decided(self, decision: Decision, now_ms: int) -> bool:
        """Carry a decision out; False when somebody else has decided meanwhile."""
        return await self._database.write(lambda: self._decided(decision, now_ms))

    async def out_of_grace(self, now_ms: int, limit: int) -> Sequence[str]:
        """Customers whose time of grace is over and who are not blocked yet."""
        return [row[0] for row in await self._database.read(alone("out_of_grace", now_ms=now_ms, limit=limit))]

    async def keep_events(self, events: Sequence[Event], now_ms: int) -> int:
        """Keep, durably, those that are new; returns how many were."""

        def work() -> Steps[int]:
            new = 0
            for event in events:
                row = {"id": event.id, "kind": event.kind, "body": event.text, "now_ms": now_ms, "next_ms": now_ms}
                new += len((yield Ask("keep_event", row)))
            return new

        return await self._database.write(work)

    async def claim_events(self, now_ms: int, lease_ms: int, limit: int) -> Sequence[Kept]:
        """Take events that are due."""
        work = alone("claim_events", now_ms=now_ms, lease_ms=lease_ms, limit=limit)
        rows = await self._database.write(work, durable=False)
        return [Kept(Event(event_id, kind, body), attempts) for event_id, kind, body, attempts in rows]

    async def event_ended(
        self,
        kept: Kept,
        now_ms: int,
        *,
        error: str | None = None,
        next_ms: int | None = None,
        news: Sequence[News] = (),
    ) -> None:
        """How it went."""
        told: dict[str, Any] = {
            "id": kept.event.id,
            "attempts": kept.attempts,
            "state": "done" if error is None else "dead" if next_ms is None else "waiting",
            "next_ms": now_ms if next_ms is None else next_ms,
            "error": error,
        }

        def work() -> Steps[None]:
            if (yield Ask("end_event", told)) and (rows := self._rows(None, news, now_ms)):
                yield AskMany("add_event", rows)

        await self._database.write(work)

    async def letters(self, *, state: str | None = None, limit: int = 100) -> Sequence[Letter]:
        """The latest first."""
        rows = await self._database.report(alone("letters", state=state or "", limit=limit))
        return [_letter(row) for row in rows]

    async def letter(self, event_id: str) -> Letter | None:
        """One."""
        rows = await self._database.read(alone("letter", id=event_id))
        return _letter(rows[0]) if rows else None

    async def retry_events(self, now_ms: int, event_id: str | None = None) -> int:
        """Begin anew with what was given up, or with one that is not done."""
        return len(await self._database.write(alone("retry_events", id=event_id or "", now_ms=now_ms)))

    async def forget_biller_events(self, before_ms: int, limit: int) -> int:
        """Forget what ended before; returns how many rows."""
        work = alone("forget_biller_events", before_ms=before_ms, limit=limit)
        return len(await self._database.write(work, durable=False))

    async def keep_invoices(
        self, customer_id: str, invoices: Sequence[Invoice], now_ms: int, news: Sequence[News] = ()
    ) -> None:
        """Remember these as they are now, and tell what is new."""

        def work() -> Steps[None]:
            # Sorted: two processes that keep the same ones lock them in the same order.
            for invoice in sorted(invoices, key=lambda one: one.id):
                yield Ask("keep_invoice", {**asdict(invoice), "customer_id": customer_id, "seen_ms": now_ms})
            if rows := self._rows(customer_id, news, now_ms):
                yield AskMany("add_event", rows)

        await self._database.write(work)

    async def kept_invoices(self, customer_id: str, limit: int) -> Sequence[Invoice]:
        """As they were seen last, the latest first."""
        rows = await self._database.report(alone("kept_invoices", customer_id=customer_id, limit=limit))
        return [Invoice(**dict(zip(_INVOICE, row, strict=True))) for row in rows]

    def _decided(self, decision: Decision, now_ms: int) -> Steps[bool]:
        after = decision.standing
        columns = {field.name: value for field, value in zip(fields(after), astuple(after), strict=True)}
        if not (yield Ask("set_standing", columns)):
            return False
        who = {"customer_id": after.customer_id}
        if decision.plan_id is not None:
            moved = {"plan_id": decision.plan_id, "from_plan_id": decision.from_plan_id or ""}
            yield Ask("move_customer", {**who, **moved})
        if decision.anchor_ms is not None:
            yield Ask("anchor_customer", {**who, "anchor_ms": decision.anchor_ms})
        if decision.unblock_ms is not None:
            yield Ask("unblock_customer", {**who, "blocked_ms": decision.unblock_ms})
        if decision.block:
            yield Ask("block_customer", {**who, "now_ms": after.blocked_ms})
        if rows := self._rows(after.customer_id, decision.news, now_ms):
            yield AskMany("add_event", rows)
        return True

    def _rows(self, customer_id: str | None, news: Sequence[News], now_ms: int) -> list[Row]:
        wanted = self._lane.wanted
        if wanted is None:
            return []
        return [
            (one.id, one.kind.value, customer_id if one.personal else None, now_ms, json_text(one.content))
            for one in news
            if one.kind in wanted.kinds
        ]


def _letter(row: Row) -> Letter:
    event_id, kind, body, *rest = row
    return Letter(Event(event_id, kind, body), *rest)
