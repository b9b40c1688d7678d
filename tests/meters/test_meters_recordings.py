"""Recorded provider responses: what they were billed, whatever the pieces. Skipped where the recordings are absent."""

import json

import pytest
from meters_reading import FIXTURES, SSE, read

from gatekeeper.meters import Context, Mark, Metering, Outcome, RequestView, compile_meter

EXPECTED = FIXTURES / "expected.json"
HEADLINE = "json(sseLastData(allData)).usage.total_tokens ?? 1"
pytestmark = pytest.mark.skipif(not EXPECTED.exists(), reason="the recorded responses are not here")


def recordings():
    """(name, record) of every successful response whose usage is on record."""
    if not EXPECTED.exists():
        return []
    records = json.loads(EXPECTED.read_text("utf-8"))
    # A cut array: its whole elements are read, which the record (of a reader of whole bodies) does not know.
    return [record for record in records if record["status"] == 200 and record["family"] != "invalid-json"]


@pytest.mark.parametrize("record", recordings(), ids=lambda record: record["file"])
def test_usage_is_what_the_provider_billed(record):
    body = (FIXTURES / record["file"]).read_bytes()
    meter = compile_meter("usage().total")
    outcome = Outcome.CUT if record["file"].startswith("trunc-") else Outcome.COMPLETE
    for size in (len(body) or 1, 7, 1) if len(body) < 8000 else (len(body), 97):
        metering = Metering({"m": meter}, RequestView())
        metering.begin(200, record["content_type"], record["content_encoding"], {})
        for at in range(0, len(body), size):
            metering.feed(body[at : at + size])
        reading = metering.finish(outcome)["m"]
        total = record["usage"].get("total")
        assert (None if reading.units is None else int(reading.units)) == total, (size, reading)
        assert reading.source is (Mark.NONE if total is None else Mark.MEASURED)
        again = meter.replay(json.loads(json.dumps(reading.evidence)))
        assert (again.units, again.source) == (reading.units, reading.source)


def test_the_headline_example_reads_the_recorded_openai_stream():
    body = (FIXTURES / "openai-chat-stream-usage.sse").read_bytes()
    for sizes in ([], [1], [7]):
        reading = read(HEADLINE, body, sizes=sizes, context=Context.METER)
        assert (reading.units, reading.source) == (87, Mark.MEASURED)


def test_the_headline_example_marks_a_default_where_the_stream_says_nothing():
    body = (FIXTURES / "azure-chat-stream-promptfilter-nousage.sse").read_bytes()
    reading = read(HEADLINE, body, context=Context.METER)
    assert (reading.units, reading.source) == (1, Mark.DEFAULT)


def test_an_output_that_is_only_a_placeholder_is_unknown_and_not_zero():
    body = (FIXTURES / "trunc-anthropic-mid-text.sse").read_bytes()
    reading = read("usage().output", body, SSE, outcome=Outcome.CUT)
    assert (reading.units, reading.source) == (None, Mark.NONE)
    assert read("usage().input", body, SSE, outcome=Outcome.CUT).source is Mark.MEASURED
    assert read("usage().output_placeholder ? 1 : 0", body, SSE, outcome=Outcome.CUT).units == 1
