"""Who may serve a call: its route's upstream, then those it falls back on; and the request as each of them gets it.

The rule: whoever may serve is one that the key may use and that could be charged for. One that cannot is left out; only
the first one's lack is told to the caller.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from urllib.parse import quote

from gatekeeper.config.gateway import Unpriced
from gatekeeper.errors import Code, Refusal
from gatekeeper.frozen import record
from gatekeeper.ports import Holder
from gatekeeper.proxy import access
from gatekeeper.proxy.bodies import Body
from gatekeeper.proxy.bounds import call_bounds
from gatekeeper.proxy.call import Admitted, Call, Candidate
from gatekeeper.proxy.costs import Costs
from gatekeeper.rules.lines import Bounds, Subject, counts_dollars
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.requests import Ask, as_model, with_output_bound
from gatekeeper.rules.routing import with_name
from gatekeeper.rules.splicing import with_field

# The name of a model in a template's path: /v1beta/models/{model}:generateContent.
MODEL = "model"


@record(frozen=True, slots=True)
class Asked:
    """A request whose key and body were looked at. ``path`` is as the upstream gets it."""

    call: Call
    holder: Holder
    plan: Plan
    user_id: str | None
    agent_id: str | None
    body: Body
    path: str
    ask: Ask
    metered: bool

    def subject(self, model: str | None) -> Subject:
        """Whose limits the call meets when this model serves."""
        return Subject(
            customer_id=self.holder.customer.id,
            plan_id=self.plan.id,
            route=self.call.route.name,
            anchor_ms=self.holder.customer.anchor_ms,
            key_id=self.holder.key.id or None,
            user_id=self.user_id,
            agent_id=self.agent_id,
            model=model,
        )


def candidates(asked: Asked, model: str | None, costs: Costs) -> tuple[Candidate, ...]:
    """All that may serve the call as ``model``, in order. Raises Refusal where the first one's model has no price and a
    limit in dollars applies."""
    route = asked.call.route
    first = _candidate(asked, route.upstream, model, costs)
    if asked.metered and first.price is None and _must_be_priced(asked, model):
        raise Refusal(
            Code.UNPRICED_MODEL,
            hint="the operator can declare its price under [[prices]]",
            private=f"no price for model {model!r} at upstream {route.upstream}",
        )
    found = [first]
    for each in route.fallback:
        # Where the request names no model there is none to replace; in an upload it may stand where nobody looks.
        other = model if each.model is None or model is None else each.model
        if asked.body.whole is None and each.model is not None:
            continue
        known = any((each.upstream, other) == (one.upstream, one.ask.model) for one in found)
        if known or not access.model_allowed(asked.holder, other):
            continue
        one = _candidate(asked, each.upstream, other, costs)
        if not asked.metered or one.price is not None or not _must_be_priced(asked, other):
            found.append(one)
    return tuple(found)


def is_priced(asked: Asked, model: str, costs: Costs) -> bool:
    """Whether a model can serve at the route's upstream as far as its price goes."""
    return costs.price(asked.call, model) is not None or not _must_be_priced(asked, model)


def _must_be_priced(asked: Asked, model: str | None) -> bool:
    """A model without a price must not run past a limit in dollars as if it cost nothing."""
    gateway = asked.call.gateway
    refuses = gateway.costs.unpriced is Unpriced.REFUSE
    return refuses and counts_dollars(asked.plan, gateway.limits, gateway.rates, asked.subject(model))


def _candidate(asked: Asked, upstream: str, model: str | None, costs: Costs) -> Candidate:
    call, ask = asked.call, asked.ask
    path, names = call.path, call.names
    if model is not None and model != ask.model:
        ask = as_model(ask, model, call.route.dialect, asked.path, asked.body.parsed or {})
        if MODEL in names:
            path, names = _in_path(call, model)
    price = costs.price(call, model, upstream) if asked.metered else None
    bounds = call_bounds(call, asked.holder, asked.plan, ask, asked.body, price) if asked.metered else Bounds()
    return Candidate(upstream, ask, price, bounds, path, names)


def _in_path(call: Call, model: str) -> tuple[bytes, Mapping[str, str]]:
    written = quote(model, safe="._:@-+,=~!$&'()*;")
    return with_name(call.route.pattern, call.path, MODEL, written), {**call.names, MODEL: written}


def content(
    body: bytes, asked_model: str | None, candidate: Candidate, clamped: int | None, *, inject: bool
) -> tuple[bytes, bytes | None]:
    """The body for one candidate, and the same without our injection where there is one. Every byte that need not
    change stays."""
    model = candidate.ask.model
    if model is not None and model != asked_model and MODEL not in candidate.names:
        body = with_field(body, (MODEL,), model)
    if clamped is not None:
        body = with_output_bound(body, candidate.ask, clamped)
    return (with_field(body, ("stream_options", "include_usage"), True), body) if inject else (body, None)


def served_by(admitted: Admitted, candidate: Candidate) -> Admitted:
    """The same call, sent to another candidate."""
    body: bytes | AsyncIterator[bytes] = admitted.body
    plain = admitted.plain_body
    if admitted.original is not None:
        clamped, inject = admitted.clamped_output_tokens, admitted.injected_usage
        body, plain = content(admitted.original, admitted.asked_model, candidate, clamped, inject=inject)
    return replace(
        admitted,
        candidate=candidate,
        ask=candidate.ask,
        price=candidate.price,
        cost_estimate_nano=candidate.estimate_nano,
        body=body,
        plain_body=plain,
    )
