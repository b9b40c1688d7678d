"""What usage costs on a plan: the edges of what is included, and steps that add up."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.money import MICRO_PER_UNIT, NANO_PER_DOLLAR, Price
from gatekeeper.rules.limits import UNITS, Mode, Scope, StockLimit, Window
from gatekeeper.rules.plans import Plan


def quota(cap_units: int | None, mode: Mode) -> StockLimit:
    cap = None if cap_units is None else cap_units * MICRO_PER_UNIT
    return StockLimit("quota", Scope.CUSTOMER, UNITS, Window.MONTH, cap, mode)


STARTER = Plan("starter", "Starter", Decimal(29), quota(100_000, Mode.OVERAGE), overage=Price(Decimal("0.002"), per=1))
FREE = Plan("free", "Free", Decimal(0), quota(10_000, Mode.BLOCK))
ENTERPRISE = Plan("enterprise", "Enterprise", Decimal(499), quota(None, Mode.BLOCK))


@pytest.mark.parametrize(
    ("units", "dollars"),
    [(0, "29"), (99_999, "29"), (100_000, "29"), (100_001, "29.002"), (1_000_000, "1829")],
)
def test_overage_begins_with_the_first_unit_above_what_is_included(units: int, dollars: str) -> None:
    assert STARTER.period_charge_nano(units * MICRO_PER_UNIT) == Decimal(dollars) * NANO_PER_DOLLAR


def test_a_part_of_a_unit_above_the_included_is_charged_as_a_part() -> None:
    assert STARTER.overage_nano(0, 100_000 * MICRO_PER_UNIT + 500_000) == 1_000_000


def test_a_blocked_quota_admits_its_cap_and_nothing_above_and_charges_no_overage() -> None:
    assert FREE.admits(10_000 * MICRO_PER_UNIT)
    assert not FREE.admits(10_000 * MICRO_PER_UNIT + 1)
    assert FREE.overage_nano(0, 10**15) == 0


def test_unlimited_admits_everything_for_the_monthly_price() -> None:
    assert ENTERPRISE.admits(10**18)
    assert ENTERPRISE.period_charge_nano(10**18) == 499 * NANO_PER_DOLLAR


def test_a_plan_in_overage_and_a_plan_without_quota_admit_everything() -> None:
    assert STARTER.admits(10**18)
    assert Plan("open", "Open", Decimal(0), None).admits(10**18)
    assert Plan("open", "Open", Decimal(0), None).overage_nano(0, 10**18) == 0


@given(
    st.lists(st.integers(0, 10**12), max_size=30),
    st.decimals(min_value=0, max_value=10, places=9),
    st.sampled_from([1, 7, 1_000, 1_000_000]),
)
def test_the_steps_of_a_counter_add_up_to_the_charge_of_the_whole(steps: list[int], dollars: Decimal, per: int) -> None:
    plan = Plan("p", "P", Decimal(0), quota(1_000, Mode.OVERAGE), overage=Price(dollars, per))
    total = charged = 0
    for step in steps:
        charge = plan.overage_nano(total, total + step)
        assert charge >= 0
        charged += charge
        total += step
    assert charged == plan.overage_nano(0, total) == plan.period_charge_nano(total)
