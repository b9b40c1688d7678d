"""Kills a flusher before every single step that it takes, one after the other, and lets another one go on after each.

Run as ``billing_killer.py DATABASE_URL PAPER``. A step is a statement, a commit, or a report. Each line that it says is
``killed STEP``, and the last one ``done``. It forks from one process, so that Python starts once; nothing in that
process has ever opened the database or run a loop.
"""

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

from billing_stand import ALL, METER, PLAN, Stand
from fakes.biller import FakeBiller
from fakes.past import customer
from fakes.proxies import FakeClock

from gatekeeper.billers.paper import PaperBiller
from gatekeeper.rules.billing import BatchState
from gatekeeper.stores import SqlStore
from gatekeeper.stores.migrate import migrate, migrations
from gatekeeper.stores.postgres import PostgresDatabase
from gatekeeper.stores.queries import for_postgres, for_sqlite
from gatekeeper.stores.sqlite import SqliteDatabase

# Longer than any lease: whoever comes next need not wait for it.
NEXT_S = 200
NOBODY = 10**9


class Deadly:
    """Counts steps, and dies before the one with this number. Two threads take them: it dies once."""

    def __init__(self, number):
        self.left = number
        self._one = threading.Lock()

    def step(self, name):
        with self._one:
            if self.left == 0:
                sys.stdout.write(f"killed {name}\n")
                sys.stdout.flush()
                os.kill(os.getpid(), signal.SIGKILL)
                # Not a step further, until the signal has come.
                signal.pause()
            self.left -= 1


class DeadlyDatabase:
    """A Database whose transactions may die at each statement, before their commit and after it."""

    def __init__(self, database, deadly):
        self._database = database
        self._deadly = deadly

    def __getattr__(self, name):
        return getattr(self._database, name)

    async def write(self, work, *, durable=True):
        result = await self._database.write(lambda: self._steps(work()), durable=durable)
        self._deadly.step("return")
        return result

    def _steps(self, steps):
        try:
            step = next(steps)
            while True:
                self._deadly.step(getattr(step, "query", "all"))
                rows = yield step
                step = steps.send(rows)
        except StopIteration as end:
            self._deadly.step("commit")
            return end.value


class DeadlyBiller(PaperBiller):
    """Paper, and death before a report and before its answer is heard."""

    def __init__(self, path, deadly):
        super().__init__(path)
        self._deadly = deadly

    async def report(self, batch):
        self._deadly.step("report")
        answer = await super().report(batch)
        self._deadly.step("answer")
        return answer


async def open_database(url):
    if url.startswith("sqlite"):
        return await SqliteDatabase.open(Path(url.removeprefix("sqlite:///")))
    return await PostgresDatabase.open(url, connections_max=2)


async def round_of(url, paper, number, at):
    """Two customers use something, and a flusher has a turn in which it dies before step ``at``."""
    deadly = Deadly(NOBODY)
    database = await open_database(url)
    await migrate(database)
    clock = FakeClock()
    clock.now_s += number * NEXT_S
    store = SqlStore(DeadlyDatabase(database, deadly), clock)
    store.tell(ALL)
    stand = Stand(store, clock, FakeBiller(clock))
    stand.biller = DeadlyBiller(paper, deadly)
    stand.flusher = stand.another(f"p{number}")
    for name, units in (("ada", "1.75"), ("bob", "3.5")):
        if await store.customer(name) is None:
            await customer(store, name, PLAN.id, stand.anchor_ms)
        await stand.use(units, name, call_id=f"{name}-{number}")
    deadly.left = at
    await stand.flusher.turn()
    deadly.left = NOBODY
    if at == NOBODY:
        # Postgres may take a moment to see that a client is gone; what that one had locked is passed over until then.
        for _ in range(200):
            waiting = await store.batches(state=BatchState.WAITING)
            if not waiting:
                break
            await asyncio.sleep(0.02)
            await stand.flusher.turn()
        assert waiting == [], waiting
        assert (await store.backlog())[:3] == (0, 0, 0)
    await store.close()


def forked(url, paper, number, at):
    """Whether the child lived."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            asyncio.run(round_of(url, paper, number, at))
            code = 0
        finally:
            sys.stdout.flush()
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return False
    assert os.WEXITSTATUS(status) == 0, status
    return True


def main(url, paper):
    assert METER
    # Read once here, and not again in each of a hundred children.
    migrations()
    for_sqlite() if url.startswith("sqlite") else for_postgres()
    at = number = 0
    lived = False
    while not lived:
        number += 2
        lived = forked(url, Path(paper), number, at)
        assert forked(url, Path(paper), number + 1, NOBODY)
        at += 1
    sys.stdout.write("done\n")


main(*sys.argv[1:])
