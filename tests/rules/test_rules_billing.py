"""How usage becomes batches: whole units with a residue, the period that is billed, what may be sent again."""

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.money import Price
from gatekeeper.rules import billing
from gatekeeper.rules.billing import Batch, BatchState, Compared, Next, Owing, Target
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import DAY_MS, HOUR_MS

NOW_MS = 1_781_524_800_000
PERIOD = (NOW_MS - 10 * DAY_MS, NOW_MS + 20 * DAY_MS)
BATCH = Batch(
    id="mb_1",
    customer_id="ada",
    meter="m",
    period_start_ms=PERIOD[0],
    period_end_ms=PERIOD[1],
    value=7,
    ts_ms=NOW_MS,
    identifier="mb_1",
    state=BatchState.WAITING,
    late=False,
    carried_micro=0,
    left_micro=0,
    created_ms=NOW_MS,
    next_ms=NOW_MS,
)


@given(st.lists(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=5), max_size=20))
def test_any_batches_add_up_to_the_ledger(batches):
    """Pitfalls 16 and 20: whole numbers leave; fractions, and what corrections took back, are carried."""
    carried = told = 0
    for rows in batches:
        # As SQL divides: towards zero.
        units = sum(int(Decimal(row) / 1_000_000) for row in rows)
        rest = sum(row - 1_000_000 * int(Decimal(row) / 1_000_000) for row in rows)
        value, left = billing.whole(carried, units, rest)
        assert type(value) is int
        assert value >= 0
        # Either all of it is less than nothing, or less than a unit is left.
        assert left < 1_000_000
        assert value == 0 or left >= 0
        carried = left
        told += value
    assert told * 1_000_000 + carried == sum(map(sum, batches))


@pytest.mark.parametrize(
    ("now_ms", "late", "start_ms"),
    [
        (PERIOD[1] - 1, False, PERIOD[0]),
        (PERIOD[1] + 55 * 60_000, False, PERIOD[0]),
        (PERIOD[1] + 55 * 60_000 + 1, False, PERIOD[1]),
        (PERIOD[1] + 1, True, PERIOD[1]),
    ],
)
def test_usage_is_billed_to_its_own_period_while_its_invoice_is_open(now_ms, late, start_ms):
    owing = Owing("pro", *PERIOD, late, False)
    # Of the fifth of each month, so that the period after is told from the anchor.
    found = billing.target(owing, "m", now_ms, PERIOD[0])
    assert found is not None
    assert found.late is (start_ms != PERIOD[0])
    if found.late:
        assert found.start_ms <= now_ms < found.end_ms
        assert found.start_ms > PERIOD[0]
    else:
        assert found[:2] == PERIOD


def test_a_period_that_has_not_begun_waits():
    """Pitfall 8: a host whose clock is ahead has used something in a period that is yet to come."""
    ahead = Owing("pro", NOW_MS + 6 * 60_000, NOW_MS + 30 * DAY_MS, False, False)
    assert billing.target(ahead, "m", NOW_MS, 0) is None
    assert billing.target(ahead, "m", NOW_MS + 60_000, 0) is not None


@given(st.integers(-40, 40), st.booleans())
def test_an_instant_is_never_ahead_and_never_outside_its_period(hours, late):
    """Pitfalls 8 and 10."""
    period = Target(NOW_MS - 20 * HOUR_MS, NOW_MS + HOUR_MS, "m", False, late)
    ts_ms = billing.stamp(NOW_MS + hours * HOUR_MS, period, NOW_MS)
    assert period.start_ms <= ts_ms < period.end_ms
    assert ts_ms <= NOW_MS
    assert not late or ts_ms == NOW_MS


def test_the_last_day_of_short_months_bounds_the_late_period():
    """Pitfall 45: an anchor on January 31."""
    anchor_ms = int(datetime(2026, 1, 31, 12, tzinfo=UTC).timestamp() * 1000)
    ended_ms = int(datetime(2026, 2, 28, 12, tzinfo=UTC).timestamp() * 1000)
    found = billing.target(Owing("pro", anchor_ms, ended_ms, True, False), "m", ended_ms + HOUR_MS, anchor_ms)
    assert found.start_ms == ended_ms
    assert datetime.fromtimestamp(found.end_ms / 1000, UTC) == datetime(2026, 3, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "age_ms", "word"),
    [
        (10**15 - 1, 0, None),
        (10**15, 0, "15 digits"),
        (1, 35 * DAY_MS - HOUR_MS, None),
        (1, 35 * DAY_MS - HOUR_MS + 1, "35 days"),
    ],
)
def test_what_no_biller_takes_is_refused_here(value, age_ms, word):
    """Pitfalls 7 and 16."""
    found = billing.objection(value, NOW_MS - age_ms, NOW_MS)
    assert (found is None) if word is None else (word in found)


def test_what_may_have_been_counted_is_sent_again_for_less_than_a_day():
    """Pitfall 6."""
    sent = replace(BATCH, first_sent_ms=NOW_MS)
    assert billing.next_step(BATCH, NOW_MS + 20 * DAY_MS) is Next.SEND
    assert billing.next_step(sent, NOW_MS + 23 * HOUR_MS) is Next.SEND
    assert billing.next_step(sent, NOW_MS + 23 * HOUR_MS + 1) is Next.COMPARE
    assert billing.next_step(sent, NOW_MS + 35 * DAY_MS) is Next.TOO_OLD


def test_sums_of_a_minute_tell_what_arrived():
    def beside(*found):
        made = []
        for number, (value, state, first_sent_ms) in enumerate(found):
            made.append(replace(BATCH, id=f"b{number}", value=value, state=state, first_sent_ms=first_sent_ms))
        return [BATCH, *made]

    waiting, sent = BatchState.WAITING, BatchState.SENT
    assert billing.compared(BATCH, beside(), 0) is Compared.HAS_NOT
    assert billing.compared(BATCH, beside(), 7) is Compared.HAS_IT
    assert billing.compared(BATCH, beside(), 8) is Compared.UNCLEAR
    assert billing.compared(BATCH, beside((5, sent, 1)), 5) is Compared.HAS_NOT
    assert billing.compared(BATCH, beside((5, sent, 1)), 12) is Compared.HAS_IT
    # Another of unknown fate: told apart by what it comes to, and not where both come to the same.
    assert billing.compared(BATCH, beside((5, waiting, 1)), 12) is Compared.HAS_IT
    assert billing.compared(BATCH, beside((5, waiting, 1)), 0) is Compared.HAS_NOT
    assert billing.compared(BATCH, beside((5, waiting, 1)), 7) is Compared.HAS_IT
    assert billing.compared(BATCH, beside((5, waiting, 1)), 5) is Compared.HAS_NOT
    assert billing.compared(BATCH, beside((7, waiting, 1)), 7) is Compared.UNCLEAR
    assert billing.compared(BATCH, beside((3, waiting, 1), (4, BatchState.DEAD, 1)), 7) is Compared.UNCLEAR
    assert billing.compared(BATCH, beside(*[(1, waiting, 1)] * 17), 0) is Compared.UNCLEAR
    # One that was never sent is not there.
    assert billing.compared(BATCH, beside((5, waiting, None)), 7) is Compared.HAS_IT


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.booleans()), max_size=8), st.booleans())
def test_whatever_arrived_a_sum_is_never_misread(others, arrived):
    """Each other one: its units, whether we know that it arrived, and whether it did."""
    beside, told = [BATCH], BATCH.value * arrived
    for number, (value, known, counted) in enumerate(others):
        state = BatchState.SENT if known else BatchState.WAITING
        beside.append(replace(BATCH, id=f"b{number}", value=value, state=state, first_sent_ms=1))
        told += value * (known or counted)
    found = billing.compared(BATCH, beside, told)
    assert found in (Compared.UNCLEAR, Compared.HAS_IT if arrived else Compared.HAS_NOT)
    if all(known for _, known, _ in others):
        assert found is not Compared.UNCLEAR


def test_what_was_counted_nowhere_is_dated_anew_when_its_invoice_is_closed():
    end_ms = BATCH.period_end_ms
    closed_ms = end_ms + billing.FINAL_MS + 1
    assert billing.next_step(BATCH, closed_ms - 1) is Next.SEND
    assert billing.next_step(BATCH, closed_ms) is Next.REDATE
    assert billing.next_step(replace(BATCH, first_sent_ms=closed_ms - 1), closed_ms) is Next.SEND
    # What was late from the beginning has its date after the end of what it was used in.
    assert billing.next_step(replace(BATCH, ts_ms=end_ms), closed_ms) is Next.SEND
    start_ms, until_ms, ts_ms = billing.redated(closed_ms, BATCH.period_start_ms)
    assert start_ms <= ts_ms == closed_ms < until_ms


def test_attempts_are_further_and_further_apart_and_never_sooner_than_asked():
    """Pitfall 11."""
    delays = [billing.retry_delay_ms(attempts, 0.0) for attempts in range(1, 12)]
    assert delays[:4] == [5_000, 15_000, 45_000, 135_000]
    assert delays == sorted(delays)
    assert max(delays) == HOUR_MS
    assert billing.retry_delay_ms(10**6, 0.99) < 2 * HOUR_MS
    assert billing.retry_delay_ms(1, 0.0, 90.0) == 90_000
    assert billing.retry_delay_ms(5, 0.0, 1.0) == delays[4]
    assert billing.retry_delay_ms(1, 0.0, float(10**12)) == DAY_MS
    assert billing.retry_delay_ms(1, 0.5) == 5_500


def test_only_what_a_price_follows_from_is_metered():
    free = Plan("free", "Free", Decimal(0), None)
    licence = Plan("big", "Big", Decimal(499), None, stripe_price="price_1")
    metered = Plan("pay", "Pay", Decimal(0), None, metered_price="price_2")
    overage = Plan("pro", "Pro", Decimal(9), None, overage=Price(Decimal("0.1")))
    plans = {plan.id: plan for plan in (free, licence, metered, overage)}
    assert billing.meters_of(plans, "m") == {"free": None, "big": None, "pay": "m", "pro": "m"}


def test_a_no_of_a_throttled_biller_is_a_fault_that_acted_on_nothing():
    throttled = billing.Throttled("429", 3.0)
    assert (throttled.retryable, throttled.retry_after_s, throttled.world) == (True, 3.0, "biller")
