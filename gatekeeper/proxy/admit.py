"""May this call go on? Key, scope, body, bounds, then ONE ledger call that holds or refuses.

The rule: rules decide, the ledger holds; nothing here reads a counter, compares and writes.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from gatekeeper.config.gateway import Dialect, InjectUsage, Route
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.ports import Holder, HoldOrder, Ledger
from gatekeeper.proxy import access
from gatekeeper.proxy.bodies import Body, read_body
from gatekeeper.proxy.bounds import extends, open_units_micro
from gatekeeper.proxy.call import Admitted, Call, Caller, Candidate, Rereadable
from gatekeeper.proxy.candidates import Asked, candidates, content, is_priced
from gatekeeper.proxy.choosing import Chooser
from gatekeeper.proxy.costs import Costs
from gatekeeper.proxy.counting import Count, counted
from gatekeeper.proxy.denials import refusal_of, soft_refusal
from gatekeeper.proxy.exhausted import Exhausted
from gatekeeper.proxy.newcomers import Newcomers
from gatekeeper.proxy.outage import NOTE, Outage, Trial
from gatekeeper.proxy.pieces import Pieces
from gatekeeper.proxy.soft import SoftCaps
from gatekeeper.rules.downgrade import cheaper
from gatekeeper.rules.limits import DOLLARS, CounterKey, Denied, Granted, Mode, RateLine, Reason, StockLine, names_model
from gatekeeper.rules.lines import Bounds, Subject, dearest, rate_lines, stock_lines
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.requests import Ask, other_case, read_ask, twin
from gatekeeper.rules.routing import Match, rewritten
from gatekeeper.rules.windows import admitted_month

# No provider's model has a longer name; it is stored with every call.
_MODEL_LETTERS_MAX = 256


class Admission:
    """The door. One for the process; keeps nothing of a call."""

    def __init__(
        self,
        directory: access.Directory,
        ledger: Ledger,
        owner: str,
        costs: Costs,
        *,
        soft: SoftCaps | None = None,
        outage: Outage,
        newcomers: Newcomers,
        exhausted: Exhausted | None = None,
        count: Count | None = None,
    ) -> None:
        self._count = count
        self._exhausted = exhausted
        self._newcomers = newcomers
        self._soft = soft
        self._outage = outage
        self._directory = directory
        self._ledger = ledger
        self._owner = owner
        self._costs = costs
        self._chooser = Chooser(directory, outage)

    async def choose(self, call: Call, caller: Rereadable, candidates: Sequence[Match[Route]]) -> Call:
        """The call on the one of several routes that takes it. Raises Refusal, or CallerGone."""
        return await self._chooser.choose(call, caller, candidates)

    async def admit(self, call: Call, caller: Caller) -> Admitted:
        """Raises Refusal, or CallerGone; then nothing is held. Cancelled, nothing is held either."""
        try:
            return await self._admit(call, caller)
        except Fault as fault:
            raise Refusal(Code.LEDGER_UNAVAILABLE, private=str(fault)) from fault

    async def _admit(self, call: Call, caller: Caller) -> Admitted:
        trial = self._outage.trial(call.gateway.ledger)
        mark = self._directory.mark(call.credentials, call.gateway.keys.anonymous_customer)
        holder = await self._who(call, trial, mark)
        plan = _plan(call, holder)
        user_id, agent_id = access.subjects(holder, call.credentials)
        body = await read_body(call, caller)
        # A body may trickle in for minutes, in which a key is revoked or its customer moved.
        if self._directory.fresh(mark) is not holder:
            holder = await self._who(call, trial, mark)
            plan = _plan(call, holder)
            user_id, agent_id = access.subjects(holder, call.credentials)
        route = call.route
        # As the upstream gets it: what a client calls an URL says nothing of what answers there.
        path = rewritten(route.rewrite, route.pattern, call.path, call.names).decode("latin-1")
        size = len(body.whole) if body.whole is not None else body.content_length or 0
        ask = read_ask(call.route.dialect, path, call.names, body.parsed or {}, size if body.parsed is not None else 0)
        _check_model_name(ask.model, from_path="model" in call.names)
        access.check_model(holder, ask.model)
        metered = not call.route.free and call.method in call.route.meter_methods
        if metered:
            _check_deciding_names(call, holder, plan, body)
            _check_background(ask)
            if self._count is not None and body.parsed is not None and call.gateway.costs.tokenizer:
                ask = counted(ask, body.parsed, self._count)
        if holder.key.may_assert and (user_id or agent_id):
            self._newcomers.check(_who(holder), user_id, agent_id, call.gateway.keys.new_subjects_per_hour)
        asked = Asked(call, holder, plan, user_id, agent_id, body, path, ask, metered)
        models, note = await self._models(asked, trial)
        found, order, granted, open_micro = await self._hold(asked, models, trial)
        if holder.key.id:
            self._directory.used(holder.key.id, call.started_ms)
        soft = self._soft_keys(order)
        if soft and self._soft is not None:
            self._soft.held(order, granted)
        admitted = _admitted(asked, found, order, granted, soft, note)
        if open_micro is None:
            return admitted
        # Nobody extends what is not held.
        return replace(admitted, open_micro=open_micro, extends=False, note=f"{note}; {NOTE}" if note else NOTE)

    def settled(self, admitted: Admitted, units_micro: int) -> None:
        """A call that was admitted is over, and took so many units."""
        if admitted.open_micro is not None:
            self._outage.settled(_who(admitted.holder), admitted.open_micro, units_micro)

    async def _models(self, asked: Asked, trial: Trial) -> tuple[tuple[str | None, ...], str | None]:
        """As which models the call may be served, the first choice first, and why it is not the one that was asked for:
        a soft limit may ask for a cheaper one. Raises Refusal where the caller wants none."""
        ask, chains = asked.ask, asked.call.route.downgrade + asked.plan.downgrade
        instead = cheaper(chains, ask.model) if chains and asked.metered else ()
        usable = [model for model in instead if access.model_allowed(asked.holder, model)]
        usable = [model for model in usable if is_priced(asked, model, self._costs)]
        if not usable or self._soft is None:
            return (ask.model,), None
        order = self._order(asked, candidates(asked, ask.model, self._costs)[:1])
        lines = [line for line in order.stock if line.soft_at is not None]
        soft = self._soft
        limit = await trial.ask(lambda: soft.asking(lines, order.output_tokens)) if lines else None
        if limit is None:
            return (ask.model,), None
        if asked.call.header(b"x-gatekeeper-no-downgrade") not in (None, b"", b"0", b"false"):
            raise soft_refusal(limit, usable[0], asked.call.started_ms)
        return tuple(usable), f"soft limit {limit.name}: a cheaper model than {ask.model}"

    async def _hold(
        self, asked: Asked, models: tuple[str | None, ...], trial: Trial
    ) -> tuple[tuple[Candidate, ...], HoldOrder, Granted, int | None]:
        """Hold for whoever may serve the call, else for the first alone, else for the next cheaper model. Raises
        Refusal with the last denial. The last part of the answer is None where it is held; else the ledger is away,
        and it is what the call counts of its key's allowance."""
        denied: Denied | None = None
        for model in models:
            found = candidates(asked, model, self._costs)
            tried: HoldOrder | None = None
            for some in (found, found[:1]):
                order = self._order(asked, some)
                if order == tried:
                    continue
                tried = order
                _check_elsewhere(asked, order)
                known = self._used_up(asked, order)
                answer = known or await trial.hold(partial(self._ledger.hold, order), order)
                if answer is None:
                    micro = open_units_micro(asked.call.route, [each.bounds for each in some], asked.ask)
                    return some, order, trial.take(_who(asked.holder), order, micro), micro
                if isinstance(answer, Granted):
                    return some, order, answer, None
                denied = answer
                if self._exhausted is not None and known is None:
                    self._exhausted.saw(order, asked.call.gateway, answer)
                if not _may_be_smaller(answer):
                    raise refusal_of(answer)
        assert denied is not None
        raise refusal_of(denied)

    def _used_up(self, asked: Asked, order: HoldOrder) -> Denied | None:
        return None if self._exhausted is None else self._exhausted.no(order, asked.call.gateway)

    def _soft_keys(self, order: HoldOrder) -> tuple[CounterKey, ...]:
        return tuple([line.key for line in order.stock if line.soft_at is not None])

    async def _who(self, call: Call, trial: Trial, mark: str) -> Holder:
        holder = self._directory.fresh(mark)
        if holder is None:
            holder = await trial.holder(self._directory, call)
        access.check_valid(holder, call.started_ms)
        access.check_route(holder, call.route)
        return holder

    def _order(self, asked: Asked, found: Sequence[Candidate]) -> HoldOrder:
        """What is held so that any of these candidates can be paid for. Models have limits of their own: the call
        stands on those of all, and is counted on those of the one that serves."""
        call, plan = asked.call, asked.plan
        bounds = dearest([each.bounds for each in found])
        first = asked.subject(found[0].ask.model)
        stock, rates = self._lines(asked, first, bounds)
        for model in {each.ask.model for each in found[1:]} - {first.model}:
            more, more_rates = self._lines(asked, asked.subject(model), bounds)
            stock += tuple([line for line in more if names_model(line.key.scope)])
            rates += tuple([line for line in more_rates if names_model(line.key.scope)])
        return HoldOrder(
            call_id=call.id,
            admitted_month=admitted_month(call.started_ms),
            customer_id=first.customer_id,
            key_id=first.key_id,
            user_id=first.user_id,
            agent_id=first.agent_id,
            plan_id=plan.id,
            route=call.route.name,
            upstream=found[0].upstream,
            model=first.model,
            owner=self._owner,
            now_ms=call.started_ms,
            expires_ms=call.started_ms + int(call.gateway.ledger.hold_ttl_s * 1000),
            output_tokens=bounds.output_tokens,
            output_tokens_min=bounds.output_tokens_min,
            stock=stock,
            rates=rates,
        )

    def _lines(
        self, asked: Asked, subject: Subject, bounds: Bounds
    ) -> tuple[tuple[StockLine, ...], tuple[RateLine, ...]]:
        if not asked.metered:
            return (), ()
        gateway, now_ms = asked.call.gateway, asked.call.started_ms
        stock = stock_lines(asked.plan, subject, bounds, now_ms, gateway.limits, gateway.resets)
        return stock, rate_lines(asked.plan, subject, bounds, gateway.rates)


def _who(holder: Holder) -> str:
    """Whose allowance it is."""
    return holder.key.id or holder.customer.id


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
    if guarded or (quota is not None and quota.cap is not None and quota.mode in (Mode.BLOCK, Mode.SOFT)):
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


def _check_elsewhere(asked: Asked, order: HoldOrder) -> None:
    if asked.ask.elsewhere and asked.call.route.input_tokens_max is None and _blocks(order):
        raise Refusal(
            Code.UNBOUNDED_INPUT,
            hint="send files and earlier turns in the request, or let the operator set input_tokens_max",
        )


def _may_be_smaller(denied: Denied) -> bool:
    """Whether the call might fit with fewer who may serve it, or as a cheaper model."""
    return denied.reason in (Reason.HELD, Reason.EXCEEDS_LIMIT) or names_model(denied.limit.scope)


def _admitted(
    asked: Asked,
    found: Sequence[Candidate],
    order: HoldOrder,
    granted: Granted,
    soft: tuple[CounterKey, ...],
    note: str | None,
) -> Admitted:
    call, plan, body, first = asked.call, asked.plan, asked.body, found[0]
    ask, whole = first.ask, body.whole
    grows = body.parsed is not None and extends(call.route, ask)
    clamped = None
    if not grows and whole is not None and _must_clamp(plan, ask, order, granted):
        clamped = granted.output_tokens
    inject = whole is not None and body.parsed is not None and _injects_usage(call, ask, body.parsed)
    sent: bytes | AsyncIterator[bytes] = b""
    plain = None
    if whole is not None:
        sent, plain = content(whole, asked.ask.model, first, clamped, inject=inject)
    elif body.pieces is not None:
        sent = Pieces(body.pieces) if found[1:] else body.pieces
    return Admitted(
        call=call,
        candidate=first,
        holder=asked.holder,
        plan=plan,
        ask=ask,
        user_id=asked.user_id,
        agent_id=asked.agent_id,
        body=sent,
        content_length=body.content_length,
        request_bytes=len(whole) if whole is not None else body.content_length or 0,
        admitted_month=order.admitted_month,
        granted=granted,
        injected_usage=inject,
        plain_body=plain,
        clamped_output_tokens=clamped,
        input_estimate_tokens=ask.input_usual,
        price=first.price,
        cost_estimate_nano=first.estimate_nano,
        extends=grows and _blocks(order),
        units_fixed_micro=max([each.bounds.units.fixed for each in found]),
        grows_dollars=_blocks(order, DOLLARS),
        others=tuple(found[1:]),
        original=whole if found[1:] else None,
        asked_model=asked.ask.model,
        stock=order.stock,
        rates=order.rates,
        soft=soft,
        note=note,
    )


def _must_clamp(plan: Plan, ask: Ask, order: HoldOrder, granted: Granted) -> bool:
    """Whether the upstream must be told how much output was granted: less than was asked for, or nothing was asked for
    and a limit that blocks has counted on the route's own bound."""
    if granted.output_tokens < order.output_tokens:
        return True
    unbounded = ask.output_tokens is None and ask.output_path is not None and granted.output_tokens > 0
    return unbounded and plan.clamp_output and _blocks(order)


def _blocks(order: HoldOrder, dimension: str | None = None) -> bool:
    """Whether any limit (in one dimension) can refuse more output."""
    for line in order.stock:
        blocks = line.mode is Mode.BLOCK and line.cap is not None and line.per_output
        if blocks and (dimension is None or dimension == line.key.dimension):
            return True
    return False


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
