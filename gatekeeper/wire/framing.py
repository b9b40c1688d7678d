"""Which framing turns a body into events, chosen by its content type.

The rule: every framing gives the same events however the bytes were cut, in linear time, and keeps at most one
event's bytes. The framings themselves: ``sse``, ``ndjson``, ``json_body``, ``frames``.
"""

from typing import Protocol

from gatekeeper.wire.events import Event
from gatekeeper.wire.frames import FrameParser
from gatekeeper.wire.json_body import JsonFramer
from gatekeeper.wire.ndjson import LineFramer
from gatekeeper.wire.sse import SseParser

_NDJSON = frozenset({
    "application/x-ndjson", "application/ndjson", "application/stream+json", "application/jsonl",
    "application/x-jsonlines", "application/jsonlines", "application/json-lines",
})  # fmt: skip
_MAYBE_JSON = frozenset({"", "application/octet-stream", "binary/octet-stream"})


class Framer(Protocol):
    """What all framings have in common. ``dropped`` counts events over ``event_bytes_max``."""

    dropped: int

    @property
    def tail(self) -> bytes:
        """The first few KB of what was last seen outside all events."""
        ...

    @property
    def held(self) -> int:
        """Bytes of the unfinished event."""
        ...

    def drop(self) -> None:
        """Lets the unfinished event go, counts it as dropped, and passes over what follows of it."""
        ...

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that these bytes complete."""
        ...

    def finish(self, clean: bool) -> list[Event]:
        """The events that only the end of the body completes; ``clean`` is False when the body was cut."""
        ...


def framer_for(content_type: str, event_bytes_max: int) -> Framer:
    """The framing of a response with this Content-Type. Unknown types give no events: nothing is guessed, except
    that an unnamed or binary body which begins like JSON is JSON (DeepSeek labels its errors so)."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        return SseParser(event_bytes_max)
    if kind in _NDJSON:
        return LineFramer(event_bytes_max)
    if kind == "application/vnd.amazon.eventstream":
        return FrameParser(event_bytes_max)
    if kind in ("application/json", "text/json") or kind.endswith("+json"):
        return JsonFramer(event_bytes_max)
    return JsonFramer(event_bytes_max, sniff=True) if kind in _MAYBE_JSON else NoFramer()


class NoFramer:
    """A body without events: audio, HTML, plain text."""

    __slots__ = ("dropped",)

    tail = b""
    held = 0

    def __init__(self) -> None:
        self.dropped = 0

    def drop(self) -> None:
        """There is nothing to let go."""

    def feed(self, chunk: bytes) -> list[Event]:
        """Always nothing."""
        return []

    def finish(self, clean: bool) -> list[Event]:
        """Always nothing."""
        return []
