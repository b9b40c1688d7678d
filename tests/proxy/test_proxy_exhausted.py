"""Limits that are used up are answered from memory: for a second, for what is no larger, and never with a yes."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from fakes.proxies import Bench, FakeCaller, FakeClock
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.errors import Code, LimitState, Refusal
from gatekeeper.ports import HoldOrder
from gatekeeper.proxy import exhausted
from gatekeeper.proxy.exhausted import KNOWN_S, Exhausted
from gatekeeper.rules import budgets
from gatekeeper.rules.latches import latch_dimension
from gatekeeper.rules.limits import CounterKey, CounterRow, Denied, Granted, Mode, Reason, StockLine

NOW_MS = 1_750_000_000_000
PLAIN = b'{"messages":[{"role":"user","content":"Hello"}]}'
TURNS_MS = NOW_MS + 900_000
KEY = CounterKey("customer", "acme", "units", "day", 0)
LINE = StockLine(KEY, "daily", 100, Mode.BLOCK, 10, 1, TURNS_MS)
# Only that it is this one and no other matters.
GATEWAY: Any = object()


def order(*stock: StockLine, least: int = 1, now_ms: int = NOW_MS) -> HoldOrder:
    names = ("call", "2025-06", "acme", "k1", None, None, "pro", "chat", "openai", "gpt-4o", "owner")
    return HoldOrder(*names, now_ms, now_ms + 30_000, 50, least, stock or (LINE,))


def denied(reason: Reason = Reason.USED, retry_s: int | None = 900) -> Denied:
    limit = LimitState("daily", "customer", "units", "day", 100, 100, 0, TURNS_MS)
    return Denied(reason, limit, 11, retry_s)


def told(clock: FakeClock, answer: Denied | None = None, asked: HoldOrder | None = None) -> Exhausted:
    found = Exhausted(clock)
    found.saw(asked or order(), GATEWAY, answer or denied())
    return found


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_who_calls_on_is_answered_for_a_second_with_a_wait_that_is_true(clock):
    found = told(clock)
    assert found.no(order(), GATEWAY) == denied()
    later = found.no(order(now_ms=NOW_MS + 2_500), GATEWAY)
    assert later is not None
    assert later.retry_after_s == 898
    clock.now_s += KNOWN_S - 0.01
    assert found.no(order(), GATEWAY) is not None
    clock.now_s += 0.02
    assert found.no(order(), GATEWAY) is None
    assert KNOWN_S <= 1


@pytest.mark.parametrize("reason", [Reason.HELD, Reason.EXCEEDS_LIMIT, Reason.RATE, Reason.EXCEEDS_RATE])
def test_what_others_hold_and_what_is_too_large_is_asked_again(clock, reason):
    assert told(clock, denied(reason)).no(order(), GATEWAY) is None


def test_a_closed_limit_is_known_too(clock):
    assert told(clock, denied(Reason.CLOSED)).no(order(), GATEWAY) is not None


def test_a_change_of_the_limits_or_a_reset_forgets_all(clock):
    found = told(clock)
    other: Any = object()
    assert found.no(order(), other) is None
    assert found.no(order(), GATEWAY) is None
    # Who began before the change comes late.
    found.saw(order(), GATEWAY, denied())
    assert found.no(order(), other) is None


@pytest.mark.parametrize(
    "changed",
    [
        replace(LINE, key=KEY._replace(start_ms=86_400_000)),
        replace(LINE, key=KEY._replace(subject="other")),
        replace(LINE, cap=101),
        replace(LINE, cap=None),
        replace(LINE, mode=Mode.WARN),
    ],
)
def test_another_window_subject_cap_or_mode_is_another_question(clock, changed):
    assert told(clock).no(order(changed), GATEWAY) is None


def test_another_limit_beside_it_is_another_question(clock):
    found = told(clock)
    assert found.no(order(LINE, replace(LINE, key=KEY._replace(window="month"))), GATEWAY) is None


def test_a_larger_call_asks_because_another_limit_may_keep_it_out_longer(clock):
    found = told(clock)
    assert found.no(order(replace(LINE, fixed=11)), GATEWAY) is None
    assert found.no(order(least=2), GATEWAY) is None
    assert found.no(order(replace(LINE, fixed=9)), GATEWAY) is not None


def test_a_smaller_call_than_one_that_fits_no_window_asks_when_it_may_come_back(clock):
    found = told(clock, denied(retry_s=None), order(replace(LINE, fixed=200)))
    assert found.no(order(replace(LINE, fixed=200)), GATEWAY) == denied(retry_s=None)
    assert found.no(order(), GATEWAY) is None


MONTH = StockLine(KEY._replace(window="month"), "monthly", 1_000, Mode.BLOCK, 10, 1, NOW_MS + 10**9)
USER = StockLine(CounterKey("user", "acme/ann", "units", "day", 0), "ann", 50, Mode.BLOCK, 10, 1, TURNS_MS)


def daily_held() -> Denied:
    """As ``by_month``, of any row per day."""
    return by_month(Reason.HELD)._replace(limit=by_month().limit._replace(window="day"))


def by_month(reason: Reason = Reason.USED, used: int = 1_000) -> Denied:
    limit = LimitState("monthly", "customer", "units", "month", 1_000, used, 0, MONTH.ends_ms)
    return Denied(reason, limit, 11, 1_000_000)


def test_of_several_limits_the_one_is_named_that_keeps_out_longest_as_soon_as_a_denial_tells_it(clock):
    both = order(LINE, MONTH)
    found = told(clock, denied(), both)
    assert found.no(both, GATEWAY) == denied()
    # Another user of the same customer is denied by the month, which was used up in between.
    found.saw(order(LINE, MONTH, USER), GATEWAY, by_month())
    assert found.no(both, GATEWAY) == by_month()
    # What was said of the month is older now than what was said of the day, and is not believed any longer.
    clock.now_s += 0.6
    found.saw(both, GATEWAY, denied())
    clock.now_s += 0.6
    assert found.no(both, GATEWAY) == denied()


def test_a_limit_that_one_as_large_does_not_fit_any_more_keeps_out_too(clock):
    both = order(LINE, MONTH)
    found = told(clock, denied(), both)
    found.saw(order(LINE, replace(MONTH, fixed=20)), GATEWAY, by_month(Reason.EXCEEDS_LIMIT, 985))
    # 985 and 11 fit into a thousand; 20 do not.
    assert found.no(both, GATEWAY) == denied()
    found.saw(order(LINE, replace(MONTH, fixed=20)), GATEWAY, by_month(Reason.EXCEEDS_LIMIT, 990))
    answer = found.no(both, GATEWAY)
    assert answer is not None
    assert (answer.reason, answer.limit.name, answer.shortfall) == (Reason.EXCEEDS_LIMIT, "monthly", 1)
    assert answer.retry_after_s == 1_000_000


def test_what_was_said_of_a_row_is_never_a_no_by_itself(clock):
    found = Exhausted(clock)
    found.saw(order(LINE, MONTH), GATEWAY, by_month())
    assert found.no(order(MONTH), GATEWAY) is None
    found.saw(order(LINE), GATEWAY, denied())
    # Under another cap the row keeps nobody out.
    wider = order(LINE, replace(MONTH, cap=2_000))
    found.saw(wider, GATEWAY, denied())
    assert found.no(wider, GATEWAY) == denied()
    found.saw(order(LINE, replace(MONTH, mode=Mode.WARN)), GATEWAY, denied())
    assert found.no(order(LINE, replace(MONTH, mode=Mode.WARN)), GATEWAY) == denied()


def test_an_answer_that_comes_late_takes_nothing_back(clock):
    both = order(LINE, MONTH)
    found = told(clock, by_month(), both)
    found.saw(both, GATEWAY, by_month(Reason.HELD, 990))
    found.saw(both, GATEWAY, denied())
    assert found.no(both, GATEWAY) == by_month()


def test_two_limits_that_look_alike_are_not_taken_for_each_other(clock):
    """Of two models that may serve, under one name: which one refused, the denial does not say."""
    one = replace(LINE, key=KEY._replace(scope="model", subject="a"))
    other = replace(one, key=one.key._replace(subject="b"))
    limit = denied().limit._replace(scope="model")
    found = told(clock, denied()._replace(limit=limit), order(one, other))
    soon = replace(LINE, ends_ms=NOW_MS + 60_000)
    first = denied(retry_s=60)._replace(limit=denied().limit._replace(resets_ms=soon.ends_ms))
    found.saw(order(soon, one), GATEWAY, first)
    assert found.no(order(soon, one), GATEWAY) == first
    # Where there is one of them alone, it is known.
    found.saw(order(one), GATEWAY, denied()._replace(limit=limit))
    longer = found.no(order(soon, one), GATEWAY)
    assert longer is not None
    assert longer.retry_after_s == 900


caps = st.none() | st.integers(0, 30)
amounts = st.integers(0, 40)
latched = LINE.key._replace(dimension=latch_dimension("day", "units"), window="billing_period")


@settings(max_examples=200, deadline=None)
@given(st.tuples(caps, caps, caps), st.tuples(amounts, amounts, amounts), st.tuples(amounts, amounts, amounts))
def test_where_every_row_has_been_named_the_answer_is_the_ledgers(cap, needs, used):
    keys = (LINE.key, MONTH.key, latched)
    ends = (TURNS_MS, MONTH.ends_ms, NOW_MS + 5 * 10**8)
    fixed = (*needs[:2], 0)
    stock = [
        StockLine(key, name, most, Mode.BLOCK, need, 0, end)
        for key, name, most, need, end in zip(keys, ("daily", "monthly", "daily"), cap, fixed, ends, strict=True)
    ]
    rows = {key: CounterRow(each) for key, each in zip(keys, used, strict=True)}

    def ledger(*lines: StockLine) -> Granted | Denied:
        return budgets.decide(lines, (), 0, 0, rows, {}, NOW_MS).verdict

    found = Exhausted(FakeClock())
    for line in stock:
        answer = ledger(line)
        if isinstance(answer, Denied):
            found.saw(order(line, least=0), GATEWAY, answer)
    # It begins with any of them that is used up, though the ledger may say another one.
    asked = order(*stock, least=0)
    for line in stock:
        answer = ledger(line)
        if isinstance(answer, Denied) and answer.reason in (Reason.USED, Reason.CLOSED):
            found.saw(asked, GATEWAY, answer)
            told, truth = found.no(asked, GATEWAY), ledger(*stock)
            assert isinstance(truth, Denied)
            assert told is not None
            assert told.retry_after_s == truth.retry_after_s


def test_what_is_kept_is_bounded_and_the_oldest_is_forgotten(clock):
    found = told(clock)
    for number in range(exhausted.ORDERS_MAX):
        found.saw(order(replace(LINE, key=KEY._replace(subject=f"c{number}"))), GATEWAY, denied())
    assert found.no(order(), GATEWAY) is None
    assert found.no(order(replace(LINE, key=KEY._replace(subject="c9"))), GATEWAY) is not None


def test_what_is_kept_of_rows_is_bounded_too(clock):
    both = order(LINE, MONTH)
    found = told(clock, denied(), both)
    found.saw(order(MONTH), GATEWAY, by_month(Reason.HELD, 995))
    assert found.no(both, GATEWAY) != denied()
    for number in range(exhausted.ROWS_MAX):
        found.saw(order(replace(MONTH, key=KEY._replace(subject=f"c{number}"))), GATEWAY, daily_held())
    assert found.no(both, GATEWAY) == denied()


def test_the_door_asks_the_ledger_once_a_second_for_calls_that_cannot_pass():
    async def body() -> None:
        bench = Bench()
        bench.ledger.denial = denied(retry_s=None)
        for number in range(30):
            with pytest.raises(Refusal) as raised:
                await bench.proxy.serve(bench.call(PLAIN, call_id=f"call_{number}"), FakeCaller(PLAIN))
            assert raised.value.code is Code.QUOTA_EXCEEDED
            bench.clock.now_s += 0.1
        assert bench.ledger.asked == 3

    asyncio.run(body())
