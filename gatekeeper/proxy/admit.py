"""May this call go on? Key, scope, body, bounds, then ONE ledger call that holds or refuses.

The rule: rules decide, the ledger holds; nothing here reads a counter, compares and writes.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import orjson

from gatekeeper.config.gateway import Dialect, HoldKind, InjectUsage, Route, Unpriced
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.meters import RequestView
from gatekeeper.money import amount_text, units_to_micro
from gatekeeper.ports import Holder, HoldOrder, Ledger
from gatekeeper.proxy import access
from gatekeeper.proxy.call import Admitted, Call, Caller, CallerGone
from gatekeeper.proxy.costs import Costs
from gatekeeper.rules.limits import DOLLARS, Denied, Granted, Mode, Reason
from gatekeeper.rules.lines import Bounds, Charge, Subject, Take, counts_dollars, rate_lines, stock_lines, token_bounds
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.prices import TokenPrice, bound
from gatekeeper.rules.requests import TOKENS_MAX, Ask, other_case, read_ask, twin, with_output_bound
from gatekeeper.rules.routing import rewritten
from gatekeeper.rules.splicing import with_field
from gatekeeper.rules.windows import admitted_month

# No provider's model has a longer name; it is stored with every call.
_MODEL_LETTERS_MAX = 256
# What parsers skip before a JSON text; some also a byte order mark.
_BLANKS = b" \t\r\n\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class _Body:
    whole: bytes | None
    pieces: AsyncIterator[bytes] | None
    content_length: int | None
    parsed: Mapping[str, Any] | None


class Admission:
    """The door. One for the process; keeps nothing of a call."""

    def __init__(self, directory: access.Directory, ledger: Ledger, owner: str, costs: Costs) -> None:
        self._directory = directory
        self._ledger = ledger
        self._owner = owner
        self._costs = costs

    async def admit(self, call: Call, caller: Caller) -> Admitted:
        """Raises Refusal, or CallerGone; then nothing is held. Cancelled, nothing is held either."""
        try:
            return await self._admit(call, caller)
        except Fault as fault:
            raise Refusal(Code.LEDGER_UNAVAILABLE, private=str(fault)) from fault

    async def _admit(self, call: Call, caller: Caller) -> Admitted:
        holder = await self._who(call)
        plan = _plan(call, holder)
        user_id, agent_id = access.subjects(holder, call.credentials)
        body = await _read_body(call, caller)
        route = call.route
        # As the upstream gets it: what a client calls an URL says nothing of what answers there.
        path = rewritten(route.rewrite, route.pattern, call.path, call.names).decode("latin-1")
        size = len(body.whole) if body.whole is not None else body.content_length or 0
        ask = read_ask(call.route.dialect, path, call.names, body.parsed or {}, size if body.parsed is not None else 0)
        _check_model_name(ask.model, from_path="model" in call.names)
        access.check_model(holder, ask.model)
        metered = not call.route.free and call.method in call.route.meter_methods
        subject = Subject(
            customer_id=holder.customer.id,
            plan_id=plan.id,
            route=call.route.name,
            anchor_ms=holder.customer.anchor_ms,
            key_id=holder.key.id or None,
            user_id=user_id,
            agent_id=agent_id,
            model=ask.model,
        )
        price = self._costs.price(call, ask.model) if metered else None
        if metered and price is None:
            _check_priced(call, plan, subject)
        bounds = _bounds(call, holder, plan, ask, body, price) if metered else Bounds()
        if metered:
            _check_deciding_names(call, holder, plan, body)
            _check_background(ask)
        order = self._order(call, plan, subject, bounds, metered)
        if ask.elsewhere and route.input_tokens_max is None and _blocks(order):
            raise Refusal(
                Code.UNBOUNDED_INPUT,
                hint="send files and earlier turns in the request, or let the operator set input_tokens_max",
            )
        answer = await self._ledger.hold(order)
        if isinstance(answer, Denied):
            raise refusal_of(answer)
        if holder.key.id:
            self._directory.used(holder.key.id, call.started_ms)
        return _admitted(call, holder, plan, ask, body, order, answer, (user_id, agent_id), price, bounds)

    async def _who(self, call: Call) -> Holder:
        holder = await self._directory.holder(call.credentials, call.gateway.keys.anonymous_customer)
        access.check_valid(holder, call.started_ms)
        access.check_route(holder, call.route)
        return holder

    def _order(self, call: Call, plan: Plan, subject: Subject, bounds: Bounds, metered: bool) -> HoldOrder:
        return HoldOrder(
            call_id=call.id,
            admitted_month=admitted_month(call.started_ms),
            customer_id=subject.customer_id,
            key_id=subject.key_id,
            user_id=subject.user_id,
            agent_id=subject.agent_id,
            plan_id=plan.id,
            route=call.route.name,
            upstream=call.route.upstream,
            model=subject.model,
            owner=self._owner,
            now_ms=call.started_ms,
            expires_ms=call.started_ms + int(call.gateway.ledger.hold_ttl_s * 1000),
            output_tokens=bounds.output_tokens,
            output_tokens_min=bounds.output_tokens_min,
            stock=stock_lines(plan, subject, bounds, call.started_ms, call.gateway.limits) if metered else (),
            rates=rate_lines(plan, subject, bounds, call.gateway.rates) if metered else (),
        )


def _plan(call: Call, holder: Holder) -> Plan:
    plan = call.gateway.plans.get(holder.customer.plan_id)
    if plan is None:
        raise Refusal(
            Code.CUSTOMER_DISABLED,
            "This account's plan is not offered any more.",
            private=f"customer {holder.customer.id} has plan {holder.customer.plan_id!r}, which no file declares",
        )
    return plan


async def _read_body(call: Call, caller: Caller) -> _Body:
    """JSON is read whole (model and bounds stand in it), anything else streams through, bounded all the same."""
    bytes_max = call.route.request_bytes_max
    stated = call.header(b"content-length")
    length = int(stated) if stated is not None and stated.isdigit() else None
    chunked = call.header(b"transfer-encoding") is not None
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    if not length and not chunked:
        return _Body(b"", None, None, None)
    metered = not call.route.free and call.method in call.route.meter_methods
    arriving = _bounded(caller.body(), bytes_max)
    content_type = (call.header(b"content-type") or b"").decode("latin-1").lower()
    encoding = (call.header(b"content-encoding") or b"").strip().lower()
    if encoding not in (b"", b"identity") and metered:
        await arriving.aclose()
        raise Refusal(Code.BAD_REQUEST, "The request body is encoded, so it cannot be read.", hint="send it as it is")
    # What calls itself JSON, or text, or nothing at all, must be JSON.
    strict = "json" in content_type or not content_type or content_type.startswith("text/plain")
    if not strict:
        # Uploads go up as they come. But a server that does not look at the type reads JSON whatever it is called.
        first = await _begun(arriving)
        arriving = _again(first, arriving)
        strict = first.lstrip(_BLANKS).startswith(b"{")
        if not strict:
            return _Body(None, arriving, length, None)
    pieces: list[bytes] = []
    async with aclosing(arriving):
        async for piece in arriving:
            pieces.append(piece)
    whole = b"".join(pieces)
    if length is not None and len(whole) != length:
        raise CallerGone("the request body is shorter than its Content-Length")
    if not whole or not metered:
        return _Body(whole, None, None, _parse(whole, strict=False) if whole else None)
    return _Body(whole, None, None, _parse(whole, strict=strict))


async def _begun(arriving: AsyncGenerator[bytes, None]) -> bytes:
    """The body as far as its first byte that is no blank."""
    first = b""
    while not first.lstrip(_BLANKS) and (piece := await anext(arriving, b"")):
        first += piece
    return first


async def _again(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A body from its start, of which the first piece was looked at."""
    async with aclosing(rest):
        if first:
            yield first
        async for piece in rest:
            yield piece


async def _bounded(pieces: AsyncGenerator[bytes, None], bytes_max: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async with aclosing(pieces):
        async for piece in pieces:
            size += len(piece)
            if size > bytes_max:
                raise _too_large(bytes_max)
            yield piece


def _check_deciding_names(call: Call, holder: Holder, plan: Plan, body: _Body) -> None:
    """Twins, and names in another case, are read differently by different servers: where a scope or a limit depends on
    which one counts, the request must be plain."""
    parsed = body.parsed
    if parsed is None or body.whole is None:
        return
    name = other_case(parsed)
    if name is not None:
        raise Refusal(Code.BAD_REQUEST, f"The field {name[:40]!r} is not written in lower case.")
    quota = plan.quota
    guarded = holder.key.models is not None or call.gateway.limits or plan.limits
    if guarded or (quota is not None and quota.cap is not None and quota.mode is Mode.BLOCK):
        name = twin(body.whole)
        if name is not None:
            raise Refusal(Code.BAD_REQUEST, f"The field {name!r} stands twice.")


def _check_background(ask: Ask) -> None:
    """What is made after the call has ended is not seen by anybody who could bill it."""
    if ask.background:
        raise Refusal(Code.BAD_REQUEST, "Background answers are not offered here.", hint="send it without 'background'")


def _check_model_name(model: str | None, *, from_path: bool) -> None:
    if from_path and model is not None and "/" in model:
        raise Refusal(Code.BAD_REQUEST, "The model in the path holds an encoded slash.")
    if model is not None and (len(model) > _MODEL_LETTERS_MAX or not model.isprintable()):
        raise Refusal(Code.BAD_REQUEST, f"model must be a printable name of at most {_MODEL_LETTERS_MAX} letters.")


def _too_large(bytes_max: int) -> Refusal:
    return Refusal(Code.BODY_TOO_LARGE, f"The request body is larger than the {bytes_max} bytes that the route allows.")


def _parse(body: bytes, *, strict: bool) -> Mapping[str, Any] | None:
    """The JSON object; None for anything else, which is a Refusal where the body must be one."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not strict:
            return None
        raise Refusal(Code.BAD_REQUEST, f"The request body is not valid JSON: {error}.") from error
    if not isinstance(parsed, dict):
        if not strict:
            return None
        raise Refusal(Code.BAD_REQUEST, "The request body must be a JSON object.")
    return parsed


def request_view(
    call: Call,
    holder: Holder,
    ask: Ask,
    body: bytes | None,
    user_id: str | None,
    agent_id: str | None,
    request_bytes: int,
) -> RequestView:
    """What an expression may see of the request. Headers that can carry a key or a session are left out."""
    return RequestView(
        method=call.method,
        path=call.path.decode("latin-1"),
        query=call.credentials.query.decode("latin-1"),
        headers={
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in call.headers
            if name.lower() not in SECRET_HEADERS
        },
        body=body,
        request_bytes=request_bytes,
        model=ask.model,
        customer_id=holder.customer.id,
        user_id=user_id,
        agent_id=agent_id,
        plan_id=holder.customer.plan_id,
        key_id=holder.key.id or None,
        started_at_ms=call.started_ms,
    )


SECRET_HEADERS = frozenset(
    {
        b"authorization",
        b"proxy-authorization",
        b"x-api-key",
        b"x-goog-api-key",
        b"api-key",
        b"x-admin-key",
        b"cookie",
    }
)


def _check_priced(call: Call, plan: Plan, subject: Subject) -> None:
    """A model without a price must not run past a limit in dollars as if it cost nothing."""
    gateway = call.gateway
    if gateway.costs.unpriced is Unpriced.REFUSE and counts_dollars(plan, gateway.limits, gateway.rates, subject):
        raise Refusal(
            Code.UNPRICED_MODEL,
            hint="the operator can declare its price under [[prices]]",
            private=f"no price for model {subject.model!r} at upstream {call.route.upstream}",
        )


def _bounds(call: Call, holder: Holder, plan: Plan, ask: Ask, body: _Body, price: TokenPrice | None) -> Bounds:
    found = _unit_bounds(call, holder, plan, ask, body)
    if price is None:
        return found
    route = call.route
    # Dollars follow the tokens of the request itself, also where an estimate says something else of the units.
    input_bound = ask.input_bound(route.input_tokens_max) if body.parsed is not None else _upload_bound(route, body)
    dearest = bound(price, input_bound)
    rate_output = min(found.output_tokens, route.rate_output_estimate)
    usual = ask.input_usual * dearest.input_nano + rate_output * dearest.output_nano + dearest.request_nano
    return replace(
        found,
        dollars=Take(input_bound * dearest.input_nano + dearest.request_nano, dearest.output_nano),
        rate_dollars=Charge(usual, ask.input_least * dearest.input_nano),
    )


def _unit_bounds(call: Call, holder: Holder, plan: Plan, ask: Ask, body: _Body) -> Bounds:
    route = call.route
    if route.estimate is not None:
        size = len(body.whole) if body.whole is not None else body.content_length or 0
        reading = route.estimate.evaluate_request(request_view(call, holder, ask, body.whole, None, None, size))
        if reading.units is not None:
            micro = units_to_micro(reading.units)
            return Bounds(units=Take(micro, 0), rate_units=Charge(micro, 0))
    if body.parsed is None:
        # A body that is not JSON (an upload) has no bound in tokens but the route's own, or its bytes.
        output, fixed = route.output_tokens_max, _upload_bound(route, body)
        return token_bounds(fixed, fixed, 0, output, output, min(output, route.rate_output_estimate))
    wanted = 0
    if ask.makes_output:
        wanted = (
            ask.output_tokens
            if ask.output_tokens is not None
            else min(route.output_tokens_max * ask.choices, TOKENS_MAX)
        )
    # One token for each choice is the least that an upstream accepts.
    least = min(ask.choices, wanted)
    if extends(route, ask):
        # A stream begins with a slice and is extended while it runs; when that is refused it is cut.
        wanted = min(wanted, route.hold_slice_tokens)
        least = min(least, wanted)
    elif not (plan.clamp_output and ask.output_path is not None):
        least = wanted
    return token_bounds(
        ask.input_bound(route.input_tokens_max),
        ask.input_usual,
        ask.input_least,
        wanted,
        least,
        min(wanted, route.rate_output_estimate),
    )


def _upload_bound(route: Route, body: _Body) -> int:
    if route.input_tokens_max is not None:
        return route.input_tokens_max
    if body.whole is not None:
        return len(body.whole)
    return body.content_length if body.content_length is not None else route.request_bytes_max


def extends(route: Route, ask: Ask) -> bool:
    """Whether the hold of such a call grows with its output: a stream of tokens on a route that says so."""
    return ask.streamed and ask.makes_output and route.hold is HoldKind.INCREMENTAL and route.estimate is None


def _admitted(
    call: Call,
    holder: Holder,
    plan: Plan,
    ask: Ask,
    body: _Body,
    order: HoldOrder,
    granted: Granted,
    who: tuple[str | None, str | None],
    price: TokenPrice | None,
    bounds: Bounds,
) -> Admitted:
    content: bytes | AsyncIterator[bytes] = body.whole if body.whole is not None else body.pieces or b""
    request_bytes = len(body.whole) if body.whole is not None else body.content_length or 0
    clamped = None
    grows = body.parsed is not None and extends(call.route, ask)
    if not grows and isinstance(content, bytes) and _must_clamp(plan, ask, order, granted):
        clamped = granted.output_tokens
        content = with_output_bound(content, ask, clamped)
    plain = content if isinstance(content, bytes) else None
    inject = plain is not None and body.parsed is not None and _injects_usage(call, ask, body.parsed)
    if inject and plain is not None:
        content = with_field(plain, ("stream_options", "include_usage"), True)
    return Admitted(
        call=call,
        holder=holder,
        plan=plan,
        ask=ask,
        user_id=who[0],
        agent_id=who[1],
        body=content,
        content_length=body.content_length,
        request_bytes=request_bytes,
        admitted_month=order.admitted_month,
        granted=granted,
        injected_usage=inject,
        plain_body=plain if inject else None,
        clamped_output_tokens=clamped,
        input_estimate_tokens=ask.input_usual,
        price=price,
        cost_estimate_nano=None if price is None else bounds.rate_dollars.amount,
        extends=grows and _blocks(order),
    )


def _must_clamp(plan: Plan, ask: Ask, order: HoldOrder, granted: Granted) -> bool:
    """Whether the upstream must be told how much output was granted: less than was asked for, or nothing was asked for
    and a limit that blocks has counted on the route's own bound."""
    if granted.output_tokens < order.output_tokens:
        return True
    unbounded = ask.output_tokens is None and ask.output_path is not None and granted.output_tokens > 0
    return unbounded and plan.clamp_output and _blocks(order)


def _blocks(order: HoldOrder) -> bool:
    """Whether any limit can refuse more output."""
    return any(line.mode is Mode.BLOCK and line.cap is not None and line.per_output for line in order.stock)


def _injects_usage(call: Call, ask: Ask, parsed: Mapping[str, Any]) -> bool:
    route = call.route
    return (
        route.dialect is Dialect.OPENAI
        and route.inject_usage is InjectUsage.AUTO
        and ask.streamed
        and not ask.wants_usage
        and rewritten(route.rewrite, route.pattern, call.path, call.names).endswith(b"/completions")
        and ("messages" in parsed or "prompt" in parsed)
    )


_CODES = {
    Reason.USED: Code.QUOTA_EXCEEDED,
    Reason.HELD: Code.LIMIT_HELD,
    Reason.EXCEEDS_LIMIT: Code.EXCEEDS_LIMIT,
    Reason.RATE: Code.RATE_LIMITED,
    Reason.EXCEEDS_RATE: Code.EXCEEDS_RATE,
}


def refusal_of(denied: Denied) -> Refusal:
    """The Refusal that tells a caller why the ledger said no: which limit, what remains, when it resets."""
    limit, code = denied.limit, _CODES[denied.reason]
    if code is Code.QUOTA_EXCEEDED and limit.dimension == DOLLARS:
        code = Code.BUDGET_EXCEEDED

    def shown(amount: int) -> str:
        return amount_text(limit.dimension, amount)

    figures = f"limit {limit.name}: {shown(limit.cap or 0)} {limit.dimension} per {limit.window}"
    left = f"{shown(limit.used)} used, {shown(limit.held)} held, {shown(limit.remaining or 0)} remaining"
    missing = f"; {shown(denied.shortfall)} short" if denied.reason is Reason.EXCEEDS_LIMIT else ""
    hint = {
        Code.QUOTA_EXCEEDED: "a larger plan, or the next period, opens it again",
        Code.BUDGET_EXCEEDED: "a larger budget, or the next window, opens it again",
        Code.EXCEEDS_LIMIT: "ask for less output (max_tokens) or send a shorter input",
        Code.EXCEEDS_RATE: "send a shorter input",
    }.get(code)
    sentence = Refusal(code).public.rstrip(".")
    return Refusal(
        code,
        f"{sentence} ({figures}; {left}{missing}).",
        hint=hint,
        limit=limit,
        retry_after_s=denied.retry_after_s,
    )
