"""Five minutes without a ledger, by a clock that a test moves: what ended meanwhile waits in the journal."""

import asyncio
from dataclasses import replace

import pytest

from bench.ledger import PLAN, UNITS, order, settlement
from gatekeeper.clock import Clock, SystemClock
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import Progress
from gatekeeper.proxy.settle import Settler
from gatekeeper.stores import open_store
from gatekeeper.stores.journal import FileJournal

CALLS = 40
AWAY_S = 300
TOOK = 321 * UNITS


class MovedClock(Clock):
    """Who sleeps wakes when the test has moved the time so far."""

    def __init__(self):
        self.now_s, self.sleeping = 1_750_000_000.0, []

    def now_ms(self):
        return int(self.now_s * 1000)

    def monotonic_s(self):
        return self.now_s

    async def sleep(self, seconds):
        woken = asyncio.get_running_loop().create_future()
        self.sleeping.append((self.now_s + seconds, woken))
        await woken

    async def pass_until(self, end_s):
        while self.now_s < end_s:
            await asyncio.sleep(0.001)
            due_s = min((due_s for due_s, _ in self.sleeping), default=end_s)
            self.now_s = max(self.now_s, min(due_s, end_s))
            for _, woken in (ready := [one for one in self.sleeping if one[0] <= self.now_s]):
                woken.done() or woken.set_result(None)
            self.sleeping = [one for one in self.sleeping if one not in ready]


class Outage:
    """A ledger that cannot be reached until the clock says so."""

    def __init__(self, store, clock):
        self.store, self.clock, self.ends_s, self.asked = store, clock, clock.now_s + AWAY_S, 0

    async def settle(self, settlement):
        self.asked += 1
        if self.clock.now_s < self.ends_s:
            raise Fault("ledger", FaultKind.STORE, "away")
        return await self.store.settle(settlement)


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("killed", [False, True])
def test_five_minutes_without_the_ledger_lose_and_double_nothing(store_url, tmp_path, swept, killed):
    """``swept``: another host took the calls for dead before they were settled. ``killed``: so they were, and the
    process that had them in its journal is gone; another one settles them."""

    async def run():
        store, clock, folder = await open_store(store_url, clock=SystemClock()), MovedClock(), tmp_path / "journal"
        now_ms = clock.now_ms()
        made = [order(f"c{number}", "acme", now_ms) for number in range(CALLS)]
        await asyncio.gather(*(store.hold(one) for one in made))
        await store.renew([Progress(one.call_id, 50 * UNITS, True) for one in made], now_ms + 30_000)
        outage, journal = Outage(store, clock), FileJournal(folder, "host:1:a")
        settler = Settler(outage, clock, journal)
        ends = [replace(settlement(one, now_ms + 900), plan=PLAN) for one in made]
        settling = [settler.begin(end) for end in ends]
        # Their clients are told the end as soon as it is durable here.
        await asyncio.gather(*(one.kept for one in settling))
        (file,) = folder.iterdir()
        assert file.read_bytes().count(b"\n") == CALLS
        assert await store.records() == []
        await clock.pass_until(outage.ends_s - 1)
        assert await store.records() == []
        if killed:
            await settler.drain(0)
            await journal.close()
        if swept:
            assert await store.recover(now_ms + AWAY_S * 1000, {PLAN.id: PLAN}) == CALLS
        if killed:
            clock.now_s = outage.ends_s
            journal = FileJournal(folder, "host:2:b")
            settler = Settler(outage, clock, journal)
            assert await settler.replay(lambda: {PLAN.id: PLAN}) == CALLS
        await clock.pass_until(outage.ends_s + 10)
        assert await settler.drain(60) == 0
        await journal.close()
        assert list(folder.iterdir()) == []
        # Pauses grow to 5 s: nobody storms a ledger that is away.
        assert outage.asked <= CALLS * (AWAY_S / 5 + 10)
        total = await store.usage_total(0, 2**50, customer_id="acme")
        assert (total.requests, total.units_micro) == (CALLS, CALLS * TOOK)
        assert len(await store.records()) == CALLS * (2 if swept else 1)
        for state in await store.counters([line.key for line in made[0].stock]):
            assert (state.used, state.held) == (CALLS * TOOK, 0)
        assert await store.unbalanced() == ([], [])
        await store.close()

    asyncio.run(run())
