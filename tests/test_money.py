"""Money: exact within a charge, integers outside, one rounding, and never a binary float."""

import ast
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gatekeeper.money
from gatekeeper.money import (
    MICRO_PER_UNIT,
    Price,
    dollars_text,
    dollars_to_nano,
    micro_to_units,
    nano_to_dollars,
    plain,
    rounded,
    units_text,
    units_to_micro,
)

STORED = st.integers(-(10**18), 10**18)
DOLLARS = st.decimals(min_value=0, max_value=10_000, places=12)


def half_even(value: Fraction) -> int:
    """Python's own rounding of exact fractions is half-even."""
    return round(value)


@given(st.decimals(min_value=-(10**9), max_value=10**9, places=15), st.sampled_from([1, 10**6, 10**9]))
def test_rounding_is_half_even_on_the_exact_value(value: Decimal, scale: int) -> None:
    assert rounded(value, scale) == half_even(Fraction(value) * scale)


@pytest.mark.parametrize(("dollars", "nano"), [("0.0000000005", 0), ("0.0000000015", 2), ("0.00000000050001", 1)])
def test_half_a_nano_dollar_goes_to_the_even_neighbour(dollars: str, nano: int) -> None:
    assert dollars_to_nano(Decimal(dollars)) == nano


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "sNaN"])
def test_what_is_no_number_is_never_rounded_to_one(value: str) -> None:
    with pytest.raises(ValueError, match="not a finite number"):
        rounded(Decimal(value), 1)


@given(STORED)
def test_stored_figures_come_back_to_the_digit(stored: int) -> None:
    assert units_to_micro(micro_to_units(stored)) == stored
    assert dollars_to_nano(nano_to_dollars(stored)) == stored
    assert dollars_to_nano(Decimal(dollars_text(stored))) == stored
    assert units_to_micro(Decimal(units_text(stored))) == stored


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("1E+2", "100"),
        ("1E-7", "0.0000001"),
        ("0.500", "0.5"),
        ("-0", "0"),
        ("-0.0", "0"),
        ("87", "87"),
        ("100", "100"),
    ],
)
def test_figures_are_written_in_plain_digits(value: str, text: str) -> None:
    assert plain(Decimal(value)) == text


@given(DOLLARS, st.integers(1, 10**6), st.integers(0, 10**15))
def test_a_charge_is_the_exact_product_rounded_once(dollars: Decimal, per: int, units_micro: int) -> None:
    exact = Fraction(dollars) * units_micro * 10**9 / (per * MICRO_PER_UNIT)
    assert Price(dollars, per).charge_nano(units_micro) == half_even(exact)


@given(DOLLARS, st.sampled_from([1, 3, 1_000, 1_000_000]), st.lists(st.integers(0, 10**12), max_size=50))
def test_steps_add_up_to_the_charge_of_the_whole(dollars: Decimal, per: int, steps: list[int]) -> None:
    price = Price(dollars, per)
    total = charged = 0
    for step in steps:
        charged += price.step_nano(total, total + step)
        total += step
    assert charged == price.charge_nano(total)


def test_a_thousand_calls_below_a_nano_dollar_are_neither_lost_nor_rounded_up() -> None:
    price = Price(Decimal("0.0000000004"))
    steps = [price.step_nano(n * MICRO_PER_UNIT, (n + 1) * MICRO_PER_UNIT) for n in range(1_000)]
    assert set(steps) == {0, 1}
    assert sum(steps) == 400


@given(DOLLARS, st.integers(0, 10**15), st.integers(0, 10**15))
def test_more_use_never_costs_less(dollars: Decimal, one: int, other: int) -> None:
    price = Price(dollars, 1_000)
    assert price.charge_nano(min(one, other)) <= price.charge_nano(max(one, other))


def test_the_result_is_an_integer_also_where_the_price_is_not() -> None:
    assert type(Price(Decimal("0.1"), 3).charge_nano(1)) is int


@pytest.mark.parametrize(("dollars", "per"), [("-1", 1), ("NaN", 1), ("1", 0), ("1", -5)])
def test_a_price_that_cannot_be_is_our_own_error(dollars: str, per: int) -> None:
    with pytest.raises(AssertionError):
        Price(Decimal(dollars), per)


def test_no_float_stands_in_the_source_of_money() -> None:
    tree = ast.parse(Path(gatekeeper.money.__file__).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), ast.dump(node)
        assert not (isinstance(node, ast.Name) and node.id == "float"), ast.dump(node)
        # `/` on integers would make one: division goes through the exact context.
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), ast.dump(node)


@given(STORED)
def test_the_texts_of_stored_figures_are_those_of_the_exact_decimals(stored):
    assert units_text(stored) == plain(micro_to_units(stored))
    assert dollars_text(stored) == plain(nano_to_dollars(stored))
