"""A database that the first migration alone had made, with calls in flight and money owed, goes on under this code."""

import asyncio
import json

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.stores import open_store
from gatekeeper.stores.migrate import migrate, migrations
from gatekeeper.stores.postgres import PostgresDatabase
from gatekeeper.stores.sqlite import SqliteDatabase

COLUMNS = (
    "call_id, admitted_month, customer_id, plan_id, route, upstream, method, path, outcome, streamed, started_ms, "
    "ended_ms, units_micro, source, charge_nano, meters, evidence, meter_hash, request_bytes, response_bytes, "
    "overrun_micro, day, note, lines"
)


def as_the_first_version_wrote_it(make):
    """Twenty calls of 3 units; one recovered at 0; one in flight that holds 5 units."""
    line = [*make.QUOTA, "quota", None, "overage", 5 * make.MICRO, 0, make.NEXT_MONTH_MS]
    held = json.dumps({"stock": [line], "rates": []})
    yield "INSERT INTO customer (id, name, plan_id, created_ms, anchor_ms) VALUES ('acme', 'Acme', 'pro', 1, 1)"
    for number in range(21):
        call_id, units, note = (f"c{number}", 3 * make.MICRO, "NULL") if number < 20 else ("lost", 0, "'recovered'")
        taken = json.dumps([[*make.QUOTA, "quota", units]])
        yield (
            f"INSERT INTO usage_record ({COLUMNS}) VALUES ('{call_id}', '2026-06', 'acme', 'pro', 'chat', 'openai', "
            f"'POST', '/', 'complete', 0, {make.NOW_MS}, {make.NOW_MS}, {units}, 'measured', 0, '{{}}', '{{}}', 'h', "
            f"1, 1, 0, '2026-06-15', {note}, '{taken}')"
        )
        yield (
            "INSERT INTO owed (call_id, customer_id, plan_id, period_start_ms, started_ms, settled_ms, units_micro, "
            f"charge_nano) VALUES ('{call_id}', 'acme', 'pro', 1, {make.NOW_MS}, {make.NOW_MS}, {units}, 0)"
        )
    for call_id, state in (("lost", "recovered"), ("flying", "open")):
        yield (
            "INSERT INTO hold (call_id, admitted_month, customer_id, plan_id, route, upstream, owner, state, "
            f"started_ms, expires_ms, output_tokens, lines) VALUES ('{call_id}', '2026-06', 'acme', 'pro', 'chat', "
            f"'openai', 'w', '{state}', {make.NOW_MS}, {make.NOW_MS + 30_000}, 0, '{held}')"
        )
    where = ", ".join(f"'{part}'" if isinstance(part, str) else str(part) for part in make.QUOTA)
    yield f"INSERT INTO counter VALUES ({where}, {60 * make.MICRO}, {5 * make.MICRO})"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_the_first_version_left_is_all_there_and_goes_on(kind, request, tmp_path, sql, make):
    url = f"sqlite:///{tmp_path}/old" if kind == "sqlite" else request.getfixturevalue("empty_postgres_url")

    async def old():
        opened = SqliteDatabase.open(tmp_path / "old") if kind == "sqlite" else PostgresDatabase.open(url)
        database = await opened
        assert await migrate(database, migrations()[:1]) == 1
        await database.close()

    async def new():
        store = await open_store(url, clock=SystemClock())
        try:
            plan = make.plan()
            assert not (await store.settle(make.settlement("c3", 3 * make.MICRO, plan=plan))).first
            late = await store.settle(make.settlement("lost", 7 * make.MICRO, plan=plan))
            assert (late.first, late.record.charge_nano) == (True, 7 * 2_000_000)
            assert (await store.settle(make.settlement("flying", 4 * make.MICRO, plan=plan))).first
            (state,) = await store.counters([make.QUOTA])
            figures = await store.figures(0, 0)
            return (state.used, state.held), await store.unbalanced(), figures
        finally:
            await store.close()

    asyncio.run(old())
    sql(url, *as_the_first_version_wrote_it(make))
    state, unbalanced, figures = asyncio.run(new())
    assert state == (71 * make.MICRO, 0)
    assert unbalanced == ([], [])
    assert (figures.records, figures.corrections, figures.owed, figures.open_holds) == (23, 1, 23, 0)
