"""``gatekeeper check --fuzz SECONDS``: every route's meters against made-up provider streams that come with the truth.

The rule: what is found is a file and a command line that shows it again; the seed that found it is told first.
"""

import importlib
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gatekeeper.cli.output import Unusable, complain
from gatekeeper.config.gateway import Gateway, Route
from gatekeeper.meters import Meter

if TYPE_CHECKING:
    from gatekeeper.testing.guessing import Maker
    from gatekeeper.testing.judging import Complaint

# So many examples run between two new seeds; each round also tries the simplest responses again.
_ROUND_EXAMPLES = 200
# A counter-example that is found at the last moment still has this long to become small.
_SHRINK_S = 5.0
# What the meter that is charged is called here; named ones have their own names.
_CHARGED = "meter"
_SEED_MAX = 2**32


@dataclass(frozen=True, slots=True)
class Found:
    """A meter that is wrong, on the response in ``file``. ``meter`` is its name on the route (``meter`` is the one
    that is charged), ``expected`` and ``got`` are sentences, ``command`` shows it again, ``text`` is all of it."""

    route: str
    meter: str
    expected: str
    got: str
    file: Path
    command: str
    text: str


@dataclass(frozen=True, slots=True)
class _Job:
    route: Route
    name: str
    meter: Meter
    make: "Maker"


def fuzz(
    gateway: Gateway, seconds: float, folder: Path, seed: int | None = None, tell: Callable[[str], None] = complain
) -> list[Found]:
    """Runs for about ``seconds`` and gives at most one counter-example for each route and meter, written into
    ``folder``. ``tell`` hears the seed and what each meter is held to. The same seed tries the same responses, as far
    as the time goes. Raises Unusable without hypothesis, OSError if a file cannot be written."""
    try:
        importlib.import_module("gatekeeper.testing")
    except ModuleNotFoundError as missing:
        if missing.name != "hypothesis":
            raise
        raise Unusable("--fuzz needs hypothesis", "pip install 'gatekeeper[testing]'") from missing
    seed = secrets.randbelow(_SEED_MAX) if seed is None else seed
    tell(f"seed {seed}")
    jobs = _jobs(gateway, tell)
    found = []
    until = time.monotonic() + seconds
    with _out_of_the_way():
        for at, job in enumerate(jobs):
            share = (until - time.monotonic()) / (len(jobs) - at)
            complaint = _run(job, max(0.0, share), seed, tell)
            if complaint is not None:
                found.append(_report(job, complaint, folder))
    return found


@contextmanager
def _out_of_the_way() -> Iterator[None]:
    """hypothesis keeps a folder for what it learns; not in the folder where a person called us."""
    from hypothesis.configuration import set_hypothesis_home_dir

    with tempfile.TemporaryDirectory(prefix="gatekeeper-fuzz-") as folder:
        set_hypothesis_home_dir(folder)
        try:
            yield
        finally:
            set_hypothesis_home_dir(None)


def _jobs(gateway: Gateway, tell: Callable[[str], None]) -> list[_Job]:
    """Each meter once for each kind of stream that it can meet: routes that share both are one job."""
    from gatekeeper.testing.guessing import streams_for

    jobs: dict[tuple[object, ...], _Job] = {}
    for route in gateway.router.routes:
        if route.free:
            continue
        upstream = gateway.upstreams.get(route.upstream)
        make = streams_for(route, "" if upstream is None else upstream.host)
        if make is None:
            tell(f"{route.name}: no streams are known for {route.pattern.text}; not tried")
            continue
        path = route.rewrite or route.pattern.text
        for name, meter in ((_CHARGED, route.meter), *route.meters.items()):
            same = (meter.hash, route.dialect, path, route.upstream, route.charge_errors, route.meter_methods)
            jobs.setdefault(same, _Job(route, name, meter, make))
    return list(jobs.values())


def _run(job: _Job, seconds: float, seed: int, tell: Callable[[str], None]) -> "Complaint | None":
    """Rounds of examples until the time is over or something is wrong. At least one round begins."""
    from gatekeeper.testing.guessing import asked_of, judge_for
    from gatekeeper.testing.judging import Complaint
    from gatekeeper.testing.search import find_complaint
    from gatekeeper.testing.stream import ProviderStream

    held_to, judge = judge_for(job.meter, job.make, asked_of(job.route), charged=job.name == _CHARGED)
    end = time.monotonic() + seconds
    tried, wrong = 0, False

    def counting(stream: ProviderStream, sizes: tuple[int, ...]) -> Complaint | None:
        nonlocal tried, wrong
        complaint = judge(stream, sizes)
        tried, wrong = tried + (not wrong), wrong or complaint is not None
        return complaint

    def stop() -> bool:
        return tried > 0 and time.monotonic() > end + (_SHRINK_S if wrong else 0.0)

    complaint, turn = None, 0
    while complaint is None and (turn == 0 or time.monotonic() < end):
        complaint = find_complaint(job.make(), counting, examples=_ROUND_EXAMPLES, seed_number=seed + turn, stop=stop)
        turn += 1
    verdict = "ok" if complaint is None else "WRONG"
    tell(f"{job.route.name} {job.name}: {verdict}, {tried} responses ({held_to})")
    return complaint


def _report(job: _Job, complaint: "Complaint", folder: Path) -> Found:
    stem = re.sub(r"[^\w.-]+", "-", f"{job.route.name}-{job.name}")
    file = complaint.stream.save(folder / stem)
    return Found(
        route=job.route.name,
        meter=job.name,
        expected=complaint.expected,
        got=complaint.got,
        file=file,
        command=complaint.command(str(file)),
        text=f"route {job.route.name!r}, {job.name}:\n{complaint.render(file)}",
    )
