"""From what an agent says to what is held, and from what it reports to what is recorded. Pure figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from gatekeeper.meters import Mark, Metering, Outcome, Reading, RequestView, compile_meter
from gatekeeper.money import MICRO_PER_UNIT, dollars_to_nano, plain, units_to_micro
from gatekeeper.ports import Customer, Progress, UsageRecord
from gatekeeper.proxy.observe import COST, MAIN, RECORD
from gatekeeper.rules.limits import DOLLARS, ONE_REQUEST, REQUESTS, UNITS
from gatekeeper.rules.lines import Bounds, Charge, Take, token_bounds
from gatekeeper.rules.prices import TokenPrice, bound, cost_nano
from gatekeeper.rules.requests import TOKENS_MAX
from gatekeeper.rules.windows import admitted_month

if TYPE_CHECKING:
    from gatekeeper.firewall.asking import Asked

_RECORD_METER = compile_meter("usage()")


@dataclass(frozen=True, slots=True)
class Wish:
    """What is asked for: at most so many tokens. Raises ValueError when no figure, or both forms, are given."""

    agent_id: str | None
    user_id: str | None
    model: str | None
    tokens: int | None
    input_tokens: int | None
    output_tokens: int | None

    def __post_init__(self) -> None:
        apart = (self.input_tokens, self.output_tokens)
        if (self.tokens is None) == (apart == (None, None)):
            raise ValueError("say how many tokens the call takes at most: tokens=, or input_tokens= and output_tokens=")
        for name, value in (("tokens", self.tokens), ("input_tokens", apart[0]), ("output_tokens", apart[1])):
            _check_count(name, value)

    @property
    def total(self) -> int:
        """All tokens."""
        return self.tokens if self.tokens is not None else (self.input_tokens or 0) + (self.output_tokens or 0)

    @property
    def counts(self) -> dict[str, int]:
        """As a record in the shape of ``usage()``."""
        return counts(self.tokens, self.input_tokens, self.output_tokens)


@dataclass(frozen=True, slots=True)
class Reported:
    """What a call is said to have used. ``usage`` has the shape of ``usage()``."""

    tokens: int | None = None
    units: Decimal | None = None
    usage: Mapping[str, Any] | None = None
    mark: Mark = Mark.MEASURED
    note: str | None = None
    meters: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    meter_hash: str = ""
    response_bytes: int = 0
    response_id: str | None = None
    # What the route's ``cost`` reads in the answer; None where there is no such expression or no answer.
    stated_cost: Reading | None = None

    def progress(self, call_id: str) -> Progress:
        """What would be charged if this were the last sign of life."""
        seen = self.tokens or 0
        return Progress(call_id, seen * MICRO_PER_UNIT, seen > 0)


def bounds_of(wish: Wish, price: TokenPrice | None) -> Bounds:
    """What the call may take. Where only a total is known every token may be of the dearest kind."""
    total, sure = wish.total, wish.input_tokens or 0
    found = token_bounds(total, total, sure, 0, 0, 0)
    if price is None:
        return found
    dearest = bound(price, total)
    if wish.tokens is not None:
        dollars = total * max(dearest.input_nano, dearest.output_nano)
    else:
        dollars = sure * dearest.input_nano + (wish.output_tokens or 0) * dearest.output_nano
    dollars += dearest.request_nano
    return Bounds(
        units=found.units,
        rate_units=found.rate_units,
        dollars=Take(dollars, 0),
        rate_dollars=Charge(dollars, sure * dearest.input_nano),
    )


def counts(tokens: int | None, input_tokens: int | None, output_tokens: int | None) -> dict[str, int]:
    """Figures as a record in the shape of ``usage()``."""
    if input_tokens is None and output_tokens is None:
        return {} if tokens is None else {"total": tokens}
    known = {"input": input_tokens or 0, "output": output_tokens or 0}
    return {**known, "total": sum(known.values())}


def reported(
    asked: "Asked",
    tokens: int | None,
    input_tokens: int | None,
    output_tokens: int | None,
    response: bytes | str | Mapping[str, Any] | None,
    content_type: str,
) -> Reported:
    """What was used, from whichever form it was told in. Raises ValueError for more than one, and for no number."""
    figures = counts(tokens, input_tokens, output_tokens)
    for name, value in (("tokens", tokens), ("input_tokens", input_tokens), ("output_tokens", output_tokens)):
        _check_count(name, value)
    if (tokens is not None and len(figures) > 1) or (figures and response is not None):
        raise ValueError("say what was used in one form: tokens=, input_tokens= and output_tokens=, or response=")
    if figures:
        return Reported(units=Decimal(figures["total"]), usage=figures, note="reported")
    if response is not None:
        return _measured(asked, response, content_type)
    return _estimated(asked, None)


def _estimated(asked: "Asked", note: str | None) -> Reported:
    wish = asked.wish
    told = "unmeasured: as asked for" if note is None else f"{note}; unmeasured: as asked for"
    return Reported(units=Decimal(wish.total), usage=wish.counts, mark=Mark.ESTIMATED, note=told)


def _measured(asked: "Asked", response: bytes | str | Mapping[str, Any], content_type: str) -> Reported:
    if isinstance(response, str):
        response = response.encode("utf-8", "surrogatepass")
    body = response if isinstance(response, bytes) else orjson.dumps(response)
    route = asked.route
    meters = {MAIN: route.meter, RECORD: _RECORD_METER, **route.meters}
    if route.cost is not None:
        meters[COST] = route.cost
    metering = Metering(
        meters,
        view_of(asked.wish, asked.customer, asked.endpoint, asked.started_ms),
        prices=asked.prices,
        shapes=asked.gateway.usage_shapes,
        charge_errors=route.charge_errors,
        meter_methods=route.meter_methods | {"POST"},
    )
    metering.begin(200, content_type, "", {"content-type": content_type})
    metering.feed(body)
    readings = metering.finish(Outcome.COMPLETE)
    reading, response_id, stated = readings[MAIN], metering.response_id, readings.get(COST)
    if reading.units is None:
        return replace(_estimated(asked, reading.note), stated_cost=stated, response_bytes=len(body))
    return Reported(
        units=reading.units,
        usage=readings[RECORD].value,
        mark=reading.source,
        note=reading.note,
        meters=_named(readings),
        evidence=reading.evidence,
        meter_hash=route.meter.hash,
        response_bytes=len(body),
        response_id=None if response_id is None else response_id.replace("\0", "").encode("utf-8", "replace").decode(),
        stated_cost=stated,
    )


def _named(readings: Mapping[str, Reading]) -> dict[str, str]:
    return {
        name: plain(found.units)
        for name, found in readings.items()
        if name not in (MAIN, RECORD, COST) and found.units is not None
    }


def view_of(wish: Wish, customer: Customer, path: str, now_ms: int) -> RequestView:
    """What is known of the request: neither its body nor its headers."""
    return RequestView(
        method="POST",
        path=path,
        query="",
        headers={},
        body=None,
        request_bytes=0,
        model=wish.model,
        customer_id=customer.id,
        user_id=wish.user_id,
        agent_id=wish.agent_id,
        plan_id=customer.plan_id,
        key_id=None,
        started_at_ms=now_ms,
    )


def record_of(asked: "Asked", found: Reported, now_ms: int) -> tuple[UsageRecord, dict[str, int]]:
    """The record of a call, and what it takes of each dimension. A call that was not made takes nothing."""
    price = asked.prices.price(asked.wish.model, asked.started_ms)
    # An answer is a request, also one that a meter finds nothing in.
    made = bool(found.units) or found.response_bytes > 0
    cost = None if price is None else cost_nano(price, found.usage or {}) if made else 0
    evidence = found.evidence if price is None else {**found.evidence, "$price": price.evidence()}
    cost, evidence = _stated(asked, found, cost, evidence)
    units_micro = units_to_micro(found.units or Decimal(0))
    record = UsageRecord(
        call_id=asked.call_id,
        admitted_month=admitted_month(asked.started_ms),
        customer_id=asked.customer.id,
        key_id=None,
        user_id=asked.wish.user_id,
        agent_id=asked.wish.agent_id,
        plan_id=asked.plan.id,
        route=asked.route.name,
        upstream=asked.route.upstream,
        model=asked.wish.model,
        method="POST",
        path=asked.endpoint,
        status=None,
        outcome=Outcome.COMPLETE,
        streamed=False,
        started_ms=asked.started_ms,
        ended_ms=now_ms,
        first_byte_ms=None,
        units_micro=units_micro,
        source=found.mark,
        note=found.note,
        cost_nano=cost,
        usage=found.usage,
        meters=found.meters,
        evidence=evidence,
        meter_hash=found.meter_hash,
        response_bytes=found.response_bytes,
        response_id=found.response_id,
    )
    actual = {UNITS: units_micro, DOLLARS: cost or 0}
    actual |= {f"{UNITS}:{name}": units_to_micro(Decimal(read)) for name, read in found.meters.items()}
    if made:
        actual[REQUESTS] = ONE_REQUEST
    return record, actual


def _stated(
    asked: "Asked", found: Reported, listed: int | None, evidence: Mapping[str, Any]
) -> tuple[int | None, Mapping[str, Any]]:
    """What the provider takes: what the route's ``cost`` reads in its answer, else by the price list. Where the units
    are not known the answer is a part perhaps, so the dearer figure counts."""
    stated, expression = found.stated_cost, asked.route.cost
    if stated is None or expression is None or (stated.source is Mark.NONE and stated.note is not None):
        return listed, evidence
    nano = None if stated.units is None else dollars_to_nano(stated.units)
    used = nano is not None and not (found.mark is Mark.ESTIMATED and listed is not None and listed > nano)
    told = {
        "hash": expression.hash,
        "source": stated.source.value,
        "note": stated.note,
        "dollars": None if stated.units is None else plain(stated.units),
        "used": used,
        "evidence": dict(stated.evidence),
    }
    return nano if used else listed, {**evidence, COST: told}


def _check_count(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX):
        raise ValueError(f"{name} is a whole number of tokens from 0 to {TOKENS_MAX}")
