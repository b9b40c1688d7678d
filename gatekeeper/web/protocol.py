"""uvicorn's HTTP protocol with the bounds that it lacks. The rule: what a peer can make us hold or wait for is
bounded, and who hangs up is noticed, also behind a pipelined request.

It overrides methods of an internal class, hence uvicorn's version is bounded in pyproject.toml.
"""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from gatekeeper.config.gateway import Dialect
from gatekeeper.errors import Code, Refusal
from gatekeeper.web.calls import PEER
from gatekeeper.web.problems import problem

# What one socket read may bring beyond the end of a head: it is counted with it.
_READ_BYTES = 256 * 1024
# Slower than this no head arrives but on purpose.
HEAD_TIMEOUT_S = 60.0
# A client that takes nothing for so long holds a connection upstream that others need.
STALLED_TIMEOUT_S = 300.0
# Clients that pipeline send a few; with more waiting the socket is not read until one is answered.
PIPELINED_MAX = 8
# Fields of an answer that say more than themselves: how the connection goes on, and how the body is framed.
_DECIDED_BY_SEND = frozenset({b"connection", b"transfer-encoding"})
_NO_TUNNEL = Refusal(
    Code.METHOD_NOT_ALLOWED,
    "CONNECT is never forwarded.",
    headers=(("Allow", "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),),
)


class CyclePeer:
    """The client of one request, below ASGI (implements ``calls.Peer``)."""

    __slots__ = ("_chunks", "_cycle", "_flow", "_loop", "_on_gone")

    def __init__(self, cycle: RequestResponseCycle, flow: FlowControl, loop: asyncio.AbstractEventLoop) -> None:
        self._cycle = cycle
        self._flow = flow
        self._loop = loop
        self._on_gone: Callable[[], None] | None = None
        # Whether ``began`` has written a head behind which chunks follow.
        self._chunks = False

    def whole_body(self) -> bytes | None:
        """What ``receive`` would give, where it is the whole body and would not wait."""
        cycle = self._cycle
        if cycle.more_body or cycle.disconnected or cycle.waiting_for_100_continue:
            return None
        body, cycle.body = bytes(cycle.body), bytearray()
        cycle.message_event.clear()
        self._flow.resume_reading()
        return body

    def began(self, status: int, headers: list[tuple[bytes, bytes]]) -> bool:
        """What ``send`` does with a head that leaves the connection open and has a body, with two searches instead of
        two for each field. What is wrong or rare is left to ``send``."""
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or self._flow.write_paused or not cycle.keep_alive:
            return False
        # Neither an answer without a body, nor one whose framing somebody has decided already (HTTP/1.0).
        usual = 200 <= status < 600 and status not in (204, 304) and cycle.chunked_encoding is None
        if not usual or cycle.scope["method"] == "HEAD" or cycle.default_headers or cycle.access_log:
            return False
        names = [name.lower() for name, _ in headers]
        values = [value for _, value in headers]
        if not _DECIDED_BY_SEND.isdisjoint(names) or names.count(b"content-length") > 1:
            return False
        if HEADER_RE.search(b"".join(names)) or HEADER_VALUE_RE.search(b"".join(values)):
            return False
        length = values[names.index(b"content-length")] if b"content-length" in names else None
        if length is not None and not length.isdigit():
            return False
        cycle.response_started = True
        cycle.waiting_for_100_continue = False
        cycle.chunked_encoding = self._chunks = length is None
        cycle.expected_content_length = 0 if length is None else int(length)
        fields = b"".join([b"%b: %b\r\n" % field for field in zip(names, values, strict=True)])
        framing = b"transfer-encoding: chunked\r\n\r\n" if length is None else b"\r\n"
        cycle.transport.write(STATUS_LINE[status] + fields + framing)
        return True

    def wrote(self, chunk: bytes) -> bool:
        """What ``send`` does with a chunk of a stream whose client keeps up, without its message and its coroutine."""
        cycle = self._cycle
        if not self._chunks or cycle.response_complete or cycle.disconnected:
            return False
        if self._flow.write_paused or not chunk:
            return False
        cycle.transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        return True

    def watch(self, on_gone: Callable[[], None]) -> None:
        """As ``receive`` does, reading goes on: else nobody would see the client hang up."""
        self._on_gone = on_gone
        self._flow.resume_reading()
        if self._cycle.disconnected:
            self._loop.call_soon(self.gone)

    def unwatch(self) -> None:
        """Call nobody."""
        self._on_gone = None

    def gone(self) -> None:
        """The client hung up."""
        on_gone, self._on_gone = self._on_gone, None
        if on_gone is not None:
            on_gone()


class GatewayProtocol(HttpToolsProtocol):
    """One connection. Make a subclass with ``bounded`` for another bound of the head."""

    head_bytes_max = 64 * 1024

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = False
        self._quiet_bytes = 0
        self._progress = False
        self._resumes = False
        self._unfit: Refusal | None = None
        self._running: RequestResponseCycle | None = None
        self._peer: CyclePeer | None = None
        self._late: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A connection on which nothing is ever asked is idle from its first moment."""
        super().connection_made(transport)
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the call that is being answered; uvicorn tells only the one that was read last."""
        self._stop_clock()
        self._moves()
        if self._running is not None and not self._running.response_complete:
            self._hung_up(self._running)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes that bring neither a head nor a body to its end are counted: an endless head, endless framing."""
        self._progress = False
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except httptools.HttpParserError:
            self._refuse(self._unfit or self._unread())
        if self.transport.is_closing():
            return
        if self._progress or not (self._in_head or self._reads_body()):
            self._quiet_bytes = 0
        else:
            self._quiet_bytes += len(data)
            if self._quiet_bytes > self.head_bytes_max + _READ_BYTES:
                self._refuse(Refusal(Code.HEADERS_TOO_LARGE))
        if self._in_head and self._late is None:
            self._late = self.loop.call_later(HEAD_TIMEOUT_S, self.timeout_keep_alive_handler)

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        super().pause_writing()
        if self._stalled is None:
            self._stalled = self.loop.call_later(STALLED_TIMEOUT_S, self.transport.abort)

    def resume_writing(self) -> None:
        """The client has read."""
        self._moves()
        super().resume_writing()

    def _moves(self) -> None:
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # We decline every upgrade (RFC 9110 7.8), but the parser takes the body for the other protocol's bytes:
            # a fresh one is told the framing and reads on. Java's HttpClient asks for h2c with every POST.
            framing = [pair for pair in self.headers if pair[0] in (b"content-length", b"transfer-encoding")]
            self.parser = httptools.HttpRequestParser(self)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            self._resumes = True
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % b"".join(b"%b: %b\r\n" % pair for pair in framing))
            self._resumes = False
            self._feed(data[upgrade.args[0] :])

    def on_message_begin(self) -> None:
        """A head begins."""
        if self._resumes:
            return
        self._in_head = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A part of the target."""
        if not self._resumes:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head. Trailers are dropped: they are not fields of the head, and must not become any."""
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is whole."""
        if self._resumes:
            return
        self._in_head = False
        self._progress = True
        self._stop_clock()
        if self.parser.get_method() == b"CONNECT":
            self._unfit = _NO_TUNNEL
        elif _is_coded(self.headers):
            self._unfit = Refusal(Code.BAD_REQUEST, "The only transfer coding that is understood is chunked.")
        if self._unfit is not None:
            # Stops the parser.
            raise ValueError(self._unfit)
        super().on_headers_complete()
        # uvicorn stops to read behind a pipelined request, and would not see the client hang up.
        if self.pipeline and len(self.pipeline) < PIPELINED_MAX:
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._progress = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The end of a request, unless the parser stops for an upgrade."""
        if self.parser.should_upgrade():
            return
        self._progress = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """The answer to what is not HTTP, as JSON; between the chunks of another answer only the abort is honest."""
        self._refuse(Refusal(Code.BAD_REQUEST, msg))

    def _unread(self) -> Refusal:
        """Why the parser stopped: not even a target of CONNECT is one of ours."""
        if self._in_head and self.parser.get_method() == b"CONNECT":
            return _NO_TUNNEL
        return Refusal(Code.BAD_REQUEST, "The request is not valid HTTP.")

    def _refuse(self, refusal: Refusal) -> None:
        running = self._running
        if running is None or running.response_complete or (running is self.cycle and not running.response_started):
            status, headers, body = problem(refusal, Dialect.OPENAI, None)
            fields = [*headers, (b"content-length", b"%d" % len(body)), (b"connection", b"close")]
            head = b"".join(b"%b: %b\r\n" % field for field in fields)
            self.transport.write(b"HTTP/1.1 %d \r\n%b\r\n%b" % (status, head, body))
        if running is not None and not running.response_complete:
            self._hung_up(running)
        self.transport.close()

    def _hung_up(self, running: RequestResponseCycle) -> None:
        """Nobody is there any more for the call that is being answered."""
        running.disconnected = True
        running.message_event.set()
        if self._peer is not None:
            self._peer.gone()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        self._peer = CyclePeer(cycle, self.flow, self.loop)
        cycle.scope[PEER] = self._peer  # type: ignore[literal-required]  # a server may add its own
        if cycle.scope["http_version"] == "1.0":
            app = self._until_closed(cycle, app)
        super()._start_asgi_task(cycle, app)

    def _until_closed(self, cycle: RequestResponseCycle, app: Any) -> Any:
        """HTTP/1.0 knows no chunks (RFC 9112 7.1): a body of unknown length ends with the connection, and only a reset
        tells one that broke off from one that is complete."""
        cycle.chunked_encoding = False
        cycle.expected_content_length = _AnyLength()

        async def served(scope: Any, receive: Any, send: Any) -> None:
            await app(scope, receive, send)
            if cycle.response_started and not cycle.response_complete:
                sock = self.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.transport.abort()

        return served

    def _reads_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body

    def _stop_clock(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _AnyLength(int):
    """A length that every body has: uvicorn counts down what is still missing."""

    def __gt__(self, other: object) -> bool:
        return True

    def __lt__(self, other: object) -> bool:
        return False

    def __sub__(self, other: int) -> "_AnyLength":
        return self

    def __eq__(self, other: object) -> bool:
        return True

    def __ne__(self, other: object) -> bool:
        return False

    __hash__ = int.__hash__


def _is_coded(headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether a body is in a transfer coding that is not undone here: passed on without its name it would be another
    body (RFC 9112 6.1)."""
    lines = [value for name, value in headers if name == b"transfer-encoding"]
    return bool(lines) and [item for part in b",".join(lines).split(b",") if (item := part.strip().lower())] != [
        b"chunked"
    ]


def bounded(head_bytes_max: int) -> type[GatewayProtocol]:
    """The protocol with a head of at most so many bytes (and what one read brings beyond)."""
    return type("BoundedProtocol", (GatewayProtocol,), {"head_bytes_max": head_bytes_max})
