"""Time, as a thing that is handed in. The rule: no room reads a clock that it was not given.

``now_ms`` is wall time (epoch milliseconds, UTC) for what is stored; ``monotonic_s`` is for durations.
"""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """What a room may ask of time."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch."""
        ...

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary origin; never goes backwards."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellation passes through."""
        ...


class SystemClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Wall clock, milliseconds since the Unix epoch."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds from an arbitrary origin; never goes backwards."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait; cancellation passes through."""
        await asyncio.sleep(seconds)
