"""A hold that grows while its stream runs: never past a cap, given back whole, kept alive. On both databases."""

import asyncio
import itertools
import sqlite3

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault
from gatekeeper.ports import Extension, Progress
from gatekeeper.rules.limits import ONE_REQUEST, CounterKey, Denied, Granted, Mode, Reason, StockLine
from gatekeeper.stores import open_store


def more(make, call_id, tokens, least=None, **changes):
    """So many more tokens, by default all or none, a second after the hold began."""
    usual = {"units_micro": 0, "output_seen": True, "expires_ms": make.NOW_MS + 31_000, "now_ms": make.NOW_MS + 1_000}
    return Extension(call_id, tokens, tokens if least is None else least, **{**usual, **changes})


def sliced(make, call_id, **changes):
    """A call that holds 1 unit of input and wants units of output, one a token."""
    line = make.line(per_output=make.MICRO, **changes)
    return make.order(call_id, line, output_tokens=10, output_tokens_min=10)


async def figures(store, make):
    (quota,) = await store.counters([make.QUOTA])
    return quota.used // make.MICRO, quota.held // make.MICRO


def test_an_extension_holds_the_most_that_fits_and_a_settle_gives_all_of_it_back(with_store, make):
    async def body(store):
        await store.hold(sliced(make, "c1"))
        assert (await store.extend(more(make, "c1", 20))).output_tokens == 20
        assert await figures(store, make) == (0, 31)
        granted = await store.extend(more(make, "c1", 500, 1))
        assert granted.output_tokens == 69
        assert (granted.stock[0].held, granted.stock[0].remaining, granted.rates) == (100 * make.MICRO, 0, ())
        denied = await store.extend(more(make, "c1", 1))
        assert (denied.reason, denied.shortfall, denied.limit.name) == (Reason.EXCEEDS_LIMIT, make.MICRO, "quota")
        assert (await store.extend(more(make, "c1", 5, 0))).output_tokens == 0
        assert await figures(store, make) == (0, 100)
        settled = await store.settle(make.settlement("c1", 104 * make.MICRO))
        assert settled.record.overrun_micro == 4 * make.MICRO
        assert await figures(store, make) == (104, 0)
        assert await store.unbalanced() == ([], [])

    with_store(body)


def test_what_others_hold_refuses_an_extension_and_what_they_give_back_allows_it(with_store, make):
    async def body(store):
        await store.hold(sliced(make, "c1"))
        await store.hold(make.order("c2", make.line(fixed=89 * make.MICRO)))
        assert (await store.extend(more(make, "c1", 1))).reason is Reason.HELD
        await store.settle(make.settlement("c2"))
        assert (await store.extend(more(make, "c1", 88))).output_tokens == 88
        assert await figures(store, make) == (1, 99)

    with_store(body)


def test_a_call_that_is_over_or_was_never_there_is_told_to_stop(with_store, make):
    async def body(store):
        for name in ("settled", "recovered"):
            await store.hold(sliced(make, name))
        await store.settle(make.settlement("settled"))
        assert await store.recover(make.NOW_MS + 30_000, {}) == 1
        for name in ("settled", "recovered", "unknown"):
            assert await store.extend(more(make, name, 1)) is None
        assert await figures(store, make) == (1, 0)

    with_store(body)


def test_every_answer_keeps_the_hold_alive_and_its_progress(with_store, make):
    async def body(store):
        await store.hold(sliced(make, "granted"))
        await store.hold(sliced(make, "denied"))
        lasting = {"expires_ms": make.NOW_MS + 50_000, "units_micro": 3 * make.MICRO}
        assert isinstance(await store.extend(more(make, "granted", 1, **lasting)), Granted)
        assert isinstance(await store.extend(more(make, "denied", 500, **lasting)), Denied)
        # Neither goes back.
        for name in ("granted", "denied"):
            await store.extend(more(make, name, 0, output_seen=False, expires_ms=0, units_micro=1))
        assert await store.recover(make.NOW_MS + 49_999, {}) == 0
        assert await store.recover(make.NOW_MS + 50_000, {}) == 2
        records = [await store.record(name) for name in ("granted", "denied")]
        assert [record.units_micro for record in records] == [3 * make.MICRO] * 2
        # 12 and 11 were held: the extension is part of what the operator is exposed to.
        assert [record.evidence["exposure_micro"] for record in records] == [9 * make.MICRO, 8 * make.MICRO]
        assert await figures(store, make) == (6, 0)

    with_store(body)


def test_a_rate_never_cuts_a_stream_and_neither_does_a_limit_that_output_does_not_touch(with_store, make):
    async def body(store):
        requests = make.line(cap=ONE_REQUEST, fixed=ONE_REQUEST, key=make.REQUESTS)
        rate = make.rate(cap=2 * make.MICRO)
        order = make.order("c1", make.line(cap=None, per_output=make.MICRO), requests, rates=(rate,))
        await store.hold(order)
        # Counted on the same limit without having been held there: an overrun.
        await store.settle(make.settlement("c2", plan=None))
        before = await store.buckets([(make.BUCKET, 1)])
        assert (await store.extend(more(make, "c1", 10**6))).output_tokens == 10**6
        assert await store.buckets([(make.BUCKET, 1)]) == before

    with_store(body)


def test_a_cancelled_extension_stays_part_of_the_hold(with_store, make):
    async def body(store):
        await store.hold(sliced(make, "c1", cap=None))
        for turns in range(8):
            task = asyncio.create_task(store.extend(more(make, "c1", 1)))
            for _ in range(turns + 1):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # In the queue behind it.
            await store.extend(more(make, "c1", 0))
            assert await figures(store, make) == (0, 12 + turns), turns
        await store.settle(make.settlement("c1"))
        assert await figures(store, make) == (1, 0)

    with_store(body)


def test_the_ops_of_one_call_keep_their_order(with_store, make):
    async def body(store):
        asked = [store.hold(sliced(make, "c1")), *(store.extend(more(make, "c1", n)) for n in (1, 2, 3))]
        answers = await asyncio.gather(*asked, store.settle(make.settlement("c1")), store.extend(more(make, "c1", 1)))
        assert [answer.output_tokens for answer in answers[:4]] == [10, 1, 2, 3]
        assert (answers[4].first, answers[5]) == (True, None)
        assert await figures(store, make) == (1, 0)

    with_store(body)


def test_figures_that_are_no_extension_concern_that_call_alone(with_store, make):
    async def body(store):
        for name in ("c1", "c2"):
            await store.hold(sliced(make, name, cap=None))
        asked = [more(make, "c1", 1, 2), more(make, "c2", 1), more(make, "c1", -1), more(make, "c1", 2**63)]
        answers = await asyncio.gather(*(store.extend(one) for one in asked), return_exceptions=True)
        assert [type(answer).__name__ for answer in answers] == ["Fault", "Granted", "Fault", "Denied"]
        assert await figures(store, make) == (0, 23)
        with pytest.raises(Fault):
            await store.extend(more(make, "c1", 1, expires_ms=2**70))
        assert await figures(store, make) == (0, 23)

    with_store(body)


def test_no_extension_passes_a_cap_says_the_database_itself(with_store, make, store_url, refuse):
    async def body(store):
        refuse(store_url, "counter", f"NEW.used + NEW.held > {70 * make.MICRO} AND NEW.held > OLD.held", when="UPDATE")
        calls = [f"c{n}" for n in range(6)]
        cap = 70 * make.MICRO
        # The second line of each call stands on the same counter and wants more of it.
        twin = make.line(cap=None, fixed=0, per_output=make.MICRO * 4 // 3, mode=Mode.WARN)
        for call in calls:
            order = make.order(call, make.line(cap=cap, per_output=make.MICRO), twin)
            await store.hold(order)
        answers = []
        for _ in range(4):
            answers += await asyncio.gather(*(store.extend(more(make, call, 1 + n, 1)) for n, call in enumerate(calls)))
        assert {type(answer) for answer in answers} == {Granted, Denied}
        (quota,) = await store.counters([make.QUOTA])
        assert cap - make.MICRO * 4 // 3 < quota.held <= cap
        assert await store.unbalanced() == ([], [])
        await asyncio.gather(*(store.settle(make.settlement(call)) for call in calls))
        assert await figures(store, make) == (6, 0)

    with_store(body)


def test_lines_that_somebody_changed_behind_our_back_are_read_anew(tmp_path, make):
    async def run():
        store = await open_store(f"sqlite:///{tmp_path}/x.sqlite", clock=SystemClock())
        await store.hold(sliced(make, "c1"))
        with sqlite3.connect(tmp_path / "x.sqlite") as connection:
            connection.execute("""UPDATE hold SET lines = replace(lines, '100000000', '11000000')""")
        connection.close()
        assert isinstance(await store.extend(more(make, "c1", 1)), Denied)
        await store.close()

    asyncio.run(run())


_examples = itertools.count()
tokens = st.integers(0, 30)
calls = st.integers(0, 2)


class Ledger(RuleBasedStateMachine):
    """Hold, extend, settle, renew and recover in any order, against sums that a child could do."""

    # Set for each test: a loop, a store on it, and the builders.
    loop, store, make = None, None, None

    def __init__(self):
        super().__init__()
        self.name = f"e{next(_examples)}"
        self.used, self.calls, self.now = {}, {}, self.make.NOW_MS
        key = CounterKey("customer", self.name, "units", "month", self.make.MONTH_MS)
        self.lines = (
            StockLine(key, "quota", 61, Mode.BLOCK, 2, 1, None),
            StockLine(key, "soft", 20, Mode.SOFT, 0, 2, None),
            StockLine(key._replace(scope="key"), "budget", 33, Mode.BLOCK, 1, 1, None),
            StockLine(key._replace(dimension="requests"), "calls", 6 * ONE_REQUEST, Mode.BLOCK, ONE_REQUEST, 0, None),
        )

    def ask(self, question):
        return self.loop.run_until_complete(question)

    def amounts(self, granted):
        found = {}
        for line in self.lines:
            found[line.key] = max(found.get(line.key, 0), line.amount(granted))
        return found

    def held(self, key, without=None):
        return sum(
            self.amounts(call["granted"])[key] for name, call in self.calls.items() if call["open"] and name != without
        )

    def fits(self, name, granted):
        """Whether the call may hold that much in all."""
        return all(
            line.mode is not Mode.BLOCK
            or self.used.get(line.key, 0) + self.held(line.key, name) + self.amounts(granted)[line.key] <= line.cap
            for line in self.lines
        )

    def best(self, name, granted, least, wanted):
        return max((n for n in range(least, wanted + 1) if self.fits(name, granted + n)), default=None)

    def count(self, name, units):
        taken = {line.key: ONE_REQUEST if line.key.dimension == "requests" else units for line in self.lines}
        for key, amount in taken.items():
            self.used[key] = self.used.get(key, 0) + amount - self.calls[name]["taken"].get(key, 0)
        self.calls[name]["taken"] = taken

    @rule(call=calls, one=tokens, other=tokens)
    def hold(self, call, one, other):
        name, (least, wanted) = f"{self.name}-{call}", sorted((one, other))
        if name in self.calls:
            return
        order = self.make.order(
            name,
            *self.lines,
            now_ms=self.now,
            expires_ms=self.now + 30_000,
            output_tokens=wanted,
            output_tokens_min=least,
        )
        used_up = any(line.mode is Mode.BLOCK and self.used.get(line.key, 0) >= line.cap for line in self.lines)
        best = None if used_up else self.best(None, 0, least, wanted)
        found = self.ask(self.store.hold(order))
        assert (found.output_tokens if isinstance(found, Granted) else None) == best
        if best is not None:
            expires = self.now + 30_000
            self.calls[name] = {"open": True, "granted": best, "progress": 0, "expires": expires, "taken": {}}

    @rule(call=calls, one=tokens, other=tokens, units=tokens)
    def extend(self, call, one, other, units):
        name, (least, wanted) = f"{self.name}-{call}", sorted((one, other))
        asked = more(self.make, name, wanted, least, units_micro=units, expires_ms=self.now + 20_000, now_ms=self.now)
        found, mine = self.ask(self.store.extend(asked)), self.calls.get(name)
        if mine is None or not mine["open"]:
            assert found is None
            return
        best = self.best(name, mine["granted"], least, wanted)
        if best is None and least == 0:
            best = 0
        assert (found.output_tokens if isinstance(found, Granted) else None) == best
        mine["granted"] += best or 0
        mine["progress"] = max(mine["progress"], units)
        mine["expires"] = max(mine["expires"], self.now + 20_000)

    @rule(call=calls, units=tokens)
    def renew(self, call, units):
        name = f"{self.name}-{call}"
        lost = self.ask(self.store.renew([Progress(name, units, True)], self.now + 25_000))
        mine = self.calls.get(name)
        if mine is None or not mine["open"]:
            assert lost == [name]
            return
        mine["progress"], mine["expires"] = max(mine["progress"], units), max(mine["expires"], self.now + 25_000)
        mine["seen"] = True

    @rule(call=calls, units=tokens)
    def settle(self, call, units):
        name = f"{self.name}-{call}"
        if name not in self.calls:
            return
        mine = self.calls[name]
        first = mine["open"] or not mine.get("true", False)
        assert self.ask(self.store.settle(self.make.settlement(name, units))).first == first
        if first:
            self.count(name, units)
        mine["open"], mine["true"] = False, True

    @rule(later=st.integers(0, 40_000))
    def recover(self, later):
        self.now += later
        expired = [name for name, mine in self.calls.items() if mine["open"] and mine["expires"] <= self.now]
        assert self.ask(self.store.recover(self.now, {})) == len(expired)
        for name in expired:
            mine = self.calls[name]
            mine["open"] = False
            if mine["progress"] or mine.get("seen"):
                self.count(name, mine["progress"])

    @invariant()
    def every_counter_is_what_the_sums_say(self):
        keys = sorted({line.key for line in self.lines})
        for state in self.ask(self.store.counters(keys)):
            assert (state.used, state.held) == (self.used.get(state.key, 0), self.held(state.key)), state.key

    def teardown(self):
        for name, mine in self.calls.items():
            if mine["open"]:
                self.ask(self.store.settle(self.make.settlement(name, 1)))
        assert self.ask(self.store.unbalanced()) == ([], [])


def test_whatever_is_asked_in_whatever_order_the_sums_are_right(store_url, make):
    Ledger.loop, Ledger.make = asyncio.new_event_loop(), make
    Ledger.store = Ledger.loop.run_until_complete(open_store(store_url, clock=SystemClock()))
    quick = settings(max_examples=80, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    try:
        run_state_machine_as_test(Ledger, settings=quick)
    finally:
        Ledger.loop.run_until_complete(Ledger.store.close())
        Ledger.loop.close()
