"""How figures and instants are written on pages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.web.pages import formats


@pytest.mark.parametrize(
    ("nano", "shown"),
    [
        (0, "$0.00"),
        (1, "$0.000000001"),
        (74_400, "$0.0000744"),
        (110_612_345, "$0.1106"),
        (228_000_000, "$0.228"),
        (500_000_000, "$0.50"),
        (1_000_000_000, "$1.00"),
        (1_234_567_890_000, "$1,234.57"),
        (-110_600_000, "−$0.1106"),
        (-2_000_000_000, "−$2.00"),
        (999_999_999, "$1.00"),
        (None, "–"),
    ],
)
def test_dollars_are_as_long_as_they_say_something(nano, shown):
    assert formats.dollars(nano) == shown


@given(st.integers(-(10**15), 10**15))
def test_shown_dollars_are_at_most_half_a_digit_off(nano):
    digits = formats.dollars(nano).replace("−", "-").replace("$", "").replace(",", "")
    off = abs(round(float(digits) * 1e9) - nano)
    assert off <= max(abs(nano) * 6 // 10_000, 1) if abs(nano) < 10**9 else off <= 5_000_000 + abs(nano) // 10**14


@pytest.mark.parametrize(
    ("part", "whole", "shown"), [(0, 0, "–"), (0, 7, "0 %"), (1, 8, "12.5 %"), (7, 7, "100 %"), (-1, 4, "-25 %")]
)
def test_a_share_of_nothing_is_none(part, whole, shown):
    assert formats.percent(part, whole) == shown


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (None, "–"),
        (0, "0 ms"),
        (999, "999 ms"),
        (1_250, "1.2 s"),
        (61_000, "1 min"),
        (3_600_000, "1 h"),
        (10**9, "11 days"),
    ],
)
def test_durations(ms, shown):
    assert formats.millis(ms) == shown


def test_an_instant_has_its_machine_readable_form():
    text = formats.when(1_795_241_875_022)
    assert (
        text == '<time datetime="2026-11-21T06:17:55.022Z" title="2026-11-21 06:17:55 UTC">2026-11-21 06:17 UTC</time>'
    )
    assert formats.when(None) == "–"


@given(st.integers(-(2**63), 2**63))
def test_no_stored_instant_breaks_a_page(ms):
    assert str(formats.when(ms)) and str(formats.ago({"now_ms": 0}, ms)) and str(formats.precise(ms))


@pytest.mark.parametrize(
    ("ms", "shown"),
    [(10**12, "just now"), (10**12 + 60_000, "in 1 min"), (10**12 - 3 * 3_600_000, "3 h ago"), (None, "never")],
)
def test_how_long_ago(ms, shown):
    assert shown in formats.ago({"now_ms": 10**12}, ms)


@pytest.mark.parametrize(
    ("stored", "dimension", "shown"),
    [
        (None, "units", "unlimited"),
        (1_500_000, "units", "1.5"),
        (25_000_000_000, "dollars", "$25.00"),
        (3_000_000, "requests", "3"),
    ],
)
def test_an_amount_is_in_the_unit_of_its_limit(stored, dimension, shown):
    assert formats.amount(stored, dimension) == shown
