"""Processes that lock the same rows in opposite orders, for as long as one likes: no deadlock, no lost increment.

Run by itself as ``python -m bench.chaos_crossing URL SECONDS SEED``: one of those processes. The rule: each order names
its limits in an order of its own; what each process counted is held against what the database says.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from bench.chaos_audit import Report, number, rows
from bench.ledger import UNITS, order, settlement
from bench.systems import ROOT
from gatekeeper.clock import SystemClock
from gatekeeper.ports import Extension
from gatekeeper.rules.limits import BucketKey, CounterKey, Granted, Mode, RateLine, StockLine
from gatekeeper.stores import open_store

_SCOPES = ("agent", "customer", "global", "key", "user")
_NAMES = ("a", "b", "z")
_CALLERS = 8
# Every tenth order stands on a limit of nothing, after others that would have let it in.
_REFUSED = 0.1
_SPARE_S = 60.0


@dataclass(frozen=True)
class Crossing:
    """For how long, and where."""

    url: str
    seed: int
    seconds: float = 60.0
    processes: int = 3


def _lines(chance: random.Random) -> tuple[StockLine, ...]:
    keys = [CounterKey(scope, name, "units", "total", 0) for scope in _SCOPES for name in _NAMES]
    chosen = chance.sample(keys, chance.randint(2, 6))
    return tuple(
        StockLine(key, f"{key.scope} {key.subject}", 10**18, Mode.BLOCK, chance.randint(1, 9) * UNITS, UNITS, None)
        for key in chosen
    )


def _rates(chance: random.Random) -> tuple[RateLine, ...]:
    keys = [BucketKey(scope, name, "units", 60_000) for scope in _SCOPES for name in _NAMES]
    return tuple(RateLine(key, "rate", 10**15, UNITS, UNITS) for key in chance.sample(keys, chance.randint(0, 4)))


_NOTHING = StockLine(CounterKey("agent", "nothing", "units", "total", 0), "nothing", 0, Mode.BLOCK, UNITS, 0, None)


async def _caller(store: "object", name: str, until_s: float, chance: random.Random, took: Counter[str]) -> int:
    """Hold, extend, settle, one call after another; how many orders were answered."""
    now_s = asyncio.get_running_loop().time
    count = 0
    while now_s() < until_s:
        count += 1
        clock_ms = SystemClock().now_ms()
        lines, hopeless = _lines(chance), chance.random() < _REFUSED
        made = replace(order(f"{name}-{count}", name, clock_ms), stock=lines, rates=_rates(chance), output_tokens=4)
        if hopeless:
            made = replace(made, stock=(*lines, _NOTHING))
        verdict = await store.hold(made)  # type: ignore[attr-defined]
        assert isinstance(verdict, Granted) is not hopeless, verdict
        if hopeless:
            continue
        if chance.random() < 0.5:
            more = Extension(made.call_id, 5, 1, UNITS, True, clock_ms + 30_000, clock_ms)
            assert isinstance(await store.extend(more), Granted)  # type: ignore[attr-defined]
        units = chance.randint(0, 20) * UNITS
        end = settlement(made, clock_ms)
        end = replace(end, record=replace(end.record, units_micro=units), plan=None)
        assert (await store.settle(end)).first  # type: ignore[attr-defined]
        for line in lines:
            took[f"{line.key.scope} {line.key.subject}"] += units
    return count


async def process(url: str, seconds: float, seed: int) -> dict[str, object]:
    """What one process does: so many callers at once; what they took of each counter."""
    store = await open_store(url, clock=SystemClock())
    took: Counter[str] = Counter()
    until_s = asyncio.get_running_loop().time() + seconds
    name = f"{os.getpid()}-{seed}"
    callers = (
        _caller(store, f"{name}-{number}", until_s, random.Random(f"{seed} {number}"), took)
        for number in range(_CALLERS)
    )
    orders = sum(await asyncio.gather(*callers))
    await store.close()
    return {"orders": orders, "took": took}


async def crossing(wanted: Crossing, say: Callable[[str], None]) -> Report:
    """All processes at once, then the sums."""
    kind = wanted.url.partition(":")[0]
    report = Report(f"crossing locks, {kind}, {wanted.processes} processes")
    await (await open_store(wanted.url, clock=SystemClock())).close()
    started = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.chaos_crossing", wanted.url, str(wanted.seconds), str(wanted.seed + at),
            cwd=ROOT, stdout=subprocess.PIPE,
        )
        for at in range(wanted.processes)
    ]  # fmt: skip
    async with asyncio.timeout(wanted.seconds + _SPARE_S):
        answers = await asyncio.gather(*(one.communicate() for one in started))
    for one in started:
        report.must(one.returncode == 0, f"a process ended with {one.returncode}")
    found = [json.loads(out) for out, _ in answers if out]
    took: Counter[str] = Counter()
    for each in found:
        took.update(each["took"])
    counted = {
        f"{row[0]} {row[1]}": (row[2], row[3])
        for row in await rows(wanted.url, "SELECT scope, subject, used, held FROM counter")
    }
    counted.pop(f"{_NOTHING.key.scope} {_NOTHING.key.subject}", None)
    for name, (used, held) in counted.items():
        report.must(used == took[name], f"{name}: {used} counted, {took[name]} taken")
        report.must(held == 0, f"{name}: {held} still held")
    report.must(len(counted) == len(_SCOPES) * len(_NAMES), f"only {len(counted)} counters were used")
    if kind == "postgresql":
        # What is tried again after a deadlock comes out right and slow.
        asked = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        deadlocks = await number(wanted.url, asked)
        report.must(deadlocks == 0, f"{deadlocks} deadlocks")
        report.figures["deadlocks"] = deadlocks
    orders = [each["orders"] for each in found]
    report.must(all(orders), "a process got no answer at all")
    report.figures |= {"seed": wanted.seed, "orders": sum(orders), "units taken": sum(took.values()) // UNITS}
    say(f"{report.name}: {sum(orders)} orders in {wanted.seconds:g} s")
    return report


if __name__ == "__main__":
    print(json.dumps(asyncio.run(process(sys.argv[1], float(sys.argv[2]), int(sys.argv[3])))))
