"""Send each chunk to the client, THEN hand it to the meters. The rule: no byte is changed, none waits for a meter.

One exception: where we asked for the usage chunk, that chunk is hidden again (``wire.hide``).
"""

import asyncio
import re
from collections.abc import Awaitable, Callable

from gatekeeper.config.gateway import OnDisconnect
from gatekeeper.ports import Incoming, RawHeaders
from gatekeeper.proxy.call import Aborted, Admitted, Caller, Interrupt
from gatekeeper.proxy.growth import ROOM_BYTES_MIN, Cut, Growth
from gatekeeper.proxy.observe import Observation
from gatekeeper.wire.hide import UsageHider

# What may follow the terminal event is a line end; a second is ample, and bounds a provider that never closes.
TRAILING_READ_S = 1.0
# Where a stream is cut, the event that has begun is ended first: most events are far smaller, and come at once.
BOUNDARY_BYTES_MAX = 64 * 1024
BOUNDARY_WAIT_S = 5.0
# A blank line in any mixture of line ends, LF, CR or CRLF (WHATWG HTML 9.2.6), with what may stand before it.
_BLANK_LINE = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_BLANK_BYTES = 4
# An unfinished event that could be the usage chunk waits no longer than a person notices.
HIDE_WAIT_S = 0.25


class ClientLeft(Exception):
    """The client hung up; ``finished`` says whether it had everything that matters."""

    def __init__(self, *, finished: bool) -> None:
        self.finished = finished


class _Pipe:
    """The client's end: sends a piece, then hands it to the meters. Remembers how the last piece ended."""

    __slots__ = ("_caller", "_observation", "last")

    def __init__(self, caller: Caller, observation: Observation) -> None:
        self._caller = caller
        self._observation = observation
        self.last = b"\n\n"

    async def send(self, shown: bytes, received: bytes) -> None:
        """``shown`` goes out; ``received`` is what the upstream sent for it, counted even if the client is gone."""
        try:
            if shown:
                await self._caller.send(shown)
                self.last = shown if len(shown) >= _BLANK_BYTES else self.last[-_BLANK_BYTES:] + shown
        finally:
            self._observation.feed(received)


class _Source:
    """The upstream's body; what was read and not relayed can be put back."""

    __slots__ = ("_back", "_incoming")

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._back = b""

    def unread(self, data: bytes) -> None:
        """Read this again first."""
        self._back = data + self._back

    def straight(self) -> Callable[[], Awaitable[bytes]]:
        """``Incoming.read`` itself, for as long as nothing is put back: one coroutine less for each chunk."""
        assert not self._back
        return self._incoming.read

    async def read(self) -> bytes:
        """As ``Incoming.read``."""
        if self._back:
            data, self._back = self._back, b""
            return data
        return await self._incoming.read()


def has_body(method: str, status: int, headers: RawHeaders) -> bool:
    """RFC 9112 6.3: no body after HEAD, 204, 304, and none where Content-Length says 0."""
    if method == "HEAD" or status in (204, 304):
        return False
    return content_length(headers) != 0


def content_length(headers: RawHeaders) -> int | None:
    """The stated length, or None. The upstream client has refused conflicting ones."""
    for name, value in headers:
        # Comparing lengths first spares lowering every name.
        if len(name) == 14 and name.lower() == b"content-length":
            return int(value) if value.isdigit() else None
    return None


async def forward(
    admitted: Admitted,
    incoming: Incoming,
    caller: Caller,
    observation: Observation,
    interrupt: Interrupt,
    growth: Growth | None,
) -> bytes:
    """Relay the body. Returns the last piece NOT yet sent: it goes out with the end, once the record is durable.

    Raises Fault when the upstream breaks off, ClientLeft when the client hung up, Cut when the budget inside the
    stream is used up (then what was sent ends at an event boundary) or Aborted where no boundary can be had.
    """
    status_good = 200 <= incoming.status < 300
    hider = UsageHider() if admitted.injected_usage and status_good else None
    pipe, source = _Pipe(caller, observation), _Source(incoming)
    try:
        try:
            if hider is not None:
                return await _relay_hiding(source, caller, observation, hider, pipe, growth)
            return await _relay(source, observation, pipe, growth, content_length(incoming.headers))
        except Cut as cut:
            await _to_boundary(incoming, source, pipe, cut)
            raise
    except asyncio.CancelledError:
        if interrupt.reason != Interrupt.CLIENT_GONE or not interrupt.absorb():
            raise
        route = admitted.call.route
        if observation.terminal_seen:
            await _read_on(incoming, observation, TRAILING_READ_S, None)
            raise ClientLeft(finished=True) from None
        if route.on_disconnect is OnDisconnect.DRAIN:
            await _read_on(incoming, observation, route.drain_s, observation.output_tokens + route.drain_tokens_max)
        raise ClientLeft(finished=False) from None


async def _relay(
    source: _Source, observation: Observation, pipe: _Pipe, growth: Growth | None, remaining: int | None
) -> bytes:
    read = source.straight()
    while chunk := await read():
        if remaining is not None:
            remaining -= len(chunk)
            if remaining <= 0:
                observation.feed(chunk)
                await read()
                return chunk
        if growth is None:
            await pipe.send(chunk, chunk)
        elif len(chunk) <= ROOM_BYTES_MIN:
            # As `_within`: there is always room for so much, which nearly every event is, one in a read.
            await pipe.send(chunk, chunk)
            if growth.spent:
                await growth.more()
        else:
            await _within(growth, chunk, source, pipe, None)
    return b""


async def _relay_hiding(
    source: _Source, caller: Caller, observation: Observation, hider: UsageHider, pipe: _Pipe, growth: Growth | None
) -> bytes:
    while True:
        chunk = await _read_or_flush(source, caller, hider, observation)
        if not chunk:
            return hider.finish()
        if growth is None:
            await pipe.send(hider.feed(chunk), chunk)
        else:
            await _within(growth, chunk, source, pipe, hider)


async def _within(growth: Growth, chunk: bytes, source: _Source, pipe: _Pipe, hider: UsageHider | None) -> None:
    """Relay a chunk as far as its text is held for, then wait for more. A read that holds hundreds of events (an
    upstream that is faster than its client) must not run past the budget in one piece."""
    while chunk:
        room = growth.room_bytes
        if room < len(chunk):
            # Cut between two events where there is such a place: those that are whole are metered ten times as fast.
            room = chunk.rfind(b"\n\n", 0, room) + 2 if chunk.find(b"\n\n", 0, room) >= 0 else room
        piece, chunk = chunk[:room], chunk[room:]
        await pipe.send(piece if hider is None else hider.feed(piece), piece)
        try:
            if growth.spent:
                await growth.more()
        except Cut:
            source.unread(chunk)
            raise


async def _to_boundary(incoming: Incoming, source: _Source, pipe: _Pipe, cut: Cut) -> None:
    """Relay on to the end of the event that has begun, so that the refusal can follow as an event of its own."""
    named = {name.lower(): value.lower() for name, value in incoming.headers}
    encoded = named.get(b"content-encoding", b"identity") not in (b"", b"identity")
    if encoded or not named.get(b"content-type", b"").startswith(b"text/event-stream") or b"content-length" in named:
        raise Aborted(str(cut)) from cut
    reach = BOUNDARY_BYTES_MAX
    try:
        async with asyncio.timeout(BOUNDARY_WAIT_S):
            while not _BLANK_LINE.search(pipe.last[-_BLANK_BYTES:] + b"!"):
                chunk = await source.read()
                joined = pipe.last[-_BLANK_BYTES:] + chunk
                found = _BLANK_LINE.search(joined)
                end = len(chunk) if found is None else max(0, found.end() - (len(joined) - len(chunk)))
                # Only what is sent counts: what was put back may be a large piece of which one event is needed.
                reach -= end
                if not chunk or reach < 0:
                    raise Aborted(str(cut)) from cut
                await pipe.send(chunk[:end], chunk[:end])
                if found is not None:
                    return
    except TimeoutError:
        raise Aborted(str(cut)) from cut


async def _read_or_flush(incoming: _Source, caller: Caller, hider: UsageHider, observation: Observation) -> bytes:
    if not hider.pending:
        return await incoming.read()
    reading = asyncio.ensure_future(incoming.read())
    try:
        done, _ = await asyncio.wait({reading}, timeout=HIDE_WAIT_S)
        if not done:
            # A loop that was held up hears of the time before it hears of what waits in the socket.
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        if not reading.done() and (held_back := hider.flush()):
            await caller.send(held_back)
        # Waited for, not awaited: a cancellation must not take with it what was read at the same moment.
        await asyncio.wait({reading})
        return reading.result()
    except BaseException:
        reading.cancel()
        await asyncio.wait({reading})
        if not reading.cancelled() and reading.exception() is None:
            observation.feed(reading.result())
        raise


async def _read_on(incoming: Incoming, observation: Observation, wait_s: float, output_tokens_max: int | None) -> None:
    """Read what is left for the meters alone, bounded in time and, where tokens are paid for, in money."""
    try:
        async with asyncio.timeout(wait_s):
            while chunk := await incoming.read():
                observation.feed(chunk)
                if output_tokens_max is not None and observation.output_tokens > output_tokens_max:
                    return
    except TimeoutError:
        pass
