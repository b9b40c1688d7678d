"""The background task that sums up what is over. One works for all processes on a database; the others stand by.

The rule: it never hurries. Nothing waits for it: what is not summed up is read from the records.
"""

import logging

from gatekeeper.clock import Clock
from gatekeeper.errors import Fault
from gatekeeper.ports import Rollups

# Longer than the clocks of two hosts differ, see ``rolling``; an hour more of records costs a report a few ms.
GRACE_MS = 5 * 60_000
ELECTED_MS = 60_000
IDLE_S = 15.0
# Between steps of a back-fill: most of the time is left to others.
BUSY_S = 0.25
STEPS = 8

log = logging.getLogger("gatekeeper.reports")


class Roller:
    """``run`` works until it is cancelled; ``turn`` is one round."""

    def __init__(self, rollups: Rollups, clock: Clock, *, owner: str) -> None:
        self._rollups = rollups
        self._clock = clock
        self._owner = owner
        # An instant that was, and the transaction that was the next one then; when all before it were over last.
        self._fence: tuple[int, int] | None = None
        self._over_ms: int | None = None

    async def run(self) -> None:
        """Work for ever; a database that is away is logged and asked again at the next turn."""
        while True:
            busy = False
            try:
                busy = await self.turn()
            except Fault as fault:
                log.error("nothing is summed up: %s", fault)
            except Exception:
                # Reports are right without it; the next turn may be luckier.
                log.exception("a turn of the roller failed")
            await self._clock.sleep(BUSY_S if busy else IDLE_S)

    async def turn(self) -> bool:
        """Stay or be elected, and sum up a little; whether there may be more. Raises Fault."""
        now_ms = self._clock.now_ms()
        if not await self._rollups.elect_roller(self._owner, now_ms, now_ms + ELECTED_MS):
            return False
        oldest, coming = await self._rollups.roll_fence()
        if self._fence is None or oldest >= self._fence[1]:
            if self._fence is not None:
                self._over_ms = self._fence[0]
            self._fence = now_ms, coming
        if self._over_ms is None:
            return True
        return await self._rollups.roll(self._over_ms - GRACE_MS, steps=STEPS) >= STEPS
