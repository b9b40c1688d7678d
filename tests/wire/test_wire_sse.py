"""Server-sent events: the standard's cases, cut everywhere, and the lenient tail of a meter."""

import base64
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.wire.sse import TAIL_BYTES_MAX, SseParser

CASES_FILE = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures" / "sse_cases.json"
CASES = json.loads(CASES_FILE.read_text()) if CASES_FILE.exists() else []
MAX = 1 << 24

Seen = list[tuple[str, str, str]]


def seen(events: list[Any]) -> Seen:
    return [(event.event, event.data, event.id) for event in events]


def run(pieces: list[bytes], *, clean: bool = True, bound: int = MAX) -> tuple[Seen, Seen, bytes, int]:
    """Events before the end, all events, the tail, and how many were dropped."""
    parser = SseParser(bound)
    events = [event for piece in pieces for event in parser.feed(piece)]
    before = len(events)
    events += parser.finish(clean)
    assert [event.index for event in events] == list(range(len(events)))
    return seen(events[:before]), seen(events), parser.tail, parser.dropped


def cuts(raw: bytes) -> list[list[bytes]]:
    halves = [[raw[:at], raw[at:]] for at in range(len(raw) + 1)]
    return [[raw], *halves, *([raw[at : at + size] for at in range(0, len(raw), size)] for size in (1, 2, 3, 5))]


@pytest.mark.skipif(not CASES, reason="the recorded cases are not on this machine")
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_a_case_of_the_standard_gives_its_events_however_it_is_cut(case: dict[str, Any]) -> None:
    raw = base64.b64decode(case["input_b64"]) if "input_b64" in case else case["input"].encode()
    strict = [(event["event"], event["data"], event["id"]) for event in case["events"]]
    lenient = [(e["event"], e["data"], e["id"]) for e in case.get("lenient_events", case["events"])]
    for pieces in cuts(raw):
        assert run(pieces)[:2] == (strict, lenient)


def test_the_lines_end_in_three_ways() -> None:
    for end in (b"\n", b"\r", b"\r\n"):
        body = end.join([b": hello", b"event: a", b"id: 7", b"data: one", b"data:two", b"", b"data: three", b"", b""])
        for pieces in cuts(body):
            assert run(pieces)[0] == [("a", "one\ntwo", "7"), ("message", "three", "7")]


def test_an_unterminated_event_counts_when_the_body_ended_cleanly() -> None:
    assert run([b"data: a\n\ndata: b"])[1] == [("message", "a", ""), ("message", "b", "")]


def test_of_a_cut_body_the_unterminated_event_counts_only_as_json() -> None:
    assert run([b'data: {"a":1'], clean=False)[1] == []
    assert run([b'data: {"a":1}'], clean=False)[1] == [("message", '{"a":1}', "")]
    assert run([b"data: [DON"], clean=False)[1] == []


def test_bare_json_stands_in_the_tail() -> None:
    body = b'data: {"u":1}\r\n\r\n{\n  "error": {\n    "code": 499\n  }\n}'
    for pieces in cuts(body):
        assert json.loads(run(pieces)[2]) == {"error": {"code": 499}}
    assert json.loads(run([b'{"error":{"message":"no"}}'])[2]) == {"error": {"message": "no"}}


def test_the_tail_is_the_last_stray_text_and_bounded() -> None:
    assert run([b"early\n\ndata: a\n\nlate\n"])[2] == b"late\n"
    assert run([b"early\n\ndata: a\n\n"])[2] == b"early\n"
    assert len(run([b"x" * 100 + b"\n"] * 1000)[2]) == TAIL_BYTES_MAX


@pytest.mark.parametrize("excess", [0, 1])
@pytest.mark.parametrize("lines", [1, 2])
def test_only_the_event_over_the_bound_is_dropped(excess: int, lines: int) -> None:
    bound = 20
    value = b"x" * (bound + excess) if lines == 1 else b"x" * 10 + b"\ndata: " + b"x" * (9 + excess)
    body = (
        b"data: a\n\nevent: big\ndata: " + value + b"\ndata:\n\ndata: b\n\n" if excess else b"data: " + value + b"\n\n"
    )
    for pieces in cuts(body):
        _, events, _, dropped = run(pieces, bound=bound)
        assert dropped == excess
        assert [event[1] for event in events] == (
            ["a", "b"] if excess else [value.replace(b"\ndata: ", b"\n").decode()]
        )


def test_time_is_linear_in_the_bytes() -> None:
    def seconds(size: int) -> float:
        parser, body = SseParser(MAX), b"data: " + b"x" * size + b"\n\n"
        start = time.perf_counter()
        for at in range(len(body)):
            parser.feed(body[at : at + 1])
        return time.perf_counter() - start

    small = min(seconds(20_000) for _ in range(3))
    assert min(seconds(160_000) for _ in range(2)) < small * 8 * 4


PIECES = st.sampled_from(
    [b"data: ", b"data:", b"data", b"event: e", b"id: 1", b":c", b"\n", b"\r", b"\r\n", b"\n\n", b"x", b"xyzzyxyzzy",
     b'{"a":1}', b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\xff", b"\0", b" "]
)  # fmt: skip


@examples(200)
@given(st.lists(PIECES, max_size=25).map(b"".join), st.data(), st.booleans(), st.sampled_from([6, 12, MAX]))
def test_chunking_changes_nothing(body: bytes, draw: st.DataObject, clean: bool, bound: int) -> None:
    whole = run([body], clean=clean, bound=bound)
    places = sorted(draw.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
    assert run(pieces, clean=clean, bound=bound) == whole
    assert run([body[at : at + 1] for at in range(len(body))], clean=clean, bound=bound) == whole


def test_an_event_of_a_million_lines_takes_little_more_room_than_its_bytes() -> None:
    parser, lines = SseParser(MAX), 300_000
    tracemalloc.start()
    for _ in range(lines // 1000):
        parser.feed(b"data:ab\n" * 1000)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert parser.held == 3 * lines
    assert held < 2 * parser.held
    assert [event.raw for event in parser.feed(b"\n")] == [b"\n".join([b"ab"] * lines)]
