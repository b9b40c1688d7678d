"""Admission: the most output that fits every block limit, all-or-nothing, and a Retry-After that is true."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.budgets import decide, extend
from gatekeeper.rules.limits import (
    BucketKey,
    BucketRow,
    CounterKey,
    CounterRow,
    Denied,
    Granted,
    Mode,
    RateLine,
    Reason,
    StockLine,
)

NOW = 1_000_000
KEY = CounterKey("customer", "acme", "units", "day", 0)
BUCKET = BucketKey("key", "k1", "units", 60_000)


def line(cap, fixed=0, per_output=0, *, key=KEY, mode=Mode.BLOCK, ends_ms=NOW + 4_500):
    return StockLine(key, "quota", cap, mode, fixed, per_output, ends_ms)


def rate(cap, amount, least=0):
    return RateLine(BUCKET, "rate", cap, amount, least)


def ask(*stock, rates=(), tokens=0, least=0, counters=None, buckets=None, now=NOW):
    return decide(stock, rates, tokens, least, counters or {}, buckets or {}, now)


def test_the_output_is_clamped_to_what_fits():
    decision = ask(line(100, fixed=10, per_output=7), tokens=50, least=1, counters={KEY: CounterRow(20, 5)})
    # 100 - 25 - 10 leaves 65: 9 tokens of 7.
    assert decision.verdict.output_tokens == 9
    assert decision.counters == {KEY: CounterRow(20, 5 + 10 + 63)}
    assert decision.hold.lines[0].amount == 73
    assert decision.verdict.stock[0].remaining == 2


def test_a_cap_is_reached_exactly_and_not_passed():
    assert isinstance(ask(line(100, fixed=100)).verdict, Granted)
    assert isinstance(ask(line(100, fixed=101)).verdict, Denied)


@pytest.mark.parametrize("mode", [Mode.WARN, Mode.SOFT, Mode.OVERAGE])
def test_other_modes_count_and_never_refuse(mode):
    decision = ask(line(5, fixed=10, mode=mode), counters={KEY: CounterRow(7, 0)})
    assert decision.counters == {KEY: CounterRow(7, 10)}
    assert decision.verdict.stock[0].remaining == 0


def test_unlimited_is_none_and_none_is_zero():
    assert isinstance(ask(line(None, fixed=10**15)).verdict, Granted)
    denied = ask(line(0, fixed=0)).verdict
    assert (denied.reason, denied.retry_after_s) == (Reason.USED, None)


REASONS = {
    "used up": (CounterRow(100, 0), 1, Reason.USED, 1, 5),
    "used up, promising nothing": (CounterRow(100, 0), 0, Reason.USED, 0, 5),
    "over-used by an overrun": (CounterRow(130, 0), 10, Reason.USED, 40, 5),
    "used up, and larger than an empty window": (CounterRow(100, 0), 101, Reason.USED, 101, None),
    "held by others": (CounterRow(40, 60), 1, Reason.HELD, 1, 1),
    "larger than what is left": (CounterRow(40, 0), 61, Reason.EXCEEDS_LIMIT, 1, 5),
    "larger than the limit": (CounterRow(0, 0), 150, Reason.EXCEEDS_LIMIT, 50, None),
}


@pytest.mark.parametrize("case", REASONS)
def test_a_denial_says_why_how_much_is_missing_and_when_to_come_back(case):
    row, fixed, reason, shortfall, retry_s = REASONS[case]
    decision = ask(line(100, fixed=fixed), counters={KEY: row})
    assert decision.verdict.reason is reason
    assert (decision.verdict.shortfall, decision.verdict.retry_after_s) == (shortfall, retry_s)
    assert (decision.counters, decision.buckets, decision.hold) == ({}, {}, None)
    assert (decision.verdict.limit.used, decision.verdict.limit.held) == (row.used, row.held)


def test_a_window_that_never_turns_gives_no_retry_after():
    assert ask(line(1, fixed=1, ends_ms=None), counters={KEY: CounterRow(1, 0)}).verdict.retry_after_s is None


def test_of_several_denials_the_one_that_lasts_longest_is_named():
    other = replace(KEY_LINE := line(100, fixed=1), key=KEY._replace(subject="other"), limit="held one")
    counters = {KEY: CounterRow(100, 0), other.key: CounterRow(0, 100)}
    assert ask(other, KEY_LINE, counters=counters).verdict.limit.name == "quota"
    for_ever = replace(KEY_LINE, key=KEY._replace(window="total"), limit="total", ends_ms=None)
    counters[for_ever.key] = CounterRow(100, 0)
    assert ask(other, KEY_LINE, for_ever, counters=counters).verdict.limit.name == "total"


def test_two_limits_on_one_counter_count_once():
    decision = ask(line(100, fixed=60), line(1_000, fixed=60, mode=Mode.WARN))
    assert decision.counters == {KEY: CounterRow(0, 60)}
    assert len(decision.hold.lines) == 1
    assert decision.hold.lines[0].mode is Mode.BLOCK
    assert len(decision.verdict.stock) == 2


def test_an_input_above_the_rate_can_never_pass_and_an_estimate_is_cut_to_the_bucket():
    denied = ask(rates=[rate(100, 100, least=101)]).verdict
    assert (denied.reason, denied.retry_after_s, denied.shortfall) == (Reason.EXCEEDS_RATE, None, 1)
    assert ask(rates=[rate(100, 300, least=100)]).buckets == {BUCKET: BucketRow(100, NOW)}
    assert ask(rates=[rate(0, 0)]).verdict.reason is Reason.EXCEEDS_RATE


def test_a_refused_rate_leaves_the_stock_alone():
    decision = ask(line(100, fixed=1), rates=[rate(10, 5)], buckets={BUCKET: BucketRow(10, NOW)})
    assert decision.verdict.reason is Reason.RATE
    assert decision.counters == {}


@pytest.mark.parametrize(
    "order", [{"tokens": 1, "least": 2}, {"tokens": 1, "least": -1}], ids=["least above wanted", "negative"]
)
def test_figures_that_are_no_order_are_mistakes(order):
    with pytest.raises(ValueError, match="no order"):
        ask(line(10), **order)
    with pytest.raises(ValueError, match="negative"):
        ask(line(10, fixed=-1))


figures = st.integers(0, 60)
lines = st.builds(
    lambda cap, fixed, per, subject, mode: line(cap, fixed, per, key=KEY._replace(subject=subject), mode=mode),
    st.none() | figures,
    figures,
    st.integers(0, 5),
    st.sampled_from("abc"),
    st.sampled_from([Mode.BLOCK, Mode.BLOCK, Mode.WARN, Mode.OVERAGE]),
)


@given(
    st.lists(lines, max_size=4),
    st.dictionaries(st.sampled_from("abc"), st.tuples(figures, figures)),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_a_grant_is_the_most_that_fits_and_a_denial_means_that_nothing_does(stock, rows, one, other):
    least, most = sorted((one, other))
    counters = {KEY._replace(subject=name): CounterRow(*row) for name, row in rows.items()}

    def fits(tokens):
        for mine in stock:
            row = counters.get(mine.key, CounterRow())
            amount = max(twin.amount(tokens) for twin in stock if twin.key == mine.key)
            blocks = mine.mode is Mode.BLOCK and mine.cap is not None
            if blocks and (row.used >= mine.cap or row.used + row.held + amount > mine.cap):
                return False
        return True

    best = max((tokens for tokens in range(least, most + 1) if fits(tokens)), default=None)
    decision = ask(*stock, tokens=most, least=least, counters=counters)
    if best is None:
        assert isinstance(decision.verdict, Denied)
        assert not decision.counters
    else:
        assert decision.verdict.output_tokens == best
        held = {key: row.held - counters.get(key, CounterRow()).held for key, row in decision.counters.items()}
        assert held == {mine.key: mine.amount for mine in decision.hold.lines}


@given(st.lists(lines, min_size=1, max_size=3), st.dictionaries(st.sampled_from("abc"), st.tuples(figures, figures)))
def test_after_the_window_turned_a_call_that_was_told_to_wait_for_it_passes(stock, rows):
    counters = {KEY._replace(subject=name): CounterRow(row[0], 0) for name, row in rows.items()}
    verdict = ask(*stock, counters=counters).verdict
    if isinstance(verdict, Denied) and verdict.retry_after_s is not None:
        assert isinstance(ask(*stock, now=NOW + verdict.retry_after_s * 1000).verdict, Granted)


def test_an_extension_is_decided_on_top_of_what_the_call_holds_itself():
    stock = (line(100, fixed=10, per_output=7), line(80, per_output=8, mode=Mode.WARN))
    # 20 used, 45 held, of which 10 + 7 * 2 by the call itself; the twin holds 16 of the same.
    decision = extend(stock, 2, 9, 1, {KEY: CounterRow(20, 45)}, NOW)
    # 35 are left and 24 are its own: 59 hold 7 tokens of 7 on top of 10, and of 8 as well.
    assert decision.verdict.output_tokens == 5
    assert decision.counters == {KEY: CounterRow(20, 45 - 24 + 59)}
    assert [state.held for state in decision.verdict.stock] == [80, 80]


@pytest.mark.parametrize(
    ("row", "reason", "shortfall", "retry_s"),
    [
        (CounterRow(40, 60), Reason.HELD, 5, 1),
        (CounterRow(90, 10), Reason.EXCEEDS_LIMIT, 5, 5),
        (CounterRow(130, 10), Reason.USED, 45, 5),
    ],
)
def test_a_denied_extension_says_what_is_missing_besides_its_own(row, reason, shortfall, retry_s):
    verdict = extend((line(100, fixed=10, per_output=5),), 0, 1, 1, {KEY: row}, NOW).verdict
    assert (verdict.reason, verdict.shortfall, verdict.retry_after_s) == (reason, shortfall, retry_s)


@given(
    st.lists(lines, max_size=4),
    st.dictionaries(st.sampled_from("abc"), st.tuples(figures, figures)),
    st.integers(0, 9),
    st.integers(0, 20),
    st.integers(0, 20),
)
def test_an_extension_is_the_most_that_fits(stock, rows, granted, one, other):
    least, most = sorted((one, other))
    own = {mine.key: max(twin.amount(granted) for twin in stock if twin.key == mine.key) for mine in stock}
    others = {KEY._replace(subject=name): CounterRow(*row) for name, row in rows.items()}
    counters = {key: CounterRow(*others.get(key, (0, 0))) for key in own}
    counters = {key: CounterRow(row.used, row.held + own[key]) for key, row in counters.items()}

    def fits(tokens):
        for mine in stock:
            grown = max(twin.amount(granted + tokens) for twin in stock if twin.key == mine.key) - own[mine.key]
            row = counters[mine.key]
            if grown and mine.mode is Mode.BLOCK and mine.cap is not None and row.used + row.held + grown > mine.cap:
                return False
        return True

    best = max((tokens for tokens in range(least, most + 1) if fits(tokens)), default=None)
    decision = extend(stock, granted, most, least, counters, NOW)
    if best is None:
        assert isinstance(decision.verdict, Denied)
        assert not decision.counters
    else:
        assert decision.verdict.output_tokens == best
        grown = {mine.key: mine.amount - own[mine.key] for mine in decision.hold.lines}
        assert {key: row.held - counters[key].held for key, row in decision.counters.items()} == grown
