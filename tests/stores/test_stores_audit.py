"""Looking back: nothing is written, every record tells where it stood, and pages miss and repeat nothing."""

import asyncio

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault
from gatekeeper.ports import Customer
from gatekeeper.stores import open_reader


def reading(url, body):
    async def run():
        store = await open_reader(url, clock=SystemClock())
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(run())


@pytest.fixture
def three(with_store, make):
    """Three calls of 1, 2 and 3 units, held and settled in this order."""

    async def body(store):
        for units in (1, 2, 3):
            await store.hold(make.order(f"c{units}", make.line()))
            await store.settle(make.settlement(f"c{units}", units * make.MICRO, started_ms=make.NOW_MS + units))
        await store.hold(make.order("open", make.line()))

    with_store(body)


def test_a_reader_cannot_write(three, store_url, make):
    async def body(store):
        for write in (
            store.create_customer(Customer("eve", "Eve", "free", 1, 1)),
            store.hold(make.order("c9", make.line())),
            store.settle(make.settlement("open")),
        ):
            with pytest.raises(Fault, match="read"):
                await write
        return await store.entries("c9"), (await store.holding("open")).state

    assert reading(store_url, body) == ([], "open")


def test_a_record_tells_how_its_counters_stood(three, store_url, make):
    async def body(store):
        ((entry,), (later,)) = await store.entries("c1"), await store.entries("c3")
        return [(line.key, line.limit, line.before, line.taken, line.used) for line in (*entry.counted, *later.counted)]

    assert reading(store_url, body) == [
        (make.QUOTA, "quota", 0, 1_000_000, 1_000_000),
        (make.QUOTA, "quota", 3_000_000, 3_000_000, 6_000_000),
    ]


def test_records_of_before_positions_were_noted_are_read(three, store_url, sql):
    sql(store_url, """UPDATE usage_record SET lines = '[["customer","acme","units","month",0,"quota",5]]'""")

    async def body(store):
        ((entry,),) = (await store.entries("c1"),)
        return [(line.before, line.taken, line.used) for line in entry.counted]

    assert reading(store_url, body) == [(None, 5, None)]


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_pages_of_history_miss_and_repeat_nothing(three, with_store, store_url, make, limit):
    async def same_instant(store):
        for name in ("b", "a", "d"):
            await store.settle(make.settlement(name, started_ms=make.NOW_MS + 2))
        await store.settle(make.settlement("other", customer_id="bob"))

    with_store(same_instant)

    async def body(store):
        found, after = [], None
        while page := await store.history("acme", make.NOW_MS, make.NOW_MS + 3, after=after, limit=limit):
            assert len(page) <= limit
            found += [entry.record.call_id for entry in page]
            after = page[-1].record.started_ms, page[-1].record.call_id
        users, user = [], ""
        while (one := await store.next_user(user)) is not None:
            user = one[0]
            users.append(one)
        return found, users, await store.plans_used(0, 2**62), await store.plans_used(0, 1)

    assert reading(store_url, body) == (["c1", "a", "b", "c2", "d"], [("acme", 0), ("bob", 0)], ["pro"], [])


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_pages_of_the_latest_records_miss_and_repeat_nothing(three, with_store, store_url, make, limit):
    async def same_instant(store):
        for name in ("b", "a", "d"):
            await store.settle(make.settlement(name, started_ms=make.NOW_MS + 2))
        await store.settle(make.settlement("other", customer_id="bob", started_ms=make.NOW_MS + 2))

    with_store(same_instant)

    async def body(store):
        found, before = [], (2**62, "")
        while page := await store.latest(before, limit=limit):
            assert len(page) <= limit
            found += page
            before = page[-1].record.started_ms, page[-1].record.call_id
        return [entry.record.call_id for entry in found], [len(entry.counted) for entry in found]

    names, counted = reading(store_url, body)
    assert names == ["c3", "other", "d", "c2", "b", "a", "c1"]
    assert counted[0] == counted[3] == counted[6] == 1


def test_a_sum_without_its_counter_is_unbalanced(three, with_store, store_url, sql, make):
    sql(store_url, "DELETE FROM counter")

    async def body(store):
        return await store.unbalanced()

    assert with_store(body) == ([make.QUOTA], [])
