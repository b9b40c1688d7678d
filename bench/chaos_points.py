"""kill -9 between any two steps of everything that the ledger and its journal do, each point once.

Run as ``python -m bench.chaos_points URL`` with the URL of an empty database. The rule: what dies is a process of its
own (a fork that kills itself), and what looks afterwards is another one; nothing in the product knows of this.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from bench.ledger import PLAN, UNITS, order, settlement
from gatekeeper.clock import SystemClock
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import Extension, Progress, Settled, Settlement
from gatekeeper.proxy.settle import Settler
from gatekeeper.stores.database import AskAll, AskEach, AskMany, Database, Done, Rows, Stamp, Step, Steps, Work
from gatekeeper.stores.journal import FileJournal
from gatekeeper.stores.lane import Lane
from gatekeeper.stores.migrate import migrate, migrations
from gatekeeper.stores.ops import ReleaseOp
from gatekeeper.stores.postgres import PostgresDatabase
from gatekeeper.stores.queries import for_postgres, for_sqlite
from gatekeeper.stores.sqlite import SqliteDatabase
from gatekeeper.stores.store import SqlStore

T = TypeVar("T")
NOW_MS = 1_781_524_800_000
LATER_MS = NOW_MS + 3_600_000
PLANS = {PLAN.id: PLAN}
# What ``settlement`` says that a call took, and what a sign of life says that it had taken by then.
TOOK, SO_FAR = 321 * UNITS, 50 * UNITS
COMMITTED = "after COMMIT"
_TIMEOUT_S = 60.0


class Points:
    """Counts the points that are passed, and kills this very process at the one that was chosen."""

    def __init__(self, lethal: int | None) -> None:
        self.lethal = lethal
        self.passed: list[str] | None = None

    def begin(self) -> None:
        """From here on points count."""
        self.passed = []

    @property
    def is_next_lethal(self) -> bool:
        """Whether the next point is the last."""
        return self.passed is not None and len(self.passed) + 1 == self.lethal

    def at(self, name: str) -> None:
        """A point."""
        if self.passed is None:
            return
        self.passed.append(name)
        if len(self.passed) == self.lethal:
            os.kill(os.getpid(), signal.SIGKILL)


class LethalDatabase:
    """A Database whose writes have a point before each statement, and around COMMIT and fsync."""

    def __init__(self, database: SqliteDatabase | PostgresDatabase, points: Points) -> None:
        self._database = database
        self._points = points
        self.read, self.report, self.close = database.read, database.report, database.close

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """See ``Database``."""
        result = await self._database.write(lambda: self._stepped(work()), durable=durable)
        self._points.at(COMMITTED)
        return result

    def begin(self, work: Work[T], done: Done[T], *, lasting: bool) -> None:
        """See ``Database``."""

        def then(result: T | None, failure: BaseException | None, safe: "asyncio.Future[None] | None") -> None:
            if failure is None:
                self._points.at(COMMITTED)
            done(result, failure, None if safe is None else asyncio.ensure_future(self._flushed(safe)))

        self._database.begin(lambda: self._stepped(work()), then, lasting=lasting)

    async def _flushed(self, safe: "asyncio.Future[None]") -> None:
        self._points.at("before fsync")
        await safe
        self._points.at("after fsync")

    def _stepped(self, steps: Steps[T]) -> Steps[T]:
        rows: Rows = ()
        try:
            step = next(steps)
            while True:
                for part in _parts(step):
                    # A stamp reads nothing that anybody could lose.
                    if not isinstance(part, Stamp):
                        self._points.at(f"before {_named(part)}")
                    rows = yield part
                step = steps.send(rows)
        except StopIteration as end:
            self._points.at("before COMMIT")
            result: T = end.value
            return result


def _parts(step: Step) -> list[Step]:
    """One statement after another."""
    if isinstance(step, AskAll):
        return [AskMany(part.query, part.rows) for part in step.parts]
    return [step]


def _named(step: Step) -> str:
    if isinstance(step, AskEach):
        return " and ".join(part.query for part in step.parts)
    return getattr(step, "query", "script")


class LethalJournal(FileJournal):
    """A journal with points around its line (one with half a line written) and around taking it back."""

    points: Points

    def _write(self, line: bytes) -> None:
        self.points.at("before the line")
        if self.points.is_next_lethal:
            super()._write(line[: len(line) // 2])
        self.points.at("in the middle of the line")
        super()._write(line)
        self.points.at(COMMITTED)

    async def done(self, call_id: str) -> None:
        """See ``Journal``."""
        self.points.at("before the line is taken back")
        await super().done(call_id)
        self.points.at("after the line was taken back")


class _Away:
    """A ledger that is away."""

    async def settle(self, settlement: Settlement) -> Settled:
        raise Fault("ledger", FaultKind.STORE, "away")


@dataclass(frozen=True)
class World:
    """What a deed is done with."""

    store: SqlStore
    database: Database
    points: Points
    folder: Path
    name: str

    @property
    def settled(self) -> Settlement:
        """The end of this case's call."""
        return settlement(order(self.name, self.name, NOW_MS), NOW_MS + 1_000)

    async def hold(self) -> None:
        await self.store.hold(order(self.name, self.name, NOW_MS))

    async def extend(self) -> None:
        await self.store.extend(Extension(self.name, 10, 1, SO_FAR, True, NOW_MS + 30_000, NOW_MS))

    async def renew(self) -> None:
        await self.store.renew([Progress(self.name, SO_FAR, True)], NOW_MS + 30_000)

    async def release(self) -> None:
        await Lane(self.database, lambda: NOW_MS).carry_out(ReleaseOp(self.name))

    async def settle(self) -> None:
        await self.store.settle(self.settled)

    async def recover(self) -> None:
        await self.store.recover(LATER_MS, PLANS)

    async def journal(self) -> None:
        """Settle while the ledger is away: until the journal has it."""
        journal = LethalJournal(self.folder, f"dying:{self.name}")
        journal.points = self.points
        settler = Settler(_Away(), SystemClock(), journal)  # type: ignore[arg-type]
        await settler.begin(self.settled).kept
        await settler.drain(0)
        # Its owner is gone now: the lines are for whoever comes next.
        await journal.close()

    async def replay(self) -> None:
        """Settle what a dead process had journaled."""
        journal = LethalJournal(self.folder, f"heir:{os.getpid()}")
        journal.points = self.points
        settler = Settler(self.store, SystemClock(), journal)
        await settler.replay(lambda: PLANS)
        await settler.drain(_TIMEOUT_S)
        await journal.close()


Deed = Callable[[World], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """``before``, then ``deed`` with a death in it, then ``after``: what must be used, as (when the deed was not
    committed, when it was), and how many rows must be on record."""

    name: str
    before: tuple[Deed, ...]
    deed: Deed
    after: tuple[Deed, ...]
    used: tuple[int, int]
    records: tuple[int, int]


W = World
CASES = (
    Case("hold", (), W.hold, (W.recover,), (0, 0), (0, 1)),
    Case("extend", (W.hold,), W.extend, (W.recover,), (0, SO_FAR), (1, 1)),
    Case("renew", (W.hold,), W.renew, (W.recover,), (0, SO_FAR), (1, 1)),
    Case("release", (W.hold,), W.release, (W.recover,), (0, 0), (1, 0)),
    Case("settle, then the sweeper", (W.hold,), W.settle, (W.recover,), (0, TOOK), (1, 1)),
    Case("settle, then settle again", (W.hold,), W.settle, (W.settle, W.recover), (TOOK, TOOK), (1, 1)),
    Case("settle what was never held", (), W.settle, (W.settle,), (TOOK, TOOK), (1, 1)),
    Case("recover", (W.hold, W.renew), W.recover, (W.recover,), (SO_FAR, SO_FAR), (1, 1)),
    Case("settle late", (W.hold, W.renew, W.recover), W.settle, (W.settle,), (TOOK, TOOK), (2, 2)),
    Case("journal", (W.hold,), W.journal, (W.replay, W.recover), (0, TOOK), (1, 1)),
    Case("replay", (W.hold, W.journal), W.replay, (W.replay, W.recover), (TOOK, TOOK), (1, 1)),
)


async def _opened(url: str, points: Points, folder: Path, name: str) -> World:
    path = url.removeprefix("sqlite:///")
    opening = SqliteDatabase.open(Path(path)) if url.startswith("sqlite") else PostgresDatabase.open(url)
    inner: SqliteDatabase | PostgresDatabase = await opening  # type: ignore[misc]
    database = LethalDatabase(inner, points)
    await migrate(database)
    return World(SqlStore(database, SystemClock()), database, points, folder, name)


async def _dies(url: str, case: Case, name: str, folder: Path, lethal: int | None) -> list[str]:
    """The deed; the points that it has, if it lives to tell."""
    points = Points(lethal)
    world = await _opened(url, points, folder, name)
    for deed in case.before:
        await deed(world)
    points.begin()
    await case.deed(world)
    passed, points.passed = list(points.passed or ()), None
    await world.store.close()
    return passed


async def _looks(url: str, case: Case, name: str, folder: Path, committed: bool) -> list[str]:
    """What is not as it must be: at once, and when life has gone on."""
    world = await _opened(url, Points(None), folder, name)
    wrong = []
    if (found := await world.store.unbalanced()) != ([], []):
        wrong.append(f"unbalanced at once: {found}")
    for deed in case.after:
        await deed(world)
    if (found := await world.store.unbalanced()) != ([], []):
        wrong.append(f"unbalanced in the end: {found}")
    # Only the first, the customer's quota, is a limit of the plan: on it counts also what was never held.
    lines = order(name, name, NOW_MS).stock[: None if W.hold in (case.deed, *case.before) else 1]
    for state in await world.store.counters([line.key for line in lines]):
        if (state.used, state.held) != (case.used[committed], 0):
            wrong.append(f"{state} instead of {case.used[committed]} used and nothing held")
    records = await world.store.records(customer_id=name)
    if len(records) != case.records[committed] or sum(one.units_micro for one in records) != case.used[committed]:
        wrong.append(f"{len(records)} records with {[one.units_micro for one in records]}")
    if left := list(folder.glob("*")):  # noqa: ASYNC240 - nothing else waits in this process
        wrong.append(f"{left} left in the journal")
    await world.store.close()
    return wrong


def _forked(work: Callable[[], Coroutine[Any, Any, list[str]]]) -> list[str] | None:
    """What the work returns, from a process of its own; None if that was killed."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(out)
            found = asyncio.run(asyncio.wait_for(work(), _TIMEOUT_S))
            os.write(into, json.dumps(found).encode())
            code = 0
        finally:
            # Not through the parent's own clean-up.
            os._exit(code)
    os.close(into)
    with os.fdopen(out) as said:
        text = said.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return None
    return list(json.loads(text)) if os.WEXITSTATUS(status) == 0 else [f"the process ended with {status}"]


def examine(url: str, case: Case) -> tuple[list[str], list[str]]:
    """(its points, what was wrong), each point once."""
    slug = case.name.replace(" ", "-").replace(",", "")
    with tempfile.TemporaryDirectory(prefix="gk-points-") as top:

        def died(number: int | None) -> list[str] | None:
            name, folder = f"{slug}-{number}", Path(top) / str(number)
            return _forked(lambda: _dies(url, case, name, folder, number))

        def looked(number: int | None, committed: bool) -> list[str]:
            name, folder = f"{slug}-{number}", Path(top) / str(number)
            return _forked(lambda: _looks(url, case, name, folder, committed)) or []

        points = died(None) or []
        wrong = [f"undisturbed: {said}" for said in looked(None, True)]
        first = points.index(COMMITTED) + 1 if COMMITTED in points else len(points) + 1
        for number, point in enumerate(points, 1):
            if (lived := died(number)) is not None:
                wrong.append(f"{point}: it was not killed: {lived}")
            wrong += [f"{point}: {said}" for said in looked(number, number >= first)]
    return points, wrong


def main() -> int:
    """Prints a JSON object: the points of each case, and what was wrong."""
    url = sys.argv[1]
    # Read once here, and not again in each of some hundred processes.
    migrations()
    for_sqlite() if url.startswith("sqlite") else for_postgres()
    found = {case.name: examine(url, case) for case in CASES}
    wrong = [f"{name}: {said}" for name, (_, said_of) in found.items() for said in said_of]
    print(json.dumps({"points": {name: points for name, (points, _) in found.items()}, "wrong": wrong}))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
