"""What this machine says of itself, read from /proc: CPU time, memory, and how busy others keep it.

Only Linux has all of it; elsewhere the figures that need it are left out.
"""

import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
HAS_PROC = (_PROC / "self" / "stat").exists()
_TICKS_PER_S = os.sysconf("SC_CLK_TCK") if HAS_PROC else 100
# Of all cores: above that, somebody else's work is in the figures.
FOREIGN_SHARE_MAX = 0.10


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    found = [pid]
    for at in found:
        try:
            for task in (_PROC / str(at) / "task").iterdir():
                found += map(int, (task / "children").read_text().split())
        except OSError:
            # It has ended in between.
            continue
    return found


def cpu_s(pids: list[int]) -> float:
    """User and system time of processes with all their threads, and of children that have been waited for."""
    ticks = 0
    for pid in pids:
        try:
            fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS_PER_S


def threads_cpu_s(pid: int) -> dict[str, float]:
    """CPU time of each thread, by name and id."""
    found = {}
    for task in (_PROC / str(pid) / "task").iterdir():
        fields = (task / "stat").read_text().rpartition(")")[2].split()
        found[f"{(task / 'comm').read_text().strip()} {task.name}"] = sum(map(int, fields[11:13])) / _TICKS_PER_S
    return found


def memory_bytes(pids: list[int]) -> int:
    """Memory that these processes do not share with others, plus their part of what they share."""
    kilobytes = 0
    for pid in pids:
        for line in (_PROC / str(pid) / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                kilobytes += int(line.split()[1])
    return kilobytes * 1024


def busy_s() -> float:
    """CPU time of everything on this machine since it was started."""
    fields = list(map(int, (_PROC / "stat").read_text().splitlines()[0].split()[1:9]))
    # user nice system idle iowait irq softirq steal
    return (sum(fields) - fields[3] - fields[4]) / _TICKS_PER_S


@contextmanager
def pinned(core: int | None) -> Iterator[None]:
    """Processes that are started inside run on this core only. None: anywhere."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def two_cores() -> tuple[int | None, int | None]:
    """(the proxy's core, the load's and the provider's), or None where there are no two."""
    if not hasattr(os, "sched_getaffinity"):
        return None, None
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


class Quiet:
    """Watches what others take of the machine while we measure."""

    def __init__(self) -> None:
        self.foreign_s = 0.0
        self.watched_s = 0.0

    @contextmanager
    def watching(self, ours: list[int]) -> Iterator[None]:
        """Within the block: the CPU time of all, less that of our processes (also of children that end in it)."""
        if not HAS_PROC:
            yield
            return
        mine = [*ours, os.getpid()]
        start_s, busy, own = time.monotonic(), busy_s(), cpu_s(mine)
        yield
        took_s = time.monotonic() - start_s
        self.foreign_s += (busy_s() - busy) - (cpu_s(mine) - own)
        self.watched_s += took_s * (os.cpu_count() or 1)

    @property
    def foreign_share(self) -> float:
        """Of the whole machine, over all measurements."""
        return max(0.0, self.foreign_s / self.watched_s) if self.watched_s else 0.0


@dataclass(frozen=True)
class Noise:
    """Why a report is not to be trusted; empty where it is."""

    reasons: tuple[str, ...]


def judge_noise(foreign_share: float, load: float, cores: int) -> Noise:
    """``load`` is the load average of the minute before we began."""
    reasons = []
    if foreign_share > FOREIGN_SHARE_MAX:
        reasons.append(f"others took {foreign_share:.0%} of the machine")
    if load > cores / 2:
        reasons.append(f"the load average was {load:.1f} on {cores} cores before the first measurement")
    if cores < 2:
        reasons.append("proxy and load share one core")
    return Noise(tuple(reasons))


def describe() -> dict[str, object]:
    """The machine, for the report."""
    model = ""
    if HAS_PROC:
        lines = (_PROC / "cpuinfo").read_text().splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return {
        "cpu": model or platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load": [round(figure, 2) for figure in os.getloadavg()],
    }
