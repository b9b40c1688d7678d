"""The tries of one call, at whichever moment its client leaves; and what this process knows of soft limits."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal

import pytest
from fakes.proxies import Bench, FakeCaller, FakeClock

from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.meters import Outcome
from gatekeeper.ports import CounterState
from gatekeeper.proxy.breakers import Breakers, Standing
from gatekeeper.proxy.call import CallerGone
from gatekeeper.proxy.soft import COUNTERS_MAX, KNOWN_S, SoftCaps
from gatekeeper.rules.breaker import BreakerConfig, Phase
from gatekeeper.rules.declared import DeclaredLimit
from gatekeeper.rules.latches import is_latch
from gatekeeper.rules.limits import CounterKey, Mode, Pair, Release, StockLimit, StockLine, Window
from gatekeeper.rules.lines import Bounds, Subject, stock_lines
from gatekeeper.rules.plans import Plan

PLAIN = b'{"model":"a","messages":[]}'
USAGE = b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'
THREE = 'fallback = [{ upstream = "origin", model = "b" }, { upstream = "origin", model = "c" }]\nretry = "always"'
JSON = {"content_type": "application/json"}


def broken(kind: FaultKind = FaultKind.RESET, *, unsent: bool = False) -> Fault:
    return Fault("upstream", kind, "broke", retryable=unsent)


@pytest.mark.parametrize("turns", range(0, 60, 2))
def test_a_client_that_leaves_at_any_moment_of_any_try_is_settled_once(turns):
    async def body() -> None:
        bench = Bench(route=THREE)
        bench.answers(503, b"no", b"", **JSON)
        bench.upstream.answers.append(broken())
        bench.answers(200, USAGE, b"", **JSON)
        caller = FakeCaller(PLAIN)
        serving = asyncio.create_task(bench.proxy.serve(bench.call(PLAIN), caller))
        for _ in range(turns):
            await asyncio.sleep(0)
        caller.hang_up()
        await asyncio.wait({serving})
        if (failure := serving.exception()) is not None:
            assert isinstance(failure, (CallerGone, Refusal)), failure
        await bench.settler.drain(5)
        assert bench.ledger.open == {}
        assert len(bench.ledger.settled) <= 1
        assert bench.upstream.left == bench.upstream.entered
        for settlement in bench.ledger.settled:
            # Each try is told of once: as a row, or as the record itself.
            rows = [row.model for row in settlement.attempts]
            assert rows == ["a", "b", "c"][: len(rows)]
            assert settlement.record.model not in rows
            if settlement.record.outcome is Outcome.COMPLETE:
                assert (rows, settlement.record.model, settlement.record.units_micro) == (["a", "b"], "c", 7_000_000)

    asyncio.run(body())


def test_each_try_is_sent_as_its_model_and_metered_as_the_one_that_served():
    async def body() -> None:
        bench = Bench(route=THREE)
        bench.upstream.answers.append(broken(FaultKind.CONNECT, unsent=True))
        bench.answers(529, b"no", b"", **JSON)
        bench.answers(200, USAGE, b"", **JSON)
        caller = await bench.serve(PLAIN)
        assert caller.bytes == USAGE
        assert [asked.body for asked in bench.upstream.asked] == [
            PLAIN.replace(b'"a"', b'"%c"' % each) for each in b"abc"
        ]
        (settlement,) = bench.ledger.settled
        assert [(row.number, row.model, row.status, row.fault) for row in settlement.attempts] == [
            (1, "a", None, "connect"),
            (2, "b", 529, None),
        ]
        assert (settlement.record.model, settlement.record.model_requested) == ("c", "a")

    asyncio.run(body())


def test_an_answer_that_is_kept_and_then_told_has_no_row_of_its_own():
    async def body() -> None:
        bench = Bench(route=THREE)
        bench.upstream.answers.append(broken())
        bench.answers(429, b"wait", b"", **JSON)
        bench.upstream.answers.append(broken(FaultKind.FIRST_BYTE_TIMEOUT))
        caller = await bench.serve(PLAIN)
        assert (caller.heads[0][0], caller.bytes) == (429, b"wait")
        (settlement,) = bench.ledger.settled
        assert [(row.number, row.fault) for row in settlement.attempts] == [(1, "reset"), (3, "first_byte_timeout")]
        assert (settlement.record.model, settlement.record.status) == ("b", 429)
        assert bench.upstream.left == bench.upstream.entered

    asyncio.run(body())


def test_an_answer_that_was_passed_over_is_let_go_before_the_next_one_streams():
    async def body() -> None:
        bench = Bench(route=THREE)
        bench.answers(503, b"no", **JSON)
        served = bench.answers(200, USAGE[:10], **JSON)
        caller = FakeCaller(PLAIN)
        serving = asyncio.create_task(bench.serve(PLAIN, caller))
        while not caller.got:  # noqa: ASYNC110 - the other side of the pipeline
            await asyncio.sleep(0)
        assert (bench.upstream.entered, bench.upstream.left) == (2, 1)
        served.say(USAGE[10:], b"")
        await serving
        assert bench.upstream.left == 2

    asyncio.run(body())


def test_a_status_that_cannot_be_relayed_is_a_fault_of_that_upstream_and_moves_on():
    async def body() -> None:
        bench = Bench(route=THREE)
        bench.answers(999, b"", **JSON)
        bench.answers(200, USAGE, b"", **JSON)
        caller = await bench.serve(PLAIN)
        assert caller.heads[0][0] == 200
        assert [row.fault for row in bench.ledger.settled[0].attempts] == ["protocol"]

    asyncio.run(body())


# --- breakers -----------------------------------------------------------------------------------------------------


def test_every_change_of_a_breaker_is_told_once():
    async def body() -> None:
        told: list[Standing] = []
        bench = Bench()
        bench.proxy.breakers = Breakers(bench.clock, told.append)
        usual = BreakerConfig()
        for _ in range(usual.failures):
            bench.upstream.answers.append(broken())
            with pytest.raises(Refusal):
                await bench.serve(PLAIN)
        with pytest.raises(Refusal) as refused:
            await bench.serve(PLAIN)
        assert (refused.value.code, refused.value.status) == (Code.UPSTREAM_UNAVAILABLE, 503)
        assert refused.value.retry_after_s == usual.pause_s
        bench.clock.now_s += usual.pause_s
        bench.answers(200, USAGE, b"", **JSON)
        await bench.serve(PLAIN)
        assert [(each.upstream, each.phase) for each in told] == [
            ("origin", Phase.OPEN),
            ("origin", Phase.HALF_OPEN),
            ("origin", Phase.CLOSED),
        ]

    asyncio.run(body())


def test_what_is_our_own_bound_opens_no_breaker():
    async def body() -> None:
        bench = Bench()
        for fault in (broken(FaultKind.POOL_FULL, unsent=True), broken(FaultKind.PROTOCOL, unsent=True)):
            for _ in range(2 * BreakerConfig().failures):
                bench.upstream.answers.append(fault)
                with pytest.raises(Refusal) as refused:
                    await bench.serve(PLAIN)
                assert refused.value.status == 502

    asyncio.run(body())


def test_a_stream_that_breaks_off_counts_against_its_upstream():
    async def body() -> None:
        bench = Bench()
        for _ in range(BreakerConfig().failures):
            bench.answers(200, b"data: {}\n\n", broken(), content_type="text/event-stream")
            with pytest.raises(Exception, match="cannot be reached"):
                await bench.serve(PLAIN)
        (standing,) = bench.proxy.breakers.standings()
        assert standing.phase is Phase.OPEN

    asyncio.run(body())


# --- soft limits --------------------------------------------------------------------------------------------------


class Counters:
    """A ledger of which only counters are read."""

    def __init__(self) -> None:
        self.used = 0
        # The only counter of which anything is used; None: all are alike.
        self.only: CounterKey | None = None
        self.asked: list[Sequence[CounterKey]] = []

    async def counters(self, keys: Sequence[CounterKey]) -> Sequence[CounterState]:
        self.asked.append(keys)
        return [CounterState(key, self.used if self.only in (None, key) else 0, 0) for key in keys]


def line(subject: str = "acme", own: int = 0, start_ms: int = 0) -> StockLine:
    key = CounterKey("customer", subject, "dollars", "day", start_ms)
    return StockLine(key, "spend", 1000, Mode.BLOCK, own, 0, None, soft_at=80)


def test_counters_are_read_once_a_second_and_own_calls_count_at_once():
    async def body() -> None:
        ledger, clock = Counters(), FakeClock()
        soft = SoftCaps(ledger, clock)  # type: ignore[arg-type]
        assert await soft.asking([line()], 0) is None
        soft.settled([line().key], {"dollars": 799})
        assert await soft.asking([line()], 0) is None
        soft.settled([line().key], {"dollars": 1})
        found = await soft.asking([line()], 0)
        assert found is not None
        assert (found.name, found.used, found.cap) == ("spend", 800, 1000)
        assert len(ledger.asked) == 1
        clock.now_s += KNOWN_S + 0.1
        assert await soft.asking([line()], 0) is None, "the database knows better"
        assert len(ledger.asked) == 2

    asyncio.run(body())


def test_a_soft_limit_that_is_closed_asks_for_a_cheaper_model_in_every_window_until_it_opens():
    async def body() -> None:
        limit = StockLimit("s", Pair.CUSTOMER_MODEL, "units", Window.DAY, 10, Mode.SOFT, release=Release.BILLING_PERIOD)
        who = Subject("acme", "pro", "chat", 0, model="gpt-4o")
        stock = stock_lines(Plan("pro", "Pro", Decimal(0), None), who, Bounds(), 86_400_000, [DeclaredLimit(limit)])
        ledger, clock = Counters(), FakeClock()
        soft = SoftCaps(ledger, clock)  # type: ignore[arg-type]
        lines = [line for line in stock if line.soft_at is not None]
        assert [is_latch(line.key) for line in lines] == [False, True]
        # The new day's own row is empty; its latch says that a day before was used up.
        ledger.only, ledger.used = lines[1].key, 9
        assert await soft.asking(lines, 0) is None
        ledger.used, clock.now_s = 10, clock.now_s + KNOWN_S + 0.1
        found = await soft.asking(lines, 0)
        assert found is not None
        assert (found.name, found.dimension, found.window, found.used) == ("s", "units", "day", 10)

    asyncio.run(body())


def test_a_new_window_begins_with_the_model_that_was_asked_for():
    async def body() -> None:
        ledger, clock = Counters(), FakeClock()
        soft = SoftCaps(ledger, clock)  # type: ignore[arg-type]
        ledger.used = 900
        assert await soft.asking([line()], 0) is not None
        ledger.used = 0
        assert await soft.asking([line(start_ms=86_400_000)], 0) is None

    asyncio.run(body())


def test_what_is_known_of_counters_is_bounded():
    async def body() -> None:
        soft = SoftCaps(Counters(), FakeClock())  # type: ignore[arg-type]
        for number in range(COUNTERS_MAX + 10):
            await soft.asking([line(str(number))], 0)
        assert len(soft._counters) == COUNTERS_MAX

    asyncio.run(body())
