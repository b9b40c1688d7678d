"""Servers that answer with scripted bytes, and the loops on which the client is tried."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import uvloop

from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.errors import Fault
from gatekeeper.ports import Incoming, Outgoing, RawHeaders
from gatekeeper.upstreams.client import HttpUpstream

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
Play = Callable[[Callable[[], Coroutine[Any, Any, Any]]], Any]
HOST = (b"Host", b"upstream.test")


@dataclass
class Wire:
    """One accepted connection, as the script sees it."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> bytes:
        """One whole request: head and body."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        lowered = head.lower()
        if b"content-length: " in lowered:
            length = int(lowered.split(b"content-length: ")[1].split(b"\r\n")[0])
            return head + await self.reader.readexactly(length)
        if b"transfer-encoding: chunked" in lowered:
            return head + await self.reader.readuntil(b"0\r\n\r\n")
        return head

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a packet of its own, as far as a loopback allows."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def gone(self) -> None:
        """Wait until the client closed its side."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def end(self) -> None:
        """Close with FIN in this very moment, before the loop turns."""
        with socket.socket(fileno=os.dup(self.writer.get_extra_info("socket").fileno())) as sock:
            sock.shutdown(socket.SHUT_WR)

    def send_at_once(self, piece: bytes) -> None:
        """Into the client's socket in this very moment."""
        os.write(self.writer.get_extra_info("socket").fileno(), piece)


@dataclass
class Server:
    """A listening server. ``accepted`` counts connections, ``live`` those that are not closed yet."""

    port: int
    accepted: int = 0
    live: int = 0
    failures: list[BaseException] = field(default_factory=list)

    def config(self, **settings: Any) -> UpstreamConfig:
        """An upstream that points here; timeouts are long, so that only a wrong client runs into them."""
        defaults: dict[str, Any] = {"name": "test", "scheme": "http", "host": "127.0.0.1", "port": self.port}
        return UpstreamConfig(**(defaults | settings))


@asynccontextmanager
async def serving(
    script: Callable[[Wire], Awaitable[object]], *, host: str = "127.0.0.1", **options: Any
) -> AsyncIterator[Server]:
    """A server on loopback that runs ``script`` for every connection and closes it after."""
    tasks: set[asyncio.Task[None]] = set()
    server = Server(0)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.accepted += 1
        server.live += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await script(Wire(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except BaseException as error:
            server.failures.append(error)
        finally:
            server.live -= 1
            tasks.discard(task)
            writer.transport.abort()

    listening = await asyncio.start_server(serve, host, 0, **options)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in list(tasks):
            task.cancel()
        await until(lambda: not tasks)
        await asyncio.sleep(0)
    assert not server.failures, server.failures


@asynccontextmanager
async def talking(
    script: Callable[[Wire], Awaitable[object]], **bounds: Any
) -> AsyncIterator[tuple[HttpUpstream, Server]]:
    """A client and a server for it."""
    upstream = HttpUpstream(**bounds)
    async with serving(script) as server:
        try:
            yield upstream, server
        finally:
            await upstream.close()


def outgoing(config: UpstreamConfig, method: str = "GET", target: bytes = b"/", **fields: Any) -> Outgoing:
    """A request with nothing but Host."""
    headers: RawHeaders = fields.pop("headers", [HOST])
    return Outgoing(config, method, target, headers, **fields)


async def whole(incoming: Incoming) -> bytes:
    """The body to its end."""
    pieces = []
    while piece := await incoming.read():
        pieces.append(piece)
    return b"".join(pieces)


async def fetch(upstream: HttpUpstream, request: Outgoing) -> tuple[int, RawHeaders, bytes]:
    """One call to its end."""
    async with upstream.open(request) as incoming:
        return incoming.status, incoming.headers, await whole(incoming)


async def fault_of(call: Awaitable[object]) -> Fault:
    """The Fault that the call must end with."""
    with pytest.raises(Fault) as caught:
        await call
    assert caught.value.world == "upstream"
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something holds; a bound in time so that a defect is a failure and not a hang."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + 5
    while True:
        if condition():
            return
        assert loop.time() < ends_s
        await asyncio.sleep(0.001)


def answer(body: bytes = b"ok", *headers: bytes) -> bytes:
    """A plain answer with a length."""
    lines = [b"HTTP/1.1 200 OK", b"Content-Length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


def forever(reply: bytes) -> Callable[[Wire], Awaitable[None]]:
    """A script that gives the same reply to every request on a connection."""

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await wire.send(reply)

    return script


def server_tls(chain: str) -> ssl.SSLContext:
    """The server's side of TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return context
