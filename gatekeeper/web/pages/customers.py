"""Customers on the dashboard: found, made, looked at, changed. The rule: a change goes through ``accounts``, as
that of the admin API does."""

from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.accounts import CustomerWish
from gatekeeper.errors import Refusal
from gatekeeper.ports import Customer
from gatekeeper.web.gate import note
from gatekeeper.web.pages.desk import PAGE_ROWS, Desk, is_asked_wrongly, paged, seen_other, with_query
from gatekeeper.web.pages.forms import NO_FORM, Form, read_form

_FIELDS = (
    ("customer_id", r"customer's id|There is a customer"),
    ("email", r"^email"),
    ("plan", r"no plan"),
    ("account", r"stripe_customer_id|the account"),
    ("name", r"^name"),
)
_FIND_LETTERS_MAX = 200


def customer_url(customer_id: str, tab: str = "") -> str:
    """The page of a customer."""
    return f"/dashboard/customers/{quote(customer_id, safe='')}" + (f"/{tab}" if tab else "")


class CustomerPages:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def listing(self, request: Request) -> Response:
        """``?find=&plan=&after=``."""
        query = dict(request.query_params)
        find, plan_id = query.get("find", "").strip()[:_FIND_LETTERS_MAX], query.get("plan", "")
        found = await self._desk.store.customers(
            after=query.get("after", ""), limit=PAGE_ROWS + 1, find=find or None, plan_id=plan_id or None
        )
        rows, more = paged(found)
        words = {"find": find, "plan": plan_id}
        following = with_query("/dashboard/customers", words, after=rows[-1].id) if more else None
        return self._desk.answer(
            request,
            "customers.html",
            customers=rows,
            plans=self._plans(),
            query=words,
            following=following,
            is_first=not (find or plan_id or "after" in query),
        )

    async def new(self, request: Request) -> Response:
        """The empty form."""
        return self._form(request, NO_FORM)

    async def create(self, request: Request) -> Response:
        """Make a customer; back to the form with what is wrong in it."""
        form = await read_form(request)
        try:
            customer = await self._desk.accounts.create_customer(
                form.get("name"),
                plan_id=form.get("plan") or None,
                customer_id=form.get("customer_id") or None,
                email=form.get("email") or None,
            )
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return self._form(request, form.blamed(refusal, _FIELDS), refusal.status)
        note(request, customer=customer.id, plan=customer.plan_id, name=customer.name)
        return seen_other(customer_url(customer.id, "keys"), done="customer")

    async def change(self, request: Request) -> Response:
        """Name, email and account at Stripe."""
        form, before = await read_form(request), await self.customer(request)
        wish = CustomerWish(name=form.get("name"), email=form.get("email"), account=form.get("account"))
        try:
            after = await self._desk.accounts.change_customer(before.id, wish)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return self.settings_page(request, before, form.blamed(refusal, _FIELDS), refusal.status)
        note(request, before=_shown(before), after=_shown(after))
        return seen_other(customer_url(before.id, "settings"), done="changed")

    async def set_plan(self, request: Request) -> Response:
        """Another plan, at once."""
        form, before = await read_form(request), await self.customer(request)
        try:
            after = await self._desk.accounts.set_plan(before.id, form.get("plan"))
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return self.settings_page(request, before, form.blamed(refusal, _FIELDS), refusal.status)
        note(request, before=before.plan_id, after=after.plan_id)
        return seen_other(customer_url(before.id, "settings"), done="plan")

    async def disable(self, request: Request) -> Response:
        """Refuse all calls."""
        customer = await self._desk.accounts.set_disabled(request.path_params["customer_id"], True)
        return seen_other(customer_url(customer.id, "settings"), done="disabled")

    async def enable(self, request: Request) -> Response:
        """Admit calls again."""
        customer = await self._desk.accounts.set_disabled(request.path_params["customer_id"], False)
        return seen_other(customer_url(customer.id, "settings"), done="enabled")

    async def settings(self, request: Request) -> Response:
        """What can be changed."""
        customer = await self.customer(request)
        values = {"name": customer.name, "email": customer.email or "", "account": customer.stripe_customer_id or ""}
        return self.settings_page(request, customer, Form(values))

    def settings_page(self, request: Request, customer: Customer, form: Form, status: int = 200) -> Response:
        """The same, with a form that was filled in."""
        usual = {"name": customer.name, "email": customer.email or "", "account": customer.stripe_customer_id or ""}
        filled = Form({**usual, **form.values}, form.errors, form.said, form.hint)
        context: dict[str, Any] = {"customer": customer, "tab": "settings", "form": filled, "plans": self._plans()}
        return self._desk.answer(request, "customer_settings.html", status, **context)

    async def customer(self, request: Request) -> Customer:
        """The one in the URL. Raises Refusal."""
        return await self._desk.accounts.customer(request.path_params["customer_id"])

    def _form(self, request: Request, form: Form, status: int = 200) -> Response:
        usual = self._desk.gateway().keys.default_plan
        return self._desk.answer(
            request, "customer_new.html", status, form=form, plans=self._plans(), default_plan=usual
        )

    def _plans(self) -> list[tuple[str, str]]:
        return [(plan.id, plan.name) for plan in self._desk.gateway().plans.values()]


def _shown(customer: Customer) -> dict[str, str | None]:
    return {"name": customer.name, "email": customer.email, "account": customer.stripe_customer_id}
