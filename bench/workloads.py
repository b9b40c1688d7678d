"""The work that every system is given, and the figures that come out of it.

A workload runs one load client against one system and returns figures by name; times in ms, CPU in us, memory in KiB.
The rule: CPU time is the proxy's own, over all calls that it carried, so the load client cannot hide in it.
"""

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.machine import Quiet, cpu_s, memory_bytes, pinned
from bench.payloads import request
from bench.systems import ROOT, System

CONNECTIONS = 32
CHUNKS = 100
# Held streams have sent so many events, then nothing more.
_HELD = "held 3"
_WARM_STREAMS = 20

Figures = dict[str, float]


@dataclass
class Lengths:
    """How long each workload runs once, in seconds, and how many streams are held open."""

    json_s: float
    alone_s: float
    paced_s: float
    flat_s: float
    held: int


@dataclass
class Bench:
    """Where and how to run: the cores, the lengths, and what was wrong."""

    folder: Path
    load_core: int | None
    lengths: Lengths
    quiet: Quiet
    provider_pid: int
    complaints: list[str] = field(default_factory=list)

    def run(
        self, system: System, spec: dict[str, Any], command: list[str] | None = None
    ) -> tuple[dict[str, Any], Figures]:
        """One load client against one system: what it said, and CPU seconds of the proxy and of its database."""
        spec = addressed(system, spec)
        command = command or [sys.executable, "-m", "bench.load", json.dumps(spec)]
        ours = [*system.pids, *system.database_pids, self.provider_pid]
        before, beside = cpu_s(system.pids), cpu_s(system.database_pids)
        with self.quiet.watching(ours), pinned(self.load_core):
            done = subprocess.run(
                command, cwd=ROOT, capture_output=True, text=True, timeout=spec["seconds"] + 30, check=False
            )
        # The last records may still be on their way into the database.
        time.sleep(0.05)
        used = {"cpu_s": cpu_s(system.pids) - before, "beside_s": cpu_s(system.database_pids) - beside}
        if done.returncode != 0:
            raise RuntimeError(f"the load client failed against {system.name}: {done.stderr[-1_000:]}")
        said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        self.check(system, spec, said)
        return said, used

    def check(self, system: System, spec: dict[str, Any], said: dict[str, Any]) -> None:
        """Remember what was not answered as it should be."""
        if said.get("wrong") or said.get("failed"):
            where = f"{system.name}, {spec['mode']} {spec.get('wish', '')!r}"
            wrong, failed = said.get("wrong", 0), said.get("failed", 0)
            self.complaints.append(f"{where}: {wrong} wrong, {failed} failed; the first: {said.get('why', '')[:300]}")


def addressed(system: System, spec: dict[str, Any]) -> dict[str, Any]:
    """A specification for the load client, with where to and what every call to this system needs."""
    where = {"port": system.port, "key": system.key, "headers": system.headers, "rewrites": system.rewrites}
    return {**where, **spec}


def json_calls(bench: Bench, system: System) -> Figures:
    """Small JSON calls over 32 connections, as many as go."""
    spec = {"mode": "clients", "wish": "", "connections": CONNECTIONS, "seconds": bench.lengths.json_s}
    said, used = bench.run(system, spec, _wrk(bench, system))
    found = {
        "json_calls_per_s": said["calls_per_s"],
        "json_p50_ms": said["first_ms"]["p50"],
        "json_p99_ms": said["first_ms"]["p99"],
    }
    return found | _per("json", "call", used, said["calls"], system)


def alone(bench: Bench, system: System) -> Figures:
    """One connection, one call after another: what the proxy adds. Read beside the same figures of ``direct``."""
    seconds = bench.lengths.alone_s / 2
    whole, _ = bench.run(system, {"mode": "alone", "wish": "", "seconds": seconds})
    stream, _ = bench.run(system, {"mode": "alone", "wish": "flat 4", "seconds": seconds})
    found = {"alone_json_p50_ms": whole["last_ms"]["p50"], "alone_json_p99_ms": whole["last_ms"]["p99"]}
    if stream["wrong"]:
        return found
    return found | {
        "alone_first_p50_ms": stream["first_ms"]["p50"],
        "alone_first_p99_ms": stream["first_ms"]["p99"],
    }


def paced(streams: int, *, ask_usage: bool = True) -> Callable[[Bench, System], Figures]:
    """So many streams at once, each an event every 10 ms. ``ask_usage`` False: as clients that know nothing of it."""
    prefix = f"paced{streams}" if ask_usage else f"unasked{streams}"

    def run(bench: Bench, system: System) -> Figures:
        spec = {
            "mode": "clients",
            "wish": f"paced {CHUNKS}",
            "connections": streams,
            "seconds": bench.lengths.paced_s,
            # Where nobody hides the usage event, everybody sees it.
            "ask_usage": ask_usage or not system.name.startswith("whole"),
        }
        said, used = bench.run(system, spec)
        if not said["events"]:
            return {}
        found = {
            f"{prefix}_chunks_per_s": said["events_per_s"],
            f"{prefix}_delay_p50_ms": said["delay_ms"]["p50"],
            f"{prefix}_delay_p99_ms": said["delay_ms"]["p99"],
            f"{prefix}_first_p50_ms": said["first_ms"]["p50"],
            f"{prefix}_first_p99_ms": said["first_ms"]["p99"],
        }
        return found | _per(prefix, "chunk", used, said["events"], system)

    return run


def flat(bench: Bench, system: System) -> Figures:
    """Streams without any pace: what a chunk costs where one read holds many."""
    spec = {"mode": "clients", "wish": f"flat {CHUNKS}", "connections": CONNECTIONS, "seconds": bench.lengths.flat_s}
    said, used = bench.run(system, spec)
    if not said["events"]:
        return {}
    return {"flat_chunks_per_s": said["events_per_s"]} | _per("flat", "chunk", used, said["events"], system)


def memory(bench: Bench, system: System) -> Figures:
    """What one open, silent stream holds, beyond a proxy that has carried some."""
    if not system.pids:
        return {}
    grown = []
    for count in (_WARM_STREAMS, bench.lengths.held):
        before = memory_bytes(system.pids)
        spec = addressed(system, {"mode": "held", "wish": _HELD, "connections": count})
        with (
            pinned(bench.load_core),
            subprocess.Popen(
                [sys.executable, "-m", "bench.load", json.dumps(spec)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as client,
        ):
            assert client.stdout is not None
            if client.stdout.readline().strip() != "ready":
                client.kill()
                bench.complaints.append(f"{system.name} does not hold {count} streams open")
                return {}
            grown.append(memory_bytes(system.pids) - before)
            client.communicate("\n", timeout=20)
    # Calls that were hung up on are settled before the next workload begins.
    time.sleep(0.3)
    return {"stream_kib": grown[-1] / bench.lengths.held / 1024, "held_streams": float(bench.lengths.held)}


def warm(bench: Bench, system: System) -> None:
    """Connections, caches and first-time costs, before anything counts."""
    for wish in ("", "paced 20", "flat 100"):
        bench.run(system, {"mode": "clients", "wish": wish, "connections": CONNECTIONS, "seconds": 0.2})


def _per(prefix: str, what: str, used: Figures, count: int, system: System) -> Figures:
    """CPU of the proxy, and of its database, for one call or chunk."""
    if not system.pids or not count:
        return {}
    found = {f"{prefix}_cpu_us_per_{what}": used["cpu_s"] / count * 1e6}
    if used["beside_s"]:
        found[f"{prefix}_database_us_per_{what}"] = used["beside_s"] / count * 1e6
    return found


_WRK_SCRIPT = """
wrk.method = "POST"
wrk.body = {body}
{headers}
function done(summary, latency, requests)
    local e = summary.errors
    io.write(string.format('{{"calls":%d,"calls_per_s":%.1f,"failed":%d,"why":"as wrk counts",' ..
        '"first_ms":{{"p50":%.4f,"p99":%.4f}}}}\\n',
        summary.requests, summary.requests / summary.duration * 1e6,
        e.connect + e.read + e.write + e.status + e.timeout,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


def _wrk(bench: Bench, system: System) -> list[str] | None:
    """wrk costs a tenth of a client in Python, so that it is not what is measured. None where it is not installed."""
    if shutil.which("wrk") is None:
        return None
    head, _, body = request(system.port, system.key, headers=system.headers).decode().partition("\r\n\r\n")
    fields = [line.partition(": ") for line in head.split("\r\n")[1:]]
    skipped = re.compile("host|content-length")
    headers = "\n".join(f"wrk.headers[{json.dumps(n)}] = {json.dumps(v)}" for n, _, v in fields if not skipped.match(n))
    script = bench.folder / f"{system.name}.lua"
    script.write_text(_WRK_SCRIPT.format(body=json.dumps(body), headers=headers))
    url = f"http://127.0.0.1:{system.port}/v1/chat/completions"
    seconds = max(1, round(bench.lengths.json_s))
    return ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "20s", "-s", str(script), url]
