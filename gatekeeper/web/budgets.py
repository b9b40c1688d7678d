"""The operator's API for limits: ``/admin/budgets``, listed with their state, changed and reset while the gateway runs.

The rule: what is shown is what holds. Amounts are decimal texts in the limit's own unit, null is unlimited; every
limit has an ETag, and a change that names an old one with If-Match is refused.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.config.amounts import DOLLARS_MAX, UNLIMITED
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import amount_text, dollars_to_nano, units_to_micro
from gatekeeper.overlays import Change, Limits, Wish, read_scope, whole_shape, window_of
from gatekeeper.ports import CounterState, Store
from gatekeeper.rules.declared import EACH, DeclaredLimit, DeclaredRate, is_one
from gatekeeper.rules.limits import (
    DOLLARS,
    BucketKey,
    CounterKey,
    Release,
    Scope,
    Scoped,
    StockLimit,
    Window,
    is_owned,
)
from gatekeeper.rules.lines import count_start_ms, latch_of
from gatekeeper.rules.overlays import Standing, holding_for
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import limit_of, only, take
from gatekeeper.web.gate import note
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.spending import BUDGETS

TOP = 5
TOP_MAX = 100
_FIGURE = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?")
_UNITS_MAX = 10**12
_FIELDS = ("scope", "subject", "dimension", "window", "per_ms", "cap", "mode", "zone", "name", "release")


@dataclass(frozen=True, slots=True)
class Budgets:
    """Endpoints; each raises Refusal."""

    limits: Limits
    store: Store
    clock: Clock
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The table of URLs, for ``web.app``."""
        return routes_of(BUDGETS, self, self.guard)

    async def list_budgets(self, request: Request) -> Response:
        """``?scope=&subject=&after=ID&limit=N``. With a subject: what holds for it, with its state."""
        await self.limits.refresh()
        scope, subject = request.query_params.get("scope"), request.query_params.get("subject")
        found = await found_limits(self.limits, None if scope is None else read_scope(scope), subject)
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
        """``{"scope", "subject"?, "dimension", "window" | "per_ms", "cap", "mode"?, "zone"?, "name"?, "release"?}``.
        With an Idempotency-Key, the same body again is answered like the first."""
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
            release=take(body, "release", str),
        )
        made = await self.limits.create(wish, again="idempotency-key" in request.headers)
        note(request, subject=made.id, after=budget_json(made))
        return await self._answer(made, None, 201)

    async def get_budget(self, request: Request) -> Response:
        """One limit; ``?subject=`` for the state of one, ``?limit=N`` for how many of the largest."""
        await self.limits.refresh()
        found = self.limits.find(request.path_params["budget_id"])
        return await self._answer(found, request.query_params.get("subject"), top=min(TOP_MAX, limit_of(request)))

    async def change_budget(self, request: Request) -> Response:
        """``{"cap"?, "mode"?, "zone"?, "name"?, "release"?}``; If-Match names the state that is meant."""
        body = only(await json_body(request), "cap", "mode", "zone", "name", "release")
        name = request.path_params["budget_id"]
        before = self.limits.find(name)
        dimension = before.declared.limit.dimension
        change = Change(
            new_cap="cap" in body,
            cap=parse_cap(dimension, body["cap"]) if "cap" in body else None,
            mode=take(body, "mode", str),
            zone=take(body, "zone", str),
            name=take(body, "name", str),
            release=take(body, "release", str),
        )
        after = await self.limits.change(name, change, tag=_if_match(request))
        note(request, before=budget_json(before), after=budget_json(after))
        return await self._answer(after, None)

    async def remove_budget(self, request: Request) -> Response:
        """Take an operator's limit away; the answer is what holds in its place."""
        left = await self.limits.remove(request.path_params["budget_id"], tag=_if_match(request))
        note(request, after=None if left is None else budget_json(left))
        return json_answer(
            {"removed": request.path_params["budget_id"], "holds": None if left is None else budget_json(left)}
        )

    async def reset_budget(self, request: Request) -> Response:
        """``{"subject"?, "reason"?}``: begin the count anew. What was used stays on record."""
        body = only(await json_body(request), "subject", "reason")
        subject, name = take(body, "subject", str), request.path_params["budget_id"]
        key = await self.limits.reset(name, subject, take(body, "reason", str) or "")
        note(request, of=key.subject, reason=take(body, "reason", str) or "")
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


async def found_limits(limits: Limits, scope: Scoped | None, subject: str | None) -> list[Standing]:
    """The limits of a scope; with a subject those that its calls meet. Raises Refusal."""
    found = [each for each in limits.standing() if scope in (None, each.scope)]
    if subject is None:
        return found
    if scope is None:
        raise Refusal(Code.BAD_REQUEST, "subject needs a scope beside it.")
    if not is_one(scope, subject):
        raise Refusal(Code.BAD_REQUEST, f"A {scope} is named as {whole_shape(scope)}.")
    customer = await limits.customer_of(scope, subject)
    if customer is None and is_owned(scope):
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
    latches = [await _latch_of(limits, each, key, now_ms) for each, key in zip(found, keys, strict=True)]
    stock = [key for key in keys if isinstance(key, CounterKey)] + [latch[0] for latch in latches if latch is not None]
    counters = {state.key: state for state in (await store.counters(stock) if stock else ())}
    rates = [
        (key, each.declared.limit.cap or 1)
        for key, each in zip(keys, found, strict=True)
        if isinstance(key, BucketKey) and each.declared.limit.cap
    ]
    buckets = {state.key: state for state in (await store.buckets(rates) if rates else ())}
    shown: list[dict[str, Any] | None] = []
    for each, key, ends_ms, latch in zip(found, keys, ends, latches, strict=True):
        limit = each.declared.limit
        if isinstance(key, CounterKey) and isinstance(limit, StockLimit):
            state = _state_json(limit, counters[key], ends_ms)
            if latch is not None:
                state["closed_until_ms"] = latch[1] if counters[latch[0]].used >= (limit.cap or 0) else None
            shown.append(state)
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
    elif not is_one(limit.scope, mine):
        if subject is None or not is_one(limit.scope, subject):
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


async def _latch_of(
    limits: Limits, found: Standing, key: CounterKey | BucketKey | None, now_ms: int
) -> tuple[CounterKey, int | None] | None:
    """The row that says whether a limit stays closed until the billing period turns, and when that is."""
    limit = found.declared.limit
    if not isinstance(limit, StockLimit) or limit.release is Release.WINDOW or not limit.cap or key is None:
        return None
    customer = await limits.customer_of(limit.scope, key.subject)
    return latch_of(limit, key.subject, customer.anchor_ms if customer else 0, now_ms, limits.resets)


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
        span = {"window": limit.window, "mode": limit.mode, "zone": limit.zone, "release": limit.release}
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
