"""What a period comes to: the sum of its charges, which is what the plan says of the whole."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.money import NANO_PER_DOLLAR, Price
from gatekeeper.rules.limits import Mode, Scope, StockLimit, Window
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.statements import StatementLine, statement

MICRO = 1_000_000
QUOTA = StockLimit("quota", Scope.CUSTOMER, "units", Window.BILLING_PERIOD, 100_000 * MICRO, Mode.OVERAGE)
STARTER = Plan("starter", "Starter", Decimal(29), QUOTA, overage=Price(Decimal("0.002")))
PERIOD = (0, 1)


def lines_of(plan, *steps):
    """Calls one after the other, each charged by its step of the counter."""
    used, found = 0, []
    for units_micro, model in steps:
        charge = plan.overage_nano(used, used + units_micro)
        found.append(StatementLine(plan.id, "chat", model, 1, units_micro, charge))
        used += units_micro
    return found


@pytest.mark.parametrize(
    ("units", "overage", "dollars"), [(99_999, 0, "29"), (100_000, 0, "29"), (100_001, 1, "29.002")]
)
def test_the_edge_of_what_is_included(units, overage, dollars):
    """Pitfalls 18 and 21: the first unit above what is included costs its price in dollars, and none below it does."""
    found = statement("ada", "starter", STARTER, PERIOD, lines_of(STARTER, (units * MICRO, None)), {})
    assert (found.overage_micro, found.agrees) == (overage * MICRO, True)
    assert Decimal(found.total_nano) / NANO_PER_DOLLAR == Decimal(dollars)


@given(
    st.lists(st.tuples(st.integers(0, 10**12), st.sampled_from(["a", "b", None])), max_size=30),
    st.decimals(0, 1, places=7),
    st.sampled_from([1, 3, 1_000, 1_000_000]),
)
def test_any_lines_add_up_to_what_the_plan_says_of_the_whole(steps, dollars, per):
    """Pitfalls 19 and 20: one rounding, however many calls; worked out again here in Decimal alone."""
    plan = replace(STARTER, overage=Price(dollars, per))
    found = statement("ada", "starter", plan, PERIOD, lines_of(plan, *steps), {})
    assert found.agrees
    assert found.total_nano == found.expected_nano == plan.period_charge_nano(found.used_micro)
    beyond = max(Decimal(0), Decimal(found.used_micro) / MICRO - 100_000)
    assert abs(Decimal(found.overage_nano) - dollars * beyond / per * NANO_PER_DOLLAR) <= Decimal("0.5")


def test_a_sum_that_is_not_what_the_plan_says_is_told():
    (line,) = lines_of(STARTER, (200_000 * MICRO, None))
    found = statement("ada", "starter", STARTER, PERIOD, [line._replace(charge_nano=line.charge_nano - 1)], {})
    assert not found.agrees


def test_a_period_with_two_plans_is_the_sum_of_its_charges():
    moved = [*lines_of(STARTER, (MICRO, None)), StatementLine("pro", "chat", None, 1, MICRO, 5)]
    found = statement("ada", "starter", STARTER, PERIOD, moved, {})
    assert (found.expected_nano, found.agrees, found.overage_nano) == (None, True, 5)


def test_a_quota_of_another_window_is_not_worked_out_at_once():
    monthly = replace(STARTER, quota=replace(QUOTA, window=Window.MONTH))
    assert statement("ada", "starter", monthly, PERIOD, [], {}).expected_nano is None


def test_a_plan_that_is_gone_and_one_without_a_quota():
    found = statement("ada", "old", None, PERIOD, [StatementLine("old", "chat", None, 1, MICRO, 7)], {})
    assert (found.fee_nano, found.total_nano, found.included_micro, found.agrees) == (0, 7, None, True)
    open_plan = Plan("big", "Big", Decimal(499), None)
    found = statement("ada", "big", open_plan, PERIOD, [StatementLine("big", "chat", None, 1, MICRO, 0)], {})
    assert (found.total_nano, found.expected_nano, found.overage_micro) == (499 * 10**9, 499 * 10**9, 0)
