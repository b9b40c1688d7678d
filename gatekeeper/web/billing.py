"""The operator's hands on subscriptions and invoices, under ``/admin/customers/{id}``. JSON in and out."""

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.billing.invoices import Beside, Invoices
from gatekeeper.billing.subscriptions import Subscriptions, When
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import dollars_text, units_text
from gatekeeper.ports.subscriptions import Invoice
from gatekeeper.rules.subscriptions import Standing, content
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import limit_of, only, take
from gatekeeper.web.gate import note
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.billing import BILLING

# https://docs.stripe.com/api/pagination: of one page.
_PAGE_MAX = 100


@dataclass(frozen=True, slots=True)
class Billing:
    """``subscriptions`` None: Stripe is not enabled. Every endpoint raises Refusal."""

    subscriptions: Subscriptions | None
    invoices: Invoices
    guarded: Guard

    def routes(self) -> list[BaseRoute]:
        """The table of URLs, for ``web.app``."""
        return routes_of(BILLING, self, self.guarded)

    async def checkout(self, request: Request) -> Response:
        """``{"plan"}`` -> ``{"url"}``: where the customer pays, and subscribes."""
        plan_id = take(only(await json_body(request), "plan"), "plan", str)
        if plan_id is None:
            raise Refusal(Code.BAD_REQUEST, "plan is missing.")
        note(request, plan=plan_id)
        return json_answer({"url": await self._on().checkout(request.path_params["customer_id"], plan_id)}, 201)

    async def portal(self, request: Request) -> Response:
        """``{"url"}``: where the customer sees to his card and invoices, and may end."""
        only(await json_body(request))
        return json_answer({"url": await self._on().portal(request.path_params["customer_id"])}, 201)

    async def standing(self, request: Request) -> Response:
        """As it was decided last."""
        return _standing(await self._on().standing(request.path_params["customer_id"]))

    async def change(self, request: Request) -> Response:
        """``{"plan", "when"?}``, or ``{"resume": true}`` to take back what is to come at the period's end."""
        body = only(await json_body(request), "plan", "when", "resume")
        customer_id, plan_id = request.path_params["customer_id"], take(body, "plan", str)
        note(request, asked=body)
        if take(body, "resume", bool):
            if plan_id is not None or body.get("when") is not None:
                raise Refusal(Code.BAD_REQUEST, "resume stands alone.")
            return _standing(await self._on().resume(customer_id))
        if plan_id is None:
            raise Refusal(Code.BAD_REQUEST, "plan is missing.")
        return _standing(await self._on().change(customer_id, plan_id, _when(take(body, "when", str))))

    async def cancel(self, request: Request) -> Response:
        """``?when=now|period_end``; at the period's end unless it is said."""
        when = _when(request.query_params.get("when")) or When.PERIOD_END
        note(request, when=when)
        return _standing(await self._on().cancel(request.path_params["customer_id"], when))

    async def list_invoices(self, request: Request) -> Response:
        """``?after=ID&limit=N``, the latest first."""
        limit = min(limit_of(request), _PAGE_MAX)
        after = request.query_params.get("after")
        found = await self.invoices.listed(request.path_params["customer_id"], after=after, limit=limit)
        # What was kept is not paged: it is there for when the other side does not answer.
        more = found.fresh and len(found.invoices) == limit
        shown = [invoice_json(one) for one in found.invoices]
        return json_answer({"invoices": shown, "next": found.invoices[-1].id if more else None, "fresh": found.fresh})

    async def preview(self, request: Request) -> Response:
        """The present period by our figures, and Stripe's next invoice beside it."""
        return json_answer(preview_json(await self.invoices.preview(request.path_params["customer_id"])))

    def _on(self) -> Subscriptions:
        if self.subscriptions is None:
            raise Refusal(Code.CONFLICT, "Stripe is not enabled.", hint="[stripe] enabled = true, with its secrets")
        return self.subscriptions


def invoice_json(invoice: Invoice) -> dict[str, Any]:
    """An invoice for machines: whole cents."""
    return {
        "id": invoice.id,
        "number": invoice.number,
        "status": invoice.status,
        "reason": invoice.reason,
        "currency": invoice.currency,
        "total_cents": invoice.total_cents,
        "due_cents": invoice.due_cents,
        "paid_cents": invoice.paid_cents,
        "attempts": invoice.attempts,
        "created_ms": invoice.created_ms,
        "period_start_ms": invoice.period_start_ms,
        "period_end_ms": invoice.period_end_ms,
        "subscription": invoice.subscription_id,
        "page": invoice.page,
        "pdf": invoice.pdf,
    }


def preview_json(beside: Beside) -> dict[str, Any]:
    """Both sides, and the difference."""
    ours, theirs = beside.ours, beside.preview
    return {
        "period_start_ms": ours.start_ms,
        "period_end_ms": ours.end_ms,
        "ours": {
            "plan": ours.plan_id,
            "used_units": units_text(ours.used_micro),
            "overage_units": units_text(ours.overage_micro),
            "monthly_price": dollars_text(ours.fee_nano),
            "overage": dollars_text(ours.overage_nano),
            "total_cents": beside.ours_cents,
        },
        "stripe": None
        if theirs is None
        else {
            "total_cents": theirs.total_cents,
            "currency": theirs.currency,
            "lines": [{"text": text, "cents": cents, "units": units} for text, cents, units in theirs.lines],
        },
        "allowance": None
        if beside.allowance is None
        else {
            "since_ms": beside.allowance.since_ms,
            "included_units": beside.allowance.included,
            "used_units": beside.allowance.used,
            "told_units": beside.allowance.told,
            "overage": dollars_text(beside.allowance.overage_nano),
        },
        "why": beside.why,
        "difference_cents": beside.difference_cents,
    }


def _standing(standing: Standing | None) -> Response:
    return json_answer({"subscription": None if standing is None else content(standing)})


def _when(text: str | None) -> When | None:
    if text is None:
        return None
    if text not in tuple(When):
        raise Refusal(Code.BAD_REQUEST, f"when is one of {', '.join(When)}.")
    return When(text)
