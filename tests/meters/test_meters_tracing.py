"""A stream event by event: the trace shows what changed, and changes nothing."""

import json
from pathlib import Path

import pytest

from gatekeeper.meters import Context, Metering, Outcome, RequestView, compile_meter
from gatekeeper.meters.tracing import FIRST_MAX, LAST_MAX, VALUE_LETTERS, Tracing

STREAMS = sorted((Path(__file__).resolve().parents[2] / "gatekeeper" / "web" / "playground" / "streams").iterdir())
TYPES = {
    ".sse": "text/event-stream",
    ".ndjson": "application/x-ndjson",
    ".json": "application/json",
    ".bin": "application/vnd.amazon.eventstream",
}
EXPRESSIONS = (
    "usage().total", "usage()", "count(events)", "last(events, .json.usage.total_tokens) ?? usage().total",
    "sum(events, len(.data))", "len(allData)", "count(lines(allData), # contains 'data')",
    "json(sseLastData(allData)).usage.total_tokens ?? 1", "response.usage.total_tokens ?? 0",
)  # fmt: skip


def sse(*events: object) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


def traced(body: bytes, text: str, content_type: str = "text/event-stream", size: int = 64, **more: object) -> Tracing:
    live = compile_meter(text, context=Context.LIVE) if more.pop("live", False) else None
    meters = {} if live is not None else {"m": compile_meter(text)}
    tracing = Tracing(meters, RequestView(), more.pop("go_on", lambda: True), live=live)
    fed(tracing, body, content_type, size)
    return tracing


def fed(metering: Metering, body: bytes, content_type: str, size: int) -> dict[str, object]:
    metering.begin(200, content_type, "", {"content-type": content_type})
    for start in range(0, len(body), size):
        metering.feed(body[start : start + size])
    return metering.finish(Outcome.COMPLETE)


@pytest.mark.parametrize("file", STREAMS, ids=lambda file: file.name)
@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_traced_reading_is_the_reading(file, text):
    body, kind = file.read_bytes(), TYPES[file.suffix]
    meters = {"m": compile_meter(text)}
    plain = fed(Metering(meters, RequestView()), body, kind, 7)
    tracing = Tracing(meters, RequestView(), lambda: True)
    assert fed(tracing, body, kind, 1024) == plain
    assert tracing.events > 0
    assert not tracing.stopped


def test_each_event_stands_beside_the_slots_that_it_changed():
    tracing = traced(sse({"n": 1}, {"other": 1}, {"n": 5}, {"n": 5}), "last(events, .json.n) + count(events)")
    changes = [[(change.slot, change.shown) for change in step.changes] for step in tracing.first]
    assert changes == [[(0, "1"), (1, "1")], [(1, "2")], [(0, "5"), (1, "3")], [(1, "4")]]
    assert [step.index for step in tracing.first] == [0, 1, 2, 3]


def test_what_only_the_end_makes_known_is_shown_at_the_end():
    tracing = traced(sse({"n": 1}), "len(allData)")
    assert [(step.index, [change.shown for change in step.changes]) for step in tracing.first] == [
        (0, []),
        (None, ["16"]),
    ]


def test_live_is_shown_after_each_event_and_never_falls():
    tracing = traced(sse({"n": 3}, {"n": 1}, {"n": 9}), "last(events, .json.n)", live=True)
    assert [str(step.live) for step in tracing.first] == ["3", "3", "9"]
    assert [change.shown for step in tracing.first for change in step.changes] == ["3", "1", "9"]


def test_of_a_long_stream_the_first_and_the_last_events_are_kept():
    count = FIRST_MAX + LAST_MAX + 30
    tracing = traced(sse(*({"n": number} for number in range(count))), "sum(events, .json.n)")
    assert (len(tracing.first), len(tracing.last), tracing.omitted) == (FIRST_MAX, LAST_MAX, 30)
    assert (tracing.first[-1].index, tracing.last[0].index, tracing.last[-1].index) == (199, 230, count - 1)


def test_values_and_payloads_are_cut_for_the_eye_only():
    tracing = traced(sse({"t": "x" * 5000}), "len(last(events, .json.t))")
    (step,) = tracing.first
    assert step.data_letters == 5009
    assert len(step.data) < 1000
    assert len(step.changes[0].shown) == VALUE_LETTERS
    assert tracing.finish(Outcome.COMPLETE)["m"].units == 5000


def test_an_error_in_a_slot_is_shown_where_it_happened():
    tracing = traced(sse({"n": 1}, {"n": "two"}), "sum(events, .json.n)")
    assert "error" in tracing.first[1].changes[0].shown


def test_a_lone_surrogate_is_no_letter_that_a_page_could_not_send():
    tracing = traced(b'data: {"t":"\\ud800"}\n\n', "len(last(events, .json.t))")
    tracing.first[0].changes[0].shown.encode()


def test_it_is_stopped_between_two_events():
    left = iter([True] * 4)
    tracing = traced(sse(*({"n": number} for number in range(9))), "count(events)", size=10_000,
                     go_on=lambda: next(left, False))  # fmt: skip
    assert tracing.stopped
    assert tracing.events == 3
