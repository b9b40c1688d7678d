"""Where the configuration is, and the store behind it, for every command that needs them."""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from gatekeeper.accounts import Accounts
from gatekeeper.cli.init import shipped
from gatekeeper.cli.output import complain
from gatekeeper.clock import SystemClock
from gatekeeper.config import load_gateway
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.overlays import Limits
from gatekeeper.ports import Store
from gatekeeper.rules.diagnosis import check_schema
from gatekeeper.stores import SqlStore, open_reader, open_store

T = TypeVar("T")

CONFIG_NAME = "gateway.toml"


def add_config_flag(parser: argparse.ArgumentParser) -> None:
    """``--config FILE``."""
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(CONFIG_NAME),
        metavar="FILE",
        help="the configuration (default: %(default)s)",
    )


def read_gateway(arguments: argparse.Namespace) -> Gateway:
    """The configuration that was named. Raises Mistakes."""
    return load_gateway(arguments.config, os.environ)


def read_gateway_or_shipped(arguments: argparse.Namespace) -> Gateway:
    """The same; where no file was named and none is here, the one that ``gatekeeper init`` would write."""
    if arguments.config == Path(CONFIG_NAME) and not arguments.config.exists():
        complain(f"note: no {CONFIG_NAME} here; this is what 'gatekeeper init' would write")
        return load_gateway(shipped("gateway.toml.example"), os.environ)
    return read_gateway(arguments)


def home_of(gateway: Gateway) -> str:
    """Where a browser finds the gateway: ``[server] public_url``, else where it listens."""
    server = gateway.server
    if server.public_url is not None:
        return server.public_url
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(server.host, server.host)
    return f"http://[{host}]:{server.port}" if ":" in host else f"http://{host}:{server.port}"


@asynccontextmanager
async def opened(gateway: Gateway) -> AsyncIterator[tuple[Store, Accounts]]:
    """The store of a configuration, migrated if need be, and the accounts in it. Raises Fault."""
    clock = SystemClock()
    store = await open_store(gateway.database_url.reveal(), clock=clock)
    try:
        yield store, Accounts(store, store, lambda: gateway, clock)
    finally:
        await store.close()


def with_store(arguments: argparse.Namespace, work: Callable[[Store, Accounts, Gateway], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` with the store that the configuration names."""
    gateway = read_gateway(arguments)

    async def run() -> T:
        async with opened(gateway) as (store, accounts):
            return await work(store, accounts, gateway)

    return asyncio.run(run())


def with_limits(arguments: argparse.Namespace, work: Callable[[Store, Limits], Coroutine[Any, Any, T]]) -> T:
    """Run ``work`` with the limits that stand, which it may change: a gateway that runs follows within half a
    second."""

    async def run(store: Store, _: Accounts, gateway: Gateway) -> T:
        limits = Limits(store, lambda: gateway, lambda snapshot: None, SystemClock())
        await limits.refresh()
        return await work(store, limits)

    return with_store(arguments, run)


def with_reader(gateway: Gateway, work: Callable[[SqlStore], Coroutine[Any, Any, T]], *, any_schema: bool = False) -> T:
    """Run ``work`` with a store that cannot write. Raises Fault for a database of another schema, unless any will
    do."""

    async def run() -> T:
        store = await open_reader(gateway.database_url.reveal(), clock=SystemClock())
        try:
            schema = check_schema(*await store.schema())
            if not (schema.ok or any_schema):
                raise Fault("ledger", FaultKind.STORE, f"it is at {schema.said}")
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(run())
