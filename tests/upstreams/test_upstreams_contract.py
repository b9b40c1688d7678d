"""What both clients promise: ours, and the one over httpx."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from upstreams_server import HOST, Play, Server, Wire, answer, fault_of, fetch, forever, outgoing, serving, until, whole

from gatekeeper.config.gateway import Transport, UpstreamConfig
from gatekeeper.errors import FaultKind
from gatekeeper.upstreams.chosen import Upstreams

Talking = Callable[..., Any]


@pytest.fixture(params=[Transport.NATIVE, Transport.HTTPX], ids=str)
def talking(request: pytest.FixtureRequest) -> Talking:
    """A server, and both clients with a configuration that chooses one."""

    @asynccontextmanager
    async def talk(
        script: Callable[[Wire], Awaitable[object]],
    ) -> AsyncIterator[tuple[Upstreams, Callable[..., UpstreamConfig], Server]]:
        upstream = Upstreams()
        async with serving(script) as server:
            try:
                yield upstream, lambda **settings: server.config(transport=request.param, **settings), server
            finally:
                await upstream.close()

    return talk


def test_an_answer_is_read_to_its_clean_end_and_the_connection_is_kept(play: Play, talking: Talking) -> None:
    async def main() -> None:
        async with talking(forever(answer(b"hello", b"X-Odd-CASE: 1"))) as (upstream, config, server):
            for _ in range(3):
                async with upstream.open(outgoing(config())) as incoming:
                    assert incoming.status == 200
                    assert incoming.headers == [(b"Content-Length", b"5"), (b"X-Odd-CASE", b"1")]
                    assert await whole(incoming) == b"hello"
                    assert [await incoming.read() for _ in range(2)] == [b"", b""]
            assert server.accepted == 1

    play(main)


def test_target_and_headers_go_out_as_given(play: Play, talking: Talking) -> None:
    seen: list[bytes] = []
    targets = [b"//a//b", b"/a%2Fb", b"/a|b", b"/a?", b"/a?b=%2520+c&&d", b"/../x/./y", b"/a%zz"]

    async def script(wire: Wire) -> None:
        while True:
            seen.append(await wire.request())
            await wire.send(answer())

    async def main() -> None:
        headers = [HOST, (b"X-Odd-CASE", b"1"), (b"accept", b"*/*"), (b"X-Twice", b"a"), (b"X-Twice", b"b\xff")]
        async with talking(script) as (upstream, config, _):
            for target in targets:
                await fetch(upstream, outgoing(config(), target=target, headers=headers))
        assert [head.split(b" ")[1] for head in seen] == targets
        lines = seen[0].split(b"\r\n")[1:-2]
        assert lines == [b"%b: %b" % header for header in headers]

    play(main)


def test_coded_bodies_redirects_and_cookies_pass_untouched(play: Play, talking: Talking) -> None:
    packed = gzip.compress(b"data: {}\n\n" * 50)
    reply = b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
    reply += b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(packed) + packed
    seen: list[bytes] = []

    async def script(wire: Wire) -> None:
        while True:
            seen.append(await wire.request())
            await wire.send(reply)

    async def main() -> None:
        async with talking(script) as (upstream, config, _):
            for _ in range(2):
                status, headers, body = await fetch(upstream, outgoing(config()))
                assert (status, body) == (302, packed)
                assert [value for name, value in headers if name == b"Set-Cookie"] == [b"a=1", b"b=2"]
        assert len(seen) == 2
        assert b"ookie" not in seen[1] and b"ccept" not in seen[1]

    play(main)


@pytest.mark.parametrize("reply", [b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 304 Not Modified\r\n\r\n"])
def test_an_answer_without_a_body_ends_at_its_head(play: Play, talking: Talking, reply: bytes) -> None:
    async def main() -> None:
        async with talking(forever(reply)) as (upstream, config, _):
            assert (await fetch(upstream, outgoing(config())))[2] == b""

    play(main)


def test_the_answer_to_head_has_a_length_but_no_body(play: Play, talking: Talking) -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"

    async def main() -> None:
        async with talking(forever(reply)) as (upstream, config, _):
            _, headers, body = await fetch(upstream, outgoing(config(), method="HEAD"))
            assert (headers, body) == ([(b"Content-Length", b"7")], b"")

    play(main)


def test_chunks_come_as_they_are_sent(play: Play, talking: Talking) -> None:
    go = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        await go.wait()
        await wire.send(b"6\r\nsecond\r\n0\r\n\r\n")
        await wire.gone()

    async def main() -> None:
        async with (
            talking(script) as (upstream, config, _),
            upstream.open(outgoing(config())) as incoming,
        ):
            assert await incoming.read() == b"first"
            go.set()
            assert await whole(incoming) == b"second"

    play(main)


def test_a_body_goes_up_with_its_length_or_in_chunks(play: Play, talking: Talking) -> None:
    seen: list[bytes] = []

    async def script(wire: Wire) -> None:
        while True:
            seen.append(await wire.request())
            await wire.send(answer())

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    async def main() -> None:
        async with talking(script) as (upstream, config, _):
            await fetch(upstream, outgoing(config(), method="POST", body=b"whole"))
            await fetch(upstream, outgoing(config(), method="POST", body=pieces()))
            await fetch(upstream, outgoing(config(), method="POST", body=pieces(), content_length=6))
        assert seen[0].endswith(b"\r\n\r\nwhole") and b"content-length: 5" in seen[0].lower()
        assert seen[1].endswith(b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")
        assert b"transfer-encoding: chunked" in seen[1].lower() and b"content-length" not in seen[1].lower()
        assert seen[2].endswith(b"\r\n\r\nonetwo") and b"transfer-encoding" not in seen[2].lower()

    play(main)


@pytest.mark.parametrize(
    ("reply", "reset", "kind"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntrue", False, FaultKind.TRUNCATED),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n", False, FaultKind.TRUNCATED),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ntrue", True, FaultKind.RESET),
    ],
)
def test_a_body_that_breaks_off_is_read_and_then_a_fault(
    play: Play, talking: Talking, reply: bytes, reset: bool, kind: FaultKind
) -> None:
    go = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(reply)
        await go.wait()
        if reset:
            wire.reset()

    async def main() -> None:
        async with (
            talking(script) as (upstream, config, _),
            upstream.open(outgoing(config())) as incoming,
        ):
            assert await incoming.read() == b"true"
            go.set()
            assert (await fault_of(incoming.read())).kind is kind

    play(main)


def test_no_answer_is_a_reset_that_must_not_be_repeated(play: Play, talking: Talking) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()

    async def main() -> None:
        async with talking(script) as (upstream, config, server):
            fault = await fault_of(fetch(upstream, outgoing(config(), method="POST", body=b"x")))
            assert (fault.kind, fault.retryable, server.accepted) == (FaultKind.RESET, False, 1)

    play(main)


def test_an_answer_that_is_no_http_is_a_fault(play: Play, talking: Talking) -> None:
    async def main() -> None:
        async with talking(forever(b"SSH-2.0-OpenSSH\r\n\r\n")) as (upstream, config, _):
            assert (await fault_of(fetch(upstream, outgoing(config())))).kind is FaultKind.PROTOCOL

    play(main)


def test_a_refused_connection_may_be_tried_elsewhere(play: Play, talking: Talking) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, config, _):
            fault = await fault_of(fetch(upstream, outgoing(config(port=1))))
            assert (fault.kind, fault.retryable) == (FaultKind.CONNECT, True)

    play(main)


@pytest.mark.parametrize(
    ("reply", "setting", "kind"),
    [
        (b"", "first_byte_timeout_s", FaultKind.FIRST_BYTE_TIMEOUT),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "idle_timeout_s", FaultKind.IDLE_TIMEOUT),
        (b"", "total_timeout_s", FaultKind.TOTAL_TIMEOUT),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", "total_timeout_s", FaultKind.TOTAL_TIMEOUT),
    ],
)
def test_silence_ends_at_its_limit(play: Play, talking: Talking, reply: bytes, setting: str, kind: FaultKind) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(reply)
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, config, server):
            fault = await fault_of(fetch(upstream, outgoing(config(**{setting: 0.25}))))
            assert fault.kind is kind
            await until(lambda: server.live == 0)

    play(main)


def test_leaving_early_and_cancelling_close_the_connection(play: Play, talking: Talking) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ntrue\r\n")
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, config, server):
            async with upstream.open(outgoing(config())) as incoming:
                assert await incoming.read() == b"true"
            await until(lambda: server.live == 0)
            waiting = asyncio.create_task(fetch(upstream, outgoing(config())))
            await until(lambda: server.live == 1)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await until(lambda: server.live == 0)

    play(main)


def test_an_injected_header_never_reaches_a_socket(play: Play, talking: Talking) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, config, server):
            for header in ((b"X-Bad", b"a\r\nHost: evil"), (b"X Bad", b"1"), (b"Content-Length", b"3")):
                fault = await fault_of(fetch(upstream, outgoing(config(), headers=[HOST, header])))
                assert fault.kind is FaultKind.PROTOCOL
            assert server.accepted == 0

    play(main)


def test_what_the_body_raises_reaches_the_caller(play: Play, talking: Talking) -> None:
    async def script(wire: Wire) -> None:
        await wire.gone()

    async def broken() -> AsyncIterator[bytes]:
        yield b"one"
        raise LookupError("the client is gone")

    async def main() -> None:
        async with talking(script) as (upstream, config, server):
            with pytest.raises(LookupError):
                await fetch(upstream, outgoing(config(), method="POST", body=broken()))
            await until(lambda: server.live == 0)

    play(main)


def test_after_close_nothing_can_be_opened(play: Play, talking: Talking) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, config, _):
            await fetch(upstream, outgoing(config()))
            await upstream.close()
            assert (await fault_of(fetch(upstream, outgoing(config())))).kind is FaultKind.CONNECT

    play(main)


def test_no_fault_tells_what_was_asked(play: Play, talking: Talking) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()

    async def main() -> None:
        async with talking(script) as (upstream, config, _):
            headers = [HOST, (b"Authorization", b"Bearer sk-secret")]
            fault = await fault_of(fetch(upstream, outgoing(config(), target=b"/x?key=sk-secret", headers=headers)))
            assert "sk-secret" not in str(fault)

    play(main)
