"""From a response's raw bytes to its events: decoding, then framing, on a copy of what the client gets.

The rule: a Tap never raises and never waits. What it cannot read is in ``error`` or counted in ``dropped``.
"""

from gatekeeper.wire.decoding import Decoder
from gatekeeper.wire.events import Event
from gatekeeper.wire.framing import framer_for

# The largest recorded event is 100 KB (an image in a terminal event); 16 MiB leaves room for base64 video.
EVENT_BYTES_MAX = 16 * 1024 * 1024


class Tap:
    """One response. ``content_type`` and ``content_encoding`` are the response's headers ("" where absent)."""

    __slots__ = ("_decoder", "_framer", "decoded_bytes")

    def __init__(self, content_type: str, content_encoding: str, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._decoder = Decoder(content_encoding)
        self._framer = framer_for(content_type, event_bytes_max)
        self.decoded_bytes = 0

    def feed(self, chunk: bytes) -> tuple[bytes, list[Event]]:
        """The decoded bytes of this chunk, and the events that they complete (indices run through the response)."""
        decoded = self._decoder.feed(chunk)
        self.decoded_bytes += len(decoded)
        return decoded, self._framer.feed(decoded)

    def finish(self, clean: bool) -> list[Event]:
        """The events that only the end completes. ``clean``: the body ended as HTTP says, it was not cut."""
        return self._framer.feed(self._decoder.finish()) + self._framer.finish(clean)

    @property
    def error(self) -> str | None:
        """Why the content coding could not be undone, or None. The events until then stand."""
        return self._decoder.error

    @property
    def dropped(self) -> int:
        """Events that were over ``event_bytes_max`` or damaged, and are missing."""
        return self._framer.dropped

    @property
    def tail(self) -> bytes:
        """The first few KB of the last text outside all events, such as a bare ``{"error": ...}`` in an SSE body."""
        return self._framer.tail
