"""What a meter says in the end, and how far it may be believed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    """How a call ended, as seen from the stream."""

    COMPLETE = "complete"
    CLIENT_CLOSED = "client_closed"
    UPSTREAM_FAILED = "upstream_failed"
    UPSTREAM_ERROR = "upstream_error"
    TIMED_OUT = "timed_out"
    CUT = "cut"


class Mark(StrEnum):
    """Where the figure of a Reading comes from; of several the worst counts (in this order)."""

    MEASURED = "measured"
    DEFAULT = "default"
    ESTIMATED = "estimated"
    NONE = "none"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of one meter on one call.

    ``units`` is None for the sources ``none`` and ``error``. ``value`` is the record where the expression gives one
    (``usage()``). ``evidence`` holds the few values that the slots saw: JSON-ready, stored with the usage record.
    """

    units: Decimal | None
    source: Mark
    note: str | None = None
    value: Mapping[str, Any] | None = None
    evidence: Mapping[str, Any] = field(default_factory=dict)
