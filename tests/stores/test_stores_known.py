"""What a lane remembers of its last batch decides only while nobody can have changed it."""

import asyncio
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.clock import SystemClock
from gatekeeper.ports import Extension, Progress
from gatekeeper.rules.limits import CounterRow, Denied, Granted
from gatekeeper.stores import open_store
from gatekeeper.stores.batch import Batch
from gatekeeper.stores.database import AskAll, AskEach, Stamp
from gatekeeper.stores.known import Known
from gatekeeper.stores.lane import Lane
from gatekeeper.stores.migrate import migrate
from gatekeeper.stores.ops import HoldOp, SettleOp
from gatekeeper.stores.sqlite import SqliteDatabase

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
TABLES = ("counter", "bucket", "hold", "usage_record", "owed")


def carried_out(batch, stamps, rows):
    """What a batch asks of a database that answers with these stamps in turn, and with ``rows`` by query."""
    asked, steps, answer = [], batch.work(), None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration as end:
            batch.remembered()
            return asked, end.value
        if isinstance(step, Stamp):
            answer = stamps.pop(0)
            continue
        parts = step.parts if isinstance(step, AskAll | AskEach) else [step]
        asked += [part.query for part in parts]
        found = [rows.get(part.query, ()) for part in parts]
        answer = found if isinstance(step, AskEach) else found[0]


@pytest.mark.parametrize(
    ("stamp", "again"),
    [([(1, 8)], False), ([(1, 9)], True), ([(2, 8)], True), ((), True)],
    ids=["nothing happened", "this process wrote", "another one wrote", "a database that cannot tell"],
)
def test_rows_are_read_again_when_anybody_may_have_written(make, stamp, again):
    known, rows = Known(), {"lock_counters": [(*make.QUOTA, 5, 0)], "lock_buckets": [(*make.BUCKET, 7, 1, None)]}
    first = HoldOp(make.order("a", make.line(), rates=(make.rate(),)))
    asked, _ = carried_out(Batch([first], known, lambda: 1), [[(1, 5)], [(1, 8)]], rows)
    assert asked[:2] == ["ensure_counter", "ensure_bucket"]
    rows["lock_holds"] = [known.hold_rows["a"]]
    rows["lock_counters"] = [(*make.QUOTA, 6, make.MICRO)]
    second = Batch([SettleOp(make.settlement("a"))], known, lambda: 1)
    asked, _ = carried_out(second, [stamp, [(1, 12)]], rows)
    assert ("lock_holds" in asked, "lock_counters" in asked, "lock_buckets" in asked) == (again, again, again)
    assert known.counter_rows[make.QUOTA] == CounterRow((6 if again else 5) + make.MICRO, 0)


def test_a_database_without_stamps_is_never_taken_at_its_word(make):
    known = Known()
    rows = {"lock_counters": [(*make.QUOTA, 5, 0)], "lock_buckets": [(*make.BUCKET, 7, 1, None)]}
    carried_out(Batch([HoldOp(make.order("a", make.line(), rates=(make.rate(),)))], known, lambda: 1), [(), ()], rows)
    assert (known.counters, known.buckets) == ({make.QUOTA}, {make.BUCKET})
    assert (known.counter_rows, known.bucket_rows, known.hold_rows) == ({}, {}, {})


def test_a_batch_that_was_not_committed_is_not_remembered(make):
    known, rows = Known(), {"lock_counters": [(*make.QUOTA, 5, 0)]}
    first = Batch([HoldOp(make.order("a", make.line()))], known, lambda: 1)
    carried_out(first, [[(1, 5)], [(1, 8)]], rows)
    # The figures are changed where they are kept; that the stamp was undone together with the rest may be.
    steps = Batch([HoldOp(make.order("b", make.line()))], known, lambda: 1).work()
    assert isinstance(next(steps), Stamp)
    assert isinstance(steps.send([(1, 8)]), AskAll)
    assert known.counter_rows[make.QUOTA].held == 2 * make.MICRO
    steps.close()
    asked, _ = carried_out(Batch([HoldOp(make.order("c", make.line()))], known, lambda: 1), [[(1, 8)], [(1, 9)]], rows)
    assert "lock_counters" in asked
    assert known.counter_rows[make.QUOTA] == CounterRow(5, make.MICRO)


def test_what_is_written_behind_our_back_decides(tmp_path, make):
    async def run():
        path = tmp_path / "x.sqlite"
        store = await open_store(f"sqlite:///{path}", clock=SystemClock())
        answers = [await store.hold(make.order("a", make.line(cap=3 * make.MICRO)))]
        with closing(sqlite3.connect(path)) as shell, shell:
            shell.execute("UPDATE counter SET used = 2500000")
        answers.append(await store.hold(make.order("b", make.line(cap=3 * make.MICRO))))
        with closing(sqlite3.connect(path)) as shell, shell:
            shell.execute("UPDATE hold SET state = 'recovered'")
        answers.append(await store.extend(Extension("a", 1, 1, 0, True, make.NOW_MS + 9, make.NOW_MS)))
        await store.close()
        return answers

    first, second, third = asyncio.run(run())
    assert isinstance(first, Granted)
    assert isinstance(second, Denied)
    assert third is None


def test_a_renewal_between_two_batches_is_not_lost(tmp_path, make):
    async def run():
        store = await open_store(f"sqlite:///{tmp_path / 'x.sqlite'}", clock=SystemClock())
        await store.hold(make.order("a", make.line()))
        await store.renew([Progress("a", 700_000, True)], make.NOW_MS + 60_000)
        # The sweeper sees the new time, and then the progress.
        early = await store.recover(make.NOW_MS + 40_000, {})
        late = await store.recover(make.NOW_MS + 60_000, {})
        record = await store.record("a")
        await store.close()
        return early, late, record.units_micro

    assert asyncio.run(run()) == (0, 1, 700_000)


calls = st.integers(0, 3)
deeds = st.tuples(st.sampled_from("hhse"), calls, st.integers(0, 30))
rounds_of_two = st.lists(st.tuples(st.sampled_from([0, 1, "renew"]), st.lists(deeds, max_size=5)), max_size=5)


@settings(max_examples=40, deadline=None)
@given(rounds=rounds_of_two)
def test_two_lanes_that_remember_do_as_one_that_forgets(make, rounds):
    assert asyncio.run(_run(rounds, make, remember=True)) == asyncio.run(_run(rounds, make, remember=False))


async def _run(rounds, make, *, remember):
    """The answers of two lanes that take turns, or of one that reads everything each time, and all that is stored."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        path = Path(folder) / "x.sqlite"
        store = await open_store(f"sqlite:///{path}", clock=SystemClock())
        other = await SqliteDatabase.open(path)
        await migrate(other)
        lanes = [Lane(each, lambda: make.NOW_MS) for each in (store._database, other)]
        answers = []
        for who, round_ in rounds:
            if who == "renew":
                signs = [Progress(f"c{call}", units, True) for _, call, units in round_]
                answers.append(sorted(await store.renew(signs, make.NOW_MS + 50_000)))
                continue
            lane = lanes[who] if remember else lanes[0]
            ops = [_op(make, *deed) for deed in round_]
            if remember:
                ask = [lane.hold(op) if isinstance(op, HoldOp) else lane.carry_out(op) for op in ops]
                answers += await asyncio.gather(*ask, return_exceptions=True)
                continue
            for op in ops:
                lane._known.forget()
                ask = lane.hold(op) if isinstance(op, HoldOp) else lane.carry_out(op)
                answers += await asyncio.gather(ask, return_exceptions=True)
        for lane in lanes:
            await lane.close()
        await other.close()
        await store.close()
        with closing(sqlite3.connect(path)) as shell:
            stored = [shell.execute(f"SELECT * FROM {table} ORDER BY 1, 2").fetchall() for table in TABLES]
        return [str(answer) for answer in answers], stored


def _op(make, deed, call, units):
    call_id = f"c{call}"
    if deed == "s":
        return SettleOp(make.settlement(call_id, units * make.MICRO, plan=make.plan(cap=20 * make.MICRO)))
    per = make.line(cap=40 * make.MICRO, fixed=units * make.MICRO, per_output=int(deed == "e"))
    return HoldOp(make.order(call_id, per, rates=(make.rate(amount=units * make.MICRO),), output_tokens=units))
