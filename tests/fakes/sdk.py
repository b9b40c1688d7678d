"""The real Stripe SDK pointed at the fake, set up as the product sets it up, and a small shop to sell with."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import stripe

from gatekeeper.demo.stripe import TEST_KEY, FakeStripe

T = TypeVar("T")
INCLUDED_TOKENS = 100_000
OVERAGE_CENTS = "0.2"
MONTHLY_CENTS = 2_900
EVENT_NAME = "llm_tokens"


@asynccontextmanager
async def stripe_client(
    url: str,
    *,
    key: str = TEST_KEY,
    version: str | None = None,
    max_network_retries: int = 0,
    timeout_s: float = 10,
) -> AsyncIterator[stripe.StripeClient]:
    """A client on loopback, closed at the end. ``version`` None is the SDK's own."""
    stripe.enable_telemetry = False
    http_client = stripe.HTTPXClient(timeout=timeout_s, verify_ssl_certs=False)
    more: dict[str, Any] = {} if version is None else {"stripe_version": version}
    addresses: Any = {"api": url, "meter_events": url}
    try:
        yield stripe.StripeClient(
            key, http_client=http_client, base_addresses=addresses, max_network_retries=max_network_retries, **more
        )
    finally:
        await http_client.close_async()


def with_stripe(
    body: Callable[[FakeStripe, stripe.StripeClient], Awaitable[T]],
    fake: FakeStripe | None = None,
    *,
    check: bool = True,
    **client: Any,
) -> T:
    """Runs ``body(fake, client)`` against a served fake; an invalid call fails the test unless ``check`` is False."""
    stands = fake or FakeStripe()
    settings = {"key": stands.secret_key, **client}

    async def run() -> T:
        async with stands.serve(check=check) as url, stripe_client(url, **settings) as sdk:
            return await body(stands, sdk)

    return asyncio.run(run())


@dataclass(frozen=True, slots=True)
class Shop:
    """Ids of a catalogue with one plan: $29 a month and 100,000 tokens, then 0.2 cents a token."""

    sdk: stripe.StripeClient
    product: str
    meter: str
    licensed: str
    metered: str

    async def customer(self, email: str = "ada@example.com") -> str:
        """A new customer with a card that works."""
        return (await self.sdk.v1.customers.create_async({"email": email})).id

    async def subscribe(self, customer: str, **more: Any) -> stripe.Subscription:
        """A subscription to both prices."""
        items: Any = [{"price": self.licensed}, {"price": self.metered}]
        return await self.sdk.v1.subscriptions.create_async({"customer": customer, "items": items, **more})

    async def use(self, customer: str, tokens: int, identifier: str, at_s: int | None = None) -> None:
        """Reports usage."""
        params: Any = {
            "event_name": EVENT_NAME,
            "payload": {"stripe_customer_id": customer, "value": str(tokens)},
            "identifier": identifier,
        }
        await self.sdk.v1.billing.meter_events.create_async(params if at_s is None else {**params, "timestamp": at_s})

    async def price(self, cents: int) -> str:
        """Another licensed price of the product."""
        return (
            await self.sdk.v1.prices.create_async(
                {"product": self.product, "currency": "usd", "unit_amount": cents, "recurring": {"interval": "month"}}
            )
        ).id

    async def overage(self, included: int, cents: str) -> str:
        """Another metered price of the product."""
        tiers: Any = [{"up_to": included, "unit_amount_decimal": "0"}, {"up_to": "inf", "unit_amount_decimal": cents}]
        made = await self.sdk.v1.prices.create_async(
            {
                "product": self.product,
                "currency": "usd",
                "billing_scheme": "tiered",
                "tiers_mode": "graduated",
                "tiers": tiers,
                "recurring": {"interval": "month", "usage_type": "metered", "meter": self.meter},
            }
        )
        return made.id


async def open_shop(sdk: stripe.StripeClient) -> Shop:
    """Makes the catalogue through the API."""
    meter = await sdk.v1.billing.meters.create_async(
        {"display_name": "Tokens", "event_name": EVENT_NAME, "default_aggregation": {"formula": "sum"}}
    )
    product = await sdk.v1.products.create_async({"name": "Starter"})
    bare = Shop(sdk, product.id, meter.id, "", "")
    licensed = await bare.price(MONTHLY_CENTS)
    metered = await bare.overage(INCLUDED_TOKENS, OVERAGE_CENTS)
    return Shop(sdk, product.id, meter.id, licensed, metered)
