"""What a stream says besides usage: over, failed, its id, and how much text went out."""

import json
from pathlib import Path
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.wire.events import Event
from gatekeeper.wire.signals import Signals
from gatekeeper.wire.tap import Tap

STREAMS = Path(__file__).resolve().parents[1] / "streams"
FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
OWN = {case["file"]: case for case in json.loads((STREAMS / "expected.json").read_text())}
RECORDED = json.loads((FIXTURES / "expected.json").read_text()) if FIXTURES.exists() else []


def signals_of(body: bytes, case: dict[str, Any]) -> Signals:
    tap, signals = Tap(case["content_type"], case["content_encoding"]), Signals()
    for event in tap.feed(body)[1] + tap.finish(True):
        signals.feed(event)
    signals.feed_tail(tap.tail)
    return signals


def own(name: str) -> Signals:
    return signals_of((STREAMS / name).read_bytes(), OWN[name])


def after(*values: Any, event: str = "message") -> Signals:
    signals = Signals()
    for index, value in enumerate(values):
        signals.feed(Event(index, event, "", value if isinstance(value, bytes) else json.dumps(value).encode()))
    return signals


@pytest.mark.parametrize(
    ("name", "terminal", "error", "response_id", "text_bytes"),
    [
        ("openai_chat_usage.sse", True, False, "chatcmpl-own1", len("Good day")),
        ("openai_chat.json", False, False, "chatcmpl-own2", 2),
        ("openai_assistants.sse", True, False, "run_own", 2),
        ("openai_assistants_cut.sse", False, False, "run_own", 0),
        ("openai_responses.sse", True, False, "resp_own", 2),
        ("openai_responses_incomplete.sse", True, False, "resp_own", 0),
        ("openai_responses_failed.sse", True, True, "resp_own", 0),
        ("openai_transcription.sse", True, False, None, 5),
        ("anthropic_new.sse", True, False, "msg_own", 2),
        ("anthropic_cut.sse", False, False, "msg_own", 2),
        ("anthropic.json", False, False, "msg_own", 2),
        ("gemini.sse", False, False, "own-g", 3),
        ("gemini_error.sse", False, True, "own-g", 1),
        ("cohere_v2.sse", True, False, "own-c", 2),
        ("cohere_v1.ndjson", True, False, "own-c", 2),
        ("bedrock_converse.bin", True, False, None, 2),
        ("bedrock_invoke.bin", False, False, None, 2),
        ("bedrock_invoke_anthropic.bin", True, False, "msg_own", 2),
        ("watsonx.sse", False, False, None, 2),
        ("tgi.sse", False, False, None, 3),
        ("ollama_chat.ndjson", True, False, None, 2),
        ("ollama_cached.ndjson", True, False, None, 2),
        ("replicate.sse", True, False, None, len("Hi there")),
    ],
)
def test_a_stream_is_understood(
    name: str, terminal: bool, error: bool, response_id: str | None, text_bytes: int
) -> None:
    found = own(name)
    assert (found.terminal, found.error, found.response_id, found.text_bytes) == (
        terminal,
        error,
        response_id,
        text_bytes,
    )


def test_a_cut_stream_is_not_terminal() -> None:
    body = (STREAMS / "openai_chat_usage.sse").read_bytes()
    assert not signals_of(body[: body.index(b"data: [DONE]")], OWN["openai_chat_usage.sse"]).terminal


def test_a_finish_reason_is_remembered_but_does_not_end_gemini() -> None:
    assert own("gemini.sse").finished
    assert not own("gemini_array_cut.json").finished


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"error": {"message": "no"}}, "message"),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "error"),
        ({"message": "slow down"}, "throttlingException"),
        ({"choices": [{"finish_reason": "error"}]}, "message"),
        ({"type": "response.failed", "response": {"usage": None}}, "message"),
        (b"the prediction failed", "error"),
    ],
)
def test_an_error_inside_a_stream_is_seen(value: Any, name: str) -> None:
    assert after(value, event=name).error


def test_an_absent_error_is_none() -> None:
    assert not after({"id": "a", "error": None, "choices": []}, {"response": {"error": None}}).error


@pytest.mark.skipif(not RECORDED, reason="the recorded responses are not on this machine")
@pytest.mark.parametrize(
    "case", [case for case in RECORDED if "in_stream_error" in case], ids=lambda case: case["file"]
)
def test_a_recorded_error_is_seen(case: dict[str, Any]) -> None:
    found = signals_of((FIXTURES / case["file"]).read_bytes(), case)
    bare = case["file"] == "gemini-stream-error-midstream.sse"  # an SSE parser alone cannot see this one
    assert found.error is (case["in_stream_error"] or bare)


@pytest.mark.parametrize(
    ("value", "text_bytes"),
    [
        ({"choices": [{"delta": {"content": "żółw 🐢"}}]}, len("żółw 🐢".encode())),
        ({"choices": [{"delta": {"reasoning_content": "abc", "content": None}}, {"delta": {"content": "de"}}]}, 5),
        ({"choices": [{"delta": {"reasoning": "abc", "reasoning_details": [{"text": "abc"}]}}]}, 3),
        ({"choices": [{"delta": {"tool_calls": [{"id": "x", "function": {"name": "f", "arguments": "{}"}}]}}]}, 3),
        ({"choices": [{"delta": {"content": "ab"}, "message": {"content": "all so far, ab"}}]}, 2),
        ({"choices": [{"text": "abc", "logprobs": {"content": [{"token": "abc"}]}}]}, 3),
        (
            {"choices": [{"delta": {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]}}]},
            2,
        ),
        ({"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": '{"a"'}}, 4),
        ({"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm"}}, 2),
        ({"type": "response.function_call_arguments.delta", "delta": "{}"}, 2),
        ({"type": "response.audio.delta", "delta": "AAAA"}, 0),
        ({"type": "response.completed", "response": {"output": [{"content": [{"text": "again"}]}]}}, 0),
        ({"candidates": [{"content": {"parts": [{"functionCall": {"name": "f", "args": {"a": 1}}}]}}]}, 1 + 7),
        ({"delta": {"toolUse": {"input": '{"a"'}}}, 4),
        ({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": "I will"}}}, 6),
        ({"error": {"message": "not text"}}, 0),
        ({"data": [{"embedding": [0.5]}], "usage": {}}, 0),
        (b"just text", 9),
        (b"[DONE]", 0),
    ],
)
def test_text_is_counted_in_utf8_bytes(value: Any, text_bytes: int) -> None:
    assert after(value).text_bytes == text_bytes


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["choices", "delta", "message", "content", "text", "type", "id", "error", "response", "args",
                         "done", "candidates", "finish_reason", "finishReason", "object", "input", "output",
                         "event_type"]),
        inner, max_size=4),
    max_leaves=15,
)  # fmt: skip


@examples(150)
@given(st.lists(VALUES, max_size=3), st.sampled_from(["message", "error", "output"]), st.binary(max_size=9))
def test_no_event_makes_it_raise(values: list[Any], name: str, tail: bytes) -> None:
    found = after(*values, event=name)
    found.feed_tail(tail)
    assert found.text_bytes >= 0


def test_deep_nesting_is_harmless() -> None:
    assert after(b'{"delta":' * 900 + b"1" + b"}" * 900).text_bytes == 0
    assert after(b'{"content":[' * 450 + b"1" + b"]}" * 450).text_bytes == 0


@pytest.mark.parametrize("depth", [200, 600, 1010])
def test_arguments_nested_too_deep_for_the_encoder_are_counted_at_least(depth: int) -> None:
    arguments = '{"a":' + "[" * depth + '"word"' + "]" * depth + "}"
    line = f'{{"message":{{"tool_calls":[{{"function":{{"arguments":{arguments}}}}}]}}}}'
    assert len(arguments) <= after(line.encode()).text_bytes <= 2 * len(arguments)


@pytest.mark.parametrize(
    "chunk",
    [
        {"choices": [{"delta": {}, "text": "abc"}]},
        {"choices": [{"delta": {"role": "assistant"}, "reasoning_content": "abc"}]},
        {"choices": [{"delta": {}}], "text": "abc"},
        {"choices": [{"delta": {}, "message": {"content": "never"}}], "delta": "abc"},
    ],
)
def test_text_that_stands_beside_the_delta_of_a_chat_chunk_counts(chunk: dict[str, Any]) -> None:
    assert after({"object": "chat.completion.chunk", **chunk}).text_bytes == len("abc")
