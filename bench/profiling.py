"""Where the time of the whole product goes: py-spy's samples of a running gateway, or cProfile's counts."""

import json
import pstats
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from bench.machine import cpu_s, pinned, threads_cpu_s, two_cores
from bench.systems import ROOT, Rig, System, provider, start_whole_sqlite

LOADS = {
    "whole-json": {"mode": "clients", "wish": "", "connections": 32},
    "whole-stream": {"mode": "clients", "wish": "paced 100", "connections": 200},
}
SECONDS = 15.0
_WARM_S = 1.0
_TOP = 25
_RATE_HZ = 150


def run(name: str, *, counting: bool) -> int:
    """Print the summary for one of LOADS. ``counting``: with cProfile, which slows down small calls most."""
    spy = _py_spy()
    if spy is None and not counting:
        print("py-spy is not installed: cProfile counts instead, which makes small calls look dear", file=sys.stderr)
        counting = True
    with tempfile.TemporaryDirectory(prefix="gk-bench-") as made:
        folder = Path(made)
        proxy_core, load_core = two_cores()
        counted = folder / "counted.pstats"
        with ExitStack() as stack:
            port, _ = stack.enter_context(provider(load_core))
            runner = ("-m", "cProfile", "-o", str(counted)) if counting else ()
            system = start_whole_sqlite(Rig(folder, port, proxy_core), stack, runner)
            assert system.process is not None
            pid = system.process.pid
            _load(system, name, _WARM_S, load_core)
            before, total = threads_cpu_s(pid), cpu_s([pid])
            samples = folder / "samples.txt"
            watching = None if counting else _watch(str(spy), pid, samples, load_core)
            said = _load(system, name, SECONDS, load_core)
            used = {at: seconds - before.get(at, 0.0) for at, seconds in threads_cpu_s(pid).items()}
            if watching is not None:
                watching.wait(timeout=30)
            _print_head(name, said, cpu_s([pid]) - total, used)
        if counting:
            # Written when the gateway has stopped.
            print_counts(counted)
        else:
            print_samples(samples.read_text("utf-8"))
    return 0


def print_counts(counted: Path) -> None:
    """The same from cProfile: by own time, then ours with all that they call."""
    stats = pstats.Stats(str(counted))
    stats.sort_stats("tottime").print_stats(_TOP)
    stats.sort_stats("cumulative").print_stats("/gatekeeper/", _TOP * 2)


def _py_spy() -> str | None:
    beside = Path(sys.executable).with_name("py-spy")
    return str(beside) if beside.exists() else shutil.which("py-spy")


def _load(system: System, name: str, seconds: float, core: int | None) -> dict[str, float]:
    spec = {**LOADS[name], "port": system.port, "key": system.key, "seconds": seconds}
    command = [sys.executable, "-m", "bench.load", json.dumps(spec)]
    with pinned(core):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 40, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _watch(spy: str, pid: int, samples: Path, core: int | None) -> "subprocess.Popen[bytes]":
    # Only who holds the interpreter's lock: threads that wait look busy. Each look stops the process, so there are few;
    # without stopping it, most stacks are torn.
    command = [
        spy, "record", "--pid", str(pid), "--duration", str(int(SECONDS)), "--rate", str(_RATE_HZ), "--format", "raw",
        "--gil", "--threads", "--full-filenames", "--output", str(samples),
    ]  # fmt: skip
    with pinned(core):
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _print_head(name: str, said: dict[str, float], used_s: float, threads: dict[str, float]) -> None:
    calls, chunks = said["calls"], said["events"]
    count, what = (chunks, "chunk") if chunks else (calls, "call")
    print(f"{name}: {calls} calls, {chunks} chunks, {used_s / max(count, 1) * 1e6:.1f} us CPU per {what}")
    for thread, seconds in sorted(threads.items(), key=lambda pair: -pair[1]):
        if seconds >= 0.005 * used_s:
            print(f"  thread {thread}: {seconds / max(count, 1) * 1e6:.1f} us per {what} ({seconds / used_s:.0%})")


def read_samples(text: str) -> tuple[Counter[str], Counter[str], int]:
    """py-spy's raw format, ``frame;frame;frame COUNT``: (samples in a function itself, in it and below, all)."""
    own: Counter[str] = Counter()
    below: Counter[str] = Counter()
    total = 0
    for line in text.splitlines():
        stack, _, count = line.rpartition(" ")
        if not count.isdigit():
            continue
        frames = [_function(frame) for frame in stack.split(";") if not frame.startswith(("thread", "process"))]
        if not frames:
            continue
        total += int(count)
        own[frames[-1]] += int(count)
        for frame in set(frames):
            below[frame] += int(count)
    return own, below, total


def _function(frame: str) -> str:
    """``name (file:line)`` without the line, and the file from its package on."""
    name, _, where = frame.partition(" (")
    path = where.rpartition(":")[0] if where.rstrip(")").rpartition(":")[2].isdigit() else where.rstrip(")")
    for top in ("site-packages/", f"{ROOT}/", "lib/python3"):
        if top in path:
            path = path.partition(top)[2]
            break
    return f"{name} ({path})"


def print_samples(text: str) -> None:
    """The functions in which most time is spent, by themselves and with all that they call."""
    own, below, total = read_samples(text)
    if not total:
        print("no samples: may py-spy look into another process here?")
        return
    print(f"\n{total} samples; self %, with callees %")
    for function, count in own.most_common(_TOP):
        print(f"  {count / total:6.1%}  {below[function] / total:6.1%}  {function}")
    print("\nwith callees, ours only")
    ours = [(function, count) for function, count in below.most_common() if "(gatekeeper/" in function]
    for function, count in ours[: _TOP * 2]:
        print(f"  {count / total:6.1%}  {own[function] / total:6.1%} self  {function}")
