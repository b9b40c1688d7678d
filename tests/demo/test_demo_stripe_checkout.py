"""Checkout and the customer portal."""

import pytest
import stripe
from fakes.sdk import MONTHLY_CENTS, Shop, open_shop, with_stripe

from gatekeeper.demo.stripe import Card, Refused

PORTAL = {"features": {"invoice_history": {"enabled": True}, "payment_method_update": {"enabled": True}}}


def shopping(body, **more):
    async def run(fake, sdk):
        shop: Shop = await open_shop(sdk)
        return await body(fake, shop)

    return with_stripe(run, **more)


def session(shop, **more):
    items = [{"price": shop.licensed, "quantity": 1}, {"price": shop.metered}]
    params = {"mode": "subscription", "line_items": items, "success_url": "https://example.com/done", **more}
    return shop.sdk.v1.checkout.sessions.create_async(params)


def test_a_completed_checkout_makes_customer_and_subscription_and_tells_in_this_order():
    async def body(fake, shop):
        data = {"metadata": {"plan": "starter"}, "trial_period_days": 3}
        made = await session(shop, client_reference_id="ada", customer_email="ada@example.com", subscription_data=data)
        assert (made.status, made.payment_status) == ("open", "unpaid")
        assert made.url.startswith("https://checkout.stripe.invalid/")
        assert fake.objects("subscription") == []
        before = len(fake.objects("event"))
        fake.complete_checkout(made.id)
        done = await shop.sdk.v1.checkout.sessions.retrieve_async(made.id, {"expand": ["subscription", "line_items"]})
        assert (done.status, done.client_reference_id, done.url) == ("complete", "ada", None)
        assert (done.subscription.status, done.subscription.metadata["plan"]) == ("trialing", "starter")
        assert [row.price.id for row in done.line_items.data] == [shop.licensed, shop.metered]
        assert (await shop.sdk.v1.customers.retrieve_async(done.customer)).email == "ada@example.com"
        kinds = [event["type"] for event in fake.objects("event")[before:]]
        assert kinds[0] == "customer.created"
        assert kinds[-1] == "checkout.session.completed"
        assert kinds.index("customer.subscription.created") < kinds.index("invoice.paid")

    shopping(body)


def test_at_checkout_a_subscription_is_incomplete_first():
    async def body(fake, shop):
        customer = await shop.customer()
        made = await session(shop, customer=customer)
        fake.complete_checkout(made.id)
        statuses = [
            event["data"]["object"]["status"]
            for event in fake.objects("event")
            if event["type"].startswith("customer.subscription.")
        ]
        assert statuses == ["incomplete", "active"]
        assert fake.objects("invoice")[0]["total"] == MONTHLY_CENTS
        assert len(fake.objects("customer")) == 1

    shopping(body)


def test_a_card_that_declines_leaves_the_session_open_until_it_expires():
    async def body(fake, shop):
        made = await session(shop)
        with pytest.raises(Refused, match="declined"):
            fake.complete_checkout(made.id, card=Card.DECLINES)
        assert fake.objects("subscription") == []
        fake.advance(24 * 3600)
        assert (await shop.sdk.v1.checkout.sessions.retrieve_async(made.id)).status == "expired"
        with pytest.raises(Refused, match="expired"):
            fake.complete_checkout(made.id)
        second = await session(shop)
        assert (await shop.sdk.v1.checkout.sessions.expire_async(second.id)).status == "expired"
        assert fake.objects("event")[-1]["type"] == "checkout.session.expired"

    shopping(body)


def test_a_payment_raises_a_limit_without_a_subscription():
    async def body(fake, shop):
        data = {"currency": "usd", "unit_amount": 2_000, "product_data": {"name": "20 dollars more"}}
        made = await shop.sdk.v1.checkout.sessions.create_async(
            {"mode": "payment", "line_items": [{"price_data": data, "quantity": 1}], "success_url": "https://x.y",
             "metadata": {"limit": "month"}, "client_reference_id": "ada"}
        )  # fmt: skip
        fake.complete_checkout(made.id)
        done = await shop.sdk.v1.checkout.sessions.retrieve_async(made.id)
        assert (done.payment_status, done.amount_total, done.subscription) == ("paid", 2_000, None)
        assert done.metadata["limit"] == "month"

    shopping(body)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"price": "METERED", "quantity": 1}], "Quantity should not be specified"),
        ([{"price": "LICENSED"}], "Quantity is required"),
        ([{"price": "price_none", "quantity": 1}], "No such price"),
        ([], "line_items"),
    ],
)
def test_lines_that_make_no_sense_are_refused(rows, message):
    async def body(fake, shop):
        names = {"METERED": shop.metered, "LICENSED": shop.licensed}
        items = [{**row, "price": names.get(row["price"], row["price"])} for row in rows]
        with pytest.raises(stripe.InvalidRequestError, match=message):
            await session(shop, line_items=items)

    shopping(body)


def test_the_portal_needs_a_configuration_first():
    async def body(fake, shop):
        customer = await shop.customer()
        portal = shop.sdk.v1.billing_portal
        with pytest.raises(stripe.InvalidRequestError, match="until you save your customer portal settings"):
            await portal.sessions.create_async({"customer": customer})
        made = await portal.configurations.create_async({**PORTAL, "default_return_url": "https://example.com"})
        assert made.is_default
        opened = await portal.sessions.create_async({"customer": customer})
        assert (opened.configuration, opened.return_url) == (made.id, "https://example.com")
        assert opened.url.startswith("https://billing.stripe.invalid/")
        changed = await portal.configurations.update_async(
            made.id, {"features": {"subscription_cancel": {"enabled": True, "mode": "at_period_end"}}}
        )
        assert changed.features.invoice_history.enabled
        assert changed.features.subscription_cancel.mode == "at_period_end"
        second = await portal.configurations.create_async(PORTAL)
        assert not second.is_default
        assert [row.id for row in (await portal.configurations.list_async({"is_default": True})).data] == [made.id]

    shopping(body)
