"""How much memory all streams of one process may take together: unfinished events and lines, bodies that are held.

The rule: one counter a process. A stream that would pass the bound loses what it holds, so its measurement becomes an
error; its relaying, and every other stream, goes on.
"""

# Sixteen events of the largest size at once, or a quarter of a small machine.
PROCESS_BYTES_MAX = 256 * 1024 * 1024
# What a stream holds is counted in whole pages: nearly every unfinished event is smaller and costs nothing to count.
PAGE_BYTES = 4096


class EventMemory:
    """The counter. Used from one thread, that of the event loop."""

    __slots__ = ("bytes_max", "used")

    def __init__(self, bytes_max: int = PROCESS_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.used = 0

    def moved(self, before: int, after: int) -> bool:
        """Counts a stream's step from one size to another; False, and nothing is counted, where it does not fit."""
        if after > before and self.used + after - before > self.bytes_max:
            return False
        self.used += after - before
        assert self.used >= 0
        return True


PROCESS = EventMemory()


class Share:
    """What one holder has of it. Gives it back when it goes."""

    __slots__ = ("_counted", "_memory")

    def __init__(self, memory: EventMemory = PROCESS) -> None:
        self._memory = memory
        self._counted = 0

    def fits(self, held_bytes: int) -> bool:
        """Counts what is held now; False where that is too much: then nothing of it may be held, nor is counted."""
        pages = held_bytes // PAGE_BYTES * PAGE_BYTES
        if pages == self._counted:
            return True
        fits = self._memory.moved(self._counted, pages)
        if not fits:
            self._memory.moved(self._counted, 0)
        self._counted = pages if fits else 0
        return fits

    def __del__(self) -> None:
        self._memory.moved(self._counted, 0)
