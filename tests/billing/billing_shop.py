"""A gateway's billing whole, before a fake Stripe on loopback: the real SDK, a real store, one clock for both sides."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from typing import Any, TypeVar

from fakes.past import MICRO, record
from fakes.proxies import FakeClock

from gatekeeper.billers.stripe import StripeBiller
from gatekeeper.billers.stripe_catalogue import StripeCatalogue
from gatekeeper.billers.stripe_client import Wire
from gatekeeper.billers.stripe_sales import StripeSales
from gatekeeper.billing.catalogue import apply
from gatekeeper.billing.invoices import Invoices
from gatekeeper.billing.outbox import Flusher, Flushing
from gatekeeper.billing.shelf import Shelf
from gatekeeper.billing.subscriptions import Subscriptions
from gatekeeper.billing.webhooks import Webhooks
from gatekeeper.config.gateway import Gateway, KeysConfig, Secret, ServerConfig, StripeConfig
from gatekeeper.demo.stripe import Card, Delivery, FakeStripe
from gatekeeper.errors import Fault, Refusal
from gatekeeper.money import Price
from gatekeeper.ports import Customer, Settlement
from gatekeeper.rules.catalogue import wanted
from gatekeeper.rules.limits import ONE_REQUEST, Mode, Scope, StockLimit, Window
from gatekeeper.rules.notices import Kind, Wanted
from gatekeeper.rules.plans import DISABLE, Plan
from gatekeeper.rules.routing import Router
from gatekeeper.stores import SqlStore, open_store

T = TypeVar("T")
METER = "gatekeeper_units"
URL = "https://gateway.example"


def quota(units: int) -> StockLimit:
    return StockLimit("quota", Scope.CUSTOMER, "units", Window.BILLING_PERIOD, units * MICRO, Mode.OVERAGE)


PLANS = {
    plan.id: plan
    for plan in (
        Plan("free", "Free", Decimal(0), replace(quota(10), mode=Mode.BLOCK)),
        Plan("starter", "Starter", Decimal(29), quota(100), overage=Price(Decimal("0.02"))),
        Plan("pro", "Pro", Decimal(99), quota(1_000), overage=Price(Decimal("0.0101")), trial_days=14),
        Plan("enterprise", "Enterprise", Decimal(499), None, on_cancel=DISABLE),
    )
}


class Shop:
    """What a test of subscriptions needs."""

    def __init__(self, fake: FakeStripe, store: SqlStore, clock: FakeClock, config: StripeConfig) -> None:
        self.fake = fake
        self.store = store
        self.clock = clock
        self.gateway = Gateway(
            server=ServerConfig(public_url=URL),
            database_url=Secret("unused"),
            upstreams={},
            router=Router(()),
            plans=PLANS,
            keys=KeysConfig(default_plan="free"),
            stripe=config,
        )
        self.wire = Wire(clock.sleep)
        self.biller = StripeBiller(config, self.wire)
        self.sales = StripeSales(config, self.wire)
        self.catalogue = StripeCatalogue(config, self.wire)
        seeds = iter(range(10**9))
        self.flusher = Flusher(
            store,
            self.biller,
            lambda: Flushing(300.0, METER, PLANS, known_only=True),
            clock,
            owner="p1",
            seed=lambda: f"seed-{next(seeds)}",
            chance=lambda: 0.0,
        )
        shelf = Shelf(self.catalogue, lambda: self.gateway, clock)
        self.subscriptions = Subscriptions(store, self.sales, shelf, self.flusher, lambda: self.gateway, clock)
        self.webhooks = Webhooks(store, self.sales, self.subscriptions, lambda: self.gateway, clock, lambda: 0.0)
        self.invoices = Invoices(store, self.sales, lambda: self.gateway, clock)
        self.calls = 0

    async def enter(self, name: str, plan_id: str = "free") -> None:
        """A new customer."""
        now_ms = self.clock.now_ms()
        made = Customer(name, name.title(), plan_id, now_ms, now_ms, email=f"{name}@example.com")
        assert await self.store.create_customer(made)

    async def customer(self, name: str = "ada") -> Customer:
        """As he stands."""
        found = await self.store.customer(name)
        assert found is not None
        return found

    async def subscribe(self, name: str, plan_id: str, *, card: Card = Card.WORKS) -> dict[str, Any]:
        """Through Checkout, and all that follows; returns the subscription as Stripe has it."""
        await self.subscriptions.checkout(name, plan_id)
        session = self.fake.objects("checkout.session")[-1]
        done = self.fake.complete_checkout(session["id"], card=card)
        await self.settle()
        return self.fake.object(done["subscription"])

    def subscription(self) -> dict[str, Any]:
        """The latest at Stripe."""
        return self.fake.objects("subscription")[-1]

    async def receive(self, delivery: Delivery) -> int:
        """What our endpoint answers."""
        try:
            await self.webhooks.receive(delivery.body, delivery.headers["stripe-signature"])
        except Refusal as refusal:
            return refusal.status
        except Fault:
            return 503
        return 200

    async def settle(self, **how: Any) -> int:
        """Deliver what is due, and work on it; returns how many events ended."""
        await self.fake.deliver(self.receive, **how)
        return await self.webhooks.turn()

    async def use(self, name: str, units: float | str, plan_id: str | None = None, **changes: Any) -> None:
        """A call of now, on the customer's plan."""
        now_ms = self.clock.now_ms()
        customer = await self.customer(name)
        plan = PLANS[plan_id or customer.plan_id]
        self.calls += 1
        made = record(
            f"call-{self.calls:06d}",
            plan.id,
            int(Decimal(str(units)) * MICRO),
            **{"customer_id": name, "started_ms": now_ms, "ended_ms": now_ms, **changes},
        )
        await self.store.settle(Settlement(made, {"requests": ONE_REQUEST}, plan, now_ms))

    async def advance(self, *, days: float = 0, s: float = 0) -> None:
        """Time passes: what is due at Stripe happens at its time, and the gateway works after each."""
        until_s = self.clock.now_s + days * 86_400 + s
        while (due_ms := self.fake.next_due_ms()) is not None and due_ms <= until_s * 1000:
            await self._at(max(self.clock.now_s, due_ms / 1000))
        await self._at(until_s)

    async def _at(self, now_s: float) -> None:
        # What was used before then is told before then, as a flush every five minutes does.
        await self.flush()
        self.clock.now_s = now_s
        self.fake.advance_to(self.clock.now_ms())
        await self.settle()

    async def flush(self) -> None:
        """Freeze and send all that is owed."""
        await self.flusher.freeze()
        self.flusher._elect_s = 0.0
        await self.flusher.turn()

    async def told(self, kind: Kind) -> list[str]:
        """The ids of the events of a kind, in order."""
        found = await self.store._database.write(_events(kind.value))
        return [row[0] for row in found]


def _events(kind: str) -> Any:
    from gatekeeper.stores.database import Ask

    def work() -> Any:
        rows = yield Ask("unfanned_events", {"limit": 10_000})
        return [row for row in rows if row[1] == kind]

    return work


@asynccontextmanager
async def opened(url: str, *, thin: bool = True, livemode: bool = False) -> AsyncIterator[Shop]:
    """A shop whose catalogue is applied, with one endpoint for snapshots and one for thin events."""
    clock = FakeClock()
    fake = FakeStripe(clock=clock, livemode=livemode)
    store = await open_store(url, clock=clock)
    assert isinstance(store, SqlStore)
    store.tell(Wanted(frozenset(Kind)))
    try:
        async with fake.serve() as base:
            secrets = [fake.add_endpoint(f"{URL}/webhooks/stripe")[1]]
            secrets += [fake.add_thin_destination(f"{URL}/webhooks/stripe")[1]] if thin else []
            config = StripeConfig(
                enabled=True,
                secret_key=Secret(fake.secret_key),
                webhook_secrets=tuple(map(Secret, secrets)),
                api_base=base,
                meter=METER,
            )
            shop = Shop(fake, store, clock, config)
            try:
                want = wanted(PLANS, METER, None, live=shop.sales.live)
                await apply(shop.catalogue, want, clock, "nonce", lambda change, secret: None)
                # What apply itself made happen is nothing to us.
                await shop.settle()
                await shop.enter("ada")
                yield shop
            finally:
                await shop.wire.aclose()
    finally:
        await store.close()


def at_shop(url: str, body: Callable[[Shop], Awaitable[T]], **how: Any) -> T:
    """Runs ``body(shop)``."""

    async def run() -> T:
        async with opened(url, **how) as shop:
            return await body(shop)

    return asyncio.run(run())
