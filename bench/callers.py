"""Connections that call through a gateway, hold every byte to what it must be, and write down what they saw.

The rule: also of an answer that was cut off, what did arrive must be the beginning of the true one.
"""

import asyncio
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import httptools

from bench.answers import ERROR_BODY, PATHS, Fault, Wish, answer, bytes_of

# Longer than any pause and time-out of the rig: a call that takes so long hangs.
CALL_TIMEOUT_S = 60.0
_ID_HEADER = b"x-gatekeeper-call-id"
_REFUSAL_BYTES_MAX = 16_384
# A cut answer is estimated from what was relayed of it: no wish is worth more than this, and where a reader is slow,
# what lies in the buffers before it is counted, too.
_CUT_UNITS_MAX = 20_000
_UNREAD_BYTES_MAX = 8 << 20


@dataclass(slots=True)
class Saw:
    """One call, as its client saw it. ``sent_s`` and ``first_s`` are instants; ``received`` counts bytes."""

    wish: Wish
    key: str
    prefix: str = ""
    sent_s: float = 0.0
    first_s: float = 0.0
    ended_s: float = 0.0
    status: int = 0
    call_id: str = ""
    received: int = 0
    ended: bool = False
    left: bool = False
    # The usage event that nobody had asked for was to be seen: the gateway hides it for 250 ms, not longer.
    revealed: bool = False
    refusal: bytes = b""
    wrong: str = ""

    @property
    def complete(self) -> bool:
        """Served whole."""
        return self.ended and self.status == 200 and not self.wrong

    @property
    def units(self) -> int:
        """What a complete call costs."""
        return answer(self.wish.dialect, self.wish.stream, self.wish.shape).units

    @property
    def cost_nano(self) -> int:
        """What the provider takes for a complete call."""
        return answer(self.wish.dialect, self.wish.stream, self.wish.shape).cost_nano

    @property
    def code(self) -> str:
        """Of a refusal by the gateway."""
        try:
            return str(json.loads(self.refusal)["error"]["code"] or "")
        except (ValueError, KeyError, TypeError):
            return ""


@dataclass
class Tally:
    """What all calls of a run came to, in little memory: ``complete`` has (units, cost in nano-dollars) by call id,
    ``begun`` the calls with status 200 that were cut off, with the units that they may cost at most; ``others`` the
    status of all others that have an id."""

    calls: int = 0
    unanswered: int = 0
    received: int = 0
    revealed: int = 0
    complete: dict[str, tuple[int, int]] = field(default_factory=dict)
    # Complete calls whose client may hang up at the last event, not waiting for the end of the body.
    hasty: set[str] = field(default_factory=set)
    begun: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, saw: Saw) -> None:
        """Count one call that is over."""
        self.calls += 1
        self.received += saw.received
        self.revealed += saw.revealed
        if saw.wrong:
            self.wrong.append(f"call {saw.call_id} ({saw.wish}): {saw.wrong}")
        said = str(saw.status) + (f" {saw.code}" if saw.refusal and saw.code else "")
        if saw.status == 200:
            said = "complete" if saw.complete else "left" if saw.left else "cut off"
        elif not saw.status:
            said = "left before the head" if saw.left else "no answer"
        self.statuses[said] = self.statuses.get(said, 0) + 1
        if saw.call_id in self.complete or saw.call_id in self.begun:
            self.wrong.append(f"call {saw.call_id}: two calls have this id")
        if not saw.call_id:
            self.unanswered += 1
        elif saw.complete:
            self.complete[saw.call_id] = (saw.units, saw.cost_nano)
        elif saw.status == 200:
            flood = saw.wish.fault is Fault.FLOOD
            self.begun[saw.call_id] = saw.received + _UNREAD_BYTES_MAX if flood else _CUT_UNITS_MAX
        else:
            self.others[saw.call_id] = saw.status


class Connection(asyncio.Protocol):
    """One connection of a client; one call at a time."""

    def __init__(self) -> None:
        self._transport: Any = None
        self._parser: Any = None
        self._saw: Saw | None = None
        self._truth = b""
        self._leave_bytes: int | None = None
        self._over: asyncio.Future[None] | None = None
        self._on_event: Callable[[bytes], None] | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The call that was under way ends here, with what it has."""
        self.usable = False
        self._end()

    def _end(self) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def call(
        self, request: bytes, saw: Saw, *, leave_bytes: int | None = None, leave_s: float | None = None
    ) -> None:
        """One call, to its end. The client leaves after so many bytes of the body or seconds, by closing."""
        loop = asyncio.get_running_loop()
        self._saw, self._truth, self._leave_bytes = saw, bytes_of(saw.wish), leave_bytes
        self._parser = httptools.HttpResponseParser(self)
        self._over = loop.create_future()
        saw.sent_s = time.monotonic()
        self._transport.write(request)
        leaving = loop.call_later(leave_s, self.leave) if leave_s is not None else None
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                await self._over
        except TimeoutError:
            saw.wrong = saw.wrong or f"it hung for {CALL_TIMEOUT_S:g} s"
            self.leave()
        finally:
            if leaving is not None:
                leaving.cancel()
        saw.ended_s = time.monotonic()

    def leave(self) -> None:
        """Hang up."""
        if self._saw is not None and not self._saw.ended:
            self._saw.left = True
        self.usable = False
        self._transport.abort()

    def pause(self) -> None:
        """Stop reading."""
        self._transport.pause_reading()

    def close(self) -> None:
        """Between two calls."""
        self.usable = False
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """All is in the parser's callbacks."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            assert self._saw is not None
            self._saw.wrong = self._saw.wrong or f"no HTTP: {error}"
            self.leave()

    def on_header(self, name: bytes, value: bytes) -> None:
        """The name that the gateway has for the call."""
        assert self._saw is not None
        if name.lower() == _ID_HEADER:
            self._saw.call_id = value.decode()

    def on_headers_complete(self) -> None:
        """The status."""
        assert self._saw is not None
        self._saw.status = self._parser.get_status_code()

    def on_body(self, piece: bytes) -> None:
        """Compare at once: nothing of an answer is kept."""
        saw = self._saw
        assert saw is not None
        if not saw.received:
            saw.first_s = time.monotonic()
        if saw.status != 200:
            saw.refusal = (saw.refusal + piece)[:_REFUSAL_BYTES_MAX]
            saw.received += len(piece)
            return
        if saw.wish.fault is not Fault.FLOOD and not self._truth.startswith(piece, saw.received):
            with_usage = bytes_of(replace(saw.wish, ask_usage=True))
            if not saw.revealed and with_usage.startswith(self._truth[: saw.received] + piece):
                saw.revealed, self._truth = True, with_usage
            else:
                saw.wrong = saw.wrong or f"wrong from byte {saw.received} on: {piece[:80]!r}"
        saw.received += len(piece)
        if self._leave_bytes is not None and saw.received >= self._leave_bytes:
            self.leave()

    def on_message_complete(self) -> None:
        """The end of the body; whether the connection may be used again is known only here."""
        saw = self._saw
        assert saw is not None
        if saw.left:
            return
        saw.ended = True
        if saw.status == 200 and saw.wish.fault is not Fault.FLOOD and saw.received != len(self._truth):
            saw.wrong = saw.wrong or f"{saw.received} bytes instead of {len(self._truth)}"
        if saw.status == 500 and saw.refusal != ERROR_BODY and not saw.code:
            saw.wrong = saw.wrong or f"another error than the upstream's: {saw.refusal[:80]!r}"
        if not self._parser.should_keep_alive():
            self.usable = False
            self._transport.close()
        self._end()


class Crowd:
    """The clients of one gateway; connections are kept and used again. ``prefix`` stands before the path."""

    def __init__(self, port: int, tally: Tally) -> None:
        self.port = port
        self.tally = tally
        self._idle: list[Connection] = []

    async def call(
        self, saw: Saw, *, leave_bytes: int | None = None, leave_s: float | None = None, fresh: bool = False
    ) -> Saw:
        """One call, counted. ``fresh`` makes a connection of its own."""
        while self._idle and not self._idle[-1].usable:
            self._idle.pop()
        if self._idle and not fresh:
            connection = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            try:
                _, connection = await loop.create_connection(Connection, "127.0.0.1", self.port)
            except OSError as error:
                saw.wrong = f"no connection: {error}"
                self.tally.add(saw)
                return saw
        await connection.call(request_of(saw), saw, leave_bytes=leave_bytes, leave_s=leave_s)
        if connection.usable:
            self._idle.append(connection)
        self.tally.add(saw)
        return saw

    async def close(self) -> None:
        """Hang up everywhere."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()
        # One turn of the loop closes the sockets.
        await asyncio.sleep(0)


def request_of(saw: Saw) -> bytes:
    """The whole request."""
    body = saw.wish.body()
    head = (
        f"POST {saw.prefix}{PATHS[saw.wish.dialect]} HTTP/1.1\r\nHost: truth\r\nAuthorization: Bearer {saw.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def ask(
    port: int, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[int, Any]:
    """One small request beside all others: (status, what the JSON says)."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        text = b"" if body is None else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: truth", "Connection: close", f"Content-Length: {len(text)}"]
        lines += [f"{name}: {value}" for name, value in {"Content-Type": "application/json", **(headers or {})}.items()]
        writer.write("\r\n".join([*lines, "", ""]).encode() + text)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        return int(head[9:12]), json.loads(await reader.readexactly(int(length)))
    finally:
        writer.close()
