"""Callers that go away, ledgers that break: nobody waits for ever, nothing stays held, no settle is lost."""

import asyncio
import sqlite3
from pathlib import Path

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.rules.limits import Denied, Granted
from gatekeeper.stores import open_store
from gatekeeper.stores.database import Rejected
from gatekeeper.stores.lane import Lane
from gatekeeper.stores.migrate import migrate
from gatekeeper.stores.ops import SettleOp
from gatekeeper.stores.sqlite import SqliteDatabase


async def _figures(store, make):
    (quota,) = await store.counters([make.QUOTA])
    return quota.used, quota.held


def test_a_cancelled_hold_leaves_nothing_held_whenever_it_is_cancelled(with_store, make):
    async def body(store):
        held = 0
        for turns in range(16):
            task = asyncio.create_task(store.hold(make.order(f"c{turns}", make.line())))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            # In the queue behind whatever is still to be undone.
            await store.settle(make.settlement(f"other-{turns}", 0))
            # On a quick machine the last cancellations come too late: then the caller has its hold.
            held += 0 if task.cancelled() else make.MICRO
            assert await _figures(store, make) == (0, held), turns

    with_store(body)


def test_a_hold_that_is_cancelled_after_its_commit_is_released(with_store, make):
    async def body(store):
        tasks = [asyncio.create_task(store.hold(make.order(f"c{n}", make.line()))) for n in range(50)]
        await tasks[0]
        # All were one batch: the others have their answers and did not take them yet, or have.
        for task in tasks[1:]:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        left = [task for task in tasks if not task.cancelled()]
        await store.hold(make.order("last", make.line()))
        assert await _figures(store, make) == (0, (len(left) + 1) * make.MICRO)
        assert await store.unbalanced() == ([], [])

    with_store(body)


def test_asking_again_and_going_away_does_not_undo_the_first_hold(with_store, make):
    async def body(store):
        order = make.order("c1", make.line())
        assert isinstance(await store.hold(order), Granted)
        for turns in range(16):
            again = asyncio.create_task(store.hold(order))
            for _ in range(turns):
                await asyncio.sleep(0)
            again.cancel()
            await asyncio.gather(again, return_exceptions=True)
            await store.settle(make.settlement(f"other-{turns}", 0))
            assert await _figures(store, make) == (0, make.MICRO), turns

    with_store(body)


def test_a_settle_is_carried_out_though_its_caller_is_cancelled(with_store, make):
    async def body(store):
        for turns in range(1, 5):
            await store.hold(make.order(f"c{turns}", make.line()))
            task = asyncio.create_task(store.settle(make.settlement(f"c{turns}")))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not (await store.settle(make.settlement(f"c{turns}"))).first
            assert await _figures(store, make) == (turns * make.MICRO, 0)

    with_store(body)


def test_closing_waits_for_what_is_queued_and_takes_nothing_new(store_url, make):
    async def run():
        store = await open_store(store_url, clock=SystemClock())
        holds = [asyncio.create_task(store.hold(make.order(f"c{n}", make.line()))) for n in range(20)]
        await asyncio.sleep(0)
        await store.close()
        assert all(isinstance(found, Granted) for found in await asyncio.gather(*holds))
        with pytest.raises(Fault, match="closed"):
            await store.hold(make.order("late", make.line()))
        with pytest.raises(Fault, match="closed"):
            await store.ping()
        await store.close()

    asyncio.run(run())


def test_a_batch_that_the_database_refuses_is_tried_call_by_call(with_store, make, sql, store_url, refuse):
    async def body(store):
        refuse(store_url, "hold", "NEW.call_id = 'c3'")
        orders = [make.order(f"c{n}", make.line()) for n in range(6)]
        answers = await asyncio.gather(*(store.hold(order) for order in orders), return_exceptions=True)
        assert [type(found) for found in answers] == [Granted, Granted, Granted, Rejected] + [Granted] * 2
        assert (answers[3].world, answers[3].kind) == ("ledger", FaultKind.STORE)
        assert answers[3].__cause__ is not None
        assert await _figures(store, make) == (0, 5 * make.MICRO)

    with_store(body)


def test_no_admission_passes_a_cap_says_the_database_itself(with_store, make, store_url, refuse):
    async def body(store):
        refuse(store_url, "counter", f"NEW.used + NEW.held > {7 * make.MICRO} AND NEW.held > OLD.held", when="UPDATE")
        answers = []
        for start in range(0, 60, 20):
            orders = [
                make.order(
                    f"c{n}",
                    make.line(cap=7 * make.MICRO, fixed=make.MICRO // 3, per_output=make.MICRO // 7),
                    output_tokens=n % 5,
                    output_tokens_min=0,
                )
                for n in range(start, start + 20)
            ]
            found = await asyncio.gather(*(store.hold(order) for order in orders))
            answers += found
            done = [order for order, verdict in zip(orders, found, strict=True) if isinstance(verdict, Granted)]
            await asyncio.gather(*(store.settle(make.settlement(order.call_id, 100_000)) for order in done))
        assert {type(found) for found in answers} == {Granted, Denied}
        assert await store.unbalanced() == ([], [])

    with_store(body)


def test_a_ledger_that_cannot_write_says_so_to_every_waiter(tmp_path, make):
    path = tmp_path / "gatekeeper.sqlite"

    async def run():
        store = await open_store(f"sqlite:///{path}", clock=SystemClock())
        with sqlite3.connect(path) as connection:
            connection.execute("DROP TABLE owed")
        connection.close()
        calls = [store.settle(make.settlement(f"c{n}", plan=make.plan())) for n in range(5)]
        failures = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(failure, Fault) for failure in failures)
        assert all(isinstance(failure.__cause__, sqlite3.Error) for failure in failures)
        await store.close()

    asyncio.run(run())


def test_a_postgres_that_drops_every_connection_is_found_again(postgres_url, make, postgres_execute):
    async def run():
        store = await open_store(postgres_url, clock=SystemClock())
        await store.hold(make.order("c1", make.line()))
        # Ends the pool's connections, not its own.
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gatekeeper'"
        await asyncio.to_thread(postgres_execute, postgres_url, kill)
        assert (await store.settle(make.settlement("c1"))).first
        await store.close()

    asyncio.run(run())


def test_a_place_where_no_database_can_be_is_a_fault(tmp_path):
    async def opened(url):
        await (await open_store(url, clock=SystemClock())).close()

    (tmp_path / "text").write_text("this is no database, and it is long enough to be read as one" * 100)
    for url in (
        f"sqlite:///{tmp_path}/no/such/folder/x.sqlite",
        f"sqlite:///{tmp_path}/text",
        f"postgresql://user:hunter2@/x?host={tmp_path}",
    ):
        with pytest.raises(Fault, match="ledger") as failure:
            asyncio.run(opened(url))
        assert "hunter2" not in str(failure.value)
    for url in ("sqlite:///:memory:", "sqlite:///", "mysql://x"):
        with pytest.raises(ValueError, match="sqlite:///"):
            asyncio.run(opened(url))


def test_a_refund_after_a_cancelled_hold_leaves_the_rate_as_it_was(with_store, make):
    async def body(store):
        held = 0
        for turns in range(1, 12, 3):
            order = make.order(f"c{turns}", rates=(make.rate(cap=1_000 * make.MICRO),))
            task = asyncio.create_task(store.hold(order))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            held += not task.cancelled()
        await store.settle(make.settlement("other", 0))
        (bucket,) = await store.buckets([(make.BUCKET, 1)])
        # It drains by less than one call while the test runs.
        assert (held - 1) * make.MICRO < bucket.spent <= held * make.MICRO

    with_store(body)


def test_the_log_of_sqlite_starts_anew_though_commits_never_stop(tmp_path, make):
    async def run():
        database = await SqliteDatabase.open(tmp_path / "x", checkpoint_commits=2, log_frames_max=50)
        await migrate(database)
        lane = Lane(database, SystemClock().now_ms)
        for number in range(150):
            await lane.carry_out(SettleOp(make.settlement(f"c{number}")))
        frames = (tmp_path / "x-wal").stat().st_size // 4_096
        await lane.close()
        await database.close()
        return frames

    # 150 commits change some 1,500 pages.
    assert asyncio.run(run()) < 500


def test_a_report_does_not_wait_for_the_writer(tmp_path, make):
    path = tmp_path / "gatekeeper.sqlite"

    async def run():
        store = await open_store(f"sqlite:///{path}", clock=SystemClock())
        await store.settle(make.settlement("c1"))
        blocker = sqlite3.connect(path, isolation_level=None)
        blocker.execute("BEGIN IMMEDIATE")
        hold = asyncio.create_task(store.hold(make.order("c2", make.line())))
        assert (await store.usage_total(0, 2**50)).requests == 1
        assert await store.holder("none") is None
        assert not hold.done()
        # A hold that had begun to read before this would have to be refused now.
        blocker.execute("UPDATE usage_record SET note = 'changed by somebody else'")
        blocker.execute("COMMIT")
        blocker.close()
        assert isinstance(await hold, Granted)
        await store.close()

    asyncio.run(run())
    # The last connection that closes copies the whole log.
    assert not Path(f"{path}-wal").exists()
