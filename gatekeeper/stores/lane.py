"""The queue in front of the ledger: calls that wait at the same moment go into one transaction.

The rule: every waiter is answered exactly once, whatever happens. A hold whose caller has gone is given back at once;
any other op that was submitted is carried out, whether its caller still waits or not.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from gatekeeper.errors import Fault
from gatekeeper.rules.limits import Granted
from gatekeeper.rules.notices import Wanted
from gatekeeper.stores.batch import Batch
from gatekeeper.stores.database import Database, Rejected, fault, rejected
from gatekeeper.stores.known import Known, Vanished
from gatekeeper.stores.ops import ExtendOp, Held, HoldOp, Op, ReleaseOp
from gatekeeper.tallies import Tallies

_LOG = logging.getLogger(__name__)
# A batch is what its first waiter waits for: 256 calls are some 20 ms of work.
BATCH_MAX = 256
# How often one call alone is tried when another process made the same row at the same moment.
ATTEMPTS = 3
_PASSING = (HoldOp, ExtendOp, ReleaseOp)


class _Waiting:
    """One op, and who waits for it until ``due_s``."""

    __slots__ = ("answer", "due_s", "op")

    def __init__(self, op: Op, answer: "asyncio.Future[Any]", due_s: float) -> None:
        self.op = op
        self.answer = answer
        self.due_s = due_s


class Lane:
    """One batch at a time in this process; what comes meanwhile makes the next. Other processes have their own: only
    the database decides between them."""

    def __init__(self, database: Database, now_ms: Callable[[], int], *, patience_s: float = 10.0) -> None:
        self._database = database
        self._now_ms = now_ms
        self._patience_s = patience_s
        # What a settle writes beside its record; see ``ports.Events``.
        self.wanted: Wanted | None = None
        self.tallies = Tallies()
        self._known = Known()
        self._queue: deque[_Waiting] = deque()
        self._running: list[_Waiting] = []
        self._flushing: dict[asyncio.Task[None], list[_Waiting]] = {}
        self._pump: asyncio.Task[None] | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._closing = False

    async def hold(self, op: HoldOp) -> Held:
        """Raises Fault, also when no answer came in time. When the caller is cancelled or gives up, nothing stays
        held: the op is taken out of the queue, or undone as soon as it is committed."""
        answer = self._enqueue(op).answer
        try:
            held: Held = await answer
            return held
        except asyncio.CancelledError:
            # Gone after the answer had come and before it was taken: the future has it, and `await` raises anyway.
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self._undo(op, answer.result())
            raise

    async def carry_out(self, op: Op) -> Any:
        """Raises Fault, also when no answer came in time. Once called, the op is carried out even if the caller is
        cancelled or gives up."""
        return await self._enqueue(op).answer

    async def close(self) -> None:
        """Take nothing new, and wait for what is queued."""
        self._closing = True
        while (self._pump is not None and not self._pump.done()) or self._flushing:
            await asyncio.wait([task for task in (self._pump, *self._flushing) if task is not None])
        if self._sweep is not None:
            self._sweep.cancel()

    def _enqueue(self, op: Op) -> _Waiting:
        if self._closing and not isinstance(op, ReleaseOp):
            raise fault("the store is closed")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(op, loop.create_future(), loop.time() + self._patience_s)
        self._queue.append(waiting)
        if self._pump is None or self._pump.done():
            self._pump = loop.create_task(self._drain())
            if self._sweep is None:
                self._sweep = loop.call_later(self._patience_s, self._give_up)
        return waiting

    def _give_up(self) -> None:
        """Tell whoever has waited too long. One timer for all: one for each op would cost more than its answer."""
        loop = asyncio.get_running_loop()
        now_s, next_s = loop.time(), None
        for waiting in chain(*self._flushing.values(), self._running, self._queue):
            if waiting.answer.done():
                continue
            if waiting.due_s <= now_s:
                told = "" if isinstance(waiting.op, HoldOp) else "; it is carried out if it can be"
                waiting.answer.set_exception(fault(f"no answer within {self._patience_s:g} s{told}"))
            elif next_s is None or waiting.due_s < next_s:
                next_s = waiting.due_s
        idle = self._pump is None or self._pump.done()
        if next_s is None and idle:
            self._sweep = None
        else:
            self._sweep = loop.call_at(now_s + self._patience_s if next_s is None else next_s, self._give_up)

    async def _drain(self) -> None:
        try:
            while self._queue:
                self._running = self._next_batch()
                if self._running:
                    await self._run(self._running)
        finally:
            # Only on the way out of a loop that is being torn down: nobody is left waiting for ever.
            for waiting in [*self._running, *self._queue]:
                if not waiting.answer.done() and not any(waiting in batch for batch in self._flushing.values()):
                    waiting.answer.set_exception(fault("the store was stopped"))
            self._running = []
            self._queue.clear()

    def _next_batch(self) -> list[_Waiting]:
        """The oldest ops, in order, up to the second one of the same call: that begins the next batch."""
        batch: dict[str, _Waiting] = {}
        queue = self._queue
        while queue and len(batch) < BATCH_MAX and queue[0].op.call_id not in batch:
            waiting = queue.popleft()
            # Holds whose callers have gone; see ``carry_out`` for the others.
            if not (waiting.answer.done() and isinstance(waiting.op, HoldOp)):
                batch[waiting.op.call_id] = waiting
        return list(batch.values())

    async def _run(self, batch: list[_Waiting]) -> None:
        """Answer the batch. When its transaction fails because of one op, each is tried alone."""
        # What only holds (more) may be lost with the host's power: its calls are lost with it.
        lasting = [waiting for waiting in batch if not isinstance(waiting.op, _PASSING)]
        apart = self._database.flushes_apart
        try:
            answers = await self._commit([waiting.op for waiting in batch], durable=bool(lasting) and not apart)
        except Exception as failure:  # noqa: BLE001 - it is handed to every waiter, none is lost
            if len(batch) > 1 and (isinstance(failure, Rejected) or not isinstance(failure, Fault)):
                for waiting in batch:
                    await self._run([waiting])
                return
            answers = [failure] * len(batch)
        if not lasting or not apart:
            for waiting, answer in zip(batch, answers, strict=True):
                self._answer(waiting, answer)
            return
        later: list[Any] = []
        for waiting, answer in zip(batch, answers, strict=True):
            if isinstance(waiting.op, _PASSING):
                self._answer(waiting, answer)
            else:
                later.append(answer)
        task = asyncio.get_running_loop().create_task(self._flush(lasting, later))
        self._flushing[task] = lasting
        task.add_done_callback(self._flushing.pop)

    async def _flush(self, batch: list[_Waiting], answers: list[Any]) -> None:
        """Answer what was committed as soon as it cannot be lost; the next batch does not wait for it."""
        try:
            await self._database.flush()
        except Exception as failure:  # noqa: BLE001 - it is handed to every waiter, none is lost
            answers = [failure] * len(batch)
        except asyncio.CancelledError:
            answers = [fault("the store was stopped")] * len(batch)
            raise
        finally:
            for waiting, answer in zip(batch, answers, strict=True):
                self._answer(waiting, answer)

    async def _commit(self, ops: Sequence[Op], *, durable: bool) -> list[Any]:
        attempts = ATTEMPTS if len(ops) == 1 else 1
        for attempt in range(1, attempts + 1):
            made: list[Batch] = []

            def work(made: list[Batch] = made, doubtful: bool = attempt > 1) -> Any:
                made.append(Batch(ops, self._known, self._now_ms, self.wanted, doubtful=doubtful))
                return made[-1].work()

            try:
                began_s = asyncio.get_running_loop().time()
                answers: list[Any] = await self._database.write(work, durable=durable)
            except Vanished:
                self._known.doubt()
                if attempt == attempts:
                    raise
            except Rejected:
                if attempt == attempts:
                    raise
            else:
                self.tallies.batch_sizes.add(len(ops))
                self.tallies.batch_seconds.add(asyncio.get_running_loop().time() - began_s)
                made[-1].remembered()
                return answers
        raise AssertionError("unreachable")

    def _answer(self, waiting: _Waiting, answer: Any) -> None:
        if waiting.answer.done():
            # Only holds can be given up: see ``hold``.
            if isinstance(waiting.op, HoldOp):
                self._undo(waiting.op, answer)
        elif isinstance(answer, Exception):
            waiting.answer.set_exception(_as_fault(answer))
        else:
            waiting.answer.set_result(answer)

    def _undo(self, op: HoldOp, answer: Any) -> None:
        """Give a hold back that nobody waits for. If that fails it expires, and is recovered with nothing charged."""
        if isinstance(answer, Held) and answer.created and isinstance(answer.verdict, Granted):
            self._enqueue(ReleaseOp(op.call_id)).answer.add_done_callback(_heard)


def _heard(answer: "asyncio.Future[Any]") -> None:
    """The failure of an op whose caller may be gone is told in the log."""
    if not answer.cancelled() and (failure := answer.exception()) is not None:
        _LOG.warning("the ledger could not carry out an op: %s", failure)


def _as_fault(failure: Exception) -> Exception:
    """Figures that cannot be stored are told as Rejected; an assertion is ours and stays what it is."""
    if isinstance(failure, (Fault, AssertionError)):
        return failure
    told = rejected(str(failure) or type(failure).__name__)
    told.__cause__ = failure
    return told
