"""What is made up looks like what was recorded: it uses no key that no provider ever sent."""

import json
from pathlib import Path

import pytest
from testing_dialects import STRATEGIES, sampled

from gatekeeper.wire.tap import Tap

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
# Which recordings show how a dialect speaks: by the beginnings of their names.
RECORDINGS = {
    "openai": ("openai-chat",),
    "azure": ("azure-chat", "openai-chat"),
    "mistral": ("mistral",),
    "deepseek": ("deepseek-stream", "deepseek-keepalive"),
    "groq": ("groq", "deepseek-stream-keepalive"),
    "xai": ("xai",),
    "openrouter": ("openrouter",),
    "perplexity": ("perplexity",),
    "vllm": ("vllm",),
    "completions": ("openai-completions", "vllm-completions", "openai-chat-stream-error"),
    "responses": ("openai-responses", "bedrock-mantle", "deepseek-responses"),
    "anthropic": ("anthropic", "trunc-anthropic"),
    "gemini": ("gemini", "vertex"),
    "cohere": ("cohere",),
    "ollama": ("ollama",),
    "embeddings": ("openai-embeddings",),
    "images": ("openai-image",),
}
# Keys that no recording here shows, from the providers' API references.
DOCUMENTED = {
    "openai": {"choices[].text"},
    # https://learn.microsoft.com/azure/ai-foundry/openai/reference: usage in a stream is as OpenAI's.
    "groq": {
        # https://console.groq.com/docs/api-reference: usage with its times, and under x_groq in older streams.
        *(f"{at}.{key}" for at in ("usage", "x_groq.usage") for key in (
            "prompt_tokens", "completion_tokens", "total_tokens", "queue_time", "prompt_time", "completion_time",
            "total_time",
        )),
        "usage", "x_groq.usage",
    },
    "vllm": {"choices[].message", "choices[].message.role", "choices[].message.content", "error", "error.message",
             "error.type", "error.code"},
    "completions": {"system_fingerprint", "service_tier"},
    # https://platform.openai.com/docs/api-reference/responses: what tools used stands beside the usage.
    "responses": {
        "response.tool_usage", "tool_usage",
        *(f"{at}tool_usage.{key}" for at in ("", "response.") for key in (
            "image_gen", "image_gen.input_tokens", "image_gen.output_tokens", "image_gen.total_tokens", "web_search",
            "web_search.num_requests",
        )),
        # Bedrock's answer that is not streamed is written like its terminal event.
        "usage.input_tokens_details.cache_write_tokens",
    },
    # https://docs.anthropic.com/en/api/messages: the answer that is not streamed.
    "anthropic": {
        "id", "role", "model", "content", "content[].type", "content[].text", "stop_reason", "stop_sequence",
    },
    # https://docs.cohere.com/reference: v1, and v2 that is not streamed.
    "cohere": {
        "is_finished", "event_type", "generation_id", "text", "finish_reason", "response", "response.text",
        "response.generation_id", "meta", "usage", "message", "message.role", "message.content",
        "message.content[].type", "message.content[].text",
        *(f"{at}{key}" for at in ("response.meta", "meta") for key in ("", ".api_version", ".api_version.version")),
        *(
            f"{at}.{part}"
            for at in ("response.meta", "meta", "usage")
            for part in (
                "tokens", "tokens.input_tokens", "tokens.output_tokens", "billed_units", "billed_units.input_tokens",
                "billed_units.output_tokens",
            )
        ),
    },
    # https://github.com/ollama/ollama/blob/main/docs/api.md: an error in the stream.
    "ollama": {"error"},
}  # fmt: skip
_CHAT_ERRORS = {"error", "error.message", "error.type", "error.code"}
_CHAT_ANSWER = {"choices[].message", "choices[].message.role", "choices[].message.content"}


def key_paths(value, before=""):
    """``{"a": [{"b": 1}]}`` -> a, a[].b"""
    if isinstance(value, list):
        return {path for item in value for path in key_paths(item, f"{before}[]")}
    if not isinstance(value, dict):
        return set()
    paths = {f"{before}.{key}" if before else key for key in value}
    return paths.union(*(key_paths(item, f"{before}.{key}" if before else key) for key, item in value.items()))


def said(body, content_type, content_encoding):
    tap = Tap(content_type, content_encoding)
    events = [*tap.feed(body)[1], *tap.finish(True)]
    return {path for event in events for path in key_paths(event.json)}


def recorded(beginnings):
    if not FIXTURES.exists():
        pytest.skip("there are no recordings beside this checkout")
    cases = json.loads((FIXTURES / "expected.json").read_text())
    chosen = [case for case in cases if case["file"].startswith(beginnings) and case["status"] == 200]
    assert chosen, beginnings
    bodies = ((FIXTURES / case["file"], case["content_type"], case["content_encoding"]) for case in chosen)
    return set().union(*(said(path.read_bytes(), kind, coding) for path, kind, coding in bodies))


@pytest.mark.parametrize("name", STRATEGIES)
def test_no_key_is_invented(name):
    known = recorded(RECORDINGS[name]) | DOCUMENTED.get(name, set())
    if name in ("mistral", "deepseek", "xai", "azure", "perplexity", "groq", "openrouter"):
        # They answer as OpenAI does where no recording of their own shows it.
        known |= _CHAT_ERRORS | _CHAT_ANSWER
    made = set()
    for stream in sampled(STRATEGIES[name](cuts=False), 60):
        if stream.status == 200:
            made |= said(stream.bytes, stream.content_type, stream.content_encoding)
    assert made <= known, sorted(made - known)
    assert len(made) > 3


def test_an_invented_key_would_be_seen():
    assert key_paths({"a": [{"b": 1}, {"c": {"d": None}}]}) == {"a", "a[].b", "a[].c", "a[].c.d"}
    assert "usage" in said(b'data: {"usage": null}\n\n', "text/event-stream", "")
