"""The connections to one origin: idle ones (the warmest first), a bound, and a queue for those who must wait.

The rule: a place in the pool is held by whoever was given a connection, until ``release``; it then goes to the one
who has waited longest. Nobody overtakes the queue, and no place is lost to a cancelled task.
"""

import asyncio
import ssl
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.upstreams.connection import Connection
from gatekeeper.upstreams.dial import dial, tls_context
from gatekeeper.upstreams.response import WORLD

# Below the keep-alive of the servers in front of LLM APIs (60 s and more); those that say less are believed.
IDLE_KEPT_S = 15.0
# Each waiter is a call with its request in memory; more than this cannot be served within a connect timeout.
WAITERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Origin:
    """What connections must have in common to be exchangeable."""

    name: str
    scheme: str
    host: str
    port: int
    tls_verify: bool
    ca_file: Path | None


class _Place(Enum):
    """Where a connection stands. CONNECTING and LENT have a holder, who will release it."""

    CONNECTING = auto()
    LENT = auto()
    IDLE = auto()


class Pool:
    """At most ``connections_max`` connections to one origin (more only for the moment in which one is replaced)."""

    def __init__(
        self,
        origin: Origin,
        connections_max: int,
        *,
        idle_kept_s: float = IDLE_KEPT_S,
        waiters_max: int = WAITERS_MAX,
    ) -> None:
        self.origin = origin
        self._connections_max = connections_max
        self._idle_kept_s = idle_kept_s
        self._waiters_max = waiters_max
        self._loop = asyncio.get_running_loop()
        self._places: dict[Connection, _Place] = {}
        # Still sockets, hence counted, but only until the loop has closed them.
        self._closing: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._waiters: deque[asyncio.Future[Connection | None]] = deque()
        self._connects: dict[Connection, asyncio.Timeout] = {}
        self._context: ssl.SSLContext | None = None
        self._closed = False
        self._emptied: asyncio.Event = asyncio.Event()

    @property
    def counts(self) -> tuple[int, int, int]:
        """(connections of any state, idle ones, waiters)."""
        return len(self._places) + len(self._closing), len(self._idle), len(self._waiters)

    def limit(self, connections_max: int) -> None:
        """A new bound: more room goes to the queue at once, too many connections go as they come back."""
        self._connections_max = connections_max
        self._grant()

    async def acquire(self, *, connect_timeout_s: float, wait_timeout_s: float, fresh: bool = False) -> Connection:
        """A connected connection that is now the caller's, to ``begin`` an exchange on without another await.

        ``fresh`` asks for a new one. Raises Fault (pool full, connect, connect timeout, TLS), always retryable.
        Cancellation gives up the place.
        """
        self._refuse_if_closed()
        if not fresh and (connection := self._take_idle()) is not None:
            return connection
        if not self._waiters and self._room():
            connection = self._reserve()
        elif fresh and self._idle:
            connection = self._replace(self._idle.popleft())
        else:
            connection = await self._queue(wait_timeout_s)
        if connection.connected:
            # Handed over by somebody else, but it may have died on the way here.
            if not self._closed and not connection.stale():
                return connection
            connection = self._replace(connection)
        await self._connect(connection, connect_timeout_s)
        return connection

    def release(self, connection: Connection, reusable: bool) -> None:
        """The holder is done. ``reusable``: the connection may carry another exchange."""
        assert self._places[connection] is _Place.LENT
        room = len(self._places) <= self._connections_max and not self._closed
        if not reusable or connection.lost or not room:
            self._retire(connection)
            return
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(connection)
            return
        self._places[connection] = _Place.IDLE
        self._idle.append(connection)
        connection.rest(self._idle_kept_s)

    def lost(self, connection: Connection) -> None:
        """The transport closed. What is held is let go by its holder, everything else here."""
        if self._places.get(connection) is _Place.IDLE:
            self._idle.remove(connection)
            self._forget(connection)
        elif connection in self._closing:
            self._closing.remove(connection)
            self._freed()

    async def close(self) -> None:
        """Fail what is under way, close everything, and wait until every socket is closed."""
        self._closed = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()
        for timeout in self._connects.values():
            timeout.reschedule(self._loop.time())
        for connection in list(self._places):
            if self._places.get(connection) is _Place.IDLE:
                self._idle.remove(connection)
                self._retire(connection)
            else:
                connection.interrupt(_closed_fault(retryable=False))
        while self._places or self._closing:
            self._emptied.clear()
            await self._emptied.wait()

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise _closed_fault()

    def _take_idle(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.stale():
                self._places[connection] = _Place.LENT
                return connection
            self._retire(connection)
        return None

    def _reserve(self) -> Connection:
        connection = Connection(self, self._loop)
        self._places[connection] = _Place.CONNECTING
        return connection

    def _replace(self, connection: Connection) -> Connection:
        """A new connection in the place of a dead or idle one."""
        del self._places[connection]
        connection.abort()
        return self._reserve()

    def _retire(self, connection: Connection) -> None:
        if connection.lost:
            self._forget(connection)
        else:
            del self._places[connection]
            self._closing.add(connection)
            connection.abort()

    def _forget(self, connection: Connection) -> None:
        del self._places[connection]
        self._freed()

    def _freed(self) -> None:
        self._grant()
        if not self._places and not self._closing:
            self._emptied.set()

    def _room(self) -> bool:
        return len(self._places) + len(self._closing) < self._connections_max

    def _grant(self) -> None:
        while self._room() and (waiter := self._next_waiter()) is not None:
            waiter.set_result(self._reserve())

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                return waiter
        return None

    async def _queue(self, wait_timeout_s: float) -> Connection:
        if len(self._waiters) >= self._waiters_max:
            raise Fault(WORLD, FaultKind.POOL_FULL, "too many calls wait for a connection", retryable=True)
        waiter: asyncio.Future[Connection | None] = self._loop.create_future()
        self._waiters.append(waiter)
        timer = self._loop.call_later(wait_timeout_s, _expire, waiter)
        try:
            connection = await waiter
        except asyncio.CancelledError:
            granted = None if waiter.cancelled() else waiter.result()
            if granted is None:
                self._forget_waiter(waiter)
            else:
                self._give_back(granted)
            raise
        finally:
            timer.cancel()
        if connection is not None:
            return connection
        self._forget_waiter(waiter)
        self._refuse_if_closed()
        message = f"all {self._connections_max} connections were busy for {wait_timeout_s:g} s"
        raise Fault(WORLD, FaultKind.POOL_FULL, message, retryable=True)

    def _forget_waiter(self, waiter: asyncio.Future[Connection | None]) -> None:
        with suppress(ValueError):
            self._waiters.remove(waiter)

    def _give_back(self, connection: Connection) -> None:
        if connection.connected:
            self.release(connection, reusable=not connection.stale())
        else:
            self._forget(connection)

    async def _connect(self, connection: Connection, connect_timeout_s: float) -> None:
        try:
            async with asyncio.timeout(connect_timeout_s) as timeout:
                self._connects[connection] = timeout
                self._refuse_if_closed()
                await self._establish(connection)
                self._refuse_if_closed()
        except BaseException as error:
            self._drop(connection)
            if (fault := _translated(error, self._closed)) is not None:
                raise fault from error
            raise
        finally:
            self._connects.pop(connection, None)
        if connection.closing:
            self._drop(connection)
            raise Fault(WORLD, FaultKind.CONNECT, "the connection was closed at once", retryable=True)
        self._places[connection] = _Place.LENT

    def _drop(self, connection: Connection) -> None:
        """Not waiting for the transport: uvloop closes one whose making was cancelled without ever telling it."""
        connection.abort()
        self._forget(connection)

    async def _establish(self, connection: Connection) -> None:
        origin = self.origin
        context = None
        if origin.scheme == "https":
            context = self._context = self._context or _context(origin)
        sock = await dial(origin.host, origin.port)
        try:
            await self._loop.create_connection(
                lambda: connection, sock=sock, ssl=context, server_hostname=None if context is None else origin.host
            )
        except BaseException:
            sock.close()
            raise


def _context(origin: Origin) -> ssl.SSLContext:
    try:
        return tls_context(verify=origin.tls_verify, ca_file=origin.ca_file)
    except OSError as error:
        raise Fault(WORLD, FaultKind.TLS, f"the CA file cannot be used: {error}", retryable=True) from error


def _expire(waiter: asyncio.Future[Connection | None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _closed_fault(*, retryable: bool = True) -> Fault:
    return Fault(WORLD, FaultKind.CONNECT, "the client is closed", retryable=retryable)


def _translated(error: BaseException, closed: bool) -> Fault | None:
    """Foreign errors of connecting as Faults; None passes the error on."""
    if closed and isinstance(error, TimeoutError):
        return _closed_fault()
    if isinstance(error, TimeoutError):
        return Fault(WORLD, FaultKind.CONNECT_TIMEOUT, "no connection in time", retryable=True)
    if isinstance(error, ssl.SSLError):
        return Fault(WORLD, FaultKind.TLS, f"no trusted connection: {error.reason or error}", retryable=True)
    if isinstance(error, OSError | ValueError):
        return Fault(WORLD, FaultKind.CONNECT, f"no connection: {error}", retryable=True)
    return None
