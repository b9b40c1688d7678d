"""One connection to an upstream, and the answer that it carries.

The rule: a connection carries one exchange at a time, and lets go of it exactly once: at the end of the answer, at a
failure, or when the reader leaves. Only the first of these, with nothing odd seen, makes it reusable.
"""

import asyncio
import os
import select
import socket
from math import inf
from typing import Any, Protocol

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.upstreams.response import WORLD, Message, ResponseReader

# Above this the socket is not read until the reader took what waits. One read of the loop is at most 256 KiB, so a
# connection holds at most twice this.
BUFFERED_MAX = 256 * 1024
# A timer may fire up to a millisecond early, as uvloop counts in milliseconds.
_TICK_S = 0.001
# What is looked for in a socket that failed under the upload: an early answer (413, 429) is a head and a short body.
_LAST_WORDS_MAX = 256 * 1024
# The shortest idle limits of NAT and load balancers are a few minutes.
_PROBE_AFTER_S = 60


class Owner(Protocol):
    """Who lends connections out."""

    def release(self, connection: "Connection", reusable: bool) -> None:
        """The exchange is over."""
        ...

    def lost(self, connection: "Connection") -> None:
        """The transport is closed."""
        ...


class Answer(Message):
    """What ``open`` yields: ports.Incoming, and ``close_delimited`` and ``reused`` (the connection was not new)."""

    __slots__ = ("connection", "reused")

    def __init__(self, connection: "Connection", reused: bool) -> None:
        super().__init__()
        # None as soon as the connection has let go.
        self.connection: Connection | None = connection
        self.reused = reused

    async def read(self) -> bytes:
        """All body bytes that have gathered; ``b""`` is the clean end, for ever. Raises Fault.

        One reader at a time. Cancelling loses no byte: the next read gets them.
        """
        while not self.pieces:
            if self.failure is not None:
                raise self.failure
            if self.connection is None:
                return b""
            await self.connection.arrival(self)
        pieces = self.pieces
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self.buffered = 0
        if self.connection is not None:
            self.connection.taken()
        return body


class Connection(asyncio.Protocol):
    """A socket with its parser. Unconnected until the loop calls ``connection_made``.

    One timer watches it: it is only moved when something is due earlier than it would fire, and looks again when it
    fires, so that a chunk costs no timer.
    """

    __slots__ = (
        "_answer",
        "_arrival",
        "_body_sent",
        "_drained",
        "_loop",
        "_owner",
        "_patience_s",
        "_poll",
        "_reader",
        "_reading_paused",
        "_since_s",
        "_timer",
        "_timer_due_s",
        "_total_due_s",
        "_transport",
        "_used",
        "_waiting_for",
        "_writing_paused",
        "idle_timeout_s",
        "lost",
    )

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._loop = loop
        self._transport: Any = None
        self._reader = ResponseReader()
        self._poll: Any = None
        self._answer: Answer | None = None
        self._arrival: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._body_sent = True
        self._reading_paused = False
        self._writing_paused = False
        self._used = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_s = inf
        self._total_due_s = inf
        self._waiting_for: FaultKind | None = None
        self._since_s = 0.0
        self._patience_s = inf
        self.idle_timeout_s = inf
        self.lost = False

    # --- the exchange ---------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether there is (or was) a socket."""
        return self._transport is not None

    def stale(self) -> bool:
        """Whether an idle connection has ended, or has bytes nobody asked for, which the loop has not told us yet."""
        return self.closing or (self._poll is not None and bool(self._poll.poll(0)))

    @property
    def closing(self) -> bool:
        """Whether the socket is closed or about to be."""
        return self.lost or self._transport.is_closing()

    def begin(self, *, head_only: bool, body_sent: bool, total_due_s: float) -> Answer:
        """Start an exchange. ``body_sent`` False: ``body_written`` will follow. ``total_due_s`` in the loop's time."""
        assert self._answer is None, "an exchange is under way"
        assert not self.lost
        answer = self._answer = Answer(self, self._used)
        self._used = True
        self._body_sent = body_sent
        self._total_due_s = total_due_s
        self._waiting_for = None
        self._reader.begin(answer, head_only=head_only)
        self._arm(total_due_s)
        return answer

    def write(self, *pieces: bytes) -> None:
        """Hand bytes to the transport; ``drained`` says when it has room again."""
        if len(pieces) == 1:
            self._transport.write(pieces[0])
        else:
            self._transport.writelines(pieces)

    async def drained(self, answer: Answer) -> None:
        """Wait until the transport takes more, or ``answer`` is over. A server that reads nothing for
        ``idle_timeout_s`` fails the exchange, unless it already answers.

        Always lets the loop turn once, so that an answer or a failed write is seen before the next piece.
        """
        await asyncio.sleep(0)
        # A transport that failed takes everything and never pauses: wait until the loop tells how it ended.
        while answer.connection is self and (self._writing_paused or self._transport.is_closing()):
            waiter = self._drained = self._loop.create_future()
            if answer.status == 0:
                self._watch(FaultKind.IDLE_TIMEOUT, self.idle_timeout_s)
            try:
                await waiter
            finally:
                if answer.connection is self:
                    self._drained = None
                    if answer.status == 0:
                        self._waiting_for = None

    def body_written(self, answer: Answer, first_byte_timeout_s: float) -> None:
        """The whole request is with the transport: from now on the server is expected to answer."""
        if answer.connection is self:
            self._body_sent = True
            if answer.status == 0:
                self._watch(FaultKind.FIRST_BYTE_TIMEOUT, first_byte_timeout_s)

    async def head(self, answer: Answer) -> None:
        """Wait for the head. Raises what made the exchange fail."""
        while answer.status == 0:
            if answer.failure is not None:
                raise answer.failure
            assert answer.connection is self
            await self.arrival(answer)

    async def arrival(self, answer: Answer) -> None:
        """Wait until something happened to the exchange. After the head, silence is bounded by ``idle_timeout_s``."""
        assert answer.connection is self
        assert self._arrival is None, "two tasks read the same answer"
        waiter = self._arrival = self._loop.create_future()
        reading = answer.status != 0
        if reading:
            self._watch(FaultKind.IDLE_TIMEOUT, self.idle_timeout_s)
        try:
            await waiter
        finally:
            # The connection may already carry somebody else's exchange.
            if answer.connection is self:
                self._arrival = None
                if reading:
                    self._waiting_for = None

    def taken(self) -> None:
        """The reader took all that waited."""
        if self._reading_paused:
            self._reading_paused = False
            if not self.lost:
                self._transport.resume_reading()

    def fail(self, answer: Answer, failure: BaseException) -> None:
        """End the exchange with ``failure``, unless it is over. What has gathered can still be read."""
        if answer.connection is self:
            if answer.failure is None:
                answer.failure = failure
            self._let_go(answer, reusable=False)

    def leave(self, answer: Answer) -> None:
        """The reader goes before the end, if it is before the end: the connection is closed."""
        self.fail(answer, RuntimeError("the answer was left before its end"))

    def interrupt(self, failure: BaseException) -> None:
        """Fail whatever exchange is under way."""
        if self._answer is not None:
            self.fail(self._answer, failure)

    def rest(self, idle_kept_s: float) -> None:
        """Idle from now on, until the next ``begin``, this limit, or a second before the server's own."""
        offered = self._reader.idle_max_s
        self._watch(None, idle_kept_s if offered is None else min(idle_kept_s, offered - 1.0))

    def abort(self) -> None:
        """Close the socket at once; ``Owner.lost`` follows."""
        if self._transport is not None and not self.lost:
            self._transport.abort()

    def _let_go(self, answer: Answer, *, reusable: bool) -> None:
        self._answer = None
        answer.connection = None
        self._waiting_for = None
        offered = self._reader.idle_max_s
        if reusable:
            reusable = self._body_sent and not self._writing_paused and (offered is None or offered > 1)
            self.taken()
        if not reusable:
            self.abort()
        self._owner.release(self, reusable)
        self._wake(self._arrival)
        self._wake(self._drained)
        self._arrival = self._drained = None

    def _wake(self, waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _heard(self, answer: Answer) -> None:
        """After the parser was fed."""
        if answer.ended:
            self._let_go(answer, reusable=self._reader.keep_alive and not self.lost)
        elif answer.failure is not None:
            self._let_go(answer, reusable=False)
        elif answer.pieces or answer.status:
            self._wake(self._arrival)

    # --- the one timer --------------------------------------------------------------------------------------------

    def _watch(self, kind: FaultKind | None, patience_s: float) -> None:
        """``kind`` is the failure when nothing happens for ``patience_s``; None closes an idle connection."""
        self._waiting_for = kind
        self._patience_s = patience_s
        now_s = self._since_s = self._loop.time()
        self._arm(now_s + patience_s)

    def _arm(self, due_s: float) -> None:
        if due_s < self._timer_due_s:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_due_s = due_s
            self._timer = self._loop.call_at(due_s, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._timer_due_s = inf
        now_s = self._loop.time() + _TICK_S
        answer = self._answer
        due_s = self._since_s + self._patience_s
        if answer is None:
            if now_s >= due_s:
                self.abort()
            else:
                self._arm(due_s)
            return
        kind = self._waiting_for
        if now_s >= self._total_due_s:
            self.fail(answer, Fault(WORLD, FaultKind.TOTAL_TIMEOUT, "the answer took too long as a whole"))
        elif kind is not None and now_s >= due_s:
            self.fail(answer, Fault(WORLD, kind, f"nothing came for {self._patience_s:g} s"))
        else:
            self._arm(min(self._total_due_s, inf if kind is None else due_s))

    # --- what the loop calls --------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket (and TLS) stands."""
        self._transport = transport
        sock = transport.get_extra_info("socket")
        if sock is None:
            return
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A reasoning model is silent for minutes: probes find a peer that vanished, and keep NAT entries alive.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_AFTER_S)
        if hasattr(select, "poll"):
            self._poll = select.poll()
            self._poll.register(sock.fileno(), select.POLLIN)

    def data_received(self, data: bytes) -> None:
        """Bytes of the answer, or bytes that nobody asked for."""
        answer = self._answer
        if answer is None:
            self.abort()
            return
        had_head = answer.status != 0
        self._reader.feed(data)
        if answer.status and not had_head:
            self._waiting_for = None
        elif self._waiting_for is FaultKind.IDLE_TIMEOUT:
            self._since_s = self._loop.time()
        if answer.buffered > BUFFERED_MAX and not self._reading_paused and not self.lost:
            self._reading_paused = True
            self._transport.pause_reading()
        self._heard(answer)

    def eof_received(self) -> None:
        """The server sends no more. Returning nothing closes the transport: we have no half-open use."""
        if self._answer is not None:
            self._reader.eof()
            self._heard(self._answer)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is gone, by whomever."""
        self.lost = True
        if exc is not None and self._answer is not None:
            self._last_words()
        answer = self._answer
        if answer is not None:
            if exc is None:
                self._reader.eof()
            elif answer.failure is None:
                answer.failure = Fault(WORLD, FaultKind.RESET, f"the connection broke: {type(exc).__name__}")
            self._heard(answer)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._writing_paused = False
        self._wake(self._drained)
        self._poll = None
        self._reader.dismiss()
        self._owner.lost(self)

    def _last_words(self) -> None:
        """A write failed: the answer that explains why may still lie in the socket (RFC 9112 9.5), which the loop
        closes after this. Not possible under TLS, where the bytes need the session."""
        transport = self._transport
        sock = transport.get_extra_info("socket")
        if sock is None or transport.get_extra_info("ssl_object") is not None:
            return
        left = _LAST_WORDS_MAX
        try:
            while left > 0 and self._answer is not None:
                last = os.read(sock.fileno(), 65536)
                if not last:
                    # After an error this is not the end that ends a body without framing.
                    return
                left -= len(last)
                self.data_received(last)
        except OSError:
            # Nothing (more) there, or the error that we know already.
            return

    def pause_writing(self) -> None:
        """The transport holds enough."""
        self._writing_paused = True

    def resume_writing(self) -> None:
        """The transport takes more."""
        self._writing_paused = False
        self._wake(self._drained)
