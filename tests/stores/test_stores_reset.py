"""A limit that was reset counts on a row of its own, and neither a price nor a billing period moves with it."""

from dataclasses import replace
from decimal import Decimal

from gatekeeper.money import Price
from gatekeeper.ports import Customer
from gatekeeper.rules.declared import DeclaredLimit
from gatekeeper.rules.limits import DOLLARS, Mode, Scope, StockLimit, Window
from gatekeeper.rules.lines import Bounds, Subject, Take, stock_lines
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import DAY_MS


def test_what_is_owed_belongs_to_its_billing_period_also_when_a_limit_was_reset_in_it(with_store, store_url, make, sql):
    anchor_ms = make.NOW_MS - 10 * DAY_MS
    # Of 10 units 2 are left: then they are $0.001 each.
    quota = StockLimit("quota", Scope.CUSTOMER, "units", Window.BILLING_PERIOD, 10 * make.MICRO, Mode.OVERAGE)
    budget = DeclaredLimit(StockLimit("budget", Scope.CUSTOMER, DOLLARS, Window.BILLING_PERIOD, 10**12))
    subject = Subject("acme", "pro", "chat", anchor_ms, key_id="k1")
    month = replace(quota, window=Window.MONTH)

    async def body(store):
        await store.create_customer(Customer("acme", "Acme", "pro", anchor_ms, anchor_ms))
        number = 0
        for each in (quota, month):
            plan = Plan("pro", "Pro", Decimal(0), each, overage=Price(Decimal("0.001")))
            resets = {}
            for started_ms in (make.NOW_MS, make.NOW_MS + 2_000):
                number += 1
                lines = stock_lines(plan, subject, Bounds(units=Take(0, 0)), started_ms, [budget], resets)
                await store.hold(make.order(f"c{number}", *lines, now_ms=started_ms))
                await store.settle(
                    make.settlement(f"c{number}", 8 * make.MICRO, plan=plan, started_ms=started_ms, cost_nano=5)
                )
                # Between the two calls an operator resets whatever there is.
                resets = {
                    (Scope.CUSTOMER, "acme", dimension, window): make.NOW_MS + 1_000
                    for dimension in ("units", DOLLARS)
                    for window in Window
                }

    with_store(body)
    owed = sql(store_url, "SELECT call_id, period_start_ms, charge_nano FROM owed ORDER BY call_id")
    assert owed == [
        ("c1", anchor_ms, 0),
        ("c2", anchor_ms, 6_000_000),
        ("c3", anchor_ms, 0),
        ("c4", anchor_ms, 6_000_000),
    ]
    budgets = sql(store_url, "SELECT start_ms FROM counter WHERE dimension = 'dollars' ORDER BY start_ms")
    assert budgets == [(anchor_ms,), (make.NOW_MS + 1_000,)]
