"""Figures that move while a page is open (server-sent events). The rule: however many look on, a topic is read once a
turn, and nobody reads while nobody looks. Whoever was signed out sees nothing more; each stream ends after some
minutes, all of them at shutdown."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Fault, Refusal

log = logging.getLogger("gatekeeper.live")

EVERY_S = 2.0
# A proxy between closes what is silent for a minute.
SILENT_S = 15.0
STREAM_S = 300.0
VIEWERS_MAX = 200
# How long a browser waits before it comes back.
RETRY_MS = 2_000


class Hub:
    """One for a process. ``read`` makes the text of a topic; it is sent where it differs from the one before."""

    def __init__(self, read: Callable[[str], Awaitable[str]], clock: Clock, every_s: float = EVERY_S) -> None:
        self._read = read
        self._clock = clock
        self._every_s = every_s
        self._viewers: dict[str, set[asyncio.Queue[str | None]]] = {}
        self._last: dict[str, str] = {}
        self._wanted = asyncio.Event()
        self._closed = False

    @property
    def viewers(self) -> int:
        """How many look on."""
        return sum(map(len, self._viewers.values()))

    async def run(self) -> None:
        """Read and tell for ever; whoever cancels this ends all streams."""
        try:
            while True:
                await self._wanted.wait()
                for topic in list(self._viewers):
                    await self._turn(topic)
                await self._clock.sleep(self._every_s)
                if not self._viewers:
                    self._wanted.clear()
        finally:
            self.close()

    def close(self) -> None:
        """End every stream, and begin no other."""
        self._closed = True
        for queues in self._viewers.values():
            for queue in queues:
                _put(queue, None)

    def open(self, topic: str, may_look: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[bytes]:
        """The stream of a topic, as it is sent; it ends before the first word that ``may_look`` does not allow. Raises
        Refusal when there are too many, or at shutdown."""
        if self._closed:
            raise Refusal(Code.SHUTTING_DOWN)
        if self.viewers >= VIEWERS_MAX:
            raise Refusal(Code.RATE_LIMITED, f"{VIEWERS_MAX} pages look on already.", retry_after_s=30)
        return self._stream(topic, may_look)

    async def _stream(self, topic: str, may_look: Callable[[], Awaitable[bool]] | None) -> AsyncIterator[bytes]:
        queue: asyncio.Queue[str | None] = asyncio.Queue(maxsize=1)
        self._viewers.setdefault(topic, set()).add(queue)
        self._wanted.set()
        ends_s = self._clock.monotonic_s() + STREAM_S
        try:
            yield f"retry: {RETRY_MS}\n\n".encode()
            if topic in self._last:
                yield _event(self._last[topic])
            while not self._closed and self._clock.monotonic_s() < ends_s:
                try:
                    async with asyncio.timeout(SILENT_S):
                        text = await queue.get()
                    word = b"" if text is None else _event(text)
                except TimeoutError:
                    word = b": still here\n\n"
                if not word or (may_look is not None and not await may_look()):
                    return
                yield word
        finally:
            self._leave(topic, queue)

    def _leave(self, topic: str, queue: asyncio.Queue[str | None]) -> None:
        queues = self._viewers.get(topic, set())
        queues.discard(queue)
        if not queues:
            self._viewers.pop(topic, None)
            # What nobody reads any more is old when somebody comes.
            self._last.pop(topic, None)

    async def _turn(self, topic: str) -> None:
        try:
            text = await self._read(topic)
        except Fault as fault:
            log.warning("live figures wait: %s", fault)
            return
        except Exception:
            log.exception("live figures could not be read")
            return
        if topic not in self._viewers or self._last.get(topic) == text:
            return
        self._last[topic] = text
        for queue in self._viewers[topic]:
            _put(queue, text)


def _put(queue: asyncio.Queue[str | None], text: str | None) -> None:
    """The newest word, in the place of one that was not fetched."""
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(text)


def _event(text: str) -> bytes:
    return f"event: figures\ndata: {text}\n\n".encode()
