"""The allowance: what a subscription item includes in a period is what Stripe will count on it, and not the quota."""

from billing_shop import Shop, at_shop

from gatekeeper.rules.billing import BatchState


def test_after_an_upgrade_our_figure_is_that_of_the_new_item_and_the_quota_that_of_the_period(store_url):
    async def body(shop: Shop) -> None:
        await shop.subscribe("ada", "starter")
        await shop.advance(days=10)
        await shop.use("ada", 250)
        await shop.advance(s=120)
        await shop.subscriptions.change("ada", "pro")
        await shop.use("ada", "1100.75")
        beside = await shop.invoices.preview("ada")
        counts = beside.allowance
        assert (counts.included, counts.told, counts.waiting, counts.coming) == (1_000, 0, 0, 1_100)
        assert counts.since_ms > beside.ours.start_ms
        # 100 units above what Pro includes, at 1.01 cents; 350 and a fraction in the quota of the whole period.
        assert beside.ours_cents == 9_900 + 101
        assert beside.ours.used_micro == 1_350_750_000
        await shop.flush()
        beside = await shop.invoices.preview("ada")
        assert (beside.allowance.told, beside.allowance.coming) == (1_100, 0)
        assert (beside.ours_cents, beside.difference_cents) == (9_900 + 101, 0)
        await shop.use("ada", "0.5")
        assert (await shop.invoices.preview("ada")).allowance.coming == 1

    at_shop(store_url, body)


def test_what_is_settled_too_late_counts_on_the_present_period_of_the_item(store_url):
    """Pitfall 31: the quota row is that of the window of its admission, the allowance that of the invoice."""

    async def body(shop: Shop) -> None:
        sub = await shop.subscribe("ada", "starter")
        end_s = sub["items"]["data"][0]["current_period_end"]
        await shop.advance(s=end_s - shop.clock.now_s + 51 * 60)
        await shop.use("ada", 140, started_ms=(end_s - 5) * 1000)
        await shop.use("ada", 10)
        beside = await shop.invoices.preview("ada")
        assert (beside.allowance.coming, beside.ours.used_micro) == (150, 10_000_000)
        await shop.flush()
        (batch,) = await shop.store.batches(state=BatchState.SENT)
        assert (batch.late, batch.period_start_ms) == (True, end_s * 1000)
        beside = await shop.invoices.preview("ada")
        assert (beside.allowance.told, beside.ours_cents, beside.difference_cents) == (150, 2_900 + 100, 0)

    at_shop(store_url, body)


def test_a_licence_alone_includes_everything_and_nobody_without_a_subscription_has_an_allowance(sqlite_url):
    async def body(shop: Shop) -> None:
        assert (await shop.invoices.preview("ada")).allowance is None
        await shop.subscribe("ada", "enterprise")
        await shop.use("ada", 5_000)
        beside = await shop.invoices.preview("ada")
        assert (beside.allowance.included, beside.allowance.used, beside.difference_cents) == (None, 0, 0)

    at_shop(sqlite_url, body)
