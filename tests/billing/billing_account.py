"""An account at Stripe to ask: our fake one, or a real one in test mode. What is made there is taken away again.

The rule: nothing that was there before is read as ours, changed or archived: all that is made carries a tag of its own.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from decimal import Decimal
from typing import Any, TypeVar

import pytest
import stripe

from gatekeeper.billers.stripe import StripeBiller
from gatekeeper.billers.stripe_catalogue import StripeCatalogue
from gatekeeper.billers.stripe_client import Wire, connect, is_live
from gatekeeper.billers.stripe_sales import StripeSales
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Secret, StripeConfig
from gatekeeper.demo.stripe import Card, FakeStripe
from gatekeeper.money import Price
from gatekeeper.ports import Customer
from gatekeeper.rules.billing import Batch, BatchState, NotTaken
from gatekeeper.rules.catalogue import wanted
from gatekeeper.rules.drift import Account as Held
from gatekeeper.rules.drift import differ, sold
from gatekeeper.rules.limits import Mode, Scope, StockLimit, Window
from gatekeeper.rules.plans import Plan

T = TypeVar("T")
VARIABLE = "STRIPE_TEST_KEY"
MISSING = f"set {VARIABLE}=sk_test_... to ask a real account in test mode"
# Stripe adds meter events up "asynchronously"; in test mode within a minute or two.
PATIENCE_S = 240.0
_LOOK_S = 4.0


def key_of(text: str | None) -> str:
    """The key of a real account. Skips without one; fails for one that moves real money, or is none, before anything is
    asked."""
    if not text:
        pytest.skip(MISSING)
    try:
        live = is_live(StripeConfig(secret_key=Secret(text)))
    except NotTaken:
        pytest.fail(f"{VARIABLE} is no secret key of Stripe")
    if live:
        pytest.fail(f"{VARIABLE} is a live key: nothing was asked")
    return text


class Account:
    """``prices`` are the ids of plans ``small`` and ``large``; both include 100 units, and cost $0.002 and $0.001 for
    each further one, $29 and $99 a month."""

    def __init__(self, config: StripeConfig, fake: FakeStripe | None) -> None:
        self.fake = fake
        self.tag = f"gktest{secrets.token_hex(5)}"
        self.meter = f"{self.tag}_units"
        wire = Wire()
        self.sales, self.biller, self.catalogue = (
            StripeSales(config, wire), StripeBiller(config, wire), StripeCatalogue(config, wire),
        )  # fmt: skip
        self.client: stripe.StripeClient = connect(config, wire)
        self.close = wire.aclose
        self.plans = {name: self._plan(name, fee, cents) for name, fee, cents in (("small", 29, 2), ("large", 99, 1))}
        self.prices: dict[str, Any] = {}
        self.accounts: list[str] = []
        self._undo: list[Callable[[], Awaitable[Any]]] = []

    def _plan(self, name: str, dollars: int, mills: int) -> Plan:
        quota = StockLimit("quota", Scope.CUSTOMER, "units", Window.BILLING_PERIOD, 100_000_000, Mode.OVERAGE)
        plan_id = f"{self.tag}_{name}"
        return Plan(plan_id, f"Test {name}", Decimal(dollars), quota, overage=Price(Decimal(mills) / 1_000))

    async def furnish(self) -> None:
        """A meter, and two products with two prices each, as ``stripe apply`` makes them."""
        want = wanted({plan.id: plan for plan in self.plans.values()}, self.meter, None, live=False)
        for change in differ(want, Held()).changes:
            if change.kind in ("meter", "product", "price"):
                made = await self.catalogue.perform(change, f"{self.tag}-{change.kind}-{change.title}")
                self._undo.append(self._away(change.kind, made.id))
        found = sold(want, await self.catalogue.read(want.names)).prices
        self.prices = {name: found[plan.id] for name, plan in self.plans.items()}

    def _away(self, kind: str, made: str) -> Callable[[], Awaitable[Any]]:
        v1 = self.client.v1
        if kind == "meter":
            return lambda: v1.billing.meters.deactivate_async(made)
        if kind == "product":
            return lambda: v1.products.update_async(made, {"active": False})
        return lambda: v1.prices.update_async(made, {"active": False, "lookup_key": ""})

    async def tidy(self) -> None:
        """All that was made is deleted, or archived where Stripe deletes nothing; the last made first."""
        for account in self.accounts:
            for one in await self.sales.subscriptions(account):
                if one.status != "canceled":
                    await self.client.v1.subscriptions.cancel_async(one.id)
            await self.client.v1.customers.delete_async(account)
        for undo in reversed(self._undo):
            # A default price can only be archived after its product.
            with suppress(stripe.InvalidRequestError):
                await undo()
        for undo in self._undo:
            with suppress(stripe.InvalidRequestError):
                await undo()
        await self.close()

    async def customer(self) -> str:
        """A customer with a card that works; the id at Stripe."""
        name = f"{self.tag}-{len(self.accounts)}"
        now_ms = SystemClock().now_ms()
        made = await self.sales.open_account(Customer(name, name, "small", now_ms, now_ms))
        self.accounts.append(made)
        if self.fake is not None:
            self.fake.set_card(made, Card.WORKS)
            return made
        card = await self.client.v1.payment_methods.attach_async("pm_card_visa", {"customer": made})
        await self.client.v1.customers.update_async(made, {"invoice_settings": {"default_payment_method": card.id}})
        return made

    async def subscribe(self, account: str, name: str = "small") -> Any:
        """A subscription as Checkout makes it."""
        prices = self.prices[name]
        params: Any = {
            "customer": account,
            "items": [{"price": prices.licensed, "quantity": 1}, {"price": prices.metered}],
            "billing_mode": {"type": "flexible"},
        }
        await self.client.v1.subscriptions.create_async(params)
        (one,) = [one for one in await self.sales.subscriptions(account) if one.status == "active"]
        return one

    def batch(self, account: str, units: int) -> Batch:
        """Usage of now."""
        now_ms = SystemClock().now_ms() if self.fake is None else self.fake.now_ms
        name = f"mb_{secrets.token_hex(12)}"
        return Batch(
            name, account, self.meter, now_ms, now_ms + 1, units, now_ms, name, BatchState.WAITING, False, 0, 0, now_ms,
            now_ms, account=account,
        )  # fmt: skip

    async def cents_of(self, account: str, price_id: str) -> int | None:
        """What all invoices of a customer ask for on one price; None: it is on none."""
        found = None
        page = await self.client.v1.invoices.list_async({"customer": account, "limit": 20})
        for invoice in page.data:
            for line in (await self.client.v1.invoices.line_items.list_async(invoice.id, {"limit": 100})).data:
                raw = line.to_dict()
                details = (raw.get("pricing") or {}).get("price_details") or {}
                if details.get("price") == price_id:
                    found = (found or 0) + raw["amount"]
        return found

    async def until(self, ask: Callable[[], Awaitable[T]], expected: T) -> T:
        """What is answered in the end: the fake knows at once, a real account within minutes."""
        found = await ask()
        waited_s = 0.0
        while self.fake is None and found != expected and waited_s < PATIENCE_S:
            await asyncio.sleep(_LOOK_S)
            waited_s += _LOOK_S
            found = await ask()
        return found


@asynccontextmanager
async def opened(kind: str) -> AsyncIterator[Account]:
    """An account of a kind: ``fake`` or ``real``."""
    if kind == "real":
        account = Account(StripeConfig(enabled=True, secret_key=Secret(key_of(os.environ.get(VARIABLE)))), None)
        async with _furnished(account) as furnished:
            yield furnished
        return
    fake = FakeStripe()
    async with fake.serve() as base:
        config = StripeConfig(enabled=True, secret_key=Secret(fake.secret_key), api_base=base)
        async with _furnished(Account(config, fake)) as furnished:
            yield furnished


@asynccontextmanager
async def _furnished(account: Account) -> AsyncIterator[Account]:
    try:
        await account.furnish()
        yield account
    finally:
        await account.tidy()


def at_account(kind: str, body: Callable[[Account], Awaitable[T]]) -> T:
    """Runs ``body(account)``."""
    if kind == "real":
        # Before there is a loop.
        key_of(os.environ.get(VARIABLE))

    async def run() -> T:
        async with opened(kind) as account:
            return await body(account)

    return asyncio.run(run())
