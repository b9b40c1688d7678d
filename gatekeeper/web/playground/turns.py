"""Who may compute when: what people try runs in a thread, one at a time, and not for long.

The rule: trying an expression never keeps a call of a customer waiting for more than a slice of the interpreter.
"""

import asyncio
from collections.abc import Callable
from typing import TypeVar

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Refusal

# The recorded streams of providers take some milliseconds; a person who types does not wait longer than this.
WORK_S = 2.0
# So many may wait for their turn; a page aborts what it no longer wants, but a thread cannot be ended from outside.
WAITING_MAX = 8
T = TypeVar("T")


class Turns:
    """One for the process."""

    def __init__(self, clock: Clock, *, work_s: float = WORK_S, waiting_max: int = WAITING_MAX) -> None:
        self.work_s = work_s
        self.clock = clock
        self._waiting_max = waiting_max
        self._waiting = 0
        self._turn = asyncio.Lock()

    async def take(self, work: Callable[[Callable[[], bool]], T]) -> T:
        """``work(go_on)`` in a thread; it must end soon after ``go_on`` says no: ``work_s`` after it began, or when
        nobody waits for it any more. Raises Refusal if too many are waiting, and what ``work`` raises."""
        if self._waiting >= self._waiting_max:
            raise Refusal(Code.RATE_LIMITED, "Too many expressions are being tried at the moment.", retry_after_s=1)
        self._waiting += 1
        try:
            async with self._turn:
                return await self._run(work)
        finally:
            self._waiting -= 1

    async def _run(self, work: Callable[[Callable[[], bool]], T]) -> T:
        until_s = self.clock.monotonic_s() + self.work_s
        wanted = True

        def go_on() -> bool:
            return wanted and self.clock.monotonic_s() < until_s

        running = asyncio.ensure_future(asyncio.to_thread(work, go_on))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            # The next one begins only when this thread has really ended.
            wanted = False
            await asyncio.wait([running])
            raise
