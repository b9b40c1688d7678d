"""Soft limits: whether a call is to be served by a cheaper model, by what this process knows of the counters.

The rule: advice, at most a second old. Nothing here guards a cap: the hold decides that, on the model that serves.
"""

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from gatekeeper.clock import Clock
from gatekeeper.errors import LimitState
from gatekeeper.ports import HoldOrder, Ledger
from gatekeeper.rules.downgrade import is_soft
from gatekeeper.rules.latches import known_as
from gatekeeper.rules.limits import CounterKey, Granted, StockLine

# Other processes and hosts count too.
KNOWN_S = 1.0
# About 5 MB.
COUNTERS_MAX = 20_000


class _Known:
    """A counter as it stood, and whether it last asked for a cheaper model."""

    __slots__ = ("at_s", "held", "soft", "used")

    def __init__(self) -> None:
        self.used = self.held = 0
        self.at_s = float("-inf")
        self.soft = False


class SoftCaps:
    """One for the process."""

    def __init__(self, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._counters: OrderedDict[CounterKey, _Known] = OrderedDict()

    async def asking(self, lines: Sequence[StockLine], output_tokens: int) -> LimitState | None:
        """The first of these soft limits that asks for a cheaper model, for a call that may take so much output of the
        model that it asked for. Raises Fault where the counters have to be read and cannot."""
        await self._read([line.key for line in lines])
        found: LimitState | None = None
        for line in lines:
            if line.soft_at is None or not line.cap:
                continue
            known = self._counters[line.key]
            own = line.amount(output_tokens)
            known.soft = is_soft(known.used, own, line.cap, line.soft_at, was_soft=known.soft)
            if known.soft and found is None:
                key = line.key
                dimension, window = known_as(key)
                figures = (line.cap, known.used, known.held, line.ends_ms)
                found = LimitState(line.limit, key.scope, dimension, window, *figures)
        return found

    def held(self, order: HoldOrder, granted: Granted) -> None:
        """What the ledger said when it held a call."""
        for line, state in zip(order.stock, granted.stock, strict=False):
            if line.soft_at is not None:
                self._note(line.key, state.used, state.held)

    def settled(self, keys: Iterable[CounterKey], actual: Mapping[str, int]) -> None:
        """A call of this process has ended: the next one counts it at once."""
        for key in keys:
            known = self._counters.get(key)
            if known is not None:
                known.used += actual.get(key.dimension, 0)

    async def _read(self, keys: Sequence[CounterKey]) -> None:
        due_s = self._clock.monotonic_s() - KNOWN_S
        old = [key for key in keys if (known := self._counters.get(key)) is None or known.at_s < due_s]
        if old:
            for state in await self._ledger.counters(old):
                self._note(state.key, state.used, state.held)
        for key in keys:
            # A store that says nothing of a counter has none.
            self._counters.setdefault(key, _Known())

    def _note(self, key: CounterKey, used: int, held: int) -> None:
        known = self._counters.setdefault(key, _Known())
        known.used, known.held, known.at_s = used, held, self._clock.monotonic_s()
        self._counters.move_to_end(key)
        while len(self._counters) > COUNTERS_MAX:
            self._counters.popitem(last=False)
