"""What the operating system lets this process have, looked at before the first call, and how it looks after memory."""

import gc
import resource
from pathlib import Path

# A stream in flight has two sockets; beside them stand the database, the journal and idle upstream connections.
DESCRIPTORS_WANTED = 65_536
DESCRIPTORS_LEAST = 4_096
# The interpreter with the price list takes 120 MiB; a thousand open streams some 40 more.
MEMORY_LEAST = 256 * 1024 * 1024
# So many new objects that may hold others, and were not freed yet, are looked through for rings at once; some MB.
OBJECTS = 10_000
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


def raised_limits() -> list[str]:
    """Take as many file descriptors as are allowed; returns what is too little, as sentences that say what to do."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    wanted = DESCRIPTORS_WANTED if hard == unlimited else min(hard, DESCRIPTORS_WANTED)
    if soft != unlimited and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (OSError, ValueError):
            # Some systems have a bound of their own below the hard one.
            pass
    found = []
    if soft != unlimited and soft < DESCRIPTORS_LEAST:
        found.append(
            f"only {soft} file descriptors are allowed: about {soft // 2} calls at once; raise the limit "
            "(ulimit -n, LimitNOFILE=)"
        )
    memory = memory_limit()
    if memory is not None and memory < MEMORY_LEAST:
        found.append(f"only {memory // (1024 * 1024)} MiB of memory are allowed: a busy gateway wants 256 MiB and more")
    return found


def memory_limit(cgroup: Path = _CGROUP_LIMIT) -> int | None:
    """The least of the bounds on this process's memory in bytes; None where there is none."""
    bounds = []
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        bounds.append(soft)
    try:
        text = cgroup.read_text().strip()
    except OSError:
        text = "max"
    if text.isdigit():
        bounds.append(int(text))
    return min(bounds, default=None)


def spare_the_collector() -> None:
    """What is loaded now stays for ever, and next to nothing of what a call makes is left for the collector: it need
    not look again after every 700 new objects, which takes a tenth of the ledger's time."""
    gc.freeze()
    gc.set_threshold(OBJECTS, *gc.get_threshold()[1:])
