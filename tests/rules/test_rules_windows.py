"""Windows: where they start and turn, in every zone and on every odd day of the calendar."""

import os
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.limits import Window
from gatekeeper.rules.windows import admitted_month, utc_day, window_bounds


def ms(text):
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def text(instant):
    return datetime.fromtimestamp(instant / 1000, UTC).isoformat(timespec="minutes")[:16]


def bounds(window, now, **where):
    return tuple(text(instant) for instant in window_bounds(window, ms(now), **where))


CASES = {
    "hour": (Window.HOUR, "2026-06-15T12:34", {}, ("2026-06-15T12:00", "2026-06-15T13:00")),
    "day": (Window.DAY, "2026-06-15T12:34", {}, ("2026-06-15T00:00", "2026-06-16T00:00")),
    "month": (Window.MONTH, "2026-12-15T12:34", {}, ("2026-12-01T00:00", "2027-01-01T00:00")),
    "day in Tokyo": (Window.DAY, "2026-06-15T16:00", {"zone": "Asia/Tokyo"}, ("2026-06-15T15:00", "2026-06-16T15:00")),
    "a day of 23 hours": (
        Window.DAY,
        "2026-03-29T12:00",
        {"zone": "Europe/Paris"},
        ("2026-03-28T23:00", "2026-03-29T22:00"),
    ),
    "a day of 25 hours": (
        Window.DAY,
        "2026-10-25T12:00",
        {"zone": "Europe/Paris"},
        ("2026-10-24T22:00", "2026-10-25T23:00"),
    ),
    "a month that ends in summer": (
        Window.MONTH,
        "2026-03-10T12:00",
        {"zone": "Europe/Paris"},
        ("2026-02-28T23:00", "2026-03-31T22:00"),
    ),
    "the repeated hour, second time": (
        Window.HOUR,
        "2026-11-01T06:30",
        {"zone": "America/New_York"},
        ("2026-11-01T06:00", "2026-11-01T07:00"),
    ),
    "an hour in a zone of half hours": (
        Window.HOUR,
        "2026-06-15T12:20",
        {"zone": "Asia/Kolkata"},
        ("2026-06-15T11:30", "2026-06-15T12:30"),
    ),
    "a day without midnight": (
        Window.DAY,
        "2026-09-06T12:00",
        {"zone": "America/Santiago"},
        ("2026-09-06T04:00", "2026-09-07T03:00"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_window_starts_and_turns_with_the_clocks_of_its_zone(case):
    window, now, where, expected = CASES[case]
    assert bounds(window, now, **where) == expected


def test_total_never_turns():
    assert window_bounds(Window.TOTAL, ms("2026-06-15T12:00")) == (0, None)


# The day of each of the 24 period starts after the anchor, month by month.
PERIODS = {
    "2025-01-31T10:00": [28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 31] * 2,
    "2024-02-29T00:00": [
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        28,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        29,
        28,
    ],
}


@pytest.mark.parametrize("anchor", PERIODS)
def test_periods_come_from_the_anchor_and_a_short_month_shortens_no_later_one(anchor):
    start, end = window_bounds(Window.BILLING_PERIOD, ms(anchor), anchor_ms=ms(anchor))
    assert start == ms(anchor)
    for later, expected in enumerate(PERIODS[anchor], start=int(anchor[5:7])):
        assert text(end)[5:] == f"{later % 12 + 1:02}-{expected:02}T{anchor[11:]}"
        # The last instant of one period and the first of the next.
        assert window_bounds(Window.BILLING_PERIOD, end - 1, anchor_ms=ms(anchor)) == (start, end)
        start, end = window_bounds(Window.BILLING_PERIOD, end, anchor_ms=ms(anchor))


def test_a_billing_period_needs_an_anchor_and_a_zone_must_exist():
    with pytest.raises(ValueError, match="anchor"):
        window_bounds(Window.BILLING_PERIOD, 0)
    for zone in ("Europe/Atlantis", "../etc/passwd", ""):
        with pytest.raises(ValueError, match="time zone"):
            window_bounds(Window.DAY, 0, zone=zone)


def test_the_time_zone_of_the_host_changes_nothing():
    def everything():
        return [
            window_bounds(window, ms("2026-03-29T01:30"), zone=zone, anchor_ms=ms("2025-01-31T23:30"))
            for window in Window
            for zone in ("UTC", "Europe/Paris")
        ]

    before, mine = everything(), os.environ.get("TZ")
    try:
        os.environ["TZ"] = "Pacific/Kiritimati"
        time.tzset()
        assert everything() == before
    finally:
        os.environ.pop("TZ") if mine is None else os.environ.update(TZ=mine)
        time.tzset()


def test_the_month_of_admission_and_the_day_are_those_of_utc():
    assert admitted_month(ms("2026-06-30T23:59")) == "2026-06"
    assert admitted_month(ms("2026-07-01T00:00")) == "2026-07"
    assert utc_day(ms("2026-06-30T23:59")) == "2026-06-30"


ZONES = [
    "UTC",
    "Europe/Paris",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/Santiago",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Asia/Beirut",
    "Pacific/Apia",
    "Africa/Casablanca",
]
# With the days on which a zone did something odd: Samoa skipped one, Lord Howe moves by half an hour.
instants = st.integers(ms("1990-01-01"), ms("2080-01-01")) | st.builds(
    lambda day, offset: ms(day) + offset,
    st.sampled_from(["2011-12-30", "2011-12-31", "2026-04-04", "2026-10-03", "2018-11-04", "2018-02-18", "2026-11-01"]),
    st.integers(-86_400_000, 86_400_000),
)


@given(st.sampled_from(Window), st.sampled_from(ZONES), instants, instants, st.floats(0, 1))
def test_every_instant_lies_in_exactly_one_window(window, zone, now, anchor, where):
    start, end = window_bounds(window, now, zone=zone, anchor_ms=anchor)
    if window is Window.TOTAL:
        return
    assert start <= now < end
    inside = min(end - 1, start + int((end - start) * where))
    assert window_bounds(window, inside, zone=zone, anchor_ms=anchor) == (start, end)
    assert window_bounds(window, end, zone=zone, anchor_ms=anchor)[0] == end
    assert window_bounds(window, start - 1, zone=zone, anchor_ms=anchor)[1] == start
