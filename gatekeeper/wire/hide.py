"""Takes one chunk out of a relayed SSE body: the usage chunk that only we asked for.

Used where we added ``stream_options.include_usage`` to a request and the client had not. The rule: every other byte
passes as it came, whatever the chunking. Nothing waits before the finish chunk (a ``finish_reason`` that is not null)
has passed; after it the bytes of an unfinished event wait, at most ``HELD_BYTES_MAX`` and as long as the caller
lets them (``pending``, ``flush``).

What remains visible to the client: with include_usage OpenAI and others write ``"usage":null`` into every chunk. Those
chunks keep their bytes, the null included: it is legal in every SDK, and cutting it would mean rewriting JSON.
Usage that a provider puts into the finish chunk itself stays as well, as do chunks with ``"choices":[]`` but without a
usage object (Azure's first).
"""

import re
from typing import Any

from gatekeeper.wire.sse import SseParser

# A usage chunk is under 2 KB; what is longer is none.
HELD_BYTES_MAX = 64 * 1024
_LINE_END = re.compile(rb"\r\n?|\n")


class UsageHider:
    """One response's body, decoded or never encoded. ``feed`` gives what may be sent now; after ``pending`` was true
    for too long call ``flush``; at the end of the body ``finish``."""

    __slots__ = ("_armed", "_block", "_done", "_gave_up", "_last_cr", "_line_begun", "_swallow_lf")

    def __init__(self) -> None:
        self._armed = False  # the finish chunk has passed: unfinished events wait
        self._done = False  # the usage chunk has been taken out: nothing else will be
        self._block = bytearray()  # the unfinished event; not yet sent if armed
        self._gave_up = False  # the unfinished event is sent as it comes and no longer looked at
        self._line_begun = False  # the unfinished line is not empty
        self._last_cr = False  # the last byte was a CR: an LF that follows belongs to it
        self._swallow_lf = False  # that CR ended the chunk that was taken out

    @property
    def pending(self) -> bool:
        """Whether bytes wait."""
        return self._armed and len(self._block) > 0

    def feed(self, chunk: bytes) -> bytes:
        """The bytes that may be sent now."""
        if self._done:
            return self._after(chunk)
        out: list[bytes] = []
        start = at = 0
        if self._last_cr and chunk:
            self._last_cr = False
            if chunk[0] == 10:
                at = 1
                if not self._line_begun and not self._block:
                    # The second half of a blank line whose event is gone already.
                    out.append(chunk[:1])
                    start = 1
        while (found := _LINE_END.search(chunk, at)) is not None:
            blank = not self._line_begun and found.start() == at
            at = found.end()
            self._line_begun = False
            self._last_cr = at == len(chunk) and chunk.endswith(b"\r")
            if not blank:
                continue
            self._collect(chunk[start:at], out)
            start = at
            if self._end_block(out):
                self._swallow_lf = self._last_cr
                return b"".join(out) + self._after(chunk[at:])
        self._line_begun = self._line_begun or at < len(chunk)
        self._collect(chunk[start:], out)
        return b"".join(out)

    def flush(self) -> bytes:
        """Releases what waits; that event will not be hidden any more."""
        if not self.pending:
            return b""
        self._gave_up = True
        return self._release()

    def finish(self) -> bytes:
        """The end of the body: what waits, unless it is the usage chunk without its blank line."""
        if not self.pending or _is_usage_chunk(bytes(self._block)):
            self._block = bytearray()
            return b""
        return self._release()

    def _release(self) -> bytes:
        released = bytes(self._block)
        self._block = bytearray()
        return released

    def _after(self, chunk: bytes) -> bytes:
        if self._swallow_lf and chunk:
            self._swallow_lf = False
            return chunk[1:] if chunk[0] == 10 else chunk
        return chunk

    def _collect(self, piece: bytes, out: list[bytes]) -> None:
        """Adds bytes to the unfinished event, and sends them unless they must wait."""
        if self._gave_up or not self._armed:
            out.append(piece)
        if self._gave_up:
            return
        self._block += piece
        if len(self._block) > HELD_BYTES_MAX:
            self._gave_up = True
            released = self._release()
            if self._armed:
                out.append(released)

    def _end_block(self, out: list[bytes]) -> bool:
        """An event is complete: True if it was the usage chunk, which is then gone."""
        block = self._release()
        if self._gave_up:
            self._gave_up = False
        elif not self._armed:
            self._armed = _is_finish_chunk(block)
        elif _is_usage_chunk(block):
            self._done = True
            return True
        else:
            out.append(block)
        return False


def _json_of(block: bytes) -> Any:
    parser = SseParser(HELD_BYTES_MAX)
    events = parser.feed(block) + parser.finish(True)
    return events[0].json if events else None


def _is_usage_chunk(block: bytes) -> bool:
    root = _json_of(block)
    return type(root) is dict and root.get("choices") == [] and type(root.get("usage")) is dict


def _is_finish_chunk(block: bytes) -> bool:
    # Every chunk has the key, nearly all of them with null.
    if block.find(b"finish_reason") < 0 and block.find(b"\\u00") < 0:
        return False
    root = _json_of(block)
    choices = root.get("choices") if type(root) is dict else None
    return type(choices) is list and any(type(item) is dict and item.get("finish_reason") for item in choices)
