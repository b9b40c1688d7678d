"""What is spent: ``/admin/spend`` (totals, rate, history) and ``/admin/spikes`` for operators, ``/v1/spend`` for a key.

The rule: reports only, each bounded in time and rows. Money is a decimal text in dollars. The margin is what use is
charged with less what providers take; monthly prices are not in it.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import dollars_text, dollars_to_nano, plain, units_text, units_to_micro
from gatekeeper.ports import Holder, Spending
from gatekeeper.rules.declared import UNDER_CUSTOMER
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import Amount, SpendBy, Spent
from gatekeeper.rules.spikes import (
    BASELINE_HOURS,
    BASELINE_HOURS_MAX,
    FACTOR,
    MINIMUM_MICRO,
    MINIMUM_NANO,
    Spike,
    spikes,
)
from gatekeeper.rules.windows import HOUR_MS
from gatekeeper.web.answers import check_storable, json_answer
from gatekeeper.web.asked import limit_of, number_of
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.spending import OWN_SPEND, SPEND
from gatekeeper.web.usage import day_of, period_bounds

_FIGURE = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")
K = TypeVar("K", bound=StrEnum)
_PERIOD = ("period", "start", "end")


@dataclass(frozen=True, slots=True)
class Spend:
    """Endpoints; each raises Refusal."""

    spending: Spending
    clock: Clock
    guard: Guard
    holder: Callable[[Request], Awaitable[Holder]]

    def routes(self) -> list[BaseRoute]:
        """The table of URLs, for ``web.app``."""
        return routes_of((*OWN_SPEND, *SPEND), self, self.guard)

    async def get_own_spend(self, request: Request) -> Response:
        """What the key that asks has spent (the customer, where calls need no key): as ``/admin/spend``, without what
        providers take."""
        holder = await self.holder(request)
        query = dict(request.query_params)
        check_storable(query.values())
        by, most, now_ms = read_group(query.get("group_by", SpendBy.DAY)), limit_of(request), self.clock.now_ms()
        start_ms, end_ms = period_bounds({name: query[name] for name in _PERIOD if name in query}, now_ms)
        who = (Scope.KEY, holder.key.id) if holder.key.id else (Scope.CUSTOMER, holder.customer.id)
        report = await spend_report(self.spending, *who, by, start_ms, end_ms, now_ms, most, operator=False)
        return json_answer(report)

    async def get_spend(self, request: Request) -> Response:
        """``?scope=&subject=``, ``?period=`` or ``?start=&end=`` (as ``/v1/usage``), ``?group_by=&limit=``."""
        query = dict(request.query_params)
        scope, subject = read_scope(query)
        by, most = read_group(query.get("group_by", SpendBy.DAY)), limit_of(request)
        now_ms = self.clock.now_ms()
        start_ms, end_ms = period_bounds({name: query[name] for name in _PERIOD if name in query}, now_ms)
        report = await spend_report(self.spending, scope, subject, by, start_ms, end_ms, now_ms, most)
        return json_answer({"scope": scope, "subject": subject or None, **report})

    async def get_spikes(self, request: Request) -> Response:
        """``?scope=`` (whose pace is looked at), ``?measure=cost|charge|units``, ``?minimum=&factor=&hours=&limit=``,
        and ``?customer=`` for what lives under one."""
        query = dict(request.query_params)
        by, amount = _one_of(Scope, query, "scope", Scope.CUSTOMER), _one_of(Amount, query, "measure", Amount.COST)
        usual = MINIMUM_MICRO if amount is Amount.UNITS else MINIMUM_NANO
        minimum, factor, hours = _minimum(query, amount, usual), _factor(query), _hours(query)
        customer = query.get("customer")
        within = (Scope.GLOBAL, "") if customer is None else (Scope.CUSTOMER, customer)
        now_ms = self.clock.now_ms()
        recent_ms = now_ms - HOUR_MS
        paces = await self.spending.paces(
            by,
            amount,
            *within,
            recent_ms - hours * HOUR_MS,
            recent_ms,
            now_ms,
            least=max(1, minimum),
            limit=limit_of(request),
        )
        found = spikes(paces, now_ms, minimum=minimum, factor=factor, hours=hours)
        return json_answer(
            {
                "scope": by,
                "measure": amount,
                "minimum": _text(amount, minimum),
                "factor": plain(factor),
                "hours": hours,
                "until_ms": now_ms,
                "spikes": [_spike_json(each, amount) for each in found],
            }
        )


async def spend_report(
    spending: Spending,
    scope: Scope,
    subject: str,
    by: SpendBy,
    start_ms: int,
    end_ms: int,
    now_ms: int,
    most: int,
    *,
    operator: bool = True,
) -> dict[str, Any]:
    """Totals, rate and history of a period. What providers take is for the operator only."""
    total = await spending.spend_total(scope, subject, start_ms, end_ms)
    hour = await spending.spend_total(scope, subject, now_ms - HOUR_MS, now_ms)
    rows = await spending.spend_by(by, scope, subject, start_ms, end_ms, limit=most)
    mean = total.per_hour(min(now_ms, end_ms) - start_ms)
    return {
        "period_start": day_of(start_ms),
        "period_end": day_of(end_ms - 1),
        "total": spent_json(total, operator),
        "rate": {"last_hour": spent_json(hour, operator), "mean_per_hour": spent_json(mean, operator)},
        "group_by": by,
        "rows": [{by.value: _part(by, row.part), **spent_json(row, operator)} for row in rows],
    }


def spent_json(spent: Spent, operator: bool = True) -> dict[str, Any]:
    """Sums for machines."""
    costs = {
        "cost": dollars_text(spent.cost_nano),
        "margin": dollars_text(spent.margin_nano),
        "unpriced_requests": spent.unpriced,
    }
    return {
        "requests": spent.requests,
        "units": units_text(spent.units_micro),
        "charge": dollars_text(spent.charge_nano),
        **(costs if operator else {}),
    }


def read_scope(query: dict[str, str]) -> tuple[Scope, str]:
    """``?scope=&subject=``; all calls where neither stands. Raises Refusal."""
    scope = _one_of(Scope, query, "scope", Scope.GLOBAL)
    subject = query.get("subject", "")
    if scope is Scope.GLOBAL and subject not in ("", "*"):
        raise Refusal(Code.BAD_REQUEST, "The scope global has no subjects: scope= says whose subject it is.")
    if scope is not Scope.GLOBAL and not subject:
        raise Refusal(Code.BAD_REQUEST, f"subject= must say which {scope}; group_by={scope} shows all of them.")
    if scope in UNDER_CUSTOMER and "/" not in subject:
        raise Refusal(Code.BAD_REQUEST, f"A {scope} is named as customer/{scope}.")
    return scope, "" if scope is Scope.GLOBAL else subject


def read_group(text: str) -> SpendBy:
    """``?group_by=``. Raises Refusal."""
    return _one_of(SpendBy, {"group_by": text}, "group_by", SpendBy.DAY)


def _part(by: SpendBy, part: str | None) -> str | int | None:
    return int(part) if by is SpendBy.HOUR and part is not None else part


def _spike_json(spike: Spike, amount: Amount) -> dict[str, Any]:
    return {
        "subject": spike.subject,
        "last_hour": _text(amount, spike.recent),
        "usual_per_hour": _text(amount, spike.usual),
        "hours": spike.hours,
        "times": None if spike.times is None else plain(spike.times),
    }


def _text(amount: Amount, stored: int) -> str:
    return units_text(stored) if amount is Amount.UNITS else dollars_text(stored)


def _minimum(query: dict[str, str], amount: Amount, usual: int) -> int:
    written = query.get("minimum")
    if written is None:
        return usual
    if not _FIGURE.fullmatch(written):
        raise Refusal(Code.BAD_REQUEST, "minimum is an amount in plain digits, as in 2.50.")
    return (units_to_micro if amount is Amount.UNITS else dollars_to_nano)(Decimal(written))


def _factor(query: dict[str, str]) -> Decimal:
    written = query.get("factor", str(FACTOR))
    if not _FIGURE.fullmatch(written) or not 1 <= Decimal(written) <= 1_000_000:
        raise Refusal(Code.BAD_REQUEST, "factor is a number from 1 to 1000000.")
    return Decimal(written)


def _hours(query: dict[str, str]) -> int:
    hours = number_of(query.get("hours", str(BASELINE_HOURS)))
    if hours is None or not 1 <= hours <= BASELINE_HOURS_MAX:
        raise Refusal(Code.BAD_REQUEST, f"hours is a number from 1 to {BASELINE_HOURS_MAX}.")
    return hours


def _one_of(kind: type[K], query: dict[str, str], field: str, usual: K) -> K:
    try:
        return kind(query.get(field, usual))
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, f"{field} is one of {', '.join(kind)}.") from cause
