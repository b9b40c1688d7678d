"""Limits that are used up, as the ledger said a moment ago: whoever calls on against one is answered without it.

The rule: never a yes, and a no only where what was USED had reached the cap, which no call that ends can undo. It is
for orders that meet the very same rows and caps and need no more than the one that was denied, so its Retry-After is
true for them too; it is a second old at most, and forgotten with every change of the limits and every reset. A window
that turns is another row.
"""

from collections import OrderedDict
from typing import NamedTuple, TypeAlias

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import HoldOrder
from gatekeeper.rules.limits import CounterKey, Denied, Mode, Reason

# Corrections of other processes, and what no notice tells.
KNOWN_S = 1.0
# About 10 MB.
ORDERS_MAX = 5_000

_Met: TypeAlias = tuple[tuple[CounterKey, int | None, Mode], ...]


class _No(NamedTuple):
    """A denial, what it was for on each row, and when it was said."""

    denied: Denied
    least: tuple[int, ...]
    at_s: float


class Exhausted:
    """One for the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gateway: Gateway | None = None
        self._said: OrderedDict[_Met, _No] = OrderedDict()

    def no(self, order: HoldOrder, gateway: Gateway) -> Denied | None:
        """What the ledger would say; None where it has to be asked."""
        if not self._said:
            return None
        if gateway is not self._gateway:
            self._said.clear()
            return None
        met = _met(order)
        said = self._said.get(met)
        if said is None:
            return None
        if self._clock.monotonic_s() - said.at_s >= KNOWN_S:
            del self._said[met]
            return None
        least = _least(order)
        if any(mine > theirs for mine, theirs in zip(least, said.least, strict=True)):
            # Another limit may keep it out for longer.
            return None
        if said.denied.retry_after_s is None and said.denied.limit.resets_ms is not None and least != said.least:
            # The other fits no window at all; this one may.
            return None
        return _again(said.denied, order.now_ms)

    def saw(self, order: HoldOrder, gateway: Gateway, denied: Denied) -> None:
        """The ledger has denied an order that was made under these limits."""
        if denied.reason not in (Reason.USED, Reason.CLOSED):
            return
        if gateway is not self._gateway:
            # A call that began before a change comes late: the next one forgets what it has said.
            self._said.clear()
            self._gateway = gateway
        self._said[_met(order)] = _No(denied, _least(order), self._clock.monotonic_s())
        while len(self._said) > ORDERS_MAX:
            self._said.popitem(last=False)


def _met(order: HoldOrder) -> _Met:
    return tuple([(line.key, line.cap, line.mode) for line in order.stock])


def _least(order: HoldOrder) -> tuple[int, ...]:
    return tuple([line.amount(order.output_tokens_min) for line in order.stock])


def _again(denied: Denied, now_ms: int) -> Denied:
    """The same a little later: only the wait is shorter."""
    resets_ms = denied.limit.resets_ms
    if denied.retry_after_s is None or resets_ms is None:
        return denied
    return denied._replace(retry_after_s=max(1, -(-(resets_ms - now_ms) // 1000)))
