"""Meters and their events: what is accepted, what counts, what is reported later."""

import asyncio

import pytest
import stripe
from fakes.sdk import EVENT_NAME, Shop, open_shop, with_stripe

from gatekeeper.demo.stripe import START_MS, FakeStripe

NOW_S = START_MS // 1000
DAY_S = 86_400


def shopping(body, **more):
    """Runs ``body(fake, shop, customer)``."""

    async def run(fake, sdk):
        shop: Shop = await open_shop(sdk)
        return await body(fake, shop, await shop.customer())

    return with_stripe(run, **more)


def test_a_meter_owns_its_event_name_until_it_is_deactivated():
    async def body(fake, shop, customer):
        meters = shop.sdk.v1.billing.meters
        params = {"display_name": "B", "event_name": EVENT_NAME, "default_aggregation": {"formula": "sum"}}
        with pytest.raises(stripe.InvalidRequestError, match="already exists"):
            await meters.create_async(params)
        assert (await meters.update_async(shop.meter, {"display_name": "New"})).display_name == "New"
        assert (await meters.deactivate_async(shop.meter)).status == "inactive"
        second = await meters.create_async(params)
        assert [one.id for one in (await meters.list_async({"status": "active"})).data] == [second.id]
        with pytest.raises(stripe.InvalidRequestError):
            await meters.reactivate_async(shop.meter)

    shopping(body)


@pytest.mark.parametrize("value", ["1.5", "1e3", "", "1234567890123456", "ten", " 1"])
def test_a_value_is_a_whole_number_of_at_most_15_digits(value):
    async def body(fake, shop, customer):
        payload = {"stripe_customer_id": customer, "value": value}
        with pytest.raises(stripe.InvalidRequestError, match="whole number"):
            await shop.sdk.v1.billing.meter_events.create_async({"event_name": EVENT_NAME, "payload": payload})
        await shop.use(customer, 999_999_999_999_999, "big")
        assert fake.metered_units() == 999_999_999_999_999

    shopping(body)


def test_the_same_identifier_within_24_hours_is_a_400_that_is_not_retried():
    async def body(fake, shop, customer):
        await shop.use(customer, 5, "one")
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.use(customer, 5, "one")
        assert "An event already exists with identifier one." in str(refused.value)
        assert refused.value.headers["stripe-should-retry"] == "false"
        fake.advance(DAY_S - 1)
        with pytest.raises(stripe.InvalidRequestError):
            await shop.use(customer, 5, "one")
        assert fake.metered_units(customer) == 5
        # "At least 24 hours": after that a resend counts twice, which is why it must be reconciled first.
        fake.advance(1)
        await shop.use(customer, 5, "one")
        assert fake.metered_units(customer) == 10

    shopping(body)


@pytest.mark.parametrize(
    ("off_s", "accepted"), [(0, True), (300, True), (301, False), (-35 * DAY_S, True), (-35 * DAY_S - 1, False)]
)
def test_a_timestamp_is_neither_too_old_nor_too_far_ahead(off_s, accepted):
    async def body(fake, shop, customer):
        if accepted:
            await shop.use(customer, 1, "x", NOW_S + off_s)
            assert fake.meter_events[0].timestamp_s == NOW_S + off_s
            return
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await shop.use(customer, 1, "x", NOW_S + off_s)
        assert refused.value.param == "timestamp"

    shopping(body)


def test_identifiers_are_at_most_100_characters_and_made_up_when_missing():
    async def body(fake, shop, customer):
        with pytest.raises(stripe.InvalidRequestError, match="100 characters"):
            await shop.use(customer, 1, "x" * 101)
        events = shop.sdk.v1.billing.meter_events
        params = {"event_name": EVENT_NAME, "payload": {"stripe_customer_id": customer, "value": "1"}}
        made = [(await events.create_async(params)).identifier for _ in range(2)]
        assert len(set(made)) == 2

    shopping(body)


def test_unknown_customers_and_event_names_are_accepted_and_reported_later():
    async def body(fake, shop, customer):
        _, _ = fake.add_thin_destination("https://example.com/thin")
        await shop.use("cus_gone", 3, "lost")
        await shop.use(customer, 4, "fine")
        payload = {"stripe_customer_id": customer, "value": "1"}
        await shop.sdk.v1.billing.meter_events.create_async({"event_name": "misspelled", "payload": payload})
        assert fake.metered_units() == 4
        assert fake.take_deliveries() == []
        fake.advance(fake.settings.meter_report_after_s)
        by_type = {delivery.event_type: delivery for delivery in fake.take_deliveries()}
        assert set(by_type) == {"v1.billing.meter.error_report_triggered", "v1.billing.meter.no_meter_found"}
        told = shop.sdk.parse_event_notification_without_verification(
            by_type["v1.billing.meter.error_report_triggered"].body
        )
        assert told.related_object.id == shop.meter
        # Not fetch_event_async: in 16.1.0 it sends its own telemetry word ("usage") as a parameter.
        full = await shop.sdk.v2.core.events.retrieve_async(told.id)
        (kind,) = full.data.reason.error_types
        assert (kind.code, kind.error_count) == ("meter_event_customer_not_found", 1)
        assert (await shop.sdk.v2.core.events.list_async()).data[0].type.startswith("v1.billing.meter.")

    shopping(body)


def test_an_accepted_event_can_turn_out_bad_afterwards():
    async def body(fake, shop, customer):
        await shop.use(customer, 3, "later-bad")
        fake.reject_meter_event("later-bad")
        assert fake.metered_units() == 0
        fake.report_meter_errors()
        (event,) = fake.objects("v2.core.event")
        sample = event["data"]["reason"]["error_types"][0]["sample_errors"][0]
        assert sample["request"]["identifier"] == fake.requests.to("*meter_events")[0].idempotency_key
        fake.advance(3600)
        assert len(fake.objects("v2.core.event")) == 1

    shopping(body)


def test_an_event_is_cancelled_within_24_hours_only():
    async def body(fake, shop, customer):
        adjustments = shop.sdk.v1.billing.meter_event_adjustments
        params = {"event_name": EVENT_NAME, "type": "cancel", "cancel": {"identifier": "a"}}
        with pytest.raises(stripe.InvalidRequestError, match="No meter event"):
            await adjustments.create_async(params)
        await shop.use(customer, 5, "a")
        await shop.use(customer, 6, "b")
        assert (await adjustments.create_async(params)).status == "pending"
        assert fake.metered_units() == 6
        fake.advance(DAY_S + 1)
        with pytest.raises(stripe.InvalidRequestError, match="24 hours"):
            await adjustments.create_async({**params, "cancel": {"identifier": "b"}})

    shopping(body)


def test_summaries_are_aligned_exclusive_at_the_end_and_lag():
    async def body(fake, shop, customer):
        hour_s = NOW_S - 3600
        for identifier, value, at_s in (("a", 1, hour_s), ("b", 2, hour_s + 3599), ("c", 4, hour_s + 3600)):
            await shop.use(customer, value, identifier, at_s)
        summaries = shop.sdk.v1.billing.meters.event_summaries

        async def total(start_s, end_s, **more):
            params = {"customer": customer, "start_time": start_s, "end_time": end_s, **more}
            return [row.aggregated_value for row in (await summaries.list_async(shop.meter, params)).data]

        assert await total(hour_s, hour_s + 3600) == [3]
        assert await total(hour_s, hour_s + 7200) == [7]
        assert await total(hour_s, hour_s + 7200, value_grouping_window="hour") == [4, 3]
        assert await total(hour_s - 60, hour_s) == []
        with pytest.raises(stripe.InvalidRequestError, match="minute boundaries"):
            await total(hour_s + 1, hour_s + 3600)
        with pytest.raises(stripe.InvalidRequestError, match="later than"):
            await total(hour_s, hour_s)
        fake.settings.meter_lag_s = 120
        assert await total(hour_s, hour_s + 3600) == []
        fake.advance(120)
        assert await total(hour_s, hour_s + 3600) == [3]

    shopping(body)


@pytest.mark.parametrize(("formula", "expected"), [("sum", 9), ("count", 3), ("last", 4)])
def test_a_meter_aggregates_by_its_formula(formula, expected):
    async def body(fake, sdk):
        meter = await sdk.v1.billing.meters.create_async(
            {"display_name": "M", "event_name": "m", "default_aggregation": {"formula": formula}}
        )
        customer = (await sdk.v1.customers.create_async()).id
        for value, at_s in ((2, -60), (4, 0), (3, -120)):
            payload = {"stripe_customer_id": customer, "value": str(value)}
            params = {"event_name": "m", "payload": payload, "timestamp": NOW_S + at_s}
            await sdk.v1.billing.meter_events.create_async(params)
        params = {"customer": customer, "start_time": NOW_S - 600, "end_time": NOW_S + 60}
        (row,) = (await sdk.v1.billing.meters.event_summaries.list_async(meter.id, params)).data
        assert row.aggregated_value == expected

    with_stripe(body)


def test_parallel_calls_for_different_customers_overlap():
    async def body(fake, sdk):
        shop = await open_shop(sdk)
        customers = [await shop.customer() for _ in range(4)]
        fake.latency_s = 0.05
        await asyncio.gather(*(shop.use(one, 1, one) for one in customers))
        assert fake.requests.max_in_flight > 1
        assert fake.requests.max_in_flight_by_meter == 1

    with_stripe(body, FakeStripe())
