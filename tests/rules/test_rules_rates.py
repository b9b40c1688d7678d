"""The leaky bucket: at most cap + rate x T in any interval T, and waiting Retry-After is enough."""

from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules import rates
from gatekeeper.rules.limits import BucketKey, BucketRow, RateLine

MINUTE = BucketKey("key", "k1", "units", 60_000)


def line(cap, amount, least=0, per_ms=60_000):
    return RateLine(MINUTE._replace(per_ms=per_ms), "rate", cap, amount, least)


def test_a_bucket_drains_by_its_cap_in_its_period():
    row = BucketRow(600, 0)
    assert [rates.decayed(row, 600, 60_000, now) for now in (0, 99, 100, 30_000, 60_000, 10**9)] == [
        600,
        600,
        599,
        300,
        0,
        0,
    ]


def test_a_clock_that_goes_back_drains_nothing_and_no_span_drains_twice():
    row, _, _ = rates.charge(BucketRow(0, 0), line(100, 100), 50_000)
    assert rates.decayed(row, 100, 60_000, 10_000) == 100
    earlier, _, _ = rates.charge(BucketRow(50, 50_000), line(100, 10), 10_000)
    assert earlier == BucketRow(60, 50_000)


@given(st.integers(0, 200), st.integers(0, 300), st.integers(0, 300), st.integers(-9_000, 9_000), st.integers(-99, 300))
def test_a_charge_and_a_correction_are_what_drains_and_adds_up(cap, spent, amount, elapsed_ms, change):
    before, now, wanted = BucketRow(spent, 10**6), 10**6 + elapsed_ms, line(cap, amount, per_ms=1_000)
    left, at_ms = rates.decayed(before, cap, 1_000, now), max(now, 10**6)
    charged = rates.charge(before, wanted, now)
    if left + rates.wanted(wanted) > cap:
        assert charged is None
    else:
        row = BucketRow(left + rates.wanted(wanted), at_ms)
        assert charged == (row, rates.wanted(wanted), rates.state(wanted, row, now))
    actual = max(0, amount + change)
    corrected = rates.correct(before, cap, 1_000, amount, actual, now)
    assert corrected == BucketRow(max(0, left + actual - amount), at_ms)


def test_a_correction_may_leave_a_debt_and_never_a_credit():
    assert rates.correct(BucketRow(50, 0), 100, 60_000, charged=40, actual=400, now_ms=0) == BucketRow(410, 0)
    assert rates.correct(BucketRow(50, 0), 100, 60_000, charged=90, actual=0, now_ms=0) == BucketRow(0, 0)
    # The bucket was long empty: the debt begins now.
    assert rates.correct(BucketRow(50, 0), 100, 60_000, charged=40, actual=60, now_ms=10**6) == BucketRow(20, 10**6)


def test_a_debt_fits_64_bits():
    assert rates.correct(BucketRow(0, 0), 1, 1, charged=0, actual=2**70, now_ms=0).spent == 2**63 - 1


def test_a_rate_says_when_its_bucket_is_empty():
    state = rates.state(line(100, 0), BucketRow(50, 1_000), 1_000)
    assert (state.window, state.used, state.remaining, state.resets_ms) == ("minute", 50, 50, 31_000)


steps = st.lists(st.tuples(st.integers(-2_000, 20_000), st.integers(0, 150), st.integers(0, 150)), max_size=40)


@given(st.integers(1, 100), st.sampled_from([1_000, 7_777, 60_000]), steps)
def test_in_any_interval_at_most_the_cap_and_the_rate_times_its_length_are_admitted(cap, per_ms, calls):
    row, now, latest, admitted = BucketRow(), 1_000_000, 0, []
    for step, amount, refund in calls:
        now += step
        charged = rates.charge(row, line(cap, amount, per_ms=per_ms), now)
        if charged is not None:
            # Where the clock went back, the latest instant at which anything was admitted is all that is known of time.
            latest = max(latest, now)
            taken = min(amount, cap)
            row = rates.correct(charged[0], cap, per_ms, taken, max(0, taken - refund), now)
            admitted.append((latest, max(0, taken - refund)))
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            length = admitted[last][0] - admitted[first][0]
            assert sum(taken for _, taken in admitted[first : last + 1]) * per_ms <= cap * per_ms + cap * length


@given(st.integers(1, 10**9), st.integers(0, 10**10), st.integers(0, 10**9), st.integers(-(10**5), 10**5))
def test_after_retry_after_the_same_call_passes_and_not_a_second_before(cap, spent, amount, elapsed_ms):
    row, now, wanted = BucketRow(spent, 10**6), 10**6 + elapsed_ms, line(cap, amount)
    if rates.charge(row, wanted, now) is None:
        wait_s = rates.wait_s(row, wanted, now)
        assert rates.charge(row, wanted, now + wait_s * 1000) is not None
        assert wait_s == 1 or rates.charge(row, wanted, now + (wait_s - 1) * 1000) is None
