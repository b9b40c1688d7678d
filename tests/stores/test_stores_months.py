"""Records month by month: what stood before is moved whole, each lands in its month, and a month is read alone."""

import asyncio
import json
from dataclasses import replace

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault
from gatekeeper.rules.windows import months_from
from gatekeeper.stores import open_store
from gatekeeper.stores.migrate import migrate, migrations
from gatekeeper.stores.postgres import PostgresDatabase
from gatekeeper.stores.queries import for_postgres

JULY_MS = 1_782_864_000_000
PARTS = "SELECT tableoid::regclass::text, call_id FROM usage_record ORDER BY call_id"


def _in_july(make, call_id, **changes):
    record = make.record(call_id, started_ms=JULY_MS + 1, admitted_month="2026-07", **changes)
    return replace(make.settlement(call_id), record=record)


def _run(url, body):
    async def opened():
        store = await open_store(url, clock=SystemClock())
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(opened())


def test_the_months_from_an_instant_on():
    assert months_from(JULY_MS, 3) == ["2026-07", "2026-08", "2026-09"]
    assert months_from(JULY_MS - 1, 1) == ["2026-06"]
    assert months_from(1_798_761_599_999, 3) == ["2026-12", "2027-01", "2027-02"]
    assert months_from(253_370_764_799_999, 2) == ["9998-12", "9999-01"]
    assert months_from(2**62, 3) == []


def test_records_of_before_are_moved_whole(empty_postgres_url, postgres_execute, make):
    old = migrations()[:2]

    async def build():
        database = await PostgresDatabase.open(empty_postgres_url)
        assert await migrate(database, old) == 2
        await database.close()

    asyncio.run(build())
    columns = "call_id, admitted_month, customer_id, plan_id, route, upstream, method, path, outcome, streamed, "
    columns += "started_ms, ended_ms, units_micro, source, charge_nano, meters, evidence, meter_hash, request_bytes, "
    columns += "response_bytes, overrun_micro, day, lines, model_requested"
    rest = "'acme', 'pro', 'r', 'u', 'POST', '/', 'complete', 0, 1, 2, {units}, "
    rest += "'measured', 0, '{{}}', '{{}}', 'h', 1, 2, 0"
    months = [("c1", "2026-05"), ("c2", "2026-06"), ("c3", "2026-06"), ("c4", "of no month")]
    for number, (call_id, month) in enumerate(months):
        values = f"'{call_id}', '{month}', {rest.format(units=number)}, '2026-06-01', '[]', 'gpt-{number}'"
        postgres_execute(empty_postgres_url, f"INSERT INTO usage_record ({columns}) VALUES ({values})")
    before = [tuple(row) for row in postgres_execute(empty_postgres_url, "SELECT * FROM usage_record ORDER BY call_id")]
    _run(empty_postgres_url, lambda store: store.ping())
    after = [tuple(row) for row in postgres_execute(empty_postgres_url, "SELECT * FROM usage_record ORDER BY call_id")]
    assert after == before
    assert [tuple(row) for row in postgres_execute(empty_postgres_url, PARTS)] == [
        ("usage_record_2026_05", "c1"),
        ("usage_record_2026_06", "c2"),
        ("usage_record_2026_06", "c3"),
        ("usage_record_other", "c4"),
    ]
    # The guard of settle and the checks stand in every partition.
    for values in (f"'c2', '2026-06', {rest.format(units=1)}", f"'c9', '2026-05', {rest.format(units=-1)}"):
        with pytest.raises(Exception, match=r"duplicate key|violates check"):
            postgres_execute(
                empty_postgres_url, f"INSERT INTO usage_record ({columns}) VALUES ({values}, 'd', '[]', NULL)"
            )
    assert postgres_execute(empty_postgres_url, "SELECT SUM(requests) FROM api_key_usage")[0][0] is None


def test_each_record_lands_in_its_month_which_the_sweeper_makes_ahead(postgres_url, postgres_execute, make):
    async def body(store):
        await store.settle(_in_july(make, "c0"))
        await store.recover(JULY_MS, {})
        for number in (1, 2):
            await store.settle(make.settlement(f"c{number}"))
        await store.settle(_in_july(make, "c3"))
        again = [await store.settle(_in_july(make, call)) for call in ("c0", "c3")]
        assert [found.first for found in again] == [False, False]
        assert (await store.usage_total(0, 2**50)).requests == 4

    _run(postgres_url, body)
    # c0 stood with the others until its month was made; nobody made June, and nothing failed for it.
    assert [tuple(row) for row in postgres_execute(postgres_url, PARTS)] == [
        ("usage_record_2026_07", "c0"),
        ("usage_record_other", "c1"),
        ("usage_record_other", "c2"),
        ("usage_record_2026_07", "c3"),
    ]
    made = "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r' ORDER BY 1"
    names = [f"usage_record_{name}" for name in ("2026_07", "2026_08", "2026_09", "other")]
    assert [row[0] for row in postgres_execute(postgres_url, made)] == names


def test_a_month_turns_while_calls_are_in_flight(with_store, make, sql, store_url):
    turned = make.line(key=make.QUOTA._replace(start_ms=JULY_MS))

    async def body(store):
        await store.recover(make.NOW_MS, {})
        await store.hold(make.order("june", make.line(), now_ms=JULY_MS - 5, expires_ms=JULY_MS + 99))
        await store.hold(
            make.order("july", turned, now_ms=JULY_MS + 5, expires_ms=JULY_MS + 99, admitted_month="2026-07")
        )
        # Both end in July; a wrong month of the caller's does not move a call.
        late = make.settlement("june", started_ms=JULY_MS - 5, ended_ms=JULY_MS + 50, admitted_month="2026-07")
        settled = await asyncio.gather(store.settle(late), store.settle(_in_july(make, "july")))
        assert [(one.first, one.record.admitted_month) for one in settled] == [(True, "2026-06"), (True, "2026-07")]
        with pytest.raises(Fault, match="over"):
            await store.hold(make.order("june", make.line(), now_ms=JULY_MS - 5))
        states = await store.counters([make.QUOTA, turned.key])
        assert [(state.used, state.held) for state in states] == [(make.MICRO, 0)] * 2
        # A call of last month that was recovered, and is settled truly in this one.
        await store.hold(make.order("late", make.line(), expires_ms=JULY_MS - 1))
        assert await store.recover(JULY_MS, {}) == 1
        for first in (True, False):
            assert (await store.settle(make.settlement("late", 3 * make.MICRO, ended_ms=JULY_MS + 9))).first is first
        assert (await store.record("late")).units_micro == 3 * make.MICRO
        assert await store.unbalanced() == ([], [])

    with_store(body)
    rows = sql(store_url, "SELECT call_id, admitted_month FROM usage_record ORDER BY call_id")
    june, july = "2026-06", "2026-07"
    assert rows == [("july", july), ("june", june), ("late", june), ("late#correction", june)]
    if store_url.startswith("postgres"):
        found = dict(sql(store_url, "SELECT call_id, tableoid::regclass::text FROM usage_record"))
        assert {name: part[-7:] for name, part in found.items()} == {
            name: month.replace("-", "_") for name, month in rows
        }


def _plan(execute, url, text):
    """The names of the tables that a statement touches; those that were pruned when it ran are not executed."""
    rows = execute(url, "SET enable_seqscan = off", f"EXPLAIN (ANALYZE, FORMAT JSON) {text}")
    found = []

    def walk(node):
        if "Relation Name" in node and node.get("Actual Loops", 1):
            found.append(node["Relation Name"])
        for child in node.get("Plans", ()):
            walk(child)

    walk(json.loads(rows[0][0])[0]["Plan"])
    return sorted(set(found))


def test_a_month_is_read_alone(postgres_url, postgres_execute, make):
    async def body(store):
        await store.recover(make.NOW_MS, {})
        await store.settle(make.settlement("c1"))
        await store.settle(_in_july(make, "c2"))

    _run(postgres_url, body)
    asked = "SELECT SUM(units_micro) FROM usage_record WHERE admitted_month = '2026-06' AND customer_id = 'acme'"
    assert _plan(postgres_execute, postgres_url, asked) == ["usage_record_2026_06"]
    # What the ledger asks at each admission and settle, as the server plans it for whatever parameters.
    for name in ("recorded_calls", "records_of"):
        text = for_postgres()[name].text.replace("$1", "ARRAY['c1', 'c1#correction']")
        text = text.replace("$2", "ARRAY['2026-06', '2026-06']")
        assert _plan(postgres_execute, postgres_url, text) == ["usage_record_2026_06"]


def test_a_user_who_may_not_make_tables_settles_all_the_same(postgres_url, postgres_execute, make, caplog):
    for text in (
        "DROP ROLE IF EXISTS clerk",
        "CREATE ROLE clerk LOGIN",
        "GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO clerk",
    ):
        postgres_execute(postgres_url, text)
    asked = postgres_url.replace("postgres@", "clerk@")
    assert asked != postgres_url
    try:

        async def body(store):
            await store.recover(make.NOW_MS, {})
            assert (await store.settle(make.settlement("c1"))).first
            assert not (await store.settle(make.settlement("c1"))).first

        _run(asked, body)
        assert "no partition for the records of 2026-06" in caplog.text
        assert [tuple(row) for row in postgres_execute(postgres_url, PARTS)] == [("usage_record_other", "c1")]
    finally:
        postgres_execute(postgres_url, "DROP OWNED BY clerk", "DROP ROLE clerk")
