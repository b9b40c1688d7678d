"""Limits as operators set them, and their resets. See ``ports.Overlays``.

The rule: whatever changes here counts the revision up in the same transaction, so that a process which sees the old
number has seen all that there is.
"""

from collections.abc import Sequence

from gatekeeper.ports import CounterState
from gatekeeper.rules.limits import CounterKey, Mode, Release, scope_named
from gatekeeper.rules.overlays import Family, Overlay, Snapshot
from gatekeeper.stores.database import Ask, Database, Row, Steps, alone


class SqlOverlays:
    """See ``ports.Overlays``."""

    _database: Database

    async def limits_revision(self) -> int:
        """How often anything was changed."""
        return await self._database.read(_revision)

    async def limits_snapshot(self, since_ms: int) -> Snapshot:
        """All overlays, and the last reset of each count that may still run."""
        return await self._database.read(lambda: _snapshot(since_ms))

    async def add_overlay(self, overlay: Overlay) -> bool:
        """False when an operator has set a limit on that row."""
        return await self._database.write(lambda: _changed(_asking("add_overlay", overlay)))

    async def change_overlay(self, overlay: Overlay) -> bool:
        """Name, cap, mode, zone and release; False when it is not (any more) at that version."""
        return await self._database.write(lambda: _changed(_asking("change_overlay", overlay)))

    async def drop_overlay(self, overlay: Overlay) -> bool:
        """False when it is not (any more) at that version."""
        return await self._database.write(lambda: _changed(_asking("drop_overlay", overlay)))

    async def add_reset(self, key: CounterKey, reason: str) -> None:
        """From ``key.start_ms`` on that limit counts anew."""
        args = {
            "scope": key.scope,
            "subject": key.subject,
            "dimension": key.dimension,
            "span": key.window,
            "reset_ms": key.start_ms,
            "reason": reason,
        }
        await self._database.write(lambda: _changed(Ask("add_reset", args)))

    async def top_counters(
        self, scope: str, dimension: str, window: str, start_ms: int, now_ms: int, *, limit: int = 10
    ) -> Sequence[CounterState]:
        """Who used most since ``start_ms``, the largest first."""
        work = alone(
            "top_counters",
            scope=scope,
            dimension=dimension,
            span=window,
            start_ms=start_ms,
            now_ms=now_ms,
            limit=limit,
        )
        return [CounterState(CounterKey(*row[:5]), row[5], row[6]) for row in await self._database.report(work)]


def _revision() -> Steps[int]:
    rows = yield Ask("limit_revision")
    return int(rows[0][0]) if rows else 0


def _snapshot(since_ms: int) -> Steps[Snapshot]:
    # The number first: rows that are newer than it are read once more, rows that are older never stay.
    revision = yield from _revision()
    overlays = yield Ask("overlays")
    resets = yield Ask("resets", {"since_ms": since_ms})
    return Snapshot(revision, tuple(_overlay(row) for row in overlays), {(*row[:4],): row[4] for row in resets})


def _asking(query: str, overlay: Overlay) -> Ask:
    return Ask(query, {name: getattr(overlay, name) for name in Overlay.__slots__})


def _changed(ask: Ask) -> Steps[bool]:
    # Before the change itself: whoever changes limits waits here, so that none is seen with an older number.
    yield Ask("bump_limits")
    rows = yield ask
    return bool(rows)


def _overlay(row: Row) -> Overlay:
    name, family, *rest = row
    shown, scope, subject, dimension, span, cap, mode, zone, created_ms, updated_ms, version, release = rest
    return Overlay(
        name,
        Family(family),
        shown,
        scope_named(scope),
        subject,
        dimension,
        span,
        cap,
        Mode(mode),
        zone,
        created_ms,
        updated_ms,
        version,
        Release(release),
    )
