"""A circuit breaker: an upstream that fails is left alone for a while, then tried with one call at a time.

The rule: closed -> open after enough failures that are also a large enough part of the calls; open -> half-open after
a pause; half-open -> closed when a probe is answered, -> open when it fails. Instants are handed in, in seconds of a
clock that never goes back. What a call tells counts only in the phase in which it began.
"""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

# The window moves in so many steps; finer ones cost memory and decide nothing.
_SLICES = 10
# Calls that the upstream refused because of what it is or how loaded it is. Other 4xx are about the request.
_FAILING_4XX = frozenset({408, 429})


class Phase(StrEnum):
    """Where a breaker stands."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """It opens when at least ``failures`` calls, and at least ``percent`` of all calls, failed within ``window_s``; it
    stays open for ``pause_s``. A single customer's odd requests seldom reach both."""

    failures: int = 10
    percent: int = 50
    window_s: float = 30.0
    pause_s: float = 10.0


def is_failure(status: int) -> bool:
    """Whether an answer says that the upstream is in trouble."""
    return status >= 500 or status in _FAILING_4XX


class Breaker:
    """One upstream's. ``enter`` gives a ticket, which is then told about exactly once or several times (a head, then a
    fault in the body), or ``left``."""

    __slots__ = (
        "_calls",
        "_failures",
        "_first",
        "_probe",
        "_probed_s",
        "_slices",
        "_ticket",
        "_until_s",
        "config",
        "phase",
    )

    def __init__(self, config: BreakerConfig) -> None:
        self.config = config
        self.phase = Phase.CLOSED
        self._slices: deque[list[int]] = deque()
        self._calls = 0
        self._failures = 0
        self._ticket = 0
        # Tickets before this one belong to an earlier phase.
        self._first = 0
        self._until_s = 0.0
        self._probe: int | None = None
        self._probed_s = 0.0

    def enter(self, now_s: float) -> int | None:
        """A ticket for a call that may be made now; None: leave the upstream alone."""
        if self.phase is not Phase.CLOSED and not self._may_probe(now_s):
            return None
        self._ticket += 1
        if self.phase is not Phase.CLOSED:
            if self.phase is Phase.OPEN:
                self._turn(Phase.HALF_OPEN, self._ticket)
            self._probe, self._probed_s = self._ticket, now_s
        return self._ticket

    def succeeded(self, ticket: int, now_s: float) -> None:
        """The upstream answered."""
        if ticket < self._first:
            return
        if self.phase is Phase.HALF_OPEN:
            self._turn(Phase.CLOSED, self._ticket + 1)
        elif self.phase is Phase.CLOSED:
            self._count(now_s, 0)

    def failed(self, ticket: int, now_s: float) -> None:
        """The upstream did not answer, broke off, or said that it is in trouble."""
        if ticket < self._first:
            return
        if self.phase is Phase.HALF_OPEN:
            self._open(now_s)
        elif self.phase is Phase.CLOSED:
            self._count(now_s, 1)
            config = self.config
            if self._failures >= config.failures and self._failures * 100 >= config.percent * self._calls:
                self._open(now_s)

    def left(self, ticket: int) -> None:
        """Nobody knows how it would have gone: the caller hung up first."""
        if ticket == self._probe:
            self._probe = None

    def wait_s(self, now_s: float) -> float:
        """How long until a call may be tried again, as far as one can say."""
        if self.phase is Phase.OPEN:
            return max(0.0, self._until_s - now_s)
        if self.phase is Phase.HALF_OPEN and self._probe is not None:
            return max(0.0, self._probed_s + self.config.pause_s - now_s)
        return 0.0

    def _may_probe(self, now_s: float) -> bool:
        if self.phase is Phase.OPEN:
            return now_s >= self._until_s
        # A probe that is silent for a whole pause (a model that thinks) must not keep everybody out: the next may try.
        return self._probe is None or now_s >= self._probed_s + self.config.pause_s

    def _open(self, now_s: float) -> None:
        self._turn(Phase.OPEN, self._ticket + 1)
        self._until_s = now_s + self.config.pause_s

    def _turn(self, phase: Phase, first: int) -> None:
        self.phase = phase
        self._first = first
        self._probe = None
        self._slices.clear()
        self._calls = self._failures = 0

    def _count(self, now_s: float, failed: int) -> None:
        number = int(now_s * _SLICES / self.config.window_s)
        slices = self._slices
        while slices and slices[0][0] <= number - _SLICES:
            _, calls, failures = slices.popleft()
            self._calls -= calls
            self._failures -= failures
        if not slices or slices[-1][0] != number:
            slices.append([number, 0, 0])
        slices[-1][1] += 1
        slices[-1][2] += failed
        self._calls += 1
        self._failures += failed
