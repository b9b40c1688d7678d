"""The operator's API for limits: ``/admin/budgets``, listed with their state, changed and reset while the gateway runs.

The rule: what is shown is what holds. Amounts are decimal texts in the limit's own unit, null is unlimited; every
limit has an ETag, and a change that names an old one with If-Match is refused.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gatekeeper.clock import Clock
from gatekeeper.config.amounts import DOLLARS_MAX, UNLIMITED
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import amount_text, dollars_to_nano, units_to_micro
from gatekeeper.overlays import Change, Limits, Wish, window_of
from gatekeeper.ports import CounterState, Store
from gatekeeper.rules.declared import EACH, UNDER_CUSTOMER, DeclaredLimit, DeclaredRate
from gatekeeper.rules.limits import DOLLARS, BucketKey, CounterKey, Scope, StockLimit, Window
from gatekeeper.rules.lines import count_start_ms
from gatekeeper.rules.overlays import Standing, holding_for
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.web.admin import Endpoint, limit_of, only, take
from gatekeeper.web.answers import json_answer, json_body

TOP = 5
TOP_MAX = 100
_FIGURE = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?")
_UNITS_MAX = 10**12
_FIELDS = ("scope", "subject", "dimension", "window", "per_ms", "cap", "mode", "zone", "name")


@dataclass(frozen=True, slots=True)
class Budgets:
    """Endpoints; each raises Refusal."""

    limits: Limits
    store: Store
    clock: Clock
    guard: Callable[[Endpoint], Endpoint]

    def routes(self) -> list[BaseRoute]:
        """The table of URLs, for ``web.app``."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/admin/budgets", self.list_budgets),
            ("POST", "/admin/budgets", self.create_budget),
            ("GET", "/admin/budgets/{budget_id}", self.get_budget),
            ("PATCH", "/admin/budgets/{budget_id}", self.change_budget),
            ("DELETE", "/admin/budgets/{budget_id}", self.remove_budget),
            ("POST", "/admin/budgets/{budget_id}/reset", self.reset_budget),
        ]
        return [Route(path, self.guard(endpoint), methods=[method]) for method, path, endpoint in table]

    async def list_budgets(self, request: Request) -> Response:
        """``?scope=&subject=&after=ID&limit=N``. With a subject: what holds for it, with its state."""
        await self.limits.refresh()
        scope, subject = request.query_params.get("scope"), request.query_params.get("subject")
        found = await found_limits(self.limits, None if scope is None else _scope(scope), subject)
        after, most = request.query_params.get("after"), limit_of(request)
        if after is not None:
            places = [number for number, each in enumerate(found) if each.id == after]
            if not places:
                raise Refusal(Code.BAD_REQUEST, f"after names no limit of this list: {after[:40]!r}.")
            found = found[places[-1] + 1 :]
        # A limit that only warns has the id of the one that blocks beside it: no page parts them.
        while most < len(found) and found[most].id == found[most - 1].id:
            most += 1
        page = found[:most]
        states = await limit_states(self.limits, self.store, page, self.clock.now_ms(), subject)
        rows = [
            budget_json(each) | {"state": state, "top": await self._top(each, TOP) if subject is None else None}
            for each, state in zip(page, states, strict=True)
        ]
        return json_answer({"budgets": rows, "next": page[-1].id if len(found) > len(page) else None})

    async def create_budget(self, request: Request) -> Response:
        """``{"scope", "subject"?, "dimension", "window" | "per_ms", "cap", "mode"?, "zone"?, "name"?}``. With an
        Idempotency-Key, the same body again is answered like the first."""
        body = only(await json_body(request), *_FIELDS)
        dimension = _need(body, "dimension")
        if "cap" not in body:
            raise Refusal(Code.BAD_REQUEST, f'cap is missing; "{UNLIMITED}" is the word for none.')
        wish = Wish(
            scope=_need(body, "scope"),
            dimension=dimension,
            cap=parse_cap(dimension, body["cap"]),
            subject=take(body, "subject", str) or EACH,
            window=take(body, "window", str),
            per_ms=take(body, "per_ms", int),
            mode=take(body, "mode", str),
            zone=take(body, "zone", str),
            name=take(body, "name", str),
        )
        made = await self.limits.create(wish, again="idempotency-key" in request.headers)
        return await self._answer(made, None, 201)

    async def get_budget(self, request: Request) -> Response:
        """One limit; ``?subject=`` for the state of one, ``?limit=N`` for how many of the largest."""
        await self.limits.refresh()
        found = self.limits.find(request.path_params["budget_id"])
        return await self._answer(found, request.query_params.get("subject"), top=min(TOP_MAX, limit_of(request)))

    async def change_budget(self, request: Request) -> Response:
        """``{"cap"?, "mode"?, "zone"?, "name"?}``; If-Match names the state that is meant."""
        body = only(await json_body(request), "cap", "mode", "zone", "name")
        name = request.path_params["budget_id"]
        dimension = self.limits.find(name).declared.limit.dimension
        change = Change(
            new_cap="cap" in body,
            cap=parse_cap(dimension, body["cap"]) if "cap" in body else None,
            mode=take(body, "mode", str),
            zone=take(body, "zone", str),
            name=take(body, "name", str),
        )
        return await self._answer(await self.limits.change(name, change, tag=_if_match(request)), None)

    async def remove_budget(self, request: Request) -> Response:
        """Take an operator's limit away; the answer is what holds in its place."""
        left = await self.limits.remove(request.path_params["budget_id"], tag=_if_match(request))
        return json_answer(
            {"removed": request.path_params["budget_id"], "holds": None if left is None else budget_json(left)}
        )

    async def reset_budget(self, request: Request) -> Response:
        """``{"subject"?, "reason"?}``: begin the count anew. What was used stays on record."""
        body = only(await json_body(request), "subject", "reason")
        subject, name = take(body, "subject", str), request.path_params["budget_id"]
        key = await self.limits.reset(name, subject, take(body, "reason", str) or "")
        found = self.limits.find(name)
        (state,) = await limit_states(self.limits, self.store, [found], self.clock.now_ms(), subject)
        return json_answer(budget_json(found) | {"reset_ms": key.start_ms, "state": state})

    async def _answer(self, found: Standing, subject: str | None, status: int = 200, top: int = TOP) -> Response:
        (state,) = await limit_states(self.limits, self.store, [found], self.clock.now_ms(), subject)
        largest = await self._top(found, top) if subject is None else None
        shown = budget_json(found) | {"state": state, "top": largest}
        return json_answer(shown, status, {"etag": f'"{found.tag}"'})

    async def _top(self, found: Standing, most: int) -> list[dict[str, Any]] | None:
        """Who used most of a limit that counts each subject by itself, where their counts are one kind."""
        limit = found.declared.limit
        if (
            not isinstance(limit, StockLimit)
            or found.plan_id
            or found.declared.subject != EACH
            or limit.scope is Scope.GLOBAL
        ):
            return None
        now_ms = self.clock.now_ms()
        window = window_of(limit, None, now_ms)
        # Billing periods begin when each customer's does, at most a month ago.
        since_ms = now_ms - 32 * DAY_MS if window is None else window[0]
        rows = await self.store.top_counters(limit.scope, limit.dimension, limit.window, since_ms, now_ms, limit=most)
        return [
            _state_json(limit, row, window_now[1])
            for row in rows
            if (window_now := window or await self._window(limit, row.key.subject, now_ms)) is not None
            and row.key.start_ms >= window_now[0]
        ]

    async def _window(self, limit: StockLimit, subject: str, now_ms: int) -> tuple[int, int | None] | None:
        return window_of(limit, await self.limits.customer_of(limit.scope, subject), now_ms)


async def found_limits(limits: Limits, scope: Scope | None, subject: str | None) -> list[Standing]:
    """The limits of a scope; with a subject those that its calls meet. Raises Refusal."""
    found = [each for each in limits.standing() if scope in (None, each.scope)]
    if subject is None:
        return found
    if scope is None:
        raise Refusal(Code.BAD_REQUEST, "subject needs a scope beside it.")
    if scope in UNDER_CUSTOMER and "/" not in subject:
        raise Refusal(Code.BAD_REQUEST, f"A {scope} is named as customer/{scope}.")
    customer = await limits.customer_of(scope, subject)
    if customer is None and (scope in UNDER_CUSTOMER or scope in (Scope.CUSTOMER, Scope.KEY)):
        raise Refusal(Code.NOT_FOUND, f"There is no {scope} {subject[:64]!r}.")
    return holding_for(found, subject, None if customer is None else customer.plan_id)


async def limit_states(
    limits: Limits, store: Store, found: Sequence[Standing], now_ms: int, subject: str | None
) -> list[dict[str, Any] | None]:
    """How each limit stands for ``subject`` (else for the one subject that it names); None where there is no one."""
    keys: list[CounterKey | BucketKey | None] = []
    ends: list[int | None] = []
    for each in found:
        key, ends_ms = await _row_of(limits, each, now_ms, subject)
        keys.append(key)
        ends.append(ends_ms)
    stock = [key for key in keys if isinstance(key, CounterKey)]
    counters = {state.key: state for state in (await store.counters(stock) if stock else ())}
    rates = [
        (key, each.declared.limit.cap or 1)
        for key, each in zip(keys, found, strict=True)
        if isinstance(key, BucketKey) and each.declared.limit.cap
    ]
    buckets = {state.key: state for state in (await store.buckets(rates) if rates else ())}
    shown: list[dict[str, Any] | None] = []
    for each, key, ends_ms in zip(found, keys, ends, strict=True):
        limit = each.declared.limit
        if isinstance(key, CounterKey) and isinstance(limit, StockLimit):
            shown.append(_state_json(limit, counters[key], ends_ms))
        elif isinstance(key, BucketKey):
            spent, cap = buckets[key].spent, each.cap
            shown.append(
                {
                    "subject": key.subject,
                    "spent": amount_text(key.dimension, spent),
                    "remaining": None if cap is None else amount_text(key.dimension, max(0, cap - spent)),
                }
            )
        else:
            shown.append(None)
    return shown


async def _row_of(
    limits: Limits, found: Standing, now_ms: int, subject: str | None
) -> tuple[CounterKey | BucketKey | None, int | None]:
    """The row on which a limit counts somebody, and when that row's window turns."""
    limit, mine = found.declared.limit, found.declared.subject
    if limit.scope is Scope.GLOBAL:
        mine = "*"
    elif mine == EACH or (limit.scope in UNDER_CUSTOMER and "/" not in mine):
        if subject is None or (limit.scope in UNDER_CUSTOMER and "/" not in subject):
            return None, None
        mine = subject
    if not isinstance(limit, StockLimit):
        return BucketKey(limit.scope, mine, limit.dimension, limit.per_ms), None
    customer = await limits.customer_of(limit.scope, mine) if limit.window is Window.BILLING_PERIOD else None
    window = window_of(limit, customer, now_ms)
    if window is None:
        return None, None
    start_ms = count_start_ms(limit, mine, window[0], now_ms, limits.resets)
    return CounterKey(limit.scope, mine, limit.dimension, limit.window, start_ms), window[1]


def _state_json(limit: StockLimit, state: CounterState, ends_ms: int | None) -> dict[str, Any]:
    cap, dimension = limit.cap, limit.dimension
    left = None if cap is None else amount_text(dimension, max(0, cap - state.used - state.held))
    return {
        "subject": state.key.subject,
        "used": amount_text(dimension, state.used),
        "held": amount_text(dimension, state.held),
        "remaining": left,
        "starts_ms": state.key.start_ms,
        "resets_ms": ends_ms,
    }


def budget_json(found: Standing) -> dict[str, Any]:
    """A limit for machines, without its state."""
    limit, overlay = found.declared.limit, found.overlay
    span: dict[str, Any]
    if isinstance(limit, StockLimit):
        span = {"window": limit.window, "mode": limit.mode, "zone": limit.zone}
    else:
        span = {"per_ms": limit.per_ms, "mode": "block"}
    return {
        "id": found.id,
        "family": found.family,
        "name": limit.name,
        "scope": limit.scope,
        "subject": found.declared.subject,
        "dimension": limit.dimension,
        **span,
        "cap": _cap_text(limit.dimension, found.cap),
        "from": found.declared.origin,
        "plan": found.plan_id,
        "declared": None if found.beaten is None else _declared_json(found.beaten),
        "version": 0 if overlay is None else overlay.version,
        "created_ms": None if overlay is None else overlay.created_ms,
        "updated_ms": None if overlay is None else overlay.updated_ms,
    }


def _declared_json(beaten: DeclaredLimit | DeclaredRate) -> dict[str, Any]:
    """What comes back when an operator's limit is taken away."""
    limit = beaten.limit
    cap = None if isinstance(beaten, DeclaredRate) and beaten.exempt else limit.cap
    mode = limit.mode if isinstance(limit, StockLimit) else "block"
    return {"cap": _cap_text(limit.dimension, cap), "mode": mode, "from": beaten.origin}


def _cap_text(dimension: str, cap: int | None) -> str | None:
    return None if cap is None else amount_text(dimension, cap)


def parse_cap(dimension: str, written: Any) -> int | None:
    """A cap as it is written: ``"5.00"`` or a whole number, ``"unlimited"`` or null. Raises Refusal."""
    if written is None or written == UNLIMITED:
        return None
    # A JSON number with a point is no decimal any more when it is read: 0.1 is 0.1000000000000000055.
    text = str(written) if isinstance(written, int | str) and not isinstance(written, bool) else ""
    most = DOLLARS_MAX if dimension == DOLLARS else _UNITS_MAX
    if not _FIGURE.fullmatch(text) or Decimal(text) > most:
        raise Refusal(
            Code.BAD_REQUEST,
            f"cap is an amount of {dimension[:40]} as a text in plain digits, at most {most}.",
            hint=f'as in "5.00", or "{UNLIMITED}"',
        )
    return dollars_to_nano(Decimal(text)) if dimension == DOLLARS else units_to_micro(Decimal(text))


def _scope(text: str) -> Scope:
    try:
        return Scope(text)
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, f"scope is one of {', '.join(Scope)}.") from cause


def _need(body: dict[str, Any], field: str) -> str:
    value = take(body, field, str)
    if not value:
        raise Refusal(Code.BAD_REQUEST, f"{field} is missing.")
    return value


def _if_match(request: Request) -> str | None:
    """The one state that is meant (RFC 9110, If-Match); None: any."""
    written = request.headers.get("if-match")
    if written is None or written.strip() == "*":
        return None
    found = re.fullmatch(r'\s*"([^",]{0,64})"\s*', written)
    if found is None:
        raise Refusal(Code.BAD_REQUEST, 'If-Match names one ETag, as in "18f-3".')
    return found[1]
