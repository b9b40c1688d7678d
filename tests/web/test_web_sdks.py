"""The official SDKs with only base_url and key changed, against recorded provider responses: every record is right."""

import asyncio
import json
from typing import Any

import anthropic
import httpx
import openai
import pytest
from fakes.origin import FIXTURES, NO_FIXTURES, replays
from fakes.stand import UPSTREAM_KEY, Stand, running

from gatekeeper.meters import Mark

pytestmark = pytest.mark.skipif(not FIXTURES.exists(), reason=NO_FIXTURES)

MESSAGES: Any = [{"role": "user", "content": "Hello"}]


def expected() -> dict[str, dict[str, Any]]:
    rows = json.loads((FIXTURES / "expected.json").read_text()) if FIXTURES.exists() else []
    return {row["file"]: row for row in rows}


def recorded(name: str) -> Any:
    row = expected()[name]
    return replays((FIXTURES / name).read_bytes(), row["content_type"], row["status"], encoding=row["content_encoding"])


def check_record(stand: Stand, name: str) -> None:
    row = expected()[name]
    record = stand.record()
    usage = record.usage or {}
    for field in ("input", "output", "total", "cached_input", "reasoning"):
        if field in row["usage"]:
            assert usage.get(field) == row["usage"][field], (name, field, usage)
    assert record.units_micro == row["usage"]["total"] * 1_000_000
    assert record.source is Mark.MEASURED
    assert stand.held_micro() == 0
    asked = stand.origin.asked[0]
    assert asked.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert all(b"gk_" not in value for _, value in asked.headers), "the customer's key went upstream"


OPENAI_STREAMS = [
    "openai-chat-stream-usage.sse",
    "openai-chat-stream-tools-usage.sse",
    "openai-chat-stream-reasoning-usage.sse",
    "deepseek-stream-keepalive.sse",
    "openrouter-stream-comments.sse",
    "xai-stream.sse",
]


@pytest.mark.parametrize("name", OPENAI_STREAMS)
def test_the_openai_client_streams_a_chat(tmp_path, name):
    with running(tmp_path, recorded(name)) as stand:
        client = openai.OpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0)
        with (
            client,
            client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            ) as stream,
        ):
            chunks = list(stream)
        assert chunks
        check_record(stand, name)


@pytest.mark.parametrize("name", ["openai-chat-stream-usage.sse"])
def test_the_async_openai_client_streams_a_chat(tmp_path, name):
    async def call(stand: Stand) -> int:
        async with openai.AsyncOpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0) as client:
            stream = await client.chat.completions.create(
                model="gpt-4o", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
            )
            return len([chunk async for chunk in stream])

    with running(tmp_path, recorded(name)) as stand:
        assert asyncio.run(call(stand)) > 1
        check_record(stand, name)


@pytest.mark.parametrize("name", ["openai-chat.json", "openai-chat-reasoning.json", "openai-chat-cached.json.gz"])
def test_the_openai_client_completes_a_chat(tmp_path, name):
    with running(tmp_path, recorded(name)) as stand:
        with openai.OpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0) as client:
            answer = client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        assert answer.usage is not None
        assert answer.usage.total_tokens == expected()[name]["usage"]["total"]
        check_record(stand, name)


def test_the_async_openai_client_completes_a_chat(tmp_path):
    async def call(stand: Stand) -> int:
        async with openai.AsyncOpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0) as client:
            answer = await client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
            return answer.usage.total_tokens if answer.usage else 0

    with running(tmp_path, recorded("openai-chat.json")) as stand:
        assert asyncio.run(call(stand)) == expected()["openai-chat.json"]["usage"]["total"]
        check_record(stand, "openai-chat.json")


@pytest.mark.parametrize("name", ["openai-responses-stream.sse", "openai-responses-stream-reasoning.sse"])
def test_the_openai_client_streams_a_response(tmp_path, name):
    with running(tmp_path, recorded(name)) as stand:
        client = openai.OpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0)
        with client, client.responses.create(model="gpt-4o", input="Hello", stream=True) as stream:
            kinds = [event.type for event in stream]
        assert kinds[-1] == "response.completed"
        check_record(stand, name)


def test_the_openai_client_embeds(tmp_path):
    with running(tmp_path, recorded("openai-embeddings.json")) as stand:
        with openai.OpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0) as client:
            client.embeddings.create(model="text-embedding-3-small", input="Hello", encoding_format="float")
        check_record(stand, "openai-embeddings.json")


ANTHROPIC_STREAMS = [
    "anthropic-stream-cache-read.sse",
    "anthropic-stream-thinking.sse",
    "anthropic-stream-gzip.sse.gz",
    "anthropic-stream-websearch.sse",
    "anthropic-stream-compaction.sse",
]


@pytest.mark.parametrize("name", ANTHROPIC_STREAMS)
def test_the_anthropic_client_streams_a_message(tmp_path, name):
    with running(tmp_path, recorded(name)) as stand:
        client = anthropic.Anthropic(base_url=stand.url, api_key=stand.key, max_retries=0)
        with (
            client,
            client.messages.create(model="claude-test", max_tokens=100, messages=MESSAGES, stream=True) as stream,
        ):
            kinds = [event.type for event in stream]
        assert kinds[-1] == "message_stop"
        check_record(stand, name)


def test_the_async_anthropic_client_streams_a_message(tmp_path):
    async def call(stand: Stand) -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=stand.url, api_key=stand.key, max_retries=0) as client:
            stream = await client.messages.create(model="claude-test", max_tokens=100, messages=MESSAGES, stream=True)
            return [event.type async for event in stream]

    with running(tmp_path, recorded("anthropic-stream-thinking.sse")) as stand:
        assert asyncio.run(call(stand))[-1] == "message_stop"
        check_record(stand, "anthropic-stream-thinking.sse")


@pytest.mark.parametrize("name", ["gemini-stream-basic-crlf.sse", "gemini-stream-jsonarray.json", "gemini-cached.json"])
def test_gemini_over_plain_http(tmp_path, name):
    verb = "generateContent" if name == "gemini-cached.json" else "streamGenerateContent"
    with running(tmp_path, recorded(name)) as stand:
        answer = httpx.post(
            f"{stand.url}/v1beta/models/gemini-2.5-flash:{verb}?key={stand.key}&alt=sse",
            json={"contents": [{"parts": [{"text": "Hello"}]}]},
        )
        assert answer.content == (FIXTURES / name).read_bytes()
        check_record(stand, name)
        assert stand.origin.asked[0].target == f"/v1beta/models/gemini-2.5-flash:{verb}?alt=sse".encode()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("openai-401.json", openai.AuthenticationError), ("openai-429.json", openai.RateLimitError),
     ("openai-500.json", openai.InternalServerError)],
)  # fmt: skip
def test_an_error_of_the_provider_reaches_the_sdk_and_charges_nothing(tmp_path, name, kind):
    with running(tmp_path, recorded(name)) as stand:
        with openai.OpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0) as client, pytest.raises(kind):
            client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
        record = stand.record()
        assert (record.units_micro, record.source, record.note) == (0, Mark.NONE, "status")
        assert record.status == expected()[name]["status"]
        assert stand.held_micro() == 0
