"""A real store with customers who use something, a flusher on a clock that a test moves, and a biller in memory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

from fakes.biller import FakeBiller
from fakes.past import MICRO, customer, record
from fakes.proxies import FakeClock

from gatekeeper.billing.outbox import Flusher, Flushing
from gatekeeper.money import Price
from gatekeeper.ports import Settlement
from gatekeeper.rules.billing import Batch
from gatekeeper.rules.limits import ONE_REQUEST, Mode, Scope, StockLimit, Window
from gatekeeper.rules.notices import Kind, Wanted
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import DAY_MS, window_bounds
from gatekeeper.stores import SqlStore, open_store

METER = "gatekeeper_units"
QUOTA = StockLimit("quota", Scope.CUSTOMER, "units", Window.BILLING_PERIOD, 10 * MICRO, Mode.OVERAGE)
PLAN = Plan("pro", "Pro", Decimal(29), QUOTA, overage=Price(Decimal("0.002")))
# A licence alone, with a price at Stripe and nothing to count.
LICENCE = Plan("enterprise", "Enterprise", Decimal(499), None, stripe_price="price_enterprise")
ALL = Wanted(frozenset(Kind))


class Stand:
    """What a test of the outbox needs. ``anchor_ms`` is 10 days ago: the first billing period is under way."""

    def __init__(self, store: SqlStore, clock: FakeClock, biller: FakeBiller) -> None:
        self.store = store
        self.clock = clock
        self.biller = biller
        self.anchor_ms = clock.now_ms() - 10 * DAY_MS
        self.plans = {"pro": PLAN, "enterprise": LICENCE}
        self.flushing = Flushing(300.0, METER, self.plans)
        self.flusher = self.another("p1")
        self._calls = 0

    def another(self, owner: str, clock: FakeClock | None = None) -> Flusher:
        """A flusher of a process of its own."""
        seeds = iter(f"{owner}-{self.clock.now_ms()}-{number}" for number in range(10**6))
        return Flusher(
            self.store,
            self.biller,
            lambda: self.flushing,
            clock or self.clock,
            owner=owner,
            seed=lambda: next(seeds),
            chance=lambda: 0.0,
        )

    @property
    def period(self) -> tuple[int, int]:
        """The billing period of now."""
        start_ms, end_ms = window_bounds(Window.BILLING_PERIOD, self.clock.now_ms(), anchor_ms=self.anchor_ms)
        assert end_ms is not None
        return start_ms, end_ms

    async def enter(self, *names: str, plan_id: str = "pro") -> None:
        """New customers."""
        for name in names:
            await customer(self.store, name, plan_id, self.anchor_ms)

    async def use(self, units: float | Decimal | str, who: str = "ada", *, plan: Plan = PLAN, **changes: Any) -> str:
        """A call of so many units begins and is settled now, or at ``started_ms`` and ``settled_ms``."""
        now_ms = self.clock.now_ms()
        settled_ms = changes.pop("settled_ms", now_ms)
        self._calls += 1
        call_id = changes.pop("call_id", f"call-{self._calls:05d}")
        made = record(
            call_id,
            plan.id,
            int(Decimal(str(units)) * MICRO),
            **{"customer_id": who, "started_ms": now_ms, "ended_ms": now_ms, **changes},
        )
        await self.store.settle(Settlement(made, {"requests": ONE_REQUEST}, plan, settled_ms))
        return call_id

    async def flush(self) -> list[Batch]:
        """Freeze all that is owed and send what is due; returns all batches, the oldest first."""
        await self.flusher.freeze()
        self.clock.now_s += 0.005
        await self.turn()
        return await self.batches()

    async def turn(self) -> int:
        """One round of the flusher, elected anew."""
        self.flusher._elect_s = 0.0
        return await self.flusher.turn()

    async def batches(self, **which: Any) -> list[Batch]:
        found = await self.store.batches(**which)
        return sorted(found, key=lambda batch: (batch.created_ms, batch.ts_ms, batch.id))

    async def later(self, *, s: float = 0, hours: float = 0, days: float = 0) -> None:
        """Time passes, and then the flusher has a turn."""
        self.clock.now_s += s + hours * 3_600 + days * 86_400
        await self.turn()


@asynccontextmanager
async def standing(url: str) -> AsyncIterator[Stand]:
    """An open store with customer ``ada`` on plan ``pro``, to whom everything is told."""
    clock = FakeClock()
    store = await open_store(url, clock=clock)
    assert isinstance(store, SqlStore)
    try:
        store.tell(ALL)
        stand = Stand(store, clock, FakeBiller(clock))
        await stand.enter("ada")
        yield stand
    finally:
        await store.close()
