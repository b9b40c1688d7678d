"""The firewall for asyncio: ask, then settle. The rule: what was admitted is held until it is settled or released, and
is renewed meanwhile; a process that dies leaves nothing held.
"""

import os
import re
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gatekeeper.assembly import House, build_house
from gatekeeper.clock import Clock, SystemClock
from gatekeeper.config import load_gateway
from gatekeeper.config.gateway import Gateway, Route, Unpriced
from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.firewall.figures import Reported, Wish, bounds_of, record_of, reported, view_of
from gatekeeper.firewall.verdict import Answer, Answered, Charged, answer_of, charged_of
from gatekeeper.ports import Customer, HoldOrder, Progress, Settlement
from gatekeeper.proxy.denials import refusal_of
from gatekeeper.proxy.outgoing import CALL_ENTROPY_BYTES, new_call_id
from gatekeeper.proxy.settle import finished
from gatekeeper.rules import replays
from gatekeeper.rules.limits import Denied, RateLine, StockLine
from gatekeeper.rules.lines import Subject, counts_dollars, rate_lines, stock_lines
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.prices import PriceBook, UpstreamPrices
from gatekeeper.rules.routing import Choice, Match
from gatekeeper.rules.windows import admitted_month

# Whose calls they are where neither the call nor ``[keys] customer`` says so.
DEFAULT_CUSTOMER = "firewall"
_SUBJECT = re.compile(r"[A-Za-z0-9._:@-]{1,128}")
_MODEL_LETTERS_MAX = 256
# What a condition may look at and an agent does not say.
_NOT_SAID = frozenset({"headers", "keyID", "method", "query", "request", "requestBody", "requestBytes"})


@dataclass(frozen=True, slots=True)
class Asked:
    """One call that was admitted: all that its settlement needs."""

    call_id: str
    gateway: Gateway
    route: Route
    customer: Customer
    plan: Plan
    wish: Wish
    endpoint: str
    started_ms: int
    prices: UpstreamPrices
    stock: tuple[StockLine, ...] = ()
    rates: tuple[RateLine, ...] = ()


class AsyncFirewall:
    """``async with AsyncFirewall("gateway.toml") as firewall``. One for the process; use it from one event loop."""

    def __init__(self, config: str | Path | Gateway, *, clock: Clock | None = None) -> None:
        """``config`` is the path of a gateway.toml (the environment and ``.env`` count as for ``serve``), or a Gateway.
        Raises Mistakes with all that is wrong in the files."""
        self._gateway = config if isinstance(config, Gateway) else load_gateway(Path(config), os.environ)
        self._clock = clock or SystemClock()
        self._owner = f"{os.uname().nodename}:{os.getpid()}:{secrets.token_hex(4)}"
        self._closing = AsyncExitStack()
        self._house: House | None = None

    async def __aenter__(self) -> Self:
        """Open the ledger, and settle what a process that died had held. Raises Fault."""
        house = await build_house(self._gateway, clock=self._clock)
        await self._closing.enter_async_context(house.running())
        self._house = house
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Settle what is under way and close. What is neither settled nor released expires."""
        self._house = None
        await self._closing.aclose()

    @property
    def house(self) -> House:
        """Everything that runs inside. Raises RuntimeError outside of the ``with`` block."""
        if self._house is None:
            raise RuntimeError("the firewall is not open: use it in a `with` block")
        return self._house

    async def request(
        self,
        *,
        agent_id: str | None = None,
        user_id: str | None = None,
        model: str | None = None,
        tokens: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        endpoint: str | None = None,
        customer_id: str | None = None,
    ) -> "AsyncVerdict":
        """Ask whether a call may be made, and hold what it may use.

        Say at most how many ``tokens`` it takes, or its ``input_tokens`` and ``output_tokens``. ``endpoint`` is the
        path of a configured route (``/v1/chat/completions``) or a route's name; it may be left out where there is one.
        Raises ValueError for what is asked wrongly and Fault when the ledger cannot be reached: then no call is
        allowed.
        """
        wish = Wish(agent_id, user_id, model, tokens, input_tokens, output_tokens)
        _check(wish)
        try:
            asked, order = await self._order(wish, endpoint, customer_id)
            granted = await self.house.store.hold(order)
            if isinstance(granted, Denied):
                raise refusal_of(granted)
        except Refusal as refusal:
            return AsyncVerdict(self, answer_of(refusal), None)
        verdict = AsyncVerdict(self, Answer(True), asked)
        self.house.pulse.add(asked.call_id, verdict, verdict)
        return verdict

    async def _order(self, wish: Wish, endpoint: str | None, customer_id: str | None) -> tuple[Asked, HoldOrder]:
        gateway = self.house.live.gateway
        routes = routes_of(gateway, endpoint)
        customer = await self._customer(gateway, customer_id)
        # Not before a customer who is made here: his first call would stand in a billing period before his first.
        now_ms = self._clock.now_ms()
        route = _taking(routes, wish, customer, endpoint or "", now_ms)
        if customer.disabled_ms is not None:
            raise Refusal(Code.CUSTOMER_DISABLED)
        plan = gateway.plans.get(customer.plan_id)
        if plan is None:
            raise Refusal(Code.CUSTOMER_DISABLED, "This account's plan is not offered any more.")
        subject = Subject(
            customer_id=customer.id,
            plan_id=plan.id,
            route=route.name,
            anchor_ms=customer.anchor_ms,
            user_id=wish.user_id,
            agent_id=wish.agent_id,
            model=wish.model,
        )
        upstream = gateway.upstreams[route.upstream]
        prices = PriceBook(gateway.prices, self.house.prices, gateway.costs.ceiling).at(upstream.name, upstream.url)
        price = prices.price(wish.model, now_ms)
        refused = price is None and gateway.costs.unpriced is Unpriced.REFUSE
        if refused and counts_dollars(plan, gateway.limits, gateway.rates, subject):
            raise Refusal(Code.UNPRICED_MODEL, hint="name the model, or declare its price under [[prices]]")
        bounds = bounds_of(wish, price)
        call_id = new_call_id(now_ms, secrets.token_bytes(CALL_ENTROPY_BYTES))
        stock = stock_lines(plan, subject, bounds, now_ms, gateway.limits, gateway.resets)
        rates = rate_lines(plan, subject, bounds, gateway.rates)
        path = endpoint or route.pattern.text
        asked = Asked(call_id, gateway, route, customer, plan, wish, path, now_ms, prices, stock, rates)
        order = HoldOrder(
            call_id=call_id,
            admitted_month=admitted_month(now_ms),
            customer_id=customer.id,
            key_id=None,
            user_id=wish.user_id,
            agent_id=wish.agent_id,
            plan_id=plan.id,
            route=route.name,
            upstream=route.upstream,
            model=wish.model,
            owner=self._owner,
            now_ms=now_ms,
            expires_ms=now_ms + int(gateway.ledger.hold_ttl_s * 1000),
            output_tokens=bounds.output_tokens,
            output_tokens_min=bounds.output_tokens_min,
            stock=stock,
            rates=rates,
        )
        return asked, order

    async def _customer(self, gateway: Gateway, customer_id: str | None) -> Customer:
        wanted = customer_id or gateway.keys.anonymous_customer or DEFAULT_CUSTOMER
        found = await self.house.store.customer(wanted)
        if found is not None:
            return found
        if customer_id is not None:
            raise ValueError(
                f"there is no customer {customer_id!r}: gatekeeper customers create NAME --id {customer_id}"
            )
        try:
            return await self.house.accounts.create_customer("Firewall", customer_id=wanted)
        except Refusal as refusal:
            # Another process was quicker.
            if refusal.code is not Code.CONFLICT:
                raise
            return await self.house.accounts.customer(wanted)

    async def _settle(self, asked: Asked, found: Reported) -> Charged:
        """Raises Fault when the record could not be made durable in time (it is tried again in the background)."""
        record, actual = record_of(asked, found, self._clock.now_ms())
        # The same answer given twice is charged once, where its id proves that it is the same.
        once = asked.route.once_per_response and replays.unique_part(record.response_id) is not None
        settling = self.house.settler.begin(
            Settlement(record, actual, asked.plan, record.ended_ms, once, asked.stock, asked.rates)
        )
        self.house.pulse.remove(asked.call_id)
        if not await finished(settling, asked.gateway.ledger.settle_wait_s):
            raise Fault("ledger", FaultKind.STORE, "the record could not be made durable in time; it is tried again")
        if settling.task.done():
            settled = settling.task.result()
            return charged_of(settled.record, first=settled.first)
        # Journaled: what it is charged will be known when the ledger is back.
        return charged_of(record, first=True)


class AsyncVerdict(Answered):
    """The answer to one question. Where it is ``allowed``, make the call, then ``settle`` it (or ``release`` it, if it
    was not made)."""

    def __init__(self, firewall: AsyncFirewall, answer: Answer, asked: Asked | None) -> None:
        super().__init__(answer, None if asked is None else asked.call_id)
        self._firewall = firewall
        self._asked = asked
        self._seen = Reported()
        self._charged: Charged | None = None
        self._lost = False

    @property
    def lost(self) -> bool:
        """Whether the hold was closed by somebody else (this process was taken for dead): stop, and settle."""
        return self._lost

    def report(self, tokens: int) -> None:
        """So many tokens were used so far. It is what is charged should this process die before it settles."""
        self._seen = Reported(tokens=max(tokens, self._seen.tokens or 0))

    async def settle(
        self,
        *,
        tokens: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        response: bytes | str | Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> Charged:
        """Say what was used: numbers of tokens, or the provider's ``response`` (the JSON body, or the whole event
        stream with ``content_type="text/event-stream"``), which the route's meter reads. With nothing, what was asked
        for is charged as an estimate.

        Settling twice counts once. Raises ValueError for figures that cannot be, RuntimeError for a call that was not
        allowed, Fault when the record could not be made durable in time.
        """
        if self._asked is None:
            raise RuntimeError(f"the call was not allowed ({self.reason}): there is nothing to settle")
        if self._charged is None:
            found = reported(self._asked, tokens, input_tokens, output_tokens, response, content_type)
            self._charged = await self._firewall._settle(self._asked, found)
        return self._charged

    async def release(self) -> Charged:
        """The call was not made: give back what is held. The record says so, with 0."""
        return await self.settle(tokens=0)

    def progress(self) -> Progress:
        """A sign of life for the ledger."""
        assert self._asked is not None
        return self._seen.progress(self._asked.call_id)

    def fire(self, reason: str) -> None:
        """The ledger says that the hold is closed."""
        self._lost = True


def routes_of(gateway: Gateway, endpoint: str | None) -> tuple[Route, ...]:
    """The routes that an endpoint may mean, first asked first: one by its name or its path, or those of a path of which
    the request decides (``when``). Raises ValueError with those that there are."""
    routes = [route for route in gateway.router.routes if not route.free]
    if endpoint is None:
        if len(routes) == 1:
            return (routes[0],)
        raise ValueError(f"say which endpoint is called: {_listed(routes)}")
    for route in routes:
        if route.name == endpoint:
            return (route,)
    found = gateway.router.find(endpoint.encode("utf-8"), "POST") if endpoint.startswith("/") else None
    if isinstance(found, Match) and not found.route.free:
        return (found.route,)
    if isinstance(found, Choice):
        return tuple(match.route for match in found.candidates)
    raise ValueError(f"no metered route has the endpoint {endpoint!r}: {_listed(routes)}")


def _taking(routes: tuple[Route, ...], wish: Wish, customer: Customer, path: str, now_ms: int) -> Route:
    """Of several routes the first one whose condition holds, as far as that follows from what the agent said. Raises
    ValueError where it does not, and where none takes the call."""
    if len(routes) == 1:
        return routes[0]
    names = ", ".join(route.name for route in routes)
    for route in routes:
        if route.when is not None:
            if unknown := route.when.names & _NOT_SAID:
                what = ", ".join(sorted(unknown))
                raise ValueError(f"which route takes {path!r} depends on {what}: name one of them as endpoint: {names}")
            view = view_of(wish, customer, path, now_ms)
            if route.when.evaluate_request(view).units != 1:
                continue
        if not route.free:
            return route
        break
    raise ValueError(f"no metered route of {path!r} takes this call: name one of them as endpoint: {names}")


def _listed(routes: list[Route]) -> str:
    return ", ".join(route.pattern.text for route in routes) or "no route is metered"


def _check(wish: Wish) -> None:
    for name, value in (("agent_id", wish.agent_id), ("user_id", wish.user_id)):
        if value is not None and not _SUBJECT.fullmatch(value):
            raise ValueError(f"{name} is 1 to 128 of the letters A-Z a-z 0-9 . _ : @ -")
    if wish.model is not None and not (0 < len(wish.model) <= _MODEL_LETTERS_MAX and wish.model.isprintable()):
        raise ValueError(f"model is a printable name of at most {_MODEL_LETTERS_MAX} letters")
