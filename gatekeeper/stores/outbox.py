"""Batches of usage on their way to a biller. See ``ports.Outbox``.

The rule: a row that is owed goes into exactly one batch, in the transaction that makes it; an attempt is written down
before it begins, with its account leased, so that nothing is sent of which the database does not know.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from gatekeeper.rules import billing
from gatekeeper.rules.billing import UNTOLD, Backlog, Batch, BatchState, Owing, Target
from gatekeeper.rules.notices import Kind
from gatekeeper.stores.database import Ask, AskMany, Database, Row, Steps, alone
from gatekeeper.stores.lane import Lane
from gatekeeper.stores.rows import json_text

# What only one process does.
_FLUSHER = "flusher"
_FOR_EVER_MS = 2**62


class SqlOutbox:
    """See ``ports.Outbox``."""

    _database: Database
    _lane: Lane

    async def elect(self, owner: str, now_ms: int, lease_ms: int) -> bool:
        """Whether ``owner`` is the one process that flushes."""
        work = alone("elect", name=_FLUSHER, owner=owner, lease_ms=lease_ms, now_ms=now_ms)
        return bool(await self._database.write(work, durable=False))

    async def resign(self, owner: str) -> None:
        """Let another process be elected at once."""
        await self._database.write(alone("resign", name=_FLUSHER, owner=owner), durable=False)

    async def owing_customers(self, *, after: str = "", limit: int = 100, known_only: bool = False) -> Sequence[str]:
        """Customers with usage that is in no batch, in order."""
        work = alone("owing_customers", after=after, limit=limit, known=_known(known_only))
        return [row[0] for row in await self._database.report(work)]

    async def freeze(
        self,
        customers: Sequence[str],
        meters: Mapping[str, str | None],
        meter: str,
        seed: str,
        now_ms: int,
        *,
        known_only: bool = False,
    ) -> int:
        """Put what these customers owe into batches; returns how many were made."""
        freezing = _Freezing(meters, meter, seed, now_ms, known_only, self._lane)
        # Sorted: two processes that freeze the same customers lock their accounts in the same order.
        return await self._database.write(lambda: freezing.work(sorted(set(customers))))

    async def is_due(self, now_ms: int) -> bool:
        """Whether any batch is."""
        return bool(await self._database.read(alone("due_batch", now_ms=now_ms)))

    async def claim_batches(
        self, now_ms: int, lease_ms: int, limit: int, *, customer_id: str | None = None
    ) -> Sequence[Batch]:
        """Take batches that are due, at most one of each customer and meter. Durable: after a loss of power somebody
        must still know since when the fate of a batch is unknown."""
        asked = {"now_ms": now_ms, "lease_ms": lease_ms, "limit": limit, "customer_id": customer_id or ""}
        return await self._database.write(lambda: _claim(asked, now_ms))

    async def batch_sent(self, batch: Batch, now_ms: int) -> None:
        """The biller has it, whoever holds the lease by now."""
        told = {"id": batch.id, "identifier": batch.identifier, "now_ms": now_ms}
        events: list[Row] = []
        if billing.arrives_late(batch, now_ms):
            why = "it arrived after the invoice of its period was closed"
            events = self._events(Kind.OUTBOX_LATE, batch, why, now_ms)
        await self._database.write(lambda: _ended(Ask("sent_batch", told), batch, events))

    async def batch_unsent(
        self, batch: Batch, error: str, next_ms: int | None, now_ms: int, *, clear: bool = False
    ) -> None:
        """It was not taken: try again at ``next_ms``, or give up (None)."""
        told = {
            "id": batch.id,
            "attempts": batch.attempts,
            "state": BatchState.DEAD.value if next_ms is None else BatchState.WAITING.value,
            "next_ms": now_ms if next_ms is None else next_ms,
            # A clear no takes back that this attempt may have been counted; what was unknown before it stays so.
            "clear": int(clear),
            "first_sent_ms": batch.first_sent_ms,
            "error": error,
        }
        events: list[Row] = []
        if next_ms is None:
            events = self._events(Kind.OUTBOX_DEAD, batch, error, now_ms)
        elif batch.ts_ms < now_ms - billing.AGE_WARNED_MS:
            events = self._events(Kind.OUTBOX_AGING, batch, error, now_ms)
        await self._database.write(lambda: _ended(Ask("unsent_batch", told), batch, events))

    async def batch_unknown_to_biller(self, batch: Batch, now_ms: int) -> bool:
        """It may be sent as if for the first time; False when the lease was lost."""
        work = alone("resend_batch", id=batch.id, attempts=batch.attempts, now_ms=now_ms)
        return bool(await self._database.write(work))

    async def redate_batch(self, batch: Batch, now_ms: int) -> Batch | None:
        """It was surely counted nowhere: from now on it is one of the present period."""

        def work() -> Steps[Batch | None]:
            rows = yield Ask("billed_customer", {"customer_id": batch.customer_id})
            start_ms, end_ms, ts_ms = billing.redated(now_ms, rows[0][0] if rows else 0)
            proof = {"id": batch.id, "attempts": batch.attempts}
            if not (yield Ask("redate_batch", {**proof, "start_ms": start_ms, "end_ms": end_ms, "ts_ms": ts_ms})):
                return None
            return replace(batch, period_start_ms=start_ms, period_end_ms=end_ms, ts_ms=ts_ms, late=True)

        return await self._database.write(work)

    async def reopen_batch(self, identifier: str, error: str, now_ms: int) -> Batch | None:
        """Send it again under a new identifier, or give it up."""

        def work() -> Steps[Batch | None]:
            batch = _first((yield Ask("batch", {"id": identifier})))
            if batch is None or batch.identifier != identifier or batch.state is not BatchState.SENT:
                return None
            gone = batch.reopened >= billing.REOPENED_MAX
            changed = replace(
                batch,
                state=BatchState.DEAD if gone else BatchState.WAITING,
                identifier=f"{batch.id}-{batch.reopened + 2}",
                reopened=batch.reopened + 1,
                next_ms=now_ms,
                first_sent_ms=None,
                sent_ms=None,
                error=error,
            )
            told = {
                "id": batch.id,
                "state": changed.state.value,
                "identifier": changed.identifier,
                "now_ms": now_ms,
                "error": error,
                "reopened": batch.reopened,
            }
            if not (yield Ask("reopen_batch", told)):
                return None
            kind = Kind.OUTBOX_DEAD if gone else Kind.OUTBOX_REOPENED
            if events := self._events(kind, changed, error, now_ms):
                yield AskMany("add_event", events)
            return changed

        return await self._database.write(work)

    async def hurry_batches(self, customer_id: str, now_ms: int) -> None:
        """What waits of this customer is due now."""
        await self._database.write(alone("hurry_batches", customer_id=customer_id, now_ms=now_ms), durable=False)

    async def retry_batches(self, now_ms: int, batch_id: str | None = None) -> int:
        """Begin anew with what was given up."""
        return len(await self._database.write(alone("retry_batches", id=batch_id or "", now_ms=now_ms)))

    async def settle_by_hand(self, batch_id: str, now_ms: int, *, told: bool) -> bool:
        """The biller has it (``told``), or does not."""
        work = alone("tell_batch" if told else "unsend_batch", id=batch_id, now_ms=now_ms)
        return bool(await self._database.write(work))

    async def batches_beside(self, batch: Batch, start_ms: int, end_ms: int) -> Sequence[Batch]:
        """The batches of its customer and meter in [start, end)."""
        who = {"customer_id": batch.customer_id, "meter": batch.meter}
        rows = await self._database.read(alone("batches_beside", **who, start_ms=start_ms, end_ms=end_ms))
        return [_batch(row) for row in rows]

    async def batches(
        self,
        *,
        state: BatchState | None = None,
        customer_id: str | None = None,
        after: tuple[int, str] | None = None,
        limit: int = 100,
    ) -> Sequence[Batch]:
        """The latest first; see ``ports.Outbox``."""
        before_ms, before_id = (2**62, "") if after is None else after
        asked = {"state": state or "", "customer_id": customer_id or "", "before_ms": before_ms, "before_id": before_id}
        work = alone("batches", **asked, limit=limit)
        return [_batch(row) for row in await self._database.report(work)]

    async def batch(self, batch_id: str) -> Batch | None:
        """One, by its id or identifier."""
        return _first(await self._database.read(alone("batch", id=batch_id)))

    async def backlog(self, *, known_only: bool = False) -> Backlog:
        """What is still to be told."""
        rows = await self._database.report(alone("backlog", known=_known(known_only)))
        ((waiting, dead, frozen_ms, unfrozen, settled_ms),) = rows
        since = [each for each in (frozen_ms, settled_ms) if each is not None]
        return Backlog(waiting, dead, unfrozen, min(since, default=None))

    async def tell_of(self, kind: Kind, batch: Batch, why: str, now_ms: int) -> None:
        """Write an event of this batch, once, where anybody wants it."""
        if events := self._events(kind, batch, why, now_ms):
            await self._database.write(lambda: _told(events))

    def _events(self, kind: Kind, batch: Batch, why: str | None, now_ms: int) -> list[Row]:
        return _events(self._lane, kind, batch, why, now_ms)


class _Freezing:
    """One transaction that freezes what some customers owe."""

    def __init__(
        self,
        meters: Mapping[str, str | None],
        meter: str,
        seed: str,
        now_ms: int,
        known_only: bool,
        lane: Lane,
    ) -> None:
        self._meters = meters
        self._meter = meter
        self._seed = seed
        self._now_ms = now_ms
        self._known_only = known_only
        self._lane = lane

    def work(self, customers: Sequence[str]) -> Steps[int]:
        made = 0
        for customer_id in customers:
            made += yield from self._customer(customer_id)
        return made

    def _customer(self, customer_id: str) -> Steps[int]:
        rows = yield Ask("billed_customer", {"customer_id": customer_id})
        anchor_ms, account, items_ms = rows[0] if rows else (0, None, 0)
        asked = {
            "customer_id": customer_id,
            "grace_ms": billing.SETTLED_GRACE_MS,
            "old_ms": self._now_ms - billing.AGE_MAX_MS,
        }
        found = [
            Owing(plan_id, start_ms, end_ms, bool(late), bool(old))
            for plan_id, start_ms, end_ms, late, old in (yield Ask("owing", asked))
        ]
        targets: dict[Target, list[Owing]] = {}
        for owing in found:
            meter = self._meters.get(owing.plan_id, self._meter)
            if meter is None:
                yield Ask("take_owed", self._rows(customer_id, owing, UNTOLD))
                continue
            if self._known_only and account is None:
                continue
            target = billing.target(owing, meter, self._now_ms, anchor_ms)
            if target is not None:
                # Late or not: one batch of a period, which then has the instant of what is on time.
                together = next((each for each in targets if each[:4] == target[:4]), target)
                members = targets.pop(together, [])
                targets[together._replace(late=together.late and target.late)] = [*members, owing]
        for target in sorted(targets):
            yield from self._freeze(customer_id, target, targets[target], items_ms)
        return len(targets)

    def _freeze(self, customer_id: str, target: Target, owings: Sequence[Owing], items_ms: int) -> Steps[None]:
        account = {"customer_id": customer_id, "meter": target.meter}
        yield Ask("ensure_account", account)
        ((carried,),) = yield Ask("lock_account", account)
        batch_id = self._id(customer_id, target)
        for owing in owings:
            yield Ask("take_owed", self._rows(customer_id, owing, batch_id))
        ((rows, units, rest, latest_ms),) = yield Ask("batch_sums", {"batch_id": batch_id})
        if not rows:
            # Another process was quicker.
            return
        value, left = billing.whole(carried, units, rest)
        ts_ms = billing.stamp(latest_ms, target, self._now_ms, items_ms)
        why = billing.objection(value, ts_ms, self._now_ms) if value else None
        state = BatchState.EMPTY if not value else BatchState.WAITING if why is None else BatchState.DEAD
        batch = Batch(
            id=batch_id,
            customer_id=customer_id,
            meter=target.meter,
            period_start_ms=target.start_ms,
            period_end_ms=target.end_ms,
            value=value,
            ts_ms=ts_ms,
            identifier=batch_id,
            state=state,
            late=target.late or any(each.period_start_ms != target.start_ms for each in owings),
            carried_micro=carried,
            left_micro=left,
            created_ms=self._now_ms,
            next_ms=self._now_ms,
            error=why,
        )
        yield Ask("add_batch", _columns(batch))
        yield Ask("set_residue", {**account, "residue_micro": left})
        if why is not None and (events := _events(self._lane, Kind.OUTBOX_DEAD, batch, why, self._now_ms)):
            yield AskMany("add_event", events)

    def _rows(self, customer_id: str, owing: Owing, batch_id: str) -> dict[str, Any]:
        turn_ms, old_ms = owing.period_end_ms + billing.SETTLED_GRACE_MS, self._now_ms - billing.AGE_MAX_MS
        return {
            "batch_id": batch_id,
            "customer_id": customer_id,
            "plan_id": owing.plan_id,
            "period_start_ms": owing.period_start_ms,
            "period_end_ms": owing.period_end_ms,
            "settled_after_ms": turn_ms if owing.settled_late else -_FOR_EVER_MS,
            "settled_until_ms": _FOR_EVER_MS if owing.settled_late else turn_ms,
            "started_from_ms": -_FOR_EVER_MS if owing.too_old else old_ms,
            "started_before_ms": old_ms if owing.too_old else _FOR_EVER_MS,
        }

    def _id(self, customer_id: str, target: Target) -> str:
        parts = f"{self._seed}\0{customer_id}\0{target.meter}\0{target.start_ms}\0{target.end_ms}\0{target.too_old}"
        return "mb_" + hashlib.sha256(parts.encode()).hexdigest()[:40]


def _claim(asked: Mapping[str, Any], now_ms: int) -> Steps[list[Batch]]:
    claimed: list[Batch] = []
    for customer_id, meter in sorted((yield Ask("claim_accounts", asked)), key=tuple):
        who = {"customer_id": customer_id, "meter": meter}
        batch = _first((yield Ask("due_of_account", {**who, "now_ms": now_ms})))
        if batch is None:
            # Its batch was told of between the two statements.
            yield Ask("lease_account", {**who, "proof": ""})
            yield Ask("free_account", {**who, "proof": ""})
            continue
        batch = replace(batch, attempts=batch.attempts + 1)
        yield Ask("begin_batch", {"id": batch.id, "now_ms": now_ms})
        yield Ask("lease_account", {**who, "proof": _proof(batch)})
        claimed.append(batch)
    return claimed


def _ended(told: Ask, batch: Batch, events: Sequence[Row]) -> Steps[None]:
    # The account first, as whoever claims does.
    yield Ask("free_account", {"customer_id": batch.customer_id, "meter": batch.meter, "proof": _proof(batch)})
    if (yield told) and events:
        yield AskMany("add_event", events)


def _known(known_only: bool) -> str:
    return "only" if known_only else ""


def _proof(batch: Batch) -> str:
    """Of one lease: that of the attempt before it frees nothing."""
    return f"{batch.id} {batch.attempts}"


def _told(events: Sequence[Row]) -> Steps[None]:
    yield AskMany("add_event", events)


def _events(lane: Lane, kind: Kind, batch: Batch, why: str | None, now_ms: int) -> list[Row]:
    if lane.wanted is None or kind not in lane.wanted.kinds:
        return []
    # Once for each kind and identifier; what is given up a second time is told a second time.
    times = f"_{batch.attempts}" if kind is Kind.OUTBOX_DEAD else ""
    name = f"{kind.short.replace('.', '_')}_{batch.identifier}{times}"
    content = json_text(billing.batch_content(batch, why))
    # It is the operator's: what concerns no single customer is never told to one.
    return [(name, kind.value, None, now_ms, content)]


def _first(rows: Sequence[Row]) -> Batch | None:
    return _batch(rows[0]) if rows else None


def _columns(batch: Batch) -> dict[str, Any]:
    return {**{name: getattr(batch, name) for name in _MADE_OF}, "state": batch.state.value, "late": int(batch.late)}


def _batch(row: Row) -> Batch:
    """From the columns in the order of the fields."""
    values = list(row)
    values[8], values[9] = BatchState(values[8]), bool(values[9])
    return Batch(*values)


_MADE_OF = (
    "id",
    "customer_id",
    "meter",
    "period_start_ms",
    "period_end_ms",
    "value",
    "ts_ms",
    "identifier",
    "carried_micro",
    "left_micro",
    "created_ms",
    "next_ms",
    "error",
)
