"""A hold that grows while its stream runs: never past a cap, given back whole, kept alive. On both databases.

In any order with everything else that happens to a call: see tests/simulation.
"""

import asyncio
import sqlite3

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault
from gatekeeper.ports import Extension
from gatekeeper.rules.limits import ONE_REQUEST, Denied, Granted, Mode, Reason
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
        assert [type(answer).__name__ for answer in answers] == ["Rejected", "Granted", "Rejected", "Denied"]
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
