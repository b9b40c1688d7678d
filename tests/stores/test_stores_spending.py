"""Overlays, resets and sums: the same on both databases, and the same as adding the records up by hand."""

import asyncio
from dataclasses import replace

import pytest
from fakes.past import stored

from gatekeeper.rules.limits import CounterKey, Mode, Scope
from gatekeeper.rules.overlays import Family, Overlay, Snapshot, limit_id
from gatekeeper.rules.spent import Amount, SpendBy, Spent
from gatekeeper.rules.windows import DAY_MS, HOUR_MS

ROW = ("customer", "acme", "dollars", "day")


def overlay(subject: str = "acme", cap: int | None = 5, created_ms: int = 1) -> Overlay:
    scope = Scope.CUSTOMER
    name = limit_id(Family.STOCK, scope, subject, "dollars", "day")
    return Overlay(
        name, Family.STOCK, "mine", scope, subject, "dollars", "day", cap, Mode.BLOCK, "UTC", created_ms, created_ms
    )


def test_an_overlay_is_kept_changed_and_dropped_at_its_version_only(with_store):
    async def body(store):
        assert await store.limits_snapshot(0) == Snapshot()
        assert await store.add_overlay(overlay())
        assert not await store.add_overlay(overlay(cap=6))
        assert (await store.limits_snapshot(0)).overlays == (overlay(),)
        changed = replace(overlay(), cap=None, mode=Mode.WARN, updated_ms=9)
        assert await store.change_overlay(changed)
        assert not await store.change_overlay(changed)
        (kept,) = (await store.limits_snapshot(0)).overlays
        assert kept == replace(changed, version=2)
        assert not await store.drop_overlay(overlay())
        assert not await store.drop_overlay(replace(kept, created_ms=2))
        assert await store.drop_overlay(kept)
        assert (await store.limits_snapshot(0)).overlays == ()

    with_store(body)


def test_every_change_counts_the_revision_up(with_store):
    async def body(store):
        seen = [await store.limits_revision()]
        await store.add_overlay(overlay())
        seen.append(await store.limits_revision())
        await store.change_overlay(overlay())
        seen.append(await store.limits_revision())
        await store.add_reset(CounterKey(*ROW, 7), "why")
        seen.append(await store.limits_revision())
        await store.drop_overlay(replace(overlay(), version=2))
        seen.append(await store.limits_revision())
        assert seen == sorted(set(seen))
        assert (await store.limits_snapshot(0)).revision == seen[-1]

    with_store(body)


def test_of_many_who_change_one_overlay_at_once_one_wins(with_store):
    async def body(store):
        await store.add_overlay(overlay())
        done = await asyncio.gather(*(store.change_overlay(overlay(cap=cap)) for cap in range(8)))
        assert sum(done) == 1
        done = await asyncio.gather(*(store.add_overlay(overlay("other", cap)) for cap in range(8)))
        assert sum(done) == 1

    with_store(body)


def test_the_last_reset_of_a_count_is_told_and_an_old_one_only_of_a_total(with_store):
    async def body(store):
        for reset_ms in (10, 30, 20, 30):
            await store.add_reset(CounterKey(*ROW, reset_ms), "why")
        await store.add_reset(CounterKey("global", "*", "units", "month", 5), "old")
        await store.add_reset(CounterKey("global", "*", "units", "total", 5), "old")
        assert (await store.limits_snapshot(6)).resets == {ROW: 30, ("global", "*", "units", "total"): 5}

    with_store(body)


def test_who_used_most_is_told_by_the_counter_that_began_last(with_store, make):
    async def body(store):
        for number, (subject, start_ms, used) in enumerate(
            [("a", 10, 5), ("b", 10, 9), ("b", 20, 1), ("c", 10, 3), ("d", 5, 99), ("e", 99, 99)], 1
        ):
            key = CounterKey("customer", subject, "units", "month", start_ms)
            await store.hold(make.order(f"c{number}", make.line(key=key, fixed=0)))
            await store.settle(make.settlement(f"c{number}", used * make.MICRO))
        found = await store.top_counters("customer", "units", "month", 10, 50)
        assert [(state.key.subject, state.used // make.MICRO) for state in found] == [("a", 5), ("c", 3), ("b", 1)]
        assert len(await store.top_counters("customer", "units", "month", 10, 50, limit=2)) == 2

    with_store(body)


@pytest.fixture
def spent(with_store, make):
    """Six calls of two customers over two days, one of them corrected; returns a way to ask."""
    hour, now = HOUR_MS, make.NOW_MS
    rows = [
        # customer, user, model, hours ago, units, charge, cost
        ("acme", "alice", "gpt-4o", 0, 5, 7, 3),
        ("acme", "alice", "o3", 1, 50, 0, 40),
        ("acme", None, "gpt-4o", 30, 1, 0, 1),
        ("beta", "alice", "gpt-4o", 2, 10, 100, 60),
        ("beta", None, None, 3, 0, 0, None),
        ("gone", None, "gpt-4o", 24 * 40, 99, 99, 99),
    ]

    async def fill(store):
        for number, (who, user, model, hours, units, _, cost) in enumerate(rows):
            started = now - hours * hour
            more = {"customer_id": who, "user_id": user, "model": model, "cost_nano": cost, "plan_id": f"plan-{who}"}
            order = make.order(
                f"c{number}", make.line(fixed=0), now_ms=started, **{k: v for k, v in more.items() if k != "cost_nano"}
            )
            await store.hold(order)
            await store.settle(
                make.settlement(f"c{number}", units * make.MICRO, started_ms=started, key_id=f"k-{who}", **more)
            )

    with_store(fill)

    def ask(question):
        return with_store(question)

    return ask


def figures(found):
    return [(row.part, row.requests, row.units_micro // 1_000_000, row.cost_nano, row.unpriced) for row in found]


def test_sums_are_those_of_the_records_by_each_thing_they_are_told_apart_by(spent, make):
    start, end = make.NOW_MS - 30 * DAY_MS, make.NOW_MS + 1

    async def body(store):
        total = await store.spend_total(Scope.GLOBAL, "", start, end)
        assert figures([total]) == [(None, 5, 66, 104, 1)]

        async def by(what, scope=Scope.GLOBAL, subject="", limit=100):
            return figures(await store.spend_by(what, scope, subject, start, end, limit=limit))

        assert await by(SpendBy.CUSTOMER) == [("beta", 2, 10, 60, 1), ("acme", 3, 56, 44, 0)]
        assert await by(SpendBy.CUSTOMER, limit=1) == [("beta", 2, 10, 60, 1)]
        assert await by(SpendBy.MODEL) == [("gpt-4o", 3, 16, 64, 0), ("o3", 1, 50, 40, 0), (None, 1, 0, 0, 1)]
        assert await by(SpendBy.USER) == [
            ("beta/alice", 1, 10, 60, 0),
            ("acme/alice", 2, 55, 43, 0),
            (None, 2, 1, 1, 1),
        ]
        assert await by(SpendBy.DAY) == [("2026-06-14", 1, 1, 1, 0), ("2026-06-15", 4, 65, 103, 1)]
        hours = await by(SpendBy.HOUR)
        assert [int(part) for part, *_ in hours] == [make.NOW_MS - ago * HOUR_MS for ago in (30, 3, 2, 1, 0)]
        assert await by(SpendBy.HOUR, limit=2) == hours[-2:]
        assert await by(SpendBy.PLAN, Scope.CUSTOMER, "acme") == [("plan-acme", 3, 56, 44, 0)]
        assert await by(SpendBy.MODEL, Scope.USER, "acme/alice") == [("o3", 1, 50, 40, 0), ("gpt-4o", 1, 5, 3, 0)]
        assert await by(SpendBy.ROUTE, Scope.MODEL, "o3") == [("chat", 1, 50, 40, 0)]
        assert await by(SpendBy.KEY, Scope.KEY, "k-beta") == [("k-beta", 2, 10, 60, 1)]
        for scope, subject in ((Scope.PLAN, "plan-beta"), (Scope.CUSTOMER, "beta"), (Scope.KEY, "k-beta")):
            assert figures([await store.spend_total(scope, subject, start, end)]) == [(None, 2, 10, 60, 1)]
        assert await store.spend_total(Scope.AGENT, "acme/none", start, end) == Spent()

    spent(body)


def test_a_correction_is_no_request_and_its_difference_counts(with_store, make):
    async def body(store):
        await store.hold(make.order("c1", make.line()))
        await store.recover(make.NOW_MS + DAY_MS, {})
        await store.settle(make.settlement("c1", 9 * make.MICRO, cost_nano=70))
        total = await store.spend_total(Scope.GLOBAL, "", 0, make.NOW_MS + 1)
        assert (total.requests, total.units_micro, total.cost_nano) == (1, 9 * make.MICRO, 70)
        (day,) = await store.spend_by(SpendBy.MODEL, Scope.CUSTOMER, "acme", 0, make.NOW_MS + 1)
        assert (day.part, day.requests, day.units_micro, day.cost_nano) == ("gpt-4o", 1, 9 * make.MICRO, 70)

    with_store(body)


def test_paces_part_the_last_hour_from_what_was_before(spent, make):
    now = make.NOW_MS + 1

    async def body(store):
        async def paces(by, amount, scope=Scope.GLOBAL, subject="", least=1, limit=9):
            found = await store.paces(
                by, amount, scope, subject, now - 48 * HOUR_MS, now - HOUR_MS, now, least=least, limit=limit
            )
            return [(pace.subject, pace.recent, pace.before) for pace in found]

        assert await paces(Scope.CUSTOMER, Amount.COST) == [("acme", 3, 41)]
        assert await paces(Scope.CUSTOMER, Amount.COST, least=4) == []
        assert await paces(Scope.CUSTOMER, Amount.COST, least=0) == [("acme", 3, 41), ("beta", 0, 60)]
        assert await paces(Scope.CUSTOMER, Amount.COST, least=0, limit=1) == [("acme", 3, 41)]
        assert await paces(Scope.GLOBAL, Amount.UNITS) == [("*", 5 * make.MICRO, 61 * make.MICRO)]
        assert await paces(Scope.USER, Amount.COST) == [("acme/alice", 3, 40)]
        assert await paces(Scope.MODEL, Amount.COST, Scope.CUSTOMER, "acme") == [("gpt-4o", 3, 1)]
        (pace,) = await store.paces(
            Scope.CUSTOMER, Amount.COST, Scope.GLOBAL, "", now - 48 * HOUR_MS, now - HOUR_MS, now, least=1
        )
        assert pace.first_ms == make.NOW_MS - 30 * HOUR_MS

    spent(body)


def test_sums_over_time_read_the_index_and_none_of_the_records(sqlite_url, sql):
    """A record is a kilobyte: a report that read them would take a hundred times as long."""

    async def body(store):
        await store.ping()

    stored(sqlite_url, body)
    for query in ("model, SUM(cost_nano)", "customer_id || '/' || user_id, COUNT(corrects)", "day, SUM(charge_nano)"):
        plan = sql(
            sqlite_url,
            f"EXPLAIN QUERY PLAN SELECT {query} FROM usage_record WHERE started_ms >= 1 AND started_ms < 2 GROUP BY 1",
        )
        assert "USING COVERING INDEX usage_by_start" in str(plan)
