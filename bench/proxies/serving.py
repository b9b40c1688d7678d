"""What the small proxies share: the server, which is the gateway's own, the header check and the rewriting.

The rule: they differ in the upstream client only, so that the difference of two rows is the difference of two clients.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from gatekeeper.cli.server import listen, run_loop, uvicorn_server
from gatekeeper.config.gateway import ServerConfig

Headers = list[tuple[bytes, bytes]]
Relay = Callable[[Any, Headers, bytes, Any], Awaitable[None]]

_DROPPED = frozenset({b"host", b"content-length", b"connection", b"authorization", b"keep-alive"})
_DROPPED_BACK = frozenset({b"connection", b"transfer-encoding", b"keep-alive"})
UPSTREAM_KEY = b"Bearer sk-upstream"


def outgoing_headers(headers: Headers, host: bytes) -> Headers | None:
    """The request's headers for the upstream, or None where the key is missing."""
    if not any(name == b"authorization" and value.startswith(b"Bearer ") for name, value in headers):
        return None
    kept = [(name, value) for name, value in headers if name not in _DROPPED]
    return [(b"host", host), (b"authorization", UPSTREAM_KEY), *kept]


def incoming_headers(headers: Headers) -> Headers:
    """The answer's headers for the client."""
    return [(name, value) for name, value in headers if name.lower() not in _DROPPED_BACK]


async def read_body(receive: Any) -> bytes:
    """The whole request body."""
    pieces = []
    while True:
        message = await receive()
        pieces.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(pieces)


async def refuse(send: Any) -> None:
    """401 without a word."""
    await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})


def serve(build: Callable[[int], Any]) -> None:
    """Run ``build(upstream_port)`` on the port of the command line: ``PORT UPSTREAM_PORT``."""
    port, upstream_port = int(sys.argv[1]), int(sys.argv[2])

    async def run() -> int:
        with listen("127.0.0.1", port) as bound:
            # Built inside the loop: clients bind to it.
            server = uvicorn_server(build(upstream_port), ServerConfig(drain_s=1))
            await server.serve(sockets=[bound])
        return 0

    run_loop(run())


async def lifespan(receive: Any, send: Any, close: Callable[[], Awaitable[None]]) -> None:
    """The ASGI lifespan of a proxy whose client must be closed."""
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await asyncio.shield(close())
    await send({"type": "lifespan.shutdown.complete"})
