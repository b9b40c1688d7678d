"""``live``: a value after each event, the largest of which counts. Held against a naive evaluator of every prefix."""

import copy
import json
from decimal import Decimal

import pytest
from fakes.effort import examples
from hypothesis import assume, given
from hypothesis import strategies as st
from meters_naive import Answer, Naive
from meters_reading import pieces, sse
from meters_strategies import EXPRESSIONS, REQUESTS, SIZES, answers

from gatekeeper.meters import Context, Mark, Metering, Outcome, RequestView, check_expression, compile_meter
from gatekeeper.meters.values import Unmeasurable
from gatekeeper.wire.usage import UsageFold

MICRO = Decimal("0.000001")
PLAIN = RequestView()


def live_of(text, body, content_type="text/event-stream", *, sizes=(), request=PLAIN, meters=(), **how):
    """The last live value of a response, with ``meters`` beside it."""
    others = {str(place): compile_meter(each, context=Context.TRIAL) for place, each in enumerate(meters)}
    metering = Metering(others, request, live=compile_meter(text, context=Context.LIVE), **how)
    metering.begin(200, content_type, "", {"content-type": content_type})
    seen = []
    for piece in pieces(body, sizes):
        metering.feed(piece)
        seen.append(None if metering.live is None else metering.live.units)
    metering.finish(Outcome.COMPLETE)
    known = [units for units in seen if units is not None]
    assert known == sorted(known), "it has fallen"
    return None if metering.live is None else metering.live.units


def naive_of(text, answer, request):
    """The largest value that a naive evaluator finds after any event."""
    found = []
    fold = UsageFold()
    for count, event in enumerate(answer.events, 1):
        fold.feed(event)
        prefix = copy.copy(answer)
        prefix.events, prefix.usage = answer.events[:count], fold.result()
        prefix.erred = False
        naive = Naive(text, request, prefix)
        try:
            value, _ = naive.value(naive.root, {})
        except Unmeasurable:
            continue
        value = value.get("total") if isinstance(value, dict) else value
        if isinstance(value, int | Decimal) and not isinstance(value, bool) and 0 <= value <= 10**12:
            found.append(Decimal(value).quantize(MICRO))
    return max(found, default=None)


PROGRESS = st.sampled_from(
    [
        "count(events)", "sum(events, len(.data))", "usage().output", "usage().total", "last(events, .json.n)",
        "10 - count(events)", "sum(events, len(.json.x))", "events[-1].index", "max(events, .json.n)",
        "count(events, .json.n != null) * 2.5", "len(sseLastData(allData))", "usage()", "request.n",
        "json(sseLastData(allData)).usage.total_tokens ?? 1", "events[1].json.n", "100 / (count(events) - 2)",
        "let n = count(events); n * (request.n ?? 1)", "sum(sseAllData(allData), len(#))", "last(events, .event) == 'a'"
        " ? 1 : 2",
    ]
)  # fmt: skip


@examples(120)
@given(PROGRESS | EXPRESSIONS, answers(), REQUESTS, SIZES)
def test_the_last_live_value_is_that_of_a_naive_evaluator_however_the_bytes_are_cut(text, answer, request, sizes):
    assume(check_expression(text, context=Context.LIVE)[0] is not None)
    body, content_type = answer
    found = live_of(text, body, content_type, sizes=sizes, request=request)
    assert found == live_of(text, body, content_type, request=request)
    assert found == naive_of(text, Answer(body, content_type), request)
    assert found == live_of(text, body, content_type, sizes=sizes, request=request, prefilter=False)


@examples(60)
@given(PROGRESS, EXPRESSIONS, answers(), REQUESTS, SIZES)
def test_meters_and_live_do_not_change_each_other(text, meter, answer, request, sizes):
    assume(check_expression(meter, context=Context.TRIAL)[0] is not None)
    body, content_type = answer
    assert live_of(text, body, content_type, sizes=sizes, request=request, meters=(meter, text)) == live_of(
        text, body, content_type, request=request
    )
    readings = []
    for live in (None, compile_meter(text, context=Context.LIVE)):
        metering = Metering({"m": compile_meter(meter, context=Context.TRIAL)}, request, live=live)
        metering.begin(200, content_type, "", {"content-type": content_type})
        for piece in pieces(body, sizes):
            metering.feed(piece)
        readings.append(metering.finish(Outcome.COMPLETE))
    assert readings[0] == readings[1]


def test_live_never_falls_and_null_says_nothing():
    body = sse('{"n":3}', '{"n":7}', '{"x":1}', '{"n":5}', "{}")
    assert live_of("events[-1].json.n", body) == 7
    assert live_of("events[-1].json.m", body) is None
    assert live_of("count(events)", b"") is None


def test_events_that_repeat_are_looked_at_one_by_one():
    usages = [{"prompt_tokens": 1, "completion_tokens": n, "total_tokens": n + 1} for n in (*range(1, 60), 3, 4)]
    events = [sse(json.dumps({"choices": [{"delta": {"content": "word"}}], "usage": usage})) for usage in usages]
    for size in (1, 10, 61):
        metering = Metering({}, PLAIN, live=compile_meter("usage().total", context=Context.LIVE))
        metering.begin(200, "text/event-stream", "", {})
        for at in range(0, len(events), size):
            metering.feed(b"".join(events[at : at + size]))
        assert metering.live.units == 60


def test_an_error_says_nothing_and_what_was_known_stays():
    metering = Metering({}, PLAIN, live=compile_meter("sum(events, .json.n)", context=Context.LIVE))
    metering.begin(200, "text/event-stream", "", {})
    metering.feed(sse('{"n":3}'))
    assert (metering.live.units, metering.live.source) == (3, Mark.MEASURED)
    metering.feed(sse('{"n":"junk"}', '{"n":4}'))
    assert metering.live.units == 3


def test_live_holds_its_slots_and_not_the_stream():
    text = "sum(events, len(.json.text)) + (usage().total ?? 0)"
    metering = Metering({}, PLAIN, live=compile_meter(text, context=Context.LIVE))
    metering.begin(200, "text/event-stream", "", {})
    for _ in range(2_000):
        metering.feed(sse(json.dumps({"text": "x" * 10})))
    assert metering.live.units == 20_000
    assert len(metering.live.evidence) <= 2


@pytest.mark.parametrize(
    "text",
    ["len(allData)", "count(lines(allData))", "json(allData).n", "allData contains 'x' ? 1 : 2", "response.n",
     "count(linesNonEmpty(allData))", "len(upper(allData))", "status", "responseBytes", "len(sha256(allData))"],
)  # fmt: skip
def test_what_is_not_known_after_each_event_is_refused_with_its_place(text):
    meter, mistakes = check_expression(text, context=Context.LIVE)
    assert meter is None
    assert "'live'" in mistakes[0].message or "never held" in mistakes[0].message
    assert mistakes[0].render()


def test_a_cost_is_exact_and_not_rounded_to_millionths():
    body = sse('{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2,"cost":0.0000000015}}')
    meter = compile_meter("usage().cost * 1.1", context=Context.COST)
    metering = Metering({"cost": meter}, PLAIN)
    metering.begin(200, "text/event-stream", "", {})
    metering.feed(body)
    reading = metering.finish(Outcome.COMPLETE)["cost"]
    assert (reading.units, reading.source) == (Decimal("0.00000000165"), Mark.MEASURED)
    assert meter.replay(json.loads(json.dumps(reading.evidence))).units == reading.units


@pytest.mark.parametrize("text", ["0 - 1", "10 ** 10", "usage().total / 0"])
def test_a_cost_that_cannot_be_is_an_error(text):
    meter = compile_meter(text.replace("/ 0", "/ (1 - 1)"), context=Context.COST)
    metering = Metering({"cost": meter}, PLAIN)
    metering.begin(200, "text/event-stream", "", {})
    metering.feed(sse('{"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'))
    assert metering.finish(Outcome.COMPLETE)["cost"].source is Mark.ERROR
