"""Subscriptions through the real SDK against the fake Stripe: what a customer may do follows what he pays for."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from billing_shop import PLANS, URL, Shop, at_shop

from gatekeeper.billing.subscriptions import When
from gatekeeper.config.gateway import ServerConfig
from gatekeeper.demo.stripe import Card, Fault
from gatekeeper.errors import Code, Refusal
from gatekeeper.rules.limits import Window
from gatekeeper.rules.notices import Kind
from gatekeeper.rules.windows import DAY_MS, window_bounds


def period(customer, now_ms):
    return window_bounds(Window.BILLING_PERIOD, now_ms, anchor_ms=customer.anchor_ms)


def test_checkout_grants_the_plan_and_its_period_when_stripe_says_that_it_stands(store_url):
    async def body(shop: Shop) -> None:
        url = await shop.subscriptions.checkout("ada", "starter")
        assert url.startswith("https://checkout.stripe.invalid/")
        assert (await shop.customer()).plan_id == "free"
        (session,) = shop.fake.objects("checkout.session")
        assert session["client_reference_id"] == "ada"
        assert session["success_url"].startswith(URL)
        shop.fake.complete_checkout(session["id"])
        await shop.settle()
        customer = await shop.customer()
        assert (customer.plan_id, customer.disabled_ms) == ("starter", None)
        sub = shop.subscription()
        item = sub["items"]["data"][0]
        expected = (item["current_period_start"] * 1000, item["current_period_end"] * 1000)
        assert period(customer, shop.clock.now_ms()) == expected
        assert sub["billing_mode"]["type"] == "flexible"
        assert len(shop.fake.objects("customer")) == 1
        assert await shop.told(Kind.SUBSCRIPTION_CHANGED)
        assert len(await shop.told(Kind.INVOICE_PAID)) == 1

    at_shop(store_url, body)


@pytest.mark.parametrize("public_url", ["https://gateway.example", "https://llm.example:8443/below"])
def test_both_pages_of_stripe_lead_back_to_the_portal_under_the_public_url(public_url, sqlite_url):
    async def body(shop: Shop) -> None:
        shop.gateway = replace(shop.gateway, server=ServerConfig(public_url=public_url))
        await shop.subscriptions.checkout("ada", "starter")
        (session,) = shop.fake.objects("checkout.session")
        assert session["success_url"] == f"{public_url}/portal?checkout=done"
        assert session["cancel_url"] == f"{public_url}/portal?checkout=left"
        await shop.subscriptions.portal("ada")
        (visit,) = shop.fake.objects("billing_portal.session")
        assert visit["return_url"] == f"{public_url}/portal"
        shop.gateway = replace(shop.gateway, server=ServerConfig())
        for asked in (shop.subscriptions.checkout("ada", "starter"), shop.subscriptions.portal("ada")):
            with pytest.raises(Refusal, match="Nobody could come back"):
                await asked

    at_shop(sqlite_url, body)


def test_a_customer_at_stripe_is_made_once_and_is_found_again(store_url):
    async def body(shop: Shop) -> None:
        for plan_id in ("starter", "pro"):
            await shop.subscriptions.checkout("ada", plan_id)
        (made,) = shop.fake.objects("customer")
        assert (await shop.customer()).stripe_customer_id == made["id"]
        assert (made["metadata"], made["email"]) == ({"gatekeeper_customer": "ada"}, "ada@example.com")
        # Another customer cannot have the same account.
        await shop.enter("bob")
        assert await shop.store.link_account("bob", made["id"]) is None

    at_shop(store_url, body)


def test_a_500_that_sticks_to_the_key_of_a_new_customer_is_left_behind(sqlite_url):
    """Pitfall 13: Stripe repeats a 500 under its key for a day; another key gets past it."""

    async def body(shop: Shop) -> None:
        shop.fake.fail("/v1/customers", Fault.error(sticks=True), method="POST")
        assert await shop.subscriptions.checkout("ada", "starter")
        assert len(shop.fake.objects("customer")) == 1

    at_shop(sqlite_url, body)


def test_a_second_checkout_is_refused_and_a_trial_is_given_once(sqlite_url):
    async def body(shop: Shop) -> None:
        sub = await shop.subscribe("ada", "pro")
        assert sub["status"] == "trialing"
        assert (await shop.customer()).plan_id == "pro"
        with pytest.raises(Refusal, match="already") as refused:
            await shop.subscriptions.checkout("ada", "starter")
        assert refused.value.code is Code.CONFLICT
        await shop.subscriptions.cancel("ada", When.NOW)
        await shop.settle()
        assert (await shop.customer()).plan_id == "free"
        assert (await shop.subscribe("ada", "pro"))["status"] == "active"

    at_shop(sqlite_url, body)


def test_while_a_trial_lasts_and_after_it_the_period_is_that_of_stripe(sqlite_url):
    async def body(shop: Shop) -> None:
        sub = await shop.subscribe("ada", "pro")
        now_ms = shop.clock.now_ms()
        assert period(await shop.customer(), now_ms)[1] == sub["trial_end"] * 1000
        await shop.advance(days=20)
        item = shop.subscription()["items"]["data"][0]
        expected = (item["current_period_start"] * 1000, item["current_period_end"] * 1000)
        assert period(await shop.customer(), shop.clock.now_ms()) == expected
        assert expected[0] == sub["trial_end"] * 1000

    at_shop(sqlite_url, body)


def test_created_while_incomplete_gives_no_access(sqlite_url):
    """Pitfall 36: a subscription whose first payment failed grants nothing."""

    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        account = (await shop.customer()).stripe_customer_id
        shop.fake.set_card(account, Card.DECLINES)
        prices = (await shop.subscriptions._shelf.sold()).prices["starter"]
        params = {"customer": account, "items": [{"price": prices.licensed}, {"price": prices.metered}]}
        await shop.sales._client.v1.subscriptions.create_async(params)
        assert shop.subscription()["status"] == "incomplete"
        await shop.settle()
        customer = await shop.customer()
        assert (customer.plan_id, customer.disabled_ms) == ("free", None)
        assert await shop.store.standing("ada") is None
        # And an invoice that failed is told of.
        assert len(await shop.told(Kind.PAYMENT_FAILED)) == 1

    at_shop(sqlite_url, body)


def test_past_due_is_served_until_grace_is_over_and_paid_is_served_again(store_url):
    """Pitfall 53: a payment that failed does not cut anybody off at once."""

    async def body(shop: Shop) -> None:
        sub = await shop.subscribe("ada", "starter")
        shop.fake.set_card(sub["customer"], Card.DECLINES)
        # The month ends; an hour later the invoice is charged, and fails.
        await shop.advance(days=30, s=7_200)
        assert shop.subscription()["status"] == "past_due"
        customer, standing = await shop.customer(), await shop.store.standing("ada")
        assert (customer.plan_id, customer.disabled_ms) == ("starter", None)
        assert standing.grace_ms is not None
        assert len(await shop.told(Kind.PAYMENT_FAILED)) == 1
        shop.fake.settings.after_retries = "past_due"
        await shop.advance(days=6.5)
        assert (await shop.customer()).disabled_ms is None
        await shop.advance(days=1)
        assert (await shop.customer()).disabled_ms is not None
        assert len(await shop.told(Kind.SUBSCRIPTION_BLOCKED)) == 1
        # Another card; Stripe collects, and he is let in again.
        shop.fake.set_card(sub["customer"], Card.WORKS)
        await shop.sales._client.v1.invoices.pay_async(shop.fake.objects("invoice")[-1]["id"])
        await shop.settle()
        customer, standing = await shop.customer(), await shop.store.standing("ada")
        assert (customer.disabled_ms, standing.grace_ms, standing.blocked_ms) == (None, None, None)
        assert len(await shop.told(Kind.INVOICE_PAID)) == 2

    at_shop(store_url, body)


def test_unpaid_blocks_and_an_operators_own_block_outlives_a_payment(sqlite_url):
    async def body(shop: Shop) -> None:
        sub = await shop.subscribe("ada", "starter")
        shop.fake.settings.retry_after_days = ()
        shop.fake.set_card(sub["customer"], Card.DECLINES)
        await shop.advance(days=31, s=7_200)
        assert shop.subscription()["status"] == "unpaid"
        blocked = await shop.customer()
        assert blocked.disabled_ms is not None
        # The operator lets him in, and shuts him out later, for reasons of his own.
        await shop.store.update_customer(_with(blocked, disabled_ms=None))
        await shop.store.update_customer(_with(blocked, disabled_ms=shop.clock.now_ms() + 5))
        shop.fake.set_card(sub["customer"], Card.WORKS)
        await shop.sales._client.v1.invoices.pay_async(shop.fake.objects("invoice")[-1]["id"])
        await shop.settle()
        assert shop.subscription()["status"] == "active"
        assert (await shop.customer()).disabled_ms == shop.clock.now_ms() + 5

    at_shop(sqlite_url, body)


def _with(customer, **changes):
    from dataclasses import replace

    return replace(customer, **changes)


def test_an_upgrade_is_at_once_and_no_unit_is_lost(store_url):
    """Pitfall 47: usage before, during and after the change is invoiced, each on the price of its time."""

    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.advance(days=10)
        await shop.use("ada", 250)
        before_ms = shop.clock.now_ms()
        await shop.advance(s=120)
        await shop.subscriptions.change("ada", "pro")
        assert (await shop.customer()).plan_id == "pro"
        # It began on the old plan, and was settled after the change.
        await shop.use("ada", 40, "starter", started_ms=before_ms - 60_000)
        # A batch of its own: nothing later in it gives it a later date.
        await shop.flush()
        await shop.use("ada", 1_100)
        await shop.advance(days=25)
        assert shop.fake.metered_units() == shop.fake.invoiced_units() == 250 + 40 + 1_100
        lines = [line for one in shop.fake.objects("invoice") for line in one["lines"]["data"]]
        overage = sum(line["amount"] for line in lines if line["quantity"] not in (None, 1))
        # 150 units above Starter's 100 at 2 cents, 140 above Pro's 1,000 at 1.01 cents.
        assert overage == 300 + 141

    at_shop(store_url, body)


@pytest.mark.parametrize("when", [When.NOW, When.PERIOD_END])
@pytest.mark.parametrize("mode", ["flexible", "classic", None])
def test_no_change_of_plan_loses_usage_in_any_billing_mode(mode, when, sqlite_url):
    """Pitfall 47, the matrix: a metered price that goes at once is not invoiced in classic mode, nor where no mode is
    said in an account that is still on an old version; so there a plan changes at the period's end only."""

    async def body(shop: Shop) -> None:
        await shop.subscriptions.checkout("ada", "starter")
        prices = (await shop.subscriptions._shelf.sold()).prices["starter"]
        params = {
            "customer": (await shop.customer()).stripe_customer_id,
            "items": [{"price": prices.licensed}, {"price": prices.metered}],
        }
        if mode is not None:
            params["billing_mode"] = {"type": mode}
        options = {} if mode is not None else {"stripe_version": "2025-08-27.basil"}
        made = await shop.sales._client.v1.subscriptions.create_async(params, options)
        await shop.settle()
        await shop.use("ada", 300)
        (one,) = await shop.sales.subscriptions((await shop.customer()).stripe_customer_id)
        assert (one.id, one.flexible) == (made.id, mode == "flexible")
        if when is When.NOW and not one.flexible:
            with pytest.raises(Refusal, match="never be invoiced"):
                await shop.subscriptions.change("ada", "pro", when)
            assert (await shop.customer()).plan_id == "starter"
        else:
            await shop.subscriptions.change("ada", "pro", when)
        await shop.use("ada", 7)
        await shop.advance(days=32)
        moved = when is When.PERIOD_END or one.flexible
        assert (await shop.customer()).plan_id == ("pro" if moved else "starter")
        assert shop.fake.metered_units() == shop.fake.invoiced_units() == 307

    at_shop(sqlite_url, body)


def test_an_upgrade_that_is_not_paid_changes_nothing(sqlite_url):
    async def body(shop: Shop) -> None:
        sub = await shop.subscribe("ada", "starter")
        shop.fake.set_card(sub["customer"], Card.DECLINES)
        standing = await shop.subscriptions.change("ada", "pro")
        assert standing.plan_id == "starter"
        await shop.settle()
        customer = await shop.customer()
        assert (customer.plan_id, customer.disabled_ms) == ("starter", None)

    at_shop(sqlite_url, body)


def test_a_proration_invoice_that_is_paid_resets_nothing(sqlite_url):
    """Pitfall 32: ``invoice.paid`` in the middle of a period starts no new one."""

    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.advance(days=3)
        before = await shop.customer()
        await shop.subscriptions.change("ada", "pro")
        await shop.settle()
        assert len(await shop.told(Kind.INVOICE_PAID)) == 2
        after = await shop.customer()
        now_ms = shop.clock.now_ms()
        assert (after.plan_id, after.anchor_ms) == ("pro", before.anchor_ms)
        assert period(after, now_ms) == period(before, now_ms)

    at_shop(sqlite_url, body)


def test_paid_and_payment_succeeded_are_told_once(sqlite_url):
    """Pitfall 33: both events come for each payment."""

    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        kinds = [one["type"] for one in shop.fake.objects("event")]
        assert kinds.count("invoice.paid") == kinds.count("invoice.payment_succeeded") == 1
        assert len(await shop.told(Kind.INVOICE_PAID)) == 1
        assert len(await shop.store.kept_invoices("ada", 10)) == 1

    at_shop(sqlite_url, body)


def test_a_downgrade_comes_at_the_periods_end_and_can_be_taken_back(sqlite_url):
    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "enterprise")
        await shop.subscriptions.change("ada", "starter")
        assert (await shop.customer()).plan_id == "enterprise"
        await shop.subscriptions.resume("ada")
        await shop.advance(days=32)
        assert (await shop.customer()).plan_id == "enterprise"
        await shop.subscriptions.change("ada", "starter")
        await shop.advance(days=31)
        assert (await shop.customer()).plan_id == "starter"
        await shop.use("ada", 130)
        await shop.advance(days=31)
        assert shop.fake.invoiced_units() == 130

    at_shop(sqlite_url, body)


def test_an_end_now_is_preceded_by_the_last_batch(sqlite_url):
    """Pitfall 48: what is reported after the end is on no invoice."""

    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.use("ada", 300)
        await shop.subscriptions.cancel("ada", When.NOW)
        paths = [(one.method, one.path) for one in shop.fake.requests.all]
        end = next(n for n, (method, path) in enumerate(paths) if method == "DELETE" and "/subscriptions/" in path)
        told = next(n for n, (_, path) in enumerate(paths) if path.endswith("meter_events"))
        assert told < end
        assert shop.fake.invoiced_units() == 300
        assert (await shop.customer()).plan_id == "free"
        assert len(await shop.told(Kind.SUBSCRIPTION_ENDED)) == 1

    at_shop(sqlite_url, body)


def test_what_cannot_be_told_keeps_a_subscription_from_ending(sqlite_url):
    """Pitfall 48, where Stripe is away: nothing is changed before the usage is there."""

    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.use("ada", 300)
        shop.fake.fail("/v1/billing/meter_events", Fault.error(503), times=9)
        with pytest.raises(Refusal) as refused:
            await shop.subscriptions.cancel("ada", When.NOW)
        assert refused.value.code is Code.BILLER_UNAVAILABLE
        assert shop.subscription()["status"] == "active"

    at_shop(sqlite_url, body)


def test_an_end_at_the_periods_end_invoices_the_last_usage_and_does_what_the_plan_says(sqlite_url):
    async def body(shop: Shop) -> None:
        await shop.enter("eve")
        await shop.subscribe("ada", "starter")
        await shop.subscribe("eve", "enterprise")
        for name in ("ada", "eve"):
            standing = await shop.subscriptions.cancel(name)
            assert standing.cancel_ms == standing.period_end_ms
        await shop.advance(days=29)
        await shop.use("ada", 500)
        assert (await shop.customer("ada")).plan_id == "starter"
        await shop.advance(days=4)
        assert shop.fake.invoiced_units() == 500
        ada, eve = await shop.customer("ada"), await shop.customer("eve")
        assert (ada.plan_id, ada.disabled_ms) == ("free", None)
        assert PLANS["enterprise"].on_cancel == "disable"
        assert eve.disabled_ms is not None
        # Whoever comes back is let in.
        await shop.subscribe("eve", "starter")
        eve = await shop.customer("eve")
        assert (eve.plan_id, eve.disabled_ms) == ("starter", None)

    at_shop(sqlite_url, body)


def test_a_customer_who_is_moved_by_hand_stays_there_until_stripe_changes(sqlite_url):
    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.store.update_customer(_with(await shop.customer(), plan_id="enterprise"))
        await shop.advance(days=40)
        assert (await shop.customer()).plan_id == "enterprise"
        await shop.subscriptions.cancel("ada", When.NOW)
        assert (await shop.customer()).plan_id == "enterprise"

    at_shop(sqlite_url, body)


def test_january_31_stays_the_anchor_for_two_years(sqlite_url):
    """Pitfall 45: a short month does not move the periods after it."""

    async def body(shop: Shop) -> None:
        shop.clock.now_s = datetime(2027, 1, 31, 13, 5, tzinfo=UTC).timestamp()
        await shop.subscribe("ada", "starter")
        for _ in range(24):
            item = shop.subscription()["items"]["data"][0]
            expected = (item["current_period_start"] * 1000, item["current_period_end"] * 1000)
            assert period(await shop.customer(), shop.clock.now_ms()) == expected
            await shop.advance(s=item["current_period_end"] - shop.clock.now_s + 60)

    at_shop(sqlite_url, body)


def test_a_call_that_is_settled_after_the_turn_counts_where_it_was_admitted(sqlite_url):
    """Pitfall 31: nothing is reset, so a new period erases nothing of the one before."""

    async def body(shop: Shop) -> None:
        sub = await shop.subscribe("ada", "starter")
        end_s = sub["items"]["data"][0]["current_period_end"]
        await shop.advance(s=end_s - shop.clock.now_s - 30)
        began_ms = shop.clock.now_ms()
        await shop.advance(s=60)
        await shop.use("ada", 150, started_ms=began_ms)
        await shop.advance(days=1)
        first, renewal = shop.fake.objects("invoice")
        used = [line["quantity"] for line in renewal["lines"]["data"] if line["quantity"] not in (None, 1)]
        assert sum(used) == 150
        assert first["status"] == renewal["status"] == "paid"

    at_shop(sqlite_url, body)


def test_invoices_are_listed_and_shown_from_memory_when_stripe_is_away(sqlite_url):
    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.advance(days=31, s=4_000)
        listed = await shop.invoices.listed("ada")
        assert [one.total_cents for one in listed.invoices] == [2_900, 2_900]
        assert listed.fresh
        page = await shop.invoices.listed("ada", after=listed.invoices[0].id, limit=1)
        assert page.invoices == [listed.invoices[1]]
        shop.fake.fail("/v1/invoices", Fault.error(503), times=3)
        again = await shop.invoices.listed("ada")
        assert (list(again.invoices), again.fresh) == (list(listed.invoices), False)

    at_shop(sqlite_url, body)


def test_the_next_invoice_is_the_same_by_our_figures_and_by_stripes(sqlite_url):
    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.use("ada", 300)
        beside = await shop.invoices.preview("ada")
        # Not told yet: the difference is what is on its way.
        assert (beside.ours_cents, beside.difference_cents) == (3_300, -400)
        await shop.flush()
        assert (await shop.invoices.preview("ada")).difference_cents == 0
        await shop.subscriptions.cancel("ada")
        ending = await shop.invoices.preview("ada")
        assert (ending.ours_cents, ending.difference_cents) == (400, 0)
        assert beside.ours.used_micro == 300_000_000

    at_shop(sqlite_url, body)


def test_billing_days_do_not_depend_on_the_time_zone_of_the_host(sqlite_url, monkeypatch):
    """Pitfall 46: boundaries are instants, whatever TZ says."""
    import time

    found = []
    for zone in ("UTC", "Pacific/Auckland"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()

        async def body(shop: Shop) -> tuple[int, int | None]:
            await shop.subscribe("ada", "starter")
            return period(await shop.customer(), shop.clock.now_ms() + 40 * DAY_MS)

        found.append(at_shop(sqlite_url.replace(".sqlite", f"{len(found)}.sqlite"), body))
    monkeypatch.undo()
    time.tzset()
    assert found[0] == found[1]
