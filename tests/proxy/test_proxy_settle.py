"""Settler: once begun, a settlement is tried until the ledger has it."""

import asyncio
import logging
import os
from pathlib import Path

import pytest
from fakes.proxies import Bench

from gatekeeper.ports import Settled, Settlement
from gatekeeper.proxy.settle import Settler, finished
from gatekeeper.stores.journal import FileJournal

BODY = b'{"messages":[]}'
ANSWER = b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def settlement(bench: Bench) -> Settlement:
    bench.answers(200, ANSWER, b"", content_type="application/json")
    await bench.serve(BODY)
    return bench.ledger.settled.pop()


def test_a_ledger_that_is_away_is_asked_again_with_growing_pauses():
    async def body() -> None:
        bench = Bench()
        what = await settlement(bench)
        bench.ledger.faults = 12
        await bench.settler.begin(what)
        assert bench.ledger.settled == [what]
        assert len(bench.clock.slept) == 12
        assert bench.clock.slept == sorted(bench.clock.slept)
        assert bench.clock.slept[-1] == 5.0

    asyncio.run(body())


def test_cancelling_who_waits_does_not_cancel_the_settlement():
    async def body() -> None:
        bench = Bench()
        what = await settlement(bench)
        bench.ledger.gate.clear()
        task = bench.settler.begin(what)
        waiter = asyncio.create_task(finished(task, 10))
        await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        assert not task.task.cancelled()
        bench.ledger.gate.set()
        assert (await task).record is what.record

    asyncio.run(body())


def test_who_waits_too_long_is_told_and_the_settlement_goes_on():
    async def body() -> None:
        bench = Bench()
        what = await settlement(bench)
        bench.ledger.gate.clear()
        task = bench.settler.begin(what)
        assert not await finished(task, 0.01)
        bench.ledger.gate.set()
        await task
        assert bench.ledger.settled == [what]

    asyncio.run(body())


def test_drain_waits_for_all_and_tells_how_many_are_left():
    async def body() -> None:
        bench = Bench()
        what = await settlement(bench)
        for _ in range(3):
            bench.settler.begin(what)
        assert await bench.settler.drain(5) == 0
        assert len(bench.ledger.settled) == 3
        bench.ledger.gate.clear()
        bench.settler.begin(what)
        assert await bench.settler.drain(0.01) == 1
        assert await bench.settler.drain(0.01) == 0

    asyncio.run(body())


def test_a_settlement_that_breaks_for_good_is_heard(caplog):
    class Broken:
        async def settle(self, settlement: Settlement) -> Settled:
            raise AssertionError("two and two are five")

    async def body() -> None:
        bench = Bench()
        what = await settlement(bench)
        settler = Settler(Broken(), bench.clock)  # type: ignore[arg-type]
        settler.begin(what)
        assert await settler.drain(5) == 0

    with caplog.at_level(logging.ERROR):
        asyncio.run(body())
    assert any("failed for good" in record.getMessage() for record in caplog.records)


def test_while_the_ledger_is_away_the_journal_makes_the_record_durable(tmp_path):
    async def body() -> None:
        bench = Bench()
        what = await settlement(bench)
        journal = FileJournal(tmp_path, "me")
        settler = Settler(bench.ledger, bench.clock, journal, journal_after_s=0.01)
        bench.ledger.gate.clear()
        settling = settler.begin(what)
        assert await finished(settling, 5)
        assert not settling.task.done(), "the ledger does not have it yet"
        (file,) = files(tmp_path)
        assert what.record.call_id.encode() in file.read_bytes()
        bench.ledger.gate.set()
        assert (await settling).record is what.record
        assert file.read_bytes() == b""
        await journal.close()

    asyncio.run(body())


def test_a_ledger_that_says_that_it_is_away_is_journaled_at_once(tmp_path):
    async def body() -> None:
        bench = Bench()
        what = await settlement(bench)
        journal = FileJournal(tmp_path, "me")
        settler = Settler(bench.ledger, bench.clock, journal)
        bench.ledger.faults = 3
        appended = []
        append = journal.append

        async def noted(kept: Settlement) -> None:
            appended.append(kept)
            await append(kept)

        journal.append = noted
        assert (await settler.begin(what)).record is what.record
        assert appended == [what], "once, however often the ledger is asked"
        assert files(tmp_path)[0].read_bytes() == b""
        await journal.close()

    asyncio.run(body())


def test_what_a_dead_process_journaled_is_settled_by_the_next(tmp_path):
    async def body() -> None:
        bench = Bench()
        what = await settlement(bench)
        dead = FileJournal(tmp_path, "dead")
        await dead.append(what)
        os.close(dead._file)
        journal = FileJournal(tmp_path, "me")
        settler = Settler(bench.ledger, bench.clock, journal)
        assert await settler.replay(lambda: {what.plan.id: what.plan}) == 1
        assert await settler.drain(5) == 0
        assert bench.ledger.settled == [what]
        assert files(tmp_path) == []
        assert await settler.replay(dict) == 0
        await journal.close()

    asyncio.run(body())
