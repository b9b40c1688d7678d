"""One transaction for many calls does exactly what one transaction for each of them does."""

import asyncio
import os
import sqlite3
import tempfile
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.errors import Fault
from gatekeeper.ports import Extension
from gatekeeper.rules.limits import BucketKey, CounterKey, Mode, RateLine, StockLine
from gatekeeper.stores import open_store
from gatekeeper.stores.batch import Batch
from gatekeeper.stores.database import AskAll, AskEach, Stamp, fault
from gatekeeper.stores.known import Known
from gatekeeper.stores.lane import UNSAFE_MAX, Lane
from gatekeeper.stores.migrate import migrate
from gatekeeper.stores.ops import ExtendOp, Held, HoldOp, RecoverOp, ReleaseOp, SettleOp
from gatekeeper.stores.sqlite import SqliteDatabase
from gatekeeper.stores.worker import Worker


class StandingClock:
    """Time that the test moves."""

    def __init__(self, now_ms):
        self.now = now_ms

    def now_ms(self):
        return self.now

    def monotonic_s(self):
        return self.now / 1000

    async def sleep(self, seconds):
        raise AssertionError("nothing here waits for time")


amounts = st.integers(0, 40)
stock_lines = st.builds(
    lambda subject, cap, mode, fixed, per: StockLine(
        CounterKey("customer", subject, "units", "month", 0), "quota", cap, mode, fixed, per, None
    ),
    st.sampled_from("ab"),
    st.none() | st.integers(0, 120),
    st.sampled_from([Mode.BLOCK, Mode.BLOCK, Mode.OVERAGE]),
    amounts,
    st.integers(0, 3),
)
rate_lines = st.builds(
    lambda subject, cap, amount: RateLine(BucketKey("key", subject, "units", 60_000), "rate", cap, amount, 0),
    st.sampled_from("xy"),
    st.integers(0, 100),
    amounts,
)
orders = st.tuples(st.lists(stock_lines, max_size=3), st.lists(rate_lines, max_size=2), st.integers(0, 9))
calls = st.integers(0, 5)
deeds = st.one_of(
    st.tuples(st.just("hold"), calls, orders),
    st.tuples(st.just("hold"), calls, orders),
    st.tuples(st.just("settle"), calls, st.integers(-1, 60)),
    st.tuples(st.just("extend"), calls, st.tuples(st.integers(-1, 9), st.integers(0, 9))),
    st.tuples(st.just("recover"), calls, st.none()),
    st.tuples(st.just("release"), calls, st.none()),
)
# Where a file costs no fsync: these tests make hundreds.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
EVERYTHING = (
    "SELECT * FROM counter ORDER BY 1, 2",
    "SELECT * FROM bucket ORDER BY 1, 2",
    "SELECT * FROM hold ORDER BY 1",
    "SELECT * FROM usage_record ORDER BY 1",
    "SELECT * FROM owed ORDER BY 1",
    "SELECT * FROM billed_response ORDER BY 1, 2, 3",
)


def _op(make, deed, call, what):
    call_id = f"c{call}"
    match deed:
        case "hold":
            stock, rates, tokens = what
            return HoldOp(
                make.order(call_id, *stock, rates=tuple(rates), output_tokens=tokens, output_tokens_min=tokens // 2)
            )
        case "settle":
            # Some calls are answered with the same response.
            response_id = f"resp_{call % 3}a1b2c3d4e5f60718293a4b"
            made = make.settlement(call_id, what, plan=make.plan(cap=50), response_id=response_id)
            return SettleOp(replace(made, once_per_response=call != 4))
        case "extend":
            least, more = what
            return ExtendOp(Extension(call_id, least + more, least, more, True, make.NOW_MS + 30_000, make.NOW_MS))
        case "recover":
            return RecoverOp(call_id, make.NOW_MS + 30_000, {"pro": make.plan(cap=50)})
        case _:
            return ReleaseOp(call_id)


async def _run(rounds, make, *, together):
    """The answers to every round, and everything that is stored in the end."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "x.sqlite"
        database = await SqliteDatabase.open(path)
        clock = StandingClock(make.NOW_MS)
        try:
            await migrate(database)
            lane = Lane(database, clock.now_ms)
            answers = []
            for deeds_of_round in rounds:
                ops = [_op(make, *deed) for deed in deeds_of_round]
                ask = [lane.hold(op) if isinstance(op, HoldOp) else lane.carry_out(op) for op in ops]
                if together:
                    answers += await asyncio.gather(*ask, return_exceptions=True)
                else:
                    for question in ask:
                        answers += await asyncio.gather(question, return_exceptions=True)
                clock.now += 7_000
            await lane.close()
        finally:
            await database.close()
        with closing(sqlite3.connect(path)) as connection:
            stored = [connection.execute(text).fetchall() for text in EVERYTHING]
        return [_plain(answer) for answer in answers], stored


def _plain(answer):
    return repr(answer) if isinstance(answer, Exception) else answer


@settings(max_examples=40, deadline=None)
@given(rounds=st.lists(st.lists(deeds, max_size=8), max_size=3))
def test_a_batch_equals_its_calls_one_by_one(make, rounds):
    batched = asyncio.run(_run(rounds, make, together=True))
    single = asyncio.run(_run(rounds, make, together=False))
    assert batched == single


@settings(max_examples=25, deadline=None)
@given(rounds=st.lists(st.lists(deeds, max_size=10), max_size=3))
def test_whatever_happens_the_sums_hold(make, rounds):
    async def run():
        with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
            store = await open_store(f"sqlite:///{folder}/x.sqlite", clock=StandingClock(make.NOW_MS))
            try:
                calls_seen = set()
                for deeds_of_round in rounds:
                    ops = [_op(make, *deed) for deed in deeds_of_round]
                    calls_seen |= {op.call_id for op in ops}
                    lane = store._lane
                    ask = [lane.hold(op) if isinstance(op, HoldOp) else lane.carry_out(op) for op in ops]
                    await asyncio.gather(*ask, return_exceptions=True)
                    assert await store.unbalanced() == ([], [])
                await asyncio.gather(*(store.settle(make.settlement(call, 3)) for call in calls_seen))
                keys = [CounterKey("customer", subject, "units", "month", 0) for subject in "ab"]
                # No call is in flight: nothing is held.
                assert [state.held for state in await store.counters(keys)] == [0, 0]
                assert await store.unbalanced() == ([], [])
            finally:
                await store.close()

    asyncio.run(run())


def test_calls_that_wait_at_the_same_moment_share_a_transaction(tmp_path, make):
    class Counted:
        """A database that notes its transactions and flushes."""

        def __init__(self, database):
            self.database = database
            self.noted = []

        def begin(self, work, done, *, lasting):
            self.noted.append("lasting" if lasting else "commit")
            self.database.begin(work, done, lasting=lasting)

    async def run():
        database = await SqliteDatabase.open(tmp_path / "x.sqlite")
        await migrate(database)
        counted = Counted(database)
        lane = Lane(counted, StandingClock(make.NOW_MS).now_ms)
        answers = await asyncio.gather(*(lane.hold(HoldOp(make.order(f"c{n}", make.line()))) for n in range(50)))
        assert all(isinstance(answer, Held) for answer in answers)
        await asyncio.gather(*(lane.carry_out(SettleOp(make.settlement(f"c{n}"))) for n in range(50)))
        await lane.close()
        await database.close()
        return counted.noted

    # The first waits for nobody; after many that came together, many wait for each other. Holds may be lost with the
    # host's power, settles may not.
    assert asyncio.run(run()) == ["commit", "commit", "lasting"]


def test_a_settle_is_answered_only_when_it_cannot_be_lost_and_no_hold_waits_for_that(tmp_path, make):
    class Slow:
        """A database whose disk takes until the test lets it."""

        def __init__(self, database):
            self.database = database
            self.disk = asyncio.Event()
            self.failure = None

        def begin(self, work, done, *, lasting):
            def then(result, failure, safe):
                done(result, failure, None if safe is None else asyncio.ensure_future(self.flush(safe)))

            self.database.begin(work, then, lasting=lasting)

        async def flush(self, safe):
            await safe
            await self.disk.wait()
            if self.failure is not None:
                raise self.failure

    async def run():
        database = await SqliteDatabase.open(tmp_path / "x.sqlite")
        await migrate(database)
        slow = Slow(database)
        lane = Lane(slow, StandingClock(make.NOW_MS).now_ms)
        settle = asyncio.create_task(lane.carry_out(SettleOp(make.settlement("c1"))))
        await asyncio.sleep(0)
        held = [await lane.hold(HoldOp(make.order(f"h{n}", make.line()))) for n in range(3)]
        again = asyncio.create_task(lane.carry_out(SettleOp(make.settlement("c1"))))
        await lane.hold(HoldOp(make.order("h3", make.line())))
        assert all(answer.created for answer in held)
        # Also not who only hears that it was settled before.
        assert not settle.done()
        assert not again.done()
        slow.disk.set()
        assert [(await settle).first, (await again).first] == [True, False]
        slow.failure = fault("the disk is full")
        with pytest.raises(Fault, match="full"):
            await lane.carry_out(SettleOp(make.settlement("c2")))
        await lane.close()
        await database.close()

    asyncio.run(run())


def test_after_a_flush_that_failed_nothing_counts_as_safe_any_more(tmp_path, make):
    async def run():
        store = await open_store(f"sqlite:///{tmp_path}/x.sqlite", clock=StandingClock(make.NOW_MS))
        await store.settle(make.settlement("c1"))
        # A descriptor that cannot be synced, in the place of the log's.
        reading, writing = os.pipe()
        os.dup2(writing, store._database._log)
        for call in ("c2", "c3"):
            with pytest.raises(Fault, match="SQLite"):
                await store.settle(make.settlement(call))
        assert (await store.hold(make.order("c4", make.line()))).output_tokens == 0
        os.close(reading)
        os.close(writing)
        await store.close()

    asyncio.run(run())


def test_a_hold_that_was_renewed_in_the_meantime_is_not_recovered(tmp_path, make):
    async def run():
        database = await SqliteDatabase.open(tmp_path / "x.sqlite")
        await migrate(database)
        lane = Lane(database, StandingClock(make.NOW_MS).now_ms)
        await lane.hold(HoldOp(make.order("c1", make.line())))
        recovered = [
            await lane.carry_out(RecoverOp("c1", make.NOW_MS + after, {})) for after in (29_999, 30_000, 30_000)
        ]
        await lane.close()
        await database.close()
        return recovered

    assert asyncio.run(run()) == [False, True, False]


def test_a_ledger_that_does_not_answer_is_a_fault_and_leaves_nothing_held(tmp_path, make):
    path = tmp_path / "x.sqlite"

    async def run():
        database = await SqliteDatabase.open(path)
        await migrate(database)
        with closing(sqlite3.connect(path, isolation_level=None)) as blocker:
            blocker.execute("BEGIN IMMEDIATE")
            lane = Lane(database, StandingClock(make.NOW_MS).now_ms, patience_s=0.05)
            asked = [lane.hold(HoldOp(make.order("c1", make.line()))), lane.carry_out(SettleOp(make.settlement("c2")))]
            failures = await asyncio.gather(*asked, return_exceptions=True)
            blocker.execute("ROLLBACK")
        assert [str(failure)[:34] for failure in failures] == ["ledger: store: no answer within 0.05"[:34]] * 2
        await lane.close()
        await database.close()
        with closing(sqlite3.connect(path)) as connection:
            asked = ("call_id FROM hold", "call_id FROM usage_record", "SUM(held) FROM counter")
            return [connection.execute(f"SELECT {what}").fetchall() for what in asked]

    # The hold was given up and is undone, the settle is carried out.
    assert asyncio.run(run()) == [[], [("c2",)], [(0,)]]


def test_a_batch_writes_each_row_once(make):
    batch = Batch([HoldOp(make.order(f"c{n}", make.line())) for n in range(9)], Known(), lambda: make.NOW_MS)
    steps = batch.work()
    asked, answer = [], None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration:
            break
        if isinstance(step, Stamp):
            answer = ()
            continue
        parts = step.parts if isinstance(step, AskAll | AskEach) else [step]
        asked += [(part.query, len(part[1])) for part in parts]
        found = {"lock_counters": [(*make.QUOTA, 0, 0)]}
        answer = [found.get(part.query, ()) for part in parts] if isinstance(step, AskEach) else ()
    assert asked == [
        ("ensure_counter", 1),
        ("lock_counters", 1),
        ("add_hold", 9),
        ("set_counter", 1),
    ]


def test_batches_that_wait_for_the_disk_leave_room_for_others(make):
    class Stuck:
        """A database whose commits are never safe before the test says so."""

        def __init__(self):
            self.safe = []

        def begin(self, work, done, *, lasting):
            assert lasting
            steps = work()
            answers, answer = None, ()
            while answers is None:
                try:
                    step = steps.send(None if answer == () else answer)
                    answer = [[] for _ in step.parts] if isinstance(step, AskEach) else []
                except StopIteration as end:
                    answers = end.value
            loop = asyncio.get_running_loop()
            self.safe.append(loop.create_future())
            loop.call_soon(done, answers, None, self.safe[-1])

    async def run():
        stuck = Stuck()
        lane = Lane(stuck, lambda: make.NOW_MS)
        asked = []
        for number in range(9):
            asked.append(asyncio.ensure_future(lane.carry_out(SettleOp(make.settlement(f"c{number}")))))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        assert len(stuck.safe) == UNSAFE_MAX
        assert not any(one.done() for one in asked)
        # The rest goes on as one batch when the first is safe, and nobody is forgotten.
        stuck.safe[0].set_result(None)
        for _ in range(6):
            await asyncio.sleep(0)
        assert len(stuck.safe) == UNSAFE_MAX + 1
        assert [one.done() for one in asked] == [True] + 8 * [False]
        for safe in stuck.safe[1:]:
            safe.set_result(None)
        assert all(settled.first for settled in await asyncio.gather(*asked))
        await lane.close()

    asyncio.run(run())


def test_a_database_that_cannot_even_begin_is_told_to_whoever_waits(make):
    class Broken:
        """One that has no thread any more."""

        def begin(self, work, done, *, lasting):
            raise RuntimeError("can't start new thread")

    async def run():
        lane = Lane(Broken(), lambda: make.NOW_MS)
        ops = [lane.hold(HoldOp(make.order(f"c{number}", make.line()))) for number in range(3)]
        told = await asyncio.gather(*ops, return_exceptions=True)
        assert [isinstance(one, Fault) and "new thread" in str(one) for one in told] == [True] * 3
        await lane.close()

    asyncio.run(run())


def test_a_loop_that_ends_leaves_nobody_waiting_and_begins_nothing(make):
    class Ending:
        """A database whose transactions are cancelled, as tasks are when their loop ends."""

        def __init__(self):
            self.begun = []

        def begin(self, work, done, *, lasting):
            self.begun.append(done)

    async def run():
        ending = Ending()
        lane = Lane(ending, lambda: make.NOW_MS)
        asked = [asyncio.ensure_future(lane.hold(HoldOp(make.order(f"c{n}", make.line())))) for n in range(3)]
        await asyncio.sleep(0)
        (done,) = ending.begun
        done(None, asyncio.CancelledError(), None)
        told = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(one).endswith("the store was stopped") for one in told] == [True] * 3
        assert ending.begun == [done]
        await lane.close()

    asyncio.run(run())


def test_a_flusher_that_cannot_start_fails_one_settle_and_not_the_next(tmp_path, make, monkeypatch):
    def refuses(_):
        raise RuntimeError("can't start new thread")

    async def run():
        store = await open_store(f"sqlite:///{tmp_path}/x.sqlite", clock=StandingClock(make.NOW_MS))
        assert (await store.hold(make.order("c1", make.line()))).output_tokens == 0
        # A flusher that was never asked before.
        store._database._flusher = Worker("another")
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuses)
            with pytest.raises(Fault, match="new thread"):
                await store.settle(make.settlement("c1"))
        assert not (await store.settle(make.settlement("c1"))).first
        assert (await store.settle(make.settlement("c2"))).first
        await store.close()

    asyncio.run(run())


def test_a_flush_that_was_asked_for_while_another_failed_fails_too(tmp_path, make):
    async def run():
        store = await open_store(f"sqlite:///{tmp_path}/x.sqlite", clock=StandingClock(make.NOW_MS))
        await store.settle(make.settlement("c1"))
        # Its own fdatasync would succeed, though the system may have dropped what the first could not write.
        store._database._lost = OSError("no space")
        with pytest.raises(OSError, match="no space"):
            await store._database._flusher.run(store._database._sync)
        await store.close()

    asyncio.run(run())
