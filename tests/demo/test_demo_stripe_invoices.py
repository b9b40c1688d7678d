"""Invoices: lines, grace, previews, items, credit, and what is done by hand."""

from datetime import UTC, datetime

import pytest
import stripe
from fakes.sdk import MONTHLY_CENTS, Shop, open_shop, with_stripe

from gatekeeper.demo.stripe import Card, FakeStripe

HOUR_S = 3_600
DAY_S = 86_400


def at_ms(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1000


APRIL, MAY = at_ms("2027-04-01"), at_ms("2027-05-01")


def shopping(body, **more):
    async def run(fake, sdk):
        shop: Shop = await open_shop(sdk)
        return await body(fake, shop, await shop.customer())

    return with_stripe(run, FakeStripe(now_ms=APRIL), **more)


def test_a_line_names_its_price_item_subscription_and_period():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        await shop.use(customer, 100_003, "a")
        fake.advance_to(MAY + HOUR_S * 1000)
        invoice = (await shop.sdk.v1.invoices.list_async({"subscription": found.id, "limit": 1})).data[0]
        assert invoice.parent.subscription_details.subscription == found.id
        assert (invoice.period_start, invoice.period_end) == (APRIL // 1000, MAY // 1000)
        free, over, flat = invoice.lines.data
        assert [(line.quantity, line.amount) for line in (free, over, flat)] == [
            (100_000, 0),
            (3, 1),
            (1, MONTHLY_CENTS),
        ]
        assert over.pricing.price_details.price == shop.metered
        assert over.parent.subscription_item_details.subscription_item == found["items"].data[1].id
        assert (over.period.start, over.period.end) == (APRIL // 1000, MAY // 1000)
        assert (flat.period.start, flat.period.end) == (MAY // 1000, at_ms("2027-06-01") // 1000)
        lines = await shop.sdk.v1.invoices.line_items.list_async(invoice.id, {"limit": 2})
        assert [line.id for line in lines.data] == [free.id, over.id]
        assert lines.has_more

    shopping(body)


def test_late_usage_counts_until_the_draft_is_finalized_and_never_after():
    async def body(fake, shop, customer):
        await shop.subscribe(customer)
        fake.advance_to(MAY)
        (draft,) = (await shop.sdk.v1.invoices.list_async({"status": "draft"})).data
        assert draft.automatically_finalizes_at == MAY // 1000 + HOUR_S
        fake.advance(HOUR_S - 1)
        await shop.use(customer, 100_050, "late", MAY // 1000 - 1)
        await shop.use(customer, 7, "next", MAY // 1000)
        fake.advance(1)
        done = await shop.sdk.v1.invoices.retrieve_async(draft.id)
        assert (done.status, done.total) == ("paid", MONTHLY_CENTS + 10)
        await shop.use(customer, 1_000, "too-late", MAY // 1000 - 1)
        fake.advance_to(at_ms("2027-06-01T01:00:00"))
        assert fake.metered_units() - fake.invoiced_units() == 1_000
        assert fake.objects("invoice")[-1]["total"] == MONTHLY_CENTS

    shopping(body)


def test_the_preview_is_the_next_invoice_and_stores_nothing():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        await shop.use(customer, 100_100, "a")
        pro = await shop.price(9_900)
        fake.advance(15 * DAY_S)
        previews = shop.sdk.v1.invoices
        assert (await previews.create_preview_async({"subscription": found.id})).total == MONTHLY_CENTS + 20
        fake.settings.meter_lag_s = 30 * DAY_S
        assert (await previews.create_preview_async({"subscription": found.id})).total == MONTHLY_CENTS
        fake.settings.meter_lag_s = 0
        change = {"items": [{"id": found["items"].data[0].id, "price": pro}], "proration_behavior": "create_prorations"}
        preview = await previews.create_preview_async({"subscription": found.id, "subscription_details": change})
        assert preview.total == -1_450 + 4_950 + 20 + 9_900
        assert len(fake.objects("invoice")) == 1
        await shop.sdk.v1.subscriptions.update_async(found.id, change)
        fake.advance_to(MAY + HOUR_S * 1000)
        assert fake.objects("invoice")[-1]["total"] == preview.total

    shopping(body)


def test_an_invoice_item_waits_for_the_next_invoice():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        items = shop.sdk.v1.invoice_items
        params = {"customer": customer, "subscription": found.id, "description": "late usage"}
        waiting = await items.create_async({**params, "amount": 123, "currency": "usd"})
        await items.create_async({**params, "unit_amount_decimal": "0.2", "quantity": 8, "currency": "usd"})
        gone = await items.create_async({**params, "amount": 1, "currency": "usd"})
        await items.delete_async(gone.id)
        assert [row.amount for row in (await items.list_async({"customer": customer, "pending": True})).data] == [
            2,
            123,
        ]
        fake.advance_to(MAY + HOUR_S * 1000)
        assert fake.objects("invoice")[-1]["total"] == MONTHLY_CENTS + 123 + 2
        assert (await items.retrieve_async(waiting.id)).invoice == fake.objects("invoice")[-1]["id"]
        with pytest.raises(stripe.InvalidRequestError):
            await items.delete_async(waiting.id)

    shopping(body)


def test_an_invoice_by_hand_takes_items_and_is_paid_voided_or_written_off():
    async def body(fake, shop, customer):
        invoices, items = shop.sdk.v1.invoices, shop.sdk.v1.invoice_items

        async def open_one(amount):
            made = await invoices.create_async({"customer": customer, "auto_advance": False})
            await items.create_async({"customer": customer, "invoice": made.id, "amount": amount, "currency": "usd"})
            return (await invoices.finalize_invoice_async(made.id)).id

        paid, void, lost = await open_one(500), await open_one(600), await open_one(700)
        assert (await invoices.pay_async(paid)).amount_paid == 500
        assert (await invoices.void_invoice_async(void)).status == "void"
        assert (await invoices.mark_uncollectible_async(lost)).status == "uncollectible"
        with pytest.raises(stripe.InvalidRequestError, match="already paid"):
            await invoices.pay_async(paid)
        with pytest.raises(stripe.InvalidRequestError, match="no longer editable"):
            await items.create_async({"customer": customer, "invoice": paid, "amount": 1, "currency": "usd"})
        assert (await invoices.update_async(paid, {"metadata": {"period": "x"}})).metadata["period"] == "x"
        assert [one.id for one in (await invoices.list_async({"status": "paid"})).data] == [paid]

    shopping(body)


def test_a_negative_invoice_becomes_credit_that_pays_the_next():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        small = await shop.price(900)
        fake.advance(15 * DAY_S)
        items = [{"id": found["items"].data[0].id, "price": small}]
        await shop.sdk.v1.subscriptions.update_async(found.id, {"items": items, "proration_behavior": "always_invoice"})
        credit = fake.objects("invoice")[-1]
        assert (credit["total"], credit["amount_due"], credit["status"]) == (-1_000, 0, "paid")
        assert (await shop.sdk.v1.customers.retrieve_async(customer)).balance == -1_000
        fake.advance_to(MAY + HOUR_S * 1000)
        last = fake.objects("invoice")[-1]
        assert (last["total"], last["starting_balance"], last["amount_due"], last["ending_balance"]) == (
            900,
            -1_000,
            0,
            -100,
        )

    shopping(body)


def test_paid_and_payment_succeeded_are_both_sent_also_for_a_proration_in_the_middle():
    async def body(fake, shop, customer):
        found = await shop.subscribe(customer)
        fake.advance(DAY_S)
        items = [{"id": found["items"].data[0].id, "price": await shop.price(9_900)}]
        await shop.sdk.v1.subscriptions.update_async(found.id, {"items": items, "proration_behavior": "always_invoice"})
        kinds = [event["type"] for event in fake.objects("event")]
        assert kinds.count("invoice.paid") == kinds.count("invoice.payment_succeeded") == 2
        reasons = [
            event["data"]["object"]["billing_reason"]
            for event in fake.objects("event")
            if event["type"] == "invoice.paid"
        ]
        assert reasons == ["subscription_create", "subscription_update"]

    shopping(body)


def test_a_month_for_many_customers_invoices_what_was_metered():
    async def body(fake, sdk):
        shop = await open_shop(sdk)
        used = {}
        for number in range(12):
            customer = await shop.customer(f"{number}@example.com")
            await shop.subscribe(customer)
            fake.set_card(customer, Card.DECLINES if number % 5 == 4 else Card.WORKS)
            used[customer] = 0
        for day in range(25):
            fake.advance(DAY_S)
            for number, customer in enumerate(used):
                tokens = (number * 7919 + day * 104_729) % 9_001
                used[customer] += tokens
                await shop.use(customer, tokens, f"{customer}-{day}")
        fake.advance_to(MAY + HOUR_S * 1000)
        for customer, tokens in used.items():
            invoice = (await sdk.v1.invoices.list_async({"customer": customer, "limit": 1})).data[0]
            expected = MONTHLY_CENTS + (max(0, tokens - 100_000) * 2 + 5) // 10
            assert invoice.total == expected
            assert fake.invoiced_units(customer) == fake.metered_units(customer) == tokens

    with_stripe(body, FakeStripe(now_ms=APRIL))
