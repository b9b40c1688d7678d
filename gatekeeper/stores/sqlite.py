"""SQLite as a Database: a WAL file, one writer thread, and readers that never wait for it.

The rule: a connection belongs to one thread for life, so no statement can join somebody else's transaction. Processes
queue for the write lock on a flock, which wakes them in turn; SQLite's own busy handler sleeps and is unfair.
"""

import asyncio
import fcntl
import logging
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from gatekeeper.errors import Fault
from gatekeeper.stores.database import (
    Ask,
    AskAll,
    AskEach,
    AskMany,
    Done,
    Row,
    Rows,
    Script,
    Stamp,
    Step,
    Steps,
    Work,
    fault,
    rejected,
)
from gatekeeper.stores.queries import Query, for_rows, for_sqlite
from gatekeeper.stores.worker import Then, Worker

_LOG = logging.getLogger(__name__)
T = TypeVar("T")
# The flock orders the writers; this is for whoever writes without it (a shell, a backup).
BUSY_TIMEOUT_MS = 5_000
# A batch changes some 10 to 100 pages of 4 KiB: the log is copied into the database every 4 to 40 MB.
CHECKPOINT_COMMITS = 100
# 16 MB of log. It only starts anew when a commit finds all of it copied, which under steady load never happens by
# itself: then the writer copies the last few pages, for once.
LOG_FRAMES_MAX = 4_096
LOG_BYTES_MAX = LOG_FRAMES_MAX * 4_096
# The indexes of some million records are as large at their busy ends; SQLite's own 2 MB are not.
CACHE_KIB = 16_384
# 64 records are some 2,200 parameters, of the 32,766 that one statement may have.
ROWS_MAX = 64
# The length of the log is flushed too, as far as reading it back needs it.
_datasync = getattr(os, "fdatasync", os.fsync)
# RETURNING came with 3.35.
OLDEST = (3, 35, 0)


class SqliteDatabase:
    """See ``Database``. Cancelling a caller does not stop a transaction whose turn has come."""

    def __init__(self, path: Path, checkpoint_commits: int, log_frames_max: int, read_only: bool = False) -> None:
        self._path = path
        self._checkpoint_commits = checkpoint_commits
        self._log_frames_max = log_frames_max
        self._read_only = read_only
        self._writer = _Thread("gatekeeper-writer", path)
        self._lookups = _Thread("gatekeeper-lookups", path, "PRAGMA query_only = ON", read_only=read_only)
        self._reports = _Thread("gatekeeper-reports", path, "PRAGMA query_only = ON", read_only=read_only)
        self._gate: int | None = None
        self._flusher = Worker("gatekeeper-flusher")
        self._flushing: asyncio.Future[None] | None = None
        self._log: int | None = None
        self._lost: OSError | None = None
        self._commits = 0
        self._checkpoint: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: Path,
        *,
        checkpoint_commits: int = CHECKPOINT_COMMITS,
        log_frames_max: int = LOG_FRAMES_MAX,
        read_only: bool = False,
    ) -> "SqliteDatabase":
        """Open or create the file; with ``read_only`` it must be there, and nothing is written. Raises Fault when that
        cannot be."""
        if sqlite3.sqlite_version_info < OLDEST:
            raise fault(f"SQLite {sqlite3.sqlite_version} is too old: 3.35 or newer is needed")
        database = cls(path, checkpoint_commits, log_frames_max, read_only)
        if read_only:
            await database._reports.run(database._expect_file)
            return database
        try:
            await database._writer.run(database._prepare)
        except BaseException:
            await database.close()
            raise
        return database

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """See ``Database.write``."""
        if self._read_only:
            raise fault("the database was opened for reading")
        result = await self._writer.run(lambda: self._transaction(work))
        if durable:
            await self.flush()
        self._committed()
        return result

    def begin(self, work: Work[T], done: Done[T], *, lasting: bool) -> None:
        """See ``Database.begin``."""
        if self._read_only:
            raise fault("the database was opened for reading")

        def then(result: T | None, failure: BaseException | None) -> None:
            if failure is not None:
                done(None, _translated(failure), None)
                return
            self._committed()
            done(result, None, self._flushed() if lasting else None)

        try:
            self._writer.begin(lambda: self._transaction(work), then)
        except RuntimeError as cause:
            raise _translated(cause) from cause

    async def flush(self) -> None:
        """Returns when nothing can be lost of what was committed before this was called. Callers that wait at the same
        moment share one fsync."""
        # Shielded: others wait for the same.
        await asyncio.shield(self._flushed())

    def _flushed(self) -> "asyncio.Future[None]":
        """Done when ``flush`` may return."""
        flushing = self._flushing
        if flushing is None:
            flushing = asyncio.get_running_loop().create_future()
            if self._lost is not None:
                told = f"SQLite: {self._lost}; what was written since is not safe until the process is started again"
                flushing.set_exception(fault(told))
            else:
                self._flushing = flushing
                try:
                    self._flusher.begin(self._sync, partial(_synced, flushing))
                except RuntimeError as cause:
                    self._flushing = None
                    flushing.set_exception(fault(f"SQLite: {cause}"))
        return flushing

    def _committed(self) -> None:
        self._commits += 1
        if self._commits >= self._checkpoint_commits and (self._checkpoint is None or self._checkpoint.done()):
            self._commits = 0
            self._checkpoint = asyncio.create_task(self._copy_log())

    async def read(self, work: Work[T]) -> T:
        """See ``Database.read``."""
        return await self._lookups.run(lambda: self._lookups.transaction(work, "BEGIN"))

    async def report(self, work: Work[T]) -> T:
        """See ``Database.report``."""
        return await self._reports.run(lambda: self._reports.transaction(work, "BEGIN"))

    async def close(self) -> None:
        """See ``Database.close``."""
        if self._closed:
            return
        self._closed = True
        if self._checkpoint is not None:
            await asyncio.gather(self._checkpoint, return_exceptions=True)
        for thread in (self._reports, self._lookups, self._writer):
            await thread.close()
        await self._flusher.close()
        for descriptor in (self._gate, self._log):
            if descriptor is not None:
                os.close(descriptor)
        self._gate = self._log = None

    def _expect_file(self) -> None:
        if not self._path.is_file():
            raise fault(f"SQLite: there is no file {self._path}")

    def _prepare(self) -> None:
        """Open the file as its writer. Two processes cannot switch a new file to WAL at once: hence in the gate."""
        self._gate = os.open(f"{self._path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with self._in_the_gate():
            (mode,) = self._writer.connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise fault(f"SQLite: {self._path} stands where no write-ahead log can be (journal mode {mode})")
        # A commit waits for no disk: see ``_sync``. The log itself is synced before a checkpoint copies it.
        self._writer.connection.execute("PRAGMA synchronous = NORMAL")
        # Pages that a batch changes come again in the next ones; what a statement of many rows may have to undo stays
        # in memory, not in a file.
        self._writer.connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._writer.connection.execute("PRAGMA temp_store = MEMORY")
        # Checkpoints run beside the commits, never within one.
        self._writer.connection.execute("PRAGMA wal_autocheckpoint = 0").fetchone()
        self._writer.connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}").fetchone()

    def _transaction(self, work: Work[T]) -> T:
        gate = self._gate
        assert gate is not None
        # ``_in_the_gate`` without a generator: every batch comes by.
        fcntl.flock(gate, fcntl.LOCK_EX)
        try:
            return self._writer.transaction(work, "BEGIN IMMEDIATE")
        finally:
            fcntl.flock(gate, fcntl.LOCK_UN)

    def _sync(self) -> None:
        """What ``PRAGMA synchronous = FULL`` does at the end of each commit, here for all commits until now at once and
        beside the next ones: neither the gate nor the write lock waits for the disk."""
        # Whoever comes from here on may have committed too late for this one.
        self._flushing = None
        if self._lost is not None:
            # This one would succeed: what the one before it could not write is not tried again.
            raise self._lost
        if self._log is None:
            self._log = os.open(f"{self._path}-wal", os.O_RDWR | os.O_CLOEXEC)
        try:
            _datasync(self._log)
        except OSError as failure:
            # The system may have dropped what it could not write, and the next fsync would not say so.
            self._lost = failure
            raise

    @contextmanager
    def _in_the_gate(self) -> Iterator[None]:
        assert self._gate is not None
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    async def _copy_log(self) -> None:
        """Copy the write-ahead log into the database as far as no reader needs it, beside the commits. What fails
        (another process is at it) is done the next time."""
        try:
            if await self._reports.run(self._reports.checkpoint) > self._log_frames_max:
                await self._writer.run(self._checkpoint_in_the_gate)
        except Fault as failure:
            _LOG.info("the log was not copied: %s", failure)

    def _checkpoint_in_the_gate(self) -> None:
        with self._in_the_gate():
            self._writer.checkpoint()


class _Thread:
    """A thread with its own connection, which it opens when it is first used."""

    def __init__(self, name: str, path: Path, *pragmas: str, read_only: bool = False) -> None:
        self._worker = Worker(name)
        self._place = f"{path.absolute().as_uri()}?mode=ro" if read_only else str(path)
        self._uri = read_only
        self._queries = for_sqlite()
        self._texts: dict[tuple[str, int], str] = {}
        self._pragmas = (f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}", "PRAGMA foreign_keys = ON", *pragmas)
        self._connection: sqlite3.Connection | None = None
        # What other connections had committed when the transaction under way began, once that was asked for.
        self._version: int | None = None

    @property
    def connection(self) -> sqlite3.Connection:
        """Only for the thread itself."""
        if self._connection is None:
            # isolation_level None: transactions begin and end where we say so.
            self._connection = sqlite3.connect(self._place, isolation_level=None, cached_statements=256, uri=self._uri)
            for pragma in self._pragmas:
                self._connection.execute(pragma).fetchall()
        return self._connection

    async def run(self, job: Callable[[], T]) -> T:
        """The job's result, on the thread. Raises Fault for what SQLite and the system raise."""
        try:
            return await self._worker.run(job)
        except Exception as cause:
            told = _translated(cause)
            if told is cause:
                raise
            raise told from cause

    def begin(self, job: Callable[[], T], then: Then[T]) -> None:
        """See ``Worker.begin``: what SQLite and the system raise is told as it is."""
        self._worker.begin(job, then)

    def transaction(self, work: Work[T], begin: str) -> T:
        """Runs the work; commits, or rolls back and raises."""
        connection = self.connection
        connection.execute(begin)
        self._version = None
        try:
            result = self._drive(work())
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return result

    def checkpoint(self) -> int:
        """Copies what can be copied without waiting; returns how many frames the log has."""
        _, frames, _ = self.connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        return int(frames)

    async def close(self) -> None:
        """Waits for the jobs under way."""
        if self._connection is not None:
            await self._worker.run(self._connection.close)
        await self._worker.close()

    def _drive(self, steps: Steps[T]) -> T:
        rows: Rows = ()
        try:
            step = next(steps)
            while True:
                rows = self._answer(step)
                step = steps.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    def _answer(self, step: Step) -> Rows:
        if isinstance(step, Ask):
            query = self._queries[step.query]
            return self.connection.execute(query.text, [step.args[name] for name in query.parameters]).fetchall()
        if isinstance(step, AskMany):
            return self._many(self._queries[step.query], step.rows)
        if isinstance(step, AskAll):
            for part in step.parts:
                self._many(self._queries[part.query], part.rows)
            return ()
        if isinstance(step, AskEach):
            return [self._many(self._queries[part.query], part.rows) for part in step.parts]
        if isinstance(step, Stamp):
            # What other connections have committed, and what this one has changed, whether it was committed or not.
            connection = self.connection
            if self._version is None:
                (self._version,) = connection.execute("PRAGMA data_version").fetchone()
            return [(self._version, connection.total_changes)]
        self._script(step)
        return ()

    def _many(self, query: Query, rows: Sequence[Row]) -> Rows:
        """VALUES take many rows at once, 1, 2, 4... up to ROWS_MAX so that few texts are enough: sqlite3 gives the
        interpreter away at each statement, and may have to wait for it each time."""
        if not query.takes_rows:
            self.connection.executemany(query.text, rows)
            return ()
        start = 0
        found: list[Row] = []
        while start < len(rows):
            count = min(1 << (len(rows) - start).bit_length() - 1, ROWS_MAX)
            text = self._texts.get((query.name, count))
            if text is None:
                text = self._texts[query.name, count] = for_rows(query, count)
            some = rows if count == len(rows) else rows[start : start + count]
            found += self.connection.execute(text, list(chain.from_iterable(some))).fetchall()
            start += count
        return found

    def _script(self, script: Script) -> None:
        """Statement by statement: sqlite3's own executescript would commit the transaction first."""
        statement = ""
        for line in script.text.splitlines(keepends=True):
            statement += line
            if sqlite3.complete_statement(statement):
                self.connection.execute(statement)
                statement = ""


def _synced(flushing: "asyncio.Future[None]", _: None, failure: BaseException | None) -> None:
    if flushing.cancelled():
        return
    if failure is None:
        flushing.set_result(None)
        return
    flushing.set_exception(_translated(failure))
    # Whoever waits is told; it is not a mistake that nobody may.
    flushing.exception()


def _translated(cause: BaseException) -> BaseException:
    """As a Fault, where it is what SQLite and the system raise."""
    told: Fault
    match cause:
        case sqlite3.IntegrityError() | sqlite3.DataError() | sqlite3.InterfaceError() | sqlite3.ProgrammingError():
            told = rejected(f"SQLite: {cause}")
        case OverflowError():
            told = rejected("a number does not fit 64 bits")
        case sqlite3.Error() | OSError():
            told = fault(f"SQLite: {cause}")
        case RuntimeError() if "closed" in str(cause):
            told = fault("the store is closed")
        case _:
            return cause
    told.__cause__ = cause
    return told
