"""The whole life of calls, in any order, on two stores of one database, against sums that a child could do.

``GATEKEEPER_SEED=N`` repeats a run; the seed of each is printed with its failure.
"""

import asyncio
import itertools
import os
import random
import tempfile
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from fakes.effort import FACTOR
from hypothesis import HealthCheck, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from bench.ledger import order, settlement
from gatekeeper.errors import Fault
from gatekeeper.money import Price
from gatekeeper.ports import Extension, Progress
from gatekeeper.rules.diagnosis import all_well, diagnose
from gatekeeper.rules.latches import is_latch, latch_dimension
from gatekeeper.rules.limits import (
    ONE_REQUEST,
    BucketKey,
    CounterKey,
    Granted,
    Mode,
    RateLine,
    Scope,
    StockLimit,
    StockLine,
    Window,
)
from gatekeeper.rules.plans import Plan
from gatekeeper.stores import open_store
from gatekeeper.stores.ops import ReleaseOp

NOW_MS = 1_781_524_800_000
MONTH_MS = 1_780_272_000_000
DAY_MS = 1_781_481_600_000
RATE_CAP = 60
# So slow that it drains nothing while a test runs, whatever the clock of the database says.
NEVER_MS = 10**15


def plan(name, cap, mode, price):
    """A plan with a quota of so many millionths of a unit."""
    quota = StockLimit("quota", Scope.CUSTOMER, "units", Window.MONTH, cap, mode)
    return Plan(name, name, 0, quota, overage=price and Price(Decimal(price)))


PLANS = {one.id: one for one in (plan("small", 61, Mode.BLOCK, None), plan("priced", 25, Mode.OVERAGE, 7))}
# So few that one call may reach it, in a day that it holds nothing of.
DAILY = 25
_examples = itertools.count()
tokens = st.integers(0, 30)
calls = st.integers(0, 3)
either = st.integers(0, 1)


class Clock:
    """Time that the machine moves, also backwards."""

    now = NOW_MS

    def now_ms(self):
        return self.now

    def monotonic_s(self):
        return self.now / 1000

    async def sleep(self, seconds):
        raise AssertionError("nothing here waits for time")


class Call:
    """What the model knows of one call."""

    def __init__(self, made, store, granted, expires):
        self.lines, self.plan, self.store = made.stock, PLANS[made.plan_id], store
        self.granted, self.expires = granted, expires
        self.state, self.progress, self.seen, self.taken, self.started = "open", 0, False, {}, made.now_ms

    def amounts(self, granted=None):
        return amounts(self.lines, self.granted if granted is None else granted)


def amounts(lines, granted):
    """What so much output holds on each counter: lines that share one count once."""
    found = {}
    for line in lines:
        found[line.key] = max(found.get(line.key, 0), line.fixed + line.per_output * granted)
    return found


class Life(RuleBasedStateMachine):
    """Hold, extend, renew, settle, settle late, recover, release, cancel; plans and windows change, clocks go back."""

    # Set for each test: a loop, a clock, and two stores on one database.
    loop, clock, stores = None, None, ()

    def __init__(self):
        super().__init__()
        self.name = f"e{next(_examples)}"
        self.used, self.calls, self.keys = {}, {}, set()
        self.plan, self.month, self.resets, self.days, self.charged, self.spent = "small", 0, 0, 0, 0, 0
        self.clock.now = NOW_MS
        self.bucket = BucketKey("key", self.name, "units", NEVER_MS)

    # --- the model ---

    def lines(self):
        """What a call of now stands on."""
        mine, start_ms = PLANS[self.plan], MONTH_MS + 1_000 * self.month
        # A reset is a row of its own, and touches no other limit.
        key = CounterKey("customer", self.name, "units", "month", start_ms + self.resets)
        elsewhere = key._replace(scope="key", subject=f"{self.name}-key", start_ms=start_ms)
        day, latch = self.day()
        return (
            StockLine(key, "quota", mine.quota.cap, mine.quota.mode, 2, 1, None),
            StockLine(key, "soft", 20, Mode.SOFT, 0, 2, None),
            StockLine(elsewhere, "budget", 33, Mode.BLOCK, 1, 1, None),
            StockLine(
                elsewhere._replace(dimension="requests"), "calls", 6 * ONE_REQUEST, Mode.BLOCK, ONE_REQUEST, 0, None
            ),
            StockLine(CounterKey("customer", self.name, "dollars", "total", 0), "dollars", 150, Mode.BLOCK, 3, 2, None),
            StockLine(CounterKey("customer", self.name, "units", "total", 0), "all", None, Mode.BLOCK, 5, 1, None),
            StockLine(day, "day", DAILY, Mode.BLOCK, 0, 0, None),
            StockLine(latch, "day", DAILY, Mode.BLOCK, 0, 0, None),
        )

    def day(self):
        """A day's count, and the one that keeps it closed in days that follow until it is reset."""
        pair = CounterKey("customer,model", f"{self.name},gpt-4o", "units", "day", DAY_MS + self.resets + self.days)
        closed = latch_dimension("day", "units")
        return pair, pair._replace(dimension=closed, window="billing_period", start_ms=MONTH_MS + self.resets)

    def held(self, key, without=None):
        open_calls = (call for name, call in self.calls.items() if call.state == "open" and name != without)
        return sum(call.amounts().get(key, 0) for call in open_calls)

    def best(self, lines, granted, least, wanted, name=None):
        """The most that a call may have more, or None."""

        def fits(more):
            asked = amounts(lines, granted + more)
            return all(
                line.mode is not Mode.BLOCK
                or line.cap is None
                or self.used.get(line.key, 0) + self.held(line.key, name) + asked[line.key] <= line.cap
                for line in lines
            )

        return max((more for more in range(least, wanted + 1) if fits(more)), default=None)

    def count(self, call, taken):
        """The call took that in the end."""
        for key in sorted(call.amounts(), key=is_latch):
            amount = self.closing(call, key) if is_latch(key) else taken.get(key.dimension, 0)
            before = self.used.get(key, 0)
            self.used[key] = before + amount - call.taken.get(key, 0)
            if key == call.lines[0].key and call.plan.quota.mode is Mode.OVERAGE:
                self.charged += call.plan.overage_nano(before, self.used[key])
            call.taken[key] = amount

    def closing(self, call, latch):
        """What a call adds to the count that keeps a day closed: all of the cap where nobody else has closed it."""
        day = next(key for key in call.amounts() if key.scope == latch.scope and not is_latch(key))
        others = self.used.get(latch, 0) - call.taken.get(latch, 0)
        return DAILY - others if self.used[day] >= DAILY else 0

    def rate_ends(self, units):
        self.spent = max(0, self.spent + units - 3)

    # --- asking ---

    def ask(self, question):
        return self.loop.run_until_complete(question)

    def id(self, call):
        return f"{self.name}-{call}"

    def order(self, call, one, other):
        least, wanted = sorted((one, other))
        now_ms = self.clock.now
        return replace(
            order(self.id(call), self.name, now_ms),
            plan_id=self.plan,
            expires_ms=now_ms + 30_000,
            output_tokens=wanted,
            output_tokens_min=least,
            stock=self.lines(),
            rates=(RateLine(self.bucket, "rate", RATE_CAP, 3, 3),),
        )

    def expected(self, made):
        """How much output an order is granted, or None."""
        blocks = (line for line in made.stock if line.mode is Mode.BLOCK and line.cap is not None)
        if any(self.used.get(line.key, 0) >= line.cap for line in blocks) or self.spent + 3 > RATE_CAP:
            return None
        return self.best(made.stock, 0, made.output_tokens_min, made.output_tokens)

    def remember(self, made, store, granted):
        self.keys |= {line.key for line in made.stock}
        if granted is not None:
            self.spent += 3
            self.calls[made.call_id] = Call(made, store, granted, made.expires_ms)

    @rule(call=calls, one=tokens, other=tokens, at=either)
    def hold(self, call, one, other, at):
        made, mine = self.order(call, one, other), self.calls.get(self.id(call))
        if mine is not None and mine.state != "open":
            with pytest.raises(Fault, match="is over"):
                self.ask(self.stores[at].hold(made))
            return
        found = self.ask(self.stores[at].hold(made))
        granted = found.output_tokens if isinstance(found, Granted) else None
        if mine is not None:
            assert granted == mine.granted, "asking again changes nothing"
            return
        assert granted == self.expected(made)
        self.remember(made, at, granted)

    @rule(call=calls, one=tokens, other=tokens, at=either, turns=st.integers(0, 6))
    def hold_and_go_away(self, call, one, other, at, turns):
        if self.id(call) in self.calls:
            return
        made = self.order(call, one, other)

        async def asked():
            task = asyncio.ensure_future(self.stores[at].hold(made))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            # In the queue behind whatever is still to be undone.
            await self.stores[at].extend(Extension("nobody", 1, 1, 0, False, 0, 0))
            return None if task.cancelled() else task.result()

        found = self.ask(asked())
        self.keys |= {line.key for line in made.stock}
        if found is not None:
            granted = found.output_tokens if isinstance(found, Granted) else None
            assert granted == self.expected(made)
            self.remember(made, at, granted)

    @rule(call=calls, one=tokens, other=tokens, units=tokens, at=either)
    def extend(self, call, one, other, units, at):
        least, wanted = sorted((one, other))
        name, expires = self.id(call), self.clock.now + 20_000
        asked = Extension(name, wanted, least, units, True, expires, self.clock.now)
        found, mine = self.ask(self.stores[at].extend(asked)), self.calls.get(name)
        if mine is None or mine.state != "open":
            assert found is None
            return
        best = self.best(mine.lines, mine.granted, least, wanted, name)
        if best is None and least == 0:
            best = 0
        assert (found.output_tokens if isinstance(found, Granted) else None) == best
        mine.granted += best or 0
        self.lives(mine, units, expires)

    def lives(self, mine, units, expires):
        mine.progress, mine.expires, mine.seen = max(mine.progress, units), max(mine.expires, expires), True

    @rule(units=st.lists(tokens, min_size=4, max_size=4), at=either)
    def renew(self, units, at):
        expires = self.clock.now + 25_000
        signs = [Progress(self.id(call), so_far, True) for call, so_far in enumerate(units)]
        lost = self.ask(self.stores[at].renew(signs, expires))
        alive = {sign.call_id for sign in signs if (mine := self.calls.get(sign.call_id)) and mine.state == "open"}
        assert lost == [sign.call_id for sign in signs if sign.call_id not in alive]
        for sign in signs:
            if sign.call_id in alive:
                self.lives(self.calls[sign.call_id], sign.units_micro, expires)

    @rule(call=calls, units=tokens, dollars=tokens, at=either)
    def settle(self, call, units, dollars, at):
        name = self.id(call)
        if (mine := self.calls.get(name)) is not None:
            self.settled(name, mine, units, dollars, at)

    def settled(self, name, mine, units, dollars, at):
        made = replace(order(name, self.name, mine.started), plan_id=mine.plan.id)
        end = settlement(made, self.clock.now)
        record = replace(end.record, units_micro=units, cost_nano=dollars)
        actual = {"units": units, "requests": ONE_REQUEST, "dollars": dollars}
        end = replace(end, record=record, actual=actual, plan=mine.plan)
        assert self.ask(self.stores[at].settle(end)).first == (mine.state != "settled")
        if mine.state == "open":
            self.rate_ends(units)
        if mine.state != "settled":
            self.count(mine, actual)
        mine.state = "settled"

    @rule(later=st.integers(0, 40_000), at=either)
    def recover(self, later, at):
        self.clock.now += later
        expired = [(mine.expires, name) for name, mine in self.calls.items() if mine.state == "open"]
        expired = sorted(found for found in expired if found[0] <= self.clock.now)
        assert self.ask(self.stores[at].recover(self.clock.now, PLANS)) == len(expired)
        for _, name in expired:
            mine, actual = self.calls[name], {}
            if mine.progress or mine.seen:
                held = mine.amounts()
                units = max(amount for key, amount in held.items() if key.dimension == "units")
                dollars = next(amount for key, amount in held.items() if key.dimension == "dollars")
                share = dollars * min(mine.progress, units) // units
                actual = {"units": mine.progress, "requests": ONE_REQUEST, "dollars": share}
            self.rate_ends(actual.get("units", 0))
            self.count(mine, actual)
            mine.state = "recovered"

    @rule(call=calls)
    def release(self, call):
        """Its caller went away: only the process that held it knows."""
        name = self.id(call)
        mine = self.calls.get(name)
        found = self.ask(self.stores[0 if mine is None else mine.store]._lane.carry_out(ReleaseOp(name)))
        assert found == (mine is not None and mine.state == "open")
        if found:
            del self.calls[name]
            self.rate_ends(0)

    @rule()
    def the_plan_changes(self):
        self.plan = "priced" if self.plan == "small" else "small"

    @rule()
    def the_window_turns(self):
        self.month += 1

    @rule()
    def the_quota_is_reset(self):
        self.resets += 1

    @rule()
    def another_day_begins(self):
        self.days += 1_000

    @rule(earlier=st.integers(1, 100_000))
    def the_clock_goes_back(self, earlier):
        self.clock.now -= earlier

    # --- comparing ---

    @invariant()
    def every_counter_is_what_the_sums_say(self):
        for state in self.ask(self.stores[0].counters(sorted(self.keys))):
            assert (state.used, state.held) == (self.used.get(state.key, 0), self.held(state.key)), state.key
        (rate,) = self.ask(self.stores[1].buckets([(self.bucket, RATE_CAP)]))
        assert rate.spent == self.spent

    def teardown(self):
        for name, mine in self.calls.items():
            if mine.state == "open":
                self.settled(name, mine, 1, 1, 0)
        self.every_counter_is_what_the_sums_say()
        total = self.ask(self.stores[0].usage_total(0, 2**50, customer_id=self.name))
        assert (total.requests, total.charge_nano) == (len(self.calls), self.charged)
        dollars = CounterKey("customer", self.name, "dollars", "total", 0)
        assert (total.units_micro, total.cost_nano) == (
            self.used.get(dollars._replace(dimension="units"), 0),
            self.used.get(dollars, 0),
        )


@pytest.fixture
def url(store_url):
    """Where a file costs no fsync: thousands of settles are made."""
    if not store_url.startswith("sqlite") or not Path("/dev/shm").is_dir():
        yield store_url
        return
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield f"sqlite:///{folder}/calls.sqlite"


def test_whatever_happens_in_whatever_order_the_sums_are_right(url):
    number = int(os.environ.get("GATEKEEPER_SEED", random.randrange(2**32)))
    print(f"GATEKEEPER_SEED={number}")  # noqa: T201 - shown with a failure, which it repeats
    Life.loop, Life.clock = asyncio.new_event_loop(), Clock()
    Life.stores = tuple(Life.loop.run_until_complete(open_store(url, clock=Life.clock)) for _ in range(2))
    quick = settings(
        max_examples=75 * FACTOR,
        stateful_step_count=40,
        deadline=None,
        derandomize=False,
        print_blob=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(seed(number)(Life), settings=quick)
        ask, store = Life.loop.run_until_complete, Life.stores[0]
        assert ask(store.unbalanced()) == ([], [])
        checks = diagnose(ask(store.figures(0, 0)), NOW_MS, 100)
        assert all_well(checks), [check for check in checks if not check.ok]
    finally:
        for store in Life.stores:
            Life.loop.run_until_complete(store.close())
        Life.loop.close()
