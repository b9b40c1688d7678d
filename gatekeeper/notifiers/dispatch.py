"""The dispatcher: hands events out to targets, sends what is due, and writes down how it went. One for a process, any
number on one database.

The rule: at least once. What was sent and not written down is sent again, under the same id; what fails is tried again
until it is given up, and even then kept for whoever retries by hand. Order is not promised.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Protocol

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway, Notification
from gatekeeper.errors import Fault
from gatekeeper.notifiers.sending import Notifier, Undelivered
from gatekeeper.ports import Customer, Customers, Deliveries, Events
from gatekeeper.rules.notices import Claim, retry_delay_ms, target_pause_s, wanted

# How late an event may be where nothing else wakes the dispatcher; an idle look is one short read.
POLL_S = 1.0
# At once for one target: a receiver is no bigger than that, and a batch is over before its lease is.
BATCH_MAX = 8
ATTEMPT_S = 20.0
# Three times an attempt, so that clocks of hosts may differ by half a minute.
LEASE_S = 60.0
PRUNE_EVERY_S = 300.0
# Rounds of ``Deliveries.fan_out`` in one turn: under a flood of events the sending has its turn too.
FAN_OUTS_MAX = 20
# Of ``Deliveries.prune``, in one go: 10,000 rows of each sort, so that it never keeps the sending waiting for long.
PRUNES_MAX = 20

log = logging.getLogger("gatekeeper.events")


class Queue(Deliveries, Events, Customers, Protocol):
    """What the dispatcher asks of the store."""


class _Answer(Enum):
    """What one attempt tells of its target."""

    TAKEN = 1
    FAILED = 2
    SAYS_NOTHING = 3


class _Target:
    """One target as this process knows it."""

    def __init__(self, notification: Notification, source: str | None, notifier: Notifier) -> None:
        self.notification = notification
        self.source = source
        self.notifier = notifier
        self.failures = 0
        self.paused_until_s = 0.0
        self.sending: asyncio.Task[None] | None = None

    @property
    def is_busy(self) -> bool:
        return self.sending is not None and not self.sending.done()


class Dispatcher:
    """``run`` works until it is cancelled; ``turn`` is one round. ``make`` builds the notifier of a target, ``chance``
    answers with a number in [0, 1)."""

    def __init__(
        self,
        queue: Queue,
        gateway: Callable[[], Gateway],
        make: Callable[[Notification, str | None], Notifier],
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._queue = queue
        self._gateway = gateway
        self._make = make
        self._clock = clock
        self._chance = chance
        self._targets: dict[str, _Target] = {}
        self._known: Gateway | None = None
        self._prune_s: float | None = None
        self._more = asyncio.Event()

    async def run(self) -> None:
        """Work for ever; a database that is away is logged and asked again at the next turn."""
        while True:
            # A batch that ends from here on asks for another turn.
            self._more.clear()
            try:
                await self.turn()
            except Fault as fault:
                log.error("events wait: %s", fault)
            except Exception:
                # A mistake of ours here must not end the telling for good.
                log.exception("a turn of the dispatcher failed")
            await self._pause()

    async def turn(self) -> int:
        """Follow the configuration, hand out, begin to send what is due, forget what is old; returns how many targets
        are being sent to. Raises Fault."""
        await self._follow()
        now_ms, now_s = self._clock.now_ms(), self._clock.monotonic_s()
        if not self._targets:
            # What was told, and what was to be told, is forgotten also when all targets were taken away.
            await self._prune(now_ms, now_s)
            return 0
        new, due = await self._queue.due(list(self._targets), now_ms)
        if new:
            await self._fan_out(now_ms)
            due = list(self._targets)
        for name in due:
            target = self._targets[name]
            if target.is_busy or now_s < target.paused_until_s:
                continue
            # One is enough to find out whether a target that failed is up again.
            limit = BATCH_MAX if target.failures == 0 else 1
            claims = await self._queue.claim(name, now_ms, now_ms + int(LEASE_S * 1000), limit)
            if claims:
                target.sending = asyncio.create_task(self._send_all(target, claims), name=f"notify {name}")
        await self._prune(now_ms, now_s)
        return sum(target.is_busy for target in self._targets.values())

    async def drain(self, wait_s: float) -> None:
        """Send what is due, for at most ``wait_s``; then break off. What is left is sent by whoever comes next. Call it
        when ``run`` has ended."""
        until_s = self._clock.monotonic_s() + wait_s
        try:
            async with asyncio.timeout(wait_s):
                while await self.turn() and self._clock.monotonic_s() < until_s:
                    sending = [target.sending for target in self._targets.values() if target.sending is not None]
                    await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        except TimeoutError:
            log.warning("not everything could be told within %g s; it is told after the next start", wait_s)
        except Fault as fault:
            log.error("events wait: %s", fault)
        for target in list(self._targets.values()):
            await self._drop(target)

    async def settled(self) -> None:
        """Wait until nothing is being sent."""
        sending = [target.sending for target in self._targets.values() if target.sending is not None]
        if sending:
            await asyncio.wait(sending)

    # --- which targets there are ---

    async def _follow(self) -> None:
        """Build what a reload added or changed, close what it took away."""
        gateway = self._gateway()
        if gateway is self._known:
            return
        self._queue.tell(wanted(one.subscription for one in gateway.notifications))
        source = gateway.server.public_url
        declared = {one.subscription.target: one for one in gateway.notifications}
        for name, target in list(self._targets.items()):
            if declared.get(name) != target.notification or source != target.source:
                await self._drop(target)
        for name, notification in declared.items():
            if name not in self._targets:
                try:
                    notifier = self._make(notification, source)
                except OSError as cause:
                    log.error("notifications %r: %s", name, cause.strerror or type(cause).__name__)
                    continue
                self._targets[name] = _Target(notification, source, notifier)
        self._known = gateway

    async def _drop(self, target: _Target) -> None:
        del self._targets[target.notification.subscription.target]
        if target.sending is not None:
            target.sending.cancel()
            await asyncio.wait({target.sending})
        await target.notifier.close()

    async def _fan_out(self, now_ms: int) -> None:
        # Also to those that could not be built: what is theirs waits.
        subscriptions = [one.subscription for one in self._gateway().notifications]
        for _ in range(FAN_OUTS_MAX):
            if not await self._queue.fan_out(subscriptions, now_ms):
                return
        self._more.set()

    # --- sending ---

    async def _send_all(self, target: _Target, claims: Sequence[Claim]) -> None:
        """Each claim at once. The batch is over when the last one is. A target that takes none of it is left alone for
        a while; one that takes some is up."""
        answers = await asyncio.gather(*(self._send(target, claim) for claim in claims), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, Exception):
                log.error("a delivery could not be written down", exc_info=answer)
        if _Answer.TAKEN in answers:
            target.failures = 0
        elif _Answer.FAILED in answers:
            target.failures += 1
            target.paused_until_s = self._clock.monotonic_s() + target_pause_s(target.failures, self._chance())
        self._more.set()

    async def _send(self, target: _Target, claim: Claim) -> "_Answer":
        why: Undelivered | None = None
        try:
            async with asyncio.timeout(ATTEMPT_S):
                await target.notifier.send(claim.event, await self._customer(claim))
        except Undelivered as undelivered:
            why = undelivered
        except TimeoutError:
            why = Undelivered(f"no answer within {ATTEMPT_S:g} s")
        except Fault as fault:
            # Our own database, not the target: the lease runs out, and it is tried again.
            log.error("event %s waits: %s", claim.event.id, fault)
            return _Answer.SAYS_NOTHING
        except Exception as mistake:  # noqa: BLE001 - one event that cannot be told must not stop the others
            # Its text may hold what must not be shown.
            why = Undelivered(f"a mistake of ours: {type(mistake).__name__}")
        try:
            await self._note(claim, why)
        except Fault as fault:
            log.error("event %s may be told twice: %s", claim.event.id, fault)
        if why is None:
            return _Answer.TAKEN
        # What is wrong with this one event says nothing of the target.
        return _Answer.SAYS_NOTHING if why.final else _Answer.FAILED

    async def _note(self, claim: Claim, why: Undelivered | None) -> None:
        name, now_ms = claim.target, self._clock.now_ms()
        if why is None:
            await self._queue.delivered(claim, now_ms)
            return
        delay_ms = None if why.final else retry_delay_ms(claim.attempts, self._chance())
        given_up = delay_ms is None
        level = logging.ERROR if given_up else logging.WARNING
        told = "given up" if given_up else "tried again"
        log.log(level, "event %s for %s is %s after attempt %d: %s", claim.event.id, name, told, claim.attempts, why)
        await self._queue.failed(claim, str(why), None if delay_ms is None else now_ms + delay_ms, now_ms)

    async def _customer(self, claim: Claim) -> Customer | None:
        customer_id = claim.event.customer_id
        return None if customer_id is None else await self._queue.customer(customer_id)

    # --- the rest ---

    async def _prune(self, now_ms: int, now_s: float) -> None:
        if self._prune_s is not None and now_s < self._prune_s:
            return
        for _ in range(PRUNES_MAX):
            if not await self._queue.prune(now_ms, nobody=not self._gateway().notifications):
                break
        self._prune_s = now_s + PRUNE_EVERY_S

    async def _pause(self) -> None:
        waits = [asyncio.ensure_future(self._more.wait()), asyncio.ensure_future(self._clock.sleep(POLL_S))]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in waits:
                one.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
