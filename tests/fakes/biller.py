"""A biller in memory, as strict as Stripe: it refuses an identifier for 24 hours, and counts it again after that."""

import asyncio
from collections import Counter, deque

from gatekeeper.clock import Clock
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.rules.billing import Batch, NotTaken, Reported, Throttled

IDENTIFIER_KEPT_MS = 24 * 3_600_000


class FakeBiller:
    """``script`` says what becomes of the next reports, in order; when it is empty they are accepted.

    ``accept``; ``lost`` is counted and the answer never arrives; ``unknown`` is not counted, and nobody knows;
    ``down`` is surely not counted; ``refuse`` is a no for good; ``throttle`` asks for a pause; ``hang`` never ends.
    """

    name = "fake"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.script: deque[str] = deque()
        self.pause_s: float | None = 60.0
        self.asked: list[Batch] = []
        self.counted: list[Batch] = []
        self.summaries: list[tuple[int, int]] = []
        self.summary_fault: Fault | None = None
        self.in_flight: Counter[tuple[str, str]] = Counter()
        self.in_flight_most = 0
        self.slow = False
        self._seen_ms: dict[str, int] = {}

    def units(self, customer_id: str | None = None) -> int:
        """All that was counted."""
        return sum(batch.value for batch in self.counted if customer_id in (None, batch.customer_id))

    async def report(self, batch: Batch) -> Reported:
        self.asked.append(batch)
        who = (batch.customer_id, batch.meter)
        self.in_flight[who] += 1
        self.in_flight_most = max(self.in_flight_most, self.in_flight[who])
        try:
            if self.slow:
                await asyncio.sleep(0.01)
            return await self._answer(batch, self.script.popleft() if self.script else "accept")
        finally:
            self.in_flight[who] -= 1

    async def summary(self, batch: Batch, start_ms: int, end_ms: int) -> int:
        assert start_ms % 60_000 == end_ms % 60_000 == 0
        self.summaries.append((start_ms, end_ms))
        if self.summary_fault is not None:
            raise self.summary_fault
        return sum(
            one.value
            for one in self.counted
            if (one.customer_id, one.meter) == (batch.customer_id, batch.meter) and start_ms <= one.ts_ms < end_ms
        )

    async def close(self) -> None:
        pass

    async def _answer(self, batch: Batch, what: str) -> Reported:
        if what == "hang":
            await asyncio.Event().wait()
        if what == "unknown":
            raise Fault("biller", FaultKind.RESET, "the connection was reset")
        if what == "down":
            raise Fault("biller", FaultKind.CONNECT, "nobody listens", retryable=True)
        if what == "refuse":
            raise NotTaken("No such customer: 'cus_1'")
        if what == "throttle":
            raise Throttled("429", self.pause_s)
        seen_ms = self._seen_ms.get(batch.identifier)
        now_ms = self._clock.now_ms()
        if seen_ms is not None and now_ms - seen_ms < IDENTIFIER_KEPT_MS:
            return Reported.DUPLICATE
        self._seen_ms[batch.identifier] = now_ms
        self.counted.append(batch)
        if what == "lost":
            raise Fault("biller", FaultKind.FIRST_BYTE_TIMEOUT, "no answer in time")
        return Reported.ACCEPTED
