"""``/admin/expressions``: check, evaluate and dry-run an expression, for machines. Nothing of it changes anything.

The rule: a mistake in an expression is an answer (200, ``ok`` false), and only a request that cannot be understood is
refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.config.gateway import Gateway
from gatekeeper.diagnostics import Mistake
from gatekeeper.errors import Code, Refusal
from gatekeeper.meters import Meter, Prices, check_expression
from gatekeeper.ports import Audit
from gatekeeper.rules.prices import PriceBook, PriceList
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import need, only, take
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.expressions import EXPRESSIONS
from gatekeeper.web.playground.answers import tried_json
from gatekeeper.web.playground.checking import mistakes_json, plan_json
from gatekeeper.web.playground.replaying import LAST, LAST_MAX, START, Wish, dry_run, told_json
from gatekeeper.web.playground.trying import Trial, Tried, attempt
from gatekeeper.web.playground.turns import Turns
from gatekeeper.web.playground.wishes import METERS_MAX, TRIAL_FIELDS, context_of, route_of, trial_of


@dataclass(frozen=True, slots=True)
class Bench:
    """What expressions are tried with: the configuration of now, the records, the public price list."""

    gateway: Callable[[], Gateway]
    audit: Audit
    turns: Turns
    prices: PriceList | None = None

    async def attempt(self, trial: Trial) -> Tried:
        """Checks and evaluates, in a turn. Raises Refusal."""
        gateway = self.gateway()
        return await self.turns.take(partial(attempt, trial, gateway, self._prices(gateway, trial.upstream)))

    def _prices(self, gateway: Gateway, upstream: str | None) -> Prices:
        """As a route to that upstream would ask for them."""
        book = PriceBook(gateway.prices, self.prices, gateway.costs.ceiling)
        config = None if upstream is None else gateway.upstreams.get(upstream)
        return book.at("") if config is None else book.at(config.name, config.url)

    async def check(self, text: str, trial: Trial) -> tuple[Meter | None, tuple[Mistake, ...]]:
        """Checks alone."""
        return await self.turns.take(lambda _: check_expression(text, context=trial.context, dialect=trial.dialect))


@dataclass(frozen=True, slots=True)
class Expressions:
    """Endpoints; each raises Refusal."""

    bench: Bench
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(EXPRESSIONS, self, self.guard)

    async def check_expression(self, request: Request) -> Response:
        """``{"expression", "context"?, "route"?}``: mistakes and warnings with their places, and the plan."""
        body = only(await json_body(request), "expression", "context", "route")
        route = route_of(take(body, "route", str), self.bench.gateway())
        trial = Trial(
            need(body, "expression", str),
            context_of(take(body, "context", str)),
            dialect=None if route is None else route.dialect.value,
        )
        meter, mistakes = await self.bench.check(trial.expression, trial)
        plan = None if meter is None else plan_json(meter)
        return json_answer({"ok": meter is not None, "mistakes": mistakes_json(mistakes), "plan": plan})

    async def evaluate_expression(self, request: Request) -> Response:
        """``{"expression", "context"?, "meters"?, "route"?, "stream" | "stream_base64" | "sample", "content_type"?,
        "content_encoding"?, "status"?, "outcome"?, "method"?, "request"?, "used"?}``: the reading, the trace, the
        charge on each plan."""
        trial = trial_of(only(await json_body(request), *TRIAL_FIELDS), self.bench.gateway())
        return json_answer(tried_json(trial, await self.bench.attempt(trial)))

    async def dry_run_expression(self, request: Request) -> Response:
        """``{"route", "expression"?, "meters"?, "last"?, "before"?}``: what the last calls of a route would have been
        charged, customer by customer."""
        body = only(await json_body(request), "route", "expression", "meters", "last", "before")
        gateway = self.bench.gateway()
        wish, text, mistakes = await wish_of(body, self.bench, gateway)
        if wish is None:
            return json_answer({"ok": False, "mistakes": mistakes})
        told = await dry_run(wish, self.bench.audit, self.bench.turns, gateway)
        return json_answer({"ok": True, "mistakes": mistakes, **told_json(wish, told, text)})


async def wish_of(
    body: dict[str, Any], bench: Bench, gateway: Gateway
) -> tuple[Wish | None, str | None, list[dict[str, Any]]]:
    """(what is to be read again, the expression as it was written, all mistakes); no wish where one is an error. Raises
    Refusal."""
    route = route_of(need(body, "route", str), gateway)
    if route is None:
        raise Refusal(Code.BAD_REQUEST, "route is missing.")
    text, named = take(body, "expression", str), body.get("meters") or {}
    if (
        not isinstance(named, dict)
        or len(named) > METERS_MAX
        or not all(isinstance(one, str) for one in named.values())
    ):
        raise Refusal(Code.BAD_REQUEST, f"meters are expressions by name, at most {METERS_MAX}.")
    if text is None and not named:
        raise Refusal(Code.BAD_REQUEST, "There is nothing to try: send expression, meters, or both.")
    last = take(body, "last", int)
    if last is not None and not 1 <= last <= LAST_MAX:
        raise Refusal(Code.BAD_REQUEST, f"last is a number from 1 to {LAST_MAX}.")
    found: dict[str, Meter] = {}
    mistakes: list[dict[str, Any]] = []
    wrong = False
    for name, one in [
        *([] if text is None else [("meter", text)]),
        *((f"meters.{name}", named[name]) for name in named),
    ]:
        meter, told = await bench.check(one, Trial(one, dialect=route.dialect.value))
        mistakes += mistakes_json(told, name)
        wrong = wrong or meter is None
        if meter is not None:
            found[name] = meter
    if wrong:
        return None, text, mistakes
    meters = {name: found[f"meters.{name}"] for name in named}
    wish = Wish(route, found.get("meter"), meters, LAST if last is None else last, _place(take(body, "before", str)))
    return wish, text, mistakes


def _place(text: str | None) -> tuple[int, str]:
    """Where a page before this one ended: ``next`` of its answer."""
    if not text:
        return START
    time, _, call_id = text.partition(":")
    if not (time.isascii() and time.isdigit() and len(time) <= 18) or len(call_id) > 200 or "\0" in call_id:
        raise Refusal(Code.BAD_REQUEST, "before is what an answer before this one gave as next.")
    return int(time), call_id
