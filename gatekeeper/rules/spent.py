"""What was spent: sums over records, what they are told apart by, and their pace. Pure figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from gatekeeper.rules.windows import HOUR_MS


class SpendBy(StrEnum):
    """What sums are told apart by."""

    DAY = "day"
    HOUR = "hour"
    CUSTOMER = "customer"
    USER = "user"
    AGENT = "agent"
    KEY = "key"
    PLAN = "plan"
    ROUTE = "route"
    UPSTREAM = "upstream"
    MODEL = "model"


class Amount(StrEnum):
    """What a pace is of."""

    COST = "cost"
    CHARGE = "charge"
    UNITS = "units"


@dataclass(frozen=True, slots=True)
class Spent:
    """Sums over records, with their corrections. ``part`` is what they were told apart by: a name (users and agents as
    ``customer/name``, None for calls that had none), a UTC day, or the start of an hour in milliseconds as text.
    ``unpriced`` counts the requests whose cost nobody knows."""

    part: str | None = None
    requests: int = 0
    units_micro: int = 0
    charge_nano: int = 0
    cost_nano: int = 0
    unpriced: int = 0

    @property
    def margin_nano(self) -> int:
        """What is charged by use less what providers take; monthly prices are not in it."""
        return self.charge_nano - self.cost_nano

    def per_hour(self, passed_ms: int) -> "Spent":
        """The mean of an hour, rounded down; an hour at least, so that a minute is not taken for a habit."""
        passed_ms = max(HOUR_MS, passed_ms)
        return Spent(
            self.part,
            self.requests * HOUR_MS // passed_ms,
            self.units_micro * HOUR_MS // passed_ms,
            self.charge_nano * HOUR_MS // passed_ms,
            self.cost_nano * HOUR_MS // passed_ms,
            self.unpriced * HOUR_MS // passed_ms,
        )


@dataclass(frozen=True, slots=True)
class Activity(Spent):
    """Sums over records with how the calls ended, how they were read, and how long they took.

    ``failed`` (the upstream broke off, timed out or answered 5xx), ``refused`` (4xx), ``left_early`` (the client hung
    up) and ``cut`` (by a budget, or with its process) are disjoint; the other requests ended well. ``measured``,
    ``defaulted``, ``estimated`` and ``unread`` (the meter failed) are disjoint; the other requests had nothing to read.
    ``answered`` had a first byte: ``first_byte_ms`` and ``duration_ms`` are sums over those.
    """

    first_ms: int | None = None
    last_ms: int | None = None
    measured: int = 0
    defaulted: int = 0
    estimated: int = 0
    unread: int = 0
    failed: int = 0
    refused: int = 0
    left_early: int = 0
    cut: int = 0
    answered: int = 0
    first_byte_ms: int = 0
    duration_ms: int = 0

    @property
    def errors(self) -> int:
        """Requests that did not end well, but for those that their client left."""
        return self.failed + self.refused + self.cut

    @property
    def guessed(self) -> int:
        """Requests that were charged, or given away, without a measurement."""
        return self.defaulted + self.estimated + self.unread

    @property
    def read(self) -> int:
        """Requests of which something was to be read."""
        return self.measured + self.guessed


@dataclass(frozen=True, slots=True)
class Overview:
    """All of a period. ``wait_p50_ms`` and ``wait_p99_ms``: so long half of the calls, and all but one of a hundred,
    waited for their first byte at most (rounded down to two digits); None where no call had one."""

    total: Activity
    wait_p50_ms: int | None = None
    wait_p99_ms: int | None = None


def percentile(waits: Sequence[tuple[int, int]], percent: int) -> int | None:
    """Of (wait, calls), the shortest wait first: the one that so many of a hundred calls do not pass."""
    reached, wanted = 0, -(-sum(calls for _, calls in waits) * percent // 100)
    for wait_ms, calls in waits:
        reached += calls
        if reached >= wanted:
            return wait_ms
    return None
