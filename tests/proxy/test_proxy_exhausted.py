"""Limits that are used up are answered from memory: for a second, for what is no larger, and never with a yes."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from fakes.proxies import Bench, FakeCaller, FakeClock

from gatekeeper.errors import Code, LimitState, Refusal
from gatekeeper.ports import HoldOrder
from gatekeeper.proxy import exhausted
from gatekeeper.proxy.exhausted import KNOWN_S, Exhausted
from gatekeeper.rules.limits import CounterKey, Denied, Mode, Reason, StockLine

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


def test_what_is_kept_is_bounded_and_the_oldest_is_forgotten(clock):
    found = told(clock)
    for number in range(exhausted.ORDERS_MAX):
        found.saw(order(replace(LINE, key=KEY._replace(subject=f"c{number}"))), GATEWAY, denied())
    assert found.no(order(), GATEWAY) is None
    assert found.no(order(replace(LINE, key=KEY._replace(subject="c9"))), GATEWAY) is not None


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
