"""``gatekeeper serve``: run the gateway."""

import argparse
import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path

from gatekeeper.assembly import House, build_house
from gatekeeper.cli.output import PORT, add_command, complain, complain_with_hint, rendered, whole_number
from gatekeeper.cli.server import TellingServer, listen, run_loop, set_up_logging, uvicorn_server
from gatekeeper.cli.settings import add_config_flag, opened, read_gateway
from gatekeeper.cli.workers import Supervisor
from gatekeeper.config import load_gateway
from gatekeeper.config.gateway import Gateway
from gatekeeper.diagnostics import Mistakes

log = logging.getLogger("gatekeeper.serve")


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "serve",
        "run the gateway",
        "Run the gateway until SIGTERM or Ctrl-C: calls in flight may end, then all is settled.\n"
        "SIGHUP reads the configuration again; one with mistakes changes nothing.",
    )
    add_config_flag(parser)
    parser.add_argument("--host", metavar="HOST", help="listen here instead of [server] host")
    parser.add_argument("--port", type=PORT, metavar="N", help="listen here instead of [server] port")
    parser.add_argument(
        "--workers", type=whole_number(1, 256), default=1, metavar="N", help="processes, one a core (default: 1)"
    )
    # How a worker is told that it has a parent.
    parser.add_argument("--supervised", action="store_true", help=argparse.SUPPRESS)
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
    if arguments.workers > 1:
        return _supervise(gateway, arguments)
    return run_loop(serve(gateway, arguments.config, supervised=arguments.supervised))


def _supervise(gateway: Gateway, arguments: argparse.Namespace) -> int:
    """Migrate once, keep the address (bound, never listened on), and let the workers serve on it."""
    bound = _bind(gateway, shared=True)
    if bound is None:
        return 1
    with bound:
        asyncio.run(_migrated(gateway))
        host, port = bound.getsockname()[:2]
        command = ["serve", "--config", str(arguments.config), "--host", host, "--port", str(port), "--supervised"]
        return asyncio.run(_watch(command, arguments.workers))


async def _watch(command: list[str], workers: int) -> int:
    return await Supervisor(command, workers).run()


async def _migrated(gateway: Gateway) -> None:
    async with opened(gateway) as (store, _):
        await store.ping()


def _bind(gateway: Gateway, *, shared: bool) -> socket.socket | None:
    try:
        return listen(gateway.server.host, gateway.server.port, shared=shared)
    except OSError as error:
        where = f"{gateway.server.host}:{gateway.server.port}"
        complain_with_hint(f"cannot listen on {where}: {error.strerror}", "--port and --host name another address")
        return None


async def serve(gateway: Gateway, config: Path, *, supervised: bool = False) -> int:
    """Bind, build, serve. Returns the exit code; raises Fault when the store cannot be opened."""
    bound = _bind(gateway, shared=supervised)
    if bound is None:
        return 1
    with bound:
        house = await build_house(gateway)
        loop = asyncio.get_running_loop()
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, _reload, house, config)
        host, port = bound.getsockname()[:2]
        server = uvicorn_server(house.app, gateway.server)
        server.on_up = lambda: log.info(
            "listening on http://%s:%d with %d routes and %d plans",
            f"[{host}]" if ":" in host else host,
            port,
            len(gateway.router.routes),
            len(gateway.plans),
        )
        # What is loaded now stays for ever: the collector need not look at it again and again.
        gc.freeze()
        if supervised:
            # The parent writes nothing: what can be read is the end of it.
            loop.add_reader(sys.stdin.fileno(), _orphaned, server, loop)
        await server.serve(sockets=[bound])
    return 0 if server.started else 1


def _orphaned(server: TellingServer, loop: asyncio.AbstractEventLoop) -> None:
    loop.remove_reader(sys.stdin.fileno())
    log.error("the parent process is gone: this worker stops")
    server.should_exit = True


def _reload(house: House, config: Path) -> None:
    """Swap the configuration; one with mistakes changes nothing. Address and database stay as they were."""
    try:
        fresh = load_gateway(config, os.environ)
    except Mistakes as mistakes:
        log.error("not reloaded, the old configuration stays:\n%s", rendered(mistakes.mistakes))
        return
    old = house.live.gateway
    if fresh.database_url != old.database_url:
        log.warning("a new database needs a restart; the old one stays")
    house.live.gateway = replace(
        fresh, server=replace(fresh.server, host=old.server.host, port=old.server.port), database_url=old.database_url
    )
    log.info(
        "reloaded: generation %s, %d routes, %d plans", fresh.generation, len(fresh.router.routes), len(fresh.plans)
    )
