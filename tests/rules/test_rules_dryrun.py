"""Recorded calls read by another expression: the difference for each customer, against counting everything anew."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.money import Price
from gatekeeper.rules.charges import Counted
from gatekeeper.rules.dryrun import DryRun
from gatekeeper.rules.limits import CounterKey, Mode, Scope, StockLimit, Window
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.quotes import quote
from gatekeeper.rules.simulate import Past

MICRO = 1_000_000
NOW_MS = 1_781_524_800_000
MONTH_MS = 1_780_272_000_000


def plan(cap, price=None, plan_id="p"):
    quota = StockLimit(
        "quota", Scope.CUSTOMER, "units", Window.MONTH, cap * MICRO, Mode.OVERAGE if price else Mode.BLOCK
    )
    return Plan(plan_id, plan_id, Decimal(0), quota, Price(Decimal(price)) if price else None)


def past(units, used, then=None, charge_nano=0, start_ms=MONTH_MS, plan_id="p"):
    line = Counted(CounterKey("customer", "ada", "units", "month", start_ms), "quota", units * MICRO,
                   None if used is None else used * MICRO)  # fmt: skip
    return Past("c", NOW_MS, plan_id, units * MICRO, charge_nano, (line,), None, None if then is None else then * MICRO)


def dry(tried, *calls, customer="ada"):
    run = DryRun({tried.id: tried})
    for call in calls:
        run.take(customer, call)
    (one,) = run.customers()
    return one


def test_units_and_charge_move_together():
    one = dry(plan(10, "1"), past(4, 8, then=8), past(4, 12, then=8, charge_nano=2 * 10**9))
    assert (one.units_now_micro, one.units_then_micro) == (8 * MICRO, 16 * MICRO)
    # From 4 to 20 instead of from 4 to 12: 10 beyond instead of 2.
    assert (one.charge_now_nano, one.charge_then_nano, one.difference_nano) == (2 * 10**9, 10 * 10**9, 8 * 10**9)


def test_what_cannot_be_read_again_stays_as_it_was_and_is_counted():
    one = dry(plan(0, "1"), past(4, 4, then=None, charge_nano=4 * 10**9), past(1, 5, then=2, charge_nano=10**9))
    assert (one.unread, one.units_then_micro, one.difference_nano) == (1, 6 * MICRO, 10**9)


def test_fewer_units_never_pay_back_more_than_was_charged():
    one = dry(plan(10, "1"), past(4, 12, then=0, charge_nano=2 * 10**9))
    assert (one.difference_nano, one.charge_then_nano) == (-2 * 10**9, 0)


def test_calls_that_would_find_the_quota_used_up_are_counted_as_refused():
    one = dry(plan(10), past(4, 4, then=12), past(3, 7, then=9), past(3, 10, then=9))
    assert (one.refused, one.units_then_micro, one.difference_nano) == (2, 12 * MICRO, 0)


def test_what_was_admitted_beyond_the_cap_then_is_not_refused_now():
    one = dry(plan(10), past(8, 8, then=8), past(6, 14, then=6), past(6, 20, then=6))
    assert one.refused == 0


def test_where_a_call_stood_is_not_known_its_charge_stays():
    one = dry(plan(0, "1"), past(4, None, then=9, charge_nano=4 * 10**9))
    assert (one.unplaced, one.units_then_micro, one.difference_nano) == (1, 9 * MICRO, 0)


def test_a_plan_that_is_gone_is_unknown_not_free():
    run = DryRun({})
    run.take("ada", past(4, 4, then=9, charge_nano=7))
    (one,) = run.customers()
    assert (one.unplaced, one.charge_then_nano) == (1, 7)


def test_two_windows_are_two_counters():
    one = dry(plan(10, "1"), past(9, 9, then=12), past(9, 9, then=12, start_ms=MONTH_MS + 1))
    assert one.difference_nano == 4 * 10**9


def test_the_largest_difference_comes_first():
    run = DryRun({"p": plan(0, "1")})
    for customer, then in (("ada", 2), ("bob", 1), ("cyd", 5)):
        run.take(customer, past(1, 1, then=then, charge_nano=10**9))
    assert [one.customer_id for one in run.customers()] == ["cyd", "ada", "bob"]


@settings(max_examples=150)
@given(
    cap=st.integers(0, 40),
    calls=st.lists(st.tuples(st.booleans(), st.integers(0, 15), st.integers(0, 15)), min_size=1, max_size=25),
)
def test_the_difference_is_that_of_everything_counted_anew(cap, calls):
    """Calls of the route that is tried among those of other routes, which no dry-run sees."""
    tried = plan(cap, "0.7")
    run, used, charged = DryRun({"p": tried}), 0, 0
    anew = anew_charged = 0
    expected = seen = 0
    for is_tried, units, then in calls:
        charge = tried.overage_nano(used * MICRO, (used + units) * MICRO)
        used, charged = used + units, charged + charge
        counts = then if is_tried else units
        anew_charged += tried.overage_nano(anew * MICRO, (anew + counts) * MICRO)
        anew += counts
        if is_tried:
            run.take("ada", past(units, used, then=then, charge_nano=charge))
            # Until the last of these calls.
            expected, seen = anew_charged - charged, seen + 1
    found = run.customers()
    assert sum(one.difference_nano for one in found) == expected
    assert sum(one.calls for one in found) == seen


@pytest.mark.parametrize(
    ("used", "units", "charge", "why"),
    [
        (0, 10, 0, "within the 10 that are included"),
        (0, 12, 2 * 10**9, "2 beyond the 10 that are included"),
        (15, 2, 2 * 10**9, "2 beyond the 10 that are included"),
        (0, None, None, "nothing was read: the route's 'unmeasured' says what is charged"),
    ],
)
def test_a_quote_says_what_and_why(used, units, charge, why):
    found = quote(plan(10, "1"), used * MICRO, None if units is None else units * MICRO)
    assert (found.charge_nano, found.refused, found.why) == (charge, False, why)


def test_a_quote_of_a_plan_that_blocks_refuses():
    assert quote(plan(10), 5 * MICRO, 6 * MICRO)[:2] == (None, True)
    assert quote(plan(10), 5 * MICRO, 5 * MICRO)[:2] == (0, False)
