"""The seam between the store and a database: units of work that ask, and a driver that answers.

The rule: a unit of work is one transaction, written as a generator that yields what it asks of the database and is sent
the rows. It does no I/O itself, so the same text runs on SQLite's writer thread and over asyncpg, and its decisions
are made where the rows are locked.
"""

import asyncio
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

from gatekeeper.errors import Fault, FaultKind

T = TypeVar("T")
R = TypeVar("R", contravariant=True)
Row: TypeAlias = Sequence[Any]
Rows: TypeAlias = Sequence[Row]


class Ask(NamedTuple):
    """A named query with its parameters; answered with its rows."""

    query: str
    args: Mapping[str, Any] = {}


class AskMany(NamedTuple):
    """A named statement, once for each of ``rows``, which have its parameters in order; answered with the rows that it
    finds for all of them, or with none."""

    query: str
    rows: Sequence[Row]


class AskAll(NamedTuple):
    """Statements that change different rows, so that their order does not matter; answered with no rows."""

    parts: Sequence[AskMany]


class AskEach(NamedTuple):
    """Statements that find rows, carried out in this order; answered with one list of rows for each."""

    parts: Sequence[AskMany]


class Stamp(NamedTuple):
    """Answered with one row, which is the same again only if nothing was written into the database in between, by
    whomever; or with none, by a database that cannot tell or that others may write into at the same time."""


class Script(NamedTuple):
    """Statements as a text, for migrations; answered with no rows. ``postgres`` is the text for Postgres where that
    differs."""

    text: str
    postgres: str | None = None


Step: TypeAlias = Ask | AskMany | AskAll | AskEach | Stamp | Script
Steps: TypeAlias = Generator[Step, Rows, T]
Work: TypeAlias = Callable[[], Steps[T]]


class Done(Protocol[R]):
    """What is called with the end of a transaction; see ``Database.begin``."""

    def __call__(
        self, result: R | None, failure: BaseException | None, safe: "asyncio.Future[None] | None"
    ) -> None: ...


class Database(Protocol):
    """One database. Each method runs one unit of work in one transaction and raises Fault (world ``ledger``).

    A unit of work may be run again from its start when nothing of it was committed. Once a transaction has begun to
    commit, cancelling the caller does not stop it.
    """

    async def write(self, work: Work[T], *, durable: bool = True) -> T:
        """A transaction that may write. With ``durable`` False its commit may be lost when the host loses power."""
        ...

    def begin(self, work: Work[T], done: "Done[T]", *, lasting: bool) -> None:
        """A transaction that may write, for the batches of a ledger, of which every call waits for two: no task stands
        in between, and the next one need not wait for the disk. ``done`` is called once, on the loop and without
        raising: with the result when it was committed, or with what it failed of, as ``write`` would raise it. A commit
        may be lost when the host loses power until the future that comes with it is done; without ``lasting`` there is
        none. Raises Fault when closed."""
        ...

    async def read(self, work: Work[T]) -> T:
        """A transaction that only reads; short (a look-up during admission)."""
        ...

    async def report(self, work: Work[T]) -> T:
        """A transaction that only reads and may take long: it delays neither writers nor look-ups."""
        ...

    async def close(self) -> None:
        """Wait for what is under way, then close. Closing twice does nothing."""
        ...


class Rejected(Fault):
    """The database refused what this one transaction wanted (a constraint, a value out of range). Others go on."""


def fault(message: str) -> Fault:
    """The ledger cannot: the database is away, locked, full or broken."""
    return Fault("ledger", FaultKind.STORE, message)


def rejected(message: str) -> Rejected:
    """See ``Rejected``."""
    return Rejected("ledger", FaultKind.STORE, message)


def ask(query: str, **args: Any) -> Steps[Rows]:
    """A unit of work of one query."""
    rows = yield Ask(query, args)
    return rows


def alone(query: str, **args: Any) -> Work[Rows]:
    """The same, ready for a Database."""
    return lambda: ask(query, **args)
