"""What a customer's key may ask about itself: ``GET /v1/usage``, ``/v1/models``, ``/v1/requests/{id}`` and the compact
``/v1/budget``, for an agent that asks what it may still spend."""

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, LimitState, Refusal
from gatekeeper.explanation import Past
from gatekeeper.money import amount_text, dollars_text, units_text
from gatekeeper.ports import Attempt, BucketState, CounterState, Holder, Ledger, UsageRecord, UsageTotal
from gatekeeper.proxy import access
from gatekeeper.rules.latches import seen
from gatekeeper.rules.limits import DOLLARS, ONE_REQUEST, CounterRow, Mode, RateLine, StockLine
from gatekeeper.rules.lines import Bounds, Subject, rate_lines, stock_lines
from gatekeeper.rules.plans import Plan
from gatekeeper.web.answers import check_storable, json_answer
from gatekeeper.web.credentials import read_credentials
from gatekeeper.web.openapi import routes_of
from gatekeeper.web.openapi.spending import OWN
from gatekeeper.web.problems import limit_json

DAY_MS = 86_400_000
# A longer report belongs to the admin API: this bounds what one key can make the database read.
PERIOD_DAYS_MAX = 400
_NOTHING = Bounds()


class Usage:
    """The customer's own questions. Every method is a Starlette endpoint; each raises Refusal."""

    def __init__(
        self,
        directory: access.Directory,
        ledger: Ledger,
        usage: Past,
        gateway: Callable[[], Gateway],
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._ledger = ledger
        self._usage = usage
        self._gateway = gateway
        self._clock = clock

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(OWN, self)

    async def holder(self, request: Request) -> Holder:
        """Who asks. Raises Refusal."""
        credentials = read_credentials(request.scope["headers"], request.scope["query_string"])
        holder = await self._directory.holder(credentials, self._gateway().keys.anonymous_customer)
        access.check_valid(holder, self._clock.now_ms())
        return holder

    async def get_usage(self, request: Request) -> Response:
        """``?period=current_month | last_30_days`` or ``?start=YYYY-MM-DD&end=YYYY-MM-DD`` (``end`` inclusive, UTC)."""
        holder = await self.holder(request)
        now_ms = self._clock.now_ms()
        start_ms, end_ms = period_bounds(dict(request.query_params), now_ms)
        total = await self._usage.usage_total(
            start_ms, end_ms, key_id=holder.key.id or None, customer_id=holder.customer.id
        )
        days = await self._usage.usage_by_day(
            start_ms, end_ms, key_id=holder.key.id or None, customer_id=holder.customer.id
        )
        plan = self._gateway().plans.get(holder.customer.plan_id)
        limits, rates = await self._limits(holder, plan, now_ms) if plan is not None else ([], {})
        return json_answer(
            {
                **total_json(total),
                "period_start": day_of(start_ms),
                "period_end": day_of(end_ms - 1),
                "plan": holder.customer.plan_id,
                "rate_limit_remaining": {"per_minute": rates.get("per_minute"), "per_day": rates.get("per_day")},
                "limits": [limit_json(limit) for limit in limits],
                "days": [{"day": day.day, **total_json(day.total)} for day in days],
            }
        )

    async def get_models(self, request: Request) -> Response:
        """The models that routes declare, as far as the key may use route and model (OpenAI's list shape)."""
        holder = await self.holder(request)
        routes = holder.key.routes
        found: dict[str, str] = {}
        for route in self._gateway().router.routes:
            if routes is None or route.name in routes:
                for model in route.models:
                    if access.model_allowed(holder, model):
                        found.setdefault(model, route.upstream)
        rows = [{"id": model, "object": "model", "created": 0, "owned_by": owner} for model, owner in found.items()]
        return json_answer({"object": "list", "data": rows})

    async def get_request(self, request: Request) -> Response:
        """One call of this customer, with its charge."""
        holder = await self.holder(request)
        check_storable(request.path_params.values())
        record = await self._usage.record(request.path_params["call_id"], customer_id=holder.customer.id)
        if record is None:
            raise Refusal(Code.NOT_FOUND, "There is no such request (it appears once the call has ended).")
        shown = record_json(record, operator=False)
        # What a budget in dollars has counted, its holder may know: it was told so when the call began.
        counted = [line for entry in await self._usage.entries(record.call_id) for line in entry.counted]
        if record.cost_nano is not None and any(line.key.dimension == DOLLARS for line in counted):
            shown["cost"] = dollars_text(record.cost_nano)
        return json_answer(shown)

    async def get_budget(self, request: Request) -> Response:
        """What the key may still spend: each limit that its calls meet, and of each dimension the least that is left.
        ``?route=&model=`` adds the limits of those; X-User-Id and X-Agent-Id count where the key may assert them."""
        holder = await self.holder(request)
        check_storable(request.query_params.values())
        credentials = read_credentials(request.scope["headers"], request.scope["query_string"])
        user_id, agent_id = access.subjects(holder, credentials)
        gateway, now_ms = self._gateway(), self._clock.now_ms()
        plan = gateway.plans.get(holder.customer.plan_id)
        if plan is None:
            return json_answer({"remaining": {}, "limits": [], "rates": []})
        subject = Subject(
            customer_id=holder.customer.id,
            plan_id=plan.id,
            route=request.query_params.get("route", ""),
            anchor_ms=holder.customer.anchor_ms,
            key_id=holder.key.id or None,
            user_id=user_id,
            agent_id=agent_id,
            model=request.query_params.get("model"),
        )
        stock = stock_lines(plan, subject, _NOTHING, now_ms, gateway.limits, gateway.resets)
        rates = rate_lines(plan, subject, _NOTHING, gateway.rates)
        counters = await self._ledger.counters([line.key for line in stock])
        buckets = await self._ledger.buckets([(line.key, line.cap) for line in rates])
        return json_answer(budget_json(stock, counters, rates, buckets))

    async def _limits(self, holder: Holder, plan: Plan, now_ms: int) -> tuple[list[LimitState], dict[str, str | None]]:
        subject = Subject(
            customer_id=holder.customer.id,
            plan_id=plan.id,
            route="",
            anchor_ms=holder.customer.anchor_ms,
            key_id=holder.key.id or None,
            user_id=holder.key.user_id,
            agent_id=holder.key.agent_id,
        )
        gateway = self._gateway()
        lines = stock_lines(plan, subject, _NOTHING, now_ms, gateway.limits, gateway.resets)
        states = await self._ledger.counters([line.key for line in lines])
        limits = [
            LimitState(
                line.limit,
                line.key.scope,
                line.key.dimension,
                line.key.window,
                line.cap,
                row.used,
                row.held,
                line.ends_ms,
            )
            for line, row in seen(lines, (CounterRow(state.used, state.held) for state in states))
        ]
        rates = rate_lines(plan, subject, _NOTHING, gateway.rates)
        buckets = await self._ledger.buckets([(line.key, line.cap) for line in rates])
        left = {
            _per(line.key.per_ms): amount_text(line.key.dimension, max(0, line.cap - bucket.spent))
            for line, bucket in reversed(list(zip(rates, buckets, strict=True)))
        }
        return limits, {name: text for name, text in left.items() if name}


def budget_json(
    stock: Sequence[StockLine],
    counters: Sequence[CounterState],
    rates: Sequence[RateLine],
    buckets: Sequence[BucketState],
) -> dict[str, Any]:
    """What is left, compactly: ``remaining`` names only dimensions that a limit blocks."""
    least: dict[str, int] = {}
    limits = []
    for line, row in seen(stock, (CounterRow(state.used, state.held) for state in counters)):
        key, left = line.key, None if line.cap is None else max(0, line.cap - row.used - row.held)
        if left is not None and line.mode is Mode.BLOCK:
            least[key.dimension] = min(left, least.get(key.dimension, left))
        limits.append(
            {
                "name": line.limit,
                "scope": key.scope,
                "dimension": key.dimension,
                "window": key.window,
                "mode": line.mode,
                "remaining": None if left is None else amount_text(key.dimension, left),
                "resets_ms": line.ends_ms,
            }
        )
    return {
        "remaining": {dimension: amount_text(dimension, left) for dimension, left in least.items()},
        "limits": limits,
        "rates": [
            {
                "name": line.limit,
                "scope": line.key.scope,
                "dimension": line.key.dimension,
                "per_ms": line.key.per_ms,
                "remaining": amount_text(line.key.dimension, max(0, line.cap - state.spent)),
            }
            for line, state in zip(rates, buckets, strict=True)
        ],
    }


def _per(per_ms: int) -> str:
    return {60_000: "per_minute", DAY_MS: "per_day"}.get(per_ms, "")


def period_bounds(query: dict[str, str], now_ms: int) -> tuple[int, int]:
    """[start, end) in epoch milliseconds. Raises Refusal that names what is wrong."""
    today = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).date()
    if "start" in query or "end" in query:
        if "period" in query:
            raise Refusal(Code.BAD_REQUEST, "Give either period= or start= and end=, not both.")
        first = _date(query, "start", today.replace(day=1))
        last = _date(query, "end", today)
        if last < first:
            raise Refusal(Code.BAD_REQUEST, f"end ({last}) lies before start ({first}).")
        if (last - first).days >= PERIOD_DAYS_MAX:
            raise Refusal(Code.BAD_REQUEST, f"A period has at most {PERIOD_DAYS_MAX} days.")
    else:
        period = query.get("period", "current_month")
        if period == "current_month":
            first, last = today.replace(day=1), today
        elif period == "last_30_days":
            first, last = today - dt.timedelta(days=29), today
        else:
            raise Refusal(Code.BAD_REQUEST, f"period must be current_month or last_30_days, not {period[:40]!r}.")
    return _ms(first), _ms(last + dt.timedelta(days=1))


def _date(query: dict[str, str], name: str, default: dt.date) -> dt.date:
    try:
        date = dt.date.fromisoformat(query[name]) if name in query else default
    except ValueError as error:
        raise Refusal(Code.BAD_REQUEST, f"{name} must be a day, YYYY-MM-DD.") from error
    if not 1970 <= date.year < 9999:
        raise Refusal(Code.BAD_REQUEST, f"{name} must lie between 1970 and 9998.")
    return date


def _ms(day: dt.date) -> int:
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp()) * 1000


def day_of(ms: int) -> str:
    """The UTC day of an instant."""
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).date().isoformat()


def number(micro: int) -> int | float:
    """Units as a JSON number: an integer where whole."""
    return micro // ONE_REQUEST if micro % ONE_REQUEST == 0 else micro / ONE_REQUEST


def total_json(total: UsageTotal) -> dict[str, Any]:
    """Sums for machines; money as an exact decimal string in dollars."""
    return {
        "tokens_used": number(total.units_micro),
        "requests": total.requests,
        "charge": dollars_text(total.charge_nano),
        "last_request_ms": total.last_request_ms,
    }


def attempt_json(attempt: Attempt) -> dict[str, Any]:
    """A try that did not serve its call."""
    return {
        "number": attempt.number,
        "upstream": attempt.upstream,
        "model": attempt.model,
        "started_ms": attempt.started_ms,
        "ended_ms": attempt.ended_ms,
        "status": attempt.status,
        "fault": attempt.fault,
    }


def without_cost(seen: Any) -> Any:
    """A usage record without what the provider said that it takes; anything else as it is."""
    if isinstance(seen, Mapping) and "cost" in seen:
        return {name: value for name, value in seen.items() if name != "cost"}
    return seen


def record_json(record: UsageRecord, *, operator: bool, attempts: Sequence[Attempt] | None = None) -> dict[str, Any]:
    """One record for machines: exact amounts as decimal strings. What the provider takes is for the operator only, and
    so are the tries that did not serve, where they were looked up."""
    costs: dict[str, Any] = {}
    if operator:
        costs["cost"] = None if record.cost_nano is None else dollars_text(record.cost_nano)
    usage, evidence = record.usage, record.evidence
    if not operator:
        usage = without_cost(usage)
        evidence = {name: without_cost(value) for name, value in evidence.items() if name not in ("$price", "$cost")}
    return {
        **costs,
        **({} if attempts is None or not operator else {"attempts": [attempt_json(each) for each in attempts]}),
        "id": record.call_id,
        "customer_id": record.customer_id,
        "key_id": record.key_id,
        "user_id": record.user_id,
        "agent_id": record.agent_id,
        "plan": record.plan_id,
        "route": record.route,
        "upstream": record.upstream,
        "model": record.model,
        "model_requested": record.model_requested,
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "outcome": record.outcome,
        "streamed": record.streamed,
        "started_ms": record.started_ms,
        "ended_ms": record.ended_ms,
        "first_byte_ms": record.first_byte_ms,
        "units": units_text(record.units_micro),
        "source": record.source,
        "note": record.note,
        "charge": dollars_text(record.charge_nano),
        "overrun": units_text(record.overrun_micro),
        "usage": usage,
        "meters": dict(record.meters),
        "evidence": evidence,
        "meter_hash": record.meter_hash,
        "request_bytes": record.request_bytes,
        "response_bytes": record.response_bytes,
        "response_id": record.response_id,
    }
