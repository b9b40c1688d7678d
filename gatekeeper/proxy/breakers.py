"""The circuit breakers of this process, one for each upstream. The rule: a change is logged and told, once."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.rules.breaker import Breaker, BreakerConfig, Phase, is_failure

log = logging.getLogger("gatekeeper.breaker")


@dataclass(frozen=True, slots=True)
class Standing:
    """How an upstream's breaker stands. ``wait_s`` is how long calls are kept from it."""

    upstream: str
    phase: Phase
    wait_s: float


OnChange = Callable[[Standing], None]


def _nobody(standing: Standing) -> None:
    """Changes are only logged."""


class Breakers:
    """One for the process. A reload that changes a breaker's figures begins it anew."""

    def __init__(self, clock: Clock, on_change: OnChange = _nobody) -> None:
        self._clock = clock
        self.on_change = on_change
        self._breakers: dict[tuple[str, str], Breaker] = {}

    def enter(self, upstream: UpstreamConfig) -> "Pass | None":
        """Leave to call an upstream, None while it is left alone."""
        if upstream.breaker is None:
            return _FREE
        breaker = self._breaker(upstream, upstream.breaker)
        before = breaker.phase
        ticket = breaker.enter(self._clock.monotonic_s())
        if breaker.phase is not before:
            self._told(upstream.name, breaker)
        return None if ticket is None else Pass(self, upstream.name, breaker, ticket)

    def wait_s(self, upstream: UpstreamConfig) -> float:
        """How long to wait until an upstream may be tried again."""
        if upstream.breaker is None:
            return 0.0
        return self._breaker(upstream, upstream.breaker).wait_s(self._clock.monotonic_s())

    def standings(self) -> list[Standing]:
        """All breakers that were needed so far, in the order of their names."""
        return sorted((self._standing(name, each) for (name, _), each in self._breakers.items()), key=_name_of)

    def ended(self, name: str, breaker: Breaker, ticket: int, *, failed: bool) -> None:
        """How a call went."""
        before, now_s = breaker.phase, self._clock.monotonic_s()
        if failed:
            breaker.failed(ticket, now_s)
        else:
            breaker.succeeded(ticket, now_s)
        if breaker.phase is not before:
            self._told(name, breaker)

    def _breaker(self, upstream: UpstreamConfig, config: BreakerConfig) -> Breaker:
        place = (upstream.name, upstream.host)
        breaker = self._breakers.get(place)
        if breaker is None or (breaker.config is not config and breaker.config != config):
            # Of an upstream that has moved, only where it is now counts.
            self._breakers = {key: each for key, each in self._breakers.items() if key[0] != upstream.name}
            breaker = self._breakers[place] = Breaker(config)
        return breaker

    def _standing(self, name: str, breaker: Breaker) -> Standing:
        return Standing(name, breaker.phase, breaker.wait_s(self._clock.monotonic_s()))

    def _told(self, name: str, breaker: Breaker) -> None:
        standing = self._standing(name, breaker)
        if standing.phase is Phase.OPEN:
            log.error("upstream %s fails and is left alone for %g s", name, standing.wait_s)
        elif standing.phase is Phase.HALF_OPEN:
            log.warning("upstream %s is tried again with one call", name)
        else:
            log.warning("upstream %s answers again", name)
        self.on_change(standing)


class Pass:
    """Leave for one call, which tells how it went."""

    __slots__ = ("_breaker", "_breakers", "_name", "_ticket")

    def __init__(self, breakers: Breakers | None, name: str, breaker: Breaker | None, ticket: int) -> None:
        self._breakers = breakers
        self._name = name
        self._breaker = breaker
        self._ticket = ticket

    def answered(self, status: int) -> None:
        """The upstream sent a head."""
        if self._breakers is not None and self._breaker is not None:
            self._breakers.ended(self._name, self._breaker, self._ticket, failed=is_failure(status))

    def broke(self, fault: Fault) -> None:
        """It failed, before the head or after."""
        if self._breakers is None or self._breaker is None:
            return
        if is_its_own(fault):
            self._breakers.ended(self._name, self._breaker, self._ticket, failed=True)
        else:
            self._breaker.left(self._ticket)

    def left(self) -> None:
        """Nobody waits for the answer any more."""
        if self._breaker is not None:
            self._breaker.left(self._ticket)


def is_its_own(fault: Fault) -> bool:
    """Whether a fault is the upstream's: not our own bound of connections, nor a request that cannot be written."""
    ours = fault.kind is FaultKind.POOL_FULL or (fault.kind is FaultKind.PROTOCOL and fault.retryable)
    return fault.world == "upstream" and not ours


def _name_of(standing: Standing) -> str:
    return standing.upstream


_FREE = Pass(None, "", None, 0)
