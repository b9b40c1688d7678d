"""A provider that says what ``answers`` knows, cut anywhere, and breaks off in every way that is asked for.

``python -m bench.truthful SEED`` prints its port and serves until its stdin ends. ``GET /stats`` says what is open,
``POST /gate`` lets all streams go on that wait. The rule: an answer's bytes do not depend on how they are cut.
"""

import asyncio
import json
import random
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Any

import uvloop

from bench.answers import ERROR_BODY, Fault, Wish, bytes_of, wished
from bench.payloads import chunked, event
from gatekeeper.cli.process import raised_limits

_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_JSON = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_LAST = b"0\r\n\r\n"
# A piece of this size and more comes from a provider that is quicker than its network.
_PIECE_BYTES = (1, 40, 250, 1_200, 16_384)
_FLOOD_EVENTS = 300
FLOOD = b"".join(event(number) for number in range(_FLOOD_EVENTS))


def cut(body: bytes, chance: random.Random) -> list[bytes]:
    """The same bytes in pieces that respect nothing, not even characters. Never in very many."""
    least = max(chance.choice(_PIECE_BYTES), len(body) // 60)
    pieces, at = [], 0
    while at < len(body):
        end = at + chance.randint(1, least * 2)
        pieces.append(body[at:end])
        at = end
    return pieces


class State:
    """What all connections share."""

    def __init__(self, seed: str) -> None:
        self.chance = random.Random(seed)
        self.open = self.asked = self.in_flight = self.written = 0
        self.waiting: set[Connection] = set()

    def stats(self) -> bytes:
        """Without the connection that asks."""
        said = {"open": self.open - 1, "asked": self.asked, "in_flight": self.in_flight, "written": self.written}
        return json.dumps({**said, "waiting": len(self.waiting)}).encode()


class Connection(asyncio.Protocol):
    """One connection, requests one after another."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._loop = asyncio.get_running_loop()
        # Any: uvloop's transports are no subclass of asyncio's.
        self._transport: Any = None
        self._buffer = b""
        self._pieces: Iterator[bytes] = iter(())
        self._pause_s = 0.0
        self._next: asyncio.Handle | None = None
        self._ending = ""
        self._busy = self._full = self._gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count it."""
        self._transport = transport
        self._state.open += 1

    def connection_lost(self, exc: Exception | None) -> None:
        """Nobody reads any more."""
        self._gone = True
        self._state.open -= 1
        self._state.waiting.discard(self)
        self._done()

    def _done(self) -> None:
        if self._busy:
            self._busy = False
            self._state.in_flight -= 1

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].decode("latin-1").split("\r\n")
            length = next((int(line[15:]) for line in head if line.lower().startswith("content-length:")), 0)
            if len(self._buffer) < end + 4 + length:
                return
            body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
            path = head[0].split(" ")[1]
            if path in ("/stats", "/gate"):
                self._told(path)
            else:
                self._answer(wished(path, json.loads(body)))

    def _told(self, path: str) -> None:
        said = self._state.stats()
        self._transport.write(_JSON % (b"200 OK", len(said)) + said)
        if path == "/gate":
            waiting, self._state.waiting = self._state.waiting, set()
            for connection in waiting:
                connection.beat()

    def _answer(self, wish: Wish) -> None:
        # Whoever asks again has all of the answer before, though it may not have been looked for its next piece yet.
        if self._next is not None:
            self._next.cancel()
        self._done()
        state = self._state
        state.asked += 1
        state.in_flight += 1
        self._busy = True
        self._ending = ""
        self._pause_s = wish.pause_ms / 1_000
        match wish.fault:
            case Fault.REFUSE:
                self._reset()
                return
            case Fault.STALL_HEAD:
                return
            case Fault.ERROR:
                self._pieces = iter([_JSON % (b"500 Internal Server Error", len(ERROR_BODY)) + ERROR_BODY])
            case Fault.FLOOD:
                self._pieces = _flood(wish.shape)
            case fault:
                framed = self._framed(wish)
                if fault not in (Fault.NONE, Fault.GATE):
                    # At least the head arrives, and never the last piece.
                    framed = framed[: state.chance.randint(1, max(1, len(framed) - 1))]
                    if fault is Fault.TRUNCATE:
                        framed[-1] = framed[-1][: max(1, len(framed[-1]) // 2)] if len(framed) > 1 else framed[-1]
                    self._ending = fault
                self._pieces = iter(framed)
                if fault is Fault.GATE:
                    self._transport.write(next(self._pieces))
                    state.waiting.add(self)
                    return
        self.beat()

    def _framed(self, wish: Wish) -> list[bytes]:
        """The head, then the body in pieces, as they will be written."""
        pieces = cut(bytes_of(wish), self._state.chance)
        if wish.stream:
            framed = [_STREAM, *map(chunked, pieces), _LAST]
        else:
            framed = [_JSON % (b"200 OK", sum(map(len, pieces))), *pieces]
        if self._state.chance.random() < 0.5 or wish.fault is Fault.GATE:
            framed[:2] = [framed[0] + framed[1]]
        return framed

    def beat(self) -> None:
        """Write the next piece; the one after it follows soon, or when there is room."""
        if self._gone or not self._busy:
            return
        piece = next(self._pieces, None)
        if piece is None:
            self._end()
            return
        self._transport.write(piece)
        self._state.written += len(piece)
        if self._pause_s:
            self._next = self._loop.call_later(self._pause_s, self.beat)
        elif not self._full:
            self._next = self._loop.call_soon(self.beat)

    def _end(self) -> None:
        match self._ending:
            case Fault.RESET:
                self._reset()
            case Fault.TRUNCATE:
                self._transport.close()
            case Fault.STALL_BODY:
                pass
            case _:
                self._done()

    def _reset(self) -> None:
        """RST instead of FIN."""
        found = self._transport.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def pause_writing(self) -> None:
        """The gateway does not read."""
        self._full = True

    def resume_writing(self) -> None:
        """It does."""
        self._full = False
        if self._busy and not self._pause_s:
            self._next = self._loop.call_soon(self.beat)


def _flood(mebibytes: int) -> Iterator[bytes]:
    framed = chunked(FLOOD)
    yield _STREAM
    for _ in range(mebibytes * 1024 * 1024 // len(FLOOD)):
        yield framed
    yield _LAST


async def _serve(seed: str) -> None:
    loop = asyncio.get_running_loop()
    state = State(seed)
    server = await loop.create_server(lambda: Connection(state), "127.0.0.1", 0, backlog=2_048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    raised_limits()
    uvloop.run(_serve(sys.argv[1]))
