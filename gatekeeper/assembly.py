"""Builds everything with plain constructors: no container, no registry. The one place that chooses adapters."""

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from gatekeeper.accounts import Accounts
from gatekeeper.clock import Clock, SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import Store, Upstream
from gatekeeper.prices.genai import GenaiPrices
from gatekeeper.proxy.access import Directory
from gatekeeper.proxy.admit import Admission
from gatekeeper.proxy.costs import Costs
from gatekeeper.proxy.pipeline import Proxy
from gatekeeper.proxy.pulse import Pulse, stopped
from gatekeeper.proxy.settle import Settler
from gatekeeper.stores import open_store
from gatekeeper.stores.journal import FileJournal
from gatekeeper.upstreams.client import HttpUpstream
from gatekeeper.web.admin import Admin
from gatekeeper.web.app import Application, Parts
from gatekeeper.web.calls import Calls
from gatekeeper.web.usage import Usage

log = logging.getLogger("gatekeeper")


class Live:
    """The current Gateway. A reload swaps the reference; a call keeps the one it started with."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def __call__(self) -> Gateway:
        """The current Gateway."""
        return self.gateway


class House:
    """Everything that runs in one process. ``app`` is the ASGI application, whose lifespan starts and stops it."""

    def __init__(self, gateway: Gateway, store: Store, upstream: Upstream, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self.live = Live(gateway)
        self.store = store
        self.upstream = upstream
        self.accounts = Accounts(store, store, self.live, clock)
        self.directory = Directory(store, store, clock)
        owner = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self.journal = FileJournal(gateway.ledger.journal, owner)
        self.settler = Settler(store, clock, self.journal)
        self.pulse = Pulse(store, self.directory, self.live, clock, self.settler)
        self.prices = GenaiPrices()
        costs = Costs(self.prices)
        admission = Admission(self.directory, store, owner, costs)
        self.proxy = Proxy(admission, upstream, self.settler, self.pulse, clock, ledger=store, costs=costs)
        self.app = Application(
            Parts(
                calls=Calls(self.proxy, self.live, clock),
                usage=Usage(self.directory, store, store, self.live, clock),
                admin=Admin(self.accounts, store, self.live, clock),
                store=store,
                lifespan=self.running,
            )
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Recover what a dead process held, beat while the body runs, then settle and close everything."""
        async with AsyncExitStack() as closing:
            # What fails on the way out keeps nothing after it from being closed.
            closing.push_async_callback(self.store.close)
            closing.push_async_callback(self.journal.close)
            closing.push_async_callback(self.upstream.close)
            closing.push_async_callback(self.directory.write_used)
            # The list takes a fifth of a second to load: before the first call, not within it.
            await asyncio.to_thread(self.prices.warm)
            await self.pulse.beat()
            closing.push_async_callback(stopped, asyncio.create_task(self.pulse.run(), name="pulse"))
            closing.push_async_callback(self._drain)
            yield

    async def _drain(self) -> None:
        wait_s = self.live.gateway.server.drain_s
        cut = await self.proxy.drain(wait_s)
        left = await self.settler.drain(wait_s)
        if cut or left:
            log.warning("%d calls were cut off, %d are settled by whoever recovers their holds", cut, left)


async def build_house(gateway: Gateway, *, clock: Clock | None = None) -> House:
    """Open the store (migrating it if need be) and build the rest. Raises Fault when the store cannot be opened."""
    store = await open_store(gateway.database_url.reveal(), clock=clock or SystemClock())
    return House(gateway, store, HttpUpstream(), clock)
