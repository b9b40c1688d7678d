"""The operator's API for customers, under ``/admin/customers``. The rule: a customer is made with its caps or not at
all, and none is ever deleted: what was used stays on record."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.accounts import Accounts, CustomerWish
from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import dollars_text
from gatekeeper.overlays import Limits, Wish
from gatekeeper.ports import Customer, Store
from gatekeeper.rules.limits import Scope
from gatekeeper.web.admin import customer_json
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import limit_of, need, only, page, take
from gatekeeper.web.budgets import budget_json, parse_cap
from gatekeeper.web.gate import note
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.accounts import CUSTOMERS
from gatekeeper.web.tags import check_match, tag_header
from gatekeeper.web.usage import period_bounds, total_json

DAY_MS = 86_400_000
LIMITS_MAX = 20
_LIMIT_FIELDS = ("dimension", "window", "per_ms", "cap", "mode", "zone", "name", "release")


@dataclass(frozen=True, slots=True)
class Customers:
    """Endpoints; each raises Refusal."""

    accounts: Accounts
    limits: Limits
    store: Store
    gateway: Callable[[], Gateway]
    clock: Clock
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(CUSTOMERS, self, self.guard)

    async def list_customers(self, request: Request) -> Response:
        """``?find=&plan=&after=ID&limit=N``, in the order of ids."""
        query, limit = request.query_params, limit_of(request)
        rows = await self.store.customers(
            after=query.get("after", ""), limit=limit + 1, find=query.get("find") or None, plan_id=query.get("plan")
        )
        return json_answer(page("customers", rows, limit, customer_json, lambda row: row.id))

    async def create_customer(self, request: Request) -> Response:
        """``{"name", "plan"?, "id"?, "email"?, "stripe_customer_id"?, "disabled"?, "limits"?}``; ``limits`` are those
        of ``POST /admin/budgets``, without scope and subject."""
        fields = ("name", "plan", "id", "email", "stripe_customer_id", "disabled", "limits")
        body = only(await json_body(request), *fields)
        name, disabled = need(body, "name", str), take(body, "disabled", bool) or False
        wishes = _wishes(body)
        for wish in wishes:
            await self.limits.vet(_of(wish, take(body, "id", str) or "new"))
        customer = await self.accounts.create_customer(
            name,
            plan_id=take(body, "plan", str),
            customer_id=take(body, "id", str),
            email=take(body, "email", str),
            account=take(body, "stripe_customer_id", str),
            # Until the caps stand, nobody spends: who dies in between leaves nobody without a cap.
            disabled=disabled or bool(wishes),
        )
        note(request, subject=customer.id)
        made = [await self.limits.create(_of(wish, customer.id)) for wish in wishes]
        if wishes and not disabled:
            customer = await self.accounts.set_disabled(customer.id, False)
        return json_answer({**customer_json(customer), "limits": [budget_json(each) for each in made]}, 201)

    async def get_customer(self, request: Request) -> Response:
        """One customer."""
        return _shown(await self.accounts.customer(request.path_params["customer_id"]))

    async def update_customer(self, request: Request) -> Response:
        """``{"name"?, "plan"?, "email"?, "stripe_customer_id"?, "disabled"?}``: all of it or nothing."""
        body = only(await json_body(request), "name", "plan", "email", "stripe_customer_id", "disabled")
        wish = CustomerWish(
            name=take(body, "name", str),
            plan_id=take(body, "plan", str),
            email=_or_none(body, "email"),
            account=_or_none(body, "stripe_customer_id"),
            disabled=take(body, "disabled", bool),
        )
        check, before = _checked(request)
        after = await self.accounts.change_customer(request.path_params["customer_id"], wish, check=check)
        note(request, before=before, after=customer_json(after))
        return _shown(after)

    async def archive_customer(self, request: Request) -> Response:
        """No call is served any more: the customer is disabled and its keys are revoked. Its records stay."""
        check, before = _checked(request)
        customer, revoked = await self.accounts.archive(request.path_params["customer_id"], check=check)
        note(request, before=before, after=customer_json(customer), keys_revoked=revoked)
        return json_answer({**customer_json(customer), "keys_revoked": revoked})

    async def customer_usage(self, request: Request) -> Response:
        """Sums of a period (as ``/v1/usage``), today and this month beside."""
        customer = await self.accounts.customer(request.path_params["customer_id"])
        now_ms = self.clock.now_ms()
        start_ms, end_ms = period_bounds(dict(request.query_params), now_ms)
        month_ms, tomorrow_ms = period_bounds({"period": "current_month"}, now_ms)
        total = await self.store.usage_total(start_ms, end_ms, customer_id=customer.id)
        today = await self.store.usage_total(tomorrow_ms - DAY_MS, tomorrow_ms, customer_id=customer.id)
        month = await self.store.usage_total(month_ms, tomorrow_ms, customer_id=customer.id)
        days = await self.store.usage_by_day(start_ms, end_ms, customer_id=customer.id)
        plan = self.gateway().plans.get(customer.plan_id)
        base_nano = plan.period_charge_nano(0) if plan is not None else 0
        return json_answer(
            {
                **total_json(total),
                "tokens_used_today": total_json(today)["tokens_used"],
                "tokens_used_month": total_json(month)["tokens_used"],
                "estimated_cost": dollars_text(base_nano + month.charge_nano),
                "requests_count": month.requests,
                "last_request": month.last_request_ms,
                "days": [{"day": day.day, **total_json(day.total)} for day in days],
            }
        )


def _shown(customer: Customer) -> Response:
    shown = customer_json(customer)
    return json_answer(shown, headers=tag_header(shown))


def _checked(request: Request) -> tuple[Callable[[Customer], None], dict[str, Any]]:
    """What refuses a customer that is not (any more) as If-Match says, and what it has seen."""
    seen: dict[str, Any] = {}

    def check(customer: Customer) -> None:
        seen.update(customer_json(customer))
        check_match(request, seen)

    return check, seen


def _or_none(body: dict[str, Any], name: str) -> str | None:
    """A text that null takes away."""
    return "" if name in body and body[name] is None else take(body, name, str)


def _wishes(body: dict[str, Any]) -> list[Wish]:
    """The limits that a new customer is to have, as yet without a subject."""
    asked = take(body, "limits", list) or []
    if len(asked) > LIMITS_MAX or not all(isinstance(each, dict) for each in asked):
        raise Refusal(Code.BAD_REQUEST, f"limits are at most {LIMITS_MAX} objects.")
    found: list[Wish] = []
    for each in asked:
        limit = only(each, *_LIMIT_FIELDS)
        dimension = need(limit, "dimension", str)
        if "cap" not in limit:
            raise Refusal(Code.BAD_REQUEST, "cap is missing.")
        wish = Wish(
            scope=Scope.CUSTOMER,
            dimension=dimension,
            cap=parse_cap(dimension, limit["cap"]),
            window=take(limit, "window", str),
            per_ms=take(limit, "per_ms", int),
            mode=take(limit, "mode", str),
            zone=take(limit, "zone", str),
            name=take(limit, "name", str),
            release=take(limit, "release", str),
        )
        if any((one.dimension, one.window, one.per_ms) == (wish.dimension, wish.window, wish.per_ms) for one in found):
            raise Refusal(Code.BAD_REQUEST, f"limits has two for {dimension[:40]} in the same window.")
        found.append(wish)
    return found


def _of(wish: Wish, customer_id: str) -> Wish:
    return replace(wish, subject=customer_id)
