"""The bench of reports and pages, small: what it measures answers, and with the figures that the records have."""

import asyncio

import pytest

from bench import dashboard
from gatekeeper.clock import SystemClock
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import SpendBy
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.stores import open_store

RECORDS = 1_500


@pytest.fixture
def prepared(store_url):
    """A small database, filled and rolled up."""
    return asyncio.run(dashboard.prepared(store_url, RECORDS, lambda line: None))


def test_everything_that_is_measured_answers_and_reports_are_the_records_added_up(prepared):
    async def run():
        store = await open_store(prepared.url, clock=SystemClock())
        start, end = prepared.now_ms - dashboard.DAYS * DAY_MS, prepared.now_ms
        rows = await store.records(limit=RECORDS + 1)
        assert len(rows) == RECORDS
        overview = await store.overview(start, end)
        assert overview.total.requests == RECORDS
        assert overview.total.cost_nano == sum(row.cost_nano or 0 for row in rows)
        assert overview.total.failed == sum(row.status == 502 or row.outcome == "timed_out" for row in rows)
        by_key = await store.spend_by(SpendBy.KEY, Scope.GLOBAL, "", start, end, limit=10_000)
        assert {row.part: row.units_micro for row in by_key} == {
            key: sum(row.units_micro for row in rows if row.key_id == key) for key in {row.key_id for row in rows}
        }
        await store.close()
        await dashboard.measure(prepared, lambda line: None, rounds=1)

    asyncio.run(run())
    assert prepared.sums > 0
    assert [one.name for one in prepared.timed if one.status >= 400] == []
    names = {one.name for one in prepared.timed}
    assert {"overview", "requests: a model", "/admin/spend", "/admin/requests"} <= names
    lines = list(dashboard.table([prepared]))
    assert len(lines) == len(names) + 2
