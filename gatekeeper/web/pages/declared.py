"""What is declared: plans with their examples, routes with their checked expressions, upstreams. Looked at only;
the files say it."""

from decimal import Decimal

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.config.gateway import Route
from gatekeeper.meters import Meter
from gatekeeper.rules.plans import Plan
from gatekeeper.web.pages.desk import Desk


class DeclaredPages:
    """Endpoints."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def plans(self, request: Request) -> Response:
        """Plans, with how many customers each has."""
        gateway = self._desk.gateway()
        return self._desk.answer(
            request,
            "plans.html",
            tab="",
            plans=[(plan, _promises(plan)) for plan in gateway.plans.values()],
            customers=await self._desk.store.customers_by_plan(),
            default_plan=gateway.keys.default_plan,
        )

    async def routes(self, request: Request) -> Response:
        """Routes in the order in which they are tried."""
        gateway = self._desk.gateway()
        return self._desk.answer(
            request,
            "routes.html",
            tab="routes",
            routes=[(route, _expressions(route)) for route in gateway.router.routes],
            upstreams=list(gateway.upstreams.values()),
            warnings=[each.message for each in gateway.warnings],
        )


def _promises(plan: Plan) -> list[tuple[str, int, Decimal | None]]:
    """The examples of a plan: (name, millionths of a unit, what that is charged; None: it is refused)."""
    return [(each.name, each.units_micro, each.charge) for each in plan.examples]


def _expressions(route: Route) -> list[tuple[str, Meter]]:
    """All expressions of a route, by what they are for."""
    named = [("meter", route.meter), *((f"meters.{name}", meter) for name, meter in route.meters.items())]
    others = (("when", route.when), ("estimate", route.estimate), ("live", route.live), ("cost", route.cost))
    return [*named, *((name, meter) for name, meter in others if meter is not None)]
