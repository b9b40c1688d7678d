"""What only a real account can prove: the same questions to our fake Stripe, always, and to a real account in test mode
where STRIPE_TEST_KEY is set. See "What only a real account can prove" in docs/billing.md.
"""

import secrets

import pytest
from billing_account import MISSING, Account, at_account, key_of

from gatekeeper.clock import SystemClock
from gatekeeper.demo.stripe import FakeStripe
from gatekeeper.ports.subscriptions import Item
from gatekeeper.rules.billing import Reported
from gatekeeper.rules.catalogue import PlanPrices

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(params=["fake", "real"])
def kind(request):
    return request.param


def test_without_a_key_the_suite_is_skipped_and_a_live_key_is_refused_before_anything_is_asked():
    with pytest.raises(pytest.skip.Exception, match="STRIPE_TEST_KEY=sk_test_"):
        key_of(None)
    assert "STRIPE_TEST_KEY" in MISSING
    for live in ("sk_live_0123456789", "rk_live_0123456789"):
        with pytest.raises(pytest.fail.Exception, match="live key: nothing was asked") as failed:
            key_of(live)
        assert live not in str(failed.value)
    with pytest.raises(pytest.fail.Exception, match="no secret key"):
        key_of("pk_test_0123456789")
    assert key_of("sk_test_0123456789") == "sk_test_0123456789"


def test_the_suite_leaves_nothing_behind(monkeypatch):
    """On the fake, where all of the account can be seen."""
    fakes: list[FakeStripe] = []

    async def body(account: Account) -> None:
        fakes.append(account.fake)
        await account.subscribe(await account.customer())
        assert len(account.prices) == 2

    at_account("fake", body)
    (fake,) = fakes
    assert {one["status"] for one in fake.objects("subscription")} == {"canceled"}
    assert {one["status"] for one in fake.objects("billing.meter")} == {"inactive"}
    assert {one["active"] for one in [*fake.objects("product"), *fake.objects("price")]} == {False}
    assert "customer.deleted" in {one["type"] for one in fake.objects("event")}


def test_a_second_event_of_an_identifier_is_refused_and_the_sums_of_the_minute_have_it_once(kind):
    async def body(account: Account) -> None:
        batch = account.batch(await account.customer(), 7)
        assert await account.biller.report(batch) is Reported.ACCEPTED
        assert await account.biller.report(batch) is Reported.DUPLICATE
        start_ms = batch.ts_ms - batch.ts_ms % 60_000
        assert await account.until(lambda: account.biller.summary(batch, start_ms, start_ms + 60_000), 7) == 7

    at_account(kind, body)


def test_the_graduated_price_is_rounded_once_to_the_cent(kind):
    async def body(account: Account) -> None:
        customer = await account.customer()
        one = await account.subscribe(customer)
        await account.biller.report(account.batch(customer, 60))
        await account.biller.report(account.batch(customer, 48))

        async def total() -> int:
            return (await account.sales.preview(one.id)).total_cents

        # 8 units above the 100, at 0.2 cents: 1.6.
        assert await account.until(total, 2_902) == 2_902

    at_account(kind, body)


def test_an_upgrade_invoices_what_was_used_on_the_price_that_goes(kind):
    async def body(account: Account) -> None:
        customer = await account.customer()
        one = await account.subscribe(customer)
        batch = account.batch(customer, 108)
        await account.biller.report(batch)
        start_ms = batch.ts_ms - batch.ts_ms % 60_000
        await account.until(lambda: account.biller.summary(batch, start_ms, start_ms + 60_000), 108)
        if account.fake is not None:
            account.fake.advance(2)
        await account.sales.change(one, account.prices["large"])
        # The list shows it at once.
        (after,) = await account.sales.subscriptions(customer)
        assert {item.price_id for item in after.items} == set(account.prices["large"])
        old = account.prices["small"].metered
        assert await account.until(lambda: account.cents_of(customer, old), 2) == 2

    at_account(kind, body)


def test_an_end_now_invoices_what_was_used(kind):
    async def body(account: Account) -> None:
        customer = await account.customer()
        one = await account.subscribe(customer)
        batch = account.batch(customer, 108)
        await account.biller.report(batch)
        start_ms = batch.ts_ms - batch.ts_ms % 60_000
        await account.until(lambda: account.biller.summary(batch, start_ms, start_ms + 60_000), 108)
        if account.fake is not None:
            account.fake.advance(2)
        await account.sales.cancel(one, at_end=False)
        (after,) = await account.sales.subscriptions(customer)
        assert after.status == "canceled"
        metered = account.prices["small"].metered
        assert await account.until(lambda: account.cents_of(customer, metered), 2) == 2

    at_account(kind, body)


def test_what_is_to_come_at_the_periods_end_is_seen_at_once_and_can_be_taken_back(kind):
    async def body(account: Account) -> None:
        customer = await account.customer()
        one = await account.subscribe(customer)
        await account.sales.cancel(one, at_end=True)
        (ending,) = await account.sales.subscriptions(customer)
        assert ending.cancel_ms == one.period_end_ms
        await account.sales.resume(ending)
        (back,) = await account.sales.subscriptions(customer)
        assert (back.cancel_ms, back.schedule_id) == (None, None)
        await account.sales.change_later(back, account.prices["large"])
        (later,) = await account.sales.subscriptions(customer)
        assert later.schedule_id is not None
        assert {item.price_id for item in later.items} == set(account.prices["small"])

    at_account(kind, body)


def test_a_checkout_page_is_made_for_an_account_that_names_its_customer(kind):
    async def body(account: Account) -> None:
        customer = await account.customer()
        assert await account.sales.owner(customer) == f"{account.tag}-0"
        prices: PlanPrices = account.prices["small"]
        url = await account.sales.checkout(customer, f"{account.tag}-0", prices, 14, "https://gateway.example/portal")
        assert url.startswith("https://checkout.stripe.")
        (session,) = (await account.client.v1.checkout.sessions.list_async({"customer": customer})).data
        assert session.client_reference_id == f"{account.tag}-0"
        await account.client.v1.checkout.sessions.expire_async(session.id)

    at_account(kind, body)


def test_an_invoice_item_is_made_once_and_thin_events_can_be_listed(kind):
    async def body(account: Account) -> None:
        customer = await account.customer()
        now_ms = SystemClock().now_ms() if account.fake is None else account.fake.now_ms
        name = f"mb_{secrets.token_hex(12)}"
        item = Item(customer, 300, "150 units used earlier", name, now_ms - 86_400_000, now_ms)
        made = await account.sales.charge(item)
        assert await account.sales.charge(item) == made
        (found,) = (await account.client.v1.invoice_items.list_async({"customer": customer})).data
        assert (found.id, found.amount) == (made, 300)
        await account.client.v1.invoice_items.delete_async(made)
        assert isinstance(await account.sales.reports(now_ms - 3_600_000), list)
        assert isinstance(await account.sales.undelivered(), list)

    at_account(kind, body)
