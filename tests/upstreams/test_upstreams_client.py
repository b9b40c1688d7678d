"""What a call looks like when the server behaves, and what goes over the wire."""

import asyncio
import socket

import pytest
from upstreams_server import HOST, Play, Wire, answer, fault_of, fetch, forever, outgoing, talking, until, whole

from gatekeeper.errors import FaultKind


def test_an_answer_is_read_to_its_clean_end_for_ever(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(answer(b"hello"))) as (upstream, server):
            async with upstream.open(outgoing(server.config())) as incoming:
                assert incoming.status == 200
                assert incoming.headers == [(b"Content-Length", b"5")]
                assert not incoming.close_delimited
                assert not incoming.reused
                assert await whole(incoming) == b"hello"
                assert [await incoming.read() for _ in range(3)] == [b"", b"", b""]
            assert await incoming.read() == b""

    play(main)


def test_a_body_read_to_its_end_gives_the_connection_back(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, server):
            config = server.config()
            for turn in range(5):
                async with upstream.open(outgoing(config)) as incoming:
                    assert incoming.reused is (turn > 0)
                    assert await whole(incoming) == b"ok"
            assert server.accepted == 1

    play(main)


def test_an_equal_configuration_shares_the_connections_and_another_host_does_not(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            await fetch(upstream, outgoing(server.config(idle_timeout_s=3.0)))
            assert server.accepted == 1
            await fetch(upstream, outgoing(server.config(host="localhost")))
            assert server.accepted == 2

    play(main)


def test_the_target_and_the_headers_go_out_as_given(play: Play) -> None:
    targets = [b"//a//b", b"/a%2Fb", b"/a|b", b"/a?", b"/?", b"/a?b=%2520+c&&d", b"/../x/./y", b"/\xc3\xa9", b"*"]
    headers = [HOST, (b"X-Odd-CASE", b"1"), (b"x-twice", b"a"), (b"accept", b"*/*"), (b"X-Twice", b" b\xff ")]

    async def main() -> None:
        seen: list[bytes] = []

        async def script(wire: Wire) -> None:
            while True:
                seen.append(await wire.request())
                await wire.send(answer())

        async with talking(script) as (upstream, server):
            config = server.config()
            for target in targets:
                await fetch(upstream, outgoing(config, target=target, headers=headers))
        lines = b"Host: upstream.test\r\nX-Odd-CASE: 1\r\nx-twice: a\r\naccept: */*\r\nX-Twice:  b\xff \r\n\r\n"
        assert seen == [b"GET %b HTTP/1.1\r\n%b" % (target, lines) for target in targets]

    play(main)


def test_duplicate_headers_and_their_case_come_back_as_sent(play: Play) -> None:
    reply = b"HTTP/1.1 200\r\nSet-Cookie: a\r\nsET-cOOKIE: b\r\nX: \xe9\xff\r\nEmpty:\r\nContent-Length: 0\r\n\r\n"

    async def main() -> None:
        async with talking(forever(reply)) as (upstream, server):
            _, headers, body = await fetch(upstream, outgoing(server.config()))
        assert headers == [
            (b"Set-Cookie", b"a"),
            (b"sET-cOOKIE", b"b"),
            (b"X", b"\xe9\xff"),
            (b"Empty", b""),
            (b"Content-Length", b"0"),
        ]
        assert body == b""

    play(main)


@pytest.mark.parametrize("reply", [b"HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n", b"HTTP/1.1 204 No\r\n\r\n"])
def test_an_answer_that_has_no_body_ends_at_its_head(play: Play, reply: bytes) -> None:
    async def main() -> None:
        async with talking(forever(reply)) as (upstream, server):
            for _ in range(2):
                assert (await fetch(upstream, outgoing(server.config())))[2] == b""
            assert server.accepted == 1

    play(main)


def test_the_answer_to_head_has_a_length_but_no_body(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")) as (upstream, server):
            for _ in range(3):
                status, headers, body = await fetch(upstream, outgoing(server.config(), "HEAD"))
                assert (status, headers, body) == (200, [(b"Content-Length", b"9")], b"")
            assert server.accepted == 1

    play(main)


def test_interim_answers_are_skipped(play: Play) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(*early, answer(b"final"))

    async def main() -> None:
        async with talking(script) as (upstream, server):
            for _ in range(2):
                assert await fetch(upstream, outgoing(server.config())) == (200, [(b"Content-Length", b"5")], b"final")
            assert server.accepted == 1

    play(main)


def test_a_body_that_ends_with_the_connection_says_so(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\n\r\npart", b"ial?")

    async def main() -> None:
        async with talking(script) as (upstream, server):
            async with upstream.open(outgoing(server.config())) as incoming:
                assert incoming.close_delimited
                assert await whole(incoming) == b"partial?"
            assert upstream.pool(server.config()).counts[1] == 0

    play(main)


@pytest.mark.parametrize("header", [b"Connection: close", b"connection: x, Close", b"Keep-Alive: timeout=1"])
def test_a_connection_that_the_server_will_close_is_not_kept(play: Play, header: bytes) -> None:
    async def main() -> None:
        async with talking(forever(answer(b"ok", header))) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            await fetch(upstream, outgoing(server.config()))
            assert server.accepted == 2

    play(main)


def test_what_gathered_is_read_as_one_piece(play: Play) -> None:
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(text), text) for text in [b"data: %d\n\n" % n for n in range(200)])

    async def script(wire: Wire) -> None:
        await wire.request()
        wire.writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
        await wire.gone()

    async def main() -> None:
        async with (
            talking(script) as (upstream, server),
            upstream.open(outgoing(server.config())) as incoming,
        ):
            assert await incoming.read() == b"".join(b"data: %d\n\n" % n for n in range(200))

    play(main)


def test_a_slow_reader_stops_the_server_and_memory_is_bounded(play: Play) -> None:
    total = 16 * 1024 * 1024
    sent = 0

    async def script(wire: Wire) -> None:
        nonlocal sent
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        piece = b"x" * 65536
        while sent < total:
            await wire.send(piece)
            sent += len(piece)

    async def main() -> None:
        async with (
            talking(script) as (upstream, server),
            upstream.open(outgoing(server.config())) as incoming,
        ):
            before = -1
            while before != sent:
                before = sent
                await asyncio.sleep(0.05)
            assert incoming.buffered <= 600 * 1024
            assert sent < total
            received = 0
            while piece := await incoming.read():
                received += len(piece)
                assert len(piece) <= 600 * 1024
            assert received == total

    play(main)


def test_the_socket_is_set_to_send_at_once(play: Play) -> None:
    async def main() -> None:
        async with (
            talking(forever(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")) as (upstream, server),
            upstream.open(outgoing(server.config())) as incoming,
        ):
            sock = incoming.connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    play(main)


def test_leaving_early_closes_the_connection(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            async with upstream.open(outgoing(server.config())) as incoming:
                assert await incoming.read() == b"abc"
            await until(lambda: server.live == 0)
            await until(lambda: upstream.pool(server.config()).counts == (0, 0, 0))
            with pytest.raises(RuntimeError, match="left before its end"):
                await incoming.read()

    play(main)


def test_a_cancelled_read_closes_the_connection_and_loses_no_slot(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            task = asyncio.create_task(fetch(upstream, outgoing(server.config())))
            await until(lambda: server.live == 1)
            await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: server.live == 0 and upstream.pool(server.config()).counts == (0, 0, 0))

    play(main)


def test_a_read_that_was_cancelled_inside_the_call_loses_no_byte(play: Play) -> None:
    go = asyncio.Event()

    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        await go.wait()
        await wire.send(b"abc")

    async def main() -> None:
        async with (
            talking(script) as (upstream, server),
            upstream.open(outgoing(server.config())) as incoming,
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await incoming.read()
            go.set()
            assert await whole(incoming) == b"abc"

    play(main)


def test_after_close_nothing_can_be_opened(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            await upstream.close()
            await until(lambda: server.live == 0)
            fault = await fault_of(fetch(upstream, outgoing(server.config())))
            assert fault.kind is FaultKind.CONNECT
            assert fault.retryable

    play(main)


def test_close_fails_what_is_under_way(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(connections_max=1)
            running = asyncio.create_task(fetch(upstream, outgoing(config)))
            waiting = asyncio.create_task(fetch(upstream, outgoing(config)))
            await until(lambda: server.live == 1 and upstream.pool(config).counts == (1, 0, 1))
            await asyncio.sleep(0.01)
            await upstream.close()
            assert not (await fault_of(running)).retryable
            assert (await fault_of(waiting)).retryable

    play(main)
