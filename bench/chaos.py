"""``python -m bench.chaos``: kill, crowd, cut off and fill up real gateways, then compare ledger and clients.

It prints a line for each step, one table, and exits with 1 when anything at all was not as it must be.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from bench.chaos_audit import Report
from bench.chaos_crossing import Crossing, crossing
from bench.chaos_outages import Outage, away, full, restarts
from bench.chaos_rounds import Rounds, kill_rounds
from bench.chaos_streams import Crowd, crowd
from bench.machine import describe
from bench.systems import ROOT
from tests.fakes.cluster import Cluster, binaries, execute

SCENARIOS = ("kill", "points", "streams", "crossing", "restarts", "away", "full")
# A process that dies at each of some 120 points, and one that looks afterwards.
_POINTS_TIMEOUT_S = 300.0
Say = Callable[[str], None]
Running = Callable[[str, Path, Say], Awaitable[Report]]


@dataclass
class Databases:
    """A new database for each scenario, of each kind that was asked for. ``cluster`` is ours to be restarted."""

    kinds: tuple[str, ...]
    folder: Path
    server: str | None = None
    cluster: Cluster | None = None
    _made: list[str] = field(default_factory=list)

    def new(self, kind: str) -> tuple[str, Path]:
        """(its URL, a folder beside it)."""
        name = f"chaos_{int(time.time())}_{len(self._made)}"
        folder = self.folder / name
        folder.mkdir()
        self._made.append(name)
        if kind == "sqlite":
            return f"sqlite:///{folder}/chaos.sqlite", folder
        assert self.server is not None
        execute(self.server, f"CREATE DATABASE {name}")
        return urlunsplit(urlsplit(self.server)._replace(path=f"/{name}")), folder

    def drop(self, url: str) -> None:
        """Nothing is left on a server that is not ours."""
        if not url.startswith("sqlite") and self.cluster is None and self.server is not None:
            execute(self.server, f"DROP DATABASE {urlsplit(url).path[1:]} WITH (FORCE)")


async def points(url: str) -> Report:
    """Every enumerated point, in a process of its own: it forks, and must have no thread."""
    report = Report(f"every kill point, {url.partition(':')[0]}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.chaos_points", url,
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(_POINTS_TIMEOUT_S):
        out, err = await process.communicate()
    try:
        found = json.loads(out)
    except ValueError:
        report.must(False, f"it broke: {err.decode(errors='replace')[-2_000:]}")
        return report
    report.wrong += found["wrong"]
    report.figures |= {"points": sum(map(len, found["points"].values())), "deeds": len(found["points"])}
    report.must(all(found["points"].values()), "a deed without any point")
    return report


def planned(asked: argparse.Namespace, databases: Databases) -> Iterator[tuple[str, Running]]:
    """(kind of database, what is done on it), in the order in which it is done."""
    cluster, seed = databases.cluster, asked.seed

    def killing(url: str, folder: Path, say: Say) -> Awaitable[Report]:
        return kill_rounds(Rounds(folder, url, seed, asked.rounds, asked.clients, asked.workers), say)

    def crowding(workers: int) -> Running:
        return lambda url, folder, say: crowd(Crowd(folder, url, seed, asked.streams, workers), say)

    def outage(folder: Path) -> Outage:
        return Outage(folder, seed, restarts=asked.restarts, away_s=asked.away)

    for kind in databases.kinds:
        if "kill" in asked.only:
            yield kind, killing
        if "points" in asked.only:
            yield kind, lambda url, folder, say: points(url)
        if "streams" in asked.only:
            yield kind, crowding(1)
            yield kind, crowding(4)
        if "crossing" in asked.only:
            yield kind, lambda url, folder, say: crossing(Crossing(url, seed, asked.seconds), say)
        if kind == "sqlite" and "full" in asked.only:
            yield kind, lambda url, folder, say: full(outage(folder), say)
        if kind == "postgres" and cluster is not None:
            if "restarts" in asked.only:
                yield kind, lambda url, folder, say: restarts(outage(folder), cluster, url, say)
            if "away" in asked.only:
                yield kind, lambda url, folder, say: away(outage(folder), cluster, url, say)


def run(asked: argparse.Namespace, say: Say) -> list[Report]:
    """Everything that was asked for, one after another; what breaks is a report, too."""
    reports = []
    with ExitStack() as stack:
        databases = prepared(asked, stack, say)
        for kind, scenario in planned(asked, databases):
            url, folder = databases.new(kind)
            began_s = time.monotonic()
            try:
                report = asyncio.run(scenario(url, folder, say))  # type: ignore[arg-type]
            except Exception as failure:  # noqa: BLE001 - the others are still to be run
                traceback.print_exc()
                report = Report(f"{kind}: {folder.name}", wrong=[f"it broke: {failure!r}"])
            finally:
                databases.drop(url)
            report.figures["took s"] = round(time.monotonic() - began_s, 1)
            for wrong in report.wrong:
                say(f"WRONG: {report.name}: {wrong}")
            reports.append(report)
    return reports


def prepared(asked: argparse.Namespace, stack: ExitStack, say: Say) -> Databases:
    """The databases, and the server that they stand on."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gk-chaos-")))
    kinds = ("sqlite", "postgres") if asked.database == "both" else (asked.database,)
    databases = Databases(kinds, folder, asked.postgres)
    if "postgres" in kinds and asked.postgres is None:
        found = binaries()
        if found is None:
            say("no Postgres binaries here: only SQLite (or give --postgres URL)")
            databases.kinds = tuple(kind for kind in kinds if kind != "postgres")
        else:
            databases.cluster = Cluster(found)
            stack.callback(databases.cluster.stop)
            databases.server = databases.cluster.dsn
    elif "postgres" in kinds:
        say("a server that is not ours is not restarted: 'restarts' and 'away' are left out")
    return databases


def rendered(reports: list[Report]) -> str:
    """One line for each scenario, and what it counted below."""
    lines = []
    for report in reports:
        lines.append(f"{'WRONG' if report.wrong else 'ok   '}  {report.name}")
        lines.append("       " + ", ".join(f"{name}: {value}" for name, value in report.figures.items()))
        lines += [f"       {wrong}" for wrong in report.wrong[:20]]
    wrong = sum(bool(report.wrong) for report in reports)
    lines.append(f"{wrong} of {len(reports)} went wrong." if wrong else f"All {len(reports)} are as they must be.")
    return "\n".join(lines)


def main() -> int:
    """The command line."""
    words = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    words.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    words.add_argument(
        "--postgres", metavar="URL", help="a server whose user may create databases; else a throw-away one"
    )
    words.add_argument("--only", metavar="A,B", help=f"of: {', '.join(SCENARIOS)}", default=",".join(SCENARIOS))
    words.add_argument("--rounds", type=int, default=50, help="of kill -9, on each database (default: 50)")
    words.add_argument("--clients", type=int, default=24, help="during those (default: 24)")
    words.add_argument("--workers", type=int, default=1, help="processes of the gateway that is killed (default: 1)")
    words.add_argument("--streams", type=int, default=1_000, help="before the $5.00 (default: 1000)")
    words.add_argument("--seconds", type=float, default=60, help="of crossing locks (default: 60)")
    words.add_argument("--restarts", type=int, default=5, help="of Postgres under load (default: 5)")
    words.add_argument(
        "--away", type=float, default=20, help="seconds without Postgres; holds live for 4 (default: 20)"
    )
    words.add_argument("--seed", type=int, default=random.randrange(10**6), help="of everything that is left to chance")
    words.add_argument("--json", metavar="FILE", help="the results for scripts; - prints them instead of the table")
    asked = words.parse_args()
    asked.only = asked.only.split(",")
    if unknown := set(asked.only) - set(SCENARIOS):
        words.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(SCENARIOS)}")
    began_s = time.monotonic()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    say(f"seed {asked.seed}")
    reports = run(asked, say)
    results = {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": asked.seed,
        "took_s": round(time.monotonic() - began_s, 1),
        "machine": describe(),
        "reports": [{"name": one.name, "figures": one.figures, "wrong": one.wrong} for one in reports],
    }
    if asked.json == "-":
        print(json.dumps(results))
    else:
        print(rendered(reports))
        if asked.json:
            Path(asked.json).write_text(json.dumps(results, indent=1) + "\n")
    return 1 if any(report.wrong for report in reports) or not reports else 0


if __name__ == "__main__":
    sys.exit(main())
