"""The fake provider: a raw protocol that answers with bytes made beforehand. The rule: it must never be the slowest.

``python -m bench.provider`` prints its port and serves until its stdin ends.
"""

import asyncio
import random
import re
import sys
import time
import zlib
from functools import cache
from typing import Any

import uvloop

from bench.payloads import CAME_HEADER, JSON_BODY, WISH_HEADER, chunked, crc_of, event, tail

# One event every 10 ms on each stream: 200 streams make 20,000 events a second.
PACE_S = 0.01
# Before each event of a late stream and before its end, more or less: streams that began together must not stay so.
LATE_S = 0.02
_SLOTS = 10
_SLOT_S = 0.001
# Flat out: so many events in one write.
_BURST = 25
_JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(JSON_BODY),
    JSON_BODY,
)
_STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LATE = _STREAM.replace(b"\r\n\r\n", b"\r\n%b: %%d\r\n\r\n" % CAME_HEADER)
_LAST = b"0\r\n\r\n"
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)")
_WISH = re.compile(rb"(?i)\r\n" + WISH_HEADER.encode() + rb": *(\w+) +(\d+)")


_CHANCE = random.Random(1)


@cache
def _bursts(count: int) -> tuple[bytes, ...]:
    """The writes of a flat stream, the head in the first."""
    events = [event(number) for number in range(count)]
    ends = tail(crc_of(b"".join(events)))
    framed = [chunked(piece) for piece in (*events, ends)]
    writes = [b"".join(framed[at : at + _BURST]) for at in range(0, len(framed), _BURST)]
    writes[0] = _STREAM + writes[0]
    writes[-1] += _LAST
    return tuple(writes)


class Pacer:
    """One timer for all paced streams: each stands in one of ten slots, and a slot is served every 10 ms.

    The timer stands still while there is no stream. uvloop counts in whole milliseconds: asked for a part of one it
    would spin.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._slots: list[list[Connection]] = [[] for _ in range(_SLOTS)]
        self._at = 0
        self._due_s = 0.0
        self._running = False

    def add(self, connection: "Connection") -> None:
        """It is served next in 10 ms."""
        self._slots[self._at - 1].append(connection)
        if not self._running:
            self._running = True
            self._due_s = time.monotonic() + _SLOT_S
            self._loop.call_later(_SLOT_S, self._beat)

    def _beat(self) -> None:
        now_s = time.monotonic()
        while self._due_s <= now_s:
            slot = self._slots[self._at]
            if slot:
                self._slots[self._at] = [connection for connection in slot if connection.beat()]
            self._at = (self._at + 1) % _SLOTS
            self._due_s += _SLOT_S
        self._running = any(self._slots)
        if self._running:
            self._loop.call_later(_SLOT_S, self._beat)


class Connection(asyncio.Protocol):
    """One connection, requests one after another."""

    __slots__ = ("_buffer", "_crc", "_left", "_loop", "_pacer", "_transport")

    def __init__(self, pacer: Pacer) -> None:
        self._pacer = pacer
        self._loop = asyncio.get_running_loop()
        # Any: uvloop's transports are no subclass of asyncio's.
        self._transport: Any = None
        self._buffer = b""
        self._left = 0
        self._crc = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """A stream that nobody reads ends."""
        self._left = -1

    def data_received(self, data: bytes) -> None:
        """Answer every request that is complete."""
        data = self._buffer + data
        while (head_end := data.find(b"\r\n\r\n")) >= 0:
            length = _LENGTH.search(data, 0, head_end)
            end = head_end + 4 + (int(length[1]) if length else 0)
            if len(data) < end:
                break
            wish = _WISH.search(data, 0, head_end)
            if wish is None:
                self._transport.write(_JSON)
            else:
                self._stream(wish[1], int(wish[2]))
            data = data[end:]
        self._buffer = data

    def _stream(self, kind: bytes, count: int) -> None:
        if kind == b"flat":
            self._burst(_bursts(count), 0)
            return
        if kind == b"held":
            self._transport.write(_STREAM + b"".join(chunked(event(number)) for number in range(count)))
            return
        if kind == b"late":
            self._crc, self._left = 0, count
            self._later(_LATE % time.monotonic_ns())
            return
        first = event(time.monotonic_ns())
        self._crc = zlib.crc32(first)
        self._left = count - 1
        self._transport.write(_STREAM + chunked(first))
        self._pacer.add(self)

    def _burst(self, writes: tuple[bytes, ...], at: int) -> None:
        self._transport.write(writes[at])
        if at + 1 < len(writes) and not self._transport.is_closing():
            self._loop.call_soon(self._burst, writes, at + 1)

    def beat(self) -> bool:
        """The next event of a paced stream, or its end; whether there is more."""
        if self._left > 0:
            self._send()
            return True
        if self._left == 0:
            self._finish()
        return False

    def _later(self, head: bytes = b"") -> None:
        self._loop.call_later(LATE_S * (0.75 + 0.5 * _CHANCE.random()), self._late, head)

    def _late(self, head: bytes) -> None:
        """The next event of a late stream, or its end."""
        if self._left > 0:
            self._send(head)
            self._later()
        elif self._left == 0:
            self._finish()

    def _send(self, head: bytes = b"") -> None:
        sent = event(time.monotonic_ns())
        self._crc = zlib.crc32(sent, self._crc)
        self._transport.write(head + chunked(sent))
        self._left -= 1

    def _finish(self) -> None:
        finish = tail(0, usage=False).partition(b"data: [DONE]")[0]
        self._transport.write(chunked(tail(zlib.crc32(finish, self._crc))) + _LAST)


async def _serve() -> None:
    loop = asyncio.get_running_loop()
    pacer = Pacer(loop)
    server = await loop.create_server(lambda: Connection(pacer), "127.0.0.1", 0, backlog=2_048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve())
