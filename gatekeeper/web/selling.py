"""What is sold and how it is metered, as it holds at the moment: plans and routes, read only. The rule: no secret, and
nothing that an author may have hidden one in (an upstream's own headers)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.config.gateway import Gateway, Route
from gatekeeper.errors import Code, Refusal
from gatekeeper.meters import Meter
from gatekeeper.money import amount_text, plain, units_text
from gatekeeper.ports import Store
from gatekeeper.rules.declared import EACH
from gatekeeper.rules.limits import RateLimit, StockLimit
from gatekeeper.rules.plans import Plan
from gatekeeper.web.admin import plan_json
from gatekeeper.web.answers import json_answer
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.selling import SELLING


@dataclass(frozen=True, slots=True)
class Selling:
    """Endpoints; each raises Refusal."""

    store: Store
    gateway: Callable[[], Gateway]
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(SELLING, self, self.guard)

    async def list_plans(self, request: Request) -> Response:
        """The plans as declared: all of them, so there is no next page."""
        plans = self.gateway().plans.values()
        return json_answer({"plans": [plan_json(plan) for plan in plans], "next": None})

    async def get_plan(self, request: Request) -> Response:
        """One plan, with its limits, its examples, and how many customers are on it."""
        plan = self.gateway().plans.get(request.path_params["plan_id"])
        if plan is None:
            raise Refusal(Code.NOT_FOUND, f"There is no plan {request.path_params['plan_id'][:64]!r}.")
        counts = await self.store.customers_by_plan()
        return json_answer({**whole_plan_json(plan), "customers": counts.get(plan.id, 0)})

    async def list_routes(self, request: Request) -> Response:
        """The routes in the order in which they are asked."""
        return json_answer({"routes": [route_json(route) for route in self.gateway().router.routes], "next": None})

    async def get_route(self, request: Request) -> Response:
        """One route by its name."""
        name = request.path_params["name"]
        for route in self.gateway().router.routes:
            if route.name == name:
                return json_answer(route_json(route))
        raise Refusal(Code.NOT_FOUND, f"There is no route {name[:64]!r}.")


def whole_plan_json(plan: Plan) -> dict[str, Any]:
    """A plan with all that holds on it."""
    return {
        **plan_json(plan),
        "clamp_output": plan.clamp_output,
        "limits": [{**_limit(each), "subject": plan.named(each) or EACH} for each in plan.limits],
        "downgrade": [list(chain) for chain in plan.downgrade],
        "on_cancel": plan.on_cancel,
        "trial_days": plan.trial_days,
        "examples": [
            {
                "name": each.name,
                "units": units_text(each.units_micro),
                "charge": None if each.charge is None else plain(each.charge),
            }
            for each in plan.examples
        ],
    }


def _limit(limit: StockLimit | RateLimit) -> dict[str, Any]:
    cap = None if limit.cap is None else amount_text(limit.dimension, limit.cap)
    return {
        "name": limit.name,
        "scope": limit.scope,
        "dimension": limit.dimension,
        "cap": cap,
        "window": limit.window if isinstance(limit, StockLimit) else None,
        "mode": limit.mode if isinstance(limit, StockLimit) else None,
    }


def route_json(route: Route) -> dict[str, Any]:
    """A route for machines, with its checked expressions."""
    return {
        "name": route.name,
        "path": route.pattern.text,
        "methods": None if route.methods is None else sorted(route.methods),
        "host": route.host,
        "upstream": route.upstream,
        "fallback": [{"upstream": each.upstream, "model": each.model} for each in route.fallback],
        "dialect": route.dialect,
        "free": route.free,
        "models": list(route.models),
        "meter": expression_json(route.meter),
        "meters": {name: expression_json(meter) for name, meter in route.meters.items()},
        "estimate": _maybe(route.estimate),
        "live": _maybe(route.live),
        "cost": _maybe(route.cost),
        "when": _maybe(route.when),
        "unmeasured": route.unmeasured,
        "unmeasured_default": plain(route.unmeasured_default),
        "hold": route.hold,
        "on_disconnect": route.on_disconnect,
        "examples": len(route.examples),
    }


def expression_json(meter: Meter) -> dict[str, Any]:
    """A checked expression: its text, and the hash under which records name it."""
    return {
        "text": meter.text,
        "hash": meter.hash,
        "warnings": [{"message": each.message, "hint": each.hint} for each in meter.warnings],
    }


def _maybe(meter: Meter | None) -> dict[str, Any] | None:
    return None if meter is None else expression_json(meter)
