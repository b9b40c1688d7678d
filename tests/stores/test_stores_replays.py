"""One response is charged once, whoever settles it, however often and in which process. On both databases."""

import asyncio
from dataclasses import replace

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import Progress
from gatekeeper.rules.limits import ONE_REQUEST, CounterKey
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.stores import open_store

RESPONSE = "resp_68a1b2c3d4e5f60718293a4b5c6d7e8f"
DOLLARS = CounterKey("customer", "acme", "dollars", "month", 1_780_272_000_000)
IMAGES = DOLLARS._replace(dimension="units:images")


def _fetched(make, call_id, units=7, *, response_id=RESPONSE, once=True, plan=None, **changes):
    """A call that was answered with that response."""
    made = make.settlement(call_id, units * make.MICRO, plan=plan, response_id=response_id, cost_nano=900, **changes)
    actual = {**made.actual, "dollars": 900, "units:images": 2 * make.MICRO}
    return replace(made, once_per_response=once, actual=actual)


async def _held(store, make, *call_ids):
    keys = (make.QUOTA, make.REQUESTS, DOLLARS, IMAGES)
    for call_id in call_ids:
        await store.hold(make.order(call_id, *(make.line(cap=None, fixed=9, key=key) for key in keys)))


async def _used(store, make):
    states = await store.counters([make.QUOTA, make.REQUESTS, DOLLARS, IMAGES])
    assert [state.held for state in states] == [0] * 4
    assert await store.unbalanced() == ([], [])
    return [state.used for state in states]


def test_a_response_that_comes_again_costs_nothing_but_a_request(with_store, make):
    async def body(store):
        await _held(store, make, "c1", "c2")
        first = await store.settle(_fetched(make, "c1", meters={"images": "2"}))
        again = await store.settle(_fetched(make, "c2", meters={"images": "2"}, evidence={"usage()": {"total": 7}}))
        assert (first.record.units_micro, first.record.note) == (7 * make.MICRO, None)
        found = again.record
        assert (found.units_micro, found.cost_nano, found.charge_nano, found.source) == (0, 0, 0, Mark.NONE)
        assert (found.note, found.evidence, found.meters) == ("replayed", {"replays": "c1"}, {"images": "0"})
        assert found == await store.record("c2")
        assert await _used(store, make) == [7 * make.MICRO, 2 * ONE_REQUEST, 900, 2 * make.MICRO]
        figures = await store.figures(0, 0)
        problems = (figures.off_counters, figures.unlike_counters, figures.lines, figures.off_customers)
        assert problems == ((0, ()), (0, ()), problems[2], (0, ()))
        assert (problems[2].total, figures.strange_marks.total, figures.strange_figures.total) == (0, 0, 0)

    with_store(body)


def test_who_comes_first_in_a_batch_pays(with_store, make):
    async def body(store):
        await _held(store, make, "c1", "c2", "c3")
        settled = await asyncio.gather(*(store.settle(_fetched(make, call)) for call in ("c3", "c1", "c2")))
        assert [found.record.units_micro for found in settled] == [7 * make.MICRO, 0, 0]
        assert [found.record.evidence.get("replays") for found in settled] == [None, "c3", "c3"]
        assert (await _used(store, make))[:2] == [7 * make.MICRO, 3 * ONE_REQUEST]

    with_store(body)


def test_settling_a_call_again_is_no_replay(with_store, make):
    async def body(store):
        await _held(store, make, "c1", "c2")
        for call, units in (("c1", 7), ("c1", 7), ("c2", 0), ("c2", 0), ("c1", 7)):
            settled = await store.settle(_fetched(make, call))
            assert settled.record.units_micro == units * make.MICRO
        assert (await _used(store, make))[0] == 7 * make.MICRO

    with_store(body)


@pytest.mark.parametrize(
    "changes",
    [
        {"customer_id": "other"},
        {"upstream": "azure"},
        {"response_id": "resp_00a1b2c3d4e5f60718293a4b5c6d7e8f"},
        {"once": False},
    ],
)
def test_another_customer_another_upstream_and_another_response_are_charged(with_store, make, changes):
    async def body(store):
        await store.settle(_fetched(make, "c1"))
        assert (await store.settle(_fetched(make, "c2", **changes))).record.units_micro == 7 * make.MICRO

    with_store(body)


@pytest.mark.parametrize("response_id", ["chatcmpl-123", "chatcmpl-0000000000000000000123", None])
def test_an_id_that_local_servers_repeat_makes_nothing_free(with_store, make, response_id):
    async def body(store):
        found = [await store.settle(_fetched(make, call, response_id=response_id)) for call in ("c1", "c2")]
        assert [one.record.units_micro for one in found] == [7 * make.MICRO] * 2

    with_store(body)


def test_who_was_charged_for_a_part_does_not_pay_for_the_whole(with_store, make):
    async def body(store):
        cut = {"outcome": Outcome.CLIENT_CLOSED, "source": Mark.ESTIMATED}
        assert (await store.settle(_fetched(make, "c1", 2, **cut))).record.units_micro == 2 * make.MICRO
        assert (await store.settle(_fetched(make, "c2"))).record.units_micro == 7 * make.MICRO
        # Once it is paid, a part of it is free, too.
        found = await store.settle(_fetched(make, "c3", 2, **cut))
        assert (found.record.units_micro, found.record.evidence) == (0, {"replays": "c2"})

    with_store(body)


def test_a_call_that_costs_nothing_pays_for_nothing(with_store, make, sql, store_url):
    async def body(store):
        free = replace(make.settlement("c1", 0, response_id=RESPONSE), once_per_response=True)
        assert (await store.settle(free)).record.note is None
        assert (await store.settle(_fetched(make, "c2"))).record.units_micro == 7 * make.MICRO

    with_store(body)
    assert sql(store_url, "SELECT customer_id, upstream, response_id, call_id FROM billed_response") == [
        ("acme", "openai", RESPONSE, "c2")
    ]


@pytest.mark.parametrize("first", ["recovered", "other"])
def test_a_recovered_call_that_settles_late_pays_or_gives_back(with_store, make, sql, store_url, first):
    plan = make.plan(cap=0)

    async def body(store):
        await _held(store, make, "c1")
        await store.renew([Progress("c1", 3 * make.MICRO, True)], make.NOW_MS + 30_000)
        assert await store.recover(make.NOW_MS + 30_000, {"pro": plan}) == 1
        order = ["c1", "c2"] if first == "recovered" else ["c2", "c1"]
        for call in order:
            await store.settle(_fetched(make, call, plan=plan))
            await store.settle(_fetched(make, call, plan=plan))
        late, other = await store.record("c1"), await store.record("c2")
        paid = [7 * make.MICRO, 0] if first == "recovered" else [0, 7 * make.MICRO]
        assert [late.units_micro, other.units_micro] == paid
        assert await store.unbalanced() == ([], [])
        assert (await store.counters([make.QUOTA]))[0].used == 7 * make.MICRO

    with_store(body)
    assert sql(store_url, "SELECT SUM(units_micro) FROM owed") == [(7 * 1_000_000,)]


def test_a_call_that_cannot_be_settled_pays_for_nothing(with_store, make, refuse, sql, store_url):
    async def body(store):
        with pytest.raises(Fault, match="64 bits"):
            await store.settle(_fetched(make, "c1", 2**63))
        assert (await store.settle(_fetched(make, "c2"))).record.units_micro == 7 * make.MICRO
        # Both at once: what fails gives way within its batch.
        other = {"response_id": RESPONSE.replace("68a", "69a")}
        asked = [store.settle(_fetched(make, "c3", 2**63, **other)), store.settle(_fetched(make, "c4", **other))]
        broken, fine = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(broken, Fault)
        assert fine.record.units_micro == 7 * make.MICRO
        assert await store.unbalanced() == ([], [])

    with_store(body)


def test_of_two_stores_that_settle_one_response_at_once_one_charges(store_url, make):
    async def run():
        stores = [await open_store(store_url, clock=SystemClock()) for _ in range(3)]
        responses = [f"resp_{number:03}a1b2c3d4e5f60718293a4b" for number in range(20)]
        try:
            asked = [
                # In other orders, as other processes have them.
                store.settle(_fetched(make, f"s{which}-{at}", response_id=response))
                for which, store in enumerate(stores)
                for at, response in list(enumerate(responses))[:: 1 if which % 2 else -1]
            ]
            settled = await asyncio.gather(*asked)
            paid = [found.record.response_id for found in settled if found.record.units_micro]
            assert sorted(paid) == responses
            assert len(settled) == 60
            assert await stores[0].unbalanced() == ([], [])
        finally:
            for store in stores:
                await store.close()

    asyncio.run(run())


def test_what_was_billed_long_ago_is_forgotten(with_store, make, sql, store_url):
    days = (0, 61, 63)

    async def body(store):
        for day in days:
            response = {"response_id": f"resp_{day:02}a1b2c3d4e5f60718293a4b", "started_ms": make.NOW_MS - day * DAY_MS}
            await store.settle(_fetched(make, f"c{day}", **response))
        await store.recover(make.NOW_MS, {})

    with_store(body)
    assert sql(store_url, "SELECT call_id FROM billed_response ORDER BY 1") == [("c0",), ("c61",)]
