"""Who is told of what: which events are wanted, when a limit's threshold is crossed, when a delivery is tried again.

The rule: an event's id is made of what happened, so that the same thing is told once, whoever saw it. A new kind of
event is a line in ``Kind``; whoever sees it happen calls ``ports.Events.emit``.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from gatekeeper.rules.latches import is_latch
from gatekeeper.rules.limits import CounterKey, CounterRow, StockLine, is_owned

_PREFIX = "gatekeeper."
DEFAULT_THRESHOLDS = (80, 95, 100)
# 16 attempts: 5 s, 15 s, 45 s... and then every three hours, 25 h from the first to the last.
ATTEMPTS_MAX = 16
_FIRST_DELAY_MS = 5_000
_DELAY_GROWTH = 3
_LONGEST_DELAY_MS = 3 * 3_600_000
# Delays are only ever stretched, so that the span of all attempts does not shrink.
_SPREAD = 0.2
_LONGEST_PAUSE_S = 60.0


class Kind(StrEnum):
    """Everything that can be told; the value is the CloudEvents ``type``."""

    USAGE_RECORDED = "gatekeeper.usage.recorded"
    LIMIT_THRESHOLD = "gatekeeper.limit.threshold"
    # An upstream is left alone, or answers again; spend that is far above the usual (see ``rules.spikes``).
    BREAKER_CHANGED = "gatekeeper.breaker.changed"
    SPEND_SPIKE = "gatekeeper.spend.spike"
    # Of the outbox (see ``rules.billing``): given up; not taken for days; accepted and later found not to count;
    # arrived after the invoice of its period was closed.
    OUTBOX_DEAD = "gatekeeper.outbox.dead"
    OUTBOX_AGING = "gatekeeper.outbox.aging"
    OUTBOX_REOPENED = "gatekeeper.outbox.reopened"
    OUTBOX_LATE = "gatekeeper.outbox.late"
    # Of subscriptions (see ``rules.subscriptions``), for the customer too.
    PAYMENT_FAILED = "gatekeeper.payment.failed"
    INVOICE_PAID = "gatekeeper.invoice.paid"
    SUBSCRIPTION_CHANGED = "gatekeeper.subscription.changed"
    SUBSCRIPTION_BLOCKED = "gatekeeper.subscription.blocked"
    SUBSCRIPTION_ENDED = "gatekeeper.subscription.ended"
    # For the operator: two subscriptions of one customer; an event of Stripe that was given up; what it reported as
    # not counted.
    SUBSCRIPTION_DOUBLE = "gatekeeper.subscription.double"
    STRIPE_DEAD = "gatekeeper.stripe.dead"
    METER_ERRORS = "gatekeeper.meter.errors"
    # A customer has reached a threshold of his own (see ``ports.alerts``).
    ALERT_REACHED = "gatekeeper.alert.reached"

    @property
    def short(self) -> str:
        """As it is written in gateway.toml."""
        return self.value.removeprefix(_PREFIX)


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one target wants to hear. ``thresholds`` are per cent, of LIMIT_THRESHOLD alone; ``of_customers`` leaves
    out what concerns no single customer."""

    target: str
    kinds: frozenset[str]
    thresholds: tuple[int, ...] = DEFAULT_THRESHOLDS
    of_customers: bool = False

    def takes(self, kind: str, customer_id: str | None, content: Mapping[str, Any]) -> bool:
        """Whether an event goes to this target."""
        if kind not in self.kinds or (self.of_customers and customer_id is None):
            return False
        return kind != Kind.LIMIT_THRESHOLD or content.get("threshold") in self.thresholds


@dataclass(frozen=True, slots=True)
class Wanted:
    """What anybody at all wants to hear: the store writes nothing else."""

    kinds: frozenset[str]
    thresholds: tuple[int, ...] = ()


def wanted(subscriptions: Iterable[Subscription]) -> Wanted | None:
    """All subscriptions as one; None where there is none."""
    found = list(subscriptions)
    if not found:
        return None
    kinds = frozenset(kind for one in found for kind in one.kinds)
    of_limits = [one for one in found if Kind.LIMIT_THRESHOLD in one.kinds]
    return Wanted(kinds, tuple(sorted({percent for one in of_limits for percent in one.thresholds})))


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. ``kind`` is the CloudEvents type, ``content`` is plain JSON. ``customer_id`` None: it
    concerns no single customer."""

    id: str
    kind: str
    customer_id: str | None
    created_ms: int
    content: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Claim:
    """One event on its way to one target, leased to one dispatcher. ``attempts`` counts this one, and is the proof of
    the lease."""

    event: Event
    target: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as it stands, for people. ``state`` is ``waiting``, ``sent`` or ``dead``; ``next_ms`` is when it is
    tried (again), or when it ended; ``error`` is what the last attempt met, without secrets."""

    event: Event
    target: str
    state: str
    attempts: int
    next_ms: int
    sent_ms: int | None = None
    error: str | None = None


class Crossing(NamedTuple):
    """A counter that has reached ``percent`` of a cap; ``used`` is how it stands."""

    line: StockLine
    percent: int
    used: int

    @property
    def is_personal(self) -> bool:
        """Whether the counter is one customer's own; what all customers share is nobody's own business."""
        return is_owned(self.line.key.scope)


def crossed(
    stock: Iterable[StockLine],
    before: Mapping[CounterKey, CounterRow],
    after: Mapping[CounterKey, CounterRow],
    thresholds: Iterable[int],
) -> list[Crossing]:
    """Which thresholds this step reached, in every mode. A line without a cap has none, nor has a cap of 0: it is
    reached before anything is used. What goes back (a correction) reaches nothing."""
    found: list[Crossing] = []
    for line in stock:
        # A line whose counter did not change tells nothing; above all, telling never makes a settle fail.
        # Nor does a latch: the limit beside it has told the same.
        if not line.cap or is_latch(line.key) or line.key not in before or line.key not in after:
            continue
        was, now = before[line.key].used, after[line.key].used
        if now > was:
            found += [
                Crossing(line, percent, now) for percent in thresholds if was * 100 < percent * line.cap <= now * 100
            ]
    return found


def crossing_id(crossing: Crossing) -> str:
    """The id of the event: one for each counter row, limit, cap and threshold. With the cap, so that whoever moves to
    a larger plan is warned again under that one. Hashed, because subjects are names that clients choose."""
    line = crossing.line
    parts = [*line.key, line.limit, line.cap, crossing.percent]
    return "limit_" + hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:40]


def retry_delay_ms(attempts: int, chance: float) -> int | None:
    """How long to wait after so many attempts that failed; None: give up. ``chance`` is in [0, 1), so that what failed
    together does not come back together."""
    assert attempts >= 1 and 0 <= chance < 1, (attempts, chance)
    if attempts >= ATTEMPTS_MAX:
        return None
    delay_ms = min(_FIRST_DELAY_MS * _DELAY_GROWTH ** (attempts - 1), _LONGEST_DELAY_MS)
    return int(delay_ms * (1 + _SPREAD * chance))


def target_pause_s(failures: int, chance: float) -> float:
    """How long to leave a target alone that failed so many times in a row: a receiver that is down is asked for one
    delivery at a time, and those behind it use up no attempts."""
    assert failures >= 1 and 0 <= chance < 1, (failures, chance)
    return min(2.0 ** min(failures - 1, 10), _LONGEST_PAUSE_S) * (1 + _SPREAD * chance)
