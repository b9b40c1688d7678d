"""Server-sent events from bytes that arrive in any pieces (WHATWG HTML 9.2.5-9.2.6), with a meter's lenient tail.

The rule: the events do not depend on where the bytes were cut. Time is linear in the bytes, memory is bounded by
``event_bytes_max``: an event over it is dropped alone, and reading goes on after the next blank line.
"""

from gatekeeper.wire.events import Event

# Enough for any provider's bare error body, which is all that the tail is for.
TAIL_BYTES_MAX = 8 * 1024
# Lines of one event that are kept apart: beyond, each would take ten times the room of what it says.
_LINES_MAX = 256
_BOM = b"\xef\xbb\xbf"


class SseParser:
    """Feed bytes, take events. ``dropped`` counts the events over the bound.

    ``tail`` is the last run of lines that are no SSE fields, from its beginning, at most ``TAIL_BYTES_MAX``: there
    stands what a provider sends without ``data:``, such as a bare ``{"error": ...}``.
    """

    __slots__ = (
        "_bom", "_data", "_data_bytes", "_data_max", "_event", "_id", "_index", "_line", "_line_max",
        "_skip_block", "_skip_lf", "_skip_line", "_tail", "_tail_ended", "dropped", "idle",
    )  # fmt: skip

    def __init__(self, event_bytes_max: int) -> None:
        self.dropped = 0
        self._data_max = event_bytes_max
        self._line_max = event_bytes_max + len(b"data: ")
        self._index = 0
        self.idle = False  # between two events, with nothing kept
        self._bom: bytes | None = b""  # what may become a BOM; None once the stream has begun
        self._line = bytearray()  # the unfinished last line
        self._skip_lf = False  # the last byte was a CR: an LF that follows belongs to it
        self._skip_line = False  # inside a line that is over the bound
        self._skip_block = False  # inside an event that is over the bound
        self._data: list[bytes | bytearray] = []
        self._data_bytes = 0
        self._event = ""
        self._id = ""
        self._tail = bytearray()
        self._tail_ended = False

    @property
    def tail(self) -> bytes:
        """See the class."""
        return bytes(self._tail)

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete."""
        if self.idle and chunk.startswith(b"data: ") and self._is_one_line(chunk):
            self._tail_ended = True
            event = Event(self._index, "message", self._id, chunk[6:-2])
            self._index += 1
            return [event]
        if self._bom is not None:
            chunk = self._begin(chunk)
        if self._skip_lf and chunk:
            self._skip_lf = False
            if chunk[0] == 10:
                chunk = chunk[1:]
        if chunk.find(b"\r") >= 0:
            self._skip_lf = chunk.endswith(b"\r")
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if not lines:
            self.idle = self.idle and not rest
            self._hold(rest)
            return []
        if self._line:
            self._line += lines[0]
            lines[0] = bytes(self._line)
            self._line = bytearray()
        elif self._skip_line:
            self._skip_line = False
            del lines[0]
        events: list[Event] = []
        self._lines(lines, events)
        if rest:
            self._hold(rest)
        self.idle = not (rest or self._data or self._event or self._skip_block or self._skip_lf)
        return events

    @property
    def held(self) -> int:
        """Bytes of the unfinished event."""
        return len(self._line) + self._data_bytes

    def drop(self) -> None:
        """Lets the unfinished event go, and what follows of it."""
        if self._line:
            self._line = bytearray()
            self._skip_line = True
        self._drop()

    def skip(self, count: int) -> None:
        """So many whole events were read elsewhere, while this was ``idle``."""
        self._index += count
        self._tail_ended = True

    def finish(self, clean: bool) -> list[Event]:
        """The end of the body. An unterminated last event counts; of a body that was cut, only if it is JSON."""
        events: list[Event] = []
        if self._bom:
            self._line += self._bom
            self._bom = None
        lines = [bytes(self._line)] if self._line else []
        self._line = bytearray()
        self._lines(lines, events)
        if self._data or self._skip_block:
            self._lines([b""], events)
        if events and not clean and events[-1].json is None:
            events.pop()
        return events

    def _is_one_line(self, chunk: bytes) -> bool:
        """One whole event of one line of data: nearly every read of nearly every provider."""
        end = len(chunk) - 2
        return chunk.find(b"\n") == end and chunk[-1] == 10 and chunk.find(b"\r") < 0 and end - 6 <= self._data_max

    def _begin(self, chunk: bytes) -> bytes:
        """Strips one BOM from the beginning of the stream, even if it comes in pieces."""
        assert self._bom is not None
        start = self._bom + chunk
        if len(start) < 3 and _BOM.startswith(start):
            self._bom = start
            return b""
        self._bom = None
        return start.removeprefix(_BOM)

    def _hold(self, piece: bytes) -> None:
        if self._skip_line:
            return
        self._line += piece
        if len(self._line) > self._line_max:
            self._line = bytearray()
            self._skip_line = True
            self._drop()

    def _drop(self) -> None:
        if not self._skip_block:
            self._skip_block = True
            self.dropped += 1
        self._data = []
        self._data_bytes = 0
        self._event = ""

    def _lines(self, lines: list[bytes], events: list[Event]) -> None:
        for line in lines:
            if not line:
                if self._data:
                    data = self._data
                    raw = bytes(data[0]) if len(data) == 1 else b"\n".join(data)
                    events.append(Event(self._index, self._event or "message", self._id, raw))
                    self._index += 1
                    self._data = []
                    self._data_bytes = 0
                    self._tail_ended = True
                self._event = ""
                self._skip_block = False
            elif self._skip_block:
                continue
            elif line.startswith(b"data:"):
                self._append(line[6:] if line.startswith(b"data: ") else line[5:])
            else:
                self._field(line)

    def _append(self, value: bytes) -> None:
        self._data_bytes += len(value) + 1  # the LF that joins counts, except the last one
        data = self._data
        if self._data_bytes - 1 > self._data_max:
            self._drop()
        elif len(data) < _LINES_MAX:
            data.append(value)
        else:
            # Each byte is moved once: the first of them grows.
            whole = data[0] if isinstance(data[0], bytearray) else bytearray(data[0])
            whole += b"\n" + b"\n".join(data[1:])
            self._data = [whole, value]

    def _field(self, line: bytes) -> None:
        """Any line but the usual ``data:``."""
        if len(line) > self._line_max:
            self._drop()
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._event = value.decode("utf-8", "replace")
        elif name == b"data":
            self._append(b"")
        elif name == b"id":
            if b"\0" not in value:
                self._id = value.decode("utf-8", "replace")
        elif name == b"" or name == b"retry":
            return
        else:
            self._stray(line)

    def _stray(self, line: bytes) -> None:
        if self._tail_ended:
            self._tail_ended = False
            self._tail = bytearray()
        room = TAIL_BYTES_MAX - len(self._tail)
        if room > 0:
            self._tail += (line + b"\n")[:room]
