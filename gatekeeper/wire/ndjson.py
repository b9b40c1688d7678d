"""NDJSON (Ollama, Cohere v1): a line is an event.

The rule: only LF ends a line, so that U+2028 inside a string does not; the last line may lack it.
"""

from gatekeeper.wire.events import Event, parse_exact
from gatekeeper.wire.sse import TAIL_BYTES_MAX

_BLANK = b" \t\r\n"


class LineFramer:
    """NDJSON: every line that is not blank is an event. The last one may lack its line end."""

    __slots__ = ("_index", "_line", "_max", "_skip", "_tail", "dropped")

    def __init__(self, event_bytes_max: int) -> None:
        self.dropped = 0
        self._max = event_bytes_max
        self._index = 0
        self._line = bytearray()
        self._skip = False  # inside a line that is over the bound
        self._tail = b""

    @property
    def tail(self) -> bytes:
        """The unfinished last line of a body that was cut."""
        return self._tail

    @property
    def held(self) -> int:
        """Bytes of the unfinished line."""
        return len(self._line)

    def drop(self) -> None:
        """Lets the unfinished line go, and what follows of it."""
        self._line = bytearray()
        self._skip = True
        self.dropped += 1

    @property
    def idle(self) -> bool:
        """Between two lines, with nothing kept."""
        return not self._line and not self._skip

    def skip(self, count: int) -> None:
        """So many whole lines were read elsewhere, while this was ``idle``."""
        self._index += count

    def feed(self, chunk: bytes) -> list[Event]:
        """The lines that these bytes complete."""
        lines = chunk.split(b"\n")
        rest = lines.pop()
        events: list[Event] = []
        if lines:
            if self._skip:
                self._skip = False
                del lines[0]
            elif self._line:
                self._line += lines[0]
                lines[0] = bytes(self._line)
                self._line = bytearray()
            for line in lines:
                self._add(line, events)
        if rest and not self._skip:
            self._line += rest
            if len(self._line) > self._max:
                self._line = bytearray()
                self._skip = True
                self.dropped += 1
        return events

    def finish(self, clean: bool) -> list[Event]:
        """The last line; of a body that was cut only if it is JSON."""
        line = bytes(self._line)
        self._line = bytearray()
        if not clean and parse_exact(line) is None:
            self._tail = line[:TAIL_BYTES_MAX]
            return []
        events: list[Event] = []
        self._add(line, events)
        return events

    def _add(self, line: bytes, events: list[Event]) -> None:
        if len(line) > self._max:
            self.dropped += 1
            return
        line = line.strip(_BLANK)
        if line:
            events.append(Event(self._index, "message", "", line))
            self._index += 1
