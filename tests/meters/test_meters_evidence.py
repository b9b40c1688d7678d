"""Evidence: small, ready for JSON, and enough to give the same digits again."""

import json

import pytest
from meters_reading import read, sse

from gatekeeper.meters import Context, Mark, Outcome, RequestView, compile_meter

TWO = {"len(events[-1].event)": 7, "events[-1].json.usage.total_tokens": 7}
BODY = sse('{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7,"cost":0.125},"s":"\\ud800\\u0000x"}')


@pytest.mark.parametrize(
    ("text", "evidence"),
    [
        ("usage().total ?? 1", {"usage()": {"input": 3, "output": 4, "total": 7, "cost": {"$decimal": "0.125"}}}),
        ("last(events, .json.usage.cost) * 2", {"last(events, .json.usage.cost)": {"$decimal": "0.125"}}),
        ("last(events, .json.q) ?? 5", {"last(events, .json.q)": None}),
        ("last(events, .json.q ?? 5)", {"last(events, .json.q ?? 5)": {"$marked": [2, 5]}}),
        ("1 / count(events, .json.q == 1)", {"count(events, .json.q == 1)": 0}),
        ("sum(events, .json.s)", {"sum(events, .json.s)": {"$error": "expected a number, found a string"}}),
        ("status + durationMs", {"status": 200, "durationMs": 1200}),
        ("let e = events[-1]; len(e.event) + e.json.usage.total_tokens", TWO),
        ("last(events, .json.s)", {"last(events, .json.s)": "?\ufffdx"}),
        ("'abc' + model", {"model": "gpt"}),
        ("5", {}),
    ],
)  # fmt: skip
def test_the_evidence_is_what_was_read(text, evidence):
    reading = read(text, BODY, request=RequestView(model="gpt"))
    assert reading.evidence == evidence
    json.dumps(reading.evidence)


def test_a_whole_request_is_too_large_to_be_evidence():
    view = RequestView(body=json.dumps({"messages": ["secret" * 5000]}).encode())
    reading = read("request.messages[0] == 'x' ? 1 : 2", BODY, request=view)
    assert reading.units == 2
    assert "secret" not in str(reading.evidence)
    meter = compile_meter("request.messages[0] == 'x' ? 1 : 2")
    assert "larger than 16 KiB" in (meter.replay(reading.evidence).note or "")


def test_a_skipped_reading_is_replayed_as_skipped():
    reading = read("usage().total ?? 1", BODY, status=429)
    again = compile_meter("usage().total ?? 1").replay(reading.evidence)
    assert (again.units, again.source, again.note) == (reading.units, Mark.NONE, "status")


def test_a_failed_stream_is_replayed_as_failed():
    reading = read("usage().total ?? 5", sse('{"error":{"message":"x"}}'), context=Context.METER)
    assert (reading.units, reading.source, reading.note) == (0, Mark.DEFAULT, "upstream_error")
    again = compile_meter("usage().total ?? 5").replay(json.loads(json.dumps(reading.evidence)))
    assert (again.units, again.source, again.note) == (0, Mark.DEFAULT, "upstream_error")


def test_a_lost_reading_is_replayed_as_lost():
    reading = read("usage().total", b"no gzip", encoding="gzip", context=Context.METER)
    assert reading.source is Mark.ERROR
    again = compile_meter("usage().total").replay(json.loads(json.dumps(reading.evidence)))
    assert (again.units, again.source, again.note) == (None, Mark.ERROR, reading.note)


def test_evidence_of_another_meter_is_an_error():
    reading = compile_meter("usage().total").replay({"count(events)": 3})
    assert reading.source is Mark.ERROR
    assert reading.note == "the evidence does not hold usage()"


def test_a_map_that_looks_like_our_own_marks_comes_back_unharmed():
    body = sse('{"u":{"$decimal":"1"},"v":{"$error":"x"}}')
    for name in "uv":
        text = f"last(events, .json.{name})"
        reading = read(text, body)
        again = compile_meter(text, context=Context.TRIAL).replay(json.loads(json.dumps(reading.evidence)))
        assert again.value == reading.value


def test_the_outcome_is_evidence_too():
    reading = read("outcome == 'cut' ? 1 : 2", BODY, outcome=Outcome.CUT)
    assert compile_meter("outcome == 'cut' ? 1 : 2").replay(reading.evidence).units == 1


@pytest.mark.parametrize("text", ["request.x", "{total: 1, x: request.x}"])
@pytest.mark.parametrize("depth", [300, 900])
def test_what_is_nested_too_deep_to_be_shown_is_an_error_with_its_reason(text, depth):
    view = RequestView(body=b'{"x":' + b"[" * depth + b"]" * depth + b"}")
    assert (read(text, request=view).source, read(text, request=view).note) == (
        Mark.ERROR, "the result is nested too deep",
    )  # fmt: skip
