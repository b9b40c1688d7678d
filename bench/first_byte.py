"""What the ledger adds to the first byte of an answer's body, through the whole gateway: hold, settle and all that they
cost whoever calls meanwhile.

Run as ``python -m bench.first_byte``. Callers have a stream open all the time. The rule: the gateway beside it is the
same one, before a ledger that grants at once (see ``granting``), in turns within each round, so that the difference is
the ledger's alone. What the provider waited for is in its answer, and taken out.
"""

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import uvloop

from bench.load import Client, Tally, percentile
from bench.machine import Quiet, cpu_s, judge_noise, pinned, two_cores
from bench.payloads import CAME_HEADER, STAMP_AT, STAMP_DIGITS, request
from bench.provider import LATE_S
from bench.systems import Rig, System, provider, start_direct, whole

CALLERS = 32
# Of each call, before its end. With what comes before each and before the end it lasts 1 s, at the pace of a model that
# makes 50 tokens a second; few make calls of 100 ms, so that ten times as many begin.
EVENTS, FEW_EVENTS = 49, 4
ROUNDS = 3
SECONDS = 4.0
# Of the p50, what the ledger may add.
TARGET_MS = 0.3
DIRECT, NULL = "direct", "null"
# The first calls pay for connections and caches.
_WARM_S = 0.3
_GRACE_S = 5.0
_STAMP = slice(STAMP_AT, STAMP_AT + STAMP_DIGITS)


@dataclass(frozen=True)
class Plan:
    """``seconds`` is how long each gateway is called in each round; without any, a fourth of that."""

    seconds: float = SECONDS
    rounds: int = ROUNDS
    callers: int = CALLERS
    events: int = EVENTS


class Legs(Tally):
    """What all callers saw: of each call the way there (until the provider has it) and back (since it began to answer,
    until the first byte of the body)."""

    def __init__(self, until_s: float) -> None:
        super().__init__(until_s)
        self.from_ns = time.monotonic_ns() + int(_WARM_S * 1e9)
        self.there_ns: list[int] = []
        self.back_ns: list[int] = []


class Caller(Client):
    """One connection that asks for one late stream after another."""

    def __init__(self, legs: Legs, asked: bytes, events: int) -> None:
        super().__init__(legs, asked, events, usage=True, paced=False, rewrites=False)
        self._legs = legs
        self._came_ns = self._first_ns = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """When the provider had the request."""
        if name.lower() == CAME_HEADER:
            self._came_ns = int(value)

    def on_body(self, piece: bytes) -> None:
        """The first of them is what this is about."""
        if not self._body:
            self._first_ns = self._now_ns
        super().on_body(piece)

    def on_message_complete(self) -> None:
        """Count, unless it is too early."""
        legs, stamp = self._legs, bytes(self._body[_STAMP])
        # Whatever else it may be is told by whoever compares the bytes.
        if self._asked_ns >= legs.from_ns and stamp.isdigit():
            legs.there_ns.append(self._came_ns - self._asked_ns)
            legs.back_ns.append(self._first_ns - int(stamp))
        super().on_message_complete()


@dataclass(frozen=True)
class Seen:
    """One gateway in one round: p50 and p99 of the first byte beyond what the provider waited, the p50 of the ways
    there and back, and its CPU time a call."""

    p50_ms: float
    p99_ms: float
    there_ms: float
    back_ms: float
    cpu_us: float
    calls: int
    calls_per_s: float
    wrong: int
    why: str


@dataclass
class Found:
    """Rounds by gateway; ``asked`` is what the ledger that grants at once was asked for in all."""

    plan: Plan
    rounds: dict[str, list[Seen]] = field(default_factory=dict)
    asked: dict[str, int] = field(default_factory=dict)
    noise: tuple[str, ...] = ()

    def added_ms(self, name: str) -> float:
        """The p50 less that without a ledger in the same round; the median of the rounds."""
        beside = zip(self.rounds[name], self.rounds[NULL], strict=True)
        return median(seen.p50_ms - null.p50_ms for seen, null in beside)

    def of(self, name: str, figure: str) -> float:
        """The median of a figure."""
        found: float = median(getattr(seen, figure) for seen in self.rounds[name])
        return found

    @property
    def wrong(self) -> list[str]:
        """What must never be; empty when all is right."""
        said = [
            f"{name}: {seen.wrong} answers were not what the provider sent ({seen.why})"
            for name, rounds in self.rounds.items()
            for seen in rounds
            if seen.wrong or seen.why or not seen.calls
        ]
        calls = sum(seen.calls for seen in self.rounds[NULL])
        if set(self.asked.values()) != {calls}:
            said.append(f"{NULL}: {calls} calls, and its ledger was asked for {self.asked}")
        return said


async def _call(port: int, key: str, plan: Plan, seconds: float) -> Legs:
    """Call for so long; every caller has a call open all the time, and begins at an instant of its own."""
    loop = asyncio.get_running_loop()
    chance = random.Random(1)
    legs = Legs(time.monotonic() + _WARM_S + seconds)
    asked = request(port, key, f"late {plan.events}")

    async def one() -> None:
        await asyncio.sleep(chance.uniform(0, _WARM_S))
        _, caller = await loop.create_connection(lambda: Caller(legs, asked, plan.events), "127.0.0.1", port)
        await caller.done

    async with asyncio.timeout(_WARM_S + seconds + _GRACE_S):
        await asyncio.gather(*(one() for _ in range(plan.callers)))
    return legs


def _measured(system: System, plan: Plan, seconds: float) -> Seen:
    used_s = cpu_s(system.pids)
    legs = uvloop.run(_call(system.port, system.key, plan, seconds))
    used_s = cpu_s(system.pids) - used_s
    both = [there + back for there, back in zip(legs.there_ns, legs.back_ns, strict=True)]
    return Seen(
        percentile(both, 0.5) / 1e6,
        percentile(both, 0.99) / 1e6,
        percentile(legs.there_ns, 0.5) / 1e6,
        percentile(legs.back_ns, 0.5) / 1e6,
        used_s / max(legs.calls, 1) * 1e6,
        legs.calls,
        len(both) / seconds,
        legs.wrong + legs.failed,
        legs.why,
    )


def measure(urls: Sequence[str], plan: Plan, say: Callable[[str], None]) -> Found:
    """Call a gateway before each of these databases, which must be empty of us, and one before no ledger; round after
    round, one after the other in each. Raises RuntimeError when one does not start."""
    found, quiet, load = Found(plan), Quiet(), os.getloadavg()[0]
    proxy_core, load_core = two_cores()
    with tempfile.TemporaryDirectory(prefix="gk-first-byte-") as made, ExitStack() as outer:
        folder = Path(made)
        port, serving = outer.enter_context(provider(load_core))
        rig = Rig(folder, port, proxy_core)
        with ExitStack() as stack:
            null = whole(rig, stack, NULL, f"sqlite:///{folder / 'null.sqlite'}", module="bench.granting")
            systems = {DIRECT: start_direct(rig, stack), NULL: null}
            systems |= {(name := _name(url)): whole(rig, stack, name, url) for url in urls}
            for number in range(plan.rounds):
                for name, system in systems.items():
                    say(f"round {number + 1} of {plan.rounds}, {name}")
                    ours = [serving.pid, *system.pids]
                    # A Postgres is nobody's child here, and would pass for a stranger.
                    with pinned(load_core), (quiet if name in (DIRECT, NULL, "sqlite") else Quiet()).watching(ours):
                        seen = _measured(system, plan, plan.seconds / (4 if name == DIRECT else 1))
                    found.rounds.setdefault(name, []).append(seen)
        said = (folder / f"{NULL}.log").read_text().splitlines()
        found.asked = json.loads(next(line for line in reversed(said) if line.startswith("{")))
    found.noise = judge_noise(quiet.foreign_share, load, os.cpu_count() or 1).reasons
    return found


def _name(url: str) -> str:
    return url.split(":")[0]


def table(found: Found) -> Iterator[str]:
    """The lines to print."""
    plan = found.plan
    yield (
        f"first byte of the body beyond the {LATE_S * 1e3:.0f} ms of its provider: {plan.callers} callers, calls of "
        f"{LATE_S * (plan.events + 1) * 1e3:.0f} ms, medians of {plan.rounds} rounds of {plan.seconds:g} s"
    )
    yield f"{'':12}{'p50':>7}{'p99':>8} ms   {'there':>6}{'back':>7} ms   {'calls/s':>7}{'CPU us':>8}   added to p50"
    for name in found.rounds:
        beside = "" if name in (DIRECT, NULL) else said_of(found.added_ms(name))
        yield (
            f"{name:12}{found.of(name, 'p50_ms'):7.2f}{found.of(name, 'p99_ms'):8.2f} ms   "
            f"{found.of(name, 'there_ms'):6.2f}{found.of(name, 'back_ms'):7.2f} ms   "
            f"{found.of(name, 'calls_per_s'):7.0f}{found.of(name, 'cpu_us'):8.0f}   {beside}"
        )


def said_of(added_ms: float) -> str:
    """The figure beside its target."""
    return f"{added_ms:+.2f} ms (target {TARGET_MS:g}){' OVER' if added_ms > TARGET_MS else ''}"


def added(url: str, seconds: float) -> str:
    """One line for one database, which has no customer ``bench``; it takes ``seconds`` and some 5 more to start and
    stop. Raises RuntimeError when a gateway does not start, or an answer was wrong."""
    plan = Plan(max((seconds / ROUNDS - 2 * _WARM_S) / 2.25, 0.5))
    found, name = measure([url], plan, lambda _: None), _name(url)
    if found.wrong:
        raise RuntimeError("; ".join(found.wrong))
    return (
        f"first byte {found.of(name, 'p50_ms'):.2f} / {found.of(name, 'p99_ms'):.2f} ms, without a ledger "
        f"{found.of(NULL, 'p50_ms'):.2f} / {found.of(NULL, 'p99_ms'):.2f}: {said_of(found.added_ms(name))}"
    )


def main() -> int:
    """The command line. The exit code is 1 when an answer was wrong, not when one was slow."""
    # It may print our line: hence not above.
    from bench.ledger import databases

    words = argparse.ArgumentParser(prog="python -m bench.first_byte", description=__doc__)
    words.add_argument("--seconds", type=float, default=SECONDS, help="how long each gateway is called in each round")
    words.add_argument("--rounds", type=int, default=ROUNDS)
    words.add_argument("--callers", type=int, default=CALLERS, help=f"how many have a call open (default: {CALLERS})")
    words.add_argument(
        "--events", type=int, default=EVENTS, help=f"of each call (default: {EVENTS}, which take a second)"
    )
    words.add_argument("--database", choices=("sqlite", "postgresql"), help="only this one")
    asked = words.parse_args()
    load = os.getloadavg()[0]
    with databases() as urls:
        chosen = [url for url in urls if asked.database in (None, _name(url))]
        found = measure(chosen, Plan(asked.seconds, asked.rounds, asked.callers, asked.events), _say)
    print(f"load {load:.1f} on {os.cpu_count()} cores, Python {sys.version.split()[0]}")
    for line in (*table(found), *(f"NOISY: {reason}" for reason in found.noise), *(f"WRONG: {s}" for s in found.wrong)):
        print(line)
    return 1 if found.wrong else 0


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
