"""Builds everything with plain constructors: no container, no registry. The one place that chooses adapters."""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from gatekeeper.accounts import Accounts
from gatekeeper.billers.paper import PaperBiller
from gatekeeper.billing.invoices import Invoices
from gatekeeper.billing.outbox import Flusher, Flushing
from gatekeeper.billing.shelf import Shelf
from gatekeeper.billing.subscriptions import Subscriptions
from gatekeeper.billing.webhooks import Webhooks
from gatekeeper.clock import Clock, SystemClock
from gatekeeper.config.gateway import Gateway, MailTarget, Notification, StripeConfig
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.notifiers.dispatch import Dispatcher
from gatekeeper.notifiers.mail import MailNotifier
from gatekeeper.notifiers.sending import Notifier
from gatekeeper.notifiers.watch import Watch
from gatekeeper.notifiers.webhook import WebhookNotifier
from gatekeeper.overlays import Limits, applied
from gatekeeper.ports import Biller, Store, Upstream
from gatekeeper.prices.genai import GenaiPrices
from gatekeeper.proxy.access import Directory
from gatekeeper.proxy.admit import Admission
from gatekeeper.proxy.breakers import Breakers, Standing
from gatekeeper.proxy.costs import Costs
from gatekeeper.proxy.newcomers import Newcomers
from gatekeeper.proxy.outage import Outage
from gatekeeper.proxy.pipeline import Proxy
from gatekeeper.proxy.pulse import Pulse, stopped
from gatekeeper.proxy.settle import Settler
from gatekeeper.proxy.soft import SoftCaps
from gatekeeper.rules.billing import Backlog, NotTaken
from gatekeeper.rules.breaker import Phase
from gatekeeper.rules.notices import wanted
from gatekeeper.rules.overlays import Snapshot
from gatekeeper.stores import open_store
from gatekeeper.stores.journal import FileJournal
from gatekeeper.upstreams.chosen import Upstreams
from gatekeeper.web.admin import Admin
from gatekeeper.web.app import Application, Parts
from gatekeeper.web.billing import Billing
from gatekeeper.web.budgets import Budgets
from gatekeeper.web.calls import Calls
from gatekeeper.web.spend import Spend
from gatekeeper.web.usage import Usage
from gatekeeper.web.webhooks import StripeWebhooks

log = logging.getLogger("gatekeeper")

# At shutdown, for events that are due: what is not told then is told after the next start.
TELL_WAIT_S = 5.0


# At shutdown, for usage that is owed: what is not sent then is sent after the next start.
REPORT_WAIT_S = 10.0
# ``/readyz`` is asked often, by many; the rows that are owed are not counted each time.
BACKLOG_KEPT_S = 5.0


class Live:
    """The current Gateway: what was configured, with what operators changed laid over it. A reload or a change swaps
    the reference; a call keeps the one it started with."""

    def __init__(self, gateway: Gateway) -> None:
        self._snapshot = Snapshot()
        self.declared = self._gateway = gateway

    @property
    def gateway(self) -> Gateway:
        """The current one. What is set is what was configured."""
        return self._gateway

    @gateway.setter
    def gateway(self, declared: Gateway) -> None:
        self._gateway = applied(declared, self._snapshot)
        self.declared = declared

    def overlay(self, snapshot: Snapshot) -> None:
        """Lay these changes over what was configured."""
        self._gateway = applied(self.declared, snapshot)
        self._snapshot = snapshot

    def __call__(self) -> Gateway:
        """The current Gateway."""
        return self._gateway


def make_notifier(notification: Notification, source: str | None, clock: Clock) -> Notifier:
    """The way to one target. Raises OSError when a file with authorities cannot be read."""
    target = notification.target
    return MailNotifier(target) if isinstance(target, MailTarget) else WebhookNotifier(target, source, clock.now_ms)


def make_biller(stripe: StripeConfig) -> Biller | None:
    """Whoever is told what was used; None: nobody, and what is owed stays owed."""
    if stripe.enabled:
        # Imported late: the SDK takes longer to load than all else together, and most gateways do without it.
        from gatekeeper.billers.stripe import StripeBiller

        return StripeBiller(stripe)
    return None if stripe.paper is None else PaperBiller(stripe.paper)


def make_flusher(store: Store, biller: Biller, live: Live, clock: Clock, owner: str) -> Flusher:
    """The outbox of this process. The meter and the plans follow a reload; the biller does not."""

    def flushing() -> Flushing:
        stripe = live.gateway.stripe
        return Flushing(stripe.flush_interval_s, stripe.meter, live.gateway.plans, known_only=stripe.enabled)

    seed = partial(secrets.token_hex, 16)
    return Flusher(store, biller, flushing, clock, owner=owner, seed=seed, chance=random.random)


class Counter:
    """Where subscriptions are sold, with the connections that it closes. Raises NotTaken for a key of no known mode."""

    def __init__(self, store: Store, flusher: Flusher, live: Live, clock: Clock) -> None:
        from gatekeeper.billers.stripe_catalogue import StripeCatalogue
        from gatekeeper.billers.stripe_sales import StripeSales

        stripe = live.gateway.stripe
        self.sales, self._catalogue = StripeSales(stripe), StripeCatalogue(stripe)
        shelf = Shelf(self._catalogue, live, clock)
        self.subscriptions = Subscriptions(store, self.sales, shelf, flusher, live, clock)
        self.webhooks = Webhooks(store, self.sales, self.subscriptions, live, clock, random.random)

    async def close(self) -> None:
        """Close all connections."""
        await self.sales.close()
        await self._catalogue.close()


def make_counter(store: Store, flusher: Flusher, live: Live, clock: Clock) -> Counter:
    """Raises Fault for a key that does not say in which mode it is."""
    try:
        return Counter(store, flusher, live, clock)
    except NotTaken as refused:
        raise Fault("stripe", FaultKind.PROTOCOL, refused.public) from refused


class House:
    """Everything that runs in one process. ``app`` is the ASGI application, whose lifespan starts and stops it."""

    def __init__(self, gateway: Gateway, store: Store, upstream: Upstream, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self.accepting = True
        self.live = Live(gateway)
        self.store = store
        self.upstream = upstream
        self.accounts = Accounts(store, store, self.live, clock)
        self.limits = Limits(store, lambda: self.live.declared, self.live.overlay, clock)
        self.directory = Directory(store, store, clock)
        owner = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self.journal = FileJournal(gateway.ledger.journal, owner)
        self.settler = Settler(store, clock, self.journal)
        self.pulse = Pulse(store, self.directory, self.live, clock, self.settler)
        self.prices = GenaiPrices()
        costs = Costs(self.prices)
        self.breakers, soft = Breakers(clock), SoftCaps(store, clock)
        admission = Admission(
            self.directory, store, owner, costs, soft=soft, outage=Outage(clock), newcomers=Newcomers(clock)
        )
        self.proxy = Proxy(
            admission,
            upstream,
            self.settler,
            self.pulse,
            clock,
            ledger=store,
            costs=costs,
            breakers=self.breakers,
            soft=soft,
        )
        make = partial(make_notifier, clock=clock)
        # Jitter, no secret.
        self.dispatcher = Dispatcher(store, self.live, make, clock, random.random)
        self.watch = Watch(store, self.live, clock)
        self.breakers.on_change = self._breaker_changed
        self.biller = make_biller(gateway.stripe)
        self.flusher: Flusher | None = None
        if self.biller is not None:
            self.flusher = make_flusher(store, self.biller, self.live, clock, owner)
        self.counter: Counter | None = None
        if gateway.stripe.enabled and self.flusher is not None:
            self.counter = make_counter(store, self.flusher, self.live, clock)
        counter = self.counter
        self._backlog: tuple[float, Backlog] | None = None
        self._clock = clock
        usage = Usage(self.directory, store, store, self.live, clock)
        admin = Admin(self.accounts, store, self.live, clock)
        self.app = Application(
            Parts(
                calls=Calls(self.proxy, self.live, clock),
                usage=usage,
                admin=admin,
                budgets=Budgets(self.limits, store, clock, admin.guarded),
                spend=Spend(store, clock, admin.guarded, usage.holder),
                billing=Billing(
                    None if counter is None else counter.subscriptions,
                    Invoices(store, None if counter is None else counter.sales, self.live, clock),
                    admin.guarded,
                ),
                webhooks=StripeWebhooks(None if counter is None else counter.webhooks.receive),
                store=store,
                lifespan=self.running,
                accepting=lambda: self.accepting,
                backlog=None if self.flusher is None else self.backlog,
            )
        )

    async def backlog(self) -> tuple[Backlog, int]:
        """How far behind the biller is (at most some seconds old), and the present instant. Raises Fault."""
        now_s = self._clock.monotonic_s()
        assert self.flusher is not None
        if self._backlog is None or now_s >= self._backlog[0] + BACKLOG_KEPT_S:
            self._backlog = now_s, await self.flusher.backlog()
        return self._backlog[1], self._clock.now_ms()

    def stop_accepting(self) -> None:
        """From now on ``/readyz`` says that this process takes no more; what is asked all the same is served."""
        self.accepting = False

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
            await self.limits.refresh()
            closing.push_async_callback(stopped, asyncio.create_task(self.limits.run(), name="limits"))
            # Before the first settle: what a dead process held is told too.
            self.store.tell(wanted(one.subscription for one in self.live.gateway.notifications))
            await self.pulse.beat()
            closing.push_async_callback(stopped, asyncio.create_task(self.pulse.run(), name="pulse"))
            # Ends after the calls have: their events are sent too.
            closing.push_async_callback(self.dispatcher.drain, TELL_WAIT_S)
            closing.push_async_callback(stopped, asyncio.create_task(self.dispatcher.run(), name="dispatcher"))
            closing.push_async_callback(stopped, asyncio.create_task(self.watch.run(), name="watch"))
            if self.biller is not None and self.flusher is not None:
                closing.push_async_callback(self.biller.close)
                # After the calls have been settled, before their events are told.
                closing.push_async_callback(self.flusher.drain, REPORT_WAIT_S)
                closing.push_async_callback(stopped, asyncio.create_task(self.flusher.run(), name="outbox"))
            if self.counter is not None:
                closing.push_async_callback(self.counter.close)
                webhooks = asyncio.create_task(self.counter.webhooks.run(), name="webhooks")
                closing.push_async_callback(stopped, webhooks)
            closing.push_async_callback(self._drain)
            yield

    def _breaker_changed(self, standing: Standing) -> None:
        is_open, is_closed = standing.phase is Phase.OPEN, standing.phase is Phase.CLOSED
        self.watch.breaker(standing.upstream, is_open=is_open, is_closed=is_closed)

    async def _drain(self) -> None:
        wait_s = self.live.gateway.server.drain_s
        cut = await self.proxy.drain(wait_s)
        left = await self.settler.drain(wait_s)
        if cut or left:
            log.warning("%d calls were cut off, %d are settled by whoever recovers their holds", cut, left)


async def build_house(gateway: Gateway, *, clock: Clock | None = None) -> House:
    """Open the store (migrating it if need be) and build the rest. Raises Fault when the store cannot be opened."""
    store = await open_store(gateway.database_url.reveal(), clock=clock or SystemClock())
    return House(gateway, store, Upstreams(), clock)
