"""``gatekeeper serve``: run the gateway."""

import argparse
import asyncio
import logging
import os
import signal
from dataclasses import replace
from pathlib import Path

from gatekeeper.assembly import House, build_house
from gatekeeper.cli.output import PORT, add_command, complain, complain_with_hint, rendered
from gatekeeper.cli.server import listen, run_loop, set_up_logging, uvicorn_server
from gatekeeper.cli.settings import add_config_flag, read_gateway
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
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT."""
    gateway = read_gateway(arguments)
    server = gateway.server
    server = replace(
        server, host=arguments.host or server.host, port=server.port if arguments.port is None else arguments.port
    )
    if gateway.warnings:
        complain(rendered(gateway.warnings))
    set_up_logging()
    return run_loop(serve(replace(gateway, server=server), arguments.config))


async def serve(gateway: Gateway, config: Path) -> int:
    """Bind, build, serve. Returns the exit code; raises Fault when the store cannot be opened."""
    try:
        bound = listen(gateway.server.host, gateway.server.port)
    except OSError as error:
        where = f"{gateway.server.host}:{gateway.server.port}"
        complain_with_hint(f"cannot listen on {where}: {error.strerror}", "--port and --host name another address")
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
        await server.serve(sockets=[bound])
    return 0 if server.started else 1


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
