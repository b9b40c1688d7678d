"""The pipeline: whatever happens, and at whichever moment, an admitted call is settled exactly once."""

import asyncio
import gc
from collections.abc import Callable

import pytest
from fakes.proxies import Bench, FakeCaller

from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.meters import Mark, Outcome
from gatekeeper.proxy.call import Aborted, CallerGone

PLAIN = b'{"messages":[{"role":"user","content":"Hello"}]}'
STREAM = b'{"messages":[],"stream":true,"stream_options":{"include_usage":true}}'
INJECTED = b'{"messages":[],"stream":true}'
USAGE = b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
TEXT = b'data: {"choices":[{"delta":{"content":"Hello"},"finish_reason":"stop"}]}\n\n'
LAST = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
DONE = b"data: [DONE]\n\n"
FAULT = Fault("upstream", FaultKind.RESET, "broke")
SSE = {"content_type": "text/event-stream"}


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def settled_once(bench: Bench) -> None:
    assert [each.record.call_id for each in bench.ledger.settled] == ["call_1"]
    assert bench.ledger.open == {}
    assert bench.pulse.open_calls == 0
    assert bench.upstream.left == bench.upstream.entered


# --- the end of the body waits for the record ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "headers", "before"),
    [
        ((USAGE[:20], USAGE[20:]), {"content_length": str(len(USAGE))}, USAGE[:20]),
        ((USAGE,), {"content_length": str(len(USAGE))}, b""),
        ((USAGE[:20], USAGE[20:]), {}, USAGE),
    ],
)
def test_strict_holds_back_the_end_until_the_record_is_durable(pieces, headers, before):
    async def body() -> None:
        bench = Bench()
        bench.ledger.gate.clear()
        bench.answers(200, *pieces, b"", content_type="application/json", **headers)
        caller = FakeCaller(PLAIN)
        serving = asyncio.create_task(bench.serve(PLAIN, caller))
        await turns(50)
        assert (caller.bytes, caller.ended, len(caller.heads)) == (before, False, 1)
        bench.ledger.gate.set()
        await serving
        assert (caller.bytes, caller.ended) == (USAGE, True)
        settled_once(bench)

    asyncio.run(body())


@pytest.mark.parametrize("status", [204, 304, 200])
def test_where_there_is_no_body_the_head_waits(status):
    async def body() -> None:
        bench = Bench()
        bench.ledger.gate.clear()
        bench.answers(status, b"", content_length="0", etag="x")
        caller = FakeCaller(PLAIN)
        serving = asyncio.create_task(bench.serve(PLAIN, caller))
        await turns(50)
        assert caller.heads == []
        bench.ledger.gate.set()
        await serving
        assert (caller.heads[0][0], caller.ended) == (status, True)
        names = [name for name, _ in caller.heads[0][1]]
        assert (b"content-length" in names) == (status == 200)

    asyncio.run(body())


def test_relaxed_does_not_wait():
    async def body() -> None:
        bench = Bench(ledger='durability = "relaxed"')
        bench.ledger.gate.clear()
        bench.answers(200, USAGE, b"", content_type="application/json", content_length=str(len(USAGE)))
        caller = FakeCaller(PLAIN)
        await bench.proxy.serve(bench.call(PLAIN), caller)
        assert (caller.bytes, caller.ended, bench.ledger.settled) == (USAGE, True, [])
        bench.ledger.gate.set()
        await bench.settler.drain(5)
        settled_once(bench)

    asyncio.run(body())


def test_a_record_that_cannot_be_made_durable_in_time_aborts_the_answer():
    async def body() -> None:
        bench = Bench(ledger="settle_wait_s = 0.05")
        bench.ledger.gate.clear()
        bench.answers(200, USAGE, b"", content_type="application/json")
        caller = FakeCaller(PLAIN)
        with pytest.raises(Aborted):
            await bench.proxy.serve(bench.call(PLAIN), caller)
        assert not caller.ended
        bench.ledger.gate.set()
        await bench.settler.drain(5)
        settled_once(bench)

    asyncio.run(body())


def test_a_failure_upstream_is_told_also_where_the_record_takes_its_time():
    async def body() -> None:
        bench = Bench(ledger="settle_wait_s = 0.05")
        bench.ledger.gate.clear()
        bench.upstream.answers.append(FAULT)
        with pytest.raises(Refusal) as refusal:
            await bench.proxy.serve(bench.call(PLAIN), FakeCaller(PLAIN))
        assert refusal.value.code is Code.UPSTREAM_UNAVAILABLE
        bench.ledger.gate.set()
        await bench.settler.drain(5)

    asyncio.run(body())


# --- who leaves, and when -----------------------------------------------------------------------------------------


def _leaves(bench: Bench, caller: FakeCaller, serving: "asyncio.Task[None]") -> None:
    caller.hang_up()


def _shuts_down(bench: Bench, caller: FakeCaller, serving: "asyncio.Task[None]") -> None:
    serving.cancel()


def _both(bench: Bench, caller: FakeCaller, serving: "asyncio.Task[None]") -> None:
    caller.hang_up()
    serving.cancel()


def _loses_its_hold(bench: Bench, caller: FakeCaller, serving: "asyncio.Task[None]") -> None:
    for _, interrupt in list(bench.pulse._open.values()):
        interrupt.fire(interrupt.HOLD_LOST)


def _leaves_and_loses(bench: Bench, caller: FakeCaller, serving: "asyncio.Task[None]") -> None:
    caller.hang_up()
    _loses_its_hold(bench, caller, serving)


@pytest.mark.parametrize("happens", [_leaves, _shuts_down, _both, _loses_its_hold, _leaves_and_loses])
@pytest.mark.parametrize("request_body", [PLAIN, STREAM, INJECTED])
def test_at_whichever_moment_it_ends_it_is_settled_once(happens: Callable[..., None], request_body: bytes):
    failures: list[str] = []

    async def once(after: int) -> bool:
        """Whether the call was still running at that moment."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: failures.append(str(context)))
        bench = Bench()
        answer = bench.answers(200, **SSE)
        caller = FakeCaller(request_body)
        serving = asyncio.create_task(bench.proxy.serve(bench.call(request_body), caller))
        pieces = [TEXT[:30], TEXT[30:], LAST[:10], LAST[10:], DONE, b""]
        for turn in range(after):
            await asyncio.sleep(0)
            if turn > 12 and turn % 3 == 0 and pieces:
                answer.say(pieces.pop(0))
        running = not serving.done()
        happens(bench, caller, serving)
        await turns(3)
        answer.say(*pieces)
        (raised,) = await asyncio.gather(serving, return_exceptions=True)
        await bench.settler.drain(5)
        if bench.upstream.asked:
            settled_once(bench)
        else:
            assert len(bench.ledger.settled) <= 1
            if happens is not _shuts_down and happens is not _both:
                settled_once(bench)
            # A hold that was granted at the moment of a cancellation belongs to the ledger, which gives it back.
        assert raised is None or isinstance(raised, (asyncio.CancelledError, Aborted, Refusal, CallerGone))
        assert bench.proxy._serving == set()
        return running

    moments = [asyncio.run(once(after)) for after in range(60)]
    gc.collect()
    assert moments[0]
    assert not moments[-1]
    assert failures == []


def test_a_client_that_leaves_after_done_is_complete_and_the_rest_is_read():
    async def body() -> None:
        bench = Bench()
        answer = bench.answers(200, TEXT, LAST, DONE, **SSE)
        caller = FakeCaller(STREAM)
        serving = asyncio.create_task(bench.proxy.serve(bench.call(STREAM), caller))
        await turns(40)
        caller.hang_up()
        await turns(3)
        answer.say(b"\n", b"")
        await serving
        await bench.settler.drain(5)
        (settlement,) = bench.ledger.settled
        assert (settlement.record.outcome, settlement.record.source) == (Outcome.COMPLETE, Mark.MEASURED)
        assert answer.ended

    asyncio.run(body())


@pytest.mark.parametrize("moment", range(6))
def test_what_was_read_at_the_moment_of_a_disconnect_is_still_metered(moment):
    async def body() -> None:
        bench = Bench()
        answer = bench.answers(200, TEXT, LAST[:10], **SSE)
        caller = FakeCaller(INJECTED)
        serving = asyncio.create_task(bench.proxy.serve(bench.call(INJECTED), caller))
        await turns(40)
        answer.say(LAST[10:])
        await turns(moment)
        caller.hang_up()
        await serving
        await bench.settler.drain(5)
        (settlement,) = bench.ledger.settled
        assert settlement.record.source is Mark.MEASURED or not answer.queue.empty()

    asyncio.run(body())


def test_drain_waits_for_calls_then_cancels_them_and_each_is_settled():
    async def body() -> None:
        bench = Bench()
        serving: list[asyncio.Task[None]] = []
        for number in range(3):
            bench.answers(200, TEXT, **SSE)
            call = bench.call(STREAM, call_id=f"call_{number}")
            serving.append(asyncio.create_task(bench.proxy.serve(call, FakeCaller(STREAM))))
        await turns(40)
        assert bench.pulse.open_calls == 3
        assert await bench.proxy.drain(0.01) == 3
        assert all(task.cancelled() for task in serving)
        assert await bench.settler.drain(5) == 0
        assert sorted(each.record.call_id for each in bench.ledger.settled) == ["call_0", "call_1", "call_2"]
        assert await bench.proxy.drain(0) == 0

    asyncio.run(body())


# --- what the upstream does ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(FaultKind))
def test_every_fault_before_the_head_becomes_a_refusal_with_its_reason_in_private(kind):
    async def body() -> None:
        bench = Bench()
        bench.upstream.answers.append(Fault("upstream", kind, "10.0.0.7 said no"))
        with pytest.raises(Refusal) as refusal:
            await bench.serve(PLAIN)
        await bench.settler.drain(5)
        assert refusal.value.status in (502, 504)
        assert (refusal.value.status == 504) == kind.value.endswith("timeout")
        assert "10.0.0.7" not in refusal.value.public
        assert [each.record.units_micro for each in bench.ledger.settled] == [0]

    asyncio.run(body())


@pytest.mark.parametrize("kind", [FaultKind.RESET, FaultKind.TRUNCATED, FaultKind.IDLE_TIMEOUT, FaultKind.PROTOCOL])
def test_every_fault_after_the_head_is_an_abort(kind):
    async def body() -> None:
        bench = Bench()
        bench.answers(200, TEXT, Fault("upstream", kind, "broke"), **SSE)
        caller = FakeCaller(STREAM)
        with pytest.raises(Aborted):
            await bench.serve(STREAM, caller)
        await bench.settler.drain(5)
        assert (caller.bytes, caller.ended) == (TEXT, False)
        settled_once(bench)

    asyncio.run(body())


def test_a_mistake_of_ours_while_relaying_is_settled_too():
    async def body() -> None:
        bench = Bench()
        bench.answers(200, TEXT, ZeroDivisionError(), **SSE)
        with pytest.raises(ZeroDivisionError):
            await bench.serve(STREAM)
        await bench.settler.drain(5)
        settled_once(bench)

    asyncio.run(body())


@pytest.mark.parametrize(("retries", "said"), [(True, b'{"error":"stream_options?"}'), (False, b'{"error":"model?"}')])
def test_one_400_that_names_stream_options_is_tried_again_without(retries, said):
    async def body() -> None:
        bench = Bench()
        bench.answers(400, said[:7], said[7:], b"", content_type="application/json", content_length=str(len(said)))
        if retries:
            bench.answers(200, TEXT, DONE, b"", **SSE)
        caller = await bench.serve(INJECTED)
        assert caller.bytes == (TEXT + DONE if retries else said)
        assert [asked.body == INJECTED for asked in bench.upstream.asked] == [False, True][: 1 + retries]
        settled_once(bench)

    asyncio.run(body())


def test_a_second_400_is_the_answer():
    async def body() -> None:
        bench = Bench()
        for _ in range(2):
            bench.answers(400, b"stream_options", b"", content_length="14")
        caller = await bench.serve(INJECTED)
        assert (caller.heads[0][0], caller.bytes) == (400, b"stream_options")
        assert len(bench.upstream.asked) == 2
        settled_once(bench)

    asyncio.run(body())


def test_an_upload_that_passes_its_bound_is_refused_while_it_streams():
    async def body() -> None:
        bench = Bench(route="request_bytes_max = 10")
        bench.answers(200, USAGE, b"")
        call = bench.call(b"", (b"content-type", b"application/octet-stream"), (b"transfer-encoding", b"chunked"))
        with pytest.raises(Refusal) as refusal:
            await bench.proxy.serve(call, FakeCaller(b"12345", b"67890", b"!"))
        assert refusal.value.code is Code.BODY_TOO_LARGE
        await bench.settler.drain(5)
        assert bench.upstream.uploaded == [b"12345", b"67890"]
        assert [each.record.units_micro for each in bench.ledger.settled] == [0]
        assert bench.ledger.open == {}

    asyncio.run(body())


def test_a_free_route_holds_and_charges_nothing_but_is_recorded():
    async def body() -> None:
        bench = Bench(route="free = true")
        bench.answers(200, USAGE, b"", content_type="application/json")
        held = []
        bench.ledger.at_hold = lambda: held.extend(bench.ledger.open["call_1"].stock)
        await bench.serve(PLAIN)
        (settlement,) = bench.ledger.settled
        assert held == []
        assert settlement.actual == {"units": 0} or settlement.actual == {}
        assert (settlement.record.units_micro, settlement.record.note) == (0, "free route")

    asyncio.run(body())


def test_usage_that_nobody_can_have_used_is_not_believed():
    async def body() -> None:
        bench = Bench()
        absurd = (
            b'{"usage":{"prompt_tokens":-5,"completion_tokens":' + b"9" * 40 + b',"total_tokens":' + b"9" * 40 + b"}}"
        )
        bench.answers(200, absurd, b"", content_type="application/json")
        await bench.serve(PLAIN)
        (settlement,) = bench.ledger.settled
        assert 0 <= settlement.record.units_micro < 1000 * 1_000_000

    asyncio.run(body())
