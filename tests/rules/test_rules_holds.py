"""What the end of a call does to the rows it held."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.money import Price
from gatekeeper.rules import holds
from gatekeeper.rules.holds import HeldLine, HeldRate, Hold, HoldState
from gatekeeper.rules.limits import (
    ONE_REQUEST,
    BucketKey,
    BucketRow,
    CounterKey,
    CounterRow,
    Mode,
    Scope,
    StockLimit,
    Window,
)
from gatekeeper.rules.plans import Plan

UNITS = CounterKey("customer", "acme", "units", "month", 0)
DOLLARS = UNITS._replace(dimension="dollars")
REQUESTS = UNITS._replace(dimension="requests")
BUCKET = BucketKey("key", "k1", "units", 60_000)
HOLD = Hold(
    (
        HeldLine(UNITS, "quota", 1_000, Mode.BLOCK, 100),
        HeldLine(DOLLARS, "budget", 1_000, Mode.BLOCK, 50),
        HeldLine(REQUESTS, "calls", None, Mode.WARN, ONE_REQUEST),
    ),
    (HeldRate(BUCKET, "rate", 1_000, 30),),
)
COUNTERS = {UNITS: CounterRow(7, 130), DOLLARS: CounterRow(0, 50), REQUESTS: CounterRow(0, ONE_REQUEST)}
BUCKETS = {BUCKET: BucketRow(40, 0)}


def settle(state=HoldState.OPEN, actual=None, plan=None, hold=HOLD, counters=COUNTERS):
    return holds.settle(hold, state, actual or {"units": 120}, plan, counters, BUCKETS, 0)


def test_an_open_hold_is_given_back_and_what_was_taken_is_counted():
    ending = settle(actual={"units": 120, "dollars": 49, "requests": ONE_REQUEST})
    assert ending.counters == {
        UNITS: CounterRow(127, 30),
        DOLLARS: CounterRow(49, 0),
        REQUESTS: CounterRow(ONE_REQUEST, 0),
    }
    assert ending.buckets == {BUCKET: BucketRow(130, 0)}
    assert ending.overrun_micro == 20
    assert [line.actual for line in ending.hold.lines] == [120, 49, ONE_REQUEST]


def test_a_dimension_that_is_not_named_took_nothing():
    assert settle().counters[DOLLARS] == CounterRow(0, 0)


def test_a_released_hold_is_only_counted():
    ending = settle(HoldState.RELEASED)
    assert ending.counters[UNITS] == CounterRow(127, 130)
    assert (ending.buckets, ending.overrun_micro) == ({}, 0)


def test_after_a_recovery_only_the_difference_is_counted():
    recovered = settle(actual={"units": 90})
    later = settle(HoldState.RECOVERED, {"units": 60}, hold=recovered.hold, counters=recovered.counters)
    assert later.counters[UNITS] == CounterRow(67, 30)
    assert later.buckets == {}


def test_nothing_negative_is_taken():
    with pytest.raises(ValueError, match="cannot take"):
        settle(actual={"units": -1})


def test_a_release_gives_everything_back():
    ending = holds.release(HOLD, COUNTERS, BUCKETS, 0)
    assert ending.counters == {UNITS: CounterRow(7, 30), DOLLARS: CounterRow(0, 0), REQUESTS: CounterRow(0, 0)}
    assert ending.buckets == {BUCKET: BucketRow(10, 0)}


def test_a_dead_call_took_its_progress_one_request_and_the_same_share_of_the_rest():
    assert holds.recovered_actual(HOLD, 0, output_seen=False) == {}
    assert holds.recovered_actual(HOLD, 0, output_seen=True) == {"units": 0, "requests": ONE_REQUEST, "dollars": 0}
    assert holds.recovered_actual(HOLD, 25, output_seen=True)["dollars"] == 12
    assert holds.recovered_actual(HOLD, 500, output_seen=True)["dollars"] == 50


@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9)), max_size=12), st.integers(0, 10**9))
def test_charges_and_corrections_add_up_to_the_charge_of_the_whole(calls, included):
    quota = StockLimit("quota", Scope.CUSTOMER, "units", Window.MONTH, included, Mode.OVERAGE)
    plan = Plan("p", "P", Decimal(0), quota, overage=Price(Decimal("0.000000123"), 7))
    counters, charged, total = {UNITS: CounterRow()}, 0, 0
    for estimate, truth in calls:
        hold = Hold((HeldLine(UNITS, "quota", included, Mode.OVERAGE, 0),))
        for state, taken in ((HoldState.OPEN, estimate), (HoldState.RECOVERED, truth)):
            ending = holds.settle(hold, state, {"units": taken}, plan, counters, {}, 0)
            hold, counters, charged = ending.hold, ending.counters, charged + ending.charge_nano
        total += truth
    assert charged == plan.overage_nano(0, total)
    assert counters[UNITS] == CounterRow(total, 0)
