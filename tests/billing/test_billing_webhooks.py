"""Webhooks: taken as they came, kept before they are answered, harmless however often and in whatever order."""

import asyncio
import json
from dataclasses import replace

import pytest
import stripe
from billing_shop import URL, Shop, at_shop

from gatekeeper.billing.subscriptions import When
from gatekeeper.config.gateway import Secret
from gatekeeper.demo.stripe import Card
from gatekeeper.demo.stripe import Fault as Broken
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.rules.billing import BatchState
from gatekeeper.rules.hints import Junk, read, subscription_of, verify
from gatekeeper.rules.notices import Kind

NOW_S = 1_750_000_000
SECRET = "whsec_one"
BODY = b'{"id": "evt_1", "object": "event", "type": "invoice.paid", "livemode": false, "data": {"object": {}}}'


def signed(body: bytes = BODY, secret: str = SECRET, at_s: int = NOW_S) -> str:
    """As Stripe signs: by the SDK's own function."""
    return stripe.WebhookSignature.generate_signature_header(body.decode("utf-8", "surrogateescape"), secret, at_s)


def test_what_the_sdk_signs_is_verified_and_every_secret_counts():
    """Pitfall 41: while a secret is rolled, old and new are both accepted."""
    for secret in ("whsec_old", "whsec_new"):
        verify(BODY, signed(secret=secret), ["whsec_new", "whsec_old"], NOW_S)
    with pytest.raises(Junk):
        verify(BODY, signed(secret="whsec_other"), ["whsec_new", "whsec_old"], NOW_S)
    with pytest.raises(Junk):
        verify(BODY, signed(secret=""), [], NOW_S)


@pytest.mark.parametrize(("late_s", "good"), [(0, True), (300, True), (-300, True), (301, False), (-3_600, False)])
def test_a_signature_holds_for_five_minutes_in_both_directions(late_s, good):
    """Pitfall 39: one that is dated in the future is refused too."""
    if good:
        verify(BODY, signed(), [SECRET], NOW_S + late_s)
    else:
        with pytest.raises(Junk, match="5 minutes"):
            verify(BODY, signed(), [SECRET], NOW_S + late_s)


def test_the_body_is_verified_as_it_came():
    """Pitfall 38: odd white space is part of what was signed."""
    odd = BODY.replace(b": ", b" :\n\t")
    verify(odd, signed(odd), [SECRET], NOW_S)
    assert read(odd, live=False).text == odd.decode()
    with pytest.raises(Junk):
        verify(json.dumps(json.loads(odd)).encode(), signed(odd), [SECRET], NOW_S)


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"null", b"[]", b"{}", b'"text"', b"\xff\xfe", b"[" * 100_000, b'{"id": 1, "type": "a"}',
     b'{"id": "evt_1", "type": "a"}', b'{"id": "evt\\u0000", "type": "a", "livemode": false}',
     b'{"id": "evt_1", "type": "a", "livemode": true}', b'{"id": "evt_1", "type": "a", "livemode": 0}'],
)  # fmt: skip
def test_signed_junk_is_no_event(body):
    """Pitfall 40: whatever is in a signed body, it is a 400 and no mistake of ours."""
    with pytest.raises(Junk):
        read(body, live=False)


@pytest.mark.parametrize(
    "header",
    [None, "", "t=", "v1=aa", "t=1", "t=x,v1=aa", f"t={NOW_S}", f"t={NOW_S},v1=\xe9\xff", f"t={NOW_S},v0=aa",
     f"t={'9' * 30},v1=aa", "t=\u0661,v1=aa", "t=" + "1" * 9_000, f"t={NOW_S}" + ",v1=aa" * 40],
)  # fmt: skip
def test_a_header_that_is_none_is_refused(header):
    """Pitfall 40: non-ASCII, empty and endless headers."""
    with pytest.raises(Junk):
        verify(BODY, header, [SECRET], NOW_S)


@pytest.mark.parametrize("live", [False, True])
def test_an_event_of_the_other_mode_is_refused(live):
    """Pitfall 49: a test event proves nothing about real money."""
    body = BODY.replace(b'"livemode": false', b'"livemode": true') if live else BODY
    assert read(body, live=live).id == "evt_1"
    with pytest.raises(Junk, match="mode"):
        read(body, live=not live)


def test_a_live_key_takes_live_events_only(sqlite_url):
    """Pitfall 49, through the whole way in."""

    async def body(shop: Shop) -> None:
        (secret, *_) = [one.reveal() for one in shop.gateway.stripe.webhook_secrets]
        assert shop.sales.live
        header = signed(secret=secret, at_s=shop.clock.now_ms() // 1000)
        with pytest.raises(Refusal) as refused:
            await shop.webhooks.receive(BODY, header)
        assert refused.value.status == 400

    at_shop(sqlite_url, body, livemode=True)


def test_without_a_secret_nothing_is_taken(sqlite_url):
    """Pitfall 42: an empty list of secrets, or an empty one, verifies nothing."""

    async def body(shop: Shop) -> None:
        shop.gateway = replace(shop.gateway, stripe=replace(shop.gateway.stripe, webhook_secrets=()))
        header = signed(secret="", at_s=shop.clock.now_ms() // 1000)
        with pytest.raises(Refusal) as refused:
            await shop.webhooks.receive(BODY, header)
        assert refused.value.code is Code.BAD_REQUEST

    at_shop(sqlite_url, body)


def test_an_old_secret_is_taken_until_it_is_taken_away(sqlite_url):
    """Pitfall 41, with deliveries that carry both signatures."""

    async def body(shop: Shop) -> None:
        endpoint = shop.fake.objects("webhook_endpoint")[0]["id"]
        new = shop.fake.roll_secret(endpoint)
        await shop.subscribe("ada", "starter")
        assert (await shop.customer()).plan_id == "starter"
        shop.fake.expire_secret(endpoint)
        await shop.subscriptions.cancel("ada")
        assert {await shop.receive(one) for one in shop.fake.pending_deliveries()} == {400}
        stripe_config = replace(shop.gateway.stripe, webhook_secrets=(Secret(new),))
        shop.gateway = replace(shop.gateway, stripe=stripe_config)
        assert {await shop.receive(one) for one in shop.fake.pending_deliveries()} == {200}

    at_shop(sqlite_url, body)


def test_an_event_that_comes_twice_is_worked_on_once(store_url):
    """Pitfall 34: also when it comes by two URLs, and at the same moment."""

    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        shop.fake.complete_checkout(shop.fake.objects("checkout.session")[0]["id"])
        due = shop.fake.take_deliveries()
        answers = await asyncio.gather(*(shop.receive(one) for one in [*due, *due, *due]))
        assert set(answers) == {200}
        assert await shop.webhooks.turn() == len({one.event_id for one in due})
        assert await shop.webhooks.turn() == 0
        assert len(await shop.told(Kind.INVOICE_PAID)) == 1
        assert len(await shop.told(Kind.SUBSCRIPTION_CHANGED)) == 1

    at_shop(store_url, body)


def test_events_in_any_order_end_in_what_stripe_says_now(sqlite_url):
    """Pitfall 35: ``deleted`` before ``updated``, and what is off stays off."""

    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        shop.fake.complete_checkout(shop.fake.objects("checkout.session")[0]["id"])
        await shop.webhooks.turn()
        sub = shop.subscription()["id"]
        await shop.sales._client.v1.subscriptions.update_async(sub, {"metadata": {"a": "b"}})
        await shop.sales._client.v1.subscriptions.cancel_async(sub)
        await shop.settle(order=lambda due: due[::-1])
        assert (await shop.customer()).plan_id == "free"
        # The late news of one that is gone does not end the one that was bought since.
        await shop.subscribe("ada", "enterprise")
        late = [one for one in shop.fake.objects("event") if one["type"] == "customer.subscription.deleted"]
        body = json.dumps({**late[0], "id": "evt_again"}).encode()
        (secret, *_) = [one.reveal() for one in shop.gateway.stripe.webhook_secrets]
        assert await shop.webhooks.receive(body, signed(body, secret, shop.clock.now_ms() // 1000))
        await shop.webhooks.turn()
        assert (await shop.customer()).plan_id == "enterprise"

    at_shop(sqlite_url, body)


def test_a_database_that_is_away_is_no_200(sqlite_url):
    """Pitfall 37: what is not on the disk is not confirmed, so that it comes again."""

    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        shop.fake.complete_checkout(shop.fake.objects("checkout.session")[0]["id"])
        due = shop.fake.take_deliveries()
        await shop.store.close()
        for delivery in due:
            with pytest.raises(Fault):
                await shop.webhooks.receive(delivery.body, delivery.headers["stripe-signature"])

    at_shop(sqlite_url, body)


def test_what_was_never_delivered_is_asked_for(sqlite_url):
    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        shop.fake.complete_checkout(shop.fake.objects("checkout.session")[0]["id"])
        for delivery in shop.fake.take_deliveries():
            shop.fake.lose(delivery)
        await shop.webhooks.turn()
        assert (await shop.customer()).plan_id == "free"
        shop.fake.fail("/v1/events", Broken.error(503), times=3)
        shop.clock.now_s += 3_601
        with pytest.raises(Fault):
            await shop.webhooks.turn()
        # It is not asked for an hour less often because it failed.
        shop.clock.now_s += 61
        await shop.webhooks.turn()
        assert (await shop.customer()).plan_id == "starter"
        assert await shop.webhooks.missed() == 0

    at_shop(sqlite_url, body)


@pytest.mark.parametrize("version", ["2024-06-20", "2026-10-28.endive"])
def test_events_of_old_and_new_versions_mean_the_same(version, sqlite_url):
    """Pitfall 43: the endpoint's version decides where an invoice names its subscription."""

    async def body(shop: Shop) -> None:
        _, secret = shop.fake.add_endpoint(f"{URL}/webhook/stripe", api_version=version)
        stripe_config = replace(shop.gateway.stripe, webhook_secrets=(Secret(secret),))
        shop.gateway = replace(shop.gateway, stripe=stripe_config)
        await shop.subscriptions.checkout("ada", "starter")
        shop.fake.complete_checkout(shop.fake.objects("checkout.session")[0]["id"])
        due = [one for one in shop.fake.pending_deliveries() if one.url.endswith("/webhook/stripe")]
        sub = shop.subscription()["id"]
        invoices = [json.loads(one.body)["data"]["object"] for one in due if one.event_type.startswith("invoice.")]
        assert {subscription_of(one) for one in invoices} == {sub}
        assert {await shop.receive(one) for one in due} == {200}
        await shop.webhooks.turn()
        assert (await shop.customer()).plan_id == "starter"
        assert [one.subscription_id for one in await shop.store.kept_invoices("ada", 9)] == [sub]

    at_shop(sqlite_url, body)


def test_objects_of_the_sdk_are_read_as_dicts(sqlite_url):
    """Pitfall 44: a StripeObject has no ``get``; what is read here came through the real SDK."""

    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        account = (await shop.customer()).stripe_customer_id
        found = (await shop.sales._client.v1.subscriptions.list_async({"customer": account})).data[0]
        with pytest.raises(AttributeError):
            found.get("id")
        (one,) = await shop.sales.subscriptions(account)
        assert (one.id, one.licensed.metered, one.metered.metered) == (found.id, False, True)

    at_shop(sqlite_url, body)


def test_usage_that_stripe_rejects_later_is_sent_again(sqlite_url):
    """Pitfall 15: a 200 that did not count; the report of errors names the key of the request."""

    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.use("ada", 300)
        await shop.flush()
        (batch,) = await shop.store.batches()
        shop.fake.reject_meter_event(batch.identifier)
        shop.fake.report_meter_errors()
        assert shop.fake.metered_units() == 0
        await shop.settle()
        (reopened,) = await shop.store.batches()
        assert (reopened.state, reopened.reopened) == (BatchState.WAITING, 1)
        assert len(await shop.told(Kind.METER_ERRORS)) == len(await shop.told(Kind.OUTBOX_REOPENED)) == 1
        await shop.flush()
        assert shop.fake.metered_units() == 300

    at_shop(sqlite_url, body)


def test_reports_on_usage_that_never_came_are_asked_for(sqlite_url):
    """Pitfall 15: thin events are listed, delivered or not; what is known is not worked on again."""

    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.use("ada", 300)
        await shop.flush()
        (batch,) = await shop.store.batches()
        shop.fake.reject_meter_event(batch.identifier)
        shop.fake.report_meter_errors()
        for delivery in shop.fake.take_deliveries():
            shop.fake.lose(delivery)
        assert await shop.webhooks.missed() == 1
        assert await shop.webhooks.turn() == 1
        assert await shop.webhooks.missed() == 0
        await shop.flush()
        assert shop.fake.metered_units() == 300
        assert len(await shop.told(Kind.METER_ERRORS)) == 1

    at_shop(sqlite_url, body)


def test_a_checkout_by_somebody_else_that_names_a_customer_gives_him_nothing(store_url):
    """Whoever pays by a payment link can write any ``client_reference_id`` into its URL."""

    async def body(shop: Shop) -> None:
        sessions = shop.sales._client.v1.checkout.sessions
        prices = (await shop.subscriptions._shelf.sold()).prices["enterprise"]
        mallory = await shop.sales._client.v1.customers.create_async({"email": "mallory@example.com"})
        await shop.enter("mel")
        mel = await shop.sales.open_account(await shop.customer("mel"))
        for account in (mallory.id, mel):
            line = {"price": prices.licensed, "quantity": 1}
            params = {"mode": "subscription", "customer": account, "client_reference_id": "ada", "line_items": [line]}
            made = await sessions.create_async({**params, "success_url": "https://pay.example/"})
            shop.fake.complete_checkout(made.id)
        await shop.settle()
        for name in ("ada", "mel"):
            # Neither is the account taken for ada's, nor is mel given what nobody linked.
            assert (await shop.customer(name)).stripe_customer_id is None
            assert (await shop.customer(name)).plan_id == "free"
        dead = await shop.store.letters(state="dead")
        assert {one.event.kind for one in dead} == {"checkout.session.completed"}
        assert all("was not opened for him" in one.error for one in dead)
        assert len(dead) == len(await shop.told(Kind.STRIPE_DEAD)) == 2

    at_shop(store_url, body)


def test_an_account_that_we_opened_is_found_again_by_its_checkout(sqlite_url):
    """As after a crash between the two, or from a backup: the account names its customer."""

    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        account = (await shop.customer()).stripe_customer_id
        await shop.store.update_customer(replace(await shop.customer(), stripe_customer_id=None))
        shop.fake.complete_checkout(shop.fake.objects("checkout.session")[0]["id"])
        await shop.settle()
        found = await shop.customer()
        assert (found.stripe_customer_id, found.plan_id) == (account, "starter")
        assert await shop.sales.owner(account) == "ada"
        await shop.sales._client.v1.customers.delete_async(account)
        assert await shop.sales.owner(account) is None

    at_shop(sqlite_url, body)


def test_an_event_that_was_given_up_is_worked_on_when_a_person_says_so(store_url):
    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        shop.fake.complete_checkout(shop.fake.objects("checkout.session")[0]["id"])
        await shop.fake.deliver(shop.receive)
        (first, *_) = waiting = await shop.store.letters(state="waiting")
        now_ms = shop.clock.now_ms()
        for kept in await shop.store.claim_events(now_ms, now_ms + 1, 100):
            await shop.store.event_ended(kept, now_ms, error="no such thing")
        dead = await shop.store.letters(state="dead")
        assert {one.event.id for one in dead} == {one.event.id for one in waiting}
        assert {(one.attempts, one.error) for one in dead} == {(1, "no such thing")}
        assert await shop.webhooks.turn() == 0
        assert await shop.store.retry_events(now_ms, first.event.id) == 1
        assert await shop.webhooks.turn() == 1
        # What is done is not begun anew; all that is dead is.
        assert await shop.store.retry_events(now_ms, first.event.id) == 0
        assert await shop.store.retry_events(now_ms) == len(dead) - 1
        assert await shop.webhooks.turn() == len(dead) - 1
        assert (await shop.store.letter(first.event.id)).state == "done"
        assert await shop.store.letter("evt_none") is None
        assert (await shop.customer()).plan_id == "starter"

    at_shop(store_url, body)


def test_an_event_waits_while_stripe_is_away_and_is_given_up_in_the_end(store_url):
    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        shop.fake.complete_checkout(shop.fake.objects("checkout.session")[0]["id"])
        for _ in range(2):
            shop.fake.fail("/v1/subscriptions", Broken.error(503), method="GET", times=200)
            await shop.settle()
            shop.fake.faults.disarm()
        assert (await shop.customer()).plan_id == "free"
        shop.clock.now_s += 6
        assert await shop.webhooks.turn() > 0
        assert (await shop.customer()).plan_id == "starter"
        # A price that is no plan's: nothing is guessed.
        made = await shop.sales._client.v1.prices.create_async(
            {"currency": "usd", "unit_amount": 5, "recurring": {"interval": "month"}, "product_data": {"name": "x"}}
        )
        await shop.enter("bob")
        await shop.subscriptions.checkout("bob", "starter")
        account = (await shop.customer("bob")).stripe_customer_id
        params = {"customer": account, "items": [{"price": made.id}]}
        await shop.sales._client.v1.subscriptions.create_async(params)
        await shop.settle()
        for _ in range(27):
            shop.clock.now_s += 3_601
            await shop.webhooks.turn()
        assert (await shop.customer("bob")).plan_id == "free"
        assert await shop.told(Kind.STRIPE_DEAD)

    at_shop(store_url, body)


def test_processes_that_decide_at_once_end_in_one_decision(store_url):
    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        sub = shop.subscription()
        shop.fake.set_card(sub["customer"], Card.WORKS)
        await shop.sales._client.v1.subscriptions.update_async(sub["id"], {"cancel_at_period_end": True})
        customer = await shop.customer()
        before = await shop.store.standing("ada")
        found = await asyncio.gather(*(shop.subscriptions.refresh(customer) for _ in range(6)))
        assert {one.version for one in found} == {before.version + 1}
        # A decision on what was read before is none.
        stale = replace(before, status="active", cancel_ms=None)
        from gatekeeper.rules.subscriptions import Decision

        assert not await shop.store.decided(Decision(stale, plan_id="free"), shop.clock.now_ms())
        assert (await shop.customer()).plan_id == "starter"

    at_shop(store_url, body)


def test_an_event_about_nobody_of_ours_is_done(sqlite_url):
    async def body(shop: Shop) -> None:
        made = await shop.sales._client.v1.customers.create_async({})
        prices = (await shop.subscriptions._shelf.sold()).prices["starter"]
        items = [{"price": prices.licensed}, {"price": prices.metered}]
        await shop.sales._client.v1.subscriptions.create_async({"customer": made.id, "items": items})
        assert await shop.settle() > 0
        assert await shop.webhooks.turn() == 0
        assert (await shop.customer()).plan_id == "free"

    at_shop(sqlite_url, body)


def test_an_end_while_stripe_cannot_be_told_the_rest_ends_all_the_same(sqlite_url):
    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.use("ada", 300)
        shop.fake.fail("/v1/billing/meter_events", Broken.error(503), times=99)
        await shop.sales._client.v1.subscriptions.cancel_async(shop.subscription()["id"])
        await shop.settle()
        assert (await shop.customer()).plan_id == "free"
        with pytest.raises(Refusal, match="no subscription"):
            await shop.subscriptions.cancel("ada", When.NOW)

    at_shop(sqlite_url, body)
