"""A customer's own thresholds. The rule: they tell, and limit nothing."""

import re
import secrets
from decimal import Decimal

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.errors import Code, Refusal
from gatekeeper.money import dollars_to_nano, units_to_micro
from gatekeeper.ports import Customer
from gatekeeper.ports.alerts import Alert, Measure
from gatekeeper.rules.limits import Window
from gatekeeper.rules.notices import Kind
from gatekeeper.web.gate import PORTAL
from gatekeeper.web.pages.desk import seen_other
from gatekeeper.web.pages.forms import NO_FORM, Form
from gatekeeper.web.portal.desk import PortalDesk
from gatekeeper.web.portal.forms import typed

ALERTS_MAX = 20
WINDOWS = (Window.DAY, Window.MONTH, Window.BILLING_PERIOD)
# Digits before the point: a database counts millionths of units and thousand-millionths of dollars, in 64 bits.
_FIGURES = {
    Measure.UNITS: re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,6})?"),
    Measure.CHARGE: re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,6})?"),
}


class Alerts:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, portal: PortalDesk) -> None:
        self._portal = portal

    async def page(self, request: Request) -> Response:
        """The alerts, and the form for a new one."""
        return await self._page(request, await self._portal.customer(request), NO_FORM)

    async def create(self, request: Request) -> Response:
        """``measure`` (units or charge), ``window``, ``threshold``."""
        customer = await self._portal.customer(request)
        _, form = await typed(request)
        measure, window = form.get("measure"), form.get("window")
        if measure not in tuple(Measure) or window not in WINDOWS:
            raise Refusal(Code.BAD_REQUEST, "This is no alert that could be made here.")
        figure = form.get("threshold").replace(",", "").removeprefix("$")
        if not _FIGURES[Measure(measure)].fullmatch(figure) or not Decimal(figure):
            said = "A number above 0, of so many that there could be, as in 2500."
            return await self._page(request, customer, form.wrong("threshold", said), 400)
        amount = (units_to_micro if measure == Measure.UNITS else dollars_to_nano)(Decimal(figure))
        now_ms = self._portal.desk.clock.now_ms()
        alert = Alert("alert_" + secrets.token_hex(8), customer.id, Measure(measure), Window(window), amount, now_ms)
        if not await self._portal.desk.store.add_alert(alert, ALERTS_MAX):
            said = f"This alert exists, or there are {ALERTS_MAX} already."
            return await self._page(request, customer, form.wrong("threshold", said), 409)
        return seen_other(f"{PORTAL}/alerts", done="alert")

    async def drop(self, request: Request) -> Response:
        """Take one away."""
        customer = await self._portal.customer(request)
        if not await self._portal.desk.store.drop_alert(customer.id, request.path_params["alert_id"]):
            raise Refusal(Code.NOT_FOUND, "There is no such alert.")
        return seen_other(f"{PORTAL}/alerts", done="dropped")

    async def _page(self, request: Request, customer: Customer, form: Form, status: int = 200) -> Response:
        desk = self._portal.desk
        told = any(Kind.ALERT_REACHED in one.subscription.kinds for one in desk.gateway().notifications)
        return self._portal.answer(
            request,
            "alerts.html",
            status,
            customer=customer,
            alerts=await desk.store.alerts(customer.id),
            form=form,
            windows=[(window.value, window.replace("_", " ")) for window in WINDOWS],
            told=told,
        )
