"""uvicorn, tuned for streams, around one House."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Callable, Coroutine, Iterator
from types import FrameType
from typing import Any

import uvicorn

from gatekeeper.config.gateway import ServerConfig
from gatekeeper.web.protocol import bounded

_new_loop: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
# A platform without uvloop runs on asyncio's own loop, slower.
with contextlib.suppress(ImportError):
    import uvloop

    _new_loop = uvloop.new_event_loop

# Connections that wait to be accepted: a burst of clients after a restart.
BACKLOG = 2_048


class _AbortsAreMeant(logging.Filter):
    """An abort is how a broken upstream is passed on; uvicorn would call it an error each time."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "returned without completing response" not in record.getMessage()


def set_up_logging(level: int = logging.INFO) -> None:
    """One line a record on stderr. Nothing of a request but its path is ever logged."""
    logging.basicConfig(
        level=level, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True
    )
    for name in ("httpx", "httpcore", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    errors = logging.getLogger("uvicorn.error")
    errors.setLevel(logging.WARNING)
    errors.addFilter(_AbortsAreMeant())


def run_loop(main: Coroutine[Any, Any, int]) -> int:
    """Run a coroutine on the fastest loop there is."""
    with asyncio.Runner(loop_factory=_new_loop) as runner:
        return runner.run(main)


class TellingServer(uvicorn.Server):
    """A server that says when it is up (``up`` is set, ``on_up`` called) and when it is told to stop (``on_stop``)."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.up = asyncio.Event()
        self.on_up: Callable[[], None] | None = None
        self.on_stop: Callable[[], None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's own; then ``up`` is set."""
        await super().startup(sockets)
        self.up.set()
        if self.on_up is not None:
            self.on_up()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """As uvicorn's own; whoever asks on a connection that is open already is told that no more is taken."""
        if self.on_stop is not None:
            self.on_stop()
        super().handle_exit(sig, frame)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn's own, but a stop that was asked for and went well is no death by signal: the exit code is 0."""
        with super().capture_signals():
            try:
                yield
            finally:
                self._captured_signals.clear()


def uvicorn_server(app: Any, config: ServerConfig) -> TellingServer:
    """A server for the ASGI application; ``serve(sockets=[...])`` runs it until SIGTERM or SIGINT."""
    return TellingServer(
        uvicorn.Config(
            app,
            host=config.host,
            port=config.port,
            http=bounded(config.header_bytes_max),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # Whom to believe about the client is said by [server] trusted_proxies, not by uvicorn's default.
            proxy_headers=False,
            date_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=int(config.keep_alive_s),
            timeout_graceful_shutdown=int(config.drain_s),
        )
    )


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """A bound socket, so that the port is known before the server starts; ``shared`` with other processes that bind it
    so. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((host, port))
        bound.setblocking(False)
    except BaseException:
        bound.close()
        raise
    return bound
