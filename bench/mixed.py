"""``python -m bench.mixed``: JSON and streams over raw connections, as many as go, with the official SDKs among them.

The rule: zero wrong bytes, zero wrong charges. Every byte is compared with what the provider sent, every record with
what its answer costs; exit code 1 says that one was wrong.
"""

import asyncio
import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import commands
from bench.answers import SHAPES, Dialect, Wish
from bench.callers import Crowd, Saw, Tally
from bench.chaos_audit import Report
from bench.load import percentile
from bench.machine import cpu_s, pinned, two_cores
from bench.standing import Standing, database, stand, truthful
from bench.systems import ROOT, Rig
from bench.truth_audit import audit, settled, watch

CONNECTIONS = 24
# The SDKs take a second to import, and their last calls to end.
_SDK_GRACE_S = 60.0


@dataclass(frozen=True)
class Plan:
    """One run."""

    folder: Path
    seconds: float
    database: str
    seed: int
    connections: int = CONNECTIONS


async def _raw(crowd: Crowd, keys: list[str], plan: Plan) -> list[float]:
    """Closed loops over connections that are kept; the time of each call to its first byte, in seconds."""
    until_s = time.monotonic() + plan.seconds
    numbers = itertools.count(1)
    firsts: list[float] = []

    async def caller(number: int) -> None:
        chance = random.Random(f"{plan.seed} raw {number}")
        while time.monotonic() < until_s:
            wish = Wish(
                number=next(numbers),
                dialect=chance.choice(list(Dialect)),
                stream=chance.random() < 0.5,
                shape=chance.randrange(SHAPES),
                ask_usage=chance.random() < 0.5,
                pause_ms=chance.choice([0, 0, 0, 2]),
            )
            saw = await crowd.call(Saw(wish, chance.choice(keys)), fresh=chance.random() < 0.02)
            if not saw.complete:
                crowd.tally.wrong.append(f"call {saw.call_id} was answered with {saw.status} {saw.refusal!r}")
                # Not thousands of the same kind.
                await asyncio.sleep(0.1)
            firsts.append(saw.first_s - saw.sent_s)

    await asyncio.gather(*(caller(number) for number in range(plan.connections)))
    await crowd.close()
    return firsts


async def _mixed(plan: Plan, standing: Standing, report: Report, tally: Tally) -> None:
    await watch(standing)
    keys = list(standing.keys.values())
    spec = {"port": standing.port, "key": keys[0], "seconds": plan.seconds, "seed": plan.seed}
    sdk = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.mixed_sdk", json.dumps(spec), cwd=ROOT, stdout=subprocess.PIPE
    )
    used_s, began_s = cpu_s([standing.pid]), time.monotonic()
    firsts = await _raw(Crowd(standing.port, tally), keys, plan)
    async with asyncio.timeout(_SDK_GRACE_S):
        said, _ = await sdk.communicate()
    took_s = time.monotonic() - began_s
    report.must(sdk.returncode == 0, "the SDK clients broke off")
    found: dict[str, Any] = {"complete": {}, "wrong": [], "calls": {}, "received": 0}
    if sdk.returncode == 0:
        found = json.loads(said)
    tally.complete |= {call_id: (units, cost) for call_id, (units, cost) in found["complete"].items()}
    tally.hasty |= found["complete"].keys()
    tally.statuses["complete"] = tally.statuses.get("complete", 0) + len(found["complete"])
    tally.wrong += found["wrong"]
    tally.received += found["received"]
    tally.calls += sum(found["calls"].values())
    report.must(len(found["calls"]) == 4, f"not every SDK has called: {found['calls']}")
    report.figures |= {
        "raw calls/s": round(len(firsts) / plan.seconds),
        "raw first byte p50 / p99, ms": f"{percentile(firsts, 0.5) * 1e3:.1f} / {percentile(firsts, 0.99) * 1e3:.1f}",
        **{f"calls of the SDKs: {who}": count for who, count in sorted(found["calls"].items())},
        "of one core": f"{(cpu_s([standing.pid]) - used_s) / took_s:.0%}",
    }
    await settled(standing, report)


def run(plan: Plan, say: Callable[[str], None]) -> Report:
    """One run, from start to audit."""
    report = Report(f"mixed load of {plan.seconds:g} s, {plan.database}", {"seed": plan.seed})
    proxy_core, load_core = two_cores()
    tally = Tally()
    with ExitStack() as stack:
        provider_port = stack.enter_context(truthful(load_core, plan.seed))
        url = database(stack, plan.database, plan.folder)
        standing = stand(Rig(plan.folder, provider_port, proxy_core), stack, url)
        say(f"calling for {plan.seconds:g} s")
        with pinned(load_core):
            asyncio.run(_mixed(plan, standing, report, tally))
        report.must(standing.stop() == 0, f"the gateway did not stop well:\n{standing.log()[-2_000:]}")
        say("auditing")
        asyncio.run(audit(standing, tally, report))
    return report


def main() -> int:
    """The command line."""
    words = commands.words("mixed", __doc__)
    words.add_argument("--seconds", type=float, default=60.0, help="how long (default: 60)")
    asked = commands.asked(words)
    with tempfile.TemporaryDirectory(prefix="gk-mixed-") as folder:
        report = run(Plan(Path(folder), asked.seconds, asked.database, asked.seed), commands.say)
    return commands.printed([report], as_json=asked.json)


if __name__ == "__main__":
    sys.exit(main())
