"""``python -m bench``: measure the data path, print one table, write ``bench/results.json``, fail on missed ratios."""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from bench import peers, profiling, scale
from bench.commands import printed
from bench.figures import Round, Table, summed
from bench.ledger import bare as bare_commits
from bench.limits import exit_code, judge, read_limits
from bench.machine import Quiet, describe, judge_noise, two_cores
from bench.report import as_json, rendered, said_of_limits
from bench.systems import FULL, QUICK, ROOT, START, Rig, System, absent, provider
from bench.workloads import Bench, Figures, Lengths, alone, flat, json_calls, memory, paced, warm

RESULTS = Path(__file__).with_name("results.json")
QUICK_S_MAX = 170.0
# What comes after the table, the meter and the ledger, needs the rest of 25 minutes.
FULL_S_MAX = 22 * 60.0
_QUICK = Lengths(json_s=2, alone_s=1.0, paced_s=1.5, flat_s=1.0, held=200)
_FULL = Lengths(json_s=6, alone_s=4.0, paced_s=5, flat_s=3, held=1_000)
_QUICK_ROUNDS, _FULL_ROUNDS = 2, 4
_COMMITS_S = 0.5
# The rooms that are measured for themselves, after everything else.
_ROOMS = ("bench.meter", "bench.ledger")

Workload = Callable[[Bench, System], Figures]


def workloads(*, quick: bool) -> list[Workload]:
    """In the order in which they run."""
    found = [json_calls, alone, paced(200), paced(50), flat]
    return found if quick else [*found, paced(200, ask_usage=False)]


def measure(
    bench: Bench, systems: list[System], rounds: int, *, quick: bool, until_s: float, say: Callable[[str], None]
) -> list[Round]:
    """Round after round, and within a round workload after workload: A B A B, so that a slow minute meets all alike.

    No round begins that would not be over in time; the first is always finished.
    """
    first: dict[str, Figures] = {system.name: {} for system in systems}
    for system in systems:
        say(f"warming up {system.name}")
        warm(bench, system)
        # Before the rest: afterwards there is memory to reuse, and nothing grows.
        first[system.name] |= memory(bench, system)
        if system.database_url:
            first[system.name]["commit_ms"] = 1e3 / asyncio.run(bare_commits(_commit_url(bench, system), _COMMITS_S))
    done: list[Round] = []
    for number in range(rounds):
        began_s = time.monotonic()
        found = first if number == 0 else {system.name: {} for system in systems}
        for workload in workloads(quick=quick):
            for system in systems:
                found[system.name] |= workload(bench, system)
        done.append(found)
        took_s = time.monotonic() - began_s
        say(f"round {number + 1} of {rounds} took {took_s:.0f} s")
        if time.monotonic() + took_s > until_s:
            break
    return done


def _commit_url(bench: Bench, system: System) -> str:
    return (
        system.database_url if system.database_url.startswith("postgres") else f"sqlite:///{bench.folder}/commit.sqlite"
    )


def run(arguments: argparse.Namespace) -> int:
    """One whole run; the exit code."""
    load = os.getloadavg()[0]
    names = arguments.systems.split(",") if arguments.systems else list(QUICK if arguments.quick else FULL)
    if arguments.peers:
        names += peers.START
    left_out = {name: why for name, why in absent().items() if name in names}
    left_out |= peers.install() if arguments.peers else {}
    began_s = time.monotonic()
    lengths, rounds = (_QUICK, _QUICK_ROUNDS) if arguments.quick else (_FULL, _FULL_ROUNDS)
    until_s = began_s + (QUICK_S_MAX if arguments.quick else FULL_S_MAX)
    quiet = Quiet()

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gk-bench-")))
        # nginx's worker is somebody else, where we are root.
        folder.chmod(0o755)
        proxy_core, load_core = two_cores()
        provider_port, process = stack.enter_context(provider(load_core))
        rig = Rig(folder, provider_port, proxy_core)
        systems = started(rig, stack, names, left_out)
        bench = Bench(folder, load_core, lengths, quiet, process.pid)
        measured = measure(bench, systems, rounds, quick=arguments.quick, until_s=until_s, say=say)
    table = summed(measured)
    verdicts = judge(read_limits(), table)
    noise = judge_noise(quiet.foreign_share, load, os.cpu_count() or 1).reasons
    results = as_json(
        table, verdicts, machine=describe() | {"load_before": load, "foreign_share": quiet.foreign_share}, noise=noise,
        complaints=bench.complaints, left_out=left_out, when=datetime.now(UTC).isoformat(timespec="seconds"),
        mode="quick" if arguments.quick else "full",
    )  # fmt: skip
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    if arguments.json:
        print(json.dumps(results))
    else:
        print(headline(results["machine"], len(measured), time.monotonic() - began_s))
        print_report(table, said_of_limits(verdicts), noise, bench.complaints, left_out)
        if not arguments.quick and not arguments.systems:
            print_rooms()
    wrong = any(complaint.startswith(("whole", "bare")) for complaint in bench.complaints)
    return exit_code(verdicts, noisy=bool(noise), wrong=wrong)


def started(rig: Rig, stack: ExitStack, names: list[str], left_out: dict[str, str]) -> list[System]:
    """All systems; a peer that does not start is left out, one of ours is an error."""
    systems = []
    for name in names:
        if name in left_out:
            continue
        if name in START:
            systems.append(START[name](rig, stack))
            continue
        try:
            systems.append(peers.START[name](rig, stack))
        except RuntimeError as error:
            left_out[name] = str(error)[-300:]
    return systems


def headline(machine: dict[str, object], rounds: int, took_s: float) -> str:
    """On what, and for how long."""
    share = machine["foreign_share"]
    return (
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}, Python {machine['python']}; "
        f"{rounds} rounds in {took_s:.0f} s; load before {machine['load_before']:.1f}, "
        f"others took {share:.0%} of the machine\n"
    )


def print_report(
    table: Table, limits: str, noise: tuple[str, ...], complaints: list[str], left_out: dict[str, str]
) -> None:
    """The table and what must be said beside it."""
    print(rendered(table) + "\n\n" + limits)
    for why in noise:
        print(f"NOISY: {why}; the figures are no measure of anything, and no limit fails this run")
    for complaint in complaints:
        print(f"WRONG: {complaint}")
    for name, why in left_out.items():
        print(f"left out: {name}: {why}")


def print_rooms() -> None:
    """The meter and the ledger for themselves: their own programs, their own tables."""
    for module in _ROOMS:
        print(f"\n--- python -m {module}", flush=True)
        subprocess.run([sys.executable, "-m", module], cwd=ROOT, timeout=180, check=False)


def main() -> int:
    """The command line."""
    words = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    words.add_argument("--quick", action="store_true", help="five systems, at most 3 minutes (else all, at most 25)")
    words.add_argument("--peers", action="store_true", help="LiteLLM and Portkey too (installed below bench/.peers)")
    words.add_argument("--json", action="store_true", help="print the results as JSON instead of the table")
    words.add_argument("--systems", metavar="A,B", help=f"only these, of: {', '.join(START)}")
    words.add_argument("--profile", choices=profiling.LOADS, help="where the time of the whole product goes")
    words.add_argument("--calls", action="store_true", help="with --profile: cProfile (exact counts) instead of py-spy")
    words.add_argument("--scale", action="store_true", help="what a call costs with 10 and with 1,000,000 customers")
    arguments = words.parse_args()
    unknown = set((arguments.systems or "direct").split(",")) - set(START)
    if unknown:
        words.error(f"there is no system {', '.join(sorted(unknown))}; there are: {', '.join(START)}")
    if arguments.profile:
        return profiling.run(arguments.profile, counting=arguments.calls)
    if arguments.scale:
        return printed([scale.main(lambda text: print(text, file=sys.stderr, flush=True))], as_json=arguments.json)
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
