"""When a meter runs, and what the world outside of the expression does to its reading."""

import json
from decimal import Decimal

import pytest
from meters_reading import SSE, pieces, read, sse

from gatekeeper.meters import Context, Mark, Metering, Outcome, RequestView, compile_meter

FALLBACK = "usage().total ?? 5"
USAGE = sse(
    '{"id":"chatcmpl-1","usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7},"choices":[]}', "[DONE]"
)
ERRED = sse('{"choices":[{"delta":{"content":"he"}}]}', '{"error":{"message":"overloaded"}}')


def metered(meters, body=USAGE, *, status=200, outcome=Outcome.COMPLETE, request=None, **how):
    """A finished Metering."""
    metering = Metering({name: compile_meter(text) for name, text in meters.items()}, request or RequestView(), **how)
    metering.begin(status, SSE, "", {"x-request-id": "r1"})
    for piece in pieces(body, [11]):
        metering.feed(piece)
    metering.finish(outcome)
    return metering


@pytest.mark.parametrize("status", [401, 404, 429, 500, 502, 302, 199])
def test_an_answer_that_is_no_success_charges_nothing(status):
    reading = read("usage().total ?? 1", USAGE, status=status)
    assert (reading.units, reading.source, reading.note) == (Decimal(0), Mark.NONE, "status")


def test_a_route_may_charge_errors():
    reading = read("usage().total ?? 1", USAGE, status=500, charge_errors=True)
    assert (reading.units, reading.source) == (Decimal(7), Mark.MEASURED)


@pytest.mark.parametrize("method", ["GET", "OPTIONS", "HEAD", "PUT"])
def test_a_method_that_is_not_metered_charges_nothing(method):
    reading = read("usage().total ?? 1", USAGE, request=RequestView(method=method))
    assert (reading.units, reading.source, reading.note) == (Decimal(0), Mark.NONE, "method")


def test_a_route_may_meter_other_methods():
    reading = read("usage().total", USAGE, request=RequestView(method="GET"), meter_methods=frozenset({"GET"}))
    assert reading.units == 7


def test_without_an_answer_nothing_is_charged():
    metering = Metering({"m": compile_meter("usage().total ?? 1")}, RequestView())
    metering.feed(b"lost")
    reading = metering.finish(Outcome.UPSTREAM_FAILED)["m"]
    assert (reading.units, reading.source, reading.note) == (Decimal(0), Mark.NONE, "status")


def test_an_error_in_the_stream_turns_a_constant_fallback_into_nothing():
    meters = {"fallback": FALLBACK, "flat": "5", "events": "count(events)", "both": f"({FALLBACK}) + count(events)"}
    metering = metered(meters, ERRED)
    readings = metering.finish(Outcome.COMPLETE)
    assert metering.outcome is Outcome.UPSTREAM_ERROR
    assert metering.error_seen
    assert {name: (reading.units, reading.source) for name, reading in readings.items()} == {
        "fallback": (Decimal(0), Mark.DEFAULT),
        "flat": (Decimal(0), Mark.DEFAULT),
        "events": (Decimal(2), Mark.MEASURED),
        "both": (Decimal(2), Mark.DEFAULT),
    }
    assert readings["fallback"].note == "upstream_error"


def test_what_was_measured_before_an_error_counts():
    body = sse('{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}', '{"error":{"message":"x"}}')
    metering = metered({"m": "usage().total ?? 1"}, body)
    assert metering.finish(Outcome.COMPLETE)["m"].units == 7
    assert metering.outcome is Outcome.UPSTREAM_ERROR


def test_a_client_that_hangs_up_is_no_upstream_error():
    metering = metered({"m": "outcome == 'client_closed' ? 1 : 2"}, outcome=Outcome.CLIENT_CLOSED)
    assert metering.outcome is Outcome.CLIENT_CLOSED
    assert metering.finish(Outcome.COMPLETE)["m"].units == 1


def test_finishing_twice_gives_the_same_readings():
    metering = metered({"m": "usage().total"})
    first = metering.finish(Outcome.COMPLETE)
    metering.feed(USAGE)
    assert metering.finish(Outcome.CUT) is first
    assert metering.outcome is Outcome.COMPLETE


def test_signals_and_usage_can_be_asked_while_the_stream_runs():
    live = compile_meter("usage().total", context=Context.LIVE)
    metering = Metering({"m": compile_meter("usage().total")}, RequestView(), live=live)
    metering.begin(200, SSE, "", {})
    assert (metering.terminal_seen, metering.response_id, metering.usage_so_far()) == (False, None, None)
    assert metering.live is None
    metering.feed(USAGE[:-14])
    usage = metering.usage_so_far()
    assert usage is not None
    assert usage["total"] == 7
    assert metering.live is not None
    assert metering.live.units == 7
    metering.feed(USAGE[-14:])
    assert metering.terminal_seen
    assert metering.response_id == "chatcmpl-1"
    assert metering.decoded_bytes == len(USAGE)
    assert metering.finish(Outcome.COMPLETE)["m"].units == 7


def test_a_broken_encoding_is_an_error_and_not_a_default():
    reading = read("usage().total ?? 1", b"no gzip at all", encoding="gzip")
    assert reading.source is Mark.ERROR
    assert reading.units is None
    assert read("usage().total ?? 1", USAGE, encoding="sdch").source is Mark.ERROR
    assert read("requestBytes", USAGE, encoding="sdch").units == 0


def test_an_event_over_the_bound_makes_an_error_of_what_the_stream_would_have_told():
    body = sse('{"x":"' + "a" * 5000 + '"}') + USAGE
    assert read("count(events)", body, event_bytes_max=1000).source is Mark.ERROR
    assert read("status", body, event_bytes_max=1000).units == 200
    assert read("count(events)", body).units == 3
    assert read("count(lines(allData))", body, "text/plain", event_bytes_max=1000).source is Mark.ERROR


def test_a_slot_holds_at_most_16_kib_but_what_passes_may_be_larger():
    large = sse('{"text":"' + "a" * 20_000 + '","usage":{"total_tokens":3}}')
    for sizes in ([], [1000]):
        assert read("json(sseLastData(allData)).usage.total_tokens", large, sizes=sizes).units == 3
        assert read("len(sseLastData(allData))", large, sizes=sizes).units == 20_038
        assert read("events[-1].json.usage.total_tokens", large, sizes=sizes).units == 3
        assert "16 KiB" in (read("sseLastData(allData)", large, sizes=sizes).note or "")
        assert "16 KiB" in (read("last(events, .json.text) | len()", large, sizes=sizes).note or "")
        assert read("last(events, len(.json.text))", large, sizes=sizes).units == 20_000
    # What was too large and is not asked for in the end does no harm.
    after = large + sse('{"text":"b"}')
    assert read("last(events, .json.text)", after).value == {"value": "b"}
    assert read("events[-1].data", after).source is Mark.MEASURED
    assert read("events[-2].data", after).source is Mark.ERROR


def test_a_slot_holds_at_most_256_keys():
    wide = '{"u":{' + ",".join(f'"k{n}":{n}' for n in range(300)) + "}}"
    assert "256 keys" in (read("last(events, .json.u)", sse(wide)).note or "")
    assert "256 keys" in (read("merge(events, .json.u)", sse(wide)).note or "")
    assert read("last(events, .json.u.k299)", sse(wide)).units == 299
    assert read("last(events, .json.u | keys() | len())", sse(wide)).units == 300
    halves = sse(*('{"u":{' + ",".join(f'"k{n}":1' for n in range(at, at + 200)) + "}}" for at in (0, 200)))
    assert read("merge(events, .json.u)", halves).source is Mark.ERROR


def test_a_body_larger_than_16_kib_can_still_be_walked():
    items = ",".join(f'{{"n":{n},"text":"{"x" * 50}"}}' for n in range(1000))
    body = ('{"data":[' + items + "]}").encode()
    kind = "application/json"
    assert read("count(response.data)", body, kind, sizes=[999]).units == 1000
    assert read("sum(response.data, .n)", body, kind).units == 499_500
    assert read("response.data[-1].n", body, kind).units == 999
    assert read("response.data", body, kind).source is Mark.ERROR
    assert read("response.data[0:2] | sum(.n)", body, kind).units == 1


def test_the_whole_body_can_be_held_where_the_route_allows_it():
    body = sse("abc", "x")
    assert read("upper(allData) contains 'ABC'", body, sizes=[1], buffer_bytes_max=100).value == {"value": True}
    assert read("split(allData, 'data:') | len()", body, buffer_bytes_max=100).units == 3
    assert read("allData matches `(?s)abc.*x`", body, buffer_bytes_max=100).value == {"value": True}
    small = read("split(allData, 'data:') | len()", body, buffer_bytes_max=10)
    assert "buffer_bytes_max" in (small.note or "")


def test_equal_aggregates_share_one_slot():
    meter = compile_meter(
        "(usage().total ?? 0) + (usage().total ?? 0) + count(events) * count(sseEvents(allData)) + count(events)"
    )
    assert [plan.key for plan in meter.plans] == ["usage()", "count(events)", "count(sseEvents(allData))"]


def test_equal_texts_that_mean_different_variables_have_different_slots():
    text = "(let k = 1 + 1; sum(events, .json.n * k)) + (let k = 2 + 2; sum(events, .json.n * k))"
    assert read(text, sse('{"n":1}', '{"n":2}')).units == 18


def test_meters_over_one_response_do_not_disturb_each_other():
    metering = metered(
        {
            "one": "let k = 1 + 1; sum(events, .json.usage.total_tokens * k)",
            "two": "let k = 2 + 2; sum(events, .json.usage.total_tokens * k)",
            "three": "count(events)",
            "four": "count(events) + 1",
            "bad": "count(events) / (1 - 1)",
        }
    )
    readings = metering.finish(Outcome.COMPLETE)
    assert [readings[name].units for name in ("one", "two", "three", "four", "bad")] == [14, 28, 2, 3, None]


def test_headers_are_read_in_lower_case():
    view = RequestView(headers={"X-Team": "a"})
    assert read("headers['x-team'] == 'a' ? 1 : 2", USAGE, request=view).units == 1
    keyed = RequestView(headers={"Authorization": "Bearer s3cret", "x": "y"})
    assert read("headers", USAGE, request=keyed).value == {"x": "y"}
    assert read("respHeaders['x-b'] == 'c' ? 1 : 2", USAGE, headers={"X-B": "c"}).units == 1


def test_needs_request_tells_whether_the_body_must_be_kept():
    assert compile_meter("request.n ?? 1").needs_request
    assert compile_meter("sum(events, .json.n) * len(requestBody)").needs_request
    assert not compile_meter("requestBytes").needs_request
    assert not compile_meter("usage().total ?? 1").needs_request
    assert not compile_meter("model == 'a' ? 1 : 2").needs_request


def test_explain_names_slots_and_what_is_looked_for():
    text = compile_meter("last(events, .json.usage.total_tokens) / durationMs").explain()
    assert 'hold "total_tokens"' in text
    assert "reads durationMs" in text
    assert "rounded half-even" in text


FALLBACKS = {
    "sum(events, .json.n ?? 1)": 3, "sum(events, e => e.json.n ?? 1)": 3, "sum(map(events, .json.n ?? 1))": 3,
    "max(events, .json.n ?? 9)": 3, "count(filter(events, (.json.n ?? 9) > 4))": 0,
    "sum(events, .json.n == null ? 1 : .json.n)": 3,
    "last(events, .json.n ?? 5)": 0, "avg(events, .json.n ?? 5) * 4": 3, "map(events, .json.n ?? 7)[-1]": 0,
    "(any(events, (.json.n ?? 9) > 4) ? 100 : 0) + sum(events, .json.n)": 3,
}  # fmt: skip


@pytest.mark.parametrize("text", FALLBACKS)
def test_fallbacks_inside_an_aggregate_are_nothing_too_in_an_answer_that_failed(text):
    for sizes in ((), (1,)):
        failed = read(text, sse('{"n":3}', "{}", "{}", '{"error":"x"}'), sizes=sizes, context=Context.METER)
        assert failed.units == FALLBACKS[text], failed
        again = compile_meter(text).replay(json.loads(json.dumps(failed.evidence)))
        assert (again.units, again.source) == (failed.units, failed.source)
    fine = read(text, sse('{"n":3}', "{}", "{}", "{}"), context=Context.METER)
    assert fine.units != failed.units
