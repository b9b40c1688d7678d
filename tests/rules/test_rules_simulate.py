"""Recorded calls under other plans, case by case; the law over whole ledgers stands beside the command."""

from decimal import Decimal

from gatekeeper.money import Price
from gatekeeper.rules.charges import Counted
from gatekeeper.rules.limits import CounterKey, Mode, Scope, StockLimit, Window
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.simulate import Past, Replay, Terms, lead_ms
from gatekeeper.rules.windows import DAY_MS

MICRO = 1_000_000
# 15 June 2026, noon, UTC, and the month around it.
NOW_MS = 1_781_524_800_000
MONTH_MS = 1_780_272_000_000


def plan(plan_id, cap, price=None, window=Window.MONTH, monthly=0):
    quota = StockLimit("quota", Scope.CUSTOMER, "units", window, cap * MICRO, Mode.OVERAGE if price else Mode.BLOCK)
    return Plan(plan_id, plan_id, Decimal(monthly), quota, Price(Decimal(price)) if price else None)


def past(call_id, plan_id, units, used, charge_nano=0, window="month", start_ms=MONTH_MS, **changes):
    key = CounterKey("customer", "ada", "units", window, start_ms)
    line = Counted(key, "quota", units * MICRO, None if used is None else used * MICRO)
    return Past(call_id, NOW_MS, plan_id, units * MICRO, charge_nano, (line,))._replace(**changes)


def replay(terms, *calls, anchor_ms=NOW_MS):
    one = Replay(terms, anchor_ms)
    for call in calls:
        one.take(call)
    return one.finish()


def unchanged(*plans):
    found = {each.id: each for each in plans}
    return Terms(found, found)


def test_calls_on_two_plans_that_ended_in_another_order_are_priced_where_they_stood():
    terms = unchanged(plan("cheap", 0, "1"), plan("dear", 15, "5"))
    # c1 was admitted first and counted last: from 10 to 20, 5 beyond 15.
    calls = (past("c1", "dear", 10, 20, 25 * 10**9), past("c2", "cheap", 10, 10, 10 * 10**9))
    done = replay(terms, *calls)
    assert done.now_nano == done.then_nano == 35 * 10**9


def test_a_period_that_was_counted_before_its_anchor_was_moved_stays_that_period():
    terms = unchanged(plan("starter", 5, "1", Window.BILLING_PERIOD))
    start_ms = NOW_MS - 3 * DAY_MS
    done = replay(terms, past("c1", "starter", 7, 12, 7 * 10**9, "billing_period", start_ms), anchor_ms=NOW_MS)
    assert [(period.start_ms, period.overage_then_nano) for period in done.periods] == [(start_ms, 7 * 10**9)]


def test_where_no_position_was_noted_the_window_is_counted_from_its_start():
    terms = unchanged(plan("starter", 5, "1"))
    done = replay(terms, past("c1", "starter", 4, None), past("c2", "starter", 3, None, 2 * 10**9))
    assert done.then_nano == done.now_nano == 2 * 10**9


def test_a_plan_without_a_quota_counts_on_nobody_elses():
    open_plan = Plan("open", "open", Decimal(0), None)
    period = plan("period", 5, "1", Window.BILLING_PERIOD)
    terms = Terms(
        {"open": open_plan, "period": period},
        {"open": open_plan, "period": plan("period", 4, "1", Window.BILLING_PERIOD)},
    )
    on_open = past("c1", "open", 50, None)._replace(counted=())
    # Another meter reads one unit more, so the counter is kept anew.
    on_period = past("c2", "period", 5, 5, 0, "billing_period", NOW_MS, units_then_micro=6 * MICRO)
    assert replay(terms, on_open, on_period).then_nano == 2 * 10**9


def test_a_call_beyond_a_tighter_quota_is_refused_with_its_correction():
    terms = Terms({"free": plan("free", 100)}, {"free": plan("free", 10)})
    done = replay(
        terms,
        past("c1", "free", 8, 8),
        past("c2", "free", 8, 16),
        past("c3", "free", 8, 24),
        past("c3#correction", "free", 3, 27, corrects="c3"),
    )
    assert (done.calls, done.refused, done.cut) == (3, 1, 1)
    assert done.periods[0].units_then_micro == 16 * MICRO


def test_what_ran_beside_each_other_past_a_quota_is_not_refused_by_the_same_quota():
    terms = unchanged(plan("free", 10))
    done = replay(terms, past("c1", "free", 12, 12), past("c2", "free", 4, 16))
    assert (done.refused, done.cut) == (0, 0)


def test_the_price_of_a_period_is_that_of_its_last_plan_and_only_where_something_was_called():
    starter, pro = plan("starter", 1, "1", monthly=29), plan("pro", 1, "1", monthly=99)
    terms = Terms({"starter": starter, "pro": pro}, {"starter": plan("starter", 1, "1", monthly=19), "pro": pro})
    calls = [
        past("c1", "starter", 0, 0, started_ms=NOW_MS),
        past("c2", "pro", 0, 0, started_ms=NOW_MS + DAY_MS),
        past("c3", "starter", 0, 0, started_ms=NOW_MS + 40 * DAY_MS),
    ]
    done = replay(terms, *calls)
    assert (done.fees_now_nano, done.fees_then_nano) == ((99 + 29) * 10**9, (99 + 19) * 10**9)


def test_earlier_records_fill_the_counter_and_are_not_summed():
    terms = Terms({"free": plan("free", 100)}, {"free": plan("free", 10)}, since_ms=NOW_MS)
    done = replay(terms, past("c1", "free", 12, 12, started_ms=NOW_MS - 1), past("c2", "free", 1, 13))
    assert (done.calls, done.refused, done.cut) == (1, 1, 0)
    assert lead_ms(terms.then) == 32 * DAY_MS
    assert lead_ms({"t": plan("t", 1, window=Window.TOTAL)}) is None
    assert lead_ms({"d": plan("d", 1, window=Window.DAY)}) < 2 * DAY_MS
