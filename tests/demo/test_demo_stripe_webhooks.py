"""Webhooks: endpoints, signatures, shapes, and everything that can go wrong on the way."""

import asyncio
import json

import pytest
import stripe
from fakes.sdk import Shop, open_shop, with_stripe

from gatekeeper.demo.stripe import FakeStripe

URL = "https://example.com/webhooks/stripe"
HOUR_S = 3_600


def verified(delivery, secret):
    """The event, as the SDK verifies it (its own clock is not the fake's: no tolerance here)."""
    header = delivery.headers["stripe-signature"]
    stripe.WebhookSignature.verify_header(delivery.body, header, secret)
    return json.loads(delivery.body)


class Receiver:
    """An endpoint that remembers, and answers with the statuses it was given (then 200)."""

    def __init__(self, *statuses):
        self.got = []
        self.statuses = list(statuses)

    async def __call__(self, delivery):
        self.got.append(delivery)
        answer = self.statuses.pop(0) if self.statuses else 200
        if isinstance(answer, Exception):
            raise answer
        return answer


def test_a_secret_is_shown_once_and_signs_what_is_sent():
    async def body(fake, sdk):
        params = {"url": URL, "enabled_events": ["customer.created"], "api_version": "2026-10-28.endive"}
        made = await sdk.v1.webhook_endpoints.create_async(params)
        assert made.secret.startswith("whsec_")
        (listed,) = (await sdk.v1.webhook_endpoints.list_async()).data
        assert "secret" not in listed.to_dict()
        customer = await sdk.v1.customers.create_async()
        await sdk.v1.customers.update_async(customer.id, {"name": "not asked for"})
        (delivery,) = fake.take_deliveries()
        event = verified(delivery, made.secret)
        assert (delivery.url, event["type"], event["data"]["object"]["id"]) == (URL, "customer.created", customer.id)
        assert delivery.headers["stripe-signature"].startswith(f"t={fake.now_ms // 1000},v1=")
        with pytest.raises(stripe.SignatureVerificationError):
            verified(delivery, "whsec_other")

    with_stripe(body)


def test_endpoints_are_changed_disabled_and_deleted():
    async def body(fake, sdk):
        made = await sdk.v1.webhook_endpoints.create_async({"url": URL, "enabled_events": ["*"]})
        changed = await sdk.v1.webhook_endpoints.update_async(made.id, {"enabled_events": ["product.created"]})
        assert changed.enabled_events == ["product.created"]
        await sdk.v1.products.create_async({"name": "a"})
        assert len(fake.pending_deliveries()) == 1
        assert (await sdk.v1.webhook_endpoints.update_async(made.id, {"disabled": True})).status == "disabled"
        await sdk.v1.products.create_async({"name": "b"})
        assert len(fake.pending_deliveries()) == 1
        await sdk.v1.webhook_endpoints.delete_async(made.id)
        assert fake.pending_deliveries() == []
        with pytest.raises(stripe.InvalidRequestError):
            await sdk.v1.webhook_endpoints.retrieve_async(made.id)
        with pytest.raises(stripe.InvalidRequestError, match="must be one of"):
            await sdk.v1.webhook_endpoints.create_async({"url": URL, "enabled_events": ["customer.craeted"]})

    with_stripe(body, check=False)


@pytest.mark.parametrize(("version", "on_items"), [("2024-06-20", False), ("2026-10-28.endive", True)])
def test_the_endpoints_version_decides_the_shape(version, on_items):
    async def body(fake, sdk):
        fake.add_endpoint(URL, api_version=version)
        shop: Shop = await open_shop(sdk)
        found = await shop.subscribe(await shop.customer())
        got = {delivery.event_type: json.loads(delivery.body) for delivery in fake.take_deliveries()}
        subscription = got["customer.subscription.created"]["data"]["object"]
        invoice = got["invoice.paid"]["data"]["object"]
        assert got["invoice.paid"]["api_version"] == version
        if on_items:
            assert "current_period_end" not in subscription
            assert subscription["items"]["data"][0]["current_period_end"]
            assert invoice["parent"]["subscription_details"]["subscription"] == found.id
        else:
            assert subscription["current_period_end"]
            assert "current_period_end" not in subscription["items"]["data"][0]
            assert invoice["subscription"] == found.id
            assert "parent" not in invoice

    with_stripe(body)


def test_bodies_are_indented_so_that_printing_them_again_breaks_the_signature():
    fake = FakeStripe()
    _, secret = fake.add_endpoint(URL)

    async def body(fake, sdk):
        await sdk.v1.customers.create_async()

    with_stripe(body, fake)
    (delivery,) = fake.take_deliveries()
    again = json.dumps(json.loads(delivery.body)).encode()
    with pytest.raises(stripe.SignatureVerificationError):
        stripe.WebhookSignature.verify_header(again, delivery.headers["stripe-signature"], secret)


def test_while_a_secret_is_rolled_both_verify():
    async def body(fake, sdk):
        endpoint, old = fake.add_endpoint(URL)
        new = fake.roll_secret(endpoint)
        await sdk.v1.customers.create_async()
        (delivery,) = fake.pending_deliveries()
        assert verified(delivery, old) == verified(delivery, new)
        fake.expire_secret(endpoint)
        (delivery,) = fake.pending_deliveries()
        verified(delivery, new)
        with pytest.raises(stripe.SignatureVerificationError):
            verified(delivery, old)

    with_stripe(body)


def test_deliveries_can_come_twice_out_of_order_or_only_in_part():
    async def body(fake, sdk):
        fake.add_endpoint(URL)
        for name in ("a", "b", "c"):
            await sdk.v1.products.create_async({"name": name})
        receiver = Receiver()
        await fake.deliver(receiver, only=lambda one: json.loads(one.body)["data"]["object"]["name"] == "b")
        await fake.deliver(receiver, times=2, order=lambda due: due[::-1])
        names = [json.loads(one.body)["data"]["object"]["name"] for one in receiver.got]
        assert names == ["b", "c", "c", "a", "a"]
        assert await fake.deliver(receiver) == []

    with_stripe(body)


def test_what_an_endpoint_refuses_comes_again_with_a_new_signature():
    async def body(fake, sdk):
        fake.add_endpoint(URL)
        await sdk.v1.products.create_async({"name": "a"})
        receiver = Receiver(500, ConnectionResetError())
        await fake.deliver(receiver)
        assert await fake.deliver(receiver) == []
        fake.advance(HOUR_S)
        await fake.deliver(receiver)
        fake.advance(2 * HOUR_S)
        await fake.deliver(receiver)
        assert [one.attempt for one in receiver.got] == [1, 2, 3]
        assert len({one.headers["stripe-signature"] for one in receiver.got}) == 3
        assert len({one.event_id for one in receiver.got}) == 1
        fake.advance(100 * HOUR_S)
        assert await fake.deliver(receiver) == []

    with_stripe(body)


def test_retries_end_after_three_days():
    async def body(fake, sdk):
        fake.add_endpoint(URL)
        await sdk.v1.products.create_async({"name": "a"})
        receiver = Receiver(*[500] * 20)
        for _ in range(100):
            await fake.deliver(receiver)
            fake.advance(HOUR_S)
        return len(receiver.got)

    assert with_stripe(body) == 7


def test_what_was_never_delivered_is_found_in_the_list_of_events():
    async def body(fake, sdk):
        fake.add_endpoint(URL, ("product.created",))
        for name in ("lost", "fine"):
            await sdk.v1.products.create_async({"name": name})
        lost, fine = fake.take_deliveries()
        assert fake.take_deliveries() == []
        fake.lose(lost)
        fake.confirm(fine)

        async def found(**params):
            return [event.id async for event in (await sdk.v1.events.list_async(params)).auto_paging_iter()]

        assert await found(delivery_success=False) == [lost.event_id]
        assert await found(delivery_success=True) == [fine.event_id]
        assert await found() == [fine.event_id, lost.event_id]
        assert await found(type="product.*") == [fine.event_id, lost.event_id]
        assert await found(types=["customer.created"]) == []
        event = await sdk.v1.events.retrieve_async(lost.event_id)
        assert (event.data.object.name, event.pending_webhooks) == ("lost", 1)
        fake.advance(30 * 24 * HOUR_S)
        assert await found() == []

    with_stripe(body)


def test_with_a_sender_events_leave_by_themselves_after_each_call():
    receiver = Receiver()
    fake = FakeStripe(sender=receiver)
    fake.add_endpoint(URL)

    async def body(fake, sdk):
        await sdk.v1.products.create_async({"name": "a"})
        await sdk.v1.products.list_async()

    with_stripe(body, fake)
    assert [one.event_type for one in receiver.got] == ["product.created"]


@pytest.mark.parametrize("livemode", [False, True])
def test_an_event_says_which_mode_it_is_from(livemode):
    async def body(fake, sdk):
        _, secret = fake.add_endpoint(URL)
        await sdk.v1.customers.create_async()
        return verified(fake.take_deliveries()[0], secret)["livemode"]

    assert with_stripe(body, FakeStripe(livemode=livemode)) is livemode


def test_thin_events_go_to_destinations_and_carry_no_object():
    async def body(fake, sdk):
        params = {
            "name": "gatekeeper",
            "type": "webhook_endpoint",
            "event_payload": "thin",
            "enabled_events": ["v1.billing.meter.error_report_triggered"],
            "webhook_endpoint": {"url": URL},
            "include": ["webhook_endpoint.signing_secret"],
        }
        made = await sdk.v2.core.event_destinations.create_async(params)
        secret = made.webhook_endpoint.signing_secret
        (listed,) = (await sdk.v2.core.event_destinations.list_async()).data
        assert listed.id == made.id
        assert listed.webhook_endpoint.to_dict() == {"url": None}
        (listed,) = (await sdk.v2.core.event_destinations.list_async({"include": ["webhook_endpoint.url"]})).data
        assert listed.webhook_endpoint.to_dict() == {"url": URL}
        shop = await open_shop(sdk)
        await shop.use("cus_gone", 1, "x")
        fake.report_meter_errors()
        (delivery,) = fake.take_deliveries()
        event = verified(delivery, secret)
        assert (event["object"], event["related_object"]["id"]) == ("v2.core.event", shop.meter)
        assert "data" not in event
        told = sdk.parse_event_notification_without_verification(delivery.body)
        assert type(told).__name__ == "V1BillingMeterErrorReportTriggeredEventNotification"

    with_stripe(body)


def test_two_deliveries_at_the_same_time_send_each_event_once():
    async def body(fake, sdk):
        fake.add_endpoint(URL)
        for name in ("a", "b"):
            await sdk.v1.products.create_async({"name": name})
        receiver = Receiver()

        async def slowly(delivery):
            await asyncio.sleep(0)
            return await receiver(delivery)

        await asyncio.gather(fake.deliver(slowly), fake.deliver(slowly))
        return [json.loads(one.body)["data"]["object"]["name"] for one in receiver.got]

    assert with_stripe(body) == ["a", "b"]


def test_a_destination_is_changed_switched_off_and_deleted():
    async def body(fake, sdk):
        made, secret = fake.add_thin_destination(URL)
        assert fake.secret(made) == secret
        destinations = sdk.v2.core.event_destinations
        await destinations.update_async(made, {"metadata": {"a": "1", "b": "2"}, "enabled_events": ["x"]})
        changed = await destinations.update_async(
            made, {"metadata": {"a": None}, "webhook_endpoint": {"url": URL + "2"}}
        )
        assert (changed.metadata.to_dict(), changed.enabled_events) == ({"b": "2"}, ["x"])
        assert (await destinations.disable_async(made)).status == "disabled"
        assert (await destinations.enable_async(made)).status == "enabled"
        await destinations.delete_async(made)
        assert (await destinations.list_async()).data == []

    with_stripe(body)
