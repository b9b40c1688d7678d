"""The store: customers, keys, the ledger and what was used, on one database. The rule: every read and write of a role
is one transaction; reports never delay admissions.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote

from gatekeeper.clock import Clock
from gatekeeper.ports import Attempt, Customer, Holder, Key, Store, UsageRecord
from gatekeeper.stores.alerts import SqlAlerts
from gatekeeper.stores.audit import SqlAudit
from gatekeeper.stores.database import Ask, AskMany, Database, Row, Steps, alone
from gatekeeper.stores.events import SqlEvents
from gatekeeper.stores.finding import SqlFinding
from gatekeeper.stores.ledger import SqlLedger
from gatekeeper.stores.migrate import migrate
from gatekeeper.stores.outbox import SqlOutbox
from gatekeeper.stores.overlays import SqlOverlays
from gatekeeper.stores.people import SqlPeople
from gatekeeper.stores.postgres import PostgresDatabase
from gatekeeper.stores.rolling import SqlRollups
from gatekeeper.stores.rows import (
    attempt_of,
    customer_args,
    customer_of,
    holder_of,
    key_args,
    key_of,
    merged,
    record_of,
)
from gatekeeper.stores.spending import SqlSpending
from gatekeeper.stores.sqlite import SqliteDatabase
from gatekeeper.stores.statements import SqlStatements
from gatekeeper.stores.subscriptions import SqlSubscriptions


class SqlStore(
    SqlLedger,
    SqlEvents,
    SqlOverlays,
    SqlSpending,
    SqlRollups,
    SqlFinding,
    SqlAudit,
    SqlOutbox,
    SqlStatements,
    SqlSubscriptions,
    SqlPeople,
    SqlAlerts,
):
    """See ``ports.Store`` and ``ports.Audit``. Made by ``open_store`` and ``open_reader``."""

    # --- customers ---

    async def create_customer(self, customer: Customer) -> bool:
        """False when the id exists."""
        return bool(await self._database.write(alone("create_customer", **customer_args(customer))))

    async def customer(self, customer_id: str) -> Customer | None:
        """One customer, or None."""
        rows = await self._database.read(alone("customer", id=customer_id))
        return customer_of(rows[0]) if rows else None

    async def customers(
        self, *, after: str = "", limit: int = 100, find: str | None = None, plan_id: str | None = None
    ) -> Sequence[Customer]:
        """In the order of their ids, those after ``after``; see ``ports.Customers``."""
        if find is None and plan_id is None:
            rows = await self._database.read(alone("customers", after=after, limit=limit))
        else:
            like = None if find is None else f"%{_LIKE.sub(_escaped, find.lower())}%"
            work = alone("customers_found", after=after, limit=limit, find=like, plan_id=plan_id)
            rows = await self._database.report(work)
        return [customer_of(row) for row in rows]

    async def update_customer(self, customer: Customer, before: Customer | None = None) -> bool:
        """Replaces all fields but id and created_ms; False when there is none, or it is not (any more) ``before``."""

        def work() -> Steps[bool]:
            if before is not None:
                rows = yield Ask("customer_locked", {"id": customer.id})
                if not rows or customer_of(rows[0]) != before:
                    return False
            return bool((yield Ask("update_customer", customer_args(customer))))

        return await self._database.write(work)

    # --- keys ---

    async def create_key(self, key: Key, digest: str) -> bool:
        """False when id or digest exists. Raises Fault when there is no such customer."""
        return bool(await self._database.write(alone("create_key", **key_args(key, digest))))

    async def holder(self, digest: str) -> Holder | None:
        """The key with its customer, also revoked and expired ones."""
        rows = await self._database.read(alone("holder", digest=digest))
        return holder_of(rows[0]) if rows else None

    async def key(self, key_id: str) -> Key | None:
        """One key, or None."""
        rows = await self._database.read(alone("key", id=key_id))
        return key_of(rows[0]) if rows else None

    async def keys(self, customer_id: str | None = None, *, after: str = "", limit: int = 100) -> Sequence[Key]:
        """In the order of their ids, those after ``after``."""
        if customer_id is None:
            work = alone("keys", after=after, limit=limit)
        else:
            work = alone("keys_of_customer", customer_id=customer_id, after=after, limit=limit)
        return [key_of(row) for row in await self._database.read(work)]

    async def revoke_key(self, key_id: str, now_ms: int) -> bool:
        """False when there is no such key; revoking twice keeps the first time."""
        return bool(await self._database.write(alone("revoke_key", id=key_id, now_ms=now_ms)))

    async def expire_key(self, key_id: str, expires_ms: int) -> bool:
        """Let a key end then, or before if it was to end before; False when there is none that still is good."""
        return bool(await self._database.write(alone("expire_key", id=key_id, expires_ms=expires_ms)))

    async def revoke_keys(self, customer_id: str, now_ms: int) -> int:
        """Revoke all keys of a customer; returns how many were not yet."""
        return len(await self._database.write(alone("revoke_keys", customer_id=customer_id, now_ms=now_ms)))

    async def touch_keys(self, last_used_ms: Mapping[str, int]) -> None:
        """Record last use, many keys at once; never moves a time back."""
        # Sorted: two processes that touch the same keys lock them in the same order.
        rows = [(used_ms, key_id) for key_id, used_ms in sorted(last_used_ms.items())]
        if rows:
            await self._database.write(lambda: _many("touch_key", rows), durable=False)

    # --- what was used ---

    async def record(self, call_id: str, *, customer_id: str | None = None) -> UsageRecord | None:
        """One call as it is known in the end (with its correction, where there is one); with ``customer_id`` only that
        customer's."""
        rows = await self._database.read(alone("record", call_id=call_id))
        found = merged([record_of(row) for row in rows])
        return found if found is not None and customer_id in (None, found.customer_id) else None

    async def attempts(self, call_id: str) -> Sequence[Attempt]:
        """The tries that did not serve a call, in order."""
        return [attempt_of(row) for row in await self._database.read(alone("attempts", call_id=call_id))]

    async def records(
        self, *, customer_id: str | None = None, before_ms: int | None = None, limit: int = 100
    ) -> Sequence[UsageRecord]:
        """Latest first, as they were appended: a correction is a row of its own, with the differences."""
        before_ms = _FOR_EVER_MS if before_ms is None else before_ms
        name, who = ("records", {}) if customer_id is None else ("records/customer", {"customer_id": customer_id})
        rows = await self._database.report(alone(name, before_ms=before_ms, limit=limit, **who))
        return [record_of(row) for row in rows]

    # --- all of it ---

    async def ping(self) -> None:
        """Raises Fault when the database does not answer."""
        await self._database.read(alone("ping"))

    async def close(self) -> None:
        """Wait for what is under way, then close. Closing twice does nothing."""
        await self._lane.close()
        await self._database.close()


async def open_store(url: str, *, clock: Clock) -> Store:
    """Open ``sqlite:///relative/path``, ``sqlite:////absolute/path`` or ``postgresql://...``; bring it to the present
    schema. Raises ValueError, with a sentence for people, for another URL; Fault when the database cannot be reached
    or is newer than this code."""
    database = await _open(url)
    try:
        await migrate(database)
    except BaseException:
        await database.close()
        raise
    return SqlStore(database, clock)


async def open_reader(url: str, *, clock: Clock) -> SqlStore:
    """Open a database that is there, to look at it: nothing is made, migrated or written, also not by mistake (SQLite
    opens the file for reading; Postgres is only to be asked by ``ports.Audit`` and the other roles that read). The
    schema may be an older or a newer one: see ``Audit.schema``. Raises as ``open_store``."""
    return SqlStore(await _open(url, read_only=True), clock)


async def _open(url: str, *, read_only: bool = False) -> Database:
    if url.startswith("sqlite:///"):
        path = unquote(url.removeprefix("sqlite:///"))
        if path in ("", ":memory:") or path.startswith("file:"):
            raise ValueError("the ledger needs a file, as in sqlite:///gatekeeper.sqlite")
        return await SqliteDatabase.open(Path(path), read_only=read_only)
    if url.startswith(("postgresql://", "postgres://")):
        return await PostgresDatabase.open(url, read_only=read_only)
    raise ValueError("a database URL begins with sqlite:/// or postgresql://")


def _many(query: str, rows: Sequence[Row]) -> Steps[None]:
    yield AskMany(query, rows)


def _escaped(found: re.Match[str]) -> str:
    return f"!{found[0]}"


# What means something in a pattern of LIKE, and the sign that takes its meaning away.
_LIKE = re.compile(r"[%_!]")
_FOR_EVER_MS = 2**62
