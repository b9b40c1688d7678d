"""What a copy of the bytes says: meters over the stream, and the facts of the call as they arrive.

The rule: observing can neither fail nor delay the stream. Everything here is synchronous and never raises.
"""

import logging
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gatekeeper.config.gateway import Unmeasured
from gatekeeper.frozen import record
from gatekeeper.meters import Mark, Metering, Outcome, Prices, Reading, compile_meter
from gatekeeper.money import MICRO_PER_UNIT, dollars_to_nano, plain, units_to_micro
from gatekeeper.ports import Progress, RawHeaders, UsageRecord
from gatekeeper.proxy.call import Admitted, Facts
from gatekeeper.proxy.outgoing import quoted
from gatekeeper.proxy.views import request_view
from gatekeeper.rules.prices import cost_nano

log = logging.getLogger("gatekeeper.proxy")

# No meter of a route can have such a name.
MAIN = "$meter"
RECORD = "$usage"
COST = "$cost"
_RECORD_METER = compile_meter("usage()")
# Bytes of delivered text a token, from below: English has over 4, Chinese in UTF-8 about 3. Who hangs up before the
# usage arrives must not pay less than what was delivered.
OUTPUT_BYTES_PER_TOKEN = 3
_TOKENS_MAX = 10**12


@record(frozen=True, slots=True)
class Billed:
    """What the route's policy makes of the readings."""

    units: Decimal
    source: Mark
    note: str | None


class Observation:
    """One call's meters and facts."""

    def __init__(self, admitted: Admitted, prices: Prices | None = None) -> None:
        self.facts = Facts()
        self.watch(admitted, prices)

    def watch(self, admitted: Admitted, prices: Prices | None) -> None:
        """Begin anew for a candidate; of an answer no byte was seen yet."""
        assert not self.facts.upstream_bytes
        call = admitted.call
        route = call.route
        self._admitted = admitted
        body = admitted.body if isinstance(admitted.body, bytes) else None
        view = request_view(
            call, admitted.holder, admitted.ask, body, admitted.user_id, admitted.agent_id, admitted.request_bytes
        )
        meters = {MAIN: route.meter, RECORD: _RECORD_METER, **route.meters}
        if route.cost is not None:
            meters[COST] = route.cost
        self._metering = Metering(
            meters,
            view,
            prices=prices,
            shapes=call.gateway.usage_shapes,
            charge_errors=route.charge_errors,
            meter_methods=route.meter_methods,
            live=route.live,
        )

    def head(self, status: int, headers: RawHeaders, elapsed_ms: int) -> None:
        """The upstream's head arrived, ``elapsed_ms`` after the call began."""
        seen: dict[str, str] = {}
        for name, value in headers:
            seen.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
        self.facts.status = status
        self.facts.first_byte_ms = elapsed_ms
        self.facts.response_headers = seen
        self._metering.begin(status, seen.get("content-type", ""), seen.get("content-encoding", ""), seen)

    def feed(self, chunk: bytes) -> None:
        """A piece of the body as received."""
        self.facts.upstream_bytes += len(chunk)
        self._metering.feed(chunk)

    @property
    def terminal_seen(self) -> bool:
        """The dialect's last event has passed: what follows carries nothing."""
        return self._metering.terminal_seen

    @property
    def output_tokens(self) -> int:
        """The best known figure of the output so far, in tokens."""
        metering = self._metering
        estimate = -(-metering.text_bytes // OUTPUT_BYTES_PER_TOKEN)
        stated = metering.usage_so_far()
        if stated is None:
            return estimate
        found = _number(stated, "output")
        return estimate if found is None else max(estimate, int(found))

    @property
    def output_reached(self) -> int:
        """How far the output has come, in the tokens by which the hold grows: what ``live`` says beyond what is held
        for the input, else ``output_tokens``. A hold in dollars grows with tokens, whatever a unit is."""
        live = self._live
        if live is None:
            return self.output_tokens
        beyond_micro = units_to_micro(live) - self._admitted.units_fixed_micro
        reached = max(0, -(-beyond_micro // MICRO_PER_UNIT))
        return max(reached, self.output_tokens) if self._admitted.grows_dollars else reached

    def bytes_for(self, tokens: int) -> int:
        """So many bytes of body hold no more than that much further output. Nobody knows what a byte is worth to a
        ``live`` expression: half of what it was so far, and nothing before that is known."""
        if self._admitted.call.route.live is None:
            return tokens * OUTPUT_BYTES_PER_TOKEN
        live = self._live
        if not live:
            return 0
        bytes_so_far = int(self.facts.upstream_bytes * tokens / (2 * live))
        return min(bytes_so_far, tokens * OUTPUT_BYTES_PER_TOKEN) if self._admitted.grows_dollars else bytes_so_far

    @property
    def _live(self) -> Decimal | None:
        """The units delivered so far, as the route's ``live`` says; None where it says nothing."""
        reading = self._metering.live
        return None if reading is None else reading.units

    def progress(self) -> Progress:
        """What would be charged if the process died now: nothing before the first byte of a good answer."""
        status = self.facts.status
        seen = status is not None and 200 <= status < 300 and self.facts.upstream_bytes > 0
        chargeable = seen and not self._admitted.call.route.free
        units = self._estimate()[0] if chargeable else Decimal(0)
        return Progress(self._admitted.call.id, units_to_micro(units), seen)

    def record(self, outcome: Outcome, ended_ms: int, elapsed_ms: int) -> UsageRecord:
        """The whole of what is known, with the units that the route's policy charges."""
        admitted, call, facts = self._admitted, self._admitted.call, self.facts
        readings = self._metering.finish(outcome, duration_ms=elapsed_ms, first_byte_ms=facts.first_byte_ms)
        reading = readings[MAIN]
        if outcome is Outcome.COMPLETE:
            outcome = self._metering.outcome or outcome
        billed = self._billed(reading, outcome)
        usage = readings[RECORD].value
        cost_nano, evidence = self._cost(readings, billed, outcome)
        return UsageRecord(
            call_id=call.id,
            admitted_month=admitted.admitted_month,
            customer_id=admitted.holder.customer.id,
            key_id=admitted.holder.key.id or None,
            user_id=admitted.user_id,
            agent_id=admitted.agent_id,
            plan_id=admitted.plan.id,
            route=call.route.name,
            upstream=admitted.candidate.upstream,
            model=admitted.ask.model,
            model_requested=admitted.model_requested,
            method=call.method,
            path=quoted(call.path),
            status=facts.status,
            outcome=outcome,
            streamed=admitted.ask.streamed,
            started_ms=call.started_ms,
            ended_ms=ended_ms,
            first_byte_ms=facts.first_byte_ms,
            units_micro=units_to_micro(billed.units),
            source=billed.source,
            note=billed.note if admitted.note is None else _joined(billed.note, admitted.note),
            usage=usage,
            meters={
                name: plain(found.units)
                for name, found in readings.items()
                if name not in (MAIN, RECORD, COST) and found.units is not None
            },
            cost_nano=cost_nano,
            evidence=evidence,
            meter_hash=call.route.meter.hash,
            request_bytes=admitted.request_bytes,
            response_bytes=facts.upstream_bytes,
            response_id=_storable(self._metering.response_id),
        )

    def _cost(
        self, readings: Mapping[str, Reading], billed: Billed, outcome: Outcome
    ) -> tuple[int | None, Mapping[str, Any]]:
        """What the provider takes: what the route's ``cost`` reads, else by the price list. With the evidence of it."""
        reading, stated = readings[MAIN], readings.get(COST)
        listed, evidence = self._listed_cost(readings[RECORD].value, billed, reading)
        if stated is None or (stated.source is Mark.NONE and stated.note is not None):
            return listed, evidence
        nano = None if stated.units is None else dollars_to_nano(stated.units)
        # Of a stream that broke off nobody has said all, so what was read may be a part: the dearer figure counts.
        broken = outcome is not Outcome.COMPLETE and reading.units is None and billed.source is Mark.ESTIMATED
        used = nano is not None and not (broken and listed is not None and listed > nano)
        return nano if used else listed, {**evidence, COST: _cost_evidence(self._admitted, stated, used=used)}

    def _listed_cost(
        self, usage: Mapping[str, Any] | None, billed: Billed, reading: Reading
    ) -> tuple[int | None, Mapping[str, Any]]:
        """By the price list, as far as the price is known, with the price beside the reading's evidence."""
        price, status = self._admitted.price, self.facts.status
        if price is None:
            return None, reading.evidence
        if status is None or not 200 <= status < 300:
            return 0, reading.evidence
        if billed.source is Mark.ESTIMATED:
            tokens_in, tokens_out, _ = self._tokens()
            usage = {**(usage or {}), "input": tokens_in, "output": tokens_out, "total": tokens_in + tokens_out}
        return cost_nano(price, usage or {}), {**reading.evidence, "$price": price.evidence()}

    def _billed(self, reading: Reading, outcome: Outcome) -> Billed:
        route = self._admitted.call.route
        if route.free:
            return Billed(Decimal(0), Mark.NONE, "free route")
        if reading.units is not None:
            return Billed(reading.units, reading.source, reading.note)
        status = self.facts.status
        good = status is not None and 200 <= status < 300
        metered = self._admitted.call.method in route.meter_methods
        if not metered or (not good and not route.charge_errors):
            return Billed(Decimal(0), reading.source, reading.note)
        if outcome in (Outcome.UPSTREAM_FAILED, Outcome.UPSTREAM_ERROR, Outcome.TIMED_OUT):
            # A failure upstream is not sold on a guess: what was measured counts, the rest is the operator's.
            return Billed(Decimal(0), reading.source, _joined(reading.note, "upstream failed, nothing measured"))
        if route.unmeasured is Unmeasured.FREE:
            return Billed(Decimal(0), reading.source, _joined(reading.note, "unmeasured: free"))
        if route.unmeasured is Unmeasured.DEFAULT:
            return Billed(route.unmeasured_default, Mark.DEFAULT, _joined(reading.note, "unmeasured: default"))
        units, note = self._estimate()
        return Billed(units, Mark.ESTIMATED, _joined(reading.note, note))

    def _estimate(self) -> tuple[Decimal, str]:
        """The best known figures so far: what ``live`` says, else as units on a meter of tokens."""
        tokens_in, tokens_out, how = self._tokens()
        note = f"unmeasured: input {how} {plain(tokens_in)}, output {plain(tokens_out)}"
        live = self._live
        return (tokens_in + tokens_out, note) if live is None else (live, f"{note}, live {plain(live)}")

    def _tokens(self) -> tuple[Decimal, Decimal, str]:
        """(input, output, how the input is known): what the provider said, else what was sent and delivered."""
        usage = self._metering.usage_so_far() or {}
        stated_input, stated_output = _number(usage, "input"), _number(usage, "output")
        output = Decimal(-(-self._metering.text_bytes // OUTPUT_BYTES_PER_TOKEN))
        tokens_in = stated_input if stated_input is not None else Decimal(self._admitted.input_estimate_tokens)
        tokens_out = output if stated_output is None else stated_output
        return tokens_in, tokens_out, "measured" if stated_input is not None else "estimated"


def _cost_evidence(admitted: Admitted, stated: Reading, *, used: bool) -> dict[str, Any]:
    """What ``explain`` reads again: the expression's hash, what it saw and said, and whether that was taken."""
    expression = admitted.call.route.cost
    assert expression is not None
    dollars = None if stated.units is None else plain(stated.units)
    return {
        "hash": expression.hash,
        "source": stated.source.value,
        "note": stated.note,
        "dollars": dollars,
        "used": used,
        "evidence": dict(stated.evidence),
    }


def _number(usage: Mapping[str, Any], name: str) -> Decimal | None:
    value = usage.get(name)
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool):
        return None
    # What no call can have used says nothing, and could not be stored.
    return Decimal(value) if 0 <= value <= _TOKENS_MAX else None


def _storable(text: str | None) -> str | None:
    """Postgres has no NUL in texts, and a lone surrogate is no text."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _joined(note: str | None, more: str) -> str:
    return f"{note}; {more}" if note else more
