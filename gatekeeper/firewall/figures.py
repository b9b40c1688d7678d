"""From what an agent says to what is held, and from what it reports to what is recorded. Pure figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson

from gatekeeper.meters import Mark, Metering, Outcome, Reading, RequestView, compile_meter
from gatekeeper.money import MICRO_PER_UNIT, plain, units_to_micro
from gatekeeper.ports import Progress, UsageRecord
from gatekeeper.rules.limits import DOLLARS, ONE_REQUEST, REQUESTS, UNITS
from gatekeeper.rules.lines import Bounds, Charge, Take, token_bounds
from gatekeeper.rules.prices import TokenPrice, bound, cost_nano
from gatekeeper.rules.requests import TOKENS_MAX
from gatekeeper.rules.windows import admitted_month

if TYPE_CHECKING:
    from gatekeeper.firewall.asking import Asked

_MAIN, _RECORD = "meter", "usage"
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
    metering = Metering(
        {_MAIN: route.meter, _RECORD: _RECORD_METER, **route.meters},
        _view(asked),
        prices=asked.prices,
        shapes=asked.gateway.usage_shapes,
        charge_errors=route.charge_errors,
        meter_methods=route.meter_methods | {"POST"},
    )
    metering.begin(200, content_type, "", {"content-type": content_type})
    metering.feed(body)
    readings = metering.finish(Outcome.COMPLETE)
    reading = readings[_MAIN]
    if reading.units is None:
        return _estimated(asked, reading.note)
    return Reported(
        units=reading.units,
        usage=readings[_RECORD].value,
        mark=reading.source,
        note=reading.note,
        meters=_named(readings),
        evidence=reading.evidence,
        meter_hash=route.meter.hash,
        response_bytes=len(body),
    )


def _named(readings: Mapping[str, Reading]) -> dict[str, str]:
    return {
        name: plain(found.units)
        for name, found in readings.items()
        if name not in (_MAIN, _RECORD) and found.units is not None
    }


def _view(asked: "Asked") -> RequestView:
    return RequestView(
        method="POST",
        path=asked.endpoint,
        query="",
        headers={},
        body=None,
        request_bytes=0,
        model=asked.wish.model,
        customer_id=asked.customer.id,
        user_id=asked.wish.user_id,
        agent_id=asked.wish.agent_id,
        plan_id=asked.plan.id,
        key_id=None,
        started_at_ms=asked.started_ms,
    )


def record_of(asked: "Asked", found: Reported, now_ms: int) -> tuple[UsageRecord, dict[str, int]]:
    """The record of a call, and what it takes of each dimension. A call that was not made takes nothing."""
    price = asked.prices.price(asked.wish.model, asked.started_ms)
    made = bool(found.units)
    cost = None if price is None else cost_nano(price, found.usage or {}) if made else 0
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
        evidence=found.evidence if price is None else {**found.evidence, "$price": price.evidence()},
        meter_hash=found.meter_hash,
        response_bytes=found.response_bytes,
    )
    actual = {UNITS: units_micro, DOLLARS: cost or 0}
    actual |= {f"{UNITS}:{name}": units_to_micro(Decimal(read)) for name, read in found.meters.items()}
    if made:
        actual[REQUESTS] = ONE_REQUEST
    return record, actual


def _check_count(name: str, value: int | None) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= TOKENS_MAX):
        raise ValueError(f"{name} is a whole number of tokens from 0 to {TOKENS_MAX}")
