"""What came of a trial as JSON. The rule: amounts are decimal texts, and nothing is in it that a JSON reader of 64 bits
could misread."""

from typing import Any

from gatekeeper.meters import Context, Reading
from gatekeeper.meters.tracing import Step
from gatekeeper.money import dollars_text, plain
from gatekeeper.rules.quotes import Quote
from gatekeeper.web.playground.checking import is_refused, mistakes_json, plan_json
from gatekeeper.web.playground.examples import example_toml
from gatekeeper.web.playground.trying import Trial, Tried, slot_texts, tidy


def tried_json(trial: Trial, tried: Tried) -> dict[str, Any]:
    """All of it. ``ok`` is False where an expression is refused: then there is no reading."""
    mistakes = [shown for name, found in tried.mistakes for shown in mistakes_json(found, name)]
    told: dict[str, Any] = {
        "ok": not any(is_refused(found) for _, found in tried.mistakes),
        "mistakes": mistakes,
        "plan": None if tried.meter is None else plan_json(tried.meter),
        "reading": None,
        "meters": {},
        "events": None,
        "charges": [],
        "example": None,
    }
    if tried.reading is None:
        return told
    told["reading"] = reading_json(tried.reading, trial.context)
    told["meters"] = {name: reading_json(reading, Context.METER) for name, reading in tried.readings.items()}
    told["charges"] = [
        {
            "plan": each.plan.id,
            "name": each.plan.name,
            "fresh": quote_json(each.fresh),
            "used": quote_json(each.used),
            "beyond": quote_json(each.beyond),
        }
        for each in tried.plans
    ]
    if tried.tracing is not None:
        told["events"] = events_json(tried)
    if trial.context is Context.METER:
        told["example"] = example_toml(trial, tried.reading, tried.content_type)
    return told


def reading_json(reading: Reading, context: Context) -> dict[str, Any]:
    """A reading: ``units``, or ``dollars`` of a ``cost``, or ``holds`` of a ``when``."""
    told: dict[str, Any] = {"source": reading.source, "note": reading.note}
    if context is Context.WHEN:
        told["holds"] = None if reading.units is None else bool(reading.units)
    else:
        told["dollars" if context is Context.COST else "units"] = (
            None if reading.units is None else plain(reading.units)
        )
    told["value"] = tidy(reading.value)
    told["evidence"] = tidy(reading.evidence)
    return told


def quote_json(quote: Quote) -> dict[str, Any]:
    """A charge in dollars; null where the plan refuses the call, and where nothing was read."""
    charge = None if quote.charge_nano is None else dollars_text(quote.charge_nano)
    return {"charge": charge, "refused": quote.refused, "why": quote.why}


def events_json(tried: Tried) -> dict[str, Any]:
    """The events in order; ``omitted`` ones lie between ``first`` and ``last``."""
    tracing = tried.tracing
    assert tracing is not None
    texts = slot_texts(tried)
    return {
        "count": tracing.events,
        "content_type": tried.content_type,
        "outcome": tracing.outcome,
        "bytes": tracing.decoded_bytes,
        "slots": [{"meter": name, "slot": at, "text": text} for (name, at), text in texts.items()],
        "first": [_step_json(step) for step in tracing.first],
        "omitted": tracing.omitted,
        "last": [_step_json(step) for step in tracing.last],
    }


def _step_json(step: Step) -> dict[str, Any]:
    """``index`` null is the end of the answer."""
    return {
        "index": step.index,
        "event": tidy(step.event),
        "data": tidy(step.data),
        "data_letters": step.data_letters,
        "changes": [{"meter": each.meter, "slot": each.slot, "value": each.shown} for each in step.changes],
        "live": None if step.live is None else plain(step.live),
    }
