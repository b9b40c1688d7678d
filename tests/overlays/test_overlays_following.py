"""A process follows what others change, and keeps what it knew while the database is away."""

import asyncio
from dataclasses import replace

from fakes.proxies import FakeClock

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.overlays import REFRESH_S, Limits
from gatekeeper.rules.overlays import Snapshot


class Changing:
    """The role of a store that is asked while limits change; counts what is asked."""

    def __init__(self) -> None:
        self.snapshot = Snapshot(1)
        self.away = False
        self.read = 0
        self.reading = asyncio.Event()

    async def limits_revision(self) -> int:
        if self.away:
            raise Fault("ledger", FaultKind.STORE, "away")
        return self.snapshot.revision

    async def limits_snapshot(self, since_ms: int) -> Snapshot:
        self.read += 1
        self.reading.set()
        found = self.snapshot
        await asyncio.sleep(0)
        return found


def following(store: Changing) -> tuple[Limits, list[Snapshot], FakeClock]:
    applied: list[Snapshot] = []
    clock = FakeClock()
    return Limits(store, lambda: None, applied.append, clock), applied, clock


def test_nothing_is_read_again_while_nothing_changes():
    async def body() -> None:
        store = Changing()
        limits, applied, _ = following(store)
        for _ in range(3):
            await limits.refresh()
        assert (store.read, applied) == (1, [store.snapshot])
        store.snapshot = Snapshot(2)
        await limits.refresh()
        assert (store.read, applied[-1].revision) == (2, 2)

    asyncio.run(body())


def test_what_was_known_stays_while_the_database_is_away_and_is_followed_again():
    async def body() -> None:
        store = Changing()
        limits, applied, clock = following(store)
        task = asyncio.create_task(limits.run())
        for turn in range(40):
            store.away = 10 <= turn < 30
            store.snapshot = replace(store.snapshot, revision=1 + turn // 20)
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert [snapshot.revision for snapshot in applied] == [1, 2]
        assert len(clock.slept) > 10
        assert set(clock.slept) == {REFRESH_S}
        assert REFRESH_S <= 0.5

    asyncio.run(body())


def test_who_reads_first_does_not_have_the_last_word():
    async def body() -> None:
        store = Changing()
        limits, applied, _ = following(store)
        first = asyncio.create_task(limits.refresh())
        await store.reading.wait()
        store.snapshot = Snapshot(2)
        await asyncio.gather(first, limits.refresh())
        assert [snapshot.revision for snapshot in applied] == [1, 2]

    asyncio.run(body())
