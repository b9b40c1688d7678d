"""How the fake provider sends an answer: at a human pace, and with the failures that it was told to have.

The rule: a caller that hangs up ends the sending at once, also in the middle of a pause; nothing is left running.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping

from starlette.types import Receive, Scope, Send

from gatekeeper.clock import Clock
from gatekeeper.demo.behaviour import Mode
from gatekeeper.demo.dialects.frames import Frame

SLOW_FIRST_BYTE_S = 2.0
SLOW_TOKENS_PER_S = 5.0
# A little of the answer is out before it goes wrong.
TOKENS_BEFORE_TROUBLE = 3
# Past the limits of 64 KiB and 100 KiB that readers of lines are known to have.
HUGE_PADDING_BYTES = 128 * 1024


class Torn(Exception):
    """The connection is to be broken here."""


class Reply:
    """An ASGI response made of frames. ``tokens_per_s`` 0 sends without pauses."""

    def __init__(
        self,
        frames: Iterator[Frame],
        *,
        headers: Mapping[str, str],
        clock: Clock,
        tokens_per_s: float,
        mode: Mode = Mode.OK,
        broken: bytes = b"",
        compress: bool = False,
    ) -> None:
        self._frames = frames
        self._headers = {**headers, **({"content-encoding": "gzip"} if compress else {})}
        self._clock = clock
        self._tokens_per_s = SLOW_TOKENS_PER_S if mode is Mode.SLOW else tokens_per_s
        self._mode = mode
        self._broken = broken
        self._compress = compress

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the end, or until the caller has gone (cancels the rest)."""
        sending = asyncio.create_task(self._send(send))
        leaving = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
        finally:
            sending.cancel()
            leaving.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)

    async def _send(self, send: Send) -> None:
        if self._mode is Mode.HANG:
            await _for_ever()
        if self._mode is Mode.SLOW:
            await self._clock.sleep(SLOW_FIRST_BYTE_S)
        raw = [(name.encode(), value.encode()) for name, value in self._headers.items()]
        await send({"type": "http.response.start", "status": 200, "headers": raw})
        squeeze = zlib.compressobj(wbits=31) if self._compress else None
        try:
            async for payload in self._payloads():
                body = payload if squeeze is None else squeeze.compress(payload) + squeeze.flush(zlib.Z_SYNC_FLUSH)
                await send({"type": "http.response.body", "body": body, "more_body": True})
        except Torn:
            # Returning without the last message makes the server break the connection.
            return
        rest = b"" if squeeze is None else squeeze.flush()
        await send({"type": "http.response.body", "body": rest, "more_body": False})

    async def _payloads(self) -> AsyncIterator[bytes]:
        if self._mode is Mode.GARBAGE:
            yield b"\x00\xff\xfe{]not an answer\r\r\n<>" * 40
            return
        sent_tokens = 0
        padding = self._mode is Mode.HUGE
        for frame in self._frames:
            if frame.tokens and self._tokens_per_s > 0:
                await self._clock.sleep(frame.tokens / self._tokens_per_s)
            if sent_tokens >= TOKENS_BEFORE_TROUBLE:
                match self._mode:
                    case Mode.ERROR_MIDSTREAM:
                        yield self._broken
                        return
                    case Mode.RESET:
                        raise Torn
                    case Mode.HANG_MIDSTREAM:
                        await _for_ever()
            yield _padded(frame.payload) if padding else frame.payload
            padding = False
            sent_tokens += frame.tokens


def _padded(payload: bytes) -> bytes:
    """The frame with white space before its last brace: the same JSON, only larger (Anthropic pads like this)."""
    end = payload.rindex(b"}")
    return payload[:end] + b" " * HUGE_PADDING_BYTES + payload[end:]


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _for_ever() -> None:
    await asyncio.Event().wait()
