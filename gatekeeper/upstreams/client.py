"""The streaming HTTP/1.1 client: ports.Upstream over the pools.

The rule: what is sent is sent once, unless it is certain that nothing was acted on (RFC 9110 9.2.2): no byte went
out, or the method is idempotent and a kept connection died before the first byte of an answer. Redirects, cookies,
proxies from the environment and content codings are not followed, kept, read or undone.
"""

import asyncio
from collections.abc import AsyncIterator
from math import inf
from types import TracebackType

from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import Outgoing
from gatekeeper.upstreams.connection import Answer, Connection
from gatekeeper.upstreams.pool import IDLE_KEPT_S, WAITERS_MAX, Origin, Pool
from gatekeeper.upstreams.request import IDEMPOTENT, LAST_CHUNK, UnsendableRequest, framed, request_head
from gatekeeper.upstreams.response import WORLD

# Up to here head and body are joined into one write; above, copying costs more than a second buffer.
_JOINED_MAX = 64 * 1024


class HttpUpstream:
    """All upstreams of a gateway. Belongs to one event loop.

    Pools are made when first needed, and found by what makes connections exchangeable; the bound and the timeouts are
    those of the UpstreamConfig that came with the call.
    """

    def __init__(self, *, idle_kept_s: float = IDLE_KEPT_S, waiters_max: int = WAITERS_MAX) -> None:
        self._idle_kept_s = idle_kept_s
        self._waiters_max = waiters_max
        self._pools: dict[Origin, Pool] = {}
        # The usual case: the very same configuration object as last time, found without hashing it.
        self._latest: dict[str, tuple[UpstreamConfig, Pool]] = {}
        self._closed = False

    def open(self, outgoing: Outgoing) -> "Exchange":
        """Entering sends the request and waits for the head; leaving before the end of the body closes the connection.

        Raises Fault (world ``upstream``); ``retryable`` says that nothing of the request was acted on. An exception of
        the body's iterator passes through. Cancelling at any point closes the connection.
        """
        return Exchange(self, outgoing)

    async def close(self) -> None:
        """Fail what is under way and close all connections; returns when every socket is closed."""
        self._closed = True
        for pool in list(self._pools.values()):
            await pool.close()
        self._pools.clear()
        self._latest.clear()

    def pool(self, config: UpstreamConfig) -> Pool:
        """The pool of this upstream. Raises Fault after ``close``."""
        latest = self._latest.get(config.name)
        if latest is not None and latest[0] is config:
            return latest[1]
        if self._closed:
            raise Fault(WORLD, FaultKind.CONNECT, "the client is closed", retryable=True)
        origin = Origin(config.name, config.scheme, config.host, config.port, config.tls_verify, config.ca_file)
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(
                origin, config.connections_max, idle_kept_s=self._idle_kept_s, waiters_max=self._waiters_max
            )
        pool.limit(config.connections_max)
        self._latest[config.name] = (config, pool)
        return pool


class Exchange:
    """One request and its answer, as an async context manager that can be entered once."""

    __slots__ = ("_answer", "_outgoing", "_upload", "_upstream")

    def __init__(self, upstream: HttpUpstream, outgoing: Outgoing) -> None:
        self._upstream = upstream
        self._outgoing = outgoing
        self._answer: Answer | None = None
        self._upload: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Answer:
        """Send, and wait for the head."""
        assert self._answer is None, "an exchange is entered once"
        outgoing = self._outgoing
        config = outgoing.upstream
        try:
            head = request_head(outgoing)
        except UnsendableRequest as error:
            raise Fault(WORLD, FaultKind.PROTOCOL, f"nothing was sent: {error}", retryable=True) from error
        total_due_s = inf
        if config.total_timeout_s is not None:
            total_due_s = asyncio.get_running_loop().time() + config.total_timeout_s
        connection = await self._acquire(fresh=False)
        try:
            return await self._ask(connection, head, total_due_s)
        except Fault as fault:
            if not self._may_ask_again(fault):
                raise
        connection = await self._acquire(fresh=True)
        return await self._ask(connection, head, total_due_s)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection, if the answer has not ended; end the upload, if it has not."""
        if self._answer is not None:
            await self._leave(self._answer)

    async def _acquire(self, *, fresh: bool) -> Connection:
        config = self._outgoing.upstream
        connect_timeout_s = config.connect_timeout_s
        if config.total_timeout_s is not None:
            connect_timeout_s = min(connect_timeout_s, config.total_timeout_s)
        retries = config.connect_retries
        while True:
            try:
                # A place in the pool is worth waiting for as long as a connection is.
                return await self._upstream.pool(config).acquire(
                    connect_timeout_s=connect_timeout_s, wait_timeout_s=connect_timeout_s, fresh=fresh
                )
            except Fault as fault:
                # Refused or broken at once: a server that is being restarted. Who was silent for so long stays so.
                if not retries or fault.kind is not FaultKind.CONNECT:
                    raise
                retries -= 1

    async def _ask(self, connection: Connection, head: bytes, total_due_s: float) -> Answer:
        outgoing = self._outgoing
        body = outgoing.body
        whole = isinstance(body, bytes)
        config = outgoing.upstream
        connection.idle_timeout_s = config.idle_timeout_s
        answer = self._answer = connection.begin(
            head_only=outgoing.method == "HEAD", body_sent=whole, total_due_s=total_due_s
        )
        try:
            if isinstance(body, bytes):
                if len(body) <= _JOINED_MAX:
                    connection.write(head + body)
                else:
                    connection.write(head, body)
                connection.body_written(answer, config.first_byte_timeout_s)
            else:
                connection.write(head)
                self._upload = asyncio.create_task(_send(connection, answer, body, outgoing))
                self._upload.add_done_callback(lambda upload: _report(upload, connection, answer))
            await connection.head(answer)
        except BaseException:
            await self._leave(answer)
            raise
        return answer

    async def _leave(self, answer: Answer) -> None:
        if answer.connection is not None:
            answer.connection.leave(answer)
        if self._upload is not None:
            await _ended(self._upload)

    def _may_ask_again(self, fault: Fault) -> bool:
        answer = self._answer
        return (
            answer is not None
            and answer.reused
            and not answer.heard
            and fault.kind is FaultKind.RESET
            and isinstance(self._outgoing.body, bytes)
            and self._outgoing.method in IDEMPOTENT
        )


async def _send(connection: Connection, answer: Answer, body: AsyncIterator[bytes], outgoing: Outgoing) -> None:
    """Upload a body in pieces, as fast as the server takes it, for as long as the exchange lasts."""
    left = outgoing.content_length
    try:
        async for piece in body:
            if answer.connection is not connection:
                return
            if not piece:
                continue
            if left is None:
                connection.write(*framed(piece))
            else:
                left -= len(piece)
                if left < 0:
                    raise Fault(WORLD, FaultKind.PROTOCOL, "the body is longer than its announced length")
                connection.write(piece)
            await connection.drained(answer)
        if left:
            raise Fault(WORLD, FaultKind.PROTOCOL, "the body is shorter than its announced length")
        if answer.connection is connection:
            if left is None:
                connection.write(LAST_CHUNK)
            connection.body_written(answer, outgoing.upstream.first_byte_timeout_s)
    finally:
        # An asynchronous generator that was left in the middle must not wait for the garbage collector.
        close = getattr(body, "aclose", None)
        if close is not None:
            await close()


def _report(upload: asyncio.Task[None], connection: Connection, answer: Answer) -> None:
    """A body that breaks off must not look complete: the exchange fails with what the iterator raised."""
    if not upload.cancelled() and (error := upload.exception()) is not None:
        connection.fail(answer, error)


async def _ended(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end, also when the waiting is itself cancelled (which is passed on after)."""
    cancelled: asyncio.CancelledError | None = None
    task.cancel()
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
