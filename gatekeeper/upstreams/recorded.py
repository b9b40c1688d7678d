"""An upstream that replays what was recorded: for tests, ``gatekeeper try`` and the demo. No socket.

The rule: it behaves like the real one at the seam: the request's body is taken before the head is given, the end is
``b""`` for ever, and a fault comes after all bytes before it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from gatekeeper.errors import Fault
from gatekeeper.ports import Outgoing, RawHeaders

_CONTENT_TYPES = {
    ".sse": b"text/event-stream",
    ".json": b"application/json",
    ".ndjson": b"application/x-ndjson",
    ".html": b"text/html",
    ".txt": b"text/plain",
}


@dataclass(frozen=True, slots=True)
class Recording:
    """One answer. ``boundaries`` are the offsets at which reads end; without them every read is ``chunk_bytes`` long
    (0: one read). ``fault`` is raised once ``fault_after_bytes`` of the body were read; None: instead of the head.
    """

    body: bytes = b""
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()
    chunk_bytes: int = 0
    boundaries: tuple[int, ...] | None = None
    fault: Fault | None = None
    fault_after_bytes: int | None = None
    close_delimited: bool = False

    @classmethod
    def from_file(cls, path: Path, *, status: int = 200, chunk_bytes: int = 0) -> "Recording":
        """The file's bytes as body; ``Content-Type`` by its suffix (``.sse``, ``.json``, ...), with ``.gz`` behind it
        as ``Content-Encoding: gzip``. Raises OSError."""
        suffixes = path.suffixes
        headers: list[tuple[bytes, bytes]] = []
        packed = bool(suffixes) and suffixes[-1] == ".gz"
        kind = suffixes[-2:-1] if packed else suffixes[-1:]
        headers.append((b"Content-Type", _CONTENT_TYPES.get(kind[0] if kind else "", b"application/octet-stream")))
        if packed:
            headers.append((b"Content-Encoding", b"gzip"))
        return cls(path.read_bytes(), status, tuple(headers), chunk_bytes)

    def failing(self, fault: Fault, *, after_bytes: int | None) -> "Recording":
        """The same, broken off by ``fault``."""
        return replace(self, fault=fault, fault_after_bytes=after_bytes)

    def pieces(self) -> Sequence[bytes]:
        """The reads, in order, none empty; up to the fault if there is one within the body."""
        end = len(self.body)
        if self.fault is not None and self.fault_after_bytes is not None:
            end = min(end, self.fault_after_bytes)
        cuts = self.boundaries
        if cuts is None:
            cuts = tuple(range(self.chunk_bytes, end, self.chunk_bytes)) if self.chunk_bytes > 0 else ()
        edges = sorted({0, end, *(cut for cut in cuts if 0 < cut < end)})
        return [self.body[start:stop] for start, stop in pairwise(edges)]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived, with its whole body."""

    outgoing: Outgoing
    body: bytes


class RecordedUpstream:
    """ports.Upstream that answers from recordings.

    ``answers``: one Recording for every call, or a function of the request. ``gate`` is awaited before the head, and
    ``pace`` before every read that returns bytes (both for tests that stop the world, and for the demo's tempo).
    ``asked`` holds all requests; ``left_early`` counts the calls that were left before their end.
    """

    def __init__(
        self,
        answers: Recording | Callable[[Asked], Recording],
        *,
        gate: Callable[[], Awaitable[object]] | None = None,
        pace: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._answers = answers
        self._gate = gate
        self._pace = pace
        self.asked: list[Asked] = []
        self.left_early = 0
        self.closed = False

    def open(self, outgoing: Outgoing) -> "Replay":
        """Takes the request's body, waits for the gate, gives the head; or raises the recorded Fault."""
        return Replay(self, outgoing)

    async def close(self) -> None:
        """Nothing is open; ``closed`` says that this was called."""
        self.closed = True

    async def answer(self, outgoing: Outgoing) -> "RecordedAnswer":
        """The answer to one request."""
        asked = Asked(outgoing, await _whole(outgoing.body))
        self.asked.append(asked)
        recording = self._answers if isinstance(self._answers, Recording) else self._answers(asked)
        if self._gate is not None:
            await self._gate()
        if recording.fault is not None and recording.fault_after_bytes is None:
            raise recording.fault
        return RecordedAnswer(recording, self._pace)


class RecordedAnswer:
    """ports.Incoming out of a Recording."""

    def __init__(self, recording: Recording, pace: Callable[[], Awaitable[object]] | None) -> None:
        self.status = recording.status
        self.headers: RawHeaders = list(recording.headers)
        self.close_delimited = recording.close_delimited
        self.reused = False
        self.ended = False
        self._pieces = list(reversed(recording.pieces()))
        self._fault = recording.fault
        self._pace = pace

    async def read(self) -> bytes:
        """The next piece; ``b""`` at the end, for ever. Raises the recorded Fault, every time."""
        if self._pieces:
            if self._pace is not None:
                await self._pace()
            return self._pieces.pop()
        if self._fault is not None:
            raise self._fault
        self.ended = True
        return b""


class Replay:
    """One call, as an async context manager."""

    def __init__(self, upstream: RecordedUpstream, outgoing: Outgoing) -> None:
        self._upstream = upstream
        self._outgoing = outgoing
        self._answer: RecordedAnswer | None = None

    async def __aenter__(self) -> RecordedAnswer:
        """The answer's head."""
        self._answer = await self._upstream.answer(self._outgoing)
        return self._answer

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Notes whether the reader left before the end."""
        if self._answer is not None and not self._answer.ended:
            self._upstream.left_early += 1


async def _whole(body: bytes | AsyncIterator[bytes]) -> bytes:
    return body if isinstance(body, bytes) else b"".join([piece async for piece in body])
