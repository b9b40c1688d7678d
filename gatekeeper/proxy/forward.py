"""Send each chunk to the client, THEN hand it to the meters. The rule: no byte is changed, none waits for a meter.

One exception: where we asked for the usage chunk, that chunk is hidden again (``wire.hide``).
"""

import asyncio
from dataclasses import dataclass

from gatekeeper.config.gateway import OnDisconnect
from gatekeeper.ports import Incoming, RawHeaders
from gatekeeper.proxy.call import Admitted, Caller, Interrupt
from gatekeeper.proxy.observe import Observation
from gatekeeper.wire.hide import UsageHider

# What may follow the terminal event is a line end; a second is ample, and bounds a provider that never closes.
TRAILING_READ_S = 1.0
# A drained call costs money that nobody reads: bounded in time until the ledger bounds it in units.
DRAIN_S = 60.0
# An unfinished event that could be the usage chunk waits no longer than a person notices.
HIDE_WAIT_S = 0.25


class ClientLeft(Exception):
    """The client hung up; ``finished`` says whether it had everything that matters."""

    def __init__(self, *, finished: bool) -> None:
        self.finished = finished


@dataclass(slots=True)
class _Body:
    """How much of a body with a known length is still to come (None: unknown)."""

    remaining: int | None


def has_body(method: str, status: int, headers: RawHeaders) -> bool:
    """RFC 9112 6.3: no body after HEAD, 204, 304, and none where Content-Length says 0."""
    if method == "HEAD" or status in (204, 304):
        return False
    return content_length(headers) != 0


def content_length(headers: RawHeaders) -> int | None:
    """The stated length, or None. The upstream client has refused conflicting ones."""
    stated = next((value for name, value in headers if name.lower() == b"content-length"), None)
    return int(stated) if stated is not None and stated.isdigit() else None


async def forward(
    admitted: Admitted, incoming: Incoming, caller: Caller, observation: Observation, interrupt: Interrupt
) -> bytes:
    """Relay the body. Returns the last piece NOT yet sent: it goes out with the end, once the record is durable.

    Raises Fault when the upstream breaks off, ClientLeft when the client hung up.
    """
    status_good = 200 <= incoming.status < 300
    hider = UsageHider() if admitted.injected_usage and status_good else None
    body = _Body(content_length(incoming.headers))
    try:
        return await _relay(incoming, caller, observation, hider, body)
    except asyncio.CancelledError:
        if interrupt.reason != Interrupt.CLIENT_GONE or not interrupt.absorb():
            raise
        if observation.terminal_seen:
            await _read_on(incoming, observation, TRAILING_READ_S)
            raise ClientLeft(finished=True) from None
        if admitted.call.route.on_disconnect is OnDisconnect.DRAIN:
            await _read_on(incoming, observation, DRAIN_S)
        raise ClientLeft(finished=False) from None


async def _relay(
    incoming: Incoming, caller: Caller, observation: Observation, hider: UsageHider | None, body: _Body
) -> bytes:
    if hider is not None:
        return await _relay_hiding(incoming, caller, observation, hider)
    while chunk := await incoming.read():
        if body.remaining is not None:
            body.remaining -= len(chunk)
            if body.remaining <= 0:
                observation.feed(chunk)
                await incoming.read()
                return chunk
        try:
            await caller.send(chunk)
        finally:
            observation.feed(chunk)
    return b""


async def _relay_hiding(incoming: Incoming, caller: Caller, observation: Observation, hider: UsageHider) -> bytes:
    while True:
        chunk = await _read_or_flush(incoming, caller, hider, observation)
        if not chunk:
            return hider.finish()
        shown = hider.feed(chunk)
        try:
            if shown:
                await caller.send(shown)
        finally:
            observation.feed(chunk)


async def _read_or_flush(incoming: Incoming, caller: Caller, hider: UsageHider, observation: Observation) -> bytes:
    if not hider.pending:
        return await incoming.read()
    reading = asyncio.ensure_future(incoming.read())
    try:
        done, _ = await asyncio.wait({reading}, timeout=HIDE_WAIT_S)
        if not done and (held_back := hider.flush()):
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


async def _read_on(incoming: Incoming, observation: Observation, wait_s: float) -> None:
    """Read what is left for the meters alone."""
    try:
        async with asyncio.timeout(wait_s):
            while chunk := await incoming.read():
                observation.feed(chunk)
    except TimeoutError:
        pass
