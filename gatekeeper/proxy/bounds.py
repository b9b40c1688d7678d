"""What one call may take at most, from its ask, its route and its plan: the figures that it holds."""

from collections.abc import Sequence
from dataclasses import replace

from gatekeeper.config.gateway import HoldKind, Route
from gatekeeper.money import MICRO_PER_UNIT, units_to_micro
from gatekeeper.ports import Holder
from gatekeeper.proxy.bodies import Body
from gatekeeper.proxy.call import Admitted, Call
from gatekeeper.proxy.views import request_view
from gatekeeper.rules.limits import DOLLARS, ONE_REQUEST, REQUESTS, UNITS
from gatekeeper.rules.lines import Bounds, Charge, Take, token_bounds
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.prices import TokenPrice, bound
from gatekeeper.rules.requests import TOKENS_MAX, Ask

# Named meters of which a bound is known: whether they count input and output.
_TOKEN_METERS = {"usage().input": (1, 0), "usage().output": (0, 1), "usage().total": (1, 1)}


def call_bounds(call: Call, holder: Holder, plan: Plan, ask: Ask, body: Body, price: TokenPrice | None) -> Bounds:
    """What the call may take of each dimension, and what its rates are charged at admission."""
    route = call.route
    found = _unit_bounds(call, holder, plan, ask, body)
    if route.meters and body.parsed is not None:
        found = replace(found, meters=_meter_bounds(route, ask, found.output_tokens))
    if price is None:
        return found
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


def _unit_bounds(call: Call, holder: Holder, plan: Plan, ask: Ask, body: Body) -> Bounds:
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
    wanted = _most_output(route, ask)
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


def _most_output(route: Route, ask: Ask) -> int:
    if not ask.makes_output:
        return 0
    if ask.output_tokens is not None:
        return ask.output_tokens
    return min(route.output_tokens_max * ask.choices, TOKENS_MAX)


def open_units_micro(route: Route, bounds: Sequence[Bounds], ask: Ask) -> int:
    """The units that a call may take in all, by the dearest of these bounds: nobody extends what is not held."""
    tokens = max(max(each.output_tokens for each in bounds), _most_output(route, ask))
    return max(each.units.fixed + each.units.per_output * tokens for each in bounds)


def opening_takes(admitted: Admitted, units_micro: int, cost_nano: int) -> dict[str, int]:
    """What a call that was let through without a hold counts if nobody is left to settle it: one request, its usual
    units and cost, and of each named meter its bound, as far as that is no more than the units. One of which nothing is
    known counts one, as it would have held."""
    if not admitted.stock:
        return {}
    takes = {UNITS: units_micro, REQUESTS: ONE_REQUEST, DOLLARS: cost_nano}
    bounds, output = admitted.candidate.bounds, admitted.granted.output_tokens
    known = {name for name, _ in bounds.meters}
    for line in admitted.stock:
        dimension = line.key.dimension
        if dimension.startswith(f"{UNITS}:"):
            take = bounds.take(dimension)
            most = take.fixed + take.per_output * output
            takes[dimension] = min(most, units_micro) if dimension in known else most
    return takes


def _meter_bounds(route: Route, ask: Ask, output_tokens: int) -> tuple[tuple[str, Take], ...]:
    """What a call may take of the named meters that plainly count its tokens; of others nothing is known."""
    most = _most_output(route, ask)
    found = []
    for name, meter in route.meters.items():
        parts = _TOKEN_METERS.get("".join(meter.text.split()))
        if parts is None:
            continue
        tokens_in = ask.input_bound(route.input_tokens_max) if parts[0] else 0
        # Where an estimate holds the units, no output is granted for the meter to follow: then all of it is held.
        per_output = parts[1] if output_tokens or not most else 0
        fixed = tokens_in + (most if parts[1] and not per_output else 0)
        found.append((f"{UNITS}:{name}", Take(fixed * MICRO_PER_UNIT, per_output * MICRO_PER_UNIT)))
    return tuple(found)


def _upload_bound(route: Route, body: Body) -> int:
    if route.input_tokens_max is not None:
        return route.input_tokens_max
    if body.whole is not None:
        return len(body.whole)
    return body.content_length if body.content_length is not None else route.request_bytes_max


def extends(route: Route, ask: Ask) -> bool:
    """Whether the hold of such a call grows with its output: a stream of tokens on a route that says so."""
    return ask.streamed and ask.makes_output and route.hold is HoldKind.INCREMENTAL and route.estimate is None
