"""The end of a call: one record, one transaction, whatever happened. The rule: once begun, settling is not
cancelled, and it is tried again until the ledger has it. While the ledger is away the journal keeps it."""

import asyncio
import logging
from collections.abc import Callable, Generator, Mapping
from typing import Any

from gatekeeper.clock import Clock
from gatekeeper.errors import Fault
from gatekeeper.ports import Journal, Ledger, Settled, Settlement
from gatekeeper.rules.plans import Plan

log = logging.getLogger("gatekeeper.settle")

_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 5.0
# No commit of a healthy ledger takes so long; a client waits for its end all the while.
_JOURNAL_AFTER_S = 2.0


class Settling:
    """A settlement under way. ``kept`` is done as soon as the record is durable, in the ledger or in the journal;
    ``task`` when the ledger has it. Awaiting it awaits the ledger."""

    __slots__ = ("kept", "task")

    def __init__(self, task: "asyncio.Task[Settled]", kept: "asyncio.Future[None]") -> None:
        self.task = task
        self.kept = kept

    def __await__(self) -> Generator[Any, None, Settled]:
        return self.task.__await__()


class Settler:
    """Owns every settlement under way; ``drain`` waits for them."""

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        journal: Journal | None = None,
        *,
        journal_after_s: float = _JOURNAL_AFTER_S,
    ) -> None:
        self._journal_after_s = journal_after_s
        self._ledger = ledger
        self._clock = clock
        self._journal = journal
        self._running: set[asyncio.Task[Settled]] = set()

    def begin(self, settlement: Settlement, *, journaled: bool = False) -> Settling:
        """Start to settle. The task belongs to the Settler: wait for it with ``finished``. ``journaled`` says that the
        journal has it already."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Kept(settlement, kept, journaled=journaled)
        task = asyncio.create_task(self._until_stored(waiting), name=f"settle {settlement.record.call_id}")
        self._running.add(task)
        task.add_done_callback(self._ended)
        return Settling(task, kept)

    async def replay(self, plans: Callable[[], Mapping[str, Plan]]) -> int:
        """Begin to settle what dead processes left in their journals; returns how many. Raises Fault."""
        if self._journal is None:
            return 0
        orphans = await self._journal.orphans()
        for one in orphans:
            plan = plans().get(one.record.plan_id)
            self.begin(Settlement(one.record, one.actual, plan, one.now_ms), journaled=True)
        return len(orphans)

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

    async def _until_stored(self, settling: "_Kept") -> Settled:
        pause_s, call_id = _FIRST_PAUSE_S, settling.settlement.record.call_id
        # A ledger that does not answer is as far away as one that says so.
        timer = asyncio.get_running_loop().call_later(self._journal_after_s, self._keep_soon, settling)
        try:
            while True:
                try:
                    settled = await self._ledger.settle(settling.settlement)
                    break
                except Fault as fault:
                    log.error("call %s cannot be settled yet: %s", call_id, fault)
                await self._keep(settling)
                await self._clock.sleep(pause_s)
                pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)
        finally:
            timer.cancel()
        settling.is_durable()
        if settling.keeping is not None:
            await asyncio.wait({settling.keeping})
        if settling.journaled and self._journal is not None:
            await self._journal.done(call_id)
        return settled

    def _keep_soon(self, settling: "_Kept") -> None:
        if settling.keeping is None:
            settling.keeping = asyncio.create_task(self._keep(settling), name="journal")

    async def _keep(self, settling: "_Kept") -> None:
        """Put the settlement into the journal, once."""
        if self._journal is None or settling.journaled:
            return
        settling.journaled = True
        try:
            await self._journal.append(settling.settlement)
        except Fault as fault:
            settling.journaled = False
            log.error("call %s cannot be journaled either: %s", settling.settlement.record.call_id, fault)
        else:
            settling.is_durable()


class _Kept:
    """One settlement on its way to be durable."""

    __slots__ = ("journaled", "keeping", "kept", "settlement")

    def __init__(self, settlement: Settlement, kept: "asyncio.Future[None]", *, journaled: bool) -> None:
        self.settlement = settlement
        self.kept = kept
        self.journaled = journaled
        self.keeping: asyncio.Task[None] | None = None

    def is_durable(self) -> None:
        if not self.kept.done():
            self.kept.set_result(None)


async def finished(settling: Settling, wait_s: float) -> bool:
    """Whether the record became durable within ``wait_s`` (it goes on otherwise). Cancelling the waiter never cancels
    the settlement. Raises what broke the settlement for good."""
    either: set[asyncio.Future[Any]] = {settling.task, settling.kept}
    await asyncio.wait(either, timeout=wait_s, return_when=asyncio.FIRST_COMPLETED)
    if settling.kept.done():
        return True
    if settling.task.done():
        settling.task.result()
    return False
