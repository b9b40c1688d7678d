"""Holds that a crash of Postgres took with it (their commits wait for no disk): held again, or counted anyway."""

import asyncio

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault
from gatekeeper.ports import Extension, Progress
from gatekeeper.rules.limits import CounterKey, Denied, Granted
from gatekeeper.stores import open_store
from gatekeeper.stores.database import fault

EVERYBODY = CounterKey("global", "*", "units", "month", 0)


@pytest.fixture
def crash(sql, store_url):
    """As if the last commits had never been: what was held is gone, and maybe the rows that it stood on."""

    def run(*, rows: bool = False) -> None:
        gone = "DELETE FROM counter" if rows else "UPDATE counter SET held = 0"
        sql(store_url, "DELETE FROM hold", gone)

    return run


async def figures(store, make):
    return [(state.used, state.held) for state in await store.counters([make.QUOTA, EVERYBODY])]


def ordered(make, call_id="c1"):
    """A call on its plan's quota and on a limit of everybody's; 2 units held on each."""
    lines = [make.line(fixed=2 * make.MICRO), make.line(fixed=2 * make.MICRO, key=EVERYBODY)]
    return make.order(call_id, *lines, rates=(make.rate(),))


@pytest.mark.parametrize("rows", [False, True])
def test_a_lost_hold_is_settled_on_every_limit_that_it_stood_on(with_store, make, crash, rows):
    async def body(store):
        await store.hold(ordered(make))
        await asyncio.to_thread(crash, rows=rows)
        # Not only on the limits of the plan.
        assert (await store.settle(make.settlement("c1", plan=make.plan()))).first
        assert not (await store.settle(make.settlement("c1", plan=make.plan()))).first
        assert await figures(store, make) == [(make.MICRO, 0)] * 2
        assert await store.unbalanced() == ([], [])

    with_store(body)


class Crashing:
    """A database of which one commit is lost before the disk has it, and its hold as well."""

    def __init__(self, database, lose):
        self._database, self._lose = database, lose

    def begin(self, work, done, *, lasting):
        def then(result, failure, safe):
            done(result, failure, None if safe is None else asyncio.ensure_future(self._lost(safe)))

        self._database.begin(work, then, lasting=lasting)

    async def _lost(self, safe):
        await safe
        if self._lose is not None:
            lose, self._lose = self._lose, None
            await asyncio.to_thread(lose)
            raise fault("the server is gone")


def test_a_settle_that_is_lost_with_its_hold_is_told_again_and_counts_where_it_was_held(
    with_store, make, sql, store_url
):
    def lose():
        gone = (
            "DELETE FROM hold",
            "DELETE FROM usage_record",
            "DELETE FROM owed",
            "UPDATE counter SET used = 0, held = 0",
        )
        sql(store_url, *gone)

    async def body(store):
        await store.hold(ordered(make))
        store._lane._database = Crashing(store._lane._database, lose)
        with pytest.raises(Fault, match="gone"):
            await store.settle(make.settlement("c1", plan=make.plan()))
        # Not only on the limits of the plan.
        assert (await store.settle(make.settlement("c1", plan=make.plan()))).first
        assert not (await store.settle(make.settlement("c1", plan=make.plan()))).first
        assert await figures(store, make) == [(make.MICRO, 0)] * 2
        assert await store.unbalanced() == ([], [])

    with_store(body)


@pytest.mark.parametrize("rows", [False, True])
def test_a_sign_of_life_holds_again_what_was_lost(with_store, make, crash, rows):
    async def body(store):
        await store.hold(ordered(make))
        await asyncio.to_thread(crash, rows=rows)
        sign = Progress("c1", 500, True)
        assert await store.renew([sign, Progress("unknown", 1, True)], make.NOW_MS + 60_000) == ["unknown"]
        assert await figures(store, make) == [(0, 2 * make.MICRO)] * 2
        assert await store.unbalanced() == ([], [])
        assert await store.renew([sign], make.NOW_MS + 60_000) == []
        assert await figures(store, make) == [(0, 2 * make.MICRO)] * 2
        # Nobody takes it for dead before its time, and its progress is known.
        assert await store.recover(make.NOW_MS + 59_999, {}) == 0
        assert await store.recover(make.NOW_MS + 60_000, {}) == 1
        assert (await store.record("c1")).units_micro == 500

    with_store(body)


def test_an_extension_holds_again_what_was_lost_and_more(with_store, make, crash):
    async def body(store):
        line = make.line(per_output=make.MICRO, key=EVERYBODY)
        await store.hold(make.order("c1", line, output_tokens=10, output_tokens_min=10))
        await asyncio.to_thread(crash)
        more = Extension("c1", 20, 1, 7, True, make.NOW_MS + 40_000, make.NOW_MS)
        assert isinstance(await store.extend(more), Granted)
        assert await figures(store, make) == [(0, 0), (0, 31 * make.MICRO)]
        # There is no room for so much more: denied, and held as before.
        assert isinstance(await store.extend(Extension("c1", 500, 500, 7, True, 0, make.NOW_MS)), Denied)
        assert await figures(store, make) == [(0, 0), (0, 31 * make.MICRO)]
        await store.settle(make.settlement("c1"))
        assert await figures(store, make) == [(0, 0), (make.MICRO, 0)]
        assert await store.unbalanced() == ([], [])

    with_store(body)


def test_an_extension_that_cannot_be_leaves_a_lost_hold_as_it_was(with_store, make, crash):
    async def body(store):
        await store.hold(make.order("c1", make.line(cap=None, per_output=make.MICRO), output_tokens=1))
        await asyncio.to_thread(crash)
        # Figures that are no extension: all or nothing, also of what is held again.
        with pytest.raises(Fault):
            await store.extend(Extension("c1", 1, 2, 0, True, make.NOW_MS, make.NOW_MS))
        assert await figures(store, make) == [(0, 0)] * 2
        assert await store.unbalanced() == ([], [])
        assert await store.renew([Progress("c1", 0, True)], make.NOW_MS + 60_000) == []
        assert await figures(store, make) == [(0, 2 * make.MICRO), (0, 0)]
        assert await store.unbalanced() == ([], [])

    with_store(body)


def test_what_is_over_or_of_another_process_is_not_held_again(with_store, make, crash, store_url):
    async def body(store):
        other = await open_store(store_url, clock=SystemClock())
        try:
            await other.hold(ordered(make, "theirs"))
            await store.hold(ordered(make, "settled elsewhere"))
            await store.hold(ordered(make, "settled"))
            await other.settle(make.settlement("settled elsewhere"))
            await store.settle(make.settlement("settled"))
            await asyncio.to_thread(crash)
            signs = [Progress(name, 1, True) for name in ("theirs", "settled elsewhere", "settled")]
            assert await store.renew(signs, make.NOW_MS + 60_000) == [sign.call_id for sign in signs]
            assert await figures(store, make) == [(2 * make.MICRO, 0)] * 2
            assert await other.renew(signs[:1], make.NOW_MS + 60_000) == []
            assert await figures(other, make) == [(2 * make.MICRO, 2 * make.MICRO)] * 2
            assert await store.unbalanced() == ([], [])
        finally:
            await other.close()

    with_store(body)


def test_the_dollars_of_a_recovered_call_stand_on_its_record(with_store, make):
    async def body(store):
        dollars = CounterKey("global", "*", "dollars", "month", 0)
        await store.hold(make.order("c1", make.line(fixed=100), make.line(fixed=300, key=dollars)))
        await store.renew([Progress("c1", 50, True)], make.NOW_MS + 30_000)
        assert await store.recover(make.NOW_MS + 30_000, {}) == 1
        (budget,) = await store.counters([dollars])
        assert (budget.used, (await store.record("c1")).cost_nano) == (150, 150)
        # The truth comes late: the sums over counters and over records go on being the same.
        late = make.settlement("c1", 60, cost_nano=170)
        late.actual["dollars"] = 170
        assert (await store.settle(late)).first
        (budget,) = await store.counters([dollars])
        assert (budget.used, (await store.usage_total(0, 2**50)).cost_nano) == (170, 170)

    with_store(body)
