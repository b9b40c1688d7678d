"""Which events are wanted, when a threshold is crossed, and how long to wait after a failure."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules import notices
from gatekeeper.rules.limits import CounterKey, CounterRow, Mode, StockLine
from gatekeeper.rules.notices import Kind, Subscription, Wanted, crossed, crossing_id, retry_delay_ms, target_pause_s

KEY = CounterKey("customer", "acme", "units", "month", 0)
LINE = StockLine(KEY, "quota", 1_000, Mode.BLOCK, 0, 0, 99)


def percents(before, after, line=LINE, thresholds=(80, 95, 100)):
    found = crossed([line], {line.key: CounterRow(before)}, {line.key: CounterRow(after)}, thresholds)
    return [crossing.percent for crossing in found]


def test_a_threshold_is_crossed_by_the_step_that_reaches_it():
    assert percents(0, 799) == []
    assert percents(799, 800) == [80]
    assert percents(800, 801) == []
    assert percents(0, 1_000) == [80, 95, 100]
    assert percents(949, 5_000) == [95, 100]
    assert percents(1_000, 5_000) == []


def test_thresholds_above_the_cap_tell_of_overage():
    assert percents(0, 2_000, replace(LINE, mode=Mode.OVERAGE), (100, 150, 200, 201)) == [100, 150, 200]


def test_what_has_no_cap_or_none_at_all_has_no_thresholds():
    assert percents(0, 10**9, replace(LINE, cap=None)) == []
    assert percents(0, 10**9, replace(LINE, cap=0)) == []


def test_a_counter_that_did_not_change_tells_nothing():
    assert crossed([LINE], {KEY: CounterRow(0)}, {}, (80,)) == []
    assert crossed([LINE], {}, {KEY: CounterRow(900)}, (80,)) == []


def test_a_correction_that_gives_back_crosses_nothing():
    assert percents(900, 700) == []
    assert percents(900, 900) == []


@given(st.lists(st.integers(0, 400), max_size=12), st.integers(1, 1_500))
def test_each_threshold_is_crossed_once_however_the_use_is_cut_up(steps, cap):
    line, used, found = replace(LINE, cap=cap), 0, []
    for step in steps:
        found += percents(used, used + step, line)
        used += step
    assert found == percents(0, used, line)
    assert found == [percent for percent in (80, 95, 100) if used * 100 >= percent * cap and used]


def test_the_id_of_a_crossing_is_made_of_counter_limit_cap_and_threshold():
    first = notices.Crossing(LINE, 80, 801)
    assert crossing_id(first) == crossing_id(first._replace(used=999))
    others = [
        first._replace(percent=95),
        first._replace(line=replace(LINE, limit="budget")),
        first._replace(line=replace(LINE, cap=2_000)),
        first._replace(line=replace(LINE, key=KEY._replace(start_ms=1))),
        first._replace(line=replace(LINE, key=KEY._replace(subject='acme/"\ud83d\u2028'))),
    ]
    ids = {crossing_id(one) for one in (first, *others)}
    assert len(ids) == 6
    assert all(one.isascii() and "." not in one and len(one) < 60 for one in ids)


def test_what_is_wanted_is_the_sum_of_the_subscriptions():
    assert notices.wanted([]) is None
    usage = Subscription("a", frozenset({Kind.USAGE_RECORDED}), (50,))
    limits = Subscription("b", frozenset({Kind.LIMIT_THRESHOLD}), (80, 100))
    assert notices.wanted([usage]) == Wanted(frozenset({Kind.USAGE_RECORDED}), ())
    both = frozenset({Kind.USAGE_RECORDED, Kind.LIMIT_THRESHOLD})
    assert notices.wanted([usage, limits]) == Wanted(both, (80, 100))


def test_a_target_takes_its_kinds_its_thresholds_and_where_it_says_so_only_what_is_of_a_customer():
    limits = Subscription("b", frozenset({Kind.LIMIT_THRESHOLD}), (80, 100))
    assert limits.takes(Kind.LIMIT_THRESHOLD, None, {"threshold": 80})
    assert not limits.takes(Kind.LIMIT_THRESHOLD, "acme", {"threshold": 95})
    assert not limits.takes(Kind.USAGE_RECORDED, "acme", {"threshold": 80})
    own = replace(limits, of_customers=True)
    assert own.takes(Kind.LIMIT_THRESHOLD, "acme", {"threshold": 100})
    assert not own.takes(Kind.LIMIT_THRESHOLD, None, {"threshold": 100})


def test_attempts_are_spread_over_a_day_and_then_given_up():
    delays = [retry_delay_ms(attempt, 0.0) for attempt in range(1, notices.ATTEMPTS_MAX)]
    assert delays[:4] == [5_000, 15_000, 45_000, 135_000]
    assert delays == sorted(delays)
    assert 24 <= sum(delays) / 3_600_000 <= 26
    assert retry_delay_ms(notices.ATTEMPTS_MAX, 0.0) is None
    assert retry_delay_ms(1, 0.999) == 5_999
    assert max(retry_delay_ms(attempt, 0.999) for attempt in range(1, notices.ATTEMPTS_MAX)) < 4 * 3_600_000


def test_a_target_that_fails_is_left_alone_for_longer_and_longer_up_to_a_minute():
    assert [target_pause_s(failures, 0.0) for failures in (1, 2, 3, 7, 1_000)] == [1, 2, 4, 60, 60]
    assert target_pause_s(1, 0.5) == pytest.approx(1.1)
