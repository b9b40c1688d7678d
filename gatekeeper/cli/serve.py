"""``gatekeeper serve``: run the gateway."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from gatekeeper.assembly import House, build_house, make_signins
from gatekeeper.cli.output import PORT, add_command, complain, complain_with_hint, rendered, whole_number
from gatekeeper.cli.process import raised_limits, spare_the_collector
from gatekeeper.cli.server import BACKLOG, TellingServer, listen, run_loop, set_up_logging, uvicorn_server
from gatekeeper.cli.settings import add_config_flag, home_of, opened, read_gateway
from gatekeeper.cli.workers import Supervisor
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.diagnostics import Mistakes
from gatekeeper.people.operators import Operators
from gatekeeper.web.people import link_url

log = logging.getLogger("gatekeeper.serve")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "serve",
        "run the gateway",
        "Run the gateway until SIGTERM or Ctrl-C: calls in flight may end, then all is settled.\n"
        "SIGHUP reads the configuration again; one with mistakes changes nothing. With --workers, SIGUSR2 replaces\n"
        "the processes one by one (after an update, say): no connection is refused and no call is cut.",
    )
    add_config_flag(parser)
    parser.add_argument("--host", metavar="HOST", help="listen here instead of [server] host")
    parser.add_argument("--port", type=PORT, metavar="N", help="listen here instead of [server] port")
    parser.add_argument(
        "--workers", type=whole_number(1, 256), metavar="N", help="processes, one a core, watched over by one more"
    )
    # How a worker is told that it has a parent, where it listens, and whom it tells that it does.
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--listening-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--siblings", type=Path, help=argparse.SUPPRESS)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    gateway = read_gateway(arguments)
    server = gateway.server
    server = replace(
        server, host=arguments.host or server.host, port=server.port if arguments.port is None else arguments.port
    )
    if gateway.warnings and not arguments.supervised:
        complain(rendered(gateway.warnings))
    set_up_logging()
    gateway = replace(gateway, server=server)
    for warning in raised_limits():
        log.warning("%s", warning)
    if arguments.workers is not None:
        return _supervise(gateway, arguments)
    place = Place(arguments.listening_fd, arguments.ready_fd, arguments.siblings) if arguments.supervised else None
    return run_loop(serve(gateway, arguments.config, place))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker stands: the socket that its parent made for it, the pipe on which it says that it is up, and the
    folder in which the workers tell each other how they are."""

    listening_fd: int
    ready_fd: int
    siblings: Path


def _supervise(gateway: Gateway, arguments: argparse.Namespace) -> int:
    """Migrate once, make a socket for each worker, and let the workers serve on them."""
    with contextlib.ExitStack() as sockets:
        bound: list[socket.socket] = []
        for _ in range(arguments.workers):
            port = bound[0].getsockname()[1] if bound else gateway.server.port
            one = _bind(replace(gateway, server=replace(gateway.server, port=port)), shared=True)
            if one is None:
                return 1
            bound.append(sockets.enter_context(one))
        port = bound[0].getsockname()[1]
        asyncio.run(_migrated(replace(gateway, server=replace(gateway.server, port=port))))
        for one in bound:
            # From now on nobody is refused, whichever worker lives.
            one.listen(BACKLOG)
        host, port = bound[0].getsockname()[:2]
        # Its users see it alone, and it goes with this process.
        siblings = sockets.enter_context(tempfile.TemporaryDirectory(prefix="gatekeeper-", ignore_cleanup_errors=True))
        command = ["serve", "--config", str(arguments.config), "--host", host, "--port", str(port), "--supervised"]
        command += ["--siblings", siblings]
        return asyncio.run(_watch(command, bound))


async def _watch(command: list[str], sockets: list[socket.socket]) -> int:
    return await Supervisor(command, sockets).run()


async def _migrated(gateway: Gateway) -> None:
    async with opened(gateway) as (store, _):
        await store.ping()
        clock = SystemClock()
        _tell_first(home_of(gateway), await Operators(store, make_signins(gateway, store, clock), clock).first_link())


def _bind(gateway: Gateway, *, shared: bool) -> socket.socket | None:
    try:
        return listen(gateway.server.host, gateway.server.port, shared=shared)
    except OSError as error:
        where = f"{gateway.server.host}:{gateway.server.port}"
        complain_with_hint(f"cannot listen on {where}: {error.strerror}", "--port and --host name another address")
        return None


async def serve(gateway: Gateway, config: Path, place: Place | None = None) -> int:
    """Bind, build, serve. Returns the exit code; raises Fault when the store cannot be opened."""
    bound = _bind(gateway, shared=False) if place is None else socket.socket(fileno=place.listening_fd)
    if bound is None:
        return 1
    with bound:
        house = await build_house(gateway, config=config, siblings=None if place is None else place.siblings)
        loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, _reload, house)
            if place is not None:
                house.reloader.pass_on = partial(_ask_parent, os.getppid())
        host, port = bound.getsockname()[:2]
        server = uvicorn_server(house.app, gateway.server)
        here = replace(gateway, server=replace(gateway.server, host=host, port=port))
        first = await house.operators.first_link() if place is None else None

        def up() -> None:
            _tell_up(gateway, host, port, place)
            _tell_first(home_of(here), first)

        server.on_up = up
        server.on_stop = house.stop_accepting
        spare_the_collector()
        if place is not None:
            # The parent writes nothing: what can be read is the end of it.
            loop.add_reader(sys.stdin.fileno(), _orphaned, server, loop)
        await server.serve(sockets=[bound])
    return 0 if server.started else 1


def _tell_up(gateway: Gateway, host: str, port: int, place: Place | None) -> None:
    log.info(
        "listening on http://%s:%d with %d routes and %d plans",
        f"[{host}]" if ":" in host else host,
        port,
        len(gateway.router.routes),
        len(gateway.plans),
    )
    if place is not None:
        # Gone is whoever asked: then nobody needs to know.
        with contextlib.suppress(OSError):
            os.write(place.ready_fd, b"1")
        os.close(place.ready_fd)


def _tell_first(home: str, secret: str | None) -> None:
    """For people, and so on stdout and not in the log: it lets in whoever reads it, once."""
    if secret is not None:
        print(
            f"Nobody owns this gateway yet. Whoever opens this link within an hour does:\n  {link_url(home, secret)}",
            flush=True,
        )


def _orphaned(server: TellingServer, loop: asyncio.AbstractEventLoop) -> None:
    loop.remove_reader(sys.stdin.fileno())
    log.error("the parent process is gone: this worker stops")
    server.should_exit = True


def _ask_parent(parent: int) -> None:
    """Have all workers reload, this one too. Whoever has lost its parent stops: it must not signal a stranger."""
    if os.getppid() == parent:
        os.kill(parent, signal.SIGHUP)


def _reload(house: House) -> None:
    """Swap the configuration; one with mistakes changes nothing."""
    try:
        fresh = house.reloader.read()
    except Mistakes as mistakes:
        log.error("not reloaded, the old configuration stays:\n%s", rendered(mistakes.mistakes))
        return
    house.reloader.swap(fresh)
    house.siblings.write()
