"""The admin API under ``/admin``: customers, keys, usage, requests. JSON in and out, ``X-Admin-Key`` on every call."""

import hmac
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gatekeeper.accounts import Accounts, KeyWish
from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import dollars_text, plain, units_text
from gatekeeper.ports import Customer, Key, Store
from gatekeeper.rules.plans import Plan
from gatekeeper.web.answers import check_storable, json_answer, json_body
from gatekeeper.web.usage import period_bounds, record_json, total_json

PAGE_MAX = 1_000
T = TypeVar("T")
Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Admin:
    """The operator's API. Every endpoint raises Refusal."""

    accounts: Accounts
    store: Store
    gateway: Callable[[], Gateway]
    clock: Clock

    def routes(self) -> list[BaseRoute]:
        """The table of URLs, for ``web.app``."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/admin/customers", self.list_customers),
            ("POST", "/admin/customers", self.create_customer),
            ("GET", "/admin/customers/{customer_id}", self.get_customer),
            ("PATCH", "/admin/customers/{customer_id}", self.update_customer),
            ("GET", "/admin/customers/{customer_id}/usage", self.customer_usage),
            ("GET", "/admin/customers/{customer_id}/keys", self.list_keys),
            ("POST", "/admin/customers/{customer_id}/keys", self.create_key),
            ("DELETE", "/admin/keys/{key_id}", self.revoke_key),
            ("GET", "/admin/plans", self.list_plans),
            ("GET", "/admin/requests", self.list_requests),
            ("GET", "/admin/requests/{call_id}", self.get_request),
        ]
        return [Route(path, self.guarded(endpoint), methods=[method]) for method, path, endpoint in table]

    def guarded(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint, behind the admin key."""

        async def guarded(request: Request) -> Response:
            self.check_key(request)
            check_storable([*request.path_params.values(), *request.query_params.values()])
            return await endpoint(request)

        return guarded

    def check_key(self, request: Request) -> None:
        """Raises Refusal unless X-Admin-Key is the configured one (compared in constant time)."""
        secret = self.gateway().admin_key
        sent = request.headers.get("x-admin-key", "")
        if secret is None or not secret.reveal():
            raise Refusal(Code.ADMIN_KEY_REQUIRED, "The admin API is off.", hint="set ADMIN_API_KEY, or [admin] key")
        if not hmac.compare_digest(sent.encode(), secret.reveal().encode()):
            raise Refusal(Code.ADMIN_KEY_REQUIRED)

    async def list_customers(self, request: Request) -> Response:
        """``?after=ID&limit=N``, in the order of ids."""
        rows = await self.store.customers(after=request.query_params.get("after", ""), limit=limit_of(request))
        return json_answer({"customers": [customer_json(row) for row in rows]})

    async def create_customer(self, request: Request) -> Response:
        """``{"name", "plan"?, "id"?, "email"?}``."""
        body = only(await json_body(request), "name", "plan", "id", "email")
        customer = await self.accounts.create_customer(
            _need(body, "name", str),
            plan_id=take(body, "plan", str),
            customer_id=take(body, "id", str),
            email=take(body, "email", str),
        )
        return json_answer(customer_json(customer), 201)

    async def get_customer(self, request: Request) -> Response:
        """One customer."""
        return json_answer(customer_json(await self.accounts.customer(request.path_params["customer_id"])))

    async def update_customer(self, request: Request) -> Response:
        """``{"plan"?, "disabled"?}``."""
        body = only(await json_body(request), "plan", "disabled")
        customer_id = request.path_params["customer_id"]
        plan_id, disabled = take(body, "plan", str), take(body, "disabled", bool)
        customer = await self.accounts.customer(customer_id)
        if plan_id is not None:
            customer = await self.accounts.set_plan(customer_id, plan_id)
        if disabled is not None:
            customer = await self.accounts.set_disabled(customer_id, disabled)
        return json_answer(customer_json(customer))

    async def customer_usage(self, request: Request) -> Response:
        """Sums of a period (as ``/v1/usage``), today and this month beside."""
        customer = await self.accounts.customer(request.path_params["customer_id"])
        now_ms = self.clock.now_ms()
        start_ms, end_ms = period_bounds(dict(request.query_params), now_ms)
        month_ms, tomorrow_ms = period_bounds({"period": "current_month"}, now_ms)
        total = await self.store.usage_total(start_ms, end_ms, customer_id=customer.id)
        today = await self.store.usage_total(tomorrow_ms - 86_400_000, tomorrow_ms, customer_id=customer.id)
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

    async def list_keys(self, request: Request) -> Response:
        """A customer's keys, without the keys themselves."""
        customer = await self.accounts.customer(request.path_params["customer_id"])
        rows = await self.store.keys(customer.id, after=request.query_params.get("after", ""), limit=limit_of(request))
        return json_answer({"keys": [key_json(row) for row in rows]})

    async def create_key(self, request: Request) -> Response:
        """``{"name"?, "expires_ms"?, "routes"?, "models"?, "user_id"?, "agent_id"?, "may_assert"?}``. The answer holds
        the key itself, this once."""
        names = ("name", "expires_ms", "routes", "models", "user_id", "agent_id", "may_assert")
        body = only(await json_body(request), *names)
        wish = KeyWish(
            name=take(body, "name", str) or "",
            expires_ms=take(body, "expires_ms", int),
            routes=_texts(body, "routes"),
            models=_texts(body, "models"),
            user_id=take(body, "user_id", str),
            agent_id=take(body, "agent_id", str),
            may_assert=take(body, "may_assert", bool) or False,
        )
        made = await self.accounts.create_key(request.path_params["customer_id"], wish)
        return json_answer({**key_json(made.key), "key": made.secret}, 201)

    async def revoke_key(self, request: Request) -> Response:
        """Revoke a key; twice is the same as once."""
        return json_answer(key_json(await self.accounts.revoke_key(request.path_params["key_id"])))

    async def list_plans(self, request: Request) -> Response:
        """The plans as declared."""
        return json_answer({"plans": [plan_json(plan) for plan in self.gateway().plans.values()]})

    async def list_requests(self, request: Request) -> Response:
        """``?customer_id=&before_ms=&limit=``, latest first."""
        before = request.query_params.get("before_ms")
        if before is not None and not (before.isascii() and before.isdigit() and int(before[:20]) < 2**63):
            raise Refusal(Code.BAD_REQUEST, "before_ms is a time in milliseconds since 1970.")
        rows = await self.store.records(
            customer_id=request.query_params.get("customer_id"),
            before_ms=None if before is None else int(before),
            limit=limit_of(request),
        )
        return json_answer({"requests": [record_json(row, operator=True) for row in rows]})

    async def get_request(self, request: Request) -> Response:
        """One record."""
        record = await self.store.record(request.path_params["call_id"])
        if record is None:
            raise Refusal(Code.NOT_FOUND, "There is no such request.")
        attempts = await self.store.attempts(record.call_id)
        return json_answer(record_json(record, operator=True, attempts=attempts))


def customer_json(customer: Customer) -> dict[str, Any]:
    """A customer for machines."""
    return {
        "id": customer.id,
        "name": customer.name,
        "plan": customer.plan_id,
        "email": customer.email,
        "created_ms": customer.created_ms,
        "disabled": customer.disabled_ms is not None,
        "stripe_customer_id": customer.stripe_customer_id,
    }


def key_json(key: Key) -> dict[str, Any]:
    """A key for machines: never the key itself."""
    return {
        "id": key.id,
        "customer_id": key.customer_id,
        "name": key.name,
        "shown": key.shown,
        "created_ms": key.created_ms,
        "expires_ms": key.expires_ms,
        "revoked_ms": key.revoked_ms,
        "last_used_ms": key.last_used_ms,
        "routes": key.routes,
        "models": key.models,
        "user_id": key.user_id,
        "agent_id": key.agent_id,
        "may_assert": key.may_assert,
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """A plan for machines."""
    quota = plan.quota
    return {
        "id": plan.id,
        "name": plan.name,
        "monthly_price": plain(plan.monthly_price),
        "quota": None if quota is None or quota.cap is None else units_text(quota.cap),
        "quota_window": None if quota is None else quota.window,
        "when_exhausted": None if quota is None else quota.mode,
        "overage_price": None if plan.overage is None else plain(plan.overage.dollars),
        "overage_per": None if plan.overage is None else plan.overage.per,
        "rates": [
            {"dimension": rate.dimension, "cap": units_text(rate.cap), "per_ms": rate.per_ms} for rate in plan.rates
        ],
        "stripe_price": plan.stripe_price,
    }


def limit_of(request: Request) -> int:
    """``?limit=N``. Raises Refusal."""
    text = request.query_params.get("limit", "100")
    if not (text.isascii() and text.isdigit()) or not 1 <= int(text[:20]) <= PAGE_MAX:
        raise Refusal(Code.BAD_REQUEST, f"limit is a number from 1 to {PAGE_MAX}.")
    return int(text)


def only(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """The body, where it has no other fields. Raises Refusal."""
    unknown = sorted(set(body) - set(names))
    if unknown:
        raise Refusal(Code.BAD_REQUEST, f"unknown field {unknown[0][:40]!r}; the fields are: {', '.join(names)}.")
    return body


def take(body: dict[str, Any], name: str, kind: type[T]) -> T | None:
    """A field of one kind, None where it is not there. Raises Refusal."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        shown = {str: "a text", int: "a whole number", bool: "true or false"}[kind]
        raise Refusal(Code.BAD_REQUEST, f"{name} must be {shown}.")
    return value


def _need(body: dict[str, Any], name: str, kind: type[T]) -> T:
    value = take(body, name, kind)
    if value is None:
        raise Refusal(Code.BAD_REQUEST, f"{name} is missing.")
    return value


def _texts(body: dict[str, Any], name: str) -> list[str] | None:
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(Code.BAD_REQUEST, f"{name} must be a list of texts.")
    return value
