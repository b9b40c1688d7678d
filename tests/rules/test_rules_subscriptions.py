"""What a subscription means, case by case, without anybody to ask."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as some

from gatekeeper.demo.stripe.cycles import boundary_s
from gatekeeper.rules.billing import Target, stamp
from gatekeeper.rules.hints import hint_of, rejected_of, subscription_of
from gatekeeper.rules.limits import Window
from gatekeeper.rules.notices import Kind
from gatekeeper.rules.plans import DISABLE, Plan
from gatekeeper.rules.subscriptions import (
    Item,
    Standing,
    Subscribed,
    Terms,
    UnknownPrice,
    anchor_of,
    decide,
    governing,
    live,
)
from gatekeeper.rules.windows import DAY_MS, window_bounds

NOW_MS = 1_781_524_800_000
MONTH = window_bounds(Window.BILLING_PERIOD, NOW_MS, anchor_ms=NOW_MS)
PLANS = {name: Plan(name, name.title(), Decimal(9), None) for name in ("free", "starter", "pro")}
PLANS["gone"] = Plan("gone", "Gone", Decimal(9), None, on_cancel=DISABLE)
TERMS = Terms(7 * DAY_MS, PLANS, "free")
PLAN_OF = {"price_starter": "starter", "price_units": "starter", "price_pro": "pro", "price_gone": "gone"}
STATUSES = ("active", "trialing", "past_due", "unpaid", "paused", "incomplete", "incomplete_expired", "canceled", "new")


def sub(status="active", price="price_starter", **changes):
    made = Subscribed(
        id="sub_1",
        account="cus_1",
        status=status,
        created_ms=NOW_MS,
        items=(Item("si_2", "price_units", True), Item("si_1", price, False)),
        period_start_ms=MONTH[0],
        period_end_ms=MONTH[1],
        anchor_ms=NOW_MS,
    )
    return replace(made, **changes)


def decided(before, *found, now_ms=NOW_MS):
    return decide(before, "ada", found, PLAN_OF, TERMS, now_ms)


def standing(*found, before=None, now_ms=NOW_MS) -> Standing:
    decision = decided(before, *found, now_ms=now_ms)
    assert decision is not None
    return replace(decision.standing, version=decision.standing.version + 1)


@pytest.mark.parametrize("status", ["incomplete", "incomplete_expired", "canceled", "new"])
def test_what_never_stood_grants_nothing_and_ends_nothing(status):
    """Pitfall 36."""
    assert decided(None, sub(status)) is None


@pytest.mark.parametrize("status", ["active", "trialing"])
def test_what_stands_grants_the_plan_of_the_fee(status):
    decision = decided(None, sub(status))
    assert (decision.plan_id, decision.anchor_ms, decision.block) == ("starter", NOW_MS, False)
    assert [one.kind for one in decision.news] == [Kind.SUBSCRIPTION_CHANGED]
    # The same again changes nothing.
    assert decided(standing(sub(status)), sub(status)) is None


def test_grace_counts_from_the_first_time_and_is_not_prolonged():
    """Pitfall 53."""
    first = standing(sub("past_due"), before=standing(sub()))
    assert (first.grace_ms, first.blocked_ms) == (NOW_MS + 7 * DAY_MS, None)
    assert decided(first, sub("past_due"), now_ms=NOW_MS + 7 * DAY_MS - 1) is None
    blocked = decided(first, sub("past_due"), now_ms=NOW_MS + 7 * DAY_MS)
    assert (blocked.block, blocked.standing.blocked_ms) == (True, NOW_MS + 7 * DAY_MS)
    paid = decided(blocked.standing, sub(), now_ms=NOW_MS + 8 * DAY_MS)
    assert (paid.unblock_ms, paid.standing.grace_ms) == (NOW_MS + 7 * DAY_MS, None)
    # A later failure has a grace of its own.
    again = standing(sub("past_due"), before=paid.standing, now_ms=NOW_MS + 40 * DAY_MS)
    assert again.grace_ms == NOW_MS + 47 * DAY_MS


@pytest.mark.parametrize("status", ["unpaid", "paused"])
def test_what_is_given_up_blocks_once(status):
    blocked = decided(standing(sub()), sub(status))
    assert blocked.block
    assert decided(blocked.standing, sub(status), now_ms=NOW_MS + DAY_MS) is None


def test_an_end_goes_where_the_plan_says_and_only_from_the_plan_that_was_sold():
    ended = decided(standing(sub()), sub("canceled"))
    assert (ended.plan_id, ended.from_plan_id, ended.block, ended.ends) == ("free", "starter", False, True)
    gone = decided(standing(sub(price="price_gone", items=(Item("si", "price_gone", False),))), sub("canceled"))
    assert (gone.plan_id, gone.block) == (None, True)
    assert decided(ended.standing, sub("canceled")) is None
    # A bill that was not paid does not shut out of a plan that is free.
    unpaid = standing(sub("unpaid"), before=standing(sub()))
    assert decided(unpaid, sub("canceled")).unblock_ms == NOW_MS
    # Deleted at Stripe, with all that belongs to it.
    assert decided(standing(sub())).ends


def test_another_subscriptions_end_ends_nothing():
    """Pitfall 35."""
    before = standing(sub(id="sub_2"))
    assert decided(before, sub("canceled"), sub(id="sub_2")) is None
    assert governing([sub("canceled"), sub(id="sub_2")], before).id == "sub_2"


def test_of_two_the_newest_counts_and_the_operator_hears_of_it():
    decision = decided(None, sub(), sub(id="sub_2", price="price_pro", created_ms=NOW_MS + 1))
    assert decision.plan_id == "pro"
    assert [one.personal for one in decision.news if one.kind is Kind.SUBSCRIPTION_DOUBLE] == [False]
    assert live([sub("incomplete"), sub("canceled", id="sub_2")]) is None


def test_a_plan_by_hand_is_left_alone_until_the_price_changes():
    before = standing(sub())
    renewed = decided(before, sub(period_start_ms=MONTH[1], period_end_ms=MONTH[1] + 30 * DAY_MS))
    assert (renewed.plan_id, renewed.news) == (None, ())
    assert decided(before, sub(price="price_pro")).plan_id == "pro"


def test_since_when_the_prices_are_these_is_remembered():
    before = standing(sub())
    assert decided(before, sub(cancel_ms=MONTH[1]), now_ms=NOW_MS + 9).standing.items_ms == NOW_MS
    changed = decided(before, sub(price="price_pro"), now_ms=NOW_MS + 9).standing
    assert changed.items_ms == NOW_MS + 9
    # Usage from before it is dated with it, but never out of its own period.
    period = Target(NOW_MS - DAY_MS, NOW_MS + DAY_MS, "m", False, False)
    assert stamp(NOW_MS - 5, period, NOW_MS + 20, changed.items_ms) == NOW_MS + 9
    assert stamp(NOW_MS - 5, period._replace(end_ms=NOW_MS), NOW_MS + 20, changed.items_ms) == NOW_MS - 1


def test_a_price_of_nobody_is_no_guess():
    with pytest.raises(UnknownPrice, match="price_x"):
        decided(None, sub(items=(Item("si", "price_x", False),)))


@given(some.integers(0, 4_000), some.integers(0, 86_399), some.integers(0, 40))
def test_the_anchor_gives_the_periods_that_stripe_bills(day, second, number):
    """Pitfall 45: Jan 31, Feb 29, and every other day."""
    anchor_s = 1_735_689_600 + day * 86_400 + second
    start_s, end_s = (boundary_s(anchor_s, "month", 1, count) for count in (number, number + 1))
    one = sub(anchor_ms=anchor_s * 1000, period_start_ms=start_s * 1000, period_end_ms=end_s * 1000)
    for now_ms in (start_s * 1000, end_s * 1000 - 1):
        found = window_bounds(Window.BILLING_PERIOD, now_ms, anchor_ms=anchor_of(one))
        assert found == (start_s * 1000, end_s * 1000)


@given(some.lists(some.tuples(some.sampled_from(STATUSES), some.sampled_from(["sub_1", "sub_2"])), max_size=12))
def test_whatever_comes_the_same_answer_changes_nothing_twice(history):
    before, now_ms = None, NOW_MS
    for status, name in history:
        decision = decided(before, sub(status, id=name), now_ms=now_ms)
        if decision is not None:
            assert not (decision.block and decision.unblock_ms)
            before = replace(decision.standing, version=decision.standing.version + 1)
            assert decided(before, sub(status, id=name), now_ms=now_ms) is None
            assert (before.grace_ms is not None) is (before.status == "past_due")
        now_ms += 1_000


def test_hints_are_read_in_both_shapes_and_never_fail():
    """Pitfall 43."""
    old = {"id": "in_1", "customer": {"id": "cus_1"}, "subscription": "sub_1"}
    new = {"id": "in_1", "customer": "cus_1", "parent": {"subscription_details": {"subscription": "sub_1"}}}
    for about in (old, new):
        hint = hint_of("invoice.paid", {"data": {"object": about}})
        assert (hint.account, hint.invoice_id, hint.subscription_id) == ("cus_1", "in_1", "sub_1")
    for odd in ({}, {"data": 1}, {"data": {"object": []}}, {"data": {"object": {"customer": 5, "parent": "x"}}}):
        assert hint_of("invoice.paid", odd).account is None
    assert subscription_of({"parent": None}) is None
    session = {"customer": "cus_1", "client_reference_id": "ada", "mode": "payment"}
    assert hint_of("checkout.session.completed", {"data": {"object": session}}).reference is None
    odd = {"data": {"reason": {"error_types": [1, {"sample_errors": [None, {"request": {}}]}]}}}
    assert rejected_of(odd) == ([], 0)
