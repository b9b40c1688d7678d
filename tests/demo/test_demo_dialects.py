"""The shapes that meters depend on, looked at as bytes."""

import asyncio
import json

import httpx
import pytest

from gatekeeper.demo.provider import DEMO_KEYS, build_app, expected_usage

CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}
MESSAGES = {**CHAT, "max_tokens": 20}
CONTENTS = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
BEARER = {"authorization": f"Bearer {DEMO_KEYS['openai']}"}
X_API_KEY = {"x-api-key": DEMO_KEYS["anthropic"]}
GOOGLE = {"x-goog-api-key": DEMO_KEYS["gemini"]}
GEMINI_STREAM = "/v1beta/models/demo-small:streamGenerateContent"


def post(path: str, body: object, headers: dict) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(app=build_app(tokens_per_s=0))
        async with httpx.AsyncClient(transport=transport, base_url="http://provider") as client:
            return await client.post(path, json=body, headers={"accept-encoding": "identity", **headers})

    return asyncio.run(call())


def data_lines(body: bytes) -> list[str]:
    return [line.removeprefix("data: ") for line in body.decode().split("\n") if line.startswith("data: ")]


def chunks(**more: object) -> list[dict]:
    lines = data_lines(post("/v1/chat/completions", {**CHAT, "stream": True, **more}, BEARER).content)
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def test_usage_that_was_not_asked_for_is_nowhere_in_a_chat_stream():
    assert all("usage" not in chunk for chunk in chunks())
    assert all("usage" not in chunk for chunk in chunks(stream_options={"include_usage": False}))


def test_usage_that_was_asked_for_comes_alone_and_is_null_before():
    *before, last = chunks(stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == expected_usage("openai", CHAT)["total"]
    assert all(chunk["usage"] is None and chunk["choices"] for chunk in before)


def test_mistral_models_put_usage_into_the_finish_chunk_unasked():
    *before, last = chunks(model="mistral-small")
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["usage"]["total_tokens"] == expected_usage("openai", CHAT)["total"]
    assert all("usage" not in chunk for chunk in before)


def test_choices_are_interleaved():
    order = [chunk["choices"][0]["index"] for chunk in chunks(n=2) if chunk["choices"][0]["delta"].get("content")]
    assert order[:4] == [0, 1, 0, 1]


def test_the_responses_stream_holds_usage_in_its_last_event_only():
    asked = {"model": "demo-small", "input": [{"role": "user", "content": "Hello"}]}
    lines = data_lines(post("/v1/responses", {**asked, "stream": True}, BEARER).content)
    *before, last = [json.loads(line) for line in lines]
    assert last["type"] == "response.completed"
    assert last["response"]["usage"]["total_tokens"] == expected_usage("openai-responses", asked)["total"]
    assert all(event.get("response", {}).get("usage") is None for event in before)


def test_the_message_stream_has_the_order_of_the_documentation():
    body = post("/v1/messages", {**MESSAGES, "stream": True}, X_API_KEY).content
    events = [json.loads(line) for line in data_lines(body)]
    names = [line.removeprefix("event: ") for line in body.decode().split("\n") if line.startswith("event: ")]
    assert names == [event["type"] for event in events]
    assert names[:3] == ["message_start", "content_block_start", "ping"]
    assert set(names[3:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    expected = expected_usage("anthropic", MESSAGES)
    begun, final = events[0]["message"]["usage"], events[-2]["usage"]
    assert (begun["input_tokens"], begun["output_tokens"]) == (expected["input"], 1)
    assert (final["input_tokens"], final["output_tokens"]) == (expected["input"], expected["output"])


def test_gemini_streams_events_with_crlf_and_cumulative_usage():
    answer = post(f"{GEMINI_STREAM}?alt=sse", CONTENTS, GOOGLE)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.content.count(b"\n") == answer.content.count(b"\r\n")
    *before, last = [json.loads(line) for line in data_lines(answer.content.replace(b"\r\n", b"\n"))]
    expected = expected_usage("gemini", CONTENTS)
    assert before
    assert last["usageMetadata"]["totalTokenCount"] == expected["total"]
    assert last["usageMetadata"]["candidatesTokenCount"] == expected["output"]
    assert all(reply["usageMetadata"]["totalTokenCount"] == expected["input"] for reply in before)
    assert last["candidates"][0]["finishReason"] == "STOP"


def test_gemini_without_events_streams_one_array_with_the_same_replies():
    events = post(f"{GEMINI_STREAM}?alt=sse", CONTENTS, GOOGLE).content.replace(b"\r\n", b"\n")
    array = post(f"{GEMINI_STREAM}?key={DEMO_KEYS['gemini']}", CONTENTS, {})
    assert array.headers["content-type"] == "application/json"
    replies = [json.loads(line) for line in data_lines(events)]
    assert [reply["candidates"] for reply in array.json()] == [reply["candidates"] for reply in replies]
    assert array.json()[-1]["usageMetadata"] == replies[-1]["usageMetadata"]


def test_gemini_answers_at_once_and_counts():
    bounded = {**CONTENTS, "generationConfig": {"maxOutputTokens": 4, "candidateCount": 2}}
    whole = post("/v1beta/models/demo-small:generateContent", bounded, GOOGLE).json()
    assert [candidate["finishReason"] for candidate in whole["candidates"]] == ["MAX_TOKENS", "MAX_TOKENS"]
    assert whole["usageMetadata"]["candidatesTokenCount"] == 8 == expected_usage("gemini", bounded)["output"]
    assert post("/v1beta/models/demo-small:countTokens", CONTENTS, GOOGLE).json()["totalTokens"] == 2
    assert post("/v1beta/models/demo-small:dance", CONTENTS, GOOGLE).status_code == 404


IN_EVERY_DIALECT = pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/v1/chat/completions", {**CHAT, "stream": True, "stream_options": {"include_usage": True}}, BEARER),
        ("/v1/messages", {**MESSAGES, "stream": True}, X_API_KEY),
        (f"{GEMINI_STREAM}?alt=sse", CONTENTS, GOOGLE),
        (GEMINI_STREAM, CONTENTS, GOOGLE),
    ],
)


@IN_EVERY_DIALECT
def test_a_stream_can_leave_usage_out(path, body, headers):
    answer = post(path, body, {**headers, "x-demo": "no-usage"}).content.decode().lower()
    assert "tokens" not in answer.replace("max_tokens", "")
    assert "tokencount" not in answer


@IN_EVERY_DIALECT
def test_a_stream_can_be_compressed_if_the_caller_takes_gzip(path, body, headers):
    squeezed = post(path, body, {**headers, "x-demo": "gzip", "accept-encoding": "gzip"})
    assert squeezed.headers["content-encoding"] == "gzip"
    assert squeezed.text == post(path, body, headers).text
    assert "content-encoding" not in post(path, body, {**headers, "x-demo": "gzip"}).headers


@IN_EVERY_DIALECT
def test_a_stream_can_hold_one_huge_event_and_the_same_json(path, body, headers):
    huge, plain = post(path, body, {**headers, "x-demo": "huge"}).text, post(path, body, headers).text
    assert len(huge) - len(plain) == 128 * 1024
    assert huge.replace(" " * 128 * 1024, "") == plain


@IN_EVERY_DIALECT
def test_a_stream_can_end_in_an_error(path, body, headers):
    answer = post(path, body, {**headers, "x-demo": "error-midstream"})
    assert answer.status_code == 200
    assert '"error"' in answer.text
    assert answer.text.count("\n") < post(path, body, headers).text.count("\n")


@IN_EVERY_DIALECT
def test_a_stream_can_be_garbage(path, body, headers):
    answer = post(path, body, {**headers, "x-demo": "garbage"})
    assert answer.status_code == 200
    with pytest.raises(UnicodeDecodeError):
        answer.content.decode()
