"""Amazon's binary event stream (``application/vnd.amazon.eventstream``), as Bedrock answers streaming calls.

A frame: total length, headers' length, CRC of both (4 bytes each), headers, payload, CRC of all. The rule: lengths
and checksums are checked before anything is believed; after a broken prelude nothing can be found any more.
"""

import base64
import binascii
import zlib
from collections.abc import Iterator

from gatekeeper.wire.events import Event

_PRELUDE = 12
_CRC = 4
# The format's own bound on the headers of one frame.
_HEADERS_MAX = 128 * 1024
_TAIL_MAX = 8 * 1024
# Header value types by number: how many bytes of value follow; None: a two-byte length, then the value.
_VALUE_BYTES = (0, 0, 1, 2, 4, 8, None, None, 8, 16)
_STRING = 7


class FrameParser:
    """Each frame is an event named by its ``:event-type`` (or ``:exception-type``) header. The JSON in a ``chunk``
    frame (InvokeModel) is unpacked from its base64 ``bytes``. ``dropped`` counts frames over the bound or damaged."""

    __slots__ = ("_broken", "_held", "_index", "_max", "_skip", "_tail", "dropped")

    def __init__(self, event_bytes_max: int) -> None:
        self.dropped = 0
        self._max = event_bytes_max + _HEADERS_MAX + _PRELUDE + _CRC
        self._index = 0
        self._held = bytearray()
        self._skip = 0  # bytes of a frame over the bound that are still to come
        self._broken = False
        self._tail = b""

    @property
    def tail(self) -> bytes:
        """What could not be read: the beginning of bytes that are no frames."""
        return self._tail

    @property
    def held(self) -> int:
        """Bytes of the unfinished frame."""
        return len(self._held)

    def drop(self) -> None:
        """Lets the unfinished frame go, and what follows of it."""
        length = int.from_bytes(self._held[:4])
        self._skip = max(0, length - len(self._held))
        self._held = bytearray()
        self.dropped += 1

    def feed(self, chunk: bytes) -> list[Event]:
        """The frames that these bytes complete."""
        if self._broken:
            self._tail += chunk[: _TAIL_MAX - len(self._tail)]
            return []
        if self._skip:
            skipped = min(self._skip, len(chunk))
            self._skip -= skipped
            chunk = chunk[skipped:]
        self._held += chunk
        events: list[Event] = []
        at = 0
        while (length := self._next(at)) is not None:
            if length <= self._max:
                self._frame(bytes(self._held[at : at + length]), events)
            at += length
        del self._held[:at]
        return events

    def finish(self, clean: bool) -> list[Event]:
        """A frame that was cut has no checksum, so it counts for nothing."""
        self._tail = self._tail or bytes(self._held[:_TAIL_MAX])
        self._held = bytearray()
        return []

    def _next(self, at: int) -> int | None:
        """The length of the frame at ``at``, if all of it (or, over the bound, what there is of it) is here."""
        here = len(self._held) - at
        if here < _PRELUDE or self._broken:
            return None
        prelude = bytes(self._held[at : at + _PRELUDE])
        length = int.from_bytes(prelude[:4])
        headers = int.from_bytes(prelude[4:8])
        if zlib.crc32(prelude[:8]) != int.from_bytes(prelude[8:]) or headers > length - _PRELUDE - _CRC:
            self._broken = True
            self.dropped += 1
            self._tail = bytes(self._held[at : at + _TAIL_MAX])
            self._held = bytearray()
            return None
        if length > self._max:
            self.dropped += 1
            self._skip = max(0, length - here)
            return length
        return length if here >= length else None

    def _frame(self, frame: bytes, events: list[Event]) -> None:
        if zlib.crc32(frame[:-_CRC]) != int.from_bytes(frame[-_CRC:]):
            self.dropped += 1
            return
        payload_at = _PRELUDE + int.from_bytes(frame[4:8])
        headers = dict(_headers(frame[_PRELUDE:payload_at]))
        name = headers.get(":event-type") or headers.get(":exception-type") or headers.get(":error-code") or "message"
        event = Event(self._index, name, "", frame[payload_at:-_CRC])
        self._index += 1
        if name == "chunk":
            event.raw = _unpacked(event)
        events.append(event)


def _headers(block: bytes) -> Iterator[tuple[str, str]]:
    """The headers of type string; stops at the first that does not fit."""
    at = 0
    while at < len(block):
        name_end = at + 1 + block[at]
        name = block[at + 1 : name_end].decode("utf-8", "replace")
        kind = block[name_end] if name_end < len(block) else len(_VALUE_BYTES)
        if kind >= len(_VALUE_BYTES):
            return
        size = _VALUE_BYTES[kind]
        at = name_end + 1
        if size is None:
            size = int.from_bytes(block[at : at + 2])
            at += 2
        value = block[at : at + size]
        at += size
        if kind == _STRING and at <= len(block):
            yield name, value.decode("utf-8", "replace")


def _unpacked(event: Event) -> bytes:
    """The payload inside a ``chunk`` frame, or the payload itself where there is none."""
    packed = Event(0, "", "", event.raw).json
    text = packed.get("bytes") if isinstance(packed, dict) else None
    if not isinstance(text, str):
        return event.raw
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return event.raw
