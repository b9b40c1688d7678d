"""What a copy of the bytes says: meters over the stream, and the facts of the call as they arrive.

The rule: observing can neither fail nor delay the stream. Everything here is synchronous and never raises.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gatekeeper.config.gateway import Unmeasured
from gatekeeper.meters import Mark, Metering, Outcome, Prices, Reading, compile_meter
from gatekeeper.money import plain, units_to_micro
from gatekeeper.ports import Progress, RawHeaders, UsageRecord
from gatekeeper.proxy.call import Admitted, Facts
from gatekeeper.proxy.outgoing import quoted
from gatekeeper.proxy.views import request_view
from gatekeeper.rules.prices import cost_nano

log = logging.getLogger("gatekeeper.proxy")

MAIN = "meter"
RECORD = "usage"
_RECORD_METER = compile_meter("usage()")
# Bytes of delivered text a token, from below: English has over 4, Chinese in UTF-8 about 3. Who hangs up before the
# usage arrives must not pay less than what was delivered.
OUTPUT_BYTES_PER_TOKEN = 3
_TOKENS_MAX = 10**12


@dataclass(frozen=True, slots=True)
class Billed:
    """What the route's policy makes of the readings."""

    units: Decimal
    source: Mark
    note: str | None


class Observation:
    """One call's meters and facts."""

    def __init__(self, admitted: Admitted, prices: Prices | None = None) -> None:
        call = admitted.call
        route = call.route
        self._admitted = admitted
        self.facts = Facts()
        body = admitted.body if isinstance(admitted.body, bytes) else None
        view = request_view(
            call, admitted.holder, admitted.ask, body, admitted.user_id, admitted.agent_id, admitted.request_bytes
        )
        self._metering = Metering(
            {MAIN: route.meter, RECORD: _RECORD_METER, **route.meters},
            view,
            prices=prices,
            shapes=call.gateway.usage_shapes,
            charge_errors=route.charge_errors,
            meter_methods=route.meter_methods,
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
        estimate = -(-self._metering.text_bytes // OUTPUT_BYTES_PER_TOKEN)
        stated = self._metering.usage_so_far()
        found = None if stated is None else _number(stated, "output")
        return estimate if found is None else max(estimate, int(found))

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
        cost_nano, evidence = self._cost(usage, billed, reading)
        return UsageRecord(
            call_id=call.id,
            admitted_month=admitted.admitted_month,
            customer_id=admitted.holder.customer.id,
            key_id=admitted.holder.key.id or None,
            user_id=admitted.user_id,
            agent_id=admitted.agent_id,
            plan_id=admitted.plan.id,
            route=call.route.name,
            upstream=call.route.upstream,
            model=admitted.ask.model,
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
            note=billed.note,
            usage=usage,
            meters={
                name: plain(found.units)
                for name, found in readings.items()
                if name not in (MAIN, RECORD) and found.units is not None
            },
            cost_nano=cost_nano,
            evidence=evidence,
            meter_hash=call.route.meter.hash,
            request_bytes=admitted.request_bytes,
            response_bytes=facts.upstream_bytes,
            response_id=_storable(self._metering.response_id),
        )

    def _cost(
        self, usage: Mapping[str, Any] | None, billed: Billed, reading: Reading
    ) -> tuple[int | None, Mapping[str, Any]]:
        """What the provider takes, as far as its price is known, with the price beside the reading's evidence."""
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
        """The best known figures so far, as units on a meter of tokens."""
        tokens_in, tokens_out, how = self._tokens()
        return tokens_in + tokens_out, f"unmeasured: input {how} {plain(tokens_in)}, output {plain(tokens_out)}"

    def _tokens(self) -> tuple[Decimal, Decimal, str]:
        """(input, output, how the input is known): what the provider said, else what was sent and delivered."""
        usage = self._metering.usage_so_far() or {}
        stated_input, stated_output = _number(usage, "input"), _number(usage, "output")
        output = Decimal(-(-self._metering.text_bytes // OUTPUT_BYTES_PER_TOKEN))
        tokens_in = stated_input if stated_input is not None else Decimal(self._admitted.input_estimate_tokens)
        tokens_out = output if stated_output is None else stated_output
        return tokens_in, tokens_out, "measured" if stated_input is not None else "estimated"


def _number(usage: Mapping[str, Any], name: str) -> Decimal | None:
    value = usage.get(name)
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool):
        return None
    # What no call can have used says nothing, and could not be stored.
    return Decimal(value) if 0 <= value <= _TOKENS_MAX else None


def _storable(text: str | None) -> str | None:
    """Postgres has no NUL in texts, and a lone surrogate is no text."""
    return None if text is None else text.replace("\0", "").encode("utf-8", "replace").decode()


def _joined(note: str | None, more: str) -> str:
    return f"{note}; {more}" if note else more
