"""The plan, the way to another one, and the invoices. The rule: what is paid is decided at Stripe alone; a page of ours
leads there by a link that a person follows, and grants nothing."""

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.billing.subscriptions import Subscriptions, When
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.ports import Customer
from gatekeeper.rules.subscriptions import Standing
from gatekeeper.web.gate import PORTAL, note
from gatekeeper.web.pages.desk import is_asked_wrongly, seen_other
from gatekeeper.web.portal.desk import PortalDesk
from gatekeeper.web.portal.forms import typed

INVOICES_SHOWN = 24


class PlanPages:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, portal: PortalDesk) -> None:
        self._portal = portal

    async def page(self, request: Request) -> Response:
        """All plans, and what stands."""
        return await self._page(request, await self._portal.customer(request))

    async def choose(self, request: Request) -> Response:
        """``plan``: who has no subscription is led to Stripe's page for one; who has one changes it."""
        customer = await self._portal.customer(request)
        fields, _ = await typed(request)
        plan_id = fields.get("plan", "")
        try:
            selling, plan = self._selling(), self._portal.desk.gateway().plans.get(plan_id)
            if plan is None:
                raise Refusal(Code.BAD_REQUEST, f"There is no plan {plan_id[:64]!r}.")
            note(request, plan=plan.id)
            if not _stands(await selling.standing(customer.id)):
                url = await selling.checkout(customer.id, plan.id)
                return self._portal.answer(request, "onward.html", url=url, to=f"pay for the plan {plan.name}")
            if not plan.monthly_price:
                await selling.cancel(customer.id, When.PERIOD_END)
                return seen_other(f"{PORTAL}/plan", done="ends")
            await selling.change(customer.id, plan.id)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return await self._page(request, customer, refusal, refusal.status)
        return seen_other(f"{PORTAL}/plan", done="changed")

    async def end(self, request: Request) -> Response:
        """End the subscription with its period."""
        customer = await self._portal.customer(request)
        try:
            await self._selling().cancel(customer.id, When.PERIOD_END)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return await self._page(request, customer, refusal, refusal.status)
        return seen_other(f"{PORTAL}/plan", done="ends")

    async def resume(self, request: Request) -> Response:
        """Take back an end, or a smaller plan, that was to come."""
        customer = await self._portal.customer(request)
        try:
            await self._selling().resume(customer.id)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return await self._page(request, customer, refusal, refusal.status)
        return seen_other(f"{PORTAL}/plan", done="stays")

    async def billing(self, request: Request) -> Response:
        """To Stripe's page for cards and receipts."""
        customer = await self._portal.customer(request)
        try:
            url = await self._selling().portal(customer.id)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return await self._page(request, customer, refusal, refusal.status)
        return self._portal.answer(request, "onward.html", url=url, to="see cards and receipts")

    async def invoices(self, request: Request) -> Response:
        """The present period by our figures, and the invoices."""
        customer, desk = await self._portal.customer(request), self._portal.desk
        listed = await desk.invoices.listed(customer.id, limit=INVOICES_SHOWN)
        return self._portal.answer(
            request,
            "invoices.html",
            customer=customer,
            beside=await desk.invoices.preview(customer.id),
            invoices=listed.invoices,
            fresh=listed.fresh,
            sells=desk.subscriptions is not None,
        )

    def _selling(self) -> Subscriptions:
        found = self._portal.desk.subscriptions
        if found is None:
            raise Refusal(Code.CONFLICT, "Plans are not sold here.", hint="whoever runs this gateway changes your plan")
        return found

    async def _page(
        self, request: Request, customer: Customer, refusal: Refusal | None = None, status: int = 200
    ) -> Response:
        desk = self._portal.desk
        try:
            standing = await desk.store.standing(customer.id)
        except Fault:
            standing = None
        plans = sorted(desk.gateway().plans.values(), key=lambda plan: (plan.monthly_price, plan.name))
        return self._portal.answer(
            request,
            "plan.html",
            status,
            customer=customer,
            plans=plans,
            standing=standing,
            stands=_stands(standing),
            sells=desk.subscriptions is not None,
            refusal=refusal,
        )


def _stands(standing: Standing | None) -> bool:
    return standing is not None and not standing.has_ended
