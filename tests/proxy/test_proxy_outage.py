"""While the ledger is away: closed to all, or open to whom it knew, within bounds."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
from fakes.proxies import CUSTOMER, KEY, SECRET, Bench, FakeCaller

from gatekeeper.errors import Code, Fault, FaultKind, LimitState, Refusal
from gatekeeper.ports import Holder
from gatekeeper.proxy.access import HOLDER_TTL_S, HOLDERS_MAX
from gatekeeper.proxy.call import Credentials
from gatekeeper.proxy.outage import ENDS_S, KEYS_MAX, NOTE, RETRY_S, SEEN_S, Outage
from gatekeeper.proxy.settle import Settler
from gatekeeper.rules.declared import DeclaredLimit
from gatekeeper.rules.keys import digest, make_key
from gatekeeper.rules.limits import (
    CounterKey,
    Denied,
    Granted,
    Mode,
    Reason,
    Release,
    Scope,
    StockLimit,
    StockLine,
    Window,
)
from gatekeeper.rules.lines import Bounds, Subject, stock_lines

# 33 bytes of input and 30 tokens of output: 63 units at most, 7 in truth.
ASK = json.dumps({"messages": [], "max_tokens": 30}).encode()
ANSWER = b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
OPEN = 'on_ledger_failure = "open"\nopen_requests_max = 3'
AWAY = Fault("ledger", FaultKind.STORE, "away")


async def serve(bench: Bench, body: bytes = ASK) -> FakeCaller:
    bench.answers(200, ANSWER, b"", content_type="application/json")
    try:
        return await bench.serve(body)
    finally:
        bench.upstream.answers.clear()


async def refused(bench: Bench, body: bytes = ASK) -> Refusal:
    with pytest.raises(Refusal) as told:
        await serve(bench, body)
    return told.value


async def known(bench: Bench, away: bool | str = True) -> None:
    """One call while all is well; then the ledger goes away."""
    await serve(bench)
    bench.ledger.away = away
    bench.ledger.settled.clear()
    bench.ledger.asked = 0
    bench.keys.failure = AWAY if away else None


def test_closed_is_the_default_and_admits_nobody():
    async def body() -> None:
        bench = Bench()
        await known(bench)
        for _ in range(2):
            told = await refused(bench)
            assert (told.code, told.status) == (Code.LEDGER_UNAVAILABLE, 503)
        assert bench.ledger.asked == 2

    asyncio.run(body())


def test_open_lets_a_known_key_make_a_few_calls_which_are_settled_and_marked():
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        await known(bench)
        for _ in range(3):
            assert (await serve(bench)).bytes == ANSWER
        assert (await refused(bench)).code is Code.LEDGER_UNAVAILABLE
        assert [(one.record.note, one.record.units_micro) for one in bench.ledger.settled] == [(NOTE, 7_000_000)] * 3
        # They say on what they are to be counted.
        assert all(one.stock for one in bench.ledger.settled)

    asyncio.run(body())


def test_nobody_looks_for_the_hold_of_a_call_that_was_let_through():
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        await known(bench)
        seen = []
        bench.answers(200, ANSWER, b"", content_type="application/json")
        caller = FakeCaller(ASK)
        send = caller.send

        async def noted(chunk: bytes) -> None:
            seen.append(bench.pulse.open_calls)
            await send(chunk)

        caller.send = caller.end = noted  # type: ignore[method-assign]
        await bench.proxy.serve(bench.call(ASK), caller)
        assert seen
        assert set(seen) == {0}
        await bench.settler.drain(5)

    asyncio.run(body())


def test_a_key_may_take_so_many_units_by_their_bounds_and_then_by_what_they_were():
    async def body() -> None:
        bench = Bench(ledger=f"{OPEN}\nopen_units_max = 90")
        await known(bench)
        for _ in range(3):
            await serve(bench)
        bench = Bench(ledger=f"{OPEN}\nopen_units_max = 62")
        await known(bench)
        assert (await refused(bench)).code is Code.LEDGER_UNAVAILABLE
        # A stream that would hold a slice counts all that it may take: nobody extends it.
        stream = json.dumps({"messages": [], "max_tokens": 5_000, "stream": True}).encode()
        bench = Bench(ledger=f"{OPEN}\nopen_units_max = 5_000")
        await known(bench)
        assert (await refused(bench, stream)).code is Code.LEDGER_UNAVAILABLE

    asyncio.run(body())


def test_two_calls_at_once_count_both_bounds():
    async def body() -> None:
        bench = Bench(ledger=f"{OPEN}\nopen_units_max = 90")
        await known(bench)
        answers = [bench.answers(200, content_type="application/json") for _ in range(2)]
        first = asyncio.create_task(bench.serve(ASK))
        async with asyncio.timeout(5):
            while not bench.upstream.entered > 1:  # noqa: ASYNC110 - the fake has no event for it
                await asyncio.sleep(0)
        with pytest.raises(Refusal):
            await bench.serve(ASK)
        answers[0].say(ANSWER, b"")
        await first

    asyncio.run(body())


@pytest.mark.parametrize("gone_s", [0.0, SEEN_S + 1])
def test_a_key_is_let_through_only_if_it_was_seen_just_before(gone_s):
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        other = make_key(bytes(range(1, 25)))
        bench.keys.holders[digest(other)] = Holder(KEY, CUSTOMER)
        await known(bench)
        bench.clock.now_s += HOLDER_TTL_S + gone_s
        if gone_s:
            assert (await refused(bench)).code is Code.LEDGER_UNAVAILABLE
        else:
            await serve(bench)
            assert bench.directory.recall(Credentials((other,), b""), None, 0) is None
            assert bench.directory.recall(Credentials((SECRET,), b""), None, 0) is not None

    asyncio.run(body())


def test_a_key_that_was_revoked_when_it_was_last_seen_stays_refused():
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        bench.keys.holders[digest(SECRET)] = Holder(replace(KEY, revoked_ms=1), CUSTOMER)
        assert (await refused(bench)).code is Code.REVOKED_KEY
        bench.ledger.away, bench.keys.failure = True, AWAY
        bench.clock.now_s += HOLDER_TTL_S + 1
        assert (await refused(bench)).code is Code.REVOKED_KEY

    asyncio.run(body())


def test_a_limit_that_was_used_up_when_it_was_last_seen_stays_used_up():
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        line = bench.gateway.plans["pro"].quota
        state = LimitState(line.name, line.scope, line.dimension, line.window, line.cap, line.cap, 0, None)
        bench.ledger.denial = Denied(Reason.USED, state, 1, None)
        assert (await refused(bench)).code is Code.QUOTA_EXCEEDED
        bench.ledger.away, bench.keys.failure = True, AWAY
        for _ in range(2):
            told = await refused(bench)
            assert (told.code, told.limit.used) == (Code.QUOTA_EXCEEDED, line.cap)
            bench.clock.now_s += 2
        # The window turns: that is another row, of which nothing is known.
        bench.clock.now_s += 31 * 86_400
        bench.keys.failure = None
        await serve(bench)

    asyncio.run(body())


def test_what_is_known_of_a_limit_follows_what_was_seen_last():
    bench = Bench()
    outage = Outage(bench.clock)
    line = StockLine(CounterKey("key", "k", "units", "day", 0), "mine", 10, Mode.BLOCK, 1, 0, 86_400_000)

    class Order:
        stock = (line,)
        now_ms, output_tokens = 1_000, 5

    ledger = bench.gateway.ledger

    def seen(used: int) -> None:
        state = LimitState("mine", "key", "units", "day", 10, used, 1, 86_400_000)
        outage.saw(Order, Granted(5, (state,)))  # type: ignore[arg-type]

    seen(10)
    with pytest.raises(Refusal) as told:
        outage.take(ledger, "k", Order, 1)  # type: ignore[arg-type]
    assert (told.value.code, told.value.retry_after_s) == (Code.QUOTA_EXCEEDED, 86_399)
    seen(9)
    assert outage.take(ledger, "k", Order, 1) == Granted(5)  # type: ignore[arg-type]
    for number in range(KEYS_MAX - 1):
        outage.take(ledger, f"k{number}", Order, 1)  # type: ignore[arg-type]
    with pytest.raises(Refusal):
        outage.take(ledger, "one more", Order, 1)  # type: ignore[arg-type]
    assert KEYS_MAX >= HOLDERS_MAX


def test_a_limit_that_is_closed_until_the_billing_period_turns_is_closed_on_the_days_after_too():
    limit = StockLimit("mine", Scope.CUSTOMER, "units", Window.DAY, 10, release=Release.BILLING_PERIOD)
    bench = Bench()
    outage = Outage(bench.clock)

    def order(day: int) -> SimpleNamespace:
        now_ms = day * 86_400_000
        who, plan = Subject("acme", "pro", "chat", 0), bench.gateway.plans["free"]
        stock = stock_lines(replace(plan, quota=None), who, Bounds(), now_ms, [DeclaredLimit(limit)])
        return SimpleNamespace(stock=stock, now_ms=now_ms, output_tokens=5)

    state = LimitState("mine", "customer", "units", "day", 10, 10, 0, order(1).stock[1].ends_ms)
    outage.saw(order(1), Denied(Reason.CLOSED, state, 1, None))  # type: ignore[arg-type]
    for day in (1, 2):
        with pytest.raises(Refusal) as told:
            outage.take(bench.gateway.ledger, "k", order(day), 1)  # type: ignore[arg-type]
        assert told.value.limit is not None
        assert (told.value.code, told.value.limit.dimension, told.value.limit.window) == (
            Code.QUOTA_EXCEEDED, "units", "day",
        )  # fmt: skip
    # Another billing period has a latch of its own.
    assert outage.take(bench.gateway.ledger, "k", order(40), 1) == Granted(5)  # type: ignore[arg-type]


def test_a_ledger_that_is_away_is_asked_once_a_second_and_serves_at_once_when_it_is_back():
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        await known(bench)
        bench.keys.failure = None
        for _ in range(3):
            await serve(bench)
        assert bench.ledger.asked == 1
        bench.clock.now_s += RETRY_S
        bench.ledger.away = False
        await serve(bench)
        await serve(bench)
        assert bench.ledger.asked == 3
        assert [one.record.note for one in bench.ledger.settled] == [NOTE] * 3 + [None] * 2

    asyncio.run(body())


@pytest.mark.parametrize(("quiet_s", "renewed"), [(ENDS_S / 2, False), (ENDS_S + 1, True)])
def test_a_ledger_that_comes_and_goes_renews_no_allowance(quiet_s, renewed):
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        await known(bench)
        bench.keys.failure = None
        for _ in range(3):
            await serve(bench)
        bench.clock.now_s += RETRY_S
        bench.ledger.away = False
        await serve(bench)
        bench.clock.now_s += quiet_s
        bench.ledger.away = True
        if renewed:
            await serve(bench)
        else:
            assert (await refused(bench)).code is Code.LEDGER_UNAVAILABLE

    asyncio.run(body())


def test_a_ledger_that_hangs_is_away_and_nobody_waits_for_it_twice():
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        await known(bench, "hangs")
        for _ in range(2):
            assert (await serve(bench)).bytes == ANSWER
        assert bench.ledger.asked == 1

    asyncio.run(body())


def test_a_route_under_conditions_knows_its_callers_too():
    async def body() -> None:
        bench = Bench(ledger=OPEN)
        await known(bench)
        bench.clock.now_s += HOLDER_TTL_S + 1
        trial = bench.outage.trial(bench.gateway.ledger)
        assert (await trial.holder(bench.directory, bench.call(ASK))).key == KEY
        closed = Bench()
        closed.keys.failure = AWAY
        with pytest.raises(Fault):
            await closed.outage.trial(closed.gateway.ledger).holder(closed.directory, closed.call(ASK))

    asyncio.run(body())


def test_a_call_that_nobody_is_left_to_settle_counts_its_named_meters_too():
    """Of those that count tokens the bound, as far as the whole is usual; of any other one, as it would have held."""

    async def body() -> None:
        meters = 'meters = { input = "usage().input", images = "len(response.data)" }'
        bench = Bench(ledger=OPEN, route=meters)
        bench.gateway = replace(bench.gateway, limits=tuple(_named(name) for name in ("input", "images")))
        kept = []

        class Noting(Settler):
            async def open(self, settlement):
                kept.append(settlement)
                await super().open(settlement)

        bench.proxy._settler = Noting(bench.ledger, bench.clock)
        await known(bench)
        await serve(bench)
        (opening,) = kept
        units = opening.record.units_micro
        assert 0 < units == opening.actual["units"]
        assert opening.actual["units:input"] == min(units, len(ASK) * 1_000_000)
        assert opening.actual["units:images"] == 1_000_000

    asyncio.run(body())


def _named(name: str) -> DeclaredLimit:
    return DeclaredLimit(StockLimit(name, Scope.CUSTOMER, f"units:{name}", Window.DAY, 10**12))
