"""Servers that break off, lie, stall or talk out of turn: one Fault each, and what was received is read first."""

import asyncio
from typing import Any

import pytest
from upstreams_server import HOST, Play, Wire, answer, fault_of, fetch, outgoing, serving, talking, until, whole

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.upstreams.client import HttpUpstream

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def breaking(reply: bytes, *, reset: bool) -> Any:
    """A script that breaks off after ``reply``."""

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(reply)
        if reset:
            # The client must have read the reply: a reset may overtake what lies in a socket.
            await asyncio.sleep(0.02)
            wire.reset()

    return script


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("reply", [CHUNKED + b"3\r\nabc\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"])
def test_a_body_that_breaks_off_is_read_and_then_a_fault(play: Play, reply: bytes, reset: bool) -> None:
    async def main() -> None:
        async with talking(breaking(reply, reset=reset)) as (upstream, server):
            async with upstream.open(outgoing(server.config())) as incoming:
                assert await incoming.read() == b"abc"
                for _ in range(2):
                    fault = await fault_of(incoming.read())
                    assert fault.kind is (FaultKind.RESET if reset else FaultKind.TRUNCATED)
                    assert not fault.retryable
            await until(lambda: upstream.pool(server.config()).counts == (0, 0, 0))

    play(main)


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 200 OK\r\nConte"], ids=["nothing", "half a head"])
def test_no_answer_or_half_a_head_is_a_fault_that_must_not_be_repeated(play: Play, reply: bytes, reset: bool) -> None:
    async def main() -> None:
        async with talking(breaking(reply, reset=reset)) as (upstream, server):
            fault = await fault_of(fetch(upstream, outgoing(server.config(), "POST", body=b"{}")))
            assert fault.kind is (FaultKind.TRUNCATED if reply and not reset else FaultKind.RESET)
            assert not fault.retryable
            assert server.accepted == 1

    play(main)


def test_a_lie_in_the_middle_of_the_body_is_a_fault_after_what_was_true(play: Play) -> None:
    async def main() -> None:
        async with talking(breaking(CHUNKED + b"3\r\nabc\r\nnonsense\r\n", reset=False)) as (upstream, server):
            async with upstream.open(outgoing(server.config())) as incoming:
                assert await incoming.read() == b"abc"
                assert (await fault_of(incoming.read())).kind is FaultKind.PROTOCOL
            assert upstream.pool(server.config()).counts[1] == 0

    play(main)


@pytest.mark.parametrize(
    "reply",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 110_000 + b"\r\n\r\n",
        b"220 smtp.test ESMTP\r\n",
    ],
    ids=["both framings", "101", "large head", "not HTTP"],
)
def test_an_answer_that_is_no_answer_is_a_fault_before_the_head(play: Play, reply: bytes) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(reply)
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            assert (await fault_of(fetch(upstream, outgoing(server.config())))).kind is FaultKind.PROTOCOL
            await until(lambda: server.live == 0)

    play(main)


@pytest.mark.parametrize(
    "headers", [[HOST, (b"X", b"a\r\nEvil: 1")], [HOST, (b"X\r\nEvil", b"1")], [HOST, (b"Content-Length", b"1")]]
)
def test_an_injected_header_never_reaches_a_socket(play: Play, headers: list[tuple[bytes, bytes]]) -> None:
    async def main() -> None:
        async with talking(breaking(b"", reset=False)) as (upstream, server):
            fault = await fault_of(fetch(upstream, outgoing(server.config(), headers=headers)))
            assert fault.kind is FaultKind.PROTOCOL
            assert fault.retryable
            assert "nothing was sent" in str(fault)
            assert server.accepted == 0

    play(main)


def test_a_refused_connection_is_retryable(play: Play) -> None:
    async def main() -> None:
        async with serving(breaking(b"", reset=False)) as server:
            config = server.config()
        upstream = HttpUpstream()
        fault = await fault_of(fetch(upstream, outgoing(config)))
        assert (fault.kind, fault.retryable) == (FaultKind.CONNECT, True)
        assert upstream.pool(config).counts == (0, 0, 0)
        await upstream.close()

    play(main)


def test_bytes_on_an_idle_connection_close_it(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer())
        await asyncio.sleep(0.02)
        await wire.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            assert upstream.pool(server.config()).counts == (1, 1, 0)
            await until(lambda: upstream.pool(server.config()).counts == (0, 0, 0))
            assert await fetch(upstream, outgoing(server.config())) == (200, [(b"Content-Length", b"2")], b"ok")

    play(main)


def test_an_idle_connection_that_ends_leaves_the_pool_at_once(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer())
        await asyncio.sleep(0.02)

    async def main() -> None:
        async with talking(script) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            assert upstream.pool(server.config()).counts == (1, 1, 0)
            await until(lambda: upstream.pool(server.config()).counts == (0, 0, 0))

    play(main)


def test_an_end_that_the_loop_has_not_told_yet_costs_no_post(play: Play) -> None:
    """The FIN lies in the socket when the second call begins: it must be found before a byte is written."""
    wires: list[Wire] = []

    async def script(wire: Wire) -> None:
        wires.append(wire)
        await wire.request()
        await wire.send(answer())
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            wires[0].end()
            status, _, body = await fetch(upstream, outgoing(server.config(), "POST", body=b"{}"))
            assert (status, body) == (200, b"ok")
            assert server.accepted == 2

    play(main)


@pytest.mark.parametrize(("method", "asked"), [("GET", 3), ("PUT", 3), ("POST", 2)])
def test_a_kept_connection_that_dies_silently_is_tried_again_only_where_harmless(
    play: Play, method: str, asked: int
) -> None:
    requests: list[bytes] = []

    async def script(wire: Wire) -> None:
        requests.append(await wire.request())
        await wire.send(answer())
        requests.append(await wire.request())

    async def main() -> None:
        async with talking(script) as (upstream, server):
            await fetch(upstream, outgoing(server.config(), method, body=b"{}"))
            if method == "POST":
                fault = await fault_of(fetch(upstream, outgoing(server.config(), method, body=b"{}")))
                assert (fault.kind, fault.retryable) == (FaultKind.RESET, False)
            else:
                assert (await fetch(upstream, outgoing(server.config(), method, body=b"{}")))[2] == b"ok"
            assert len(requests) == asked

    play(main)


def test_a_kept_connection_that_dies_within_its_answer_is_not_tried_again(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer())
        await wire.request()
        await wire.send(b"HTTP/1.1 2")
        await asyncio.sleep(0.02)
        wire.reset()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            assert (await fault_of(fetch(upstream, outgoing(server.config())))).kind is FaultKind.RESET
            assert server.accepted == 1

    play(main)


def test_a_new_connection_that_dies_silently_is_not_tried_again(play: Play) -> None:
    async def main() -> None:
        async with talking(breaking(b"", reset=False)) as (upstream, server):
            await fault_of(fetch(upstream, outgoing(server.config())))
            assert server.accepted == 1

    play(main)


def test_a_retry_that_dies_too_is_a_fault(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        if server_accepts.pop(0):
            await wire.send(answer())
            await wire.request()

    server_accepts = [True, False, False]

    async def main() -> None:
        async with talking(script) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            assert (await fault_of(fetch(upstream, outgoing(server.config())))).kind is FaultKind.RESET
            assert server.accepted == 2

    play(main)


def test_bytes_behind_the_answer_spoil_the_connection_but_not_the_answer(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer(b"mine") + answer(b"not yours"))
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            for _ in range(2):
                assert (await fetch(upstream, outgoing(server.config())))[2] == b"mine"
            assert server.accepted == 2

    play(main)


TIMEOUTS = {
    "first byte": ({"first_byte_timeout_s": 0.05}, b"", FaultKind.FIRST_BYTE_TIMEOUT),
    "first byte after 100": (
        {"first_byte_timeout_s": 0.05},
        b"HTTP/1.1 100 Continue\r\n\r\n",
        FaultKind.FIRST_BYTE_TIMEOUT,
    ),
    "half a head": ({"first_byte_timeout_s": 0.05}, b"HTTP/1.1 200 OK\r\n", FaultKind.FIRST_BYTE_TIMEOUT),
    "idle": ({"idle_timeout_s": 0.05}, CHUNKED + b"3\r\nabc\r\n", FaultKind.IDLE_TIMEOUT),
    "idle within a chunk": ({"idle_timeout_s": 0.05}, CHUNKED + b"9\r\nabc", FaultKind.IDLE_TIMEOUT),
    "total before the head": ({"total_timeout_s": 0.05}, b"", FaultKind.TOTAL_TIMEOUT),
    "total in the body": ({"total_timeout_s": 0.05}, CHUNKED + b"3\r\nabc\r\n", FaultKind.TOTAL_TIMEOUT),
}


@pytest.mark.parametrize("name", TIMEOUTS)
def test_silence_ends_at_its_limit(play: Play, name: str) -> None:
    settings, reply, kind = TIMEOUTS[name]

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(reply)
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            began_s = asyncio.get_running_loop().time()
            fault = await fault_of(fetch(upstream, outgoing(server.config(**settings))))
            assert fault.kind is kind
            assert not fault.retryable
            assert 0.045 <= asyncio.get_running_loop().time() - began_s < 2
            await until(lambda: server.live == 0)

    play(main)


def test_a_stream_that_lives_passes_its_idle_limit_many_times(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(CHUNKED)
        for _ in range(8):
            await asyncio.sleep(0.05)
            await wire.send(b"1\r\nx\r\n")
        await wire.send(b"0\r\n\r\n")

    async def main() -> None:
        async with talking(script) as (upstream, server):
            assert (await fetch(upstream, outgoing(server.config(idle_timeout_s=0.2))))[2] == b"x" * 8

    play(main)


def test_a_reader_that_takes_its_time_is_not_the_servers_silence(play: Play) -> None:
    async def main() -> None:
        async with talking(breaking(CHUNKED + b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n", reset=False)) as (upstream, server):
            config = server.config(idle_timeout_s=0.05, first_byte_timeout_s=0.05)
            async with upstream.open(outgoing(config)) as incoming:
                await asyncio.sleep(0.2)
                assert await whole(incoming) == b"abcdef"

    play(main)


def test_after_the_head_the_first_byte_limit_is_over(play: Play) -> None:
    async def main() -> None:
        go = asyncio.Event()

        async def script(wire: Wire) -> None:
            await wire.request()
            await wire.send(CHUNKED + b"3\r\nabc\r\n")
            await go.wait()
            await wire.send(b"3\r\ndef\r\n0\r\n\r\n")

        async with (
            talking(script) as (upstream, server),
            upstream.open(outgoing(server.config(first_byte_timeout_s=0.05))) as incoming,
        ):
            await asyncio.sleep(0.15)
            go.set()
            assert await whole(incoming) == b"abcdef"

    play(main)


def test_the_limits_of_one_call_do_not_reach_into_the_next(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(answer())
        await wire.request()
        await asyncio.sleep(0.15)
        await wire.send(answer(b"late"))
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            quick = server.config(first_byte_timeout_s=0.05, idle_timeout_s=0.05, total_timeout_s=0.05)
            await fetch(upstream, outgoing(quick))
            assert (await fetch(upstream, outgoing(server.config())))[2] == b"late"
            assert server.accepted == 1

    play(main)


def test_a_connection_that_never_stands_ends_at_its_limit(play: Play) -> None:
    """A TLS handshake that nobody answers, as connecting on loopback never hangs."""

    async def script(wire: Wire) -> None:
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(scheme="https", connect_timeout_s=0.05)
            fault = await fault_of(fetch(upstream, outgoing(config)))
            assert (fault.kind, fault.retryable) == (FaultKind.CONNECT_TIMEOUT, True)
            await until(lambda: upstream.pool(config).counts == (0, 0, 0))
            await until(lambda: server.live == 0)

    play(main)


def test_a_fault_holds_nothing_of_the_request(play: Play) -> None:
    async def main() -> None:
        async with talking(breaking(b"nonsense sk-secret", reset=False)) as (upstream, server):
            request = outgoing(server.config(), headers=[HOST, (b"Authorization", b"Bearer sk-secret")])
            with pytest.raises(Fault) as caught:
                await fetch(upstream, request)
            assert "sk-secret" not in str(caught.value)

    play(main)
