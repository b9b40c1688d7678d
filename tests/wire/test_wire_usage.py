"""The normalised usage, on own small streams (one for each shape) and on recorded responses."""

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st
from wire_drawn import events_of

from gatekeeper.wire.events import UNREAD, Event
from gatekeeper.wire.paths import needles
from gatekeeper.wire.shapes import COUNTS as COUNTS_OF_A_RECORD
from gatekeeper.wire.tap import Tap
from gatekeeper.wire.usage import SHAPES, Shape, UsageFold

STREAMS = Path(__file__).resolve().parents[1] / "streams"
FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
OWN = json.loads((STREAMS / "expected.json").read_text())
RECORDED = json.loads((FIXTURES / "expected.json").read_text()) if FIXTURES.exists() else []
PARTS = ("input", "output", "cached_input", "cache_write", "reasoning", "audio_input", "audio_output", "image_input")


def usage_of(body: bytes, case: dict[str, Any], piece: int = 0, *, prefilter: bool = True) -> dict[str, Any] | None:
    tap = Tap(case["content_type"], case["content_encoding"])
    fold = UsageFold(prefilter=prefilter)
    for at in range(0, len(body), piece or len(body) or 1):
        for event in tap.feed(body[at : at + (piece or len(body))])[1]:
            fold.feed(event)
    for event in tap.finish(True):
        fold.feed(event)
    assert tap.error is None and tap.dropped == 0
    return fold.result()


def fold_json(*values: Any, prefilter: bool = True, shapes: tuple[Shape, ...] = SHAPES) -> dict[str, Any] | None:
    fold = UsageFold(shapes, prefilter=prefilter)
    for index, value in enumerate(values):
        fold.feed(Event(index, "message", "", value if isinstance(value, bytes) else json.dumps(value).encode()))
    return fold.result()


@pytest.mark.parametrize("case", OWN, ids=lambda case: case["file"])
def test_an_own_stream_gives_exactly_its_usage(case: dict[str, Any]) -> None:
    body = (STREAMS / case["file"]).read_bytes()
    expected = dict(case["usage"]) if case["usage"] is not None else None
    for name in {"seconds", "cost"} & set(expected or ()):
        expected[name] = Decimal(expected[name])
    for piece in (0, 1, 7):
        found = usage_of(body, case, piece)
        assert found == expected
        assert found is None or all(type(value) is not float for value in found.values())
    assert usage_of(body, case, prefilter=False) == expected


def test_every_shape_has_an_own_stream() -> None:
    assert {case["shape"] for case in OWN if case["shape"]} == {shape.name for shape in SHAPES}
    assert {case["file"] for case in OWN} == {path.name for path in STREAMS.iterdir() if path.suffix != ".md"} - {
        "expected.json"
    }


@pytest.mark.parametrize("case", [case for case in OWN if case["shape"]], ids=lambda case: case["file"])
def test_an_own_stream_is_read_by_the_shape_that_it_is_for(case: dict[str, Any]) -> None:
    alone = tuple(shape for shape in SHAPES if shape.name == case["shape"])
    tap, fold = Tap(case["content_type"], case["content_encoding"]), UsageFold(alone)
    for event in tap.feed((STREAMS / case["file"]).read_bytes())[1] + tap.finish(True):
        fold.feed(event)
    found = fold.result()
    assert found is not None
    assert {key: str(value) for key, value in found.items()} == {k: str(v) for k, v in case["usage"].items()}


@pytest.mark.skipif(not RECORDED, reason="the recorded responses are not on this machine")
@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["file"])
def test_a_recorded_response_gives_its_usage(case: dict[str, Any]) -> None:
    body = (FIXTURES / case["file"]).read_bytes()
    expected = case["usage"]
    if case["family"] == "other":
        expected = {"seconds": expected["usage"]["seconds"]}
    if case["family"] == "invalid-json":
        # No single JSON value, but two whole elements of an array: the last one's usage is known.
        expected = {"input": 11, "output": 293, "total": 304, "reasoning": 291}
    for piece in (0, 1, 7):
        found = usage_of(body, case, piece)
        if not expected:
            assert found is None
        else:
            assert found is not None and {key: found.get(key) for key in expected} == expected


COUNTS = st.one_of(
    st.integers(-3, 200), st.booleans(), st.none(), st.text(max_size=3), st.floats(), st.just(10**19),
    st.decimals(0, 50, places=2).map(float), st.lists(st.integers(0, 9), max_size=2),
)  # fmt: skip
FIELDS = (
    "prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens", "inputTokens", "seconds",
    "outputTokens", "totalTokens", "promptTokenCount", "candidatesTokenCount", "totalTokenCount", "generated_tokens",
    "thoughtsTokenCount", "cachedContentTokenCount", "cache_read_input_tokens", "cache_creation_input_tokens",
    "cacheReadInputTokens", "cacheWriteInputTokens", "input_token_count", "generated_token_count", "prompt_n",
    "predicted_n", "prompt_per_token_ms",
)  # fmt: skip
DETAILS = st.dictionaries(
    st.sampled_from(["cached_tokens", "reasoning_tokens", "audio_tokens", "image_tokens", "cache_write_tokens",
                     "input_tokens", "output_tokens", "search_units", "thinking_tokens",
                     "ephemeral_1h_input_tokens"]),
    COUNTS, max_size=4,
)  # fmt: skip
USAGES = st.dictionaries(
    st.sampled_from(FIELDS), COUNTS, max_size=6
).flatmap(
    lambda counts: st.dictionaries(
        st.sampled_from(["prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "tokens",
                         "output_tokens_details", "billed_units", "cache_creation"]), DETAILS, max_size=3
    ).map(lambda details: {**counts, **details})
)  # fmt: skip
ITERATED = st.tuples(USAGES, st.lists(USAGES, max_size=3)).map(lambda pair: {**pair[0], "iterations": pair[1]})
OBJECTS = st.one_of(USAGES, ITERATED, COUNTS)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "usage": OBJECTS, "usageMetadata": OBJECTS, "meta": OBJECTS, "details": OBJECTS, "timings": OBJECTS,
        "x_groq": st.builds(lambda inner: {"usage": inner}, OBJECTS),
        "response": st.builds(lambda inner: {"usage": inner}, OBJECTS),
        "message": st.builds(lambda inner: {"usage": inner}, OBJECTS),
        "delta": st.builds(lambda inner: {"usage": inner}, OBJECTS),
        "results": st.lists(OBJECTS, max_size=2),
        "type": st.sampled_from(["message_start", "message_delta", "message", "other"]),
        "object": st.sampled_from(["thread.run.step", "thread.run", "chat.completion"]),
        "done": st.booleans(), "embeddings": st.just([]), "prompt_eval_count": COUNTS, "eval_count": COUNTS,
        "amazon-bedrock-invocationMetrics": OBJECTS, "choices": st.just([]), "text": st.text(max_size=8),
    },
)  # fmt: skip
KEYS = st.sampled_from([*FIELDS, "usage", "iterations", "meta"])
NESTED = st.recursive(COUNTS, lambda inner: st.dictionaries(KEYS, inner) | st.lists(inner, max_size=3), max_leaves=12)


def spelled(value: Any, escape: str) -> bytes:
    """JSON in which some letter of keys and strings is written as an escape."""
    text = json.dumps(value)
    return (text.replace(escape, f"\\u{ord(escape):04x}") if escape else text).encode()


@examples(120)
@given(st.lists(st.tuples(EVENTS, st.sampled_from(["", "", "k", "T", "_"])), max_size=5))
def test_the_search_that_spares_parsing_changes_nothing(events: list[tuple[Any, str]]) -> None:
    raws = [spelled(value, escape) for value, escape in events]
    assert fold_json(*raws) == fold_json(*raws, prefilter=False)


@examples(120)
@given(st.lists(EVENTS, max_size=4))
def test_parts_never_exceed_the_total(events: list[Any]) -> None:
    is_consistent(fold_json(*events))


@examples(500)
@given(st.binary(max_size=160))
def test_parts_never_exceed_the_total_whatever_the_provider(raw: bytes) -> None:
    events = events_of(raw)
    found = fold_json(*events)
    is_consistent(found)
    assert found == fold_json(*events, prefilter=False)


def test_the_bytes_speak_of_usage_in_every_shape() -> None:
    seen = set()
    chance = random.Random(1)
    for _ in range(20_000):
        found = fold_json(*events_of(chance.randbytes(chance.randrange(160))))
        seen |= set(found or ())
    assert seen >= {*COUNTS_OF_A_RECORD, "billed", "message", "output_billed", "output_placeholder"}


def is_consistent(found: dict[str, Any] | None) -> None:
    if found is None:
        return
    flat = [value for value in found.values() if type(value) in (int, Decimal)]
    assert all(value >= 0 for value in flat) and not any(type(value) is float for value in found.values())
    total, known = found["total"], found["input"]
    if total is not None:
        assert (known or 0) + (found["output"] or 0) <= total
        assert all(found.get(part) is None or found[part] <= total for part in PARTS)
        assert "message" not in found or (found["message"]["total"] or 0) <= total
    if known is not None:
        assert (found.get("cached_input") or 0) + (found.get("cache_write") or 0) <= known
        assert found.get("cache_write_1h", 0) <= found.get("cache_write", known)


@examples(100)
@given(NESTED)
def test_no_json_value_makes_the_fold_raise(value: Any) -> None:
    fold = UsageFold()
    fold.feed_json(value)
    fold.feed(Event(0, "message", "", json.dumps(value).encode()))
    fold.result()


@pytest.mark.parametrize("bad", [b"-5", b"true", b'"12"', b"NaN", b"1e400", b"[1]", b"{}", b"null", b"1" * 5000])
def test_a_hostile_count_is_absent(bad: bytes) -> None:
    found = fold_json(b'{"usage":{"prompt_tokens":%b,"completion_tokens":4}}' % bad)
    assert found is None or found == {"input": None, "output": 4, "total": None}


def test_a_hostile_event_does_not_erase_what_was_known() -> None:
    good = {"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}
    assert fold_json(good, {"usage": {"prompt_tokens": -1, "total_tokens": "7"}}) == fold_json(good)


def test_fractions_are_exact_and_whole_fractions_are_integers() -> None:
    found = fold_json(b'{"usage":{"prompt_tokens":1e2,"completion_tokens":0.1,"total_tokens":100.3}}')
    assert found == {"input": 100, "output": Decimal("0.3"), "total": Decimal("100.3"), "output_billed": Decimal("0.3")}
    assert type(found["input"]) is int


def test_a_total_below_its_parts_is_not_believed() -> None:
    found = fold_json({"usage": {"prompt_tokens": 30, "completion_tokens": 4, "total_tokens": 5}})
    assert found == {"input": 30, "output": 4, "total": 34}


def test_deep_nesting_is_no_usage_and_no_error() -> None:
    assert fold_json(b'{"usage":' + b"[" * 100_000) is None
    assert fold_json(b'{"usage":' + b'{"a":' * 5000 + b"1" + b"}" * 5001) is None


def test_a_new_provider_is_one_row() -> None:
    acme = Shape(
        name="acme", at="stats", counts={"input": "in.fresh + in.cached", "output": "out", "cached_input": "in.cached"}
    )
    events = ({"text": "a"}, {"stats": {"in": {"fresh": 4, "cached": 6}, "out": 2}})
    assert fold_json(*events, shapes=(acme, *SHAPES)) == {"input": 10, "output": 2, "total": 12, "cached_input": 6}
    assert fold_json(*events) is None


def test_a_row_may_read_lists() -> None:
    listed = Shape(
        name="listed",
        at="reports | other.reports.0",
        need="kinds.k=out.counts.1",
        counts={"input": "kinds.k=in.counts.0", "output": "kinds.k=out.counts.1"},
    )
    value = {"kinds": [{"k": "in", "counts": [4]}, {"k": "out", "counts": [0, 3]}]}
    for event in ({"reports": value}, {"other": {"reports": [value]}}):
        for prefilter in (True, False):
            found = fold_json({"text": "a"}, event, shapes=(listed,), prefilter=prefilter)
            assert found == {"input": 4, "output": 3, "total": 7}


def test_of_two_places_in_one_event_the_first_of_the_row_counts() -> None:
    twice = Shape(name="twice", at="a | b", counts={"input": "n_in", "output": "n_out"})
    event = {"b": {"n_in": 9, "n_out": 9}, "a": {"n_in": 1, "n_out": 2}}
    assert fold_json({}, event, shapes=(twice,)) == {"input": 1, "output": 2, "total": 3}


def test_one_search_serves_the_shapes_of_a_chat_stream() -> None:
    fold = UsageFold()
    fold.feed(Event(0, "message", "", b'{"choices":[{"delta":{"content":"a"}}]}'))
    event = Event(1, "message", "", b'{"choices":[{"delta":{"content":"a"}}],"usage":null}')
    fold.feed(event)
    assert event.parsed is UNREAD


def test_keys_that_may_be_spelled_in_other_ways_are_never_searched() -> None:
    assert needles(frozenset({"größe"})) is None
    assert needles(frozenset({"a/b"})) is None
    assert needles(frozenset()) == ()


def test_what_a_reseller_says_it_takes_is_in_the_record_and_is_no_count() -> None:
    counts = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    known = {"input": 12, "output": 3, "total": 15}
    # OpenRouter says a number, Perplexity an object; no number is not a cost.
    assert fold_json({"usage": {**counts, "cost": 0.000837}}) == {**known, "cost": Decimal("0.000837")}
    assert fold_json({"usage": {**counts, "cost": {"total_cost": 0.006}}}) == {**known, "cost": Decimal("0.006")}
    assert fold_json({"usage": {**counts, "cost": 20}}) == {**known, "cost": 20}
    for odd in ("0.1", None, -1, True, {}):
        assert fold_json({"usage": {**counts, "cost": odd}}) == known
    said = {"type": "response.completed", "response": {"usage": {"input_tokens": 12, "output_tokens": 3, "cost": 0.5}}}
    assert fold_json(said) == {**known, "cost": Decimal("0.5")}
    assert fold_json({"cost": 1, "choices": []}) is None


def test_a_huge_first_event_is_not_kept_while_the_server_waits():
    fold = UsageFold()
    small = b'{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}'
    fold.feed(Event(0, "message", "", small))
    assert fold._first == json.loads(small)
    fold = UsageFold()
    fold.feed(Event(0, "message", "", b'{"choices":[],"pad":"%b"}' % (b"x" * 20_000)))
    assert type(fold._first) is object
    fold.feed(Event(1, "message", "", small))
    assert fold.result()["total"] == 3
