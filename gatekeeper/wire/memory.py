"""How much memory the unfinished events of all streams of one process may take together.

The rule: one counter a process. A stream that would pass the bound loses the event that it is in, so its measurement
becomes an error; its relaying, and every other stream, goes on.
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
