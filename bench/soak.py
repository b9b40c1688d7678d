"""``python -m bench.soak``: minutes at 70 % of what the machine bears, while clients leave, the provider breaks off,
the configuration is reloaded and keys are revoked. Then nothing may be held, leaked, lost or wrong.

The rule: a seed says what every call wishes and does; exit code 1 says that something was not as it must be.
"""

import asyncio
import contextlib
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import commands
from bench.answers import SHAPES, Dialect, Fault, Wish
from bench.callers import Crowd, Saw, Tally
from bench.chaos_audit import Report
from bench.machine import cpu_s, pinned, two_cores
from bench.standing import FLAKY, Sample, Standing, database, stand, truthful
from bench.systems import Rig
from bench.truth_audit import audit, settled, watch
from gatekeeper.cli.process import raised_limits

LOAD = 0.7
CALIBRATION_S = 4.0
_CALIBRATION_CALLERS = 32
# Above that a machine that has become slower gets no more of it; what is left out is said.
_IN_FLIGHT_MAX = 500
_FAULTS = (Fault.ERROR, Fault.REFUSE, Fault.RESET, Fault.TRUNCATE, Fault.STALL_HEAD, Fault.STALL_BODY)
_FLAKY_SHARE, _FAULTY_OF_FLAKY = 0.10, 0.5
_LEAVES_SHARE, _PACED_SHARE = 0.05, 0.05
_REVOKED_SHARE = 0.005
# A revoked key is refused one second later (README), and a request may wait that long to be read.
_REVOKED_WITHIN_S = 2.0
# The second half of the run may add so much memory: what an allocator moves about, and next to nothing for a call. The
# smallest object that a call could leave behind (a string with its entry in a dictionary) has some 150 bytes.
GROWTH_KIB_MAX, GROWTH_BYTES_PER_CALL_MAX = 4_096, 32
# Until then much is taken for the first time, and only a disaster is noticed.
_WARM_AFTER_S = 300.0
_GROWTH_WARMING_KIB_MAX = 24 * 1_024
# Three threads have a database and its log open, one the journal; a pool of Postgres grows to its size.
_FILES_OVER_MAX, _DESCRIPTORS_OVER_MAX, _POOL_MAX = 7, 2, 16


@dataclass(frozen=True)
class Plan:
    """One soak."""

    folder: Path
    seconds: float
    database: str
    seed: int
    calibration_s: float = CALIBRATION_S
    # Calls a second; None: measured.
    rate: float | None = None

    @property
    def growth_kib_max(self) -> int:
        """What memory may grow by in the second half, whatever the calls."""
        return GROWTH_KIB_MAX if self.seconds >= _WARM_AFTER_S else _GROWTH_WARMING_KIB_MAX


@dataclass
class Soak:
    """A soak under way."""

    plan: Plan
    standing: Standing
    report: Report
    say: Callable[[str], None]
    tally: Tally = field(default_factory=Tally)
    samples: list[Sample] = field(default_factory=list)
    shed: int = 0
    reloads: int = 0
    broken_reloads: int = 0
    revocations: int = 0
    refused_keys: int = 0
    _numbers: "itertools.count[int]" = field(default_factory=lambda: itertools.count(1))

    def __post_init__(self) -> None:
        self.chance = random.Random(self.plan.seed)
        self.trouble = random.Random(self.plan.seed + 1)
        self.crowd = Crowd(self.standing.port, self.tally)

    def wish(self, *, calm: bool) -> Wish:
        """A call as any; ``calm`` without pauses."""
        chance = self.chance
        paced = not calm and chance.random() < _PACED_SHARE
        return Wish(
            number=next(self._numbers),
            dialect=chance.choice(list(Dialect)),
            stream=chance.random() < 0.5,
            shape=chance.randrange(SHAPES),
            ask_usage=chance.random() < 0.5,
            pause_ms=chance.randint(1, 30) if paced else 0,
        )

    async def calibrate(self) -> float:
        """Calls a second of callers that never wait, for some seconds."""
        until_s = time.monotonic() + self.plan.calibration_s
        began_s, before = time.monotonic(), self.tally.calls
        keys = list(self.standing.keys.values())

        async def caller() -> None:
            while time.monotonic() < until_s:
                await self.crowd.call(Saw(self.wish(calm=True), self.chance.choice(keys)))

        await asyncio.gather(*(caller() for _ in range(_CALIBRATION_CALLERS)))
        return (self.tally.calls - before) / (time.monotonic() - began_s)

    async def one(self) -> None:
        """One call of the soak: nearly always as any, sometimes in trouble."""
        chance = self.chance
        saw = Saw(self.wish(calm=False), chance.choice(list(self.standing.keys.values())))
        if chance.random() < _FLAKY_SHARE:
            saw.prefix = FLAKY
            if chance.random() < _FAULTY_OF_FLAKY:
                made = saw.wish
                fault = chance.choice(_FAULTS)
                saw.wish = Wish(
                    made.number, made.dialect, made.stream, made.shape, made.ask_usage, fault, made.pause_ms
                )
        if self.standing.revoked and chance.random() < _REVOKED_SHARE:
            saw.key = chance.choice(list(self.standing.revoked))
        leave_s = chance.expovariate(1 / 0.02) if chance.random() < _LEAVES_SHARE / 2 else None
        leave_bytes = chance.randint(1, 4_000) if chance.random() < _LEAVES_SHARE / 2 else None
        await self.crowd.call(saw, leave_s=leave_s, leave_bytes=leave_bytes)
        revoked_s = self.standing.revoked.get(saw.key)
        if revoked_s is not None:
            self.refused_keys += saw.status == 401
            later_s = saw.sent_s - revoked_s
            served = saw.status == 200 and later_s > _REVOKED_WITHIN_S
            self.report.must(not served, f"a key was served {later_s:.1f} s after it was revoked")
        elif saw.status == 401 and not saw.left:
            self.report.must(False, f"a good key was refused: {saw.code}")

    async def load(self, rate: float, until_s: float) -> None:
        """Calls that come by themselves, as many a second as that, whatever becomes of those before them."""
        under_way: set[asyncio.Task[None]] = set()
        due_s = time.monotonic()
        while (now_s := time.monotonic()) < until_s:
            while due_s <= now_s:
                due_s += self.chance.expovariate(rate)
                if len(under_way) >= _IN_FLIGHT_MAX:
                    self.shed += 1
                    continue
                task = asyncio.create_task(self.one())
                under_way.add(task)
                task.add_done_callback(under_way.discard)
            await asyncio.sleep(max(0.001, due_s - now_s))
        await asyncio.gather(*under_way)

    async def disturb(self, until_s: float) -> None:
        """Reloads, every fourth of them with a mistake, and keys that come and go."""
        while True:
            await asyncio.sleep(self.trouble.uniform(0.5, 3.0))
            # The last is read before the end.
            if time.monotonic() > until_s - 1.0:
                return
            if self.trouble.random() < 0.5:
                broken = self.trouble.random() < 0.25
                self.standing.reload(broken=broken)
                self.reloads += not broken
                self.broken_reloads += broken
                # One signal that follows another too soon is none.
                await asyncio.sleep(0.5)
                self.standing.mend()
            else:
                await self.standing.new_key()
                await self.standing.revoke(self.trouble.choice(list(self.standing.keys)))
                self.revocations += 1

    async def look(self, until_s: float) -> None:
        """Samples, and a line of progress now and then."""
        began_s = time.monotonic()
        every_s = max(0.5, self.plan.seconds / 150)
        said_s = began_s
        while time.monotonic() < until_s:
            sample = await self.standing.sample()
            self.samples.append(sample)
            if sample.at_s - said_s > max(2.0, self.plan.seconds / 20):
                said_s = sample.at_s
                self.say(
                    f"{sample.at_s - began_s:5.0f} s  {self.tally.calls:8,} calls  {sample.rss_kib / 1024:6.1f} MiB  "
                    f"{sample.descriptors:4} descriptors  {sample.tasks:4} tasks  {sample.upstream:4} upstream"
                )
            await asyncio.sleep(max(0.0, every_s - (time.monotonic() - sample.at_s)))


def slope(points: list[tuple[float, float]]) -> float:
    """Least squares: how much the second figure grows with one of the first. 0 for fewer than two points."""
    if len(points) < 2:
        return 0.0
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def judge_memory(samples: list[Sample], calls_per_s: float, report: Report, growth_kib_max: int) -> None:
    """The line through the second half of the samples is level."""
    half = samples[len(samples) // 2 :]
    lasted_s = half[-1].at_s - half[0].at_s if half else 0.0
    grown_kib = slope([(sample.at_s, float(sample.rss_kib)) for sample in half]) * lasted_s
    bound_kib = growth_kib_max + calls_per_s * lasted_s * GROWTH_BYTES_PER_CALL_MAX / 1024
    report.figures |= {
        "memory at first, MiB": round(samples[0].rss_kib / 1024, 1),
        "in the middle, MiB": round(half[0].rss_kib / 1024, 1),
        "at last, MiB": round(half[-1].rss_kib / 1024, 1),
        "grown in the second half, KiB": round(grown_kib),
        "allowed, KiB": round(bound_kib),
    }
    said = f"memory grew by {grown_kib:.0f} KiB in the second half ({bound_kib:.0f} may be)"
    report.must(grown_kib <= bound_kib, said)


def judge_rest(before: Sample, after: Sample, report: Report) -> None:
    """What the process has open and what runs in it when nobody calls, before and after."""
    over, files = after.own - before.own, after.files - before.files
    opened = {name: count - before.opened.get(name, 0) for name, count in after.opened.items()}
    more = {name: count for name, count in opened.items() if count > 0}
    may_be = _POOL_MAX if "postgres" in report.name else _DESCRIPTORS_OVER_MAX
    report.must(over <= may_be and files <= _FILES_OVER_MAX, f"{over + files} descriptors more than before: {more}")
    running = {name: count - before.kinds.get(name, 0) for name, count in after.kinds.items()}
    leaked = {name: count for name, count in running.items() if count > 0}
    report.must(not leaked, f"tasks that were not there before: {leaked}")
    report.must(after.threads <= before.threads + 1, f"{after.threads} threads instead of {before.threads}")
    for name, sample in (("before", before), ("after", after)):
        report.figures[f"at rest {name}"] = (
            f"{sample.own} descriptors, {sample.files} files, {sample.tasks} tasks, {sample.threads} threads,"
            f" {sample.upstream} upstream"
        )


def judge_reloads(soak: Soak) -> None:
    """Every SIGHUP was heard, and a broken file changed nothing."""
    log = soak.standing.log()
    heard, refused = log.count(" reloaded: generation "), log.count(" not reloaded, ")
    said = f"{heard} reloads and {refused} refused ones instead of {soak.reloads} and {soak.broken_reloads}"
    soak.report.must((heard, refused) == (soak.reloads, soak.broken_reloads), said)
    crashed = log.count("Traceback (most recent call last)")
    first = log.partition("Traceback (most recent call last)")[2][:1_500]
    soak.report.must(not crashed, f"{crashed} tracebacks in the log; the first: {first}")
    soak.report.figures |= {
        "reloads": soak.reloads,
        "refused reloads": soak.broken_reloads,
        "revocations": soak.revocations,
        "calls with a revoked key refused": soak.refused_keys,
        "calls left out (500 were under way)": soak.shed,
    }


async def _rest(soak: Soak) -> Sample:
    """When nothing is under way any more: the provider is waited for, too."""
    await soak.crowd.close()
    await settled(soak.standing, soak.report)
    deadline_s = time.monotonic() + 15
    while time.monotonic() < deadline_s:
        if not (await soak.standing.provider())["in_flight"]:
            break
        await asyncio.sleep(0.1)
    # The server sees one turn later who has hung up.
    await asyncio.sleep(0.5)
    return await soak.standing.sample()


async def _soaked(soak: Soak) -> None:
    plan, report = soak.plan, soak.report
    await watch(soak.standing)
    bears = await soak.calibrate()
    rate = plan.rate or bears * LOAD
    soak.say(f"{bears:,.0f} calls/s are borne; from now on {rate:,.0f} a second for {plan.seconds:,.0f} s")
    before = await _rest(soak)
    calls, used_s, began_s = soak.tally.calls, cpu_s([soak.standing.pid]), time.monotonic()
    until_s = began_s + plan.seconds
    async with asyncio.TaskGroup() as group:
        group.create_task(soak.load(rate, until_s))
        group.create_task(soak.disturb(until_s))
        group.create_task(soak.look(until_s))
    took_s = time.monotonic() - began_s
    report.figures |= {
        "calls/s borne": round(bears),
        "calls/s": round((soak.tally.calls - calls) / took_s),
        "of one core": f"{(cpu_s([soak.standing.pid]) - used_s) / took_s:.0%}",
        "most under way upstream": max(sample.upstream for sample in soak.samples),
        "most tasks": max(sample.tasks for sample in soak.samples),
    }
    after = await _rest(soak)
    judge_rest(before, after, report)
    judge_memory(soak.samples, (soak.tally.calls - calls) / took_s, report, plan.growth_kib_max)


def run(plan: Plan, say: Callable[[str], None]) -> Report:
    """One soak, from start to audit."""
    report = Report(f"soak of {plan.seconds:g} s, {plan.database}", {"seed": plan.seed})
    proxy_core, load_core = two_cores()
    with ExitStack() as stack:
        provider_port = stack.enter_context(truthful(load_core, plan.seed))
        url = database(stack, plan.database, plan.folder)
        standing = stand(Rig(plan.folder, provider_port, proxy_core), stack, url)
        with pinned(load_core):
            soak = Soak(plan, standing, report, say)
            asyncio.run(_soaked(soak))
        report.must(standing.stop() == 0, f"the gateway did not stop well:\n{standing.log()[-2_000:]}")
        judge_reloads(soak)
        say("auditing")
        standing.mend()
        asyncio.run(audit(standing, soak.tally, report))
    return report


def main() -> int:
    """The command line."""
    words = commands.words("soak", __doc__)
    words.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    words.add_argument("--rate", type=float, metavar="N", help="calls a second, instead of 70 %% of what is borne")
    asked = commands.asked(words)
    for warning in raised_limits():
        commands.say(warning)
    with tempfile.TemporaryDirectory(prefix="gk-soak-") as folder:
        plan = Plan(Path(folder), asked.minutes * 60, asked.database, asked.seed, rate=asked.rate)
        report = run(plan, commands.say)
    return commands.printed([report], as_json=asked.json)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
    sys.exit(130)
