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
        # With their calls' ids.
        self._running: dict[asyncio.Task[Settled], str] = {}
        self._opening: set[asyncio.Task[None]] = set()

    async def open(self, settlement: Settlement) -> None:
        """Keep what a call that holds nothing is settled with should this process die before it ends. Raises Fault.
        Cancelled, it is kept all the same: whoever opened a call settles it with ``opened``."""
        if self._journal is not None:
            task = asyncio.create_task(self._journal.append(settlement), name=f"open {settlement.record.call_id}")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)
            await asyncio.shield(task)

    def begin(self, settlement: Settlement, *, journaled: bool = False, opened: bool = False) -> Settling:
        """Start to settle. The task belongs to the Settler: wait for it with ``finished``. ``journaled`` says that the
        journal has it already, ``opened`` that it has what ``open`` was given."""
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = _Kept(settlement, kept, journaled=journaled, opened=opened)
        task = asyncio.create_task(self._until_stored(waiting))
        self._running[task] = settlement.record.call_id
        task.add_done_callback(self._ended)
        return Settling(task, kept)

    async def replay(self, plans: Callable[[], Mapping[str, Plan]]) -> int:
        """Begin to settle what dead processes left in their journals; returns how many. Raises Fault."""
        if self._journal is None:
            return 0
        orphans = await self._journal.orphans()
        for one in orphans:
            plan = plans().get(one.record.plan_id)
            self.begin(one.settlement(plan), journaled=True)
        return len(orphans)

    @property
    def under_way(self) -> int:
        """How many calls are being settled."""
        return len(self._running)

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
        call_id = self._running.pop(task)
        # Nobody may be waiting: a client that hung up, or durability "relaxed".
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("settle %s failed for good", call_id, exc_info=error)

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
        if (settling.journaled or settling.opened) and self._journal is not None:
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

    __slots__ = ("journaled", "keeping", "kept", "opened", "settlement")

    def __init__(self, settlement: Settlement, kept: "asyncio.Future[None]", *, journaled: bool, opened: bool) -> None:
        self.opened = opened
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
    if not (settling.kept.done() or settling.task.done()):
        # What `asyncio.wait` does, without its sets and its callback for each: every call waits here.
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()

        def wake(_: object = None) -> None:
            if not waiter.done():
                waiter.set_result(None)

        timer = loop.call_later(wait_s, wake)
        settling.kept.add_done_callback(wake)
        settling.task.add_done_callback(wake)
        try:
            await waiter
        finally:
            timer.cancel()
            settling.kept.remove_done_callback(wake)
            settling.task.remove_done_callback(wake)
    if settling.kept.done():
        return True
    if settling.task.done():
        settling.task.result()
    return False
