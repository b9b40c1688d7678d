"""How many calls a second the ledger takes: hold and settle, 32 and 128 at a time, beside what the database does by
itself.

Run as ``python -m bench.ledger``, or with URLs of empty databases. Each settle is durable when it returns.
"""

import argparse
import asyncio
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import replace
from decimal import Decimal
from functools import cache
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from bench.first_byte import added
from gatekeeper.cli.process import spare_the_collector
from gatekeeper.clock import SystemClock
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.money import Price
from gatekeeper.ports import HoldOrder, Settlement, UsageRecord
from gatekeeper.rules.limits import (
    ONE_REQUEST,
    BucketKey,
    CounterKey,
    Granted,
    Mode,
    RateLine,
    Scope,
    StockLimit,
    StockLine,
    Window,
)
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import admitted_month, window_bounds
from gatekeeper.stores import open_store
from tests.fakes.cluster import Cluster, binaries, execute

try:
    import uvloop
except ImportError:
    uvloop = None

T = TypeVar("T")

CONCURRENT = 32
# As many as 10,000 calls a second have open where one takes 13 ms: what a process takes in all.
MANY = 128
CUSTOMERS = 8
PACE_S = 0.1
SECONDS_MAX = 40.0
UNITS = 1_000_000
PLAN = Plan(
    "pro",
    "Pro",
    Decimal(29),
    StockLimit("quota", Scope.CUSTOMER, "units", Window.MONTH, 100_000 * UNITS, Mode.OVERAGE),
    overage=Price(Decimal("0.002"), 1_000),
)


@cache
def lines(customer: str, start_ms: int, ends_ms: int | None) -> tuple[tuple[StockLine, ...], tuple[RateLine, ...]]:
    """Made once for each customer: making them is not what is measured."""
    quota = CounterKey("customer", customer, "units", "month", start_ms)
    per_key = quota._replace(scope="key", subject=f"{customer}-key")
    minute = BucketKey("key", f"{customer}-key", "units", 60_000)
    return (
        StockLine(quota, "quota", 100_000 * UNITS, Mode.OVERAGE, 100 * UNITS, UNITS, ends_ms),
        StockLine(per_key, "budget", None, Mode.BLOCK, 100 * UNITS, UNITS, ends_ms),
    ), (
        RateLine(minute, "tokens", 10**15, 356 * UNITS, 100 * UNITS),
        RateLine(minute._replace(dimension="requests"), "requests", 10**15, ONE_REQUEST, ONE_REQUEST),
    )


def everybody(now_ms: int) -> StockLine:
    """A limit that every call of every customer stands on."""
    start_ms, ends_ms = window_bounds(Window.MONTH, now_ms)
    key = CounterKey("global", "*", "units", "month", start_ms)
    return StockLine(key, "everybody", 10**17, Mode.BLOCK, 100 * UNITS, UNITS, ends_ms)


def order(call_id: str, customer: str, now_ms: int) -> HoldOrder:
    """Two stock lines and two rates: what a call on a usual plan holds."""
    stock, rates = lines(customer, *window_bounds(Window.MONTH, now_ms))
    return HoldOrder(
        call_id=call_id,
        admitted_month=admitted_month(now_ms),
        customer_id=customer,
        key_id=f"{customer}-key",
        user_id=None,
        agent_id=None,
        plan_id=PLAN.id,
        route="chat",
        upstream="openai",
        model="gpt-4o",
        owner="bench",
        now_ms=now_ms,
        expires_ms=now_ms + 30_000,
        output_tokens=500,
        output_tokens_min=1,
        stock=stock,
        rates=rates,
    )


def settlement(held: HoldOrder, now_ms: int) -> Settlement:
    """The end of that call."""
    record = UsageRecord(
        call_id=held.call_id,
        admitted_month=held.admitted_month,
        customer_id=held.customer_id,
        key_id=held.key_id,
        user_id=None,
        agent_id=None,
        plan_id=held.plan_id,
        route=held.route,
        upstream=held.upstream,
        model=held.model,
        method="POST",
        path="/v1/chat/completions",
        status=200,
        outcome=Outcome.COMPLETE,
        streamed=True,
        started_ms=held.now_ms,
        ended_ms=now_ms,
        first_byte_ms=now_ms,
        units_micro=321 * UNITS,
        source=Mark.MEASURED,
        usage={"input": {"total": 100}, "output": {"total": 221}},
        evidence={"last": {"prompt_tokens": 100, "completion_tokens": 221}},
    )
    return Settlement(record, {"units": record.units_micro, "requests": ONE_REQUEST}, PLAN, now_ms)


def orders(number: int, stop: Callable[[], bool], shared: bool) -> Iterator[HoldOrder]:
    """The calls of one caller, with ids in the order of time as the proxy makes them."""
    clock = SystemClock()
    while not stop():
        now_ms = clock.now_ms()
        made = order(f"{time.time_ns():020x}{number:04x}", f"customer-{number % CUSTOMERS}", now_ms)
        yield replace(made, stock=(*made.stock, everybody(now_ms))) if shared else made


async def measure(url: str, seconds: float, *, callers: int, shared: bool = False) -> tuple[float, str]:
    """Calls a second, and how long a hold and a settle took. ``shared``: with one limit more, for all calls."""
    store = await open_store(url, clock=SystemClock())
    holds: list[float] = []
    settles: list[float] = []
    now_s = time.perf_counter
    start = now_s()

    async def caller(number: int) -> None:
        for wanted in orders(number, lambda: now_s() - start >= seconds, shared):
            before = now_s()
            assert isinstance(await store.hold(wanted), Granted)
            between = now_s()
            assert (await store.settle(settlement(wanted, wanted.now_ms + 1))).first
            holds.append(between - before)
            settles.append(now_s() - between)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    took = now_s() - start
    await store.close()
    return len(settles) / took, f"hold {_times(holds)}   settle {_times(settles)}"


async def paced(url: str, seconds: float) -> str:
    """How long a hold and a settle take where calls last as long as calls do: each of the callers has one open all the
    time, for PACE_S on average. The hold is what a first byte waits for."""
    store = await open_store(url, clock=SystemClock())
    chance = random.Random(1)
    holds: list[float] = []
    settles: list[float] = []
    now_s = time.perf_counter
    start = now_s()

    async def caller(number: int) -> None:
        await asyncio.sleep(PACE_S * chance.random())
        for wanted in orders(number, lambda: now_s() - start >= seconds, shared=False):
            before = now_s()
            await store.hold(wanted)
            holds.append(now_s() - before)
            await asyncio.sleep(PACE_S * (0.5 + chance.random()))
            before = now_s()
            await store.settle(settlement(wanted, wanted.now_ms + 1))
            settles.append(now_s() - before)

    await asyncio.gather(*(caller(number) for number in range(CONCURRENT)))
    await store.close()
    return f"{len(settles) / seconds:8.0f} calls/s   hold {_times(holds)}   settle {_times(settles)}"


def _times(found: list[float]) -> str:
    ordered = sorted(found)
    return f"{ordered[len(ordered) // 2] * 1000:5.2f} / {ordered[len(ordered) * 99 // 100] * 1000:5.2f} ms"


_BARE = "CREATE TABLE bare (id TEXT PRIMARY KEY, customer TEXT NOT NULL, units BIGINT NOT NULL, note TEXT NOT NULL)"
_NOTE = "x" * 500


async def bare(url: str, seconds: float) -> float:
    """What the database itself takes one by one: ``INSERT; COMMIT``, durable, by one writer."""
    if not url.startswith("sqlite"):
        connection = await asyncpg.connect(url)
        await connection.execute(_BARE)
        insert = await connection.prepare("INSERT INTO bare VALUES ($1, $2, $3, $4)")
        count, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            await insert.fetch(f"{count:020x}", "customer", 321, _NOTE)
            count += 1
        await connection.close()
        return count / took
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        database.execute(_BARE)
        count, start = 0, time.perf_counter()
        while (took := time.perf_counter() - start) < seconds:
            database.execute("BEGIN IMMEDIATE")
            database.execute("INSERT INTO bare VALUES (?, ?, ?, ?)", (f"{count:020x}", "customer", 321, _NOTE))
            database.execute("COMMIT")
            count += 1
        return count / took


def report(url: str, seconds: float) -> None:
    """Seven lines for one database, which is used for nothing else."""
    name = url.split(":")[0]
    load = os.getloadavg()[0]
    print(f"{name}  (load {load:.1f} on {os.cpu_count()} cores; median / 99 %)", flush=True)
    rate = _run(bare(url, seconds / 4))
    print(f"  bare INSERT; COMMIT, 1 by 1       {rate:8.0f} /s", flush=True)
    for callers in (CONCURRENT, MANY):
        alone, times = _run(measure(url, seconds, callers=callers))
        print(f"  hold + durable settle, {callers:3} at once{alone:8.0f} calls/s   {times}", flush=True)
        together, times = _run(measure(url, seconds, callers=callers, shared=True))
        print(
            f"  with one limit for all calls      {together:8.0f} calls/s   {times}   ({together / alone:.2f} of it)",
            flush=True,
        )
    print(f"  calls of {PACE_S * 1000:.0f} ms, {CONCURRENT} open        {_run(paced(url, seconds / 2))}", flush=True)
    print(f"  through the gateway               {added(url, 4 * seconds)}", flush=True)


def _run(work: Coroutine[Any, Any, T]) -> T:
    """On the loop that ``gatekeeper serve`` uses, where it is installed."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop is not None else None) as runner:
        return runner.run(work)


@contextmanager
def databases() -> Iterator[list[str]]:
    """An SQLite file, and a Postgres: the one that the tests are told to use, or one of our own where that can be."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gk-bench-"))
        urls = [f"sqlite:///{folder}/bench.sqlite"]
        server, found = os.environ.get("GATEKEEPER_TEST_POSTGRES"), binaries()
        if server is None and found is not None:
            cluster = Cluster(found)
            stack.callback(cluster.stop)
            server = cluster.dsn
        if server is not None:
            name = f"gatekeeper_bench_{os.getpid()}"
            execute(server, f"CREATE DATABASE {name}")
            stack.callback(execute, server, f"DROP DATABASE {name} WITH (FORCE)")
            urls.append(urlunsplit(urlsplit(server)._replace(path=f"/{name}")))
        yield urls


def main() -> None:
    """Measure every URL in turn, all within ``SECONDS_MAX``."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("urls", nargs="*", help="databases that are used for nothing else; without: our own")
    words.add_argument("--seconds", type=float, default=4.0, help="how long each line is measured")
    asked = words.parse_args()
    # As ``gatekeeper serve`` does.
    spare_the_collector()
    with nullcontext(asked.urls) if asked.urls else databases() as urls:
        for url in urls:
            # Each database is measured for 4 3/4 times that.
            report(url, min(asked.seconds, SECONDS_MAX / 4.75 / len(urls)))


if __name__ == "__main__":
    main()
