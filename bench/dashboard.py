"""``python -m bench.dashboard``: how long reports, endpoints and pages take with a million records in the database.

The rule: one call is settled by the ledger itself, and repeated with other names and figures over 30 days; sums are
made by the gateway's own roller. Every answer is also asked of the records by SQL. A time is that of the server alone.
"""

import argparse
import asyncio
import itertools
import random
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import asyncpg

from bench.dashboard_pages import pages
from bench.ledger import PLAN, databases, order, settlement
from gatekeeper.clock import SystemClock
from gatekeeper.ports import Customer, Key, RecordFilter
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import Amount, SpendBy
from gatekeeper.rules.windows import DAY_MS, HOUR_MS, admitted_month, utc_day
from gatekeeper.stores import SqlStore, open_store

RECORDS = 1_000_000
CUSTOMERS = 500
DAYS = 30
LIMIT_MS = 100.0
ROUNDS = 5
_STEP = 20_000
# (model, upstream, route, its share of all calls in per cent)
_MODELS = (
    ("gpt-4o-mini", "openai", "chat", 50),
    ("gpt-4o", "openai", "chat", 25),
    ("claude-sonnet-4-5", "anthropic", "messages", 20),
    ("o3", "openai", "responses", 5),
)
# (outcome, status, source, its share of 1,000 calls)
_ENDS = (
    ("complete", 200, "measured", 940),
    ("complete", 200, "default", 15),
    ("complete", 200, "estimated", 10),
    ("complete", 429, "none", 10),
    ("client_closed", 200, "estimated", 10),
    ("upstream_failed", 502, "none", 8),
    ("cut", 200, "estimated", 5),
    ("timed_out", None, "none", 1),
    ("complete", 200, "error", 1),
)


@dataclass
class Timed:
    """How long one question took, in milliseconds: the first time, and best and median of those after it."""

    name: str
    first_ms: float = 0.0
    best_ms: float = 0.0
    median_ms: float = 0.0
    status: int = 200

    @property
    def ok(self) -> bool:
        """Whether it kept the limit, and was answered."""
        return self.median_ms <= LIMIT_MS and self.status < 400


@dataclass
class Database:
    """One database that is filled, and what was measured on it."""

    url: str
    records: int
    now_ms: int
    filled_s: float = 0.0
    rolled_s: float = 0.0
    sums: int = 0
    timed: list[Timed] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For the table."""
        return "SQLite" if self.url.startswith("sqlite") else "Postgres"


async def template(url: str, now_ms: int) -> dict[str, Any]:
    """One record as the ledger writes it: by column."""
    store = await open_store(url, clock=SystemClock())
    wanted = order("call_template", "c0000", now_ms)
    await store.create_customer(Customer("c0000", "c0000", PLAN.id, now_ms, now_ms))
    await store.hold(wanted)
    await store.settle(settlement(wanted, now_ms + 900))
    await store.close()
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(_path(url))) as connection:
            connection.row_factory = sqlite3.Row
            return dict(connection.execute("SELECT * FROM usage_record").fetchone())
    connection = await asyncpg.connect(url)
    found = dict(await connection.fetchrow("SELECT * FROM usage_record"))
    await connection.close()
    return found


def made(like: dict[str, Any], count: int, now_ms: int, seed: int = 7) -> Iterator[tuple[Any, ...]]:
    """So many records like that one, over the last 30 days, of customers of whom few call often and many seldom."""
    chance = random.Random(seed)
    models = list(itertools.chain.from_iterable([each] * each[3] for each in _MODELS))
    ends = list(itertools.chain.from_iterable([each] * each[3] for each in _ENDS))
    first_ms = now_ms - DAYS * DAY_MS
    for number in range(count):
        who = int(CUSTOMERS * chance.random() ** 3)
        started_ms = first_ms + number * (DAYS * DAY_MS - 1) // count
        model, upstream, route, _ = models[int(chance.random() * len(models))]
        outcome, status, source, _ = ends[int(chance.random() * len(ends))]
        tokens, wait_ms, lot = chance.randrange(20, 4_000), int(chance.lognormvariate(6, 0.8)), chance.random()
        units = tokens * 1_000_000 if source in ("measured", "default", "estimated") else 0
        changed = {
            "call_id": f"call_{started_ms:012x}{number:08x}",
            "admitted_month": admitted_month(started_ms),
            "customer_id": f"c{who:04d}",
            "key_id": f"k{who:04d}-{number % (1 + who % 3)}",
            "user_id": f"u{number % 10}" if lot < 0.2 else None,
            "agent_id": f"a{number % 4}" if lot > 0.9 else None,
            "plan_id": ("free", "pro", "team")[who % 3],
            "route": route,
            "upstream": upstream,
            "model": model,
            "status": status,
            "outcome": outcome,
            "source": source,
            "started_ms": started_ms,
            "ended_ms": started_ms + wait_ms * 4,
            "first_byte_ms": None if status is None else wait_ms,
            "units_micro": units,
            "charge_nano": tokens * 31 if who % 3 else 0,
            "cost_nano": tokens * 17 if route != "responses" else None,
            "day": utc_day(started_ms),
        }
        yield tuple({**like, **changed}.values())


async def fill(url: str, records: int, now_ms: int) -> None:
    """Indexes are made anew at the end: so many single entries would take long."""
    like = await template(url, now_ms - DAY_MS)
    rows = made(like, records, now_ms)
    if url.startswith("sqlite"):
        _fill_sqlite(_path(url), list(like), rows)
    else:
        await _fill_postgres(url, list(like), rows)
    store = await open_store(url, clock=SystemClock())
    for who in range(CUSTOMERS):
        await store.create_customer(Customer(f"c{who:04d}", f"Customer {who}", PLAN.id, now_ms, now_ms))
        key = Key(f"k{who:04d}-0", f"c{who:04d}", "first", "gk_x", now_ms)
        await store.create_key(key, f"digest-{who}")
    await store.close()


def _fill_sqlite(path: str, columns: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("synchronous = OFF", "cache_size = -200000"):
            connection.execute(f"PRAGMA {pragma}")
        question = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'usage_record' AND sql > ''"
        indexes = connection.execute(question).fetchall()
        connection.execute("BEGIN")
        connection.execute("DELETE FROM usage_record")
        for name, _ in indexes:
            connection.execute(f"DROP INDEX {name}")
        into = f"INSERT INTO usage_record ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
        connection.executemany(into, rows)
        for _, sql in indexes:
            connection.execute(sql)
        connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


async def _fill_postgres(url: str, columns: Sequence[str], rows: Iterator[tuple[Any, ...]]) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("DELETE FROM usage_record")
    # As the gateway makes them ahead, month by month.
    await connection.execute(
        "SELECT make_usage_month(to_char(now() AT TIME ZONE 'UTC' - n * interval '15 days', 'YYYY-MM')) "
        "FROM generate_series(0, 2) n"
    )
    question = (
        "SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'usage_record' AND indexdef NOT LIKE '%UNIQUE%'"
    )
    indexes = await connection.fetch(question)
    for name, _ in indexes:
        await connection.execute(f"DROP INDEX {name}")
    while some := list(itertools.islice(rows, _STEP)):
        await connection.copy_records_to_table("usage_record", records=some, columns=list(columns))
    for _, definition in indexes:
        # As it is told, it would be made on the parent alone.
        await connection.execute(definition.replace(" ON ONLY ", " ON "))
    # What autovacuum does by itself a minute later.
    await connection.execute("VACUUM ANALYZE")
    await connection.close()


async def roll(database: Database) -> None:
    """All that is over, as the gateway's roller does in the background."""
    store = await open_store(database.url, clock=SystemClock())
    began_s = time.perf_counter()
    while await store.roll(database.now_ms - 5 * 60_000, steps=50):
        pass
    database.rolled_s = time.perf_counter() - began_s
    await store.close()
    if database.name == "SQLite":
        with closing(sqlite3.connect(_path(database.url))) as connection:
            ((database.sums,),) = connection.execute("SELECT COUNT(*) FROM usage_sum").fetchall()
        return
    connection = await asyncpg.connect(database.url)
    database.sums = await connection.fetchval("SELECT COUNT(*) FROM usage_sum")
    await connection.execute("VACUUM ANALYZE usage_sum")
    await connection.close()


def reports(store: SqlStore, now_ms: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    """Every report, over the last 30 UTC days, today among them, where nothing else is said."""
    end, day = now_ms, now_ms - now_ms % DAY_MS
    start = day - (DAYS - 1) * DAY_MS
    everybody, one, model = (Scope.GLOBAL, ""), (Scope.CUSTOMER, "c0000"), (Scope.MODEL, "gpt-4o")
    key, user = (Scope.KEY, "k0000-0"), (Scope.USER, "c0000/u1")
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "overview": lambda: store.overview(start, end),
        "overview of today": lambda: store.overview(day, end),
        "series by the hour, a week": lambda: store.series(*everybody, day - 6 * DAY_MS, day + DAY_MS, HOUR_MS),
        "series by the minute, an hour": lambda: store.series(*everybody, end - HOUR_MS, end, 60_000),
        "series by the day, a customer": lambda: store.series(*one, day - 29 * DAY_MS, day + DAY_MS, DAY_MS),
        "usage of a customer by day": lambda: store.usage_by_day(start, end, customer_id="c0000"),
        "usage of a key": lambda: store.usage_total(start, end, key_id="k0000-0"),
        "usage of all": lambda: store.usage_total(start, end),
    }
    for who, named in ((everybody, "all"), (one, "a customer"), (model, "a model"), (key, "a key"), (user, "a user")):
        asked[f"spend total of {named}"] = lambda who=who: store.spend_total(*who, start, end)  # type: ignore[misc]
        for by in SpendBy:
            if who == everybody or by in (SpendBy.DAY, SpendBy.CUSTOMER, SpendBy.MODEL, SpendBy.KEY):
                asked[f"spend of {named} by {by}"] = partial(store.spend_by, by, *who, start, end)
    for by in (SpendBy.CUSTOMER, SpendBy.MODEL, SpendBy.PLAN, SpendBy.AGENT):
        asked[f"breakdown by {by}"] = lambda by=by: store.breakdown(by, *everybody, start, end)  # type: ignore[misc]
    for by in (Scope.GLOBAL, Scope.CUSTOMER, Scope.KEY, Scope.USER):
        asked[f"paces of a week by {by}"] = lambda by=by: store.paces(  # type: ignore[misc]
            by, Amount.COST, *everybody, end - 169 * HOUR_MS, end - HOUR_MS, end, least=1
        )
    return asked


def searches(store: SqlStore) -> dict[str, Callable[[], Awaitable[Any]]]:
    """The table of requests, by every filter that there is."""
    wanted = {
        "no filter": RecordFilter(),
        "a customer": RecordFilter(customer_id="c0000"),
        "a seldom customer": RecordFilter(customer_id="c0499"),
        "a key": RecordFilter(key_id="k0010-0"),
        "a user": RecordFilter(customer_id="c0003", user_id="u1"),
        "an agent of anybody": RecordFilter(agent_id="a1"),
        "a model": RecordFilter(model="o3"),
        "a model that nobody called": RecordFilter(model="gpt-2"),
        "a route": RecordFilter(route="messages"),
        "a plan": RecordFilter(plan_id="team"),
        "an outcome": RecordFilter(outcome="timed_out"),
        "an outcome that never was": RecordFilter(outcome="upstream_error"),
        "a source": RecordFilter(source="error"),
        "a source and a customer": RecordFilter(customer_id="c0000", source="default"),
        "status 502": RecordFilter(status=502),
        "status 4xx": RecordFilter(status_class=4),
        "status 3xx, of which there are none": RecordFilter(status_class=3),
        "a part of an id": RecordFilter(call_id="ffff"),
        "an id that is none": RecordFilter(call_id="call_zzz"),
    }
    found: dict[str, Callable[[], Awaitable[Any]]] = {}
    for name, each in wanted.items():
        found[f"requests: {name}"] = lambda each=each: store.search_records(each)  # type: ignore[misc]
    # Deep in the past.
    later = replace(RecordFilter(), model="o3")
    after = (SystemClock().now_ms() - 20 * DAY_MS, "")
    found["requests: a model, page 20 days ago"] = lambda: store.search_records(later, after=after)
    return found


async def timed(name: str, ask: Callable[[], Awaitable[Any]], rounds: int = ROUNDS) -> Timed:
    """Ask once, and then some times more."""
    took, status = [], 200
    for _ in range(rounds + 1):
        began_s = time.perf_counter()
        answer = await ask()
        took.append((time.perf_counter() - began_s) * 1000)
        status = getattr(answer, "status_code", 200)
    return Timed(name, took[0], min(took[1:]), statistics.median(took[1:]), status)


async def measure(database: Database, say: Callable[[str], None], rounds: int = ROUNDS) -> None:
    """The reports themselves, then the URLs."""
    store = await open_store(database.url, clock=SystemClock())
    assert isinstance(store, SqlStore)
    for name, ask in {**reports(store, database.now_ms), **searches(store)}.items():
        database.timed.append(await timed(name, ask, rounds))
    await store.close()
    async with pages(database.url, database.now_ms) as asked:
        for name, ask in asked.items():
            database.timed.append(await timed(name, ask, rounds))
    say(f"{database.name}: measured")


async def prepared(url: str, records: int, say: Callable[[str], None]) -> Database:
    """Filled and rolled up."""
    database = Database(url, records, SystemClock().now_ms())
    began_s = time.perf_counter()
    await fill(url, records, database.now_ms)
    database.filled_s = time.perf_counter() - began_s
    say(f"{database.name}: {records:,} records in {database.filled_s:.0f} s")
    await roll(database)
    say(f"{database.name}: {database.sums:,} sums in {database.rolled_s:.0f} s")
    return database


def table(found: Sequence[Database]) -> Iterator[str]:
    """A line for each question; what is over the limit says so."""
    yield "| question | " + " | ".join(f"{each.name}: first, best, median (ms)" for each in found) + " |"
    yield "|---|" + "--:|" * len(found)
    for row in zip(*(each.timed for each in found), strict=True):
        cells = [
            f"{one.first_ms:.0f}, {one.best_ms:.1f}, {one.median_ms:.1f}{'' if one.ok else ' **OVER**'}" for one in row
        ]
        told = "" if all(one.status < 400 for one in row) else f" ({row[0].status})"
        yield f"| {row[0].name}{told} | " + " | ".join(cells) + " |"


async def run(urls: Sequence[str], records: int, say: Callable[[str], None], rounds: int = ROUNDS) -> list[Database]:
    """One database after the other."""
    found = []
    for url in urls:
        found.append(await prepared(url, records, say))
        await measure(found[-1], say, rounds)
    return found


def _path(url: str) -> str:
    return url.removeprefix("sqlite:///")


def main() -> int:
    """Exit code 1 where anything took longer than the limit."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("--records", type=int, default=RECORDS, help=f"how many (default: {RECORDS:,})")
    words.add_argument("--only", choices=("sqlite", "postgres"), help="one database only")
    asked = words.parse_args()
    with tempfile.TemporaryDirectory(prefix="gk-dashboard-"), databases() as urls:
        chosen = [url for url in urls if asked.only is None or url.startswith(asked.only)]
        found = asyncio.run(run(chosen, asked.records, lambda line: print(line, file=sys.stderr, flush=True)))
    for line in table(found):
        print(line)
    slow = [one for each in found for one in each.timed if not one.ok]
    print(f"\n{len(slow)} of {sum(len(each.timed) for each in found)} took more than {LIMIT_MS:g} ms.")
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
