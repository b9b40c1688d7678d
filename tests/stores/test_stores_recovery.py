"""Holds whose owner died, and the truth that comes late."""

import asyncio

import pytest

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import Progress
from gatekeeper.rules.limits import Mode


async def _figures(store, key):
    (counter,) = await store.counters([key])
    return counter.used, counter.held


def test_a_sign_of_life_prolongs_a_hold_and_neither_time_nor_progress_goes_back(with_store, make, sql, store_url):
    async def body(store):
        await store.hold(make.order("c1", make.line()))
        await store.hold(make.order("c2", make.line()))
        await store.settle(make.settlement("c2"))
        signs = [Progress("c1", 500, True), Progress("c2", 1, True), Progress("c3", 1, True)]
        assert await store.renew(signs, make.NOW_MS + 60_000) == ["c2", "c3"]
        assert await store.renew([Progress("c1", 200, False)], make.NOW_MS) == []
        assert await store.renew([], 0) == []
        assert await store.recover(make.NOW_MS + 59_999, {}) == 0
        assert await store.recover(make.NOW_MS + 60_000, {}) == 1
        assert await store.renew(signs[:1], make.NOW_MS + 90_000) == ["c1"]
        return await store.record("c1")

    record = with_store(body)
    assert (record.units_micro, record.source, record.note) == (500, Mark.ESTIMATED, "recovered")
    assert (record.outcome, record.customer_id, record.route, record.model) == (Outcome.CUT, "acme", "chat", "gpt-4o")
    assert record.evidence == {"held_micro": make.MICRO, "exposure_micro": make.MICRO - 500}
    assert sql(store_url, "SELECT expires_ms FROM hold WHERE call_id = 'c1'") == [(make.NOW_MS + 60_000,)]


def test_recovering_is_bounded_and_the_oldest_go_first(with_store, make):
    async def body(store):
        for number in range(5):
            await store.hold(make.order(f"c{number}", make.line(), expires_ms=make.NOW_MS + number))
        assert await store.recover(make.NOW_MS + 10, {}, limit=2) == 2
        assert [await store.record(f"c{number}") is not None for number in range(5)] == [True, True] + [False] * 3
        assert await store.recover(make.NOW_MS + 10, {}) == 3

    with_store(body)


def test_a_call_that_showed_no_progress_costs_nothing_and_is_on_record(with_store, make, sql, store_url):
    async def body(store):
        await store.hold(make.order("c1", make.line(), make.line(key=make.REQUESTS)))
        assert await store.recover(make.NOW_MS + 30_000, {}) == 1
        assert (await store.record("c1")).units_micro == 0
        assert await _figures(store, make.QUOTA) == await _figures(store, make.REQUESTS) == (0, 0)

    with_store(body)
    assert sql(store_url, "SELECT COUNT(*) FROM owed") == [(0,)]


@pytest.mark.parametrize("truth", [9_000_000, 12_500_000, 1_000_000, 0])
def test_a_late_true_settle_appends_one_correction_and_every_sum_is_the_true_one(
    with_store, make, sql, store_url, truth
):
    """Pitfall 25: a settle that comes after its hold was swept is recorded once."""
    plan = make.plan(cap=8 * make.MICRO)

    async def body(store):
        line = make.line(cap=8 * make.MICRO, fixed=20 * make.MICRO, mode=Mode.OVERAGE)
        await store.hold(make.order("c1", line))
        await store.renew([Progress("c1", 9 * make.MICRO, True)], make.NOW_MS + 30_000)
        assert await store.recover(make.NOW_MS + 30_000, {"pro": plan}) == 1
        assert (await store.record("c1")).charge_nano == 2_000_000
        late = make.settlement("c1", truth, plan=plan, cost_nano=77)
        settled = await asyncio.gather(store.settle(late), store.settle(late))
        assert [found.first for found in settled] == [True, False]
        assert not (await store.settle(late)).first
        found = await store.record("c1")
        assert settled[0].record == settled[1].record == found
        assert (found.call_id, found.units_micro, found.source) == ("c1", truth, Mark.MEASURED)
        assert found.charge_nano == plan.overage_nano(0, truth)
        assert await _figures(store, make.QUOTA) == (truth, 0)
        total = await store.usage_total(0, 2**50, customer_id="acme")
        assert (total.requests, total.units_micro, total.cost_nano) == (1, truth, 77)
        assert total.charge_nano == plan.overage_nano(0, truth)
        rows = await store.records()
        assert sorted(row.call_id for row in rows) == ["c1", "c1#correction"]
        assert await store.unbalanced() == ([], [])

    with_store(body)
    assert sql(store_url, "SELECT SUM(units_micro), SUM(charge_nano) FROM owed") == [
        (truth, plan.overage_nano(0, truth))
    ]
    assert sql(store_url, "SELECT tokens, requests FROM api_key_usage") == [(truth // 1_000_000, 1)]


def test_a_settle_and_a_recovery_at_the_same_moment_count_the_call_once(with_store, make):
    async def body(store):
        for number in range(10):
            await store.hold(make.order(f"c{number}", make.line()))
        settles = [store.settle(make.settlement(f"c{number}")) for number in range(10)]
        await asyncio.gather(store.recover(make.NOW_MS + 30_000, {}), *settles)
        assert await _figures(store, make.QUOTA) == (10 * make.MICRO, 0)
        assert (await store.usage_total(0, 2**50)).requests == 10
        assert await store.unbalanced() == ([], [])

    with_store(body)


def test_a_hold_that_cannot_be_recovered_is_told_and_does_not_keep_the_others(
    with_store, make, refuse, store_url, caplog
):
    async def body(store):
        for number in range(4):
            await store.hold(make.order(f"c{number}", make.line()))
        refuse(store_url, "usage_record", "NEW.call_id = 'c2'")
        assert await store.recover(make.NOW_MS + 30_000, {}) == 3
        # The ledger is not away, and whoever sweeps goes on with what else there is to do.
        assert await store.recover(make.NOW_MS + 30_000, {}) == 0
        assert len(caplog.messages) == 2
        assert all("the first is of call c2: " in told and "refused by the test" in told for told in caplog.messages)
        assert await _figures(store, make.QUOTA) == (0, make.MICRO)

    with_store(body)
