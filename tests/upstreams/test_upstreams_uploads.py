"""Bodies that go up in pieces: framing, back-pressure, answers that come early, and iterators that break off."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upstreams_server import (
    LOOPS,
    Play,
    Wire,
    answer,
    fault_of,
    fetch,
    forever,
    outgoing,
    talking,
    until,
    whole,
)

from gatekeeper.errors import FaultKind

REFUSED = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig"
MEBIBYTE = b"m" * 1024 * 1024


async def pieces_of(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    """A body in pieces."""
    for piece in pieces:
        yield piece


class Endless:
    """A body without end that counts what was taken, and notes that it was closed."""

    def __init__(self) -> None:
        self.taken = 0
        self.closed = False

    async def body(self) -> AsyncIterator[bytes]:
        """The pieces."""
        try:
            while True:
                self.taken += 65536
                yield MEBIBYTE[:65536]
                await asyncio.sleep(0)
        finally:
            self.closed = True


def test_a_chunked_upload_skips_empty_pieces_and_ends_once(play: Play) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def script(wire: Wire) -> None:
            while True:
                seen.append(await wire.request())
                await wire.send(answer())

        async with talking(script) as (upstream, server):
            for _ in range(2):
                body = pieces_of([b"abc", b"", b"x" * 16])
                await fetch(upstream, outgoing(server.config(), "POST", body=body))
            assert server.accepted == 1
        head = b"POST / HTTP/1.1\r\nHost: upstream.test\r\nTransfer-Encoding: chunked\r\n\r\n"
        assert seen == [head + b"3\r\nabc\r\n10\r\n" + b"x" * 16 + b"\r\n0\r\n\r\n"] * 2

    play(main)


def test_an_upload_of_known_length_goes_up_unframed(play: Play) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def script(wire: Wire) -> None:
            seen.append(await wire.request())
            await wire.send(answer())

        async with talking(script) as (upstream, server):
            body = pieces_of([b"abc", b"de"])
            await fetch(upstream, outgoing(server.config(), "POST", body=body, content_length=5))
        assert seen[0].endswith(b"\r\nContent-Length: 5\r\n\r\nabcde")

    play(main)


@pytest.mark.parametrize("pieces", [[b"abc"], [b"abcdef"], [b"abcd", b"ef"], []])
def test_an_upload_that_breaks_its_word_fails_and_never_looks_complete(play: Play, pieces: list[bytes]) -> None:
    async def main() -> None:
        received: list[bytes] = []

        async def script(wire: Wire) -> None:
            await wire.reader.readuntil(b"\r\n\r\n")
            received.append(await wire.reader.read())

        async with talking(script) as (upstream, server):
            request = outgoing(server.config(), "POST", body=pieces_of(pieces), content_length=5)
            assert (await fault_of(fetch(upstream, request))).kind is FaultKind.PROTOCOL
            await until(lambda: server.live == 0)
        assert all(len(body) < 5 for body in received)

    play(main)


def test_what_the_body_raises_reaches_the_caller_and_the_server_sees_an_abort(play: Play) -> None:
    class ClientGone(Exception):
        pass

    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        raise ClientGone

    async def main() -> None:
        ends: list[bytes] = []

        async def script(wire: Wire) -> None:
            await wire.reader.readuntil(b"\r\n\r\n")
            ends.append(await wire.reader.read())

        async with talking(script) as (upstream, server):
            with pytest.raises(ClientGone):
                await fetch(upstream, outgoing(server.config(), "POST", body=body()))
            await until(lambda: server.live == 0)
            assert upstream.pool(server.config()).counts == (0, 0, 0)
        assert b"0\r\n\r\n" not in b"".join(ends)

    play(main)


def test_a_server_that_stops_reading_stops_the_upload(play: Play) -> None:
    endless = Endless()

    async def script(wire: Wire) -> None:
        wire.writer.transport.pause_reading()
        await asyncio.Event().wait()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(idle_timeout_s=0.3)
            fault = await fault_of(fetch(upstream, outgoing(config, "POST", body=endless.body())))
            assert fault.kind is FaultKind.IDLE_TIMEOUT
            assert endless.closed
            # What the kernel's buffers of both sides hold, and no more.
            assert endless.taken < 32 * 1024 * 1024

    play(main)


def test_a_client_that_is_slow_to_give_its_body_is_not_the_servers_silence(play: Play) -> None:
    async def body() -> AsyncIterator[bytes]:
        for _ in range(3):
            await asyncio.sleep(0.1)
            yield b"x"

    async def main() -> None:
        async with talking(forever(answer())) as (upstream, server):
            config = server.config(first_byte_timeout_s=0.05, idle_timeout_s=0.05)
            assert (await fetch(upstream, outgoing(config, "POST", body=body())))[2] == b"ok"

    play(main)


@pytest.mark.parametrize("ending", ["fin", "stays"])
def test_an_answer_during_the_upload_is_given_at_once_and_ends_it(play: Play, ending: str) -> None:
    endless = Endless()

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.send(REFUSED)
        if ending == "stays":
            wire.writer.transport.pause_reading()
            await asyncio.Event().wait()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            async with upstream.open(outgoing(server.config(), "POST", body=endless.body())) as incoming:
                assert incoming.status == 413
                assert await whole(incoming) == b"big"
            assert endless.closed
            assert upstream.pool(server.config()).counts[1] == 0

    play(main)


def test_an_early_answer_that_streams_is_read_while_the_upload_goes_on(play: Play) -> None:
    """A server may echo: its first chunk answers our first piece."""
    go = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await go.wait()
        yield b"two"

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"one\r\n")
        await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nONE\r\n")
        await wire.reader.readuntil(b"0\r\n\r\n")
        await wire.send(b"3\r\nTWO\r\n0\r\n\r\n")
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            async with upstream.open(outgoing(server.config(), "POST", body=body())) as incoming:
                assert await incoming.read() == b"ONE"
                go.set()
                assert await whole(incoming) == b"TWO"
            assert upstream.pool(server.config()).counts == (1, 1, 0)

    play(main)


def test_a_failed_write_is_no_failure_before_the_answer_was_tried(play: Play) -> None:
    """The refusal and the reset come between two turns of the loop, and the client writes first: the answer wins."""
    wires: list[Wire] = []

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await until(lambda: bool(wires))
        wires[0].send_at_once(REFUSED)
        wires[0].reset()
        # abort() closes the server's socket in the next turn of the loop; this is the turn after.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        while True:
            yield MEBIBYTE

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"first")
        wires.append(wire)
        await asyncio.Event().wait()

    async def main() -> None:
        for _ in range(5):
            async with talking(script) as (upstream, server):
                status, _, text = await fetch(upstream, outgoing(server.config(), "POST", body=body()))
                assert (status, text) == (413, b"big")
            wires.clear()

    play(main)


def test_the_last_words_of_a_broken_connection_are_read(play: Play) -> None:
    """The very moment: refusal and reset in the socket, and the loop's next act is our failing write."""

    async def script(wire: Wire) -> None:
        wires.append(wire)
        await asyncio.Event().wait()

    async def body() -> AsyncIterator[bytes]:
        yield b"first"
        await until(lambda: bool(wires))
        wires[0].send_at_once(REFUSED)
        with socket.socket(fileno=os.dup(wires[0].writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        while True:
            # The first of these provokes the reset, a later one fails for it.
            yield b"more"

    wires: list[Wire] = []

    async def main() -> None:
        async with talking(script) as (upstream, server):
            status, _, text = await fetch(upstream, outgoing(server.config(), "POST", body=body()))
            assert (status, text) == (413, b"big")
        wires.clear()

    play(main)


def test_leaving_during_the_upload_ends_it(play: Play) -> None:
    endless = Endless()

    async def script(wire: Wire) -> None:
        await wire.reader.readuntil(b"\r\n\r\n")
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc")
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            async with upstream.open(outgoing(server.config(), "POST", body=endless.body())) as incoming:
                assert await incoming.read() == b"abc"
            assert endless.closed
            await until(lambda: server.live == 0 and upstream.pool(server.config()).counts == (0, 0, 0))

    play(main)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=6), st.booleans(), st.sampled_from(sorted(LOOPS)))
def test_bodies_come_back_as_they_went_up(pieces: list[bytes], known: bool, loop: str) -> None:
    body = b"".join(pieces)

    async def script(wire: Wire) -> None:
        request = await wire.request()
        sent = request.partition(b"\r\n\r\n")[2]
        if not known:
            # The framing of the request is a valid framing of the answer.
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", sent)
        else:
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(sent), sent)

    async def main() -> None:
        async with talking(script) as (upstream, server):
            length = len(body) if known else None
            request = outgoing(server.config(), "POST", body=pieces_of(pieces), content_length=length)
            assert (await fetch(upstream, request))[2] == body

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(main())
