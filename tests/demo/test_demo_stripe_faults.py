"""Every way to fail, with the real SDK on the other side: what took effect, what is retried, what the log says."""

import asyncio

import pytest
import stripe
from fakes.sdk import EVENT_NAME, open_shop, with_stripe

from gatekeeper.demo.stripe import Fault

EVENTS = "/v1/billing/meter_events"


async def report(sdk, customer, identifier, **options):
    payload = {"stripe_customer_id": customer, "value": "7"}
    params = {"event_name": EVENT_NAME, "payload": payload, "identifier": identifier}
    return await sdk.v1.billing.meter_events.create_async(params, options or None)


def test_a_500_then_a_200_are_two_calls_with_one_key():
    async def body(fake, sdk):
        fake.fail("/v1/customers", Fault.error(500))
        await sdk.v1.customers.create_async()
        first, second = fake.requests.to("/v1/customers")
        assert (first.status, second.status) == (500, 200)
        assert first.idempotency_key == second.idempotency_key
        assert len(fake.objects("customer")) == 1

    with_stripe(body, max_network_retries=2)


def test_without_retries_a_500_is_an_error():
    async def body(fake, sdk):
        fake.fail("/v1/customers", Fault.error(503), times=2)
        for _ in range(2):
            with pytest.raises(stripe.APIError):
                await sdk.v1.customers.create_async()
        assert fake.faults.left == 0
        await sdk.v1.customers.create_async()

    with_stripe(body)


def test_a_429_is_not_retried_by_the_sdk_and_says_when_to_come_back():
    async def body(fake, sdk):
        fake.fail(EVENTS, Fault.too_many(7), method="POST")
        with pytest.raises(stripe.RateLimitError) as refused:
            await report(sdk, "cus_1", "a")
        assert refused.value.headers["retry-after"] == "7"
        assert len(fake.requests) == 1
        assert fake.meter_events == []

    with_stripe(body, max_network_retries=2)


@pytest.mark.parametrize("fault", [Fault.reset_after(), Fault.error(500, applied=True)])
def test_a_call_that_took_effect_is_replayed_under_its_key_and_refused_under_another(fault):
    async def body(fake, sdk):
        shop = await open_shop(sdk)
        customer = await shop.customer()
        fake.fail(EVENTS, fault)
        with pytest.raises((stripe.APIConnectionError, stripe.APIError)):
            await report(sdk, customer, "batch-1", idempotency_key="k")
        assert fake.metered_units() == 7
        assert (await report(sdk, customer, "batch-1", idempotency_key="k")).identifier == "batch-1"
        with pytest.raises(stripe.InvalidRequestError, match="An event already exists with identifier batch-1"):
            await report(sdk, customer, "batch-1", idempotency_key="k2")
        assert fake.metered_units() == 7

    with_stripe(body)


def test_a_reset_before_leaves_nothing_behind():
    async def body(fake, sdk):
        fake.fail("/v1/customers", Fault.reset_before())
        with pytest.raises(stripe.APIConnectionError):
            await sdk.v1.customers.create_async()
        assert fake.objects("customer") == []
        assert fake.requests.all[0].status is None
        await sdk.v1.customers.create_async()

    with_stripe(body)


@pytest.mark.parametrize("applied", [False, True])
def test_a_timeout_may_or_may_not_have_taken_effect(applied):
    async def body(fake, sdk):
        fake.fail("/v1/customers", Fault.timeout(applied=applied))
        with pytest.raises(stripe.APIConnectionError):
            await sdk.v1.customers.create_async()
        assert len(fake.objects("customer")) == applied

    with_stripe(body, timeout_s=0.2)


def test_one_call_in_flight_for_each_customer_and_meter():
    async def body(fake, sdk):
        shop = await open_shop(sdk)
        ada, bob = await shop.customer(), await shop.customer()
        gate = asyncio.Event()
        fake.fail(EVENTS, Fault.slow(gate))
        slow = asyncio.create_task(report(sdk, ada, "a1"))
        for _ in range(10_000):
            if fake.requests.in_flight:
                break
            await asyncio.sleep(0)
        with pytest.raises(stripe.RateLimitError) as refused:
            await report(sdk, ada, "a2")
        assert refused.value.code == "lock_timeout" or "lock_timeout" in refused.value.http_body
        await report(sdk, bob, "b1")
        gate.set()
        await slow
        await report(sdk, ada, "a2")
        assert fake.requests.max_in_flight_by_meter == 2
        assert fake.metered_units(ada) == 14

    with_stripe(body)


def test_faults_fire_in_order_and_only_where_they_are_armed():
    async def body(fake, sdk):
        fake.fail("/v1/*", Fault.error(500), Fault.too_many(), method="GET")
        await sdk.v1.customers.create_async()
        with pytest.raises(stripe.APIError):
            await sdk.v1.customers.list_async()
        with pytest.raises(stripe.RateLimitError):
            await sdk.v1.prices.list_async()
        await sdk.v1.prices.list_async()
        fake.fail("/v1/prices", Fault.error())
        fake.faults.disarm()
        await sdk.v1.prices.list_async()

    with_stripe(body)
