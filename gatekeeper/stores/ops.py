"""What one call may ask of a batch, as plain values. The rule: a batch holds at most one op of each call."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from gatekeeper.ports import Extension, HoldOrder, Settlement
from gatekeeper.rules.limits import Denied, Granted
from gatekeeper.rules.plans import Plan


class HoldOp:
    """Hold; answered with ``Held``."""

    __slots__ = ("call_id", "order")

    def __init__(self, order: HoldOrder) -> None:
        self.order = order
        self.call_id = order.call_id


class ExtendOp:
    """Hold more; answered with Granted, Denied, or None where the hold is not open."""

    __slots__ = ("call_id", "extension")

    def __init__(self, extension: Extension) -> None:
        self.extension = extension
        self.call_id = extension.call_id


class SettleOp:
    """Settle; answered with ``Settled``."""

    __slots__ = ("call_id", "settlement")

    def __init__(self, settlement: Settlement) -> None:
        self.settlement = settlement
        self.call_id = settlement.record.call_id


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


Op: TypeAlias = HoldOp | ExtendOp | SettleOp | RecoverOp | ReleaseOp


class Held(NamedTuple):
    """``created`` is False when the call held before: then a caller that goes away leaves it alone."""

    verdict: Granted | Denied
    created: bool
