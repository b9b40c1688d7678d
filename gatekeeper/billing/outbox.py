"""The flusher: freezes what is owed into batches, and sends each until it has arrived or a person must look. One works
for all processes on a database; the others stand by.

The rule: nothing is sent that is not frozen, and no outcome is guessed. Whoever dies with a lease leaves a delay behind
and a batch that is sent again under the same identifier.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from gatekeeper.billing.reconcile import UNCLEAR, compare
from gatekeeper.clock import Clock
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import Biller, Outbox
from gatekeeper.rules.billing import (
    Backlog,
    Batch,
    BatchState,
    Compared,
    Next,
    NotTaken,
    Throttled,
    arrives_late,
    meters_of,
    next_step,
    objection,
    retry_delay_ms,
)
from gatekeeper.rules.plans import Plan

# How soon a batch that is due is looked at; an idle look is one short read.
POLL_S = 1.0
# A flusher that dies is replaced after this time; it says three times as often that it lives.
ELECTED_S = 30.0
ELECT_EVERY_S = 10.0
# At once, each of another customer or meter: far below the 1,000 a second that Stripe takes.
IN_FLIGHT_MAX = 16
# The SDK of Stripe tries three times by itself, for 10 s each.
ATTEMPT_S = 45.0
# So that clocks of hosts may differ by a minute.
LEASE_S = 120.0
# In one transaction: some 600 statements, well under a second.
FREEZE_MAX = 100
# In one turn, so that an election is not missed under a flood.
ROUNDS_MAX = 50
# While somebody else sends for the customer that is waited for.
_WAIT_S = 0.2

log = logging.getLogger("gatekeeper.outbox")


@dataclass(frozen=True, slots=True)
class Flushing:
    """What is configured: how often, on which meter, and what each plan is."""

    flush_interval_s: float
    meter: str
    plans: Mapping[str, Plan]
    # What customers without an account at the biller owe stays owed, until they have one.
    known_only: bool = False


class Flusher:
    """``run`` works until it is cancelled; ``turn`` is one round. ``seed`` answers with a new random text each time,
    ``chance`` with a number in [0, 1)."""

    def __init__(
        self,
        outbox: Outbox,
        biller: Biller,
        flushing: Callable[[], Flushing],
        clock: Clock,
        *,
        owner: str,
        seed: Callable[[], str],
        chance: Callable[[], float],
    ) -> None:
        self._outbox = outbox
        self._biller = biller
        self._flushing = flushing
        self._clock = clock
        self._owner = owner
        self._seed = seed
        self._chance = chance
        self._elected_until_s: float | None = None
        self._elect_s = 0.0
        self._freeze_s: float | None = None
        self._sending: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work for ever; a database that is away is logged and asked again at the next turn."""
        while True:
            try:
                await self.turn()
            except Fault as fault:
                log.error("the outbox waits: %s", fault)
            except Exception:
                # A mistake of ours here must not end the billing for good.
                log.exception("a turn of the outbox failed")
            await self._clock.sleep(POLL_S)

    async def turn(self) -> int:
        """Stay or be elected, freeze what it is time for, send what is due; returns how many batches were sent or given
        up. Raises Fault."""
        if not await self._is_elected():
            return 0
        now_s = self._clock.monotonic_s()
        if self._freeze_s is None or now_s >= self._freeze_s:
            await self.freeze()
            self._freeze_s = now_s + self._flushing().flush_interval_s
        return await self._send_due()

    async def freeze(self) -> int:
        """Put all that is owed into batches; returns how many."""
        made, after, known_only = 0, "", self._flushing().known_only
        while customers := await self._outbox.owing_customers(after=after, limit=FREEZE_MAX, known_only=known_only):
            made += await self._freeze(customers)
            after = customers[-1]
        return made

    async def flush(self, customer_id: str, wait_s: float = 20.0) -> Sequence[Batch]:
        """Freeze what this customer owes, and send it now (a plan changes, a subscription ends); returns what is still
        waiting when ``wait_s`` is over, or when the biller is away: none means that all was told, or needs a person.
        What calls in flight will have used is not in it. Raises Fault when the database is away."""
        until_s = self._clock.monotonic_s() + wait_s
        await self._freeze([customer_id])
        await self._outbox.hurry_batches(customer_id, self._clock.now_ms())
        while True:
            ended = await self._round(customer_id)
            waiting = await self._waiting(customer_id)
            now_ms = self._clock.now_ms()
            # What failed just now is due later; what is due is being sent by somebody else.
            idle = not ended and all(batch.next_ms > now_ms for batch in waiting)
            if not waiting or idle or self._clock.monotonic_s() >= until_s:
                return waiting
            if not ended:
                await self._clock.sleep(_WAIT_S)

    async def drain(self, wait_s: float) -> None:
        """At shutdown, when ``run`` has ended: freeze and send for at most ``wait_s``. What is left is sent by whoever
        is elected next."""
        try:
            async with asyncio.timeout(wait_s):
                if self._sending:
                    await asyncio.wait(set(self._sending))
                if await self._is_elected(anew=True):
                    await self.freeze()
                    await self._send_due()
            await self._outbox.resign(self._owner)
        except TimeoutError:
            log.warning("not all usage could be reported within %g s; it is sent after the next start", wait_s)
        except Fault as fault:
            log.error("the outbox waits: %s", fault)
        left = set(self._sending)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def backlog(self) -> Backlog:
        """What is still to be told, for ``/readyz`` and metrics. Raises Fault."""
        return await self._outbox.backlog(known_only=self._flushing().known_only)

    # --- which process ---

    async def _is_elected(self, *, anew: bool = False) -> bool:
        now_s = self._clock.monotonic_s()
        if anew or now_s >= self._elect_s:
            now_ms = self._clock.now_ms()
            elected = await self._outbox.elect(self._owner, now_ms, now_ms + int(ELECTED_S * 1000))
            self._elect_s = now_s + ELECT_EVERY_S
            self._elected_until_s = now_s + ELECTED_S if elected else None
        return self._elected_until_s is not None and now_s < self._elected_until_s

    # --- freezing ---

    async def _freeze(self, customers: Sequence[str]) -> int:
        flushing = self._flushing()
        meters = meters_of(flushing.plans, flushing.meter)
        try:
            return await self._outbox.freeze(
                customers,
                meters,
                flushing.meter,
                self._seed(),
                self._clock.now_ms(),
                known_only=flushing.known_only,
            )
        except (Fault, ArithmeticError, ValueError) as cause:
            if len(customers) == 1:
                # It stays owed, and the doctor tells of it.
                log.error("what %s owes could not be frozen: %s", customers[0], cause)
                return 0
            log.warning("what %d customers owe is frozen one by one: %s", len(customers), cause)
        return sum([await self._freeze([customer_id]) for customer_id in customers])

    async def _waiting(self, customer_id: str) -> Sequence[Batch]:
        return await self._outbox.batches(state=BatchState.WAITING, customer_id=customer_id, limit=1_000)

    # --- sending ---

    async def _send_due(self) -> int:
        sent = 0
        for _ in range(ROUNDS_MAX):
            if not await self._outbox.is_due(self._clock.now_ms()):
                break
            ended = await self._round(None)
            if not ended:
                break
            sent += ended
        return sent

    async def _round(self, customer_id: str | None) -> int:
        """Send what is due and not being sent, one of each customer and meter; returns how many that were."""
        now_ms = self._clock.now_ms()
        lease_ms = now_ms + int(LEASE_S * 1000)
        batches = await self._outbox.claim_batches(now_ms, lease_ms, IN_FLIGHT_MAX, customer_id=customer_id)
        sending = {asyncio.create_task(self._send(batch), name=f"report {batch.id}") for batch in batches}
        for task in sending:
            self._sending.add(task)
            task.add_done_callback(self._ended)
        if sending:
            # Cancelled here, what is being sent goes on: ``drain`` waits for it.
            await asyncio.wait(sending)
        return len(batches)

    def _ended(self, task: "asyncio.Task[None]") -> None:
        self._sending.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            # Our own database: the lease runs out, and the batch is sent again under its identifier.
            log.error("a batch could not be written down: %s", failure)

    async def _send(self, batch: Batch) -> None:
        """One attempt, and what becomes of the batch."""
        try:
            async with asyncio.timeout(ATTEMPT_S):
                batch, gone = await self._attempt(batch)
        except NotTaken as refused:
            gone = refused.public
        except TimeoutError:
            await self._later(batch, f"no answer within {ATTEMPT_S:g} s")
            return
        except Fault as fault:
            if fault.world == "ledger":
                raise
            asked_s = fault.retry_after_s if isinstance(fault, Throttled) else None
            await self._later(batch, str(fault), asked_s, clear=fault.retryable)
            return
        except Exception as mistake:  # noqa: BLE001 - one batch that cannot be sent must not stop the others
            # Its text may hold what must not be shown.
            await self._later(batch, f"a mistake of ours: {type(mistake).__name__}")
            return
        now_ms = self._clock.now_ms()
        if gone is None:
            await self._outbox.batch_sent(batch, now_ms)
        else:
            log.error("batch %s of %s is given up: %s", batch.id, batch.customer_id, gone)
            # This attempt surely counted nothing; what one before it did stays unknown.
            await self._outbox.batch_unsent(batch, gone, None, now_ms, clear=True)

    async def _attempt(self, batch: Batch) -> tuple[Batch, str | None]:
        """The batch as it was sent, and None: the biller has it. Else why it is given up. Raises Fault and NotTaken."""
        now_ms = self._clock.now_ms()
        step = next_step(batch, now_ms)
        if step is Next.TOO_OLD:
            return batch, objection(batch.value, batch.ts_ms, now_ms)
        if step is Next.COMPARE:
            found = await compare(self._outbox, self._biller, batch)
            if found is Compared.UNCLEAR:
                return batch, UNCLEAR
            if found is Compared.HAS_IT:
                return batch, None
            if not await self._outbox.batch_unknown_to_biller(batch, self._clock.now_ms()):
                raise _taken()
        if step is Next.REDATE or (step is Next.COMPARE and arrives_late(batch, now_ms)):
            redated = await self._outbox.redate_batch(batch, self._clock.now_ms())
            if redated is None:
                raise _taken()
            log.warning("batch %s of %s is billed to the present period", batch.id, batch.customer_id)
            batch = redated
        await self._biller.report(batch)
        return batch, None

    async def _later(self, batch: Batch, why: str, retry_after_s: float | None = None, *, clear: bool = False) -> None:
        now_ms = self._clock.now_ms()
        next_ms = now_ms + retry_delay_ms(batch.attempts, self._chance(), retry_after_s)
        log.warning("batch %s of %s waits after attempt %d: %s", batch.id, batch.customer_id, batch.attempts, why)
        await self._outbox.batch_unsent(batch, why, next_ms, now_ms, clear=clear)


def _taken() -> Fault:
    return Fault("ledger", FaultKind.STORE, "somebody else sends it by now")
