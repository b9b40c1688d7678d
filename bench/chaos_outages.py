"""The ledger's world fails under load: Postgres is cut off and restarted, stays away, or the disk of SQLite is full.

The rule: the gateway stays up. Calls are refused, or end on the journal; when the world is well again everything that a
client saw complete is on record once.
"""

import asyncio
import contextlib
import itertools
import random
import resource
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos_audit import MICRO, Report, check_calls, check_sums, doctor, idle, rows, watch_caps
from bench.chaos_rig import Gateway, Provider, Seen, Wish, call
from tests.fakes.cluster import Cluster

CAP = 200_000
PLANS = {
    "chaos": f'name = "Chaos"\nmonthly_price = 9\n[quota]\nunits = {CAP}\nwindow = "month"\nwhen_used = "block"\n'
    '[[limits]]\nscope = "key"\ndollars = "1000"\nwindow = "month"\n'
    '[[rates]]\nunits = 100_000_000\nper = "minute"\n'
}
MORE = '[[limits]]\nscope = "global"\nunits = 1_000_000_000\nwindow = "month"\n'
# So long (settle_wait_s) a stream that needs more waits for the ledger; then it is cut, and told so.
WAITS_S = 10
# Long enough for a busy machine to beat in time, short enough to wait for.
TTL_S = 4
# A stream of that many tokens is asked to be extended twice on its way; one of SHORT never is.
LONG, SHORT = 40, 12
# What a file may still be when the disk is full, and how long that takes at most to be felt twice over.
_FULL_BYTES_MAX = 256 * 1024
_FULL_WITHIN_S = 30.0


@dataclass
class Load:
    """Clients that call again and again until they are told to stop; then each ends its call."""

    gateway: Gateway
    key: str
    chance: random.Random
    seen: list[Seen] = field(default_factory=list)
    stopping: bool = False

    async def client(self) -> None:
        """One of them."""
        while not self.stopping:
            tokens = self.chance.choice((1, SHORT, LONG))
            wish = Wish(tokens, tokens + 5, self.chance.choice((0.0, 0.01, 0.03)), stream=self.chance.random() < 0.8)
            one = Seen(wish)
            self.seen.append(one)
            await call(self.gateway.port, self.key, wish, one)
            if one.status != 200:
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        """Until the block ends, and all calls have."""
        tasks = [asyncio.create_task(self.client()) for _ in range(clients)]
        try:
            yield
        finally:
            self.stopping = True
            async with asyncio.timeout(60):
                await asyncio.gather(*tasks)


@dataclass(frozen=True)
class Outage:
    """Where, for how long, and how many clients."""

    folder: Path
    seed: int
    clients: int = 16
    workers: int = 2
    # How often Postgres is restarted, and for how long it stays away.
    restarts: int = 5
    away_s: float = 20.0
    # How often the disk of SQLite is full for two seconds.
    fillings: int = 2


@contextlib.asynccontextmanager
async def _loaded(wanted: Outage, url: str, report: Report, workers: int) -> AsyncIterator[tuple[Gateway, Load]]:
    """A gateway under load; afterwards it is stopped, and everything is audited."""
    async with Provider().serving() as provider:
        gateway = Gateway(wanted.folder, url, provider.port, workers, PLANS, MORE, hold_ttl_s=TTL_S)
        gateway.write()
        key = (await gateway.customers([("acme", "chaos")]))["acme"]
        await watch_caps(url, [("customer", "acme", "units", CAP * MICRO)], growth_only=True)
        await gateway.start()
        load = Load(gateway, key, random.Random(wanted.seed))
        try:
            async with load.running(wanted.clients):
                yield gateway, load
            report.must(await idle(url, 30), "something is still held half a minute later")
        finally:
            report.must(await gateway.stop() == 0, f"the gateway did not stop well:\n{gateway.log()}")
    left = [path.name for path in (wanted.folder / "journal").glob("*")]
    report.must(not left, f"{left} is left in the journal")
    report.figures["seed"] = wanted.seed
    await check_sums(url, report)
    await check_calls(url, load.seen, report)
    report.must(report.figures["complete"], "no call was complete at all")
    report.must(all(one.code in _SAID for one in load.seen if one.status not in (0, 200)), "refused in strange words")
    await asyncio.to_thread(doctor, wanted.folder, report)


_SAID = ("ledger_unavailable", "limit_held", "exceeds_limit", "quota_exceeded")


def _journaled(folder: Path) -> int:
    """How many lines wait in the journals."""
    return sum(path.read_bytes().count(b"\n") for path in (folder / "journal").glob("*.jsonl"))


async def restarts(wanted: Outage, cluster: Cluster, url: str, say: Callable[[str], None]) -> Report:
    """Postgres is stopped as by ``pg_ctl stop -m immediate`` and started again, at random moments under load."""
    report = Report(f"restarts of Postgres, {wanted.workers} processes")
    chance = random.Random(wanted.seed)
    async with _loaded(wanted, url, report, wanted.workers) as (_, load):
        for number in range(wanted.restarts):
            await asyncio.sleep(chance.uniform(0.7, 2.0))
            before = sum(one.complete for one in load.seen)
            await asyncio.to_thread(cluster.crash)
            await asyncio.to_thread(cluster.start)
            say(f"{report.name}: restart {number + 1} of {wanted.restarts} after {before} complete calls")
        await asyncio.sleep(3)
    report.figures["restarts"] = wanted.restarts
    return report


async def away(wanted: Outage, cluster: Cluster, url: str, say: Callable[[str], None]) -> Report:
    """Postgres is away for many times the life of a hold. Streams that end meanwhile end on the journal; longer ones
    wait and go on, or are cut in words after 10 s: nobody takes their holds for those of the dead."""
    report = Report(f"Postgres away for {wanted.away_s:g} s, {wanted.workers} processes")
    async with _loaded(wanted, url, report, wanted.workers) as (_, load):
        await asyncio.sleep(2)
        gone_s = time.monotonic()
        await asyncio.to_thread(cluster.crash)
        at = len(load.seen)
        before = sum(one.complete for one in load.seen)
        open_calls = [one for one in load.seen if one.status in (0, 200) and not one.ended]
        await asyncio.sleep(wanted.away_s)
        meanwhile, waiting = sum(one.complete for one in load.seen) - before, _journaled(wanted.folder)
        say(f"{report.name}: {meanwhile} calls ended meanwhile, {waiting} records wait in the journals")
        await asyncio.to_thread(cluster.start)
        # Postgres takes its time to recover, too.
        gone_s = time.monotonic() - gone_s
        await asyncio.sleep(4)
        went_on = sum(one.complete for one in open_calls) - meanwhile
        cut = [one for one in open_calls if one.status == 200 and not one.complete]
        refused = sum(one.status == 503 for one in load.seen[at:])
        say(f"{report.name}: back; {went_on} streams went on, {len(cut)} were cut, {refused} calls were refused")
    report.must(waiting >= meanwhile, f"{meanwhile} calls ended and only {waiting} records wait in the journals")
    report.must(meanwhile, "no call ended while Postgres was away")
    # One that began to wait just before and slept just then has a second more or less.
    if gone_s < WAITS_S - 2:
        report.must(not cut, f"{len(cut)} streams were cut when Postgres was back")
    told = [one for one in cut if one.ended and b"ledger_unavailable" in one.events]
    report.must(len(told) == len(cut), f"{len(cut) - len(told)} streams were cut and not told why")
    report.must(refused, "no call was refused while Postgres was away")
    report.figures |= {
        "gone s": round(gone_s, 1),
        "ended meanwhile": meanwhile,
        "journaled": waiting,
        "went on": went_on,
        "cut": len(cut),
    }
    return report


async def full(wanted: Outage, say: Callable[[str], None]) -> Report:
    """No file of the gateway may grow any more (RLIMIT_FSIZE, from outside), which SQLite takes for a full disk; then
    there is room again."""
    report = Report("SQLite's disk is full")
    url = f"sqlite:///{wanted.folder}/full.sqlite"
    log = wanted.folder / "full.sqlite-wal"
    most = 0
    async with _loaded(wanted, url, report, 1) as (gateway, load):
        await asyncio.sleep(1)
        for turn in range(wanted.fillings):
            # The log begins again at its start after every checkpoint: its size may be far beyond where it is written.
            _allow(gateway, min(log.stat().st_size, _FULL_BYTES_MAX))
            refused, until_s = 0, time.monotonic() + _FULL_WITHIN_S
            for round_number in itertools.count():
                await asyncio.sleep(0.1)
                most = max(most, _journaled(wanted.folder))
                refused = sum(one.status == 503 for one in load.seen)
                if (round_number >= 20 and refused and most) or time.monotonic() > until_s:
                    break
            before = sum(one.complete for one in load.seen)
            _allow(gateway, resource.RLIM_INFINITY)
            say(f"{report.name}: {turn + 1}: {refused} calls refused, at most {most} records in the journal")
            report.must(refused, "no call was refused")
            await asyncio.sleep(2)
            after = sum(one.complete for one in load.seen)
            report.must(after > before, "nothing went on when there was room again")
    report.must(most, "no record waited in the journal")
    ((said,),) = await rows(url, "PRAGMA integrity_check")
    report.must(said == "ok", f"the file is damaged: {said}")
    report.figures |= {"journaled": most, "integrity": said}
    return report


def _allow(gateway: Gateway, size: int) -> None:
    for pid in gateway.pids():
        _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
