"""Several processes on one database share exact limits, and a process that dies leaks nothing."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.rules.limits import Mode
from gatekeeper.rules.notices import Kind, Subscription, Wanted
from gatekeeper.stores import open_store

WORKER = Path(__file__).with_name("ledger_worker.py")
ROOT = Path(__file__).resolve().parents[2]


class Crew:
    """Worker processes that begin at the same moment."""

    def __init__(self, url, what, count, size):
        command = [sys.executable, str(WORKER), url, what]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        self.processes = [
            subprocess.Popen(
                [*command, f"p{number}", str(count)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            for number in range(size)
        ]

    def __enter__(self):
        for process in self.processes:
            assert process.stdout.readline() == "ready\n"
        for process in self.processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        return self

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.wait(timeout=10)
            process.stdin.close()
            process.stdout.close()

    def said(self):
        return [process.stdout.readline().strip() for process in self.processes]


@pytest.fixture
def crew(store_url):
    return lambda what, count, size: Crew(store_url, what, count, size)


def test_four_processes_share_one_cap_exactly(crew, store_url, with_store, make, sql):
    """Pitfall 29: no worker counts for itself."""

    async def started(store):
        # The rows exist: the processes meet at their locks, not at who makes them.
        await store.settle(make.settlement("before", 0, plan=make.plan(mode=Mode.BLOCK)))

    with_store(started)
    with crew("hold", 100, 4) as processes:
        granted = [int(word) for word in processes.said()]
    # A process that settled makes its calls `used`, so the cap stays full and nobody gets more.
    assert sum(granted) == 100

    async def body(store):
        quota, requests = await store.counters([make.QUOTA, make.REQUESTS])
        assert (quota.used, quota.held) == (100 * make.MICRO, 0)
        assert (requests.used, requests.held) == (100 * make.MICRO, 0)
        assert await store.unbalanced() == ([], [])

    with_store(body)
    if store_url.startswith("postgresql"):
        # One order of locks: what is tried again after a deadlock would come out right and slow.
        asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        assert sql(store_url, asked) == [(0,)]


def test_streams_of_four_processes_are_cut_exactly_at_the_cap(crew, with_store, make):
    with crew("extend", 5, 4) as processes:
        got = [int(word) for word in processes.said()]

    async def body(store):
        (quota,) = await store.counters([make.QUOTA])
        assert (quota.used, quota.held) == (0, 100 * make.MICRO)
        assert await store.unbalanced() == ([], [])
        # Each stream began with a unit of input; a process that is late may find no room to begin.
        streams = await store.recover(make.NOW_MS + 30_000, {})
        assert 4 <= streams <= 20
        assert sum(got) + streams == 100
        assert [(state.used, state.held) for state in await store.counters([make.QUOTA])] == [(0, 0)]

    with_store(body)


def test_two_processes_that_settle_the_same_calls_count_them_once(crew, with_store, make):
    async def held(store):
        await asyncio.gather(*(store.hold(make.order(f"c{n}", make.line())) for n in range(20)))

    with_store(held)
    with crew("settle", 40, 2) as processes:
        first = [int(word) for word in processes.said()]
    assert sum(first) == 40

    async def counted(store):
        (quota,) = await store.counters([make.QUOTA])
        # 20 were held; the other 20 were not, and without a plan they count on no limit.
        assert (quota.used, quota.held) == (20 * make.MICRO, 0)
        assert (await store.usage_total(0, 2**50)).requests == 40

    with_store(counted)


def test_two_processes_write_each_event_exactly_once(crew, store_url, with_store, make, sql):
    with crew("tell", 20, 2) as processes:
        assert processes.said() == ["40", "40"]
    rows = sql(store_url, "SELECT kind, id, content FROM event")
    usage = [name for kind, name, _ in rows if kind == Kind.USAGE_RECORDED]
    limits = [json.loads(content)["threshold"] for kind, _, content in rows if kind == Kind.LIMIT_THRESHOLD]
    # 40 calls of their own and 20 that both settle; only the 40 are counted, on a cap of 40.
    assert len(usage) == len(set(usage)) == 60
    assert sorted(limits) == [80, 95, 100]
    calls = [name for (name,) in sql(store_url, "SELECT call_id FROM usage_record")]
    assert sorted(usage) == sorted(calls)


def test_two_processes_never_hold_the_same_claim(crew, store_url, with_store, make):
    async def filled(store):
        store.tell(Wanted(frozenset({Kind.USAGE_RECORDED})))
        await asyncio.gather(*(store.settle(make.settlement(f"c{n}")) for n in range(120)))
        books = Subscription("books", frozenset({Kind.USAGE_RECORDED}))
        assert await store.fan_out([books], make.NOW_MS) == 120

    with_store(filled)
    with crew("claim", 4, 3) as processes:
        got = [name for line in processes.said() for name in line.split()]
    assert len(got) == len(set(got)) == 120

    async def left(store):
        # What was claimed and not reported comes again, when its lease is over and not before.
        waiting = await store.deliveries(state="waiting", limit=200)
        assert len(waiting) >= 120 // 4
        assert await store.claim("books", make.NOW_MS + 59_999, 2**50, 200) == []
        again = await store.claim("books", make.NOW_MS + 60_000, 2**50, 200)
        assert {claim.event.id for claim in again} == {one.event.id for one in waiting}
        assert {claim.attempts for claim in again} == {2}

    with_store(left)


def test_a_process_that_is_killed_leaks_nothing_and_is_recovered_once(crew, store_url, with_store, make):
    """Pitfall 24: kill -9 with holds open."""
    with crew("hang", 10, 1) as processes:
        assert processes.said() == ["held"]
        processes.processes[0].kill()
        processes.processes[0].wait(timeout=10)

    async def before(store):
        (quota,) = await store.counters([make.QUOTA])
        assert (quota.used, quota.held) == (0, 20 * make.MICRO)
        assert await store.recover(make.NOW_MS + 29_999, {}) == 0

    with_store(before)
    with crew("recover", 100, 2) as processes:
        recovered = [int(word) for word in processes.said()]
    assert sum(recovered) == 10

    async def after(store):
        (quota,) = await store.counters([make.QUOTA])
        assert (quota.used, quota.held) == (5 * make.MICRO, 0)
        records = await store.records()
        assert sorted(record.units_micro for record in records) == [0] * 5 + [make.MICRO] * 5
        assert {(record.source, record.note) for record in records} == {("estimated", "recovered")}
        assert {record.evidence["exposure_micro"] for record in records} == {make.MICRO, 2 * make.MICRO}
        assert await store.unbalanced() == ([], [])

    with_store(after)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_processes_that_start_together_migrate_a_new_database_once(kind, request, postgres_execute):
    url = request.getfixturevalue("sqlite_url" if kind == "sqlite" else "empty_postgres_url")
    with Crew(url, "settle", 1, 3) as processes:
        assert sorted(processes.said()) == ["0", "0", "1"]

    async def reopened():
        await (await open_store(url, clock=SystemClock())).close()

    asyncio.run(reopened())
