"""Limits that are used up, as the ledger said a moment ago: whoever calls on against one is answered without it.

The rule: never a yes, and a no only where what was USED had reached the cap, which no call that ends can undo. It is
for orders that meet the very same rows and caps and need no more than the one that was denied; it is a second old at
most, and forgotten with every change of the limits and every reset. A window that turns is another row.

Of several limits that refuse it names the one that keeps the call out longest, as the ledger does, as far as the
denials of that second tell, of whatever orders met the same row: what they say was used can only have grown.

What it cannot know: what other calls have taken since, or hold, where no call was denied by it; and rates, which drain
by the clock of the database. So a Retry-After from memory may still be the shorter one, where a limit beside it was
used up within the second before. Whoever waits it asks the ledger, which names the other; nobody is let in by it.
"""

from collections import OrderedDict
from typing import NamedTuple, TypeAlias

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import HoldOrder
from gatekeeper.rules.budgets import denied_stock, keeps_out_s
from gatekeeper.rules.latches import is_latch, known_as
from gatekeeper.rules.limits import CounterKey, CounterRow, Denied, Mode, Reason, StockLine

# Corrections of other processes, and what no notice tells.
KNOWN_S = 1.0
# About 10 MB.
ORDERS_MAX = 5_000
ROWS_MAX = 5_000

_Met: TypeAlias = tuple[tuple[CounterKey, int | None, Mode], ...]


class _No(NamedTuple):
    """A denial, what it was for on each row, and when it was said."""

    denied: Denied
    least: tuple[int, ...]
    at_s: float


class _Row(NamedTuple):
    """What was used and held on a row when a denial named it."""

    used: int
    held: int
    at_s: float


class Exhausted:
    """One for the process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._gateway: Gateway | None = None
        self._said: OrderedDict[_Met, _No] = OrderedDict()
        self._rows: OrderedDict[CounterKey, _Row] = OrderedDict()

    def no(self, order: HoldOrder, gateway: Gateway) -> Denied | None:
        """What the ledger would say; None where it has to be asked."""
        if not self._said:
            return None
        if gateway is not self._gateway:
            self._forget()
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
        return self._longest(_again(said.denied, order.now_ms), order, least)

    def saw(self, order: HoldOrder, gateway: Gateway, denied: Denied) -> None:
        """The ledger has denied an order that was made under these limits."""
        if denied.reason in (Reason.RATE, Reason.EXCEEDS_RATE):
            return
        if gateway is not self._gateway:
            # A call that began before a change comes late: the next one forgets what it has said.
            self._forget()
            self._gateway = gateway
        self._note(order, denied)
        if denied.reason not in (Reason.USED, Reason.CLOSED):
            return
        self._said[_met(order)] = _No(denied, _least(order), self._clock.monotonic_s())
        while len(self._said) > ORDERS_MAX:
            self._said.popitem(last=False)

    def _forget(self) -> None:
        self._said.clear()
        self._rows.clear()

    def _note(self, order: HoldOrder, denied: Denied) -> None:
        """Keep what was used on the row that refused; none where two lines of the order look like it."""
        rows = {line.key for line in order.stock if _is_of(line, denied)}
        if len(rows) != 1:
            return
        key, now_s = rows.pop(), self._clock.monotonic_s()
        before = self._rows.pop(key, None)
        if before is not None and now_s - before.at_s < KNOWN_S and before.used > denied.limit.used:
            # Answers may come in another order than they were given.
            self._rows[key] = before
            return
        self._rows[key] = _Row(denied.limit.used, denied.limit.held, now_s)
        while len(self._rows) > ROWS_MAX:
            self._rows.popitem(last=False)

    def _longest(self, denied: Denied, order: HoldOrder, least: tuple[int, ...]) -> Denied:
        """That denial, or the one by another row of the order of which it is known that it keeps it out for longer."""
        now_s = self._clock.monotonic_s()
        for line, needed in zip(order.stock, least, strict=True):
            row = self._rows.get(line.key)
            if row is None or now_s - row.at_s >= KNOWN_S:
                continue
            cap = line.cap
            if line.mode is not Mode.BLOCK or cap is None or (row.used < cap and row.used + needed <= cap):
                # What was used does not keep it out.
                continue
            other = denied_stock(line, CounterRow(row.used, row.held), needed, order.now_ms)
            if keeps_out_s(other) > keeps_out_s(denied):
                denied = other
        return denied


def _met(order: HoldOrder) -> _Met:
    return tuple([(line.key, line.cap, line.mode) for line in order.stock])


def _least(order: HoldOrder) -> tuple[int, ...]:
    return tuple([line.amount(order.output_tokens_min) for line in order.stock])


def _is_of(line: StockLine, denied: Denied) -> bool:
    told, key = denied.limit, line.key
    return (line.limit, key.scope, *known_as(key), line.cap, line.ends_ms) == (
        *(told.name, told.scope, told.dimension, told.window),
        *(told.cap, told.resets_ms),
    ) and is_latch(key) is (denied.reason is Reason.CLOSED)


def _again(denied: Denied, now_ms: int) -> Denied:
    """The same a little later: only the wait is shorter."""
    resets_ms = denied.limit.resets_ms
    if denied.retry_after_s is None or resets_ms is None:
        return denied
    return denied._replace(retry_after_s=max(1, -(-(resets_ms - now_ms) // 1000)))
