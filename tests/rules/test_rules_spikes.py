"""When a pace is a spike: both much, and much more than usual."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.spikes import Pace, spike, spikes
from gatekeeper.rules.windows import HOUR_MS

NOW = 1_750_000_000_000
DOLLAR = 1_000_000_000


def pace(recent: int, before: int, hours: int = 24, subject: str = "acme") -> Pace:
    return Pace(subject, recent, before, NOW - HOUR_MS - hours * HOUR_MS)


def judged(found: Pace, **asked):
    return spike(found, NOW, **{"minimum": DOLLAR, "hours": 24, **asked})


def test_ten_times_the_usual_hour_is_a_spike_and_twice_is_none():
    found = judged(pace(10 * DOLLAR, 24 * DOLLAR))
    assert (found.recent, found.usual, found.hours, found.times) == (10 * DOLLAR, DOLLAR, 24, Decimal("10.0"))
    assert judged(pace(2 * DOLLAR, 24 * DOLLAR)) is None


def test_below_the_minimum_nothing_is_a_spike():
    assert judged(pace(DOLLAR - 1, 0)) is None
    found = judged(pace(DOLLAR, 0))
    assert (found.usual, found.times) == (0, None)


def test_a_short_life_is_compared_with_itself():
    # Two hours old, five dollars in each: the week before it was born is no quiet time.
    assert judged(pace(5 * DOLLAR, 10 * DOLLAR, hours=2), hours=168) is None
    assert judged(pace(5 * DOLLAR, 10 * DOLLAR, hours=168), hours=168) is not None


def test_the_largest_comes_first():
    found = spikes(
        [pace(DOLLAR, 0, subject="b"), pace(9 * DOLLAR, 0, subject="c"), pace(DOLLAR, 0, subject="a"), pace(1, 0)],
        NOW,
        minimum=DOLLAR,
    )
    assert [each.subject for each in found] == ["c", "a", "b"]


@pytest.mark.parametrize(
    "asked", [{"minimum": -1}, {"factor": Decimal("0.5")}, {"factor": Decimal("NaN")}, {"hours": 0}]
)
def test_what_cannot_be_asked_is_refused(asked):
    with pytest.raises(ValueError, match="a spike needs"):
        judged(pace(1, 1), **asked)


AMOUNTS = st.integers(0, 2**62)
FACTORS = st.decimals("1.1", "100", places=1)


@given(st.integers(1, 2**50), st.integers(1, 744), FACTORS)
def test_a_steady_pace_is_never_a_spike(hourly, hours, factor):
    assert judged(pace(hourly, hourly * hours, hours), minimum=0, factor=factor, hours=hours) is None


@given(AMOUNTS, AMOUNTS, st.integers(1, 744), FACTORS, AMOUNTS, st.integers(0, 2**60))
def test_more_now_or_less_before_never_ends_a_spike(recent, before, hours, factor, minimum, more):
    asked = {"minimum": minimum, "factor": factor, "hours": hours}
    if judged(pace(recent, before, hours), **asked) is not None:
        assert recent >= minimum
        assert judged(pace(recent + more, before, hours), **asked) is not None
        assert judged(pace(recent, max(0, before - more), hours), **asked) is not None
        lower = {**asked, "minimum": max(0, minimum - more)}
        assert judged(pace(recent, before, hours), **lower) is not None


@given(AMOUNTS, AMOUNTS, st.integers(1, 100), FACTORS, AMOUNTS, st.integers(1, 1_000))
def test_the_unit_of_the_amounts_does_not_matter(recent, before, hours, factor, minimum, scale):
    one = judged(pace(recent, before, hours), minimum=max(1, minimum), factor=factor, hours=hours)
    scaled = pace(recent * scale, before * scale, hours)
    other = judged(scaled, minimum=max(1, minimum) * scale, factor=factor, hours=hours)
    assert (one is None) == (other is None)
