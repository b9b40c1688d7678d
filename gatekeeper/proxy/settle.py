"""The end of a call: one record, one transaction, whatever happened. The rule: once begun, settling is not
cancelled, and it is tried again until the ledger has it or the process ends (then the hold tells what was)."""

import asyncio
import logging

from gatekeeper.clock import Clock
from gatekeeper.errors import Fault
from gatekeeper.ports import Ledger, Settled, Settlement

log = logging.getLogger("gatekeeper.settle")

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0


class Settler:
    """Owns every settlement under way; ``drain`` waits for them."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._running: set[asyncio.Task[Settled]] = set()

    def begin(self, settlement: Settlement) -> asyncio.Task[Settled]:
        """Start to settle. The task belongs to the Settler: wait for it with ``finished``."""
        task = asyncio.create_task(self._until_stored(settlement), name=f"settle {settlement.record.call_id}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    async def drain(self, wait_s: float) -> int:
        """Wait for all that is under way, at most ``wait_s``; returns how many are left."""
        if self._running:
            await asyncio.wait(set(self._running), timeout=wait_s)
        left = set(self._running)
        for task in left:
            task.cancel()
        if left:
            await asyncio.gather(*left, return_exceptions=True)
        return len(left)

    def _ended(self, task: asyncio.Task[Settled]) -> None:
        self._running.discard(task)
        # Nobody may be waiting: a client that hung up, or durability "relaxed".
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("%s failed for good", task.get_name(), exc_info=error)

    async def _until_stored(self, settlement: Settlement) -> Settled:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return await self._ledger.settle(settlement)
            except Fault as fault:
                log.error("call %s cannot be settled yet: %s", settlement.record.call_id, fault)
            await self._clock.sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


async def finished(task: asyncio.Task[Settled], wait_s: float) -> Settled | None:
    """The outcome of a settlement, None when it takes longer than ``wait_s`` (it goes on). Cancelling the waiter
    never cancels the settlement."""
    done, _ = await asyncio.wait({task}, timeout=wait_s)
    return task.result() if done else None
