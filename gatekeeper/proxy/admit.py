"""May this call go on? Key, scope, body, bounds, then ONE ledger call that holds or refuses.

The rule: rules decide, the ledger holds; nothing here reads a counter, compares and writes.
"""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from gatekeeper.config.gateway import Dialect, InjectUsage, Unpriced
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.ports import Holder, HoldOrder, Ledger
from gatekeeper.proxy import access
from gatekeeper.proxy.bodies import Body, read_body
from gatekeeper.proxy.bounds import call_bounds, extends
from gatekeeper.proxy.call import Admitted, Call, Caller
from gatekeeper.proxy.costs import Costs
from gatekeeper.proxy.denials import refusal_of
from gatekeeper.rules.limits import Denied, Granted, Mode
from gatekeeper.rules.lines import Bounds, Subject, counts_dollars, rate_lines, stock_lines
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.prices import TokenPrice
from gatekeeper.rules.requests import Ask, other_case, read_ask, twin, with_output_bound
from gatekeeper.rules.routing import rewritten
from gatekeeper.rules.splicing import with_field
from gatekeeper.rules.windows import admitted_month

# No provider's model has a longer name; it is stored with every call.
_MODEL_LETTERS_MAX = 256


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
        body = await read_body(call, caller)
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
        bounds = call_bounds(call, holder, plan, ask, body, price) if metered else Bounds()
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


def _check_deciding_names(call: Call, holder: Holder, plan: Plan, body: Body) -> None:
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


def _check_priced(call: Call, plan: Plan, subject: Subject) -> None:
    """A model without a price must not run past a limit in dollars as if it cost nothing."""
    gateway = call.gateway
    if gateway.costs.unpriced is Unpriced.REFUSE and counts_dollars(plan, gateway.limits, gateway.rates, subject):
        raise Refusal(
            Code.UNPRICED_MODEL,
            hint="the operator can declare its price under [[prices]]",
            private=f"no price for model {subject.model!r} at upstream {call.route.upstream}",
        )


def _admitted(
    call: Call,
    holder: Holder,
    plan: Plan,
    ask: Ask,
    body: Body,
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
