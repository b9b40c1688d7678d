"""What no call tells by itself: an upstream that is left alone or answers again, and spend that is far above the usual.

The rule: nothing is looked at that nobody wants to hear, and a change that could not be written is written later.
"""

import hashlib
import json
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Fault
from gatekeeper.money import dollars_text, plain
from gatekeeper.ports import Events, Spending
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.notices import Kind
from gatekeeper.rules.spent import Amount
from gatekeeper.rules.spikes import BASELINE_HOURS, MINIMUM_NANO, Spike, spikes
from gatekeeper.rules.windows import HOUR_MS

POLL_S = 1.0
# A little less than the hour after which each process looks: the one that looked last is not too early by a hair.
LOOKED_MS = HOUR_MS - 60_000
# Whose pace is looked at: each is a report over a week of records.
SPIKING = (Scope.GLOBAL, Scope.CUSTOMER, Scope.KEY)
SPIKES_MAX = 20

log = logging.getLogger("gatekeeper.events")


class Known(Events, Spending, Protocol):
    """What is asked of the store."""


class Watch:
    """One for a process. ``run`` works until it is cancelled; ``turn`` is one round."""

    def __init__(self, store: Known, gateway: Callable[[], Gateway], clock: Clock) -> None:
        self._store = store
        self._gateway = gateway
        self._clock = clock
        # Upstreams that are left alone, and what of them is still to be told: the last word of each.
        self._alone: set[str] = set()
        self._untold: OrderedDict[str, tuple[str, int]] = OrderedDict()
        self._look_s = float("-inf")

    def breaker(self, upstream: str, *, is_open: bool, is_closed: bool) -> None:
        """A breaker has changed. A probe, and one that failed, are no news."""
        if (is_open and upstream not in self._alone) or (is_closed and upstream in self._alone):
            (self._alone.add if is_open else self._alone.discard)(upstream)
            self._untold[upstream] = ("open" if is_open else "closed", self._clock.now_ms())

    async def run(self) -> None:
        """Work for ever; a database that is away is logged and asked again at the next turn."""
        while True:
            try:
                await self.turn()
            except Fault as fault:
                log.error("what happened is told later: %s", fault)
            except Exception:
                log.exception("a turn of the watch failed")
            await self._clock.sleep(POLL_S)

    async def turn(self) -> None:
        """Tell of breakers, and once an hour, in one process, look for spikes. Raises Fault."""
        for upstream, told in list(self._untold.items()):
            state, at_ms = told
            # Each process has its own breakers, and they see the same trouble.
            name = _name("breaker", upstream, state, at_ms // 60_000)
            content = {"upstream": upstream, "state": state, "changed_ms": at_ms}
            await self._store.emit(Kind.BREAKER_CHANGED, name, None, content)
            if self._untold.get(upstream) == told:
                del self._untold[upstream]
        now_s = self._clock.monotonic_s()
        if now_s >= self._look_s and self._is_wanted(Kind.SPEND_SPIKE):
            self._look_s = now_s + HOUR_MS / 1000
            now_ms = self._clock.now_ms()
            if await self._store.first("spikes", now_ms, now_ms + LOOKED_MS):
                await self._look(now_ms)

    def _is_wanted(self, kind: Kind) -> bool:
        return any(kind in one.subscription.kinds for one in self._gateway().notifications)

    async def _look(self, now_ms: int) -> None:
        recent_ms = now_ms - HOUR_MS
        start_ms = recent_ms - BASELINE_HOURS * HOUR_MS
        for by in SPIKING:
            paces = await self._store.paces(
                by, Amount.COST, Scope.GLOBAL, "", start_ms, recent_ms, now_ms, least=MINIMUM_NANO, limit=SPIKES_MAX
            )
            for found in spikes(paces, now_ms, minimum=MINIMUM_NANO):
                name = _name("spike", by, found.subject, now_ms // HOUR_MS)
                # What providers take is the operator's: no customer is told.
                await self._store.emit(Kind.SPEND_SPIKE, name, None, _content(by, found))


def _content(by: Scope, found: Spike) -> dict[str, Any]:
    return {
        "scope": by,
        "subject": found.subject,
        "measure": Amount.COST,
        "last_hour": dollars_text(found.recent),
        "usual_per_hour": dollars_text(found.usual),
        "hours": found.hours,
        "times": None if found.times is None else plain(found.times),
    }


def _name(prefix: str, *parts: str | int) -> str:
    """The id of an event. Hashed, because subjects are names that clients choose."""
    return f"{prefix}_" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]
