"""A JSON body as events: a top-level array element by element as it arrives, anything else as one event at the end.

The rule: what cuts an array is found by scanning brackets and quotes, never by parsing what is not complete.
"""

import re

from gatekeeper.wire.events import Event, parse_exact
from gatekeeper.wire.sse import TAIL_BYTES_MAX

_BLANK = b" \t\r\n"
_BOM = b"\xef\xbb\xbf"
# Inside an array: what begins or ends a string or a value. Commas matter only between the array's own elements.
_BETWEEN = re.compile(rb'["\[\]{},]')
_INSIDE = re.compile(rb'["\[\]{}]')
_IN_STRING = re.compile(rb'["\\]')


class JsonFramer:
    """A JSON body. A top-level array that arrives in pieces (Gemini without ``alt=sse``) gives each element as it
    completes, so that a cut array still gives its whole elements; anything else is one event at its end."""

    __slots__ = (
        "_depth", "_done", "_escaped", "_in_array", "_index", "_max", "_over", "_part", "_quoted", "_sniff",
        "_started", "_tail", "dropped",
    )  # fmt: skip

    def __init__(self, event_bytes_max: int, *, sniff: bool = False) -> None:
        self.dropped = 0
        self._max = event_bytes_max
        self._sniff = sniff  # what begins neither like an object nor like an array is not JSON
        self._index = 0
        self._started = False
        self._done = False  # nothing that follows can be an event
        self._in_array = False
        self._depth = 0  # open brackets inside the top-level array
        self._quoted = False
        self._escaped = False
        self._part = bytearray()  # the body, or the array's current element
        self._over = False
        self._tail = bytearray()

    @property
    def tail(self) -> bytes:
        """What followed the array, or the beginning of what was cut."""
        return bytes(self._tail)

    @property
    def held(self) -> int:
        """Bytes of the body, or of the array's unfinished element."""
        return len(self._part)

    def drop(self) -> None:
        """Lets the body or the unfinished element go, and what follows of it."""
        self._part = bytearray()
        self._over = True
        self.dropped += 1

    def feed(self, chunk: bytes) -> list[Event]:
        """The elements that these bytes complete; nothing before the end for any other JSON."""
        if not self._started:
            chunk = self._begin(chunk)
        events: list[Event] = []
        if self._done:
            if not self._sniff or self._in_array:
                self._after(chunk)
        elif self._in_array:
            self._scan(chunk, events)
        elif chunk:
            self._keep(chunk)
        return events

    def finish(self, clean: bool) -> list[Event]:
        """The single body; of one that was cut only if it is JSON."""
        events: list[Event] = []
        rest = bytes(self._part).strip(_BLANK)
        self._part = bytearray()
        if self._done:
            return events
        if self._in_array or (not clean and parse_exact(rest) is None):
            self._after(rest)
        elif not self._over and rest and rest != _BOM:
            events.append(Event(self._index, "message", "", rest))
        self._done = True
        return events

    def _begin(self, chunk: bytes) -> bytes:
        """Skips blanks and a BOM, then decides between array and single body; gives back what to read."""
        # The few bytes before the first letter; a body of only blanks stays empty.
        start = (bytes(self._part) + chunk).lstrip(_BLANK)
        self._part = bytearray()
        bare = start.removeprefix(_BOM).lstrip(_BLANK)
        if not bare or (len(start) < 3 and _BOM.startswith(start)):
            self._part += start[:3]
            return b""
        self._started = True
        if bare.startswith(b"["):
            self._in_array = True
            return bare[1:]
        self._done = self._sniff and not bare.startswith(b"{")
        return bare

    def _keep(self, piece: bytes) -> None:
        if self._over:
            return
        self._part += piece
        if len(self._part) > self._max:
            self._part = bytearray()
            self._over = True
            self.dropped += 1

    def _scan(self, chunk: bytes, events: list[Event]) -> None:
        start = at = 0
        while True:
            if self._escaped and at < len(chunk):
                self._escaped = False
                at += 1
            pattern = _IN_STRING if self._quoted else _INSIDE if self._depth else _BETWEEN
            found = pattern.search(chunk, at)
            if not found:
                break
            sign, at = chunk[found.start()], found.end()
            if sign == 0x22:  # "
                self._quoted = not self._quoted
            elif sign == 0x5C:  # backslash
                self._escaped = True
            elif sign in b"[{":
                self._depth += 1
            elif self._depth and sign in b"]}":
                self._depth -= 1
            else:
                self._keep(chunk[start : found.start()])
                self._element(events)
                start = at
                if sign == 0x5D:  # ] of the whole array
                    self._done = True
                    self._after(chunk[at:])
                    return
            if sign in b"]}" and not self._depth and start < at:
                # Complete now, not at the next comma: that may come a second later.
                self._keep(chunk[start:at])
                self._element(events)
                start = at
        self._keep(chunk[start:])

    def _element(self, events: list[Event]) -> None:
        raw = bytes(self._part).strip(_BLANK)
        self._part = bytearray()
        if raw and not self._over:
            events.append(Event(self._index, "message", "", raw))
            self._index += 1
        self._over = False

    def _after(self, piece: bytes) -> None:
        if not self._tail:
            piece = piece.lstrip(_BLANK)
        self._tail += piece[: TAIL_BYTES_MAX - len(self._tail)]
