"""Builds everything with plain constructors: no container, no registry. The one place that chooses adapters."""

import asyncio
import logging
import os
import random
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from gatekeeper import tokenizer
from gatekeeper.accounts import Accounts
from gatekeeper.billers.paper import PaperBiller
from gatekeeper.billing.invoices import Invoices
from gatekeeper.billing.outbox import Flusher, Flushing
from gatekeeper.billing.shelf import Shelf
from gatekeeper.billing.subscriptions import Subscriptions
from gatekeeper.billing.webhooks import Webhooks
from gatekeeper.clock import Clock, SystemClock
from gatekeeper.config.gateway import Gateway, MailServer, MailTarget, Notification, StripeConfig
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.notifiers.alerts import AlertWatch
from gatekeeper.notifiers.dispatch import Dispatcher
from gatekeeper.notifiers.mail import MailNotifier, Post
from gatekeeper.notifiers.sending import Notifier
from gatekeeper.notifiers.watch import Watch
from gatekeeper.notifiers.webhook import WebhookNotifier
from gatekeeper.overlays import Limits, applied
from gatekeeper.people.operators import Operators
from gatekeeper.people.passwords import Passwords
from gatekeeper.people.repeats import Remembered
from gatekeeper.people.signins import SignIns
from gatekeeper.people.tokens import Tokens, kept_secret
from gatekeeper.people.trail import Deeds
from gatekeeper.ports import Biller, Store, Upstream
from gatekeeper.prices.genai import GenaiPrices
from gatekeeper.proxy.access import Directory
from gatekeeper.proxy.admit import Admission
from gatekeeper.proxy.breakers import Breakers, Standing
from gatekeeper.proxy.costs import Costs
from gatekeeper.proxy.exhausted import Exhausted
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
from gatekeeper.stores.roller import Roller
from gatekeeper.tallies import Figure, Tallies
from gatekeeper.upstreams.chosen import Upstreams
from gatekeeper.web.app import Application, Parts, Room
from gatekeeper.web.billing import Billing
from gatekeeper.web.budgets import Budgets
from gatekeeper.web.calls import Calls
from gatekeeper.web.configuration import Configuration, Reloader
from gatekeeper.web.customers import Customers
from gatekeeper.web.entrance import Entrance
from gatekeeper.web.gate import Gate
from gatekeeper.web.health import Health
from gatekeeper.web.keys import Keys
from gatekeeper.web.metrics import Metrics, process_figures
from gatekeeper.web.notices import Notices
from gatekeeper.web.openapi.document import Document
from gatekeeper.web.outbox import Outbox
from gatekeeper.web.pages.dashboard import Dashboard
from gatekeeper.web.pages.desk import Desk
from gatekeeper.web.pages.rendering import Pages
from gatekeeper.web.people import Auth, OperatorsApi
from gatekeeper.web.playground.api import Bench, Expressions
from gatekeeper.web.playground.page import Playground
from gatekeeper.web.playground.turns import Turns
from gatekeeper.web.portal import Portal
from gatekeeper.web.records import Records
from gatekeeper.web.revenue import Revenue
from gatekeeper.web.selling import Selling
from gatekeeper.web.siblings import Siblings, closed
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

    def mail(self) -> MailServer | None:
        """The server for what the gateway itself writes, as it is configured now."""
        return self._gateway.mail

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


def make_signins(gateway: Gateway, store: Store, clock: Clock, passwords: Passwords | None = None) -> SignIns:
    """Who may come in. The secret of tokens is read, or made, when the first one is."""

    def secret() -> bytes:
        if gateway.jwt_secret is not None:
            return gateway.jwt_secret.reveal().encode()
        return kept_secret(secret_file(gateway))

    return SignIns(store, passwords or Passwords(), Tokens(secret), clock)


def secret_file(gateway: Gateway) -> Path:
    """Where the secret of tokens is kept, when JWT_SECRET is not set: beside the database, or, where that is a server,
    beside the journal."""
    url = gateway.database_url.reveal()
    if url.startswith("sqlite:///"):
        file = Path(unquote(url.removeprefix("sqlite:///")))
        return file.with_name(f"{file.name}.secret")
    return gateway.ledger.journal.with_name("gatekeeper.secret")


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

    def __init__(
        self,
        gateway: Gateway,
        store: Store,
        upstream: Upstream,
        clock: Clock | None = None,
        *,
        config: Path | None = None,
        siblings: Path | None = None,
        passwords: Passwords | None = None,
    ) -> None:
        clock = clock or SystemClock()
        self.accepting = True
        self.live = Live(gateway)
        self.store = store
        self.upstream = upstream
        self.accounts = Accounts(store, store, self.live, clock)
        self.signins = make_signins(gateway, store, clock, passwords)
        self.deeds = Deeds(store, clock)
        self.gate = Gate(self.signins, self.deeds, Remembered(store, clock), self.live)
        self.operators = Operators(store, self.signins, clock)
        self.pages = Pages(clock)
        self.limits = Limits(store, lambda: self.live.declared, self.live.overlay, clock)
        self.directory = Directory(store, store, clock)
        owner = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self.journal = FileJournal(gateway.ledger.journal, owner)
        self.tallies = Tallies()
        store.count_in(self.tallies)
        self.settler = Settler(store, clock, self.journal)
        self.pulse = Pulse(store, self.directory, self.live, clock, self.settler)
        self.prices = GenaiPrices()
        self.breakers = Breakers(clock)
        self.proxy = self._made_proxy(owner, clock)
        make = partial(make_notifier, clock=clock)
        # Jitter, no secret.
        self.dispatcher = Dispatcher(store, self.live, make, clock, random.random)
        self.watch = Watch(store, self.live, clock)
        self.roller = Roller(store, clock, owner=owner)
        self.alerts = AlertWatch(store, self.live, clock)
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
        self.reloader = Reloader(self.live, clock, config)
        self.siblings = Siblings(siblings, self._told, clock)
        self.health = Health(store, self.live, clock, self.gate.operator)
        self.desk = Desk(
            self.pages,
            self.gate,
            store,
            self.accounts,
            self.limits,
            self.live,
            clock,
            Invoices(store, None if counter is None else counter.sales, self.live, clock),
            None if counter is None else counter.subscriptions,
            self.breakers.standings,
            self.siblings.all,
        )
        self.dashboard = Dashboard(self.desk, self.operators, self.health)
        self.portal = Portal(self.desk, Post(self.live.mail, clock))
        self.app = self._made_app(usage)

    def _made_proxy(self, owner: str, clock: Clock) -> Proxy:
        """The path of a call."""
        costs, soft = Costs(self.prices), SoftCaps(self.store, clock)
        admission = Admission(
            self.directory,
            self.store,
            owner,
            costs,
            soft=soft,
            outage=Outage(clock),
            newcomers=Newcomers(clock),
            exhausted=Exhausted(clock),
            count=tokenizer.count if tokenizer.installed() else None,
        )
        return Proxy(
            admission,
            self.upstream,
            self.settler,
            self.pulse,
            clock,
            ledger=self.store,
            costs=costs,
            breakers=self.breakers,
            soft=soft,
            tallies=self.tallies,
        )

    def _made_app(self, usage: Usage) -> Application:
        """Everything that has a URL."""
        return Application(
            Parts(
                calls=Calls(self.proxy, self.live, self._clock, tallies=self.tallies),
                rooms=[
                    usage,
                    Spend(self.store, self._clock, self.gate.operator, usage.holder),
                    Budgets(self.limits, self.store, self._clock, self.gate.operator),
                    Billing(self.desk.subscriptions, self.desk.invoices, self.gate.operator),
                    StripeWebhooks(None if self.counter is None else self.counter.webhooks.receive),
                    *self._operators_rooms(),
                    *self._people_rooms(),
                    self.dashboard,
                    self.portal,
                ],
                store=self.store,
                lifespan=self.running,
                accepting=lambda: self.accepting,
                backlog=None if self.flusher is None else self.backlog,
                pages=self.pages,
            )
        )

    def _operators_rooms(self) -> list[Room]:
        """The JSON API of operators."""
        store, live, clock, guard = self.store, self.live, self._clock, self.gate.operator
        bench = Bench(live, store, Turns(clock), self.prices)
        return [
            Expressions(bench, partial(guard, changes=False)),
            Playground(bench, self.pages, partial(self.gate.page, changes=False)),
            Customers(self.accounts, self.limits, store, live, clock, guard),
            Keys(self.accounts, store, guard),
            Selling(store, live, guard),
            Records(store, live, clock, guard),
            Revenue(store, live, clock, guard),
            Outbox(store, live, clock, guard),
            Notices(store, live, clock, guard),
            Configuration(self.reloader, live, self.siblings, clock, guard),
            self.health,
            Metrics(self.siblings, self._shared_figures, live),
            Document(),
        ]

    def _people_rooms(self) -> list[Room]:
        """Signing in, and who may."""
        return [
            Auth(self.gate, self.accounts, self.store),
            OperatorsApi(self.gate, self.operators, self.accounts, self.store, self._clock),
            Entrance(self.gate, self.pages),
        ]

    def _told(self) -> dict[str, Any]:
        """What this process tells the others of its host: plain JSON."""
        return {**self.reloader.told(), "figures": [*self.tallies.figures(), *self._figures(), *process_figures()]}

    def _figures(self) -> Iterator[Figure]:
        yield Figure("open_calls", (), self.proxy.open_calls)
        yield Figure("settling", (), self.settler.under_way)
        yield Figure("journal", (), self.journal.waiting)
        for standing in self.breakers.standings():
            yield Figure("breaker_open", (standing.upstream,), int(standing.phase is not Phase.CLOSED))

    async def _shared_figures(self) -> list[Figure]:
        """What is the same for all processes. Raises Fault."""
        standing = await self.store.in_flight()
        found = [
            Figure("holds", (), standing.holds),
            Figure("held_tokens", (), standing.output_tokens),
            Figure("deliveries", ("waiting",), standing.deliveries_waiting),
            Figure("deliveries", ("dead",), standing.deliveries_dead),
        ]
        if self.flusher is not None:
            backlog, now_ms = await self.backlog()
            found += [
                Figure("outbox_waiting", (), backlog.waiting),
                Figure("outbox_dead", (), backlog.dead),
                Figure("outbox_age_s", (), backlog.age_s(now_ms)),
            ]
        return found

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
        self.dashboard.stop()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Recover what a dead process held, beat while the body runs, then settle and close everything."""
        async with AsyncExitStack() as closing:
            # What fails on the way out keeps nothing after it from being closed.
            closing.push_async_callback(self.store.close)
            closing.push_async_callback(self.journal.close)
            closing.push_async_callback(self.upstream.close)
            closing.push_async_callback(self.directory.write_used)
            closing.push_async_callback(self.health.close)
            if not self.siblings.alone:
                writing = asyncio.create_task(self.siblings.run(), name="siblings")
                closing.push_async_callback(closed, self.siblings, writing)
            # The list takes a fifth of a second to load: before the first call, not within it.
            await asyncio.to_thread(self.prices.warm)
            if self.live.gateway.costs.tokenizer:
                await asyncio.to_thread(tokenizer.warm)
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
            closing.push_async_callback(stopped, asyncio.create_task(self.alerts.run(), name="alerts"))
            closing.push_async_callback(stopped, asyncio.create_task(self.roller.run(), name="roller"))
            closing.push_async_callback(stopped, asyncio.create_task(self.dashboard.run(), name="live figures"))
            if self.biller is not None and self.flusher is not None:
                closing.push_async_callback(self.biller.close)
                # After the calls have been settled, before their events are told.
                closing.push_async_callback(self.flusher.drain, REPORT_WAIT_S)
                closing.push_async_callback(stopped, asyncio.create_task(self.flusher.run(), name="outbox"))
            if self.counter is not None:
                closing.push_async_callback(self.counter.close)
                webhooks = asyncio.create_task(self.counter.webhooks.run(), name="webhooks")
                closing.push_async_callback(stopped, webhooks)
            closing.push_async_callback(self.portal.signin.settled)
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


async def build_house(
    gateway: Gateway,
    *,
    clock: Clock | None = None,
    config: Path | None = None,
    siblings: Path | None = None,
    passwords: Passwords | None = None,
) -> House:
    """Open the store (migrating it if need be) and build the rest. ``config`` is the file to read again, ``siblings``
    the folder of the workers of this host, ``passwords`` how they are hashed where it is not the usual way. Raises
    Fault when the store cannot be opened."""
    store = await open_store(gateway.database_url.reveal(), clock=clock or SystemClock())
    return House(gateway, store, Upstreams(), clock, config=config, siblings=siblings, passwords=passwords)
