"""The queue in front of the ledger: calls that wait at the same moment go into one transaction.

The rule: every waiter is answered exactly once, whatever happens. A hold whose caller has gone is given back at once;
any other op that was submitted is carried out, whether its caller still waits or not.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Any

from gatekeeper.errors import Fault
from gatekeeper.rules.limits import Granted
from gatekeeper.rules.notices import Wanted
from gatekeeper.stores.batch import Batch
from gatekeeper.stores.database import Database, Rejected, Steps, fault, rejected
from gatekeeper.stores.known import Known, Vanished
from gatekeeper.stores.ops import ExtendOp, Held, HoldOp, Op, ReleaseOp
from gatekeeper.tallies import Tallies

_LOG = logging.getLogger(__name__)
# A batch is what its first waiter waits for: 256 calls are some 20 ms of work.
BATCH_MAX = 256
# How often one call alone is tried when another process made the same row at the same moment.
ATTEMPTS = 3
_PASSING = frozenset({HoldOp, ExtendOp, ReleaseOp})
# Batches that wait for the disk: each has a connection, and a disk that stands still must leave some for others.
UNSAFE_MAX = 4
# A batch of so few says that nobody else is about to come.
FEW = 3


class _Waiting:
    """One op, and who waits for it until ``due_s``."""

    __slots__ = ("answer", "due_s", "op")

    def __init__(self, op: Op, answer: "asyncio.Future[Any]", due_s: float) -> None:
        self.op = op
        self.answer = answer
        self.due_s = due_s


class Lane:
    """One batch at a time in this process; what comes meanwhile makes the next. Other processes have their own: only
    the database decides between them.

    Callbacks instead of tasks: every call waits here twice, and each task on the way would be one more turn of the loop
    behind everything else that a busy process has to do.
    """

    def __init__(self, database: Database, now_ms: Callable[[], int], *, patience_s: float = 10.0) -> None:
        self._database = database
        self._now_ms = now_ms
        self._patience_s = patience_s
        # What a settle writes beside its record; see ``ports.Events``.
        self.wanted: Wanted | None = None
        self.tallies = Tallies()
        self._known = Known()
        self._queue: deque[_Waiting] = deque()
        # Of batches that failed because of one op: each is tried by itself.
        self._apart: deque[_Waiting] = deque()
        self._running: list[_Waiting] = []
        # Committed, and not answered before they cannot be lost.
        self._unsafe: dict[asyncio.Future[None], list[_Waiting]] = {}
        self._starting = False
        # How many ops the last batch had: see ``_enqueue``.
        self._last = 0
        self._sweep: asyncio.TimerHandle | None = None
        self._idle: asyncio.Future[None] | None = None
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
        while self._starting or self._running or self._unsafe:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._idle)
        if self._sweep is not None:
            self._sweep.cancel()

    def _enqueue(self, op: Op) -> _Waiting:
        if self._closing and not isinstance(op, ReleaseOp):
            raise fault("the store is closed")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(op, loop.create_future(), loop.time() + self._patience_s)
        self._queue.append(waiting)
        if self._sweep is None:
            self._sweep = loop.call_later(self._patience_s, self._give_up)
        if self._running or self._starting:
            return waiting
        if self._last <= FEW:
            self._start()
        else:
            # Where many came together, those that are about to come in this turn of the loop go into one batch.
            self._soon()
        return waiting

    def _soon(self) -> None:
        if not self._starting:
            self._starting = True
            asyncio.get_running_loop().call_soon(self._start)

    def _give_up(self) -> None:
        """Tell whoever has waited too long. One timer for all: one for each op would cost more than its answer."""
        loop = asyncio.get_running_loop()
        now_s, next_s = loop.time(), None
        for waiting in chain(*self._unsafe.values(), self._running, self._apart, self._queue):
            if waiting.answer.done():
                continue
            if waiting.due_s <= now_s:
                told = "" if isinstance(waiting.op, HoldOp) else "; it is carried out if it can be"
                waiting.answer.set_exception(fault(f"no answer within {self._patience_s:g} s{told}"))
            elif next_s is None or waiting.due_s < next_s:
                next_s = waiting.due_s
        if next_s is None and not self._running:
            self._sweep = None
        else:
            self._sweep = loop.call_at(now_s + self._patience_s if next_s is None else next_s, self._give_up)

    def _start(self) -> None:
        """Begin the next batch, if there is one and none is under way."""
        self._starting = False
        while not self._running and (self._apart or self._queue) and len(self._unsafe) < UNSAFE_MAX:
            self._running = [self._apart.popleft()] if self._apart else self._next_batch()
            if self._running:
                self._begin(self._running, 1)
        if self._idle is not None and not (self._running or self._unsafe) and not self._idle.done():
            self._idle.set_result(None)

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

    def _begin(self, batch: list[_Waiting], attempt: int) -> None:
        ops = [waiting.op for waiting in batch]
        made: list[Batch] = []

        def work() -> Steps[Any]:
            made.append(Batch(ops, self._known, self._now_ms, self.wanted, doubtful=attempt > 1))
            return made[-1].work()

        began_s = asyncio.get_running_loop().time()

        def done(answers: list[Any] | None, failure: BaseException | None, safe: "asyncio.Future[None] | None") -> None:
            if answers is None:
                self._failed(batch, failure or AssertionError("no answers"), attempt)
                return
            self.tallies.batch_sizes.add(len(ops))
            self.tallies.batch_seconds.add(asyncio.get_running_loop().time() - began_s)
            made[-1].remembered()
            if safe is None:
                made[-1].is_safe()
            self._committed(batch, answers, made[-1], safe)

        # What only holds (more) may be lost with the host's power: its calls are lost with it.
        lasting = any(type(op) not in _PASSING for op in ops)
        try:
            self._database.begin(work, done, lasting=lasting)
        except Exception as failure:  # noqa: BLE001 - it is handed to every waiter, none is lost
            # Not at once: whoever asked does not wait yet.
            asyncio.get_running_loop().call_soon(self._failed, batch, failure, ATTEMPTS)

    def _failed(self, batch: list[_Waiting], failure: BaseException, attempt: int) -> None:
        """Try again what may be right the next time; when it failed because of one op, try each alone."""
        if isinstance(failure, Vanished):
            self._known.doubt()
        mistaken = isinstance(failure, Rejected) or not isinstance(failure, Fault)
        if len(batch) == 1 and isinstance(failure, (Vanished, Rejected)) and attempt < ATTEMPTS:
            self._begin(batch, attempt + 1)
            return
        self._running = []
        if not isinstance(failure, Exception):
            self._stop(batch)
        elif len(batch) > 1 and mistaken:
            self._apart.extend(batch)
        else:
            for waiting in batch:
                self._answer(waiting, failure)
        self._start()

    def _stop(self, batch: list[_Waiting]) -> None:
        """The loop is being torn down: nothing begins any more, and nobody is left waiting for ever."""
        self._closing = True
        left = [*batch, *self._apart, *self._queue]
        self._apart.clear()
        self._queue.clear()
        for waiting in left:
            if not waiting.answer.done():
                waiting.answer.set_exception(fault("the store was stopped"))

    def _committed(
        self, batch: list[_Waiting], answers: list[Any], made: Batch, safe: "asyncio.Future[None] | None"
    ) -> None:
        self._last = len(batch)
        self._running = []
        if safe is not None:
            lasting = [pair for pair in zip(batch, answers, strict=True) if type(pair[0].op) not in _PASSING]
            # Batches that were committed soon after each other may wait for the same.
            self._unsafe.setdefault(safe, []).extend([waiting for waiting, _ in lasting])
            safe.add_done_callback(partial(self._flushed, lasting, made))
        pairs = [pair for pair in zip(batch, answers, strict=True) if safe is None or type(pair[0].op) in _PASSING]
        # What nobody waits for any more is given back with the next batch.
        for waiting, answer in pairs:
            if waiting.answer.done():
                self._answer(waiting, answer)
        if self._apart or 2 * len(self._queue) >= len(batch):
            # While the others are answered, that one is carried out.
            self._start()
        for waiting, answer in pairs:
            if not waiting.answer.done():
                self._answer(waiting, answer)
        if not self._running and (self._queue or self._idle is not None):
            # The few that wait go together with those who are about to come back: many came together.
            self._soon()

    def _flushed(self, pairs: Sequence[tuple[_Waiting, Any]], made: Batch, safe: "asyncio.Future[None]") -> None:
        """Answer what was committed as soon as it cannot be lost; the next batch does not wait for it."""
        self._unsafe.pop(safe, None)
        failure = fault("the store was stopped") if safe.cancelled() else safe.exception()
        if failure is None:
            made.is_safe()
        for waiting, answer in pairs:
            self._answer(waiting, answer if failure is None else failure)
        self._start()

    def _answer(self, waiting: _Waiting, answer: Any) -> None:
        if waiting.answer.done():
            # Only holds can be given up: see ``hold``.
            if isinstance(waiting.op, HoldOp):
                self._undo(waiting.op, answer)
        elif isinstance(answer, BaseException):
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


def _as_fault(failure: BaseException) -> BaseException:
    """Figures that cannot be stored are told as Rejected; an assertion is ours and stays what it is."""
    if isinstance(failure, (Fault, AssertionError)):
        return failure
    told = rejected(str(failure) or type(failure).__name__)
    told.__cause__ = failure
    return told
