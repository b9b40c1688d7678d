"""Subscriptions over time: first invoice, turns, upgrades, downgrades, trials, failures, ends."""

from datetime import UTC, datetime

import pytest
import stripe
from fakes.sdk import MONTHLY_CENTS, Shop, open_shop, with_stripe

from gatekeeper.demo.stripe import Card, FakeStripe

DAY_S = 86_400
HOUR_S = 3_600


def at_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


def shopping(body, now="2027-04-01T00:00:00", **more):
    """Runs ``body(fake, shop, customer)`` from a given day (April has 30)."""

    async def run(fake, sdk):
        shop: Shop = await open_shop(sdk)
        return await body(fake, shop, await shop.customer())

    return with_stripe(run, FakeStripe(now_ms=at_ms(now)), **more)


def period(found):
    row = found["items"].data[0]
    return row.current_period_start, row.current_period_end


def types(fake, *, after=0):
    return [event["type"] for event in fake.objects("event")][after:]


def totals(fake):
    return [(row["status"], row["billing_reason"], row["total"]) for row in fake.objects("invoice")]


def test_a_subscription_is_paid_for_in_advance_and_usage_afterwards():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        assert (found.status, found.billing_mode.type) == ("active", "flexible")
        assert period(found) == (at_ms("2027-04-01") // 1000, at_ms("2027-05-01") // 1000)
        await shop.use(customer, 100_010, "a")
        fake.advance_to(at_ms("2027-05-01"))
        assert totals(fake)[1][0] == "draft"
        fake.advance(HOUR_S)
        assert totals(fake) == [
            ("paid", "subscription_create", MONTHLY_CENTS),
            ("paid", "subscription_cycle", MONTHLY_CENTS + 2),
        ]
        assert fake.invoiced_units() == fake.metered_units() == 100_010
        kinds = types(fake)
        assert kinds.index("customer.subscription.created") > kinds.index("invoice.paid")
        assert "customer.subscription.updated" in kinds[kinds.index("customer.subscription.created") :]

    shopping(body)


def test_periods_follow_the_anchor_over_short_months():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        ends = []
        for _ in range(5):
            ends.append(period(found)[1])
            fake.advance_to(ends[-1] * 1000)
            found = await shop.sdk.v1.subscriptions.retrieve_async(found.id)
        return [datetime.fromtimestamp(end, UTC).strftime("%m-%d") for end in ends]

    assert shopping(body, "2027-01-31T08:00:00") == ["02-28", "03-31", "04-30", "05-31", "06-30"]


def test_an_upgrade_at_once_credits_the_rest_and_bills_the_old_usage():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        await shop.use(customer, 100_100, "before")
        pro, pro_overage = await shop.price(9_900), await shop.overage(1_000_000, "0.1")
        fake.advance(15 * DAY_S)
        flat, metered = found["items"].data
        items = [{"id": flat.id, "price": pro}, {"id": metered.id, "price": pro_overage}]
        changed = await shop.sdk.v1.subscriptions.update_async(
            found.id, {"items": items, "proration_behavior": "always_invoice"}
        )
        assert {row.price.id for row in changed["items"].data} == {pro, pro_overage}
        assert period(changed) == period(found)
        # Half of 29 back, half of 99, and 100 tokens above the old edge.
        assert totals(fake)[-1] == ("paid", "subscription_update", -1_450 + 4_950 + 20)
        await shop.use(customer, 1_000_020, "after")
        fake.advance_to(at_ms("2027-05-01T01:00:00"))
        assert totals(fake)[-1] == ("paid", "subscription_cycle", 9_900 + 2)
        assert fake.invoiced_units() == fake.metered_units()

    shopping(body)


@pytest.mark.parametrize(
    ("mode", "behavior", "lost"),
    [("flexible", "create_prorations", 0), ("flexible", "none", 100), ("classic", "create_prorations", 100)],
)
def test_what_becomes_of_old_usage_depends_on_mode_and_proration(mode, behavior, lost):
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer, billing_mode={"type": mode})
        await shop.use(customer, 100, "before")
        fake.advance(DAY_S)
        items = [{"id": found["items"].data[1].id, "price": await shop.overage(5, "1")}]
        await shop.sdk.v1.subscriptions.update_async(found.id, {"items": items, "proration_behavior": behavior})
        fake.advance_to(at_ms("2027-05-01T01:00:00"))
        return fake.metered_units() - fake.invoiced_units()

    assert shopping(body) == lost


def test_a_downgrade_waits_for_the_end_of_the_period():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        small, small_overage = await shop.price(900), await shop.overage(10, "1")
        start_s, end_s = period(found)
        schedules = shop.sdk.v1.subscription_schedules
        made = await schedules.create_async({"from_subscription": found.id})
        now = [{"price": shop.licensed, "quantity": 1}, {"price": shop.metered}]
        later = [{"price": small, "quantity": 1}, {"price": small_overage}]
        await schedules.update_async(
            made.id,
            {
                "end_behavior": "release",
                "phases": [
                    {"items": now, "start_date": start_s, "end_date": end_s},
                    {"items": later, "start_date": end_s, "duration": {"interval": "month"}},
                ],
            },
        )
        await shop.use(customer, 100_050, "old")
        fake.advance_to(end_s * 1000 - 1000)
        assert {row.price.id for row in (await shop.sdk.v1.subscriptions.retrieve_async(found.id))["items"].data} == {
            shop.licensed, shop.metered
        }  # fmt: skip
        fake.advance(1 + HOUR_S)
        # The ended period by the old prices, the new one by the new price, and nothing prorated.
        assert totals(fake)[-1] == ("paid", "subscription_cycle", 10 + 900)
        await shop.use(customer, 13, "new")
        fake.advance_to(at_ms("2027-06-01T01:00:00"))
        assert totals(fake)[-1] == ("paid", "subscription_cycle", 3 + 900)
        assert (await schedules.retrieve_async(made.id)).status == "released"
        assert (await shop.sdk.v1.subscriptions.retrieve_async(found.id)).schedule is None

    shopping(body)


def test_a_cancel_at_the_end_bills_the_last_usage():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        changed = await shop.sdk.v1.subscriptions.update_async(found.id, {"cancel_at_period_end": True})
        assert (changed.status, changed.cancel_at) == ("active", period(found)[1])
        await shop.use(customer, 100_500, "a")
        fake.advance_to(at_ms("2027-05-01"))
        assert (await shop.sdk.v1.subscriptions.retrieve_async(found.id)).status == "canceled"
        assert "customer.subscription.deleted" in types(fake)
        fake.advance(HOUR_S)
        assert totals(fake)[-1] == ("paid", "subscription_cycle", 100)
        fake.advance(90 * DAY_S)
        assert len(totals(fake)) == 2

    shopping(body)


@pytest.mark.parametrize(("invoice_now", "invoices"), [(True, 2), (False, 1)])
def test_a_cancel_at_once_bills_usage_only_when_asked(invoice_now, invoices):
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        await shop.use(customer, 100_500, "a")
        fake.advance(DAY_S)
        ended = await shop.sdk.v1.subscriptions.cancel_async(found.id, {"invoice_now": invoice_now})
        assert (ended.status, ended.ended_at) == ("canceled", fake.now_ms // 1000)
        fake.advance(90 * DAY_S)
        assert len(totals(fake)) == invoices
        active = await shop.sdk.v1.subscriptions.list_async({"customer": customer})
        everything = await shop.sdk.v1.subscriptions.list_async({"customer": customer, "status": "all"})
        assert (len(active.data), len(everything.data)) == (0, 1)

    shopping(body)


def test_a_trial_is_free_then_turns_into_a_paid_period():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer, trial_period_days=7)
        assert found.status == "trialing"
        assert totals(fake) == [("paid", "subscription_create", 0)]
        await shop.use(customer, 500_000, "free")
        fake.advance(4 * DAY_S)
        assert types(fake).count("customer.subscription.trial_will_end") == 1
        fake.advance(3 * DAY_S + HOUR_S)
        found = await shop.sdk.v1.subscriptions.retrieve_async(found.id)
        assert found.status == "active"
        assert period(found) == (at_ms("2027-04-08") // 1000, at_ms("2027-05-08") // 1000)
        assert totals(fake)[-1] == ("paid", "subscription_cycle", MONTHLY_CENTS)

    shopping(body)


def test_a_trial_can_end_now_and_without_a_card_be_cancelled():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer, trial_period_days=7)
        ended = await shop.sdk.v1.subscriptions.update_async(found.id, {"trial_end": "now"})
        assert ended.status == "active"
        bob = await shop.customer()
        fake.set_card(bob, Card.NONE)
        ends = {"end_behavior": {"missing_payment_method": "cancel"}}
        second = await shop.subscribe(bob, trial_period_days=7, trial_settings=ends)
        fake.advance(7 * DAY_S)
        assert (await shop.sdk.v1.subscriptions.retrieve_async(second.id)).status == "canceled"

    shopping(body)


@pytest.mark.parametrize("after", ["unpaid", "canceled", "past_due"])
def test_a_card_that_declines_leads_to_past_due_and_then_to_what_is_set(after):
    async def body(fake, shop, customer):
        fake.settings.after_retries = after
        found = await shop.subscribe(customer)
        fake.set_card(customer, Card.DECLINES)
        fake.advance_to(at_ms("2027-05-01T01:00:00"))

        async def status():
            return (await shop.sdk.v1.subscriptions.retrieve_async(found.id)).status

        assert await status() == "past_due"
        invoice = fake.objects("invoice")[-1]
        assert (invoice["status"], invoice["attempt_count"]) == ("open", 1)
        assert invoice["next_payment_attempt"] == fake.now_ms // 1000 + 3 * DAY_S
        fake.advance(7 * DAY_S - 1)
        assert await status() == "past_due"
        fake.advance(1)
        assert await status() == after
        assert types(fake).count("invoice.payment_failed") == 4
        if after == "unpaid":
            fake.set_card(customer, Card.WORKS)
            await shop.sdk.v1.invoices.pay_async(invoice["id"])
            assert await status() == "active"

    shopping(body)


def test_a_card_that_recovers_clears_past_due_by_itself():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        fake.set_card(customer, Card.DECLINES)
        fake.advance_to(at_ms("2027-05-01T01:00:00"))
        fake.set_card(customer, Card.WORKS)
        fake.advance(3 * DAY_S)
        assert (await shop.sdk.v1.subscriptions.retrieve_async(found.id)).status == "active"
        assert fake.objects("invoice")[-1]["status"] == "paid"

    shopping(body)


def test_an_unpaid_subscription_only_gathers_drafts():
    async def body(fake, shop, customer):
        await shop.subscribe(customer)
        fake.set_card(customer, Card.DECLINES)
        fake.advance_to(at_ms("2027-06-02T00:00:00"))
        assert [row[0] for row in totals(fake)] == ["paid", "open", "draft"]

    shopping(body)


def test_an_incomplete_subscription_waits_for_its_first_payment_and_expires_after_23_hours():
    async def body(fake, shop, customer):
        fake.set_card(customer, Card.DECLINES)
        first = await shop.subscribe(customer)
        assert first.status == "incomplete"
        second = await shop.subscribe(await shop.customer(), payment_behavior="default_incomplete")
        assert second.status == "incomplete"
        await shop.sdk.v1.invoices.pay_async(second.latest_invoice)
        assert (await shop.sdk.v1.subscriptions.retrieve_async(second.id)).status == "active"
        with pytest.raises(stripe.CardError):
            await shop.sdk.v1.invoices.pay_async(first.latest_invoice)
        with pytest.raises(stripe.CardError):
            await shop.subscribe(customer, payment_behavior="error_if_incomplete")
        fake.advance(23 * HOUR_S)
        assert (await shop.sdk.v1.subscriptions.retrieve_async(first.id)).status == "incomplete_expired"
        assert (await shop.sdk.v1.invoices.retrieve_async(first.latest_invoice)).status == "void"
        fake.set_card(customer, Card.NONE)
        with pytest.raises(stripe.InvalidRequestError, match="no attached payment source"):
            await shop.subscribe(customer)

    shopping(body)


def test_an_upgrade_that_cannot_be_paid_is_held_back_or_refused():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        pro = await shop.price(9_900)
        fake.set_card(customer, Card.DECLINES)
        params = {"items": [{"id": found["items"].data[0].id, "price": pro}], "proration_behavior": "always_invoice"}
        update = shop.sdk.v1.subscriptions.update_async
        with pytest.raises(stripe.CardError):
            await update(found.id, {**params, "payment_behavior": "error_if_incomplete"})
        held = await update(found.id, {**params, "payment_behavior": "pending_if_incomplete"})
        assert held["items"].data[0].price.id == shop.licensed
        assert held.pending_update is not None
        fake.set_card(customer, Card.WORKS)
        await shop.sdk.v1.invoices.pay_async(held.latest_invoice)
        applied = await shop.sdk.v1.subscriptions.retrieve_async(found.id)
        assert (applied["items"].data[0].price.id, applied.pending_update) == (pro, None)

    shopping(body)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"items": []}, "at least one item"),
        ({"items": [{"price": "LICENSED"}, {"price": "LICENSED"}]}, "distinct"),
        ({"items": [{"price": "METERED", "quantity": 2}]}, "Quantity"),
        ({"items": [{"price": "price_none"}]}, "No such price"),
        ({"discounts": [{"coupon": "x"}]}, "does not imitate"),
    ],
)
def test_what_makes_no_sense_or_is_not_imitated_is_refused(params, message):
    async def body(fake, shop, customer):
        names = {"LICENSED": shop.licensed, "METERED": shop.metered}
        items = [{**row, "price": names.get(row["price"], row["price"])} for row in params.get("items", [])]
        with pytest.raises(stripe.InvalidRequestError, match=message):
            await shop.sdk.v1.subscriptions.create_async({"customer": customer, **params, "items": items})
        assert fake.objects("subscription") == fake.objects("invoice") == []

    shopping(body)
