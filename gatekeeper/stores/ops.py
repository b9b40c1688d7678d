"""What one call may ask of a batch, as plain values. The rule: a batch holds at most one op of each call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from gatekeeper.ports import HoldOrder, Settlement
from gatekeeper.rules.limits import Denied, Granted
from gatekeeper.rules.plans import Plan


@dataclass(frozen=True, slots=True)
class HoldOp:
    """Hold; answered with ``Held``."""

    order: HoldOrder

    @property
    def call_id(self) -> str:
        """Whose."""
        return self.order.call_id


@dataclass(frozen=True, slots=True)
class SettleOp:
    """Settle; answered with ``Settled``."""

    settlement: Settlement

    @property
    def call_id(self) -> str:
        """Whose."""
        return self.settlement.record.call_id


@dataclass(frozen=True, slots=True)
class RecoverOp:
    """Settle at the last progress if the hold is still open and past its time; answered with whether it was."""

    call_id: str
    now_ms: int
    plans: Mapping[str, Plan]


@dataclass(frozen=True, slots=True)
class ReleaseOp:
    """Undo a hold that nobody waits for any more; answered with whether it was open."""

    call_id: str


Op: TypeAlias = HoldOp | SettleOp | RecoverOp | ReleaseOp


@dataclass(frozen=True, slots=True)
class Held:
    """``created`` is False when the call held before: then a caller that goes away leaves it alone."""

    verdict: Granted | Denied
    created: bool
