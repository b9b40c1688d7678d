"""The handle on the fake Stripe: what tests and the demo hold in their hands.

The rule: HTTP is the only way in for the product; this handle is the way in for whoever looks on: the world outside
(customers at Checkout, cards, time), the log, the faults, and the webhooks.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import uvicorn

from gatekeeper.clock import Clock
from gatekeeper.demo.stripe.account import NEWEST_VERSION, Account, Settings, Stored
from gatekeeper.demo.stripe.customers import Card
from gatekeeper.demo.stripe.endpoints import endpoints
from gatekeeper.demo.stripe.faults import Fault, Faults
from gatekeeper.demo.stripe.http import Door
from gatekeeper.demo.stripe.listing import rendered
from gatekeeper.demo.stripe.requests import RequestLog
from gatekeeper.demo.stripe.rooms import Rooms
from gatekeeper.demo.stripe.usage import UsageEvent
from gatekeeper.demo.stripe.webhooks import Delivery, Sender

TEST_KEY = "sk_test_fake"
LIVE_KEY = "sk_live_fake"
# 15 June 2026, noon, UTC.
START_MS = 1_781_524_800_000
# A connection closes within a few turns of the loop; more would be a caller that never goes, and hangs nobody.
TURNS_TO_CLOSE_MAX = 1_000


class InvalidCalls(AssertionError):
    """The product sent what the SDK's types do not know: the test fails, whatever it looked at."""


class FakeStripe:
    """One Stripe account in memory, in test mode or live mode.

    ``clock``: time is read from it (then ``advance_to`` only runs what is due); without one time stands still until
    ``advance_to``. ``sender``: with one, events are delivered after every call; without one they wait for ``deliver``
    or ``take_deliveries``.
    """

    def __init__(
        self,
        *,
        now_ms: int = START_MS,
        clock: Clock | None = None,
        livemode: bool = False,
        api_version: str = NEWEST_VERSION,
        sender: Sender | None = None,
    ) -> None:
        self._account = Account(livemode, api_version, now_ms, clock)
        self._rooms = Rooms(self._account)
        self.secret_key = LIVE_KEY if livemode else TEST_KEY
        self.sender = sender
        self._door = Door(
            self._account, endpoints(self._rooms), self._rooms.usage, self.secret_key, self._deliver_by_itself
        )

    # The app and its log.

    @property
    def app(self) -> Door:
        """The ASGI application."""
        return self._door

    @property
    def requests(self) -> RequestLog:
        """What came: ``len()``, ``to(path, method)``, ``max_in_flight``, ``max_in_flight_by_meter``, ``invalid``."""
        return self._door.log

    @property
    def faults(self) -> Faults:
        """``arm(path, *faults, method="*", times=1)``, ``disarm()``, ``left``."""
        return self._door.faults

    @property
    def settings(self) -> Settings:
        """Grace, retries, lags; change at any time."""
        return self._account.settings

    @property
    def latency_s(self) -> float:
        """Real seconds that every call takes, so that calls can overlap."""
        return self._door.latency_s

    @latency_s.setter
    def latency_s(self, seconds: float) -> None:
        self._door.latency_s = seconds

    def fail(self, path: str, *faults: Fault, method: str = "*", times: int = 1) -> None:
        """The next calls to ``path`` (an ``fnmatch`` pattern) fail like this, in order."""
        self._door.faults.arm(path, *faults, method=method, times=times)

    @asynccontextmanager
    async def serve(self, *, check: bool = True) -> AsyncIterator[str]:
        """The fake on a loopback port; gives its base URL (for ``base_addresses={"api": url}``). At the end it raises
        InvalidCalls if a call was refused by the SDK's types, unless ``check`` is False."""
        config = uvicorn.Config(
            self._door, port=0, log_level="critical", lifespan="off", timeout_graceful_shutdown=1, access_log=False
        )
        config.load()
        server = uvicorn.Server(config)
        server.lifespan = config.lifespan_class(config)
        # Without uvicorn's main loop: it would catch the signals of the process and end a tick late.
        await server.startup()
        try:
            yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            await _closed(server)
            if self._door.crashes:
                raise self._door.crashes[0]
        if check:
            self.check_calls()

    def check_calls(self) -> None:
        """Raises InvalidCalls if any call had an unknown URL, or an unknown, missing or mistyped parameter."""
        if self._door.log.invalid:
            told = [f"{call.method} {call.path}: {call.refusal} {dict(call.params)}" for call in self._door.log.invalid]
            raise InvalidCalls("\n".join(told))

    # Time.

    @property
    def now_ms(self) -> int:
        """Epoch milliseconds, as the fake sees it."""
        return self._account.now_ms

    def advance_to(self, until_ms: int) -> None:
        """Run what is due by then (period turns, finalization, retries, trial ends, reports), each at its time."""
        assert until_ms >= self.now_ms or self._account.clock is not None, (until_ms, self.now_ms)
        self._account.run_due(until_ms)
        if self._account.clock is None:
            self._account.standing_ms = until_ms

    def advance(self, seconds: float) -> None:
        """``advance_to`` so much later than now."""
        self.advance_to(self.now_ms + round(seconds * 1000))

    def next_due_ms(self) -> int | None:
        """When the next thing happens by itself, for simulations that stop at each."""
        return self._account.next_due_ms()

    # The world outside.

    def complete_checkout(self, session_id: str, *, card: Card = Card.WORKS, email: str | None = None) -> Stored:
        """The customer fills in the page: makes customer, subscription and events. Raises Refused."""
        return self._seen(self._rooms.checkout.complete(session_id, card, email))

    def set_card(self, customer_id: str, card: Card) -> None:
        """What the next charges meet."""
        self._rooms.customers.set_card(customer_id, card)

    def reject_meter_event(self, identifier: str, code: str = "meter_event_customer_not_found") -> None:
        """An event that was accepted turns out bad: it stops counting, and a report says so later."""
        self._rooms.usage.reject(identifier, code, "rejected by the test")

    def report_meter_errors(self) -> None:
        """Send the reports that are due later right now."""
        self._rooms.usage.report_problems()

    # Looking in.

    def objects(self, kind: str) -> list[Stored]:
        """Copies of all objects of a kind ("customer", "price", "billing.meter", "invoice", ...), oldest first."""
        return [self._seen(row) for row in self._account.shelf(kind).values()]

    def object(self, identifier: str) -> Stored:
        """A copy of one object (newest shape), whatever its kind. Raises KeyError."""
        found = self._account.find(identifier)
        if found is None:
            raise KeyError(identifier)
        return self._seen(found)

    @property
    def meter_events(self) -> list[UsageEvent]:
        """Accepted meter events, oldest first, with what became of them."""
        return list(self._rooms.usage.events)

    def metered_units(self, customer_id: str | None = None, event_name: str | None = None) -> int:
        """The sum of all events that count, over all time."""
        return sum(
            event.value
            for event in self._rooms.usage.events
            if not event.cancelled and event.problem is None
            and customer_id in (None, event.customer_id) and event_name in (None, event.event_name)
        )  # fmt: skip

    def invoiced_units(self, customer_id: str | None = None, statuses: tuple[str, ...] = ("open", "paid")) -> int:
        """The sum of the quantities of all metered lines of invoices in these states."""
        return sum(
            row["quantity"]
            for invoice in self._account.shelf("invoice").values()
            if invoice["status"] in statuses and customer_id in (None, invoice["customer"])
            for row in invoice["lines"]["data"]
            if self._is_metered(row)
        )

    # Webhooks.

    def add_endpoint(
        self, url: str, events: tuple[str, ...] = ("*",), api_version: str | None = None
    ) -> tuple[str, str]:
        """A v1 webhook endpoint; (id, secret)."""
        made = self._rooms.webhooks.create({"url": url, "enabled_events": list(events), "api_version": api_version})
        return made["id"], made["secret"]

    def add_thin_destination(self, url: str, events: tuple[str, ...] = ("*",)) -> tuple[str, str]:
        """A v2 event destination for thin events; (id, secret)."""
        made = self._rooms.webhooks.create_destination(
            {
                "name": "thin", "type": "webhook_endpoint", "event_payload": "thin", "enabled_events": list(events),
                "webhook_endpoint": {"url": url},
            }
        )  # fmt: skip
        return made["id"], self._rooms.webhooks.secret(made["id"])

    def secret(self, endpoint_id: str) -> str:
        """What an endpoint or destination signs with now."""
        return self._rooms.webhooks.secret(endpoint_id)

    def roll_secret(self, endpoint_id: str) -> str:
        """A new secret beside the old: deliveries carry both signatures until ``expire_secret``."""
        return self._rooms.webhooks.roll_secret(endpoint_id)

    def expire_secret(self, endpoint_id: str) -> None:
        """The old secret is over."""
        self._rooms.webhooks.expire_secret(endpoint_id)

    def pending_deliveries(self) -> list[Delivery]:
        """What is due, signed now; nothing is taken away."""
        return [self._rooms.webhooks.signed(waiting) for waiting in self._rooms.webhooks.due()]

    def take_deliveries(self) -> list[Delivery]:
        """What is due, for a test to send itself: twice, out of order, later, or never. They are not
        given again, and count as undelivered until ``confirm``; ``refuse`` has them tried again."""
        due = self.pending_deliveries()
        self._rooms.webhooks.hold({delivery.id for delivery in due}, held=True)
        return due

    def confirm(self, delivery: Delivery) -> None:
        """The endpoint took it (2xx)."""
        self._rooms.webhooks.confirm(delivery.id)

    def refuse(self, delivery: Delivery) -> None:
        """The endpoint did not: it is tried again after 1, 2, 4, ... hours, for three days."""
        self._rooms.webhooks.refuse(delivery.id)

    def lose(self, delivery: Delivery) -> None:
        """It is never sent again; its event stays undelivered."""
        self._rooms.webhooks.lose(delivery.id)

    async def deliver(
        self,
        sender: Sender | None = None,
        *,
        times: int = 1,
        order: Callable[[list[Delivery]], list[Delivery]] | None = None,
        only: Callable[[Delivery], bool] | None = None,
    ) -> list[Delivery]:
        """Send what is due: each ``times`` times, in ``order`` (as ``lambda due: due[::-1]``), those that ``only``
        lets through (the others wait). Returns what was sent; a status outside 2xx or an OSError is tried again."""
        send = sender or self.sender
        assert send is not None, "neither here nor at the beginning was a sender given"
        due = [delivery for delivery in self.pending_deliveries() if only is None or only(delivery)]
        if order is not None:
            due = order(due)
        # Held from here on: a second ``deliver`` at the same time must not send them too.
        self._rooms.webhooks.hold({delivery.id for delivery in due}, held=True)
        try:
            for delivery in due:
                confirmed = False
                for _ in range(times):
                    with suppress(OSError):
                        confirmed = 200 <= await send(delivery) < 300 or confirmed
                (self.confirm if confirmed else self.refuse)(delivery)
        finally:
            self._rooms.webhooks.hold({delivery.id for delivery in due}, held=False)
        return due

    async def _deliver_by_itself(self) -> None:
        if self.sender is not None:
            await self.deliver()

    def _seen(self, found: Stored) -> Stored:
        expand = [name for name in ("tiers", "line_items") if name in found]
        return rendered(self._account, found, expand)

    def _is_metered(self, row: Stored) -> bool:
        if row["pricing"] is None:
            return False
        price = self._account.get("price", row["pricing"]["price_details"]["price"])
        return bool(price["recurring"] and price["recurring"]["usage_type"] == "metered")


async def _closed(server: uvicorn.Server) -> None:
    """As ``Server.shutdown``, without its pause: there is nobody left to be patient with."""
    for listener in server.servers:
        listener.close()
    for connection in list(server.server_state.connections):
        connection.shutdown()
    for task in list(server.server_state.tasks):
        task.cancel()
    await asyncio.gather(*server.server_state.tasks, return_exceptions=True)
    for _ in range(TURNS_TO_CLOSE_MAX):
        if not server.server_state.connections:
            break
        await asyncio.sleep(0)
