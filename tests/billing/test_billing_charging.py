"""What no invoice counts any more is charged by an invoice item, once, and only when it can be counted nowhere."""

import pytest
from billing_shop import Shop, at_shop

from gatekeeper.billing.charging import charge
from gatekeeper.demo.stripe import Fault as Broken
from gatekeeper.errors import Fault, Refusal
from gatekeeper.rules.billing import BatchState


async def given_up(shop: Shop, units: int = 250) -> str:
    """A batch of ada's that is too old, and never reached Stripe; its id."""
    await shop.subscribe("ada", "starter")
    await shop.use("ada", units)
    shop.fake.fail("/v1/billing/meter_events", Broken.too_many(86_400), times=40)
    await shop.flush()
    shop.fake.faults.disarm()
    shop.clock.now_s += 36 * 86_400
    await shop.flush()
    (batch,) = await shop.store.batches(state=BatchState.DEAD)
    return batch.id


def test_a_batch_that_is_too_old_becomes_one_invoice_item(store_url):
    """Pitfall 7: usage older than 35 days is on the next invoice all the same."""

    async def body(shop: Shop) -> None:
        batch_id = await given_up(shop)
        now_ms = shop.clock.now_ms()
        looked = await charge(shop.store, shop.sales, batch_id, now_ms, look=True)
        # 150 units above what Starter includes, at 2 cents.
        assert (looked.cents, looked.item_id, shop.fake.objects("invoiceitem")) == (300, None, [])
        charged = await charge(shop.store, shop.sales, batch_id, now_ms)
        (item,) = shop.fake.objects("invoiceitem")
        assert (item["id"], item["amount"], item["customer"]) == (
            charged.item_id, 300, (await shop.customer()).stripe_customer_id,
        )  # fmt: skip
        assert item["description"] == "250 units used earlier"
        batch = await shop.store.batch(batch_id)
        assert (batch.state, batch.error) == (BatchState.SENT, "settled by hand")
        with pytest.raises(Refusal, match="may have been counted"):
            await charge(shop.store, shop.sales, batch_id, now_ms)
        before = len(shop.fake.objects("invoice"))
        await shop.advance(days=31)
        totals = [invoice["total"] for invoice in shop.fake.objects("invoice")[before:]]
        assert 2_900 + 300 in totals

    at_shop(store_url, body)


def test_a_charge_whose_answer_was_lost_is_found_again_a_day_later(sqlite_url):
    async def body(shop: Shop) -> None:
        batch_id = await given_up(shop)
        shop.fake.fail("/v1/invoiceitems", Broken.error(500, applied=True, sticks=True), method="POST", times=3)
        with pytest.raises(Fault):
            await charge(shop.store, shop.sales, batch_id, shop.clock.now_ms())
        assert (await shop.store.batch(batch_id)).state is BatchState.DEAD
        shop.fake.faults.disarm()
        shop.clock.now_s += 2 * 86_400
        charged = await charge(shop.store, shop.sales, batch_id, shop.clock.now_ms())
        (item,) = shop.fake.objects("invoiceitem")
        assert (charged.item_id, charged.cents) == (item["id"], 300)

    at_shop(sqlite_url, body)


def test_what_the_plan_includes_is_settled_without_an_item(sqlite_url):
    async def body(shop: Shop) -> None:
        batch_id = await given_up(shop, units=60)
        charged = await charge(shop.store, shop.sales, batch_id, shop.clock.now_ms())
        assert (charged.cents, charged.item_id, shop.fake.objects("invoiceitem")) == (0, None, [])
        assert (await shop.store.batch(batch_id)).state is BatchState.SENT

    at_shop(sqlite_url, body)


def test_what_may_have_been_counted_is_charged_only_when_somebody_has_looked(sqlite_url):
    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.use("ada", 250)
        shop.fake.fail("/v1/billing/meter_events", Broken.error(503), times=9)
        await shop.flush()
        (batch,) = await shop.store.batches()
        now_ms = shop.clock.now_ms()
        with pytest.raises(Refusal, match="is waiting"):
            await charge(shop.store, shop.sales, batch.id, now_ms, uncounted=True)
        # Its fate is unknown, and it arrives when its invoice is closed.
        shop.fake.faults.disarm()
        shop.clock.now_s = batch.period_end_ms / 1000 + 7_200
        await shop.store.hurry_batches("ada", shop.clock.now_ms())
        await shop.store.settle_by_hand(batch.id, shop.clock.now_ms(), told=True)
        with pytest.raises(Refusal, match="may have been counted"):
            await charge(shop.store, shop.sales, batch.id, now_ms)
        charged = await charge(shop.store, shop.sales, batch.id, now_ms, uncounted=True)
        again = await charge(shop.store, shop.sales, batch.id, now_ms, uncounted=True)
        assert charged == again
        assert len(shop.fake.objects("invoiceitem")) == 1
        with pytest.raises(Refusal, match="no batch"):
            await charge(shop.store, shop.sales, "mb_none", now_ms)

    at_shop(sqlite_url, body)
