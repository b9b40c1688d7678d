"""Signs of life: open holds are prolonged with their progress, holds of the dead are closed.

The rule: a call whose hold is gone stops; its real usage is still recorded, by settle. After an outage of the ledger
nobody sweeps for one whole life of a hold: the holds of processes that live are all past their time by then.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Fault
from gatekeeper.ports import Ledger, Progress
from gatekeeper.proxy.access import Directory
from gatekeeper.proxy.call import Interrupt
from gatekeeper.proxy.settle import Settler
from gatekeeper.rules.limits import REQUESTS, CounterKey, Scope, Window

# One transaction's worth of calls that lost their process.
RECOVERED_AT_ONCE = 100
# Which does not matter: that it answers is what is asked.
_ANY = CounterKey(Scope.GLOBAL, "*", REQUESTS, Window.TOTAL, 0)

log = logging.getLogger("gatekeeper.pulse")


class Alive(Protocol):
    """A call in flight."""

    def progress(self) -> Progress:
        """What would be charged if it died now."""
        ...


class Stoppable(Protocol):
    """Whoever makes the call."""

    def fire(self, reason: str) -> None:
        """Stop it."""
        ...


class Pulse:
    """One for a process. ``run`` beats until it is cancelled; ``beat`` is one round."""

    def __init__(
        self,
        ledger: Ledger,
        directory: Directory,
        gateway: Callable[[], Gateway],
        clock: Clock,
        settler: Settler | None = None,
    ) -> None:
        self._settler = settler
        self._ledger = ledger
        self._directory = directory
        self._gateway = gateway
        self._clock = clock
        self._open: dict[str, tuple[Alive, Stoppable]] = {}
        # Set by a beat that the ledger missed; until that instant of the monotonic clock nothing is swept.
        self._missed = False
        self._sweeps_from_s = 0.0

    def add(self, call_id: str, observation: Alive, interrupt: Stoppable) -> None:
        """From now on the call's hold is kept alive."""
        self._open[call_id] = (observation, interrupt)

    def remove(self, call_id: str) -> None:
        """The call is being settled: no more signs of life."""
        self._open.pop(call_id, None)

    @property
    def open_calls(self) -> int:
        """How many calls are in flight in this process."""
        return len(self._open)

    async def run(self) -> None:
        """Beat for ever; a ledger that is away is logged and tried again at the next beat."""
        while True:
            try:
                await self.beat()
            except Fault as fault:
                self._missed = self._missed or fault.world == "ledger"
                log.error("the ledger missed a beat: %s", fault)
            except Exception:
                # A mistake of ours here must not let every hold of the process expire.
                log.exception("a beat failed")
            await self._clock.sleep(self._gateway().ledger.heartbeat_s)

    async def beat(self) -> None:
        """Prolong, recover, note the use of keys. Raises Fault."""
        gateway = self._gateway()
        progress = [observation.progress() for observation, _ in self._open.values()]
        if progress:
            expires_ms = self._clock.now_ms() + int(gateway.ledger.hold_ttl_s * 1000)
            for call_id in await self._ledger.renew(progress, expires_ms):
                lost = self._open.get(call_id)
                if lost is not None:
                    log.error("call %s has lost its hold and is stopped", call_id)
                    lost[1].fire(Interrupt.HOLD_LOST)
        if self._missed:
            await self._ledger.counters([_ANY])
            # It is back. Whoever else was cut off from it prolongs its holds now, or at its next beat.
            self._missed = False
            self._sweeps_from_s = self._clock.monotonic_s() + gateway.ledger.hold_ttl_s
        if self._clock.monotonic_s() >= self._sweeps_from_s:
            await self._sweep(gateway)
        await self._directory.write_used()
        if self._settler is not None and (replayed := await self._settler.replay(lambda: self._gateway().plans)):
            log.warning("%d calls that a process which ended had journaled are settled now", replayed)

    async def _sweep(self, gateway: Gateway) -> None:
        recovered = 0
        while found := await self._ledger.recover(self._clock.now_ms(), gateway.plans, limit=RECOVERED_AT_ONCE):
            recovered += found
            if found < RECOVERED_AT_ONCE:
                break
        if recovered:
            log.warning("%d calls of a process that ended were settled at their last progress", recovered)


async def stopped(task: "asyncio.Task[None]") -> None:
    """Cancel a background task and wait for it; its failure is logged here, because nobody else will hear it."""
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        if not task.cancelled():
            raise
    except Exception:
        log.exception("the background task %s had failed", task.get_name())
