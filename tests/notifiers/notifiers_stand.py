"""A store, a dispatcher on a clock that a test moves, and a receiver on a real socket."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from fakes.origin import Asked, Line, Origin
from fakes.proxies import FakeClock

from gatekeeper.assembly import make_notifier
from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import Gateway
from gatekeeper.notifiers.dispatch import Dispatcher
from gatekeeper.ports import Customer
from gatekeeper.rules.notices import Kind, Wanted
from gatekeeper.stores import SqlStore, open_store

SECRET = "whsec_" + base64.b64encode(b"first secret of these tests").decode()
OLD_SECRET = "whsec_" + base64.b64encode(b"an older secret of these tests").decode()
PLANS = {"plans/free.toml": "monthly_price = 0\n"}
ROUTES = """
[upstreams.local]
url = "http://127.0.0.1:1"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "local"
"""


def gateway_of(*notifications: str, server: str = "") -> Gateway:
    """A gateway with these entries of ``[[notifications]]``."""
    entries = "".join(f"[[notifications]]\n{one}\n" for one in notifications)
    return parse_gateway(f"{server}{ROUTES}{entries}", "gateway.toml", PLANS, {})


def webhook(url: str, name: str = "ops", events: str = '["usage.recorded", "limit.threshold"]', more: str = "") -> str:
    """An entry that posts there."""
    secret = "" if "secrets" in more else f'secret = "{SECRET}"\n'
    return f'name = "{name}"\nkind = "webhook"\nurl = "{url}"\nevents = {events}\n{secret}{more}'


def signed_by(asked: Asked, secret: str) -> bool:
    """The receiver's side, written from the specification and not from our code."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{asked.header('webhook-id')}.{asked.header('webhook-timestamp')}.".encode() + asked.body
    wanted = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    given = dict(one.split(",", 1)[::-1] for one in asked.header("webhook-signature").split(" "))
    return given.get(wanted) == "v1"


class Receiver:
    """Takes events; keeps the first of each id, as the documentation tells receivers to. ``answer`` may be changed, or
    be a function of the request."""

    def __init__(self) -> None:
        self.answer: int | Callable[[Asked], Awaitable[int]] = 204
        self.events: dict[str, dict[str, Any]] = {}
        self.under_way: set[str] = set()
        self.collisions: list[str] = []
        self.origin = Origin(self._behave)
        self._one_more = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.origin.port}/hooks?token=url-token"

    @property
    def asked(self) -> list[Asked]:
        return self.origin.asked

    async def has(self, count: int) -> None:
        """Wait until it has so many different events."""
        while len(self.events) < count:
            self._one_more.clear()
            await self._one_more.wait()

    async def _behave(self, asked: Asked, line: Line) -> None:
        event_id = asked.header("webhook-id")
        if event_id in self.under_way:
            self.collisions.append(event_id)
        self.under_way.add(event_id)
        try:
            status = self.answer if isinstance(self.answer, int) else await self.answer(asked)
            if 200 <= status < 300:
                self.events.setdefault(event_id, json.loads(asked.body))
                self._one_more.set()
            elsewhere = {"Location": "/elsewhere"} if 300 <= status < 400 else {}
            await line.head(status, Content_Length="0", **elsewhere)
        finally:
            self.under_way.discard(event_id)


class Telling:
    """What a test has at hand."""

    def __init__(self, store: SqlStore, clock: FakeClock, receiver: Receiver) -> None:
        self.store, self.clock, self.receiver = store, clock, receiver
        self.gateway = gateway_of()
        self.dispatchers: list[Dispatcher] = []

    def dispatcher(self, *notifications: str, store: SqlStore | None = None, server: str = "") -> Dispatcher:
        """One more, with the gateway that these entries make."""
        if notifications:
            self.gateway = gateway_of(*notifications, server=server)
        make = partial(make_notifier, clock=self.clock)
        made = Dispatcher(store or self.store, lambda: self.gateway, make, self.clock, lambda: 0.0)
        self.dispatchers.append(made)
        return made

    async def emit(self, *event_ids: str, customer_id: str | None = "acme", **content: Any) -> None:
        """Events of a threshold."""
        self.store.tell(Wanted(frozenset(Kind), (80,)))
        content = {"threshold": 80, **content}
        for event_id in event_ids:
            assert await self.store.emit(Kind.LIMIT_THRESHOLD, event_id, customer_id, content)

    async def turns(self, dispatcher: Dispatcher, count: int = 1, step_s: float = 0.0) -> None:
        """Turn, wait for what it sends, move the clock; again."""
        for _ in range(count):
            await dispatcher.turn()
            await dispatcher.settled()
            self.clock.now_s += step_s

    async def states(self) -> dict[str, tuple[str, int, str | None]]:
        """How each delivery stands."""
        found = await self.store.deliveries(limit=1_000)
        return {one.event.id: (one.state, one.attempts, one.error) for one in found}


@asynccontextmanager
async def telling(url: str) -> AsyncIterator[Telling]:
    clock = FakeClock()
    store = await open_store(url, clock=clock)
    assert isinstance(store, SqlStore)
    receiver = Receiver()
    await receiver.origin.start()
    stand = Telling(store, clock, receiver)
    await store.create_customer(Customer("acme", 'Acme "🚀" & Söhne', "free", 0, 0, email="bills@acme.test"))
    try:
        yield stand
    finally:
        for dispatcher in stand.dispatchers:
            await dispatcher.drain(0.0)
        await store.close()
        await receiver.origin.stop()
