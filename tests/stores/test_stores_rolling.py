"""Sums over hours and days: whatever is summed up, and whoever settles or rolls meanwhile, each report is what the
records add up to, to the digit."""

import asyncio
import time
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import Activity, Amount, SpendBy, percentile
from gatekeeper.rules.windows import DAY_MS, HOUR_MS
from gatekeeper.stores import SqlStore, open_store
from gatekeeper.stores.roller import GRACE_MS, Roller

# Noon; the calls of a test begin in the three days before.
NOON_MS = 1_781_524_800_000
COLUMNS = (
    "call_id, started_ms, ended_ms, first_byte_ms, customer_id, key_id, user_id, agent_id, plan_id, route, upstream, "
    "model, units_micro, charge_nano, cost_nano, corrects, source, outcome, status"
)


@dataclass
class Hands:
    """A clock that stands until it is moved; nobody sleeps."""

    ms: int = NOON_MS
    slept: list[float] = field(default_factory=list)

    def now_ms(self):
        return self.ms

    def monotonic_s(self):
        return self.ms / 1000

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.ms += int(seconds * 1000)


class Interrupted:
    """A database between whose transactions others do something."""

    def __init__(self, database, interrupt):
        self._database, self._interrupt = database, interrupt

    async def read(self, work):
        return await self._database.read(work)

    async def report(self, work):
        found = await self._database.report(work)
        await self._interrupt()
        return found

    async def write(self, work, *, durable=True):
        found = await self._database.write(work, durable=durable)
        await self._interrupt()
        return found


class World:
    """A store, its clock, and what the records say by themselves."""

    def __init__(self, store, hands, make, ask):
        self.store, self.hands, self.make, self._ask = store, hands, make, ask
        self.number = 0

    def ask(self, text):
        """Behind the store's back, in a thread, because it runs a loop of its own."""
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(self._ask, text).result()

    async def settle(self, call):
        """``call``: how many minutes ago it began, who, and how it went."""
        ago, customer, user, model, units, cost, outcome, source, status, wait = call
        self.number += 1
        started = self.hands.ms - ago * 60_000
        name = f"c{self.number}"
        more = {"customer_id": customer, "user_id": user, "model": model, "key_id": None if user else f"k-{customer}"}
        made = self.make.settlement(
            name, units, started_ms=started, ended_ms=self.hands.ms, cost_nano=cost, outcome=outcome, source=source,
            status=status, first_byte_ms=wait, **more,
        )  # fmt: skip
        await self.store.settle(replace(made, now_ms=self.hands.ms))

    async def lose(self, ago, units):
        """A call is held, its process dies, it is recovered, and later its true end comes all the same."""
        self.number += 1
        name, started = f"lost{self.number}", self.hands.ms - ago * 60_000
        order = self.make.order(name, self.make.line(fixed=0), now_ms=started, expires_ms=self.hands.ms)
        await self.store.hold(order)
        await self.store.recover(self.hands.ms, {})
        return self.make.settlement(
            name, units, started_ms=started, ended_ms=self.hands.ms, first_byte_ms=7, cost_nano=3
        )

    async def roll(self, steps, meanwhile, pages):
        """Roll, while after each transaction the next of ``meanwhile`` happens: settles, and another roller's round."""
        left = list(meanwhile)

        async def interrupt():
            for call in left.pop(0) if left else ():
                await (self.settle(call) if call is not None else self.store.roll(self.hands.ms, steps=2))

        roller = self.beside(interrupt)
        roller.sums_at_once = pages
        await roller.roll(self.hands.ms, steps=steps)

    def beside(self, interrupt):
        """Another process's store, between whose transactions ``interrupt`` is called."""
        return SqlStore(Interrupted(self.store._database, interrupt), self.hands)

    def records(self):
        return [
            dict(zip(COLUMNS.split(", "), row, strict=True)) for row in self.ask(f"SELECT {COLUMNS} FROM usage_record")
        ]

    async def compare(self, start, end):
        """Every kind of report of a period against sums that Python makes of the records."""
        rows = [row for row in self.records() if start <= row["started_ms"] < end]
        store = self.store
        assert await store.activity(Scope.GLOBAL, "", start, end) == summed(rows)
        overview = await store.overview(start, end)
        assert overview.total == summed(rows)
        waits = sorted((row["first_byte_ms"], 1) for row in rows if row["first_byte_ms"] is not None)
        assert overview.wait_p50_ms == percentile(waits, 50)
        for by, of in BY.items():
            for scope, subject, wanted in NARROW:
                chosen = [row for row in rows if wanted(row)]
                found = await store.breakdown(by, scope, subject, start, end, limit=10_000)
                assert {row.part: replace(row, part=None) for row in found} == grouped(chosen, of), (by, scope)
        parts = await store.spend_by(SpendBy.CUSTOMER, Scope.GLOBAL, "", start, end)
        assert {row.part: row.cost_nano for row in parts} == {
            part: row.cost_nano for part, row in grouped(rows, BY[SpendBy.CUSTOMER]).items()
        }
        total = await store.usage_total(start, end, customer_id="acme", key_id="k-acme")
        ours = summed([row for row in rows if row["key_id"] == "k-acme"])
        assert (total.requests, total.units_micro, total.last_request_ms) == (
            ours.requests,
            ours.units_micro,
            ours.last_ms,
        )
        recent = end - HOUR_MS
        paces = await store.paces(Scope.CUSTOMER, Amount.UNITS, Scope.GLOBAL, "", start, recent, end, least=-(2**40))
        assert {pace.subject: (pace.recent, pace.before, pace.first_ms) for pace in paces} == {
            part: (
                sum(row["units_micro"] for row in rows if row["customer_id"] == part and row["started_ms"] >= recent),
                sum(row["units_micro"] for row in rows if row["customer_id"] == part and row["started_ms"] < recent),
                sums.first_ms,
            )
            for part, sums in grouped(rows, BY[SpendBy.CUSTOMER]).items()
        }


def under(who):
    return lambda row: None if row[who] is None else f"{row['customer_id']}/{row[who]}"


def day(row):
    return time.strftime("%Y-%m-%d", time.gmtime(row["started_ms"] // 1000))


BY = {
    SpendBy.DAY: day,
    SpendBy.HOUR: lambda row: str(row["started_ms"] - row["started_ms"] % HOUR_MS),
    SpendBy.CUSTOMER: lambda row: row["customer_id"],
    SpendBy.USER: under("user_id"),
    SpendBy.KEY: lambda row: row["key_id"],
    SpendBy.UPSTREAM: lambda row: row["upstream"],
    SpendBy.MODEL: lambda row: row["model"],
}
NARROW = (
    (Scope.GLOBAL, "", lambda row: True),
    (Scope.CUSTOMER, "acme", lambda row: row["customer_id"] == "acme"),
    (Scope.USER, "acme/u1", lambda row: (row["customer_id"], row["user_id"]) == ("acme", "u1")),
    (Scope.MODEL, "o3", lambda row: row["model"] == "o3"),
)
FAILED = ("upstream_failed", "upstream_error", "timed_out")


def summed(rows):
    """What the docstring of ``Activity`` says, in Python."""
    if not rows:
        return Activity()
    calls = [row for row in rows if row["corrects"] is None]
    again = len(rows) - len(calls)

    def count(wanted, rows=rows):
        return sum(1 for row in rows if wanted(row))

    def failed(row):
        return row["outcome"] in FAILED or (row["status"] or 0) >= 500

    return Activity(
        requests=len(calls),
        units_micro=sum(row["units_micro"] for row in rows),
        charge_nano=sum(row["charge_nano"] for row in rows),
        cost_nano=sum(row["cost_nano"] or 0 for row in rows),
        unpriced=count(lambda row: row["cost_nano"] is None, calls),
        first_ms=min(row["started_ms"] for row in rows),
        last_ms=max(row["started_ms"] for row in rows),
        measured=count(lambda row: row["source"] == "measured"),
        defaulted=count(lambda row: row["source"] == "default"),
        estimated=count(lambda row: row["source"] == "estimated") - again,
        unread=count(lambda row: row["source"] == "error"),
        failed=count(failed),
        refused=count(lambda row: not failed(row) and 400 <= (row["status"] or 0) < 500),
        left_early=count(lambda row: row["outcome"] == "client_closed" and (row["status"] or 0) < 400),
        cut=count(lambda row: row["outcome"] == "cut" and (row["status"] or 0) < 400) - again,
        answered=count(lambda row: row["first_byte_ms"] is not None),
        first_byte_ms=sum(row["first_byte_ms"] or 0 for row in rows),
        duration_ms=sum(row["ended_ms"] - row["started_ms"] for row in rows if row["first_byte_ms"] is not None),
    )


def grouped(rows, part):
    parts = defaultdict(list)
    for row in rows:
        parts[part(row)].append(row)
    return {name: summed(found) for name, found in parts.items()}


CALLS = st.tuples(
    st.one_of(st.integers(0, 70), st.integers(0, 4_320)),
    st.sampled_from(["acme", "beta"]),
    st.sampled_from([None, "u1", ""]),
    st.sampled_from(["gpt-4o", "o3", None]),
    st.integers(0, 9),
    st.sampled_from([None, 0, 5]),
    st.sampled_from(list(Outcome)),
    st.sampled_from(list(Mark)),
    st.sampled_from([None, 200, 404, 502]),
    # Two digits, so that nothing is rounded.
    st.sampled_from([None, 0, 7, 99, 120, 3_400]),
)
MEANWHILE = st.lists(st.lists(st.one_of(st.none(), CALLS), max_size=3), max_size=6)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("settle"), st.lists(CALLS, min_size=1, max_size=4)),
        st.tuples(st.just("lose"), st.integers(0, 300), st.integers(0, 9)),
        st.tuples(
            st.just("find"),
        ),
        st.tuples(st.just("advance"), st.integers(1, 1_500)),
        st.tuples(st.just("roll"), st.integers(1, 60), MEANWHILE, st.sampled_from([1, 3, 2_000])),
        st.tuples(st.just("roll"), st.integers(20, 60), MEANWHILE, st.just(2_000)),
    ),
    min_size=2,
    max_size=8,
)
TABLES = ("usage_record", "usage_sum", "wait_sum", "usage_rolled", "late_record", "hold", "counter", "billed_response")


async def lived(world, steps, bounds):
    """Carries the steps out; after each, the reports are what the records are."""
    lost = []
    for step in steps:
        match step:
            case ("settle", calls):
                for call in calls:
                    await world.settle(call)
            case ("lose", ago, units):
                lost.append(await world.lose(ago, units))
            case ("find",) if lost:
                await world.store.settle(replace(lost.pop(), now_ms=world.hands.ms))
            case ("advance", minutes):
                world.hands.ms += minutes * 60_000
            case ("roll", count, meanwhile, pages):
                await world.roll(count, meanwhile, pages)
        start, end = (world.hands.ms + offset * 60_000 for offset in bounds)
        await world.compare(min(start, end), max(start, end))
    await world.compare(0, world.hands.ms + DAY_MS)


BOUNDS = st.tuples(st.integers(-4_400, 0), st.integers(-4_400, 10))


def check(url, make, sql, steps, bounds):
    sql(url, *(f"DELETE FROM {table}" for table in TABLES))

    async def run():
        hands = Hands()
        store = await open_store(url, clock=hands)
        try:
            await lived(World(store, hands, make, lambda text: sql(url, text)), steps, bounds)
        finally:
            await store.close()

    asyncio.run(run())


@pytest.fixture
def opened(store_url, with_store):
    async def body(store):
        await store.ping()

    with_store(body)
    return store_url


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS, BOUNDS)
def test_in_any_order_of_settles_corrections_and_rollers_reports_are_what_the_records_add_up_to(
    opened, make, sql, steps, bounds
):
    check(opened, make, sql, steps, bounds)


def call(minutes_ago, units=1):
    """A plain one of acme."""
    return minutes_ago, "acme", None, "o3", units, 5, Outcome.COMPLETE, Mark.MEASURED, 200, 7


@pytest.fixture
def world(store_url, make, sql):
    """Runs ``body(world)``."""

    def run(body):
        async def opened():
            hands = Hands()
            store = await open_store(store_url, clock=hands)
            try:
                await body(World(store, hands, make, lambda text: sql(store_url, text)))
            finally:
                await store.close()

        asyncio.run(opened())

    return run


HOUR = NOON_MS - 5 * HOUR_MS
TODAY = NOON_MS - 12 * HOUR_MS


def test_whoever_read_before_another_roller_wrote_changes_nothing(world):
    async def body(world):
        await world.settle(call(299))
        happened = []

        async def interrupt():
            if not happened:
                happened.append(True)
                await world.settle(call(290))
                assert await world.store.roll_hour(HOUR)

        assert not await world.beside(interrupt).roll_hour(HOUR)
        assert world.ask("SELECT COUNT(*) FROM late_record") == [(0,)]
        await world.compare(HOUR, NOON_MS)

    world(body)


def test_a_day_that_was_read_before_one_of_its_hours_changed_is_not_whole(world):
    async def body(world):
        yesterday = TODAY - DAY_MS
        await world.settle(call(20 * 60))
        for number in range(24):
            assert await world.store.roll_hour(yesterday + number * HOUR_MS)
        happened = []

        async def interrupt():
            if not happened:
                happened.append(True)
                await world.settle(call(20 * 60))
                hour = NOON_MS - 20 * HOUR_MS
                assert await world.store.roll_hour(hour)

        assert not await world.beside(interrupt).roll_day(yesterday)
        assert world.ask("SELECT COUNT(*) FROM usage_rolled WHERE whole > 0") == [(0,)]
        assert await world.store.roll_day(yesterday)
        await world.compare(0, NOON_MS)
        # And what is late makes a whole day doubtful, until it is made again.
        await world.settle(call(20 * 60))
        await world.compare(0, NOON_MS)
        while await world.store.roll(NOON_MS, steps=30):
            await world.compare(0, NOON_MS)
        assert world.ask("SELECT hours, fine, whole FROM usage_rolled") == [(2**24 - 1, 0, 1)]
        assert world.ask("SELECT COUNT(*) FROM usage_sum WHERE depth = 'each' AND span = 'hour'") == [(0,)]
        await world.compare(0, NOON_MS)

    world(body)


def test_what_is_settled_while_an_hour_is_summed_up_leaves_its_mark(world):
    async def body(world):
        await world.settle(call(299))

        async def interrupt():
            if world.number < 2:
                await world.settle(call(290))

        assert await world.beside(interrupt).roll_hour(HOUR)
        assert world.ask("SELECT hour_ms, call_id FROM late_record") == [(HOUR, "c2")]
        await world.compare(HOUR, NOON_MS)

    world(body)


def test_a_call_that_ends_within_its_hour_leaves_no_mark(world):
    async def body(world):
        world.hands.ms += 59 * 60_000
        await world.settle(call(58))
        assert world.ask("SELECT COUNT(*) FROM late_record") == [(0,)]
        world.hands.ms += 60_000
        await world.settle(call(1))
        assert world.ask("SELECT call_id FROM late_record") == [("c2",)]

    world(body)


def test_sums_that_are_not_their_records_are_made_again_when_their_day_is_looked_at_once_more(world):
    async def body(world):
        await world.settle(call(299))
        await world.settle(call(20))
        world.hands.ms += DAY_MS
        while await world.store.roll(world.hands.ms, steps=30):
            pass
        # Somebody of an older version settled without a word.
        world.ask("UPDATE usage_record SET units_micro = 77 WHERE call_id = 'c1'")
        assert (await world.store.spend_total(Scope.GLOBAL, "", 0, world.hands.ms)).units_micro == 2
        world.hands.ms += 3 * DAY_MS
        while await world.store.roll(world.hands.ms, steps=30):
            pass
        assert world.ask("SELECT fine, whole FROM usage_rolled") == [(0, 2)]
        assert (await world.store.spend_total(Scope.GLOBAL, "", 0, world.hands.ms)).units_micro == 78
        assert await world.store.roll(world.hands.ms, steps=30) == 0

    world(body)


def test_a_day_whose_hours_changed_since_it_was_made_is_not_taken_for_compared(world):
    async def body(world):
        await world.settle(call(299))
        world.hands.ms += DAY_MS
        while await world.store.roll(world.hands.ms, steps=30):
            pass
        world.hands.ms += 3 * DAY_MS
        happened = []

        async def interrupt():
            # After it was read that the day is whole.
            if not happened:
                happened.append(True)
                await world.settle(call(4 * 24 * 60 + 299))
                assert await world.store.roll_hour(HOUR)

        await world.beside(interrupt).roll(world.hands.ms, steps=1)
        await world.compare(0, world.hands.ms)

    world(body)


def test_the_doctor_is_told_of_sums_that_are_not_their_records(world):
    async def body(world):
        await world.settle(call(299))
        world.hands.ms += DAY_MS
        while await world.store.roll(world.hands.ms, steps=30):
            pass
        assert (await world.store.figures(0, 0)).strange_sums.total == 0
        world.ask("UPDATE usage_sum SET requests = 2 WHERE depth = 'sold' OR (depth = 'all' AND span = 'hour')")
        odd = (await world.store.figures(0, 0)).strange_sums
        assert [row.what for row in odd.rows] == [
            "2 requests by sold, the records say 1", "2 requests by all, the records say 1"
        ]  # fmt: skip
        # What is late is not believed anyway.
        await world.settle(call(24 * 60 + 299))
        assert (await world.store.figures(0, 0)).strange_sums.total == 0

    world(body)


def test_an_hour_is_taken_minutes_after_its_end_when_what_was_under_way_then_is_over(make):
    """On a fake store: the fence of Postgres, by hand."""

    class Fenced:
        def __init__(self):
            self.fence, self.safe, self.elected = (5, 9), [], True

        async def elect_roller(self, owner, now_ms, lease_ms):
            return self.elected

        async def roll_fence(self):
            return self.fence

        async def roll(self, safe_ms, *, steps):
            self.safe.append(safe_ms)
            return 0

    async def run():
        rollups, hands = Fenced(), Hands()
        roller = Roller(rollups, hands, owner="me")
        assert await roller.turn()
        hands.ms += 1
        assert await roller.turn()
        # Transaction 8 was under way then, and still is.
        rollups.fence = 8, 12
        assert await roller.turn()
        assert rollups.safe == []
        rollups.fence = 9, 12
        assert not await roller.turn()
        assert rollups.safe == [NOON_MS - GRACE_MS]
        rollups.elected = False
        assert not await roller.turn()
        assert len(rollups.safe) == 1

    asyncio.run(run())


def test_many_marks_and_very_many_rows_are_worked_off(world):
    async def body(world):
        for number in range(12):
            await world.settle((299, "acme", f"u{number}", "o3", 1, 5, Outcome.COMPLETE, Mark.MEASURED, 200, 7))
        world.store.sums_at_once = 5
        assert await world.store.roll_hour(HOUR)
        assert world.ask("SELECT COUNT(*) FROM usage_sum WHERE depth = 'each'") == [(12,)]
        assert await world.store.roll_hour(HOUR)
        assert world.ask("SELECT COUNT(*) FROM usage_sum WHERE depth = 'each'") == [(12,)]
        await world.compare(HOUR, NOON_MS)

    world(body)
