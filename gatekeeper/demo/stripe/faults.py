"""How the next calls go wrong. The rule: all faults stand here; each says whether the call took effect.

A fault is armed for a method and path (``fnmatch`` patterns) and a number of calls, and fires before anything else is
looked at, so it hits good calls and bad ones alike.
"""

import asyncio
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase


class Kind(StrEnum):
    """One way to fail."""

    # An error status in Stripe's shape.
    STATUS = "status"
    # Nothing is ever answered; the caller's own clock ends it.
    TIMEOUT = "timeout"
    # The connection breaks before the answer.
    RESET = "reset"
    # Answered in the ordinary way, but only when the gate opens.
    SLOW = "slow"


@dataclass(frozen=True, slots=True)
class Fault:
    """One failure. ``applied``: the call took effect, only its answer is lost or wrong. ``sticks``: an error status is
    kept under the idempotency key, as Stripe keeps a 500 (https://docs.stripe.com/api/idempotent_requests)."""

    kind: Kind
    status: int = 500
    applied: bool = False
    sticks: bool = False
    retry_after_s: int | None = None
    gate: asyncio.Event | None = None

    @staticmethod
    def error(status: int = 500, *, applied: bool = False, sticks: bool = False) -> "Fault":
        """A 500 (or 503): not applied and forgotten, unless told otherwise."""
        return Fault(Kind.STATUS, status, applied, sticks)

    @staticmethod
    def too_many(retry_after_s: int | None = 1) -> "Fault":
        """429 with ``Retry-After``: https://docs.stripe.com/rate-limits."""
        return Fault(Kind.STATUS, 429, retry_after_s=retry_after_s)

    @staticmethod
    def timeout(*, applied: bool = False) -> "Fault":
        """No answer, whether or not the call took effect."""
        return Fault(Kind.TIMEOUT, applied=applied)

    @staticmethod
    def reset_before() -> "Fault":
        """The connection breaks, and nothing happened."""
        return Fault(Kind.RESET)

    @staticmethod
    def reset_after() -> "Fault":
        """The call took effect, then the connection breaks: the one that makes double counting."""
        return Fault(Kind.RESET, applied=True)

    @staticmethod
    def slow(gate: asyncio.Event) -> "Fault":
        """Held until ``gate`` is set; the call is in flight (and holds its locks) meanwhile."""
        return Fault(Kind.SLOW, gate=gate)


@dataclass(slots=True)
class _Armed:
    method: str
    path: str
    fault: Fault
    left: int


@dataclass(slots=True)
class Faults:
    """What is armed, in the order of arming."""

    _armed: list[_Armed] = field(default_factory=list)

    def arm(self, path: str, *faults: Fault, method: str = "*", times: int = 1) -> None:
        """The next calls to ``path`` get these faults in order, each ``times`` times."""
        self._armed += [_Armed(method, path, fault, times) for fault in faults]

    def disarm(self) -> None:
        """Forget what has not fired."""
        self._armed.clear()

    @property
    def left(self) -> int:
        """Calls that are still going to fail."""
        return sum(armed.left for armed in self._armed)

    def next(self, method: str, path: str) -> Fault | None:
        """The fault of this call, used up."""
        for armed in self._armed:
            if armed.left and fnmatchcase(path, armed.path) and fnmatchcase(method, armed.method):
                armed.left -= 1
                if not armed.left:
                    self._armed.remove(armed)
                return armed.fault
        return None
