"""A hold that stands open beside its record, as a crash of Postgres could leave one: released, and none is made."""

import asyncio
from contextlib import asynccontextmanager

import asyncpg
import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.ports import Progress
from gatekeeper.rules.limits import BucketKey, CounterKey
from gatekeeper.stores import open_store
from gatekeeper.tallies import Tallies

EVERYBODY = CounterKey("global", "*", "units", "month", 0)
# It drains too slowly to be seen.
BUCKET = BucketKey("key", "k1", "units", 10**15)


async def figures(store, *keys):
    return [(state.used, state.held) for state in await store.counters(keys)]


@pytest.fixture
def haunt(sql, store_url, make):
    """``await haunt(store, call_id)``: the call is settled, and its hold of 2 units on the quota stands open again."""

    async def run(store, call_id, **changes):
        line = make.line(fixed=2 * make.MICRO)
        await store.hold(make.order(call_id, line, rates=(make.rate(key=BUCKET),), **changes))
        keep = "CREATE TABLE kept AS SELECT * FROM hold WHERE call_id = '{}'"
        await asyncio.to_thread(sql, store_url, keep.format(call_id))
        assert (await store.settle(make.settlement(call_id, make.MICRO, plan=make.plan()))).first
        held = f"UPDATE counter SET held = held + {2 * make.MICRO} WHERE scope = 'customer' AND dimension = 'units'"
        await asyncio.to_thread(sql, store_url, "INSERT INTO hold SELECT * FROM kept", held, "DROP TABLE kept")

    return run


async def restarted(store_url):
    return await open_store(store_url, clock=SystemClock())


def test_an_expired_hold_beside_its_record_is_released_and_disturbs_no_other(with_store, make, haunt, sql, store_url):
    async def body(store):
        await haunt(store, "ghost", expires_ms=make.NOW_MS)
        for number in range(3):
            await store.hold(make.order(f"c{number}", make.line(key=EVERYBODY)))
        tallies = Tallies()
        store.count_in(tallies)
        assert await store.recover(make.NOW_MS + 30_000, {"pro": make.plan()}) == 4
        # The first and then the others: nothing broke, so none of them was tried alone.
        assert (sum(tallies.batch_sizes.counts), tallies.batch_sizes.total) == (2, 4)
        assert await figures(store, make.QUOTA, EVERYBODY) == [(make.MICRO, 0), (0, 0)]
        # What its rate was charged was put right by the settle.
        assert [bucket.spent for bucket in await store.buckets([(BUCKET, 100 * make.MICRO)])] == [make.MICRO]
        assert await store.recover(make.NOW_MS + 30_000, {}) == 0
        assert await store.unbalanced() == ([], [])
        found = await store.record("ghost")
        assert (found.units_micro, found.note) == (make.MICRO, None)
        # The truth again, late: it was counted.
        assert not (await store.settle(make.settlement("ghost", 5 * make.MICRO))).first
        assert await figures(store, make.QUOTA) == [(make.MICRO, 0)]

    with_store(body)
    assert sql(store_url, "SELECT COUNT(*), SUM(units_micro) FROM usage_record WHERE call_id = 'ghost'") == [
        (1, 1_000_000)
    ]
    assert sql(store_url, "SELECT COUNT(*) FROM usage_record WHERE note = 'recovered'") == [(3,)]
    assert sql(store_url, "SELECT call_id FROM hold WHERE state = 'open'") == []
    assert sql(store_url, "SELECT COUNT(*) FROM owed") == [(1,)]


def test_a_settle_beside_an_open_hold_and_a_record_counts_nothing_and_releases_it(with_store, make, haunt, store_url):
    async def body(store):
        await haunt(store, "ghost")
        await store.hold(make.order("c1", make.line(key=EVERYBODY)))
        late = make.settlement("ghost", 5 * make.MICRO, plan=make.plan())
        found = await asyncio.gather(store.settle(late), store.settle(make.settlement("c1")))
        assert [one.first for one in found] == [False, True]
        assert found[0].record.units_micro == make.MICRO
        assert await figures(store, make.QUOTA, EVERYBODY) == [(make.MICRO, 0), (make.MICRO, 0)]
        assert await store.unbalanced() == ([], [])

    with_store(body)


@asynccontextmanager
async def blocked(url, key):
    """The counter is locked by somebody else while the body runs; ``until(n)`` waits for n connections that wait."""

    async def until(count):
        async with asyncio.timeout(10):
            while await watcher.fetchval(waiting) < count:
                pass

    waiting = (
        "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND wait_event_type = 'Lock' AND application_name = 'gatekeeper'"
    )
    owner, watcher = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        async with owner.transaction():
            await owner.execute(
                "SELECT 1 FROM counter WHERE scope = $1 AND dimension = 'units' FOR UPDATE", str(key.scope)
            )
            yield until
    finally:
        await owner.close()
        await watcher.close()


@pytest.mark.parametrize("first", ["sign of life", "settle"])
def test_a_sign_of_life_and_a_settle_elsewhere_at_once_leave_no_hold_beside_the_record(postgres_url, make, sql, first):
    """Both have seen that the hold is lost before either has its locks."""

    async def run():
        store, other = await restarted(postgres_url), await restarted(postgres_url)
        try:
            line = make.line(fixed=2 * make.MICRO)
            await store.hold(make.order("c1", line))
            await asyncio.to_thread(sql, postgres_url, "DELETE FROM hold", "UPDATE counter SET held = 0")
            now_ms = make.NOW_MS + 60_000
            asked = [
                lambda: store.renew([Progress("c1", 1, True)], now_ms),
                lambda: other.settle(make.settlement("c1", plan=make.plan())),
            ]
            if first == "settle":
                asked.reverse()
            tasks = []
            async with blocked(postgres_url, make.QUOTA) as until:
                for number, ask in enumerate(asked, start=1):
                    tasks.append(asyncio.ensure_future(ask()))
                    await until(number)
            found = await asyncio.gather(*tasks)
            gone, settled = found if first == "sign of life" else found[::-1]
            assert settled.first
            assert gone == ([] if first == "sign of life" else ["c1"])
            assert await figures(store, make.QUOTA) == [(make.MICRO, 0)]
            assert await asyncio.to_thread(sql, postgres_url, "SELECT state FROM hold") == []
            assert await store.unbalanced() == ([], [])
        finally:
            await store.close()
            await other.close()

    asyncio.run(run())


def test_a_settle_on_other_limits_than_the_lost_hold_is_seen_by_its_sign_of_life(postgres_url, make, sql):
    """They share no counter whose lock would put them in order."""

    async def run():
        store, other = await restarted(postgres_url), await restarted(postgres_url)
        try:
            await store.hold(make.order("c1", make.line(fixed=2 * make.MICRO)))
            await asyncio.to_thread(sql, postgres_url, "DELETE FROM hold", "UPDATE counter SET held = 0")
            async with blocked(postgres_url, make.QUOTA) as until:
                sign = asyncio.ensure_future(store.renew([Progress("c1", 1, True)], make.NOW_MS + 60_000))
                await until(1)
                settling = asyncio.ensure_future(other.settle(make.settlement("c1")))
                done, _ = await asyncio.wait([settling], timeout=0.5)
            gone, settled = await asyncio.gather(sign, settling)
            assert (gone, settled.first) == ([], True)
            assert not done, "the settle waits for the sign of life"
            assert await figures(store, make.QUOTA) == [(make.MICRO, 0)]
            assert await asyncio.to_thread(sql, postgres_url, "SELECT state FROM hold") == []
        finally:
            await store.close()
            await other.close()

    asyncio.run(run())


def test_as_many_broken_holds_as_are_recovered_at_once_do_not_keep_the_others(
    with_store, make, refuse, store_url, caplog
):
    async def body(store):
        for number in range(6):
            await store.hold(make.order(f"c{number}", make.line(), expires_ms=make.NOW_MS + number))
        refuse(store_url, "usage_record", "NEW.call_id IN ('c0', 'c1', 'c2')")
        # The broken ones are the oldest: they come first each time.
        assert await store.recover(make.NOW_MS + 10, {}, limit=2) == 2
        assert await store.recover(make.NOW_MS + 10, {}, limit=2) == 1
        assert "c2" in caplog.text
        assert await store.recover(make.NOW_MS + 10, {}, limit=2) == 0
        assert await figures(store, make.QUOTA) == [(0, 3 * make.MICRO)]

    with_store(body)


def test_a_hold_whose_lines_cannot_be_read_is_told_and_keeps_no_other(with_store, make, sql, store_url, caplog):
    async def body(store):
        for number in range(4):
            await store.hold(make.order(f"c{number}", make.line(), expires_ms=make.NOW_MS + number))
        await asyncio.to_thread(sql, store_url, "UPDATE hold SET lines = '[[' WHERE call_id = 'c0'")
        assert await store.recover(make.NOW_MS + 10, {}) == 3
        assert "c0" in caplog.text
        assert await figures(store, make.QUOTA) == [(0, make.MICRO)]

    with_store(body)
