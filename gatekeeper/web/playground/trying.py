"""One expression over one answer: its mistakes, its reading, every event beside the slots that it changed, and the
charge on each plan. Pure computing, to be run in a thread.

The rule: it is read exactly as a route would read it; nothing is evaluated but the language.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gatekeeper.config.gateway import Gateway
from gatekeeper.diagnostics import Mistake
from gatekeeper.errors import Code, Refusal
from gatekeeper.meters import Context, Mark, Meter, Outcome, Prices, Reading, RequestView, check_expression
from gatekeeper.meters.tracing import LIVE, Tracing
from gatekeeper.money import units_to_micro
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.quotes import Quote, quote

# Small pieces: between two of them a trial can be stopped, and one of them unpacks to little.
_CHUNK_BYTES = 1024
# More than any answer that somebody tries an expression on; beyond it somebody tries us.
DECODED_BYTES_MAX = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Trial:
    """What is tried. ``meters`` are named ones beside ``expression``; ``used_micro`` are units used before on the plan;
    ``dialect`` is what the provider speaks, for warnings, ``upstream`` whose prices count. ``content_type`` empty: it
    is guessed from the body."""

    expression: str
    context: Context = Context.METER
    meters: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    content_type: str = ""
    content_encoding: str = ""
    status: int = 200
    outcome: Outcome = Outcome.COMPLETE
    request: bytes | None = None
    method: str = "POST"
    used_micro: int = 0
    dialect: str | None = None
    upstream: str | None = None


@dataclass(frozen=True, slots=True)
class OnPlan:
    """What the call would cost a customer of a plan: the first one of a period, after what was used, and with all that
    is included used up."""

    plan: Plan
    fresh: Quote
    used: Quote
    beyond: Quote


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of it. ``meter`` and ``reading`` are None if the expression is refused. ``mistakes`` stand with the
    name of their meter. ``tracing`` is None where no answer is read (contexts that see the request only)."""

    mistakes: tuple[tuple[str, tuple[Mistake, ...]], ...]
    meter: Meter | None = None
    named: Mapping[str, Meter] = field(default_factory=dict)
    reading: Reading | None = None
    readings: Mapping[str, Reading] = field(default_factory=dict)
    tracing: Tracing | None = None
    content_type: str = ""
    plans: tuple[OnPlan, ...] = ()


def attempt(trial: Trial, gateway: Gateway, prices: Prices | None, go_on: Callable[[], bool]) -> Tried:
    """Checks and evaluates. Raises Refusal where it takes too long, or the body unpacks to too much."""
    name = str(trial.context)
    meter, found = check_expression(trial.expression, context=trial.context, dialect=trial.dialect)
    mistakes = [(name, found)]
    named: dict[str, Meter] = {}
    for other, text in trial.meters.items():
        made, found = check_expression(text, dialect=trial.dialect)
        mistakes.append((other, found))
        if made is not None:
            named[other] = made
    told = tuple(mistakes)
    if meter is None or len(named) < len(trial.meters):
        return Tried(told, meter, named)
    view = request_of(trial)
    if trial.context in (Context.ESTIMATE, Context.WHEN):
        return Tried(told, meter, named, meter.evaluate_request(view, prices=prices))
    content_type = trial.content_type or guessed_type(trial.body)
    is_live = trial.context is Context.LIVE
    tracing = Tracing(
        named if is_live else {name: meter, **named},
        view,
        go_on,
        live=meter if is_live else None,
        shapes=gateway.usage_shapes,
        prices=prices,
    )
    readings = _fed(tracing, trial, content_type)
    if is_live:
        reading = tracing.live or Reading(None, Mark.NONE)
    else:
        reading = readings.pop(name)
    plans = _plans(gateway, trial, reading) if trial.context is Context.METER else ()
    return Tried(told, meter, named, reading, readings, tracing, content_type, plans)


def request_of(trial: Trial) -> RequestView:
    """The request as expressions see it; ``model`` is what its JSON names."""
    body = trial.request
    try:
        asked = json.loads(body) if body is not None else None
    except (ValueError, RecursionError):
        asked = None
    model = asked.get("model") if isinstance(asked, dict) else None
    return RequestView(
        method=trial.method,
        body=body,
        request_bytes=len(body or b""),
        model=model if isinstance(model, str) else None,
    )


def guessed_type(body: bytes) -> str:
    """The content type of what was pasted: by how its first line begins, and whether there are more lines like it."""
    start = body.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start.startswith((b"{", b"[")):
        lines = start.splitlines()
        second = next((line.lstrip() for line in lines[1:] if line.strip()), b"")
        whole_line = lines[0].rstrip().endswith(b"}")
        return "application/x-ndjson" if whole_line and second.startswith(b"{") else "application/json"
    if start.startswith((b"data:", b"event:", b"id:", b"retry:", b":")):
        return "text/event-stream"
    return "text/plain" if start else "application/json"


def _fed(tracing: Tracing, trial: Trial, content_type: str) -> dict[str, Reading]:
    tracing.begin(trial.status, content_type, trial.content_encoding, {"content-type": content_type})
    for start in range(0, len(trial.body), _CHUNK_BYTES):
        tracing.feed(trial.body[start : start + _CHUNK_BYTES])
        if tracing.decoded_bytes > DECODED_BYTES_MAX:
            raise Refusal(Code.BODY_TOO_LARGE, f"The stream unpacks to more than {DECODED_BYTES_MAX >> 20} MiB.")
        if tracing.stopped:
            break
    readings = tracing.finish(trial.outcome)
    if tracing.stopped:
        told = f"This expression on this stream takes too long: stopped after {tracing.events} events."
        raise Refusal(Code.BAD_REQUEST, told, hint="try it on a shorter stream")
    return dict(readings)


def _plans(gateway: Gateway, trial: Trial, reading: Reading) -> tuple[OnPlan, ...]:
    units = None if reading.units is None else units_to_micro(reading.units)
    return tuple(
        OnPlan(
            plan,
            quote(plan, 0, units),
            quote(plan, trial.used_micro, units),
            quote(plan, (plan.quota.cap if plan.quota is not None else None) or 0, units),
        )
        for plan in gateway.plans.values()
    )


def slot_texts(tried: Tried) -> dict[tuple[str, int], str]:
    """What each slot of the trace reads, by meter and number."""
    meters: dict[str, Meter] = dict(tried.named)
    if tried.meter is not None:
        meters[LIVE if tried.meter.context is Context.LIVE else str(tried.meter.context)] = tried.meter
    return {(name, at): plan.shown for name, meter in meters.items() for at, plan in enumerate(meter.plans)}


def tidy(value: Any, depth: int = 0) -> Any:
    """What a meter saw, for a JSON encoder that takes 64 bits, 250 levels and no lone surrogates."""
    if isinstance(value, Mapping):
        if depth > _DEPTH_MAX:
            return "..."
        return {_text(str(key)): tidy(part, depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return "..." if depth > _DEPTH_MAX else [tidy(part, depth + 1) for part in value]
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**53) < value < 2**53:
        return str(value)
    return value


_DEPTH_MAX = 40


def _text(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
