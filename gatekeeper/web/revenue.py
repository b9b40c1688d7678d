"""What comes in by use and by monthly prices, what providers take, and what is left: ``/admin/revenue``, and what
``gatekeeper revenue`` prints."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import dollars_text, dollars_to_nano
from gatekeeper.ports import Store
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.spent import SpendBy
from gatekeeper.web.answers import json_answer
from gatekeeper.web.asked import limit_of
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.spending import REVENUE
from gatekeeper.web.spend import spent_json
from gatekeeper.web.usage import day_of, period_bounds

BY = (SpendBy.DAY, SpendBy.PLAN, SpendBy.MODEL, SpendBy.CUSTOMER, SpendBy.ROUTE)


@dataclass(frozen=True, slots=True)
class Revenue:
    """Endpoints; each raises Refusal."""

    store: Store
    gateway: Callable[[], Gateway]
    clock: Clock
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(REVENUE, self, self.guard)

    async def get_revenue(self, request: Request) -> Response:
        """``?by=day|plan|model|customer|route``, ``?period=`` or ``?start=&end=``, ``?limit=``."""
        query = dict(request.query_params)
        by = query.get("by", SpendBy.DAY)
        if by not in BY:
            raise Refusal(Code.BAD_REQUEST, f"by is one of {', '.join(BY)}.")
        start_ms, end_ms = period_bounds(query, self.clock.now_ms())
        plans = self.gateway().plans
        return json_answer(await revenue_report(self.store, plans, SpendBy(by), start_ms, end_ms, limit_of(request)))


async def revenue_report(
    store: Store, plans: Mapping[str, Plan], by: SpendBy, start_ms: int, end_ms: int, most: int
) -> dict[str, Any]:
    """Revenue by use, told apart, its sum, and beside it the monthly prices of all customers as they are now. Raises
    Fault."""
    rows = await store.spend_by(by, Scope.GLOBAL, "", start_ms, end_ms, limit=most)
    total = await store.spend_total(Scope.GLOBAL, "", start_ms, end_ms)
    return {
        "period_start": day_of(start_ms),
        "period_end": day_of(end_ms - 1),
        "by": by,
        "rows": [{by.value: row.part, **spent_json(row)} for row in rows],
        "total": spent_json(total),
        "monthly": monthly_prices(plans, await store.customers_by_plan()),
    }


def monthly_prices(plans: Mapping[str, Plan], customers: Mapping[str, int]) -> list[dict[str, Any]]:
    """What the customers of each plan pay a month; None for a plan that is not on sale any more."""
    found = []
    for plan_id, count in customers.items():
        plan = plans.get(plan_id)
        price = None if plan is None else dollars_to_nano(plan.monthly_price)
        found.append(
            {
                "plan": plan_id,
                "customers": count,
                "monthly_price": None if price is None else dollars_text(price),
                "total": None if price is None else dollars_text(price * count),
            }
        )
    return found
