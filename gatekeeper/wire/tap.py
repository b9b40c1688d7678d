"""From a response's raw bytes to its events: decoding, then framing, on a copy of what the client gets.

The rule: a Tap never raises and never waits. What it cannot read is in ``error`` or counted in ``dropped``.
"""

from gatekeeper.wire.decoding import Decoder
from gatekeeper.wire.events import Event
from gatekeeper.wire.framing import framer_for
from gatekeeper.wire.memory import PROCESS, EventMemory, Share
from gatekeeper.wire.ndjson import LineFramer
from gatekeeper.wire.sse import SseParser

# The largest recorded event is 100 KB (an image in a terminal event); 16 MiB leaves room for base64 video.
EVENT_BYTES_MAX = 16 * 1024 * 1024


class Tap:
    """One response. ``content_type`` and ``content_encoding`` are the response's headers ("" where absent).
    ``memory`` bounds what all taps that share it hold of unfinished events."""

    __slots__ = ("_decoder", "_framer", "_share", "decoded_bytes", "plain", "skips")

    def __init__(
        self,
        content_type: str,
        content_encoding: str,
        *,
        event_bytes_max: int = EVENT_BYTES_MAX,
        memory: EventMemory = PROCESS,
    ) -> None:
        self._decoder = Decoder(content_encoding)
        self.plain = self._decoder.identity  # the bytes are what they are
        self._share = Share(memory)
        self._framer = framer_for(content_type, event_bytes_max)
        # The framing, where whole events may be read elsewhere while it is ``idle``, and then skipped.
        self.skips = self._framer if isinstance(self._framer, SseParser | LineFramer) else None
        self.decoded_bytes = 0

    def feed(self, chunk: bytes) -> tuple[bytes, list[Event]]:
        """The decoded bytes of this chunk, and the events that they complete (indices run through the response)."""
        decoded = self.decode(chunk)
        return decoded, self.frame(decoded)

    def decode(self, chunk: bytes) -> bytes:
        """The first half of ``feed``: who calls it must ``frame`` (or ``skip``) what it gives."""
        decoded = chunk if self.plain else self._decoder.feed(chunk)
        self.decoded_bytes += len(decoded)
        return decoded

    def frame(self, decoded: bytes) -> list[Event]:
        """The second half of ``feed``: the events that these decoded bytes complete."""
        framer = self._framer
        events = framer.feed(decoded)
        if not self._share.fits(framer.held):
            framer.drop()
        return events

    def finish(self, clean: bool) -> list[Event]:
        """The events that only the end completes. ``clean``: the body ended as HTTP says, it was not cut."""
        events = self.frame(self._decoder.finish()) + self._framer.finish(clean)
        self._share.fits(0)
        return events

    @property
    def error(self) -> str | None:
        """Why the content coding could not be undone, or None. The events until then stand."""
        return self._decoder.error

    @property
    def dropped(self) -> int:
        """Events that were over ``event_bytes_max``, damaged, or too much for ``memory``, and are missing."""
        return self._framer.dropped

    @property
    def tail(self) -> bytes:
        """The first few KB of the last text outside all events, such as a bare ``{"error": ...}`` in an SSE body."""
        return self._framer.tail
