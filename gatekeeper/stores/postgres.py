"""Postgres as a Database: a pool of asyncpg connections. The rule: asyncpg's types and exceptions stay in this file."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import asyncpg

from gatekeeper.stores.database import (
    Ask,
    AskAll,
    AskEach,
    AskMany,
    Done,
    Rejected,
    Row,
    Rows,
    Stamp,
    Step,
    Steps,
    Work,
    fault,
    rejected,
)
from gatekeeper.stores.queries import as_each, as_one, for_postgres

T = TypeVar("T")
# What is called when a batch was committed; returns what waits for the disk.
Committed: TypeAlias = Callable[[T], "asyncio.Future[None] | None"]
CONNECTIONS_MAX = 8
CONNECT_TIMEOUT_S = 10.0
# A statement that takes longer waits for a lock that nobody will free; a report may read a year of records.
STATEMENT_TIMEOUT_MS = 10_000
REPORT_TIMEOUT_MS = 120_000
# Above the server's own limits: only for a server that does not answer at all.
COMMAND_TIMEOUT_S = 130.0
# A migration may move years of records.
SCRIPT_TIMEOUT_S = 6 * 3_600.0
# Deadlocks cannot come from the batches (they lock in one order); other programs on the same tables may cause them.
ATTEMPTS = 4
# Of every session.
SETTINGS = {
    "application_name": "gatekeeper",
    "statement_timeout": str(STATEMENT_TIMEOUT_MS),
    # A process that was stopped in the middle of a transaction must not hold the counters for ever.
    "idle_in_transaction_session_timeout": str(STATEMENT_TIMEOUT_MS),
    # Every row is found by its key. A plan that was made while the tables were empty, or never analysed, would scan
    # them whole for as long as it is cached.
    "enable_seqscan": "off",
}
# Of the ledger's batches: a few statements over and over, whose planning would take a third of a small one's time. They
# find every row by its key, whatever the parameters are, and also where they were planned while the tables were empty.
BEGIN_BATCH = (
    "BEGIN; SET LOCAL synchronous_commit TO OFF; SET LOCAL plan_cache_mode TO force_generic_plan; "
    "SET LOCAL enable_hashjoin TO OFF; SET LOCAL enable_mergejoin TO OFF"
)

_AGAIN = (asyncpg.exceptions.DeadlockDetectedError, asyncpg.exceptions.SerializationError)
# InternalClientError is what asyncpg says when the server ended an idle connection and the notice is still unread.
_LOST = (
    asyncpg.exceptions.PostgresConnectionError,
    asyncpg.exceptions.AdminShutdownError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    ConnectionError,
)
_REJECTED = (asyncpg.exceptions.IntegrityConstraintViolationError, asyncpg.exceptions.DataError)
_FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


class _Connection(asyncpg.Connection):
    """Nothing outlives a transaction here (SET LOCAL, transaction locks), so giving one back needs no round trip."""

    __slots__ = ()

    def get_reset_query(self) -> str:
        return ""


class PostgresDatabase:
    """See ``Database``."""

    def __init__(self, pool: "asyncpg.Pool[Any]") -> None:
        self._pool = pool
        self._queries = for_postgres()
        self._running: set[asyncio.Task[Any]] = set()
        self._closed = False

    @classmethod
    async def open(
        cls, url: str, *, connections_max: int = CONNECTIONS_MAX, read_only: bool = False
    ) -> "PostgresDatabase":
        """Connect. Raises Fault when the server cannot be reached; its message never holds the password. With
        ``read_only`` the server refuses every write."""
        settings = dict(SETTINGS)
        if read_only:
            settings["default_transaction_read_only"] = "on"
        try:
            pool = await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=connections_max,
                timeout=CONNECT_TIMEOUT_S,
                command_timeout=COMMAND_TIMEOUT_S,
                server_settings=settings,
                connection_class=_Connection,
            )
        except (*_FAILED, ValueError, ssl.SSLError) as cause:
            raise fault(f"Postgres: {type(cause).__name__}: cannot connect") from cause
        return cls(pool)

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """See ``Database.write``."""
        return await self._shielded(work, "BEGIN" if durable else BEGIN_BATCH)

    def begin(self, work: Work[T], done: Done[T], *, lasting: bool) -> None:
        """See ``Database.begin``. The same connection flushes: while its session lives, the server has not lost what it
        had committed."""
        if self._closed:
            raise fault("the store is closed")
        self._run(self._begin(work, done, lasting))

    async def _begin(self, work: Work[T], done: Done[T], lasting: bool) -> None:
        told = False

        def committed(result: T) -> "asyncio.Future[None] | None":
            nonlocal told
            told = True
            safe = asyncio.get_running_loop().create_future() if lasting else None
            done(result, None, safe)
            return safe

        try:
            await self._attempts(work, BEGIN_BATCH, committed)
        except BaseException as failure:
            if not told:
                done(None, failure, None)
            if not isinstance(failure, Exception):
                raise

    async def read(self, work: Work[T]) -> T:
        """See ``Database.read``."""
        return await self._shielded(work, "BEGIN READ ONLY")

    async def report(self, work: Work[T]) -> T:
        """See ``Database.report``."""
        begin = (
            "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL enable_seqscan TO ON; "
            f"SET LOCAL statement_timeout TO {REPORT_TIMEOUT_MS}"
        )
        return await self._shielded(work, begin)

    async def close(self) -> None:
        """See ``Database.close``."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*self._running, return_exceptions=True)
        try:
            await asyncio.wait_for(self._pool.close(), CONNECT_TIMEOUT_S)
        except _FAILED:
            self._pool.terminate()

    async def _shielded(self, work: Work[T], begin: str) -> T:
        """The work in a task of its own: a caller that is cancelled leaves no transaction open behind it."""
        return await asyncio.shield(self._run(self._attempts(work, begin)))

    def _run(self, running: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(running)
        self._running.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled():
            # Retrieved here: a caller that was cancelled is no longer there to hear of it.
            task.exception()

    async def _attempts(self, work: Work[T], begin: str, committed: Committed[T] | None = None) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            committing = [False]
            try:
                async with self._acquired() as connection:
                    result = await self._transaction(connection, work, begin, committing)
                    if committed is not None and (safe := committed(result)) is not None:
                        await self._flush(connection, safe)
                    return result
            except _REJECTED as cause:
                raise _refusal(cause) from cause
            except _FAILED as cause:
                if isinstance(cause, ValueError):  # asyncpg could not send a parameter, as out of range
                    raise _refusal(cause) from cause
                # Once COMMIT was sent, nobody knows whether it was done: saying so is left to the caller.
                again = isinstance(cause, _AGAIN) or (isinstance(cause, _LOST) and not committing[0])
                if not again or attempt == ATTEMPTS or self._closed:
                    raise fault(f"Postgres: {type(cause).__name__}: {cause}") from cause
                if isinstance(cause, _LOST):
                    # What ended one connection has ended the others of the pool, too.
                    await self._pool.expire_connections()
        raise AssertionError("unreachable")

    @asynccontextmanager
    async def _acquired(self) -> AsyncIterator[Any]:
        if self._closed:
            raise fault("the store is closed")
        connection = await self._pool.acquire(timeout=CONNECT_TIMEOUT_S)
        try:
            yield connection
        except _LOST:
            connection.terminate()
            raise
        finally:
            await self._pool.release(connection)

    async def _transaction(self, connection: Any, work: Work[T], begin: str, committing: list[bool]) -> T:
        # asyncpg's own transaction() would take one more round trip for each setting.
        await connection.execute(begin)
        try:
            result = await self._drive(connection, work())
            committing[0] = True
            await connection.execute("COMMIT")
        except Exception:
            if not connection.is_closed() and connection.is_in_transaction():
                await connection.execute("ROLLBACK")
            raise
        return result

    async def _flush(self, connection: Any, safe: "asyncio.Future[None]") -> None:
        """A commit that waits for the disk takes all before it along; this one has nothing else."""
        failure = fault("the store was stopped")
        try:
            await connection.fetch(self._queries["flush"].text)
        except _FAILED as cause:
            # Raised as a Fault: the transaction was committed, and is not to be tried again.
            failure = fault(f"Postgres: {type(cause).__name__}: {cause}")
            connection.terminate()
            raise failure from cause
        else:
            safe.set_result(None)
        finally:
            if not safe.done():
                safe.set_exception(failure)
                # Whoever waits is told; it is not a mistake that nobody may.
                safe.exception()

    async def _drive(self, connection: Any, steps: Steps[T]) -> T:
        rows: Rows = ()
        try:
            step = next(steps)
            while True:
                rows = await self._answer(connection, step)
                step = steps.send(rows)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            steps.close()

    async def _answer(self, connection: Any, step: Step) -> Rows:
        if isinstance(step, Ask):
            query = self._queries[step.query]
            rows: Rows = await connection.fetch(query.text, *_ordered(query.parameters, step.args))
            return rows
        if isinstance(step, AskMany):
            query = self._queries[step.query]
            if query.takes_rows:
                found: Rows = await connection.fetch(query.text, *_columns(step.rows))
                return found
            await connection.executemany(query.text, step.rows)
        elif isinstance(step, AskEach):
            return await self._each(connection, step)
        elif isinstance(step, AskAll):
            await self._all(connection, step)
        elif not isinstance(step, Stamp):
            await connection.execute(step.postgres or step.text, timeout=SCRIPT_TIMEOUT_S)
        return ()

    async def _each(self, connection: Any, step: AskEach) -> list[list[Row]]:
        """The same for statements that find rows."""
        answers: list[list[Row]] = [[] for _ in step.parts]
        args = [column for part in step.parts for column in _columns(part.rows)]
        for number, row in await connection.fetch(as_each(tuple([part.query for part in step.parts])), *args):
            answers[number].append(row)
        return answers

    async def _all(self, connection: Any, step: AskAll) -> None:
        """One round trip for all that can go into one statement."""
        names: list[str] = []
        args: list[Any] = []
        for part in step.parts:
            query = self._queries[part.query]
            if query.takes_rows:
                names.append(part.query)
                args += _columns(part.rows)
            else:
                await connection.executemany(query.text, part.rows)
        if names:
            await connection.fetch(as_one(tuple(names)), *args)


def _ordered(parameters: tuple[str, ...], args: Mapping[str, Any]) -> list[Any]:
    return [args[name] for name in parameters]


def _columns(rows: Sequence[Row]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _refusal(cause: Exception) -> Rejected:
    return rejected(f"Postgres: {type(cause).__name__}: {cause}")
