"""Pulse: open calls are kept alive with their progress; a bad beat is not the last."""

import asyncio

import pytest
from fakes.proxies import Bench, FakeCaller

from gatekeeper.errors import Refusal
from gatekeeper.meters import Outcome
from gatekeeper.proxy.call import Aborted
from gatekeeper.proxy.pulse import RECOVERED_AT_ONCE, stopped

BODY = b'{"messages":[],"stream":true,"stream_options":{"include_usage":true}}'
TEXT = b'data: {"choices":[{"delta":{"content":"' + b"x" * 300 + b'"}}]}\n\n'


def test_a_beat_tells_what_would_be_charged_by_now():
    async def body() -> None:
        bench = Bench()
        answer = bench.answers(200, content_type="text/event-stream")
        serving = asyncio.create_task(bench.serve(BODY))
        await turns()
        await bench.pulse.beat()
        assert [(sign.units_micro, sign.output_seen) for sign in bench.ledger.renewed[0]] == [(0, False)]
        answer.say(TEXT)
        await turns()
        await bench.pulse.beat()
        (sign,) = bench.ledger.renewed[1]
        assert sign.units_micro >= 100_000_000
        assert sign.output_seen
        answer.say(b"")
        await serving
        await bench.pulse.beat()
        assert len(bench.ledger.renewed) == 2
        assert bench.pulse.open_calls == 0

    asyncio.run(body())


def test_a_call_whose_hold_is_lost_is_stopped():
    async def body() -> None:
        bench = Bench()
        caller = FakeCaller(BODY)
        slow = bench.answers(200, TEXT, content_type="text/event-stream")
        serving = asyncio.create_task(bench.serve(BODY, caller))
        bench.ledger.lost = ["call_1", "call_unknown"]
        await turns()
        await bench.pulse.beat()
        with pytest.raises(Aborted):
            await serving
        assert not caller.ended
        await bench.settler.drain(5)
        (settlement,) = bench.ledger.settled
        assert settlement.record.outcome is Outcome.CUT
        assert not slow.ended

    asyncio.run(body())


def test_a_ledger_that_misses_a_beat_gets_the_next_and_a_mistake_of_ours_too(caplog):
    async def body() -> None:
        bench = Bench()
        bench.ledger.faults = 1
        bench.answers(200, content_type="text/event-stream")
        serving = asyncio.create_task(bench.serve(BODY))
        await turns()
        beating = asyncio.create_task(bench.pulse.run())
        await turns(30)
        assert bench.ledger.renewed
        bench.ledger.recoverable = ["nonsense"]  # type: ignore[list-item]
        before = len(bench.ledger.renewed)
        await turns(30)
        assert len(bench.ledger.renewed) > before
        assert any("a beat failed" in record.getMessage() for record in caplog.records)
        await stopped(beating)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await bench.settler.drain(5)

    asyncio.run(body())


def test_a_beat_recovers_all_there_is():
    async def body() -> None:
        bench = Bench()
        bench.ledger.recoverable = [RECOVERED_AT_ONCE, RECOVERED_AT_ONCE, 3, 99]
        await bench.pulse.beat()
        assert bench.ledger.recoverable == [99]

    asyncio.run(body())


def test_after_an_outage_nothing_is_swept_for_one_whole_life_of_a_hold():
    async def body() -> None:
        bench = Bench()
        ttl_s = bench.gateway.ledger.hold_ttl_s
        bench.answers(200, content_type="text/event-stream")
        serving = asyncio.create_task(bench.serve(BODY))
        await turns()
        bench.ledger.faults = 3
        bench.ledger.recoverable = [7]
        beating = asyncio.create_task(bench.pulse.run())
        away_s = bench.clock.now_s
        for _ in range(1_000):
            await asyncio.sleep(0)
            if not bench.ledger.recoverable:
                break
        assert ttl_s <= bench.clock.now_s - away_s <= ttl_s + 6 * bench.gateway.ledger.heartbeat_s
        await stopped(beating)
        serving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await serving
        await bench.settler.drain(5)

    asyncio.run(body())


def test_a_refusal_is_no_open_call():
    async def body() -> None:
        bench = Bench()
        with pytest.raises(Refusal):
            await bench.serve(b"[]")
        assert bench.pulse.open_calls == 0

    asyncio.run(body())


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
