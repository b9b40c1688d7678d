"""Keys, versions, pages, expansion, idempotency and errors, seen through the real SDK."""

import asyncio

import pytest
import stripe
from fakes.sdk import Shop, open_shop, stripe_client, with_stripe

from gatekeeper.demo.stripe import LIVE_KEY, TEST_KEY, FakeStripe, Fault

DAY_S = 86_400


def test_a_key_of_the_other_mode_is_a_401_that_does_not_repeat_it():
    async def body(fake, sdk):
        with pytest.raises(stripe.AuthenticationError) as refused:
            await sdk.v1.customers.list_async()
        return str(refused.value)

    told = with_stripe(body, key=LIVE_KEY)
    assert "Invalid API Key" in told
    assert LIVE_KEY not in told
    with_stripe(body, FakeStripe(livemode=True), key=TEST_KEY)


@pytest.mark.parametrize("livemode", [False, True])
def test_objects_say_which_mode_they_live_in(livemode):
    async def body(fake, sdk):
        return (await sdk.v1.customers.create_async()).livemode

    assert with_stripe(body, FakeStripe(livemode=livemode)) is livemode


def test_lists_are_newest_first_and_go_on_from_a_cursor():
    async def body(fake, sdk):
        made = [(await sdk.v1.customers.create_async({"email": f"{i}@x.y"})).id for i in range(25)]
        first = await sdk.v1.customers.list_async()
        assert [one.id for one in first.data] == made[::-1][:10]
        assert first.has_more
        rest = await sdk.v1.customers.list_async({"limit": 100, "starting_after": first.data[-1].id})
        assert [one.id for one in rest.data] == made[::-1][10:]
        assert not rest.has_more
        back = await sdk.v1.customers.list_async({"limit": 3, "ending_before": rest.data[0].id})
        assert [one.id for one in back.data] == made[::-1][7:10]
        everything = [one.id async for one in (await sdk.v1.customers.list_async({"limit": 7})).auto_paging_iter()]
        assert everything == made[::-1]
        named = await sdk.v1.customers.list_async({"email": "7@x.y"})
        assert [one.id for one in named.data] == [made[7]]
        with pytest.raises(stripe.InvalidRequestError, match="between 1 and 100"):
            await sdk.v1.customers.list_async({"limit": 101})

    with_stripe(body)


def test_a_missing_object_is_a_404_with_code_and_param():
    async def body(fake, sdk):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await sdk.v1.customers.retrieve_async("cus_none")
        assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")
        assert "No such customer: 'cus_none'" in str(refused.value)
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await sdk.v1.prices.create_async({"currency": "usd", "product": "prod_none", "unit_amount": 1})
        assert refused.value.param == "product"

    with_stripe(body)


def test_metadata_merges_and_an_empty_value_unsets():
    async def body(fake, sdk):
        one = await sdk.v1.customers.create_async({"metadata": {"a": "1", "b": "2"}})
        one = await sdk.v1.customers.update_async(one.id, {"metadata": {"a": "", "c": "3"}, "name": "Ada"})
        assert one.metadata.to_dict() == {"b": "2", "c": "3"}
        assert one.name == "Ada"
        await sdk.v1.customers.delete_async(one.id)
        assert (await sdk.v1.customers.retrieve_async(one.id)).deleted is True
        assert (await sdk.v1.customers.list_async()).data == []

    with_stripe(body)


def test_expand_replaces_an_id_and_shows_what_is_hidden():
    async def body(fake, sdk):
        shop = await open_shop(sdk)
        plain = await sdk.v1.prices.retrieve_async(shop.metered)
        assert "tiers" not in plain.to_dict()
        asked = await sdk.v1.prices.list_async({"expand": ["data.tiers", "data.product"], "limit": 1})
        assert [tier.up_to for tier in asked.data[0].tiers] == [100_000, None]
        assert asked.data[0].product.name == "Starter"
        found = await shop.subscribe(await shop.customer(), expand=["latest_invoice", "items.data.price.tiers"])
        assert found.latest_invoice.status == "paid"
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await sdk.v1.prices.retrieve_async(shop.metered, {"expand": ["colour"]})
        assert refused.value.code == "property_cannot_be_expanded"

    with_stripe(body)


def test_one_idempotency_key_gives_one_object_and_the_same_answer():
    async def body(fake, sdk):
        first = await sdk.v1.customers.create_async({"email": "a@b.c"}, {"idempotency_key": "k"})
        again = await sdk.v1.customers.create_async({"email": "a@b.c"}, {"idempotency_key": "k"})
        assert first.id == again.id
        assert len(fake.objects("customer")) == 1
        assert [call.replayed for call in fake.requests.to("/v1/customers")] == [False, True]
        with pytest.raises(stripe.IdempotencyError, match="same parameters"):
            await sdk.v1.customers.create_async({"email": "other@b.c"}, {"idempotency_key": "k"})
        with pytest.raises(stripe.IdempotencyError, match="same endpoint"):
            await sdk.v1.products.create_async({"name": "p"}, {"idempotency_key": "k"})
        fake.advance(DAY_S - 1)
        assert (await sdk.v1.customers.create_async({"email": "a@b.c"}, {"idempotency_key": "k"})).id == first.id
        fake.advance(1)
        later = await sdk.v1.customers.create_async({"email": "other@b.c"}, {"idempotency_key": "k"})
        assert later.id != first.id

    with_stripe(body)


def test_the_sdk_sends_a_key_of_its_own_with_every_post():
    async def body(fake, sdk):
        await sdk.v1.customers.create_async()
        await sdk.v1.customers.create_async()
        await sdk.v1.customers.list_async()
        return [call.idempotency_key for call in fake.requests.all]

    first, second, listed = with_stripe(body)
    assert first and second and first != second
    assert listed is None


def test_a_kept_500_sticks_to_its_key_and_a_new_key_recovers():
    async def body(fake, sdk):
        fake.fail("/v1/customers", Fault.error(500, sticks=True))
        for _ in range(3):
            with pytest.raises(stripe.APIError):
                await sdk.v1.customers.create_async({"email": "a@b.c"}, {"idempotency_key": "k"})
        assert fake.objects("customer") == []
        assert (await sdk.v1.customers.create_async({"email": "a@b.c"}, {"idempotency_key": "k2"})).id
        # Told not to, the SDK does not retry within a call either.
        assert len(fake.requests.to("/v1/customers")) == 4

    with_stripe(body, max_network_retries=2)


def test_an_error_of_the_endpoint_is_kept_but_a_validation_error_is_not():
    async def body(fake, sdk):
        wrong = {"currency": "usd", "product": "prod_new", "unit_amount": 1}
        with pytest.raises(stripe.InvalidRequestError):
            await sdk.v1.prices.create_async(wrong, {"idempotency_key": "saved"})
        await sdk.v1.products.create_async({"id": "prod_new", "name": "New"})
        with pytest.raises(stripe.InvalidRequestError, match="No such product"):
            await sdk.v1.prices.create_async(wrong, {"idempotency_key": "saved"})
        with pytest.raises(stripe.InvalidRequestError, match="unknown parameter"):
            await sdk.v1.customers.create_async({"emial": "a"}, {"idempotency_key": "forgotten"})
        assert (await sdk.v1.customers.create_async({"email": "a"}, {"idempotency_key": "forgotten"})).id

    with_stripe(body, check=False)


def test_two_calls_in_flight_with_one_key_conflict():
    async def body(fake, sdk):
        gate = asyncio.Event()
        fake.fail("/v1/customers", Fault.slow(gate))
        fake.latency_s = 0.05
        calls = [
            asyncio.create_task(sdk.v1.customers.create_async({"email": "a"}, {"idempotency_key": "k"}))
            for _ in range(2)
        ]
        await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
        gate.set()
        done = await asyncio.gather(*calls)
        assert {one.id for one in done} == {done[0].id}
        return fake.requests.max_in_flight, len(fake.objects("customer"))

    assert with_stripe(body) == (2, 1)


@pytest.mark.parametrize(
    ("version", "on_items"), [("2024-06-20", False), ("2025-03-31.basil", True), ("2026-10-28.endive", True)]
)
def test_the_version_header_decides_the_shape(version, on_items):
    async def body(fake, sdk):
        shop = await open_shop(sdk)
        found = await shop.subscribe(await shop.customer())
        plain = found.to_dict()
        assert ("current_period_end" in plain["items"]["data"][0]) is on_items
        assert ("current_period_end" in plain) is not on_items
        invoice = (await sdk.v1.invoices.retrieve_async(plain["latest_invoice"])).to_dict()
        if on_items:
            assert invoice["parent"]["subscription_details"]["subscription"] == found.id
            assert "subscription" not in invoice
        else:
            assert invoice["subscription"] == found.id
            assert invoice["lines"]["data"][0]["price"]["id"] == shop.licensed
        # Flexible has been the default since 2025-09-30.clover.
        assert plain["billing_mode"]["type"] == ("flexible" if version > "2025-09" else "classic")

    with_stripe(body, version=version)


def test_the_log_shows_no_telemetry_and_counts_what_came():
    async def body(fake, sdk):
        for _ in range(3):
            await sdk.v1.customers.create_async()
        assert len(fake.requests) == 3
        assert not any("x-stripe-client-telemetry" in call.headers for call in fake.requests.all)
        assert {call.headers["stripe-version"] for call in fake.requests.all} == {"2026-10-28.endive"}
        fake.requests.clear()
        assert len(fake.requests) == 0

    with_stripe(body)


def test_an_account_that_follows_a_clock_runs_what_is_due_when_it_is_called():
    class Moved:
        ms = 1_781_524_800_000

        def now_ms(self):
            return self.ms

        def monotonic_s(self):
            return self.ms / 1000

        async def sleep(self, seconds):
            raise AssertionError(seconds)

    clock = Moved()

    async def body(fake, sdk):
        shop: Shop = await open_shop(sdk)
        found = await shop.subscribe(await shop.customer())
        clock.ms += 31 * DAY_S * 1000
        assert len(fake.objects("invoice")) == 1
        seen = await sdk.v1.subscriptions.retrieve_async(found.id)
        assert seen["items"].data[0].current_period_start == found["items"].data[0].current_period_end
        assert [row["status"] for row in fake.objects("invoice")] == ["paid", "paid"]

    with_stripe(body, FakeStripe(clock=clock))


def test_two_clients_share_one_fake():
    async def body(fake, sdk):
        made = await sdk.v1.customers.create_async()
        async with fake.serve() as second_url, stripe_client(second_url) as other:
            assert (await other.v1.customers.retrieve_async(made.id)).id == made.id

    with_stripe(body)
