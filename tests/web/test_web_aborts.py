"""Whoever breaks off, and whenever: an abort is an abort on the other side, and each call is settled exactly once."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import pytest
from fakes.origin import Asked, Line
from fakes.raw import DONE, Client, ask, chat, completion, delta, request, usage_chunk
from fakes.stand import ROUTES, Stand, running

from gatekeeper.meters import Mark, Outcome
from gatekeeper.web import protocol

SSE = {"Content_Type": "text/event-stream", "Transfer_Encoding": "chunked"}
HELLO = [delta("Hel"), delta("lo", finish="stop")]
ASKS_USAGE = chat(True, stream_options={"include_usage": True})


class Upstream:
    """Runs a script and keeps when the gateway closed the connection."""

    def __init__(self, script: Callable[[Line], Awaitable[None]]) -> None:
        self.script = script
        self.asked_for = asyncio.Event()
        self.left_after_s: float | None = None

    async def __call__(self, asked: Asked, line: Line) -> None:
        self.asked_for.set()
        await self.script(line)
        await line.gone()
        self.left_after_s = time.monotonic()


def sends(*chunks: bytes, head: dict[str, str] | None = None) -> Callable[[Line], Awaitable[None]]:
    """A head, some chunks, then silence."""

    async def script(line: Line) -> None:
        await line.head(200, **(head or SSE))
        for chunk in chunks:
            await line.chunk(chunk)

    return script


async def silence(line: Line) -> None:
    """Not even a head."""


def check_settled_once(stand: Stand) -> None:
    """One record, nothing held, and the counter is what the record says."""
    record = stand.record()

    async def balanced() -> bool:
        return await stand.house.store.unbalanced() == ([], [])

    stand.wait_until(balanced)
    assert stand.held_micro() == 0
    assert stand.house.pulse.open_calls == 0
    assert stand.records() == [record]


def hangs_up(
    stand: Stand, upstream: Upstream, body: bytes, seen: bytes | None, *, reset: bool = False, behind: bytes = b""
) -> None:
    """Ask, wait until ``seen`` has come (None: until the upstream was asked), hang up; the upstream hears it soon."""
    client = Client(stand.url)
    client.send(request(stand.key, body))
    if seen is None:

        async def asked() -> bool:
            return upstream.asked_for.is_set()

        stand.wait_until(asked)
    else:
        client.until(seen)
    client.send(behind)
    (client.reset if reset else client.close)()
    start = time.monotonic()

    async def left() -> bool:
        return upstream.left_after_s is not None

    stand.wait_until(left, timeout_s=5)
    assert upstream.left_after_s is not None
    assert upstream.left_after_s - start < 1.0


# --- the client hangs up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_before_the_first_token_pays_nothing(tmp_path, reset):
    upstream = Upstream(silence)
    with running(tmp_path, upstream) as stand:
        hangs_up(stand, upstream, chat(True), None, reset=reset)
        record = stand.record()
        assert (record.outcome, record.units_micro, record.source) == (Outcome.CLIENT_CLOSED, 0, Mark.NONE)
        check_settled_once(stand)


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_leaves_mid_stream_pays_for_what_was_delivered(tmp_path, reset):
    """Pitfall 26: a disconnect is billed by policy."""
    upstream = Upstream(sends(delta("x" * 300), delta("y" * 300)))
    with running(tmp_path, upstream) as stand:
        hangs_up(stand, upstream, chat(True), b"yyyy", reset=reset)
        record = stand.record()
        assert (record.outcome, record.source) == (Outcome.CLIENT_CLOSED, Mark.ESTIMATED)
        assert record.units_micro >= 200_000_000
        check_settled_once(stand)


def test_a_client_that_leaves_just_before_the_usage_chunk_does_not_ride_free(tmp_path):
    upstream = Upstream(sends(delta("x" * 600), delta("", finish="stop")))
    with running(tmp_path, upstream) as stand:
        hangs_up(stand, upstream, chat(True), b'"stop"')
        assert stand.record().units_micro >= 200_000_000
        check_settled_once(stand)


def test_a_client_that_leaves_after_done_has_its_whole_answer(tmp_path):
    upstream = Upstream(sends(*HELLO, usage_chunk(5, 2), DONE))
    with running(tmp_path, upstream) as stand:
        client = Client(stand.url)
        client.send(request(stand.key, ASKS_USAGE))
        client.until(b"[DONE]")
        client.close()
        record = stand.record()
        assert (record.outcome, record.source, record.units_micro) == (Outcome.COMPLETE, Mark.MEASURED, 7_000_000)
        check_settled_once(stand)


def test_the_usage_counts_when_the_client_left_after_it(tmp_path):
    upstream = Upstream(sends(*HELLO, usage_chunk(5, 2)))
    with running(tmp_path, upstream) as stand:
        hangs_up(stand, upstream, ASKS_USAGE, b"total_tokens")
        record = stand.record()
        assert (record.source, record.units_micro) == (Mark.MEASURED, 7_000_000)
        check_settled_once(stand)


def test_a_client_that_leaves_a_call_that_is_not_streamed_cancels_it(tmp_path):
    upstream = Upstream(silence)
    with running(tmp_path, upstream) as stand:
        hangs_up(stand, upstream, chat(False), None)
        assert stand.record().outcome is Outcome.CLIENT_CLOSED
        check_settled_once(stand)


@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream"])
def test_a_client_that_leaves_within_its_request(tmp_path, kind):
    upstream = Upstream(silence)
    with running(tmp_path, upstream) as stand:
        gone = asyncio.Event()

        async def take(line: Line) -> None:
            await line.gone()
            gone.set()

        stand.origin.accept = take
        client = Client(stand.url)
        headers = {"Content-Type": kind}
        client.send(
            request(stand.key, headers=headers, framing="Content-Length: 50000"),
            (b"{" if "json" in kind else b"x") * 20_000,
        )
        if kind == "application/json":

            async def runs() -> bool:
                return bool(stand.house.proxy._serving)

            stand.wait_until(runs)
            client.close()
            stand.wait_until(_nothing_runs(stand))
            assert stand.records() == []
        else:

            async def is_open() -> bool:
                return stand.house.pulse.open_calls == 1

            stand.wait_until(is_open)
            client.close()

            async def heard() -> bool:
                return gone.is_set()

            stand.wait_until(heard, timeout_s=2)
            record = stand.record()
            assert (record.outcome, record.units_micro) == (Outcome.CLIENT_CLOSED, 0)
            check_settled_once(stand)
        assert stand.held_micro() == 0


def _nothing_runs(stand: Stand) -> Callable[[], Awaitable[bool]]:
    async def idle() -> bool:
        return not stand.house.proxy._serving

    return idle


def test_a_client_that_pipelines_and_leaves_is_noticed_too(tmp_path):
    upstream = Upstream(silence)
    with running(tmp_path, upstream) as stand:
        hangs_up(stand, upstream, chat(True), None, behind=request(stand.key, chat(True)))
        assert stand.record().outcome is Outcome.CLIENT_CLOSED
        check_settled_once(stand)


def test_pipelined_calls_are_answered_in_order(tmp_path):
    count = 0

    async def counts(asked: Asked, line: Line) -> None:
        nonlocal count
        count += 1
        await asyncio.sleep(0.02 / count)
        body = completion(count, 0)
        await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
        await line.send(body)

    with running(tmp_path, counts) as stand, Client(stand.url) as client:
        client.send(*[request(stand.key, chat()) for _ in range(12)])
        answers = [client.answer() for _ in range(12)]
        assert [json.loads(answer.body)["usage"]["prompt_tokens"] for answer in answers] == list(range(1, 13))
        assert sum(record.units_micro for record in stand.records(12)) == 78_000_000


def test_a_drained_route_reads_to_the_usage_for_a_client_that_left(tmp_path):
    """Pitfall 26, where the route's policy is to read on."""
    go_on = asyncio.Event()

    async def waits(asked: Asked, line: Line) -> None:
        await line.head(200, **SSE)
        await line.chunk(HELLO[0])
        await go_on.wait()
        for piece in (HELLO[1], usage_chunk(5, 2), DONE):
            await line.chunk(piece)
        await line.end()

    routes = ROUTES.replace('name = "chat"\n', 'name = "chat"\non_disconnect = "drain"\n')
    with running(tmp_path, waits, routes=routes) as stand:
        client = Client(stand.url)
        client.send(request(stand.key, chat(True)))
        client.until(b"Hel")
        client.close()

        async def noticed() -> bool:
            return stand.connections == 0

        stand.wait_until(noticed)
        stand.loop.call_soon_threadsafe(go_on.set)
        record = stand.record()
        assert (record.outcome, record.source, record.units_micro) == (
            Outcome.CLIENT_CLOSED, Mark.MEASURED, 7_000_000,
        )  # fmt: skip
        check_settled_once(stand)


def test_a_client_that_stops_to_read_is_cut_off_and_slows_the_upstream_till_then(tmp_path, monkeypatch):
    monkeypatch.setattr(protocol, "STALLED_TIMEOUT_S", 0.3)
    sent = 0

    async def floods(asked: Asked, line: Line) -> None:
        nonlocal sent
        await line.head(200, **SSE)
        while sent < 200_000_000:
            await line.chunk(b": " + b"x" * 65536 + b"\n\n")
            sent += 65536

    with running(tmp_path, floods) as stand, Client(stand.url) as client:
        client.send(request(stand.key, chat(True)))
        record = stand.record()
        assert record.outcome is Outcome.CLIENT_CLOSED
        # What the kernels on both legs buffer, and no more.
        assert sent < 30_000_000
        check_settled_once(stand)


# --- the upstream fails -------------------------------------------------------------------------------------------


async def _cut_mid_chunk(line: Line) -> None:
    await line.head(200, **SSE)
    await line.chunk(HELLO[0])
    await line.send(b"ff\r\ndata: {")
    line.writer.close()


async def _cut_before_the_end(line: Line) -> None:
    await line.head(200, **SSE)
    for piece in (*HELLO, usage_chunk(5, 2), DONE):
        await line.chunk(piece)
    line.writer.close()


async def _reset(line: Line) -> None:
    await line.head(200, **SSE)
    await line.chunk(HELLO[0])
    await asyncio.sleep(0.05)
    line.writer.transport.abort()


async def _short(line: Line) -> None:
    await line.head(200, Content_Type="application/json", Content_Length="1000")
    await line.send(completion()[:40])
    line.writer.close()


async def _stall(line: Line) -> None:
    await line.head(200, **SSE)
    await line.chunk(HELLO[0])


async def _garbage_chunk(line: Line) -> None:
    await line.head(200, **SSE)
    await line.chunk(HELLO[0])
    await line.send(b"zz\r\nnot a chunk")


@pytest.mark.parametrize("script", [_cut_mid_chunk, _cut_before_the_end, _reset, _short, _stall, _garbage_chunk])
def test_an_abort_upstream_is_an_abort_for_the_client(tmp_path, script):
    with running(tmp_path, Upstream(script), silence_s=0.5) as stand:
        with Client(stand.url) as client:
            client.send(request(stand.key, ASKS_USAGE))
            answer = client.answer()
        assert answer.status == 200
        assert not answer.ended
        assert not answer.framed.endswith(b"0\r\n\r\n")
        assert answer.body.endswith(b"[DONE]\n\n") == (script is _cut_before_the_end)
        record = stand.record()
        expected = Outcome.TIMED_OUT if script is _stall else Outcome.UPSTREAM_FAILED
        assert record.outcome is expected
        assert record.units_micro == (7_000_000 if script is _cut_before_the_end else 0)
        check_settled_once(stand)


async def _close_at_once(line: Line) -> None:
    line.writer.close()


async def _garbage(line: Line) -> None:
    await line.send(b"SSH-2.0-OpenSSH_9.6\r\n\r\n")


async def _two_lengths(line: Line) -> None:
    await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")


async def _endless_head(line: Line) -> None:
    await line.send(b"HTTP/1.1 200 OK\r\n", *[b"X-%d: %b\r\n" % (n, b"a" * 4000) for n in range(100)])


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (_close_at_once, 502, "upstream_unavailable"),
        (_garbage, 502, "upstream_protocol"),
        (_two_lengths, 502, "upstream_protocol"),
        (_endless_head, 502, "upstream_protocol"),
        (silence, 504, "upstream_timeout"),
    ],
)
def test_an_upstream_that_fails_before_its_head_is_told_in_words(tmp_path, script, status, code):
    with running(tmp_path, Upstream(script), silence_s=0.5) as stand:
        answer = ask(stand.url, request(stand.key, chat(True)))
        assert (answer.status, answer.error["code"]) == (status, code)
        assert answer.header("x-gatekeeper-fault")
        record = stand.record()
        assert (record.units_micro, record.status, record.source) == (0, None, Mark.NONE)
        check_settled_once(stand)


def test_an_upstream_that_is_down_is_a_bad_gateway(tmp_path):
    with running(tmp_path, Upstream(silence)) as stand:

        async def down() -> None:
            assert stand.origin._server is not None
            stand.origin._server.close()

        stand.run(down())
        answer = ask(stand.url, request(stand.key, chat()))
        assert (answer.status, answer.error["code"]) == (502, "upstream_unavailable")
        check_settled_once(stand)


def test_html_of_a_proxy_in_between_passes_and_is_free(tmp_path):
    page = b"<html><h1>502 Bad Gateway</h1></html>"

    async def html(asked: Asked, line: Line) -> None:
        await line.head(502, Content_Type="text/html", Content_Length=str(len(page)))
        await line.send(page)

    with running(tmp_path, html) as stand:
        answer = ask(stand.url, request(stand.key, chat(True)))
        assert (answer.status, answer.body) == (502, page)
        assert (stand.record().units_micro, stand.record().note) == (0, "status")
        check_settled_once(stand)


def test_a_huge_event_passes_and_the_usage_after_it_counts(tmp_path):
    huge = delta("z" * 3_000_000)

    async def script(asked: Asked, line: Line) -> None:
        await line.head(200, **SSE)
        for piece in (huge, HELLO[1], usage_chunk(5, 2), DONE):
            await line.chunk(piece)
        await line.end()

    with running(tmp_path, script) as stand:
        answer = ask(stand.url, request(stand.key, ASKS_USAGE))
        assert answer.body == huge + HELLO[1] + usage_chunk(5, 2) + DONE
        assert stand.record().response_bytes == len(answer.body)
        check_settled_once(stand)


@pytest.mark.parametrize("tokens", [10**30, -5, 10**13, "x", True, 1.5, None, [1], {"a": 1}])
def test_absurd_usage_neither_breaks_the_record_nor_leaks_the_hold(tmp_path, tokens):
    usage = {"prompt_tokens": tokens, "completion_tokens": tokens, "total_tokens": tokens}
    body = json.dumps({"id": "a\0b\ud800", "choices": [{"message": {"content": "Hi"}}], "usage": usage}).encode()

    async def script(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
        await line.send(body)

    with running(tmp_path, script) as stand:
        answer = ask(stand.url, request(stand.key, chat()))
        assert (answer.body, answer.ended) == (body, True)
        assert 0 <= stand.record().units_micro < 10**9
        check_settled_once(stand)


# --- the gateway itself -------------------------------------------------------------------------------------------


def test_a_shutdown_settles_the_streams_in_flight(tmp_path):
    upstream = Upstream(sends(delta("x" * 300)))
    clients = []
    with running(tmp_path, upstream, server="drain_s = 1") as stand:
        for _ in range(20):
            client = Client(stand.url)
            client.send(request(stand.key, chat(True)))
            client.until(b"xxx")
            clients.append(client)
        house = stand.house
    for client in clients:
        # The server closed the connection without an end of the body.
        while client.more():
            pass
        assert not client.read.endswith(b"0\r\n\r\n")
        client.close()
    assert house.pulse.open_calls == 0
    with running(tmp_path, upstream) as stand:
        records = stand.records()
        assert [record.outcome for record in records] == [Outcome.CLIENT_CLOSED] * 20
        assert all(record.source is Mark.ESTIMATED and record.note != "recovered" for record in records)
        assert stand.held_micro() == 0


def test_a_call_that_lost_its_hold_is_stopped_and_settled_once(tmp_path):
    upstream = Upstream(sends(delta("x" * 300)))
    with running(tmp_path, upstream, ledger="heartbeat_s = 0.1\nhold_ttl_s = 30") as stand:
        with Client(stand.url) as client:
            client.send(request(stand.key, chat(True)))
            client.until(b"xxx")

            async def somebody_recovers() -> None:
                found = await stand.house.store.recover(int(time.time() * 1000) + 60_000, {})
                assert found == 1

            stand.run(somebody_recovers())
            answer = client.answer()
        assert not answer.ended

        async def corrected() -> bool:
            return len(await stand.house.store.records(customer_id="acme")) == 2

        stand.wait_until(corrected)
        units = [record.units_micro for record in stand.records()]
        assert sum(units) >= 100_000_000

        async def balanced() -> bool:
            return await stand.house.store.unbalanced() == ([], [])

        stand.wait_until(balanced)
        assert stand.held_micro() == 0
