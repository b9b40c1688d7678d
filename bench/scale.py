"""``python -m bench --scale``: what a call costs with few and with very many customers and records in the database.

The rule: a large database holds what the gateway itself wrote for one customer and one call, over and over with other
names; so it follows the schema. Only ratios of one run are compared: the machine is the same for all.
"""

import asyncio
import hashlib
import itertools
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from bench.chaos_audit import Report
from bench.load import Client, Tally
from bench.machine import cpu_s, pinned, two_cores
from bench.payloads import JSON_BODY, request
from bench.systems import GATEWAY, PLAN, ROOT, Rig, System, free_port, provider, spawn, start_whole_sqlite
from gatekeeper.rules import keys as key_rules

# (customers, records). One grows, the other, both.
FULL = ((10, 1), (10_000, 1), (1_000_000, 1), (10, 1_000_000), (1_000_000, 10_000_000))
SMALL = ((10_000, 1), (100_000, 1))
FILL_S_MAX = 600.0
# Of all that are asked for; the rest of the disk is somebody else's.
DISK_SHARE_MAX = 0.5
_RECORD_BYTES = 1_000
_STEP = 500_000
_CONNECTIONS = 16
_FEW, _MANY = 10, 5_000
# A call may cost so much more in the largest database than in the smallest.
RATIO_MAX = 1.5
_SECRET_SALT = "scale"
_SPREAD_MS = 30 * 86_400_000


@dataclass(frozen=True)
class World:
    """A gateway before a database of that size. ``few`` and ``many`` are keys of customers in it."""

    customers: int
    records: int
    system: System
    few: list[str]
    many: list[str]

    @property
    def name(self) -> str:
        """For the table."""
        return f"{self.customers:,} customers, {self.records:,} records"


def _secret(number: int) -> str:
    entropy = hashlib.sha256(f"{_SECRET_SALT} {number}".encode()).digest()[: key_rules.ENTROPY_BYTES]
    return key_rules.make_key(entropy)


def repeat(
    connection: sqlite3.Connection, table: str, first: int, last: int, changed: Mapping[str, str], where: str = "1"
) -> None:
    """The rows of a table that fulfil ``where``, again for each number ``i`` from ``first`` to ``last``, with some
    columns changed (SQL, in which ``i`` is the number)."""
    columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
    made = ", ".join(changed.get(column, f"t.{column}") for column in columns)
    # Apart from the table, which grows while it would be looked through for each number.
    connection.execute(f"CREATE TEMP TABLE template AS SELECT * FROM {table} WHERE {where}")
    connection.execute(
        f"WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})"
        f" INSERT INTO {table} ({', '.join(columns)})"
        f" SELECT {made} FROM n CROSS JOIN template AS t"
    )
    connection.execute("DROP TABLE template")


def fill(path: Path, customers: int, records: int, until_s: float) -> int:
    """Fill a database that holds one customer ("bench") with one key and one record; the number of records that there
    was time for. Afterwards as many callers as are needed have keys that are known (``_secret``)."""
    name = "printf('c%08d', i)"
    owner = f"printf('c%08d', (i * 7919) % {customers} + 1)"
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = -400000", "foreign_keys = OFF"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute("BEGIN")
        repeat(connection, "customer", 1, customers, {"id": name}, "id = 'bench'")
        key = {"id": "printf('k%08d', i)", "customer_id": name, "digest": "lower(hex(randomblob(32)))"}
        repeat(connection, "api_key", 1, customers, key, "customer_id = 'bench'")
        ours = "SELECT id FROM api_key WHERE customer_id = 'bench'"
        for table in ("counter", "bucket"):
            repeat(connection, table, 1, customers, {"subject": name}, "subject = 'bench'")
            repeat(connection, table, 1, customers, {"subject": key["id"]}, f"subject IN ({ours})")
        for number in range(1, min(customers, _MANY) + 1):
            digest = key_rules.digest(_secret(number))
            key_id = f"k{_spread(number, customers):08d}"
            connection.execute("UPDATE api_key SET digest = ? WHERE id = ?", (digest, key_id))
        made = _fill_records(connection, owner, records, until_s)
        connection.execute("COMMIT")
        connection.execute("ANALYZE")
    return made


def _spread(number: int, customers: int) -> int:
    """Callers stand apart from each other, not on the same pages."""
    return (number - 1) * max(1, customers // _MANY) % customers + 1


def _fill_records(connection: sqlite3.Connection, owner: str, records: int, until_s: float) -> int:
    """In steps, as long as there is time. Indexes are made anew at the end: so many single entries would take hours."""
    question = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'usage_record' AND sql > ''"
    indexes = connection.execute(question).fetchall()
    ((one,),) = connection.execute("SELECT call_id FROM usage_record").fetchall()
    for name, _ in indexes:
        connection.execute(f"DROP INDEX {name}")
    at = 1
    while at < records and time.monotonic() < until_s:
        last = min(at + _STEP, records)
        began = f"(t.started_ms - {_SPREAD_MS} + i * {_SPREAD_MS} / {records})"
        changed = {
            "call_id": "printf('call_0%013d', i)",
            "customer_id": owner,
            "key_id": f"replace({owner}, 'c', 'k')",
            "started_ms": began,
            "ended_ms": began,
            "day": f"strftime('%Y-%m-%d', {began} / 1000, 'unixepoch')",
            "response_id": "printf('chatcmpl-%013d', i)",
        }
        repeat(connection, "usage_record", at + 1, last, changed, f"call_id = '{one}'")
        at = last
    for _, sql in indexes:
        connection.execute(sql)
    return at


def _seed(rig: Rig) -> Path:
    """A database in which the gateway wrote one customer, one key and one call."""
    with ExitStack() as stack:
        system = start_whole_sqlite(rig, stack)
        spec = {"port": system.port, "keys": [system.key], "seconds": 0.2, "connections": 1}
        said = asyncio.run(calls(spec))
        assert said["calls"], said["why"]
    return rig.folder / "whole.sqlite"


def _only_one(path: Path) -> None:
    """Whatever number of calls there were: one record is what is repeated."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("DELETE FROM usage_record WHERE rowid > (SELECT MIN(rowid) FROM usage_record)")


def _world(rig: Rig, stack: ExitStack, seed: Path, customers: int, records: int, until_s: float) -> World:
    folder = rig.folder / f"scale-{customers}-{records}"
    (folder / "plans").mkdir(parents=True)
    path = folder / "scale.sqlite"
    shutil.copy(seed, path)
    free_bytes = shutil.disk_usage(folder).free * DISK_SHARE_MAX
    made = fill(path, customers, min(records, int(free_bytes / _RECORD_BYTES)), until_s)
    system = System(folder.name, free_port(), database_url=f"sqlite:///{path}")
    text = GATEWAY.format(port=system.port, url=system.database_url, upstream=rig.provider_port)
    (folder / "gateway.toml").write_text(text)
    (folder / "plans" / "bench.toml").write_text(PLAN)
    command = [sys.executable, "-m", "gatekeeper.cli.main", "serve", "--config", str(folder / "gateway.toml")]
    spawn(rig, stack, system, command)
    secrets = [_secret(number) for number in range(1, min(customers, _MANY) + 1)]
    return World(customers, made, system, secrets[:_FEW], secrets)


class _Caller(Client):
    """A client whose every call has the next key of all."""

    def __init__(self, tally: Tally, requests: "itertools.cycle[bytes]") -> None:
        super().__init__(tally, b"", None, usage=True, paced=False, rewrites=False)
        self._requests = requests

    def _ask(self) -> None:
        self._request = next(self._requests)
        super()._ask()


async def calls(spec: dict[str, Any]) -> dict[str, Any]:
    """JSON calls for some seconds, the keys in turn."""
    loop = asyncio.get_running_loop()
    tally = Tally(time.monotonic() + spec["seconds"])
    requests = itertools.cycle([request(spec["port"], key) for key in spec["keys"]])
    clients = [_Caller(tally, requests) for _ in range(spec["connections"])]
    for client in clients:
        await loop.create_connection(lambda client=client: client, "127.0.0.1", spec["port"])  # type: ignore[misc]
    await asyncio.gather(*(client.done for client in clients))
    return {"calls": tally.calls, "wrong": tally.wrong, "failed": tally.failed, "why": tally.why}


def _measured(world: World, keys: list[str], seconds: float, core: int | None, report: Report) -> float:
    """CPU of the gateway for a call, in us."""
    # The keys are too many for a command line.
    spec = json.dumps({"port": world.system.port, "keys": keys, "seconds": seconds, "connections": _CONNECTIONS})
    before = cpu_s(world.system.pids)
    with pinned(core):
        done = subprocess.run(
            [sys.executable, "-m", "bench.scale"],
            cwd=ROOT, input=spec, capture_output=True, text=True, timeout=seconds + 60, check=True,
        )  # fmt: skip
    said: dict[str, Any] = json.loads(done.stdout)
    report.must(not said["wrong"] and not said["failed"], f"{world.name}: {said}")
    made: int = said["calls"]
    return (cpu_s(world.system.pids) - before) / max(1, made) * 1e6


def median(found: Sequence[float]) -> float:
    """The middle one."""
    return sorted(found)[len(found) // 2]


def run(
    folder: Path,
    say: Callable[[str], None],
    sizes: Sequence[tuple[int, int]] = FULL,
    *,
    rounds: int = 3,
    seconds: float = 3.0,
    fill_s_max: float = FILL_S_MAX,
) -> Report:
    """Fill, start a gateway before each database, and measure them in turn: A B A B."""
    report = Report("what a call costs, by the size of the database")
    proxy_core, load_core = two_cores()
    assert len(JSON_BODY) < 1_000
    with ExitStack() as stack:
        provider_port, _ = stack.enter_context(provider(load_core))
        rig = Rig(folder, provider_port, proxy_core)
        seed = _seed(rig)
        _only_one(seed)
        worlds = []
        until_s = time.monotonic() + fill_s_max
        for customers, records in sizes:
            began_s = time.monotonic()
            world = _world(rig, stack, seed, customers, records, until_s)
            worlds.append(world)
            size_mib = (folder / f"scale-{customers}-{records}" / "scale.sqlite").stat().st_size >> 20
            say(f"{world.name}: {size_mib:,} MiB, filled in {time.monotonic() - began_s:.0f} s")
            if world.records < records:
                report.figures[f"not filled: {customers:,} customers"] = f"{world.records:,} of {records:,} records"
        kinds = {"few": [world.few for world in worlds], "many": [world.many for world in worlds]}
        found: dict[tuple[str, int], list[float]] = {(kind, at): [] for kind in kinds for at in range(len(worlds))}
        for number in range(rounds + 1):
            for kind, keys in kinds.items():
                for at, world in enumerate(worlds):
                    cost_us = _measured(world, keys[at], seconds if number else 0.5, load_core, report)
                    # The first round warms up.
                    if number:
                        found[kind, at].append(cost_us)
            say(f"round {number} of {rounds}")
    judge(worlds, {where: median(costs) for where, costs in found.items()}, report)
    return report


def judge(worlds: Sequence[World], found: Mapping[tuple[str, int], float], report: Report) -> None:
    """The largest beside the smallest: the same few callers; and callers so many that none is remembered."""
    for at, world in enumerate(worlds):
        report.figures[world.name] = (
            f"{found['few', at]:.0f} us a call of {len(world.few)} keys, {found['many', at]:.0f} of {len(world.many)}"
        )
    for kind in ("few", "many"):
        # Where there are fewer customers than callers, these are remembered, and that is another thing.
        fair = [at for at, world in enumerate(worlds) if kind == "few" or len(world.many) == _MANY]
        if len(fair) < 2:
            continue
        first, last = found[kind, fair[0]], found[kind, fair[-1]]
        ratio = last / first if first else 0.0
        said = f"{worlds[fair[-1]].name} / {worlds[fair[0]].name}, {kind} keys"
        report.figures[said] = f"{ratio:.2f} (at most {RATIO_MAX:g})"
        report.must(ratio <= RATIO_MAX, f"a call costs {ratio:.2f} times as much: {said}")


def main(say: Callable[[str], None], *, small: bool = False) -> Report:
    """The whole run in a temporary folder; ``small`` is what tests do."""
    with tempfile.TemporaryDirectory(prefix="gk-scale-") as folder:
        if small:
            return run(Path(folder), say, SMALL, rounds=1, seconds=1.0)
        return run(Path(folder), say)


if __name__ == "__main__":
    # The load client of one measurement.
    print(json.dumps(uvloop.run(calls(json.loads(sys.stdin.read())))))
