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
    "other embeddings": ("ollama", "gemini", "cohere"),
    "rerank": ("cohere",),
    "transcriptions": ("openai-transcription", "openai-translation"),
    "speech": ("openai-speech",),
    "assistants": ("openai-assistants",),
    "llamacpp": ("llamacpp",),
    "watsonx": ("watsonx",),
    "tgi": ("tgi-generate",),
    "replicate": ("replicate",),
    "bedrock": ("bedrock-converse",),
    "bedrock invoke": ("bedrock-converse", "anthropic"),
}
_CACHE_CREATION = {
    f"usage.cache_creation{key}" for key in ("", ".ephemeral_5m_input_tokens", ".ephemeral_1h_input_tokens")
}
_ERRORS = {"error", "error.message", "error.type", "error.code"}
_BEDROCK = {
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html, and its exceptions.
    *(f"usage.{key}" for key in (
        "cacheReadInputTokens", "cacheWriteInputTokens", "cacheDetails", "cacheDetails[].ttl",
        "cacheDetails[].inputTokens",
    )),
    "message", "output", "output.message", "output.message.role", "output.message.content",
    "output.message.content[].text",
    # https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters-meta.html, and Amazon's own count.
    "generation", "prompt_token_count", "generation_token_count", "stop_reason", "amazon-bedrock-invocationMetrics",
    *(f"amazon-bedrock-invocationMetrics.{key}" for key in (
        "inputTokenCount", "outputTokenCount", "invocationLatency", "firstByteLatency", "cacheReadInputTokenCount",
        "cacheWriteInputTokenCount",
    )),
    *_CACHE_CREATION,
}  # fmt: skip
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
        *_CACHE_CREATION,
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
    # https://docs.cohere.com/reference/embed, https://ai.google.dev/api/embeddings, and Ollama's docs/api.md.
    "other embeddings": {
        "id", "embeddings", "embeddings.float", "texts", "meta", "meta.api_version", "meta.api_version.version",
        "meta.billed_units", "meta.billed_units.input_tokens", "embedding", "embedding.values", "embeddings[].values",
    },
    # https://docs.cohere.com/reference/rerank
    "rerank": {
        "id", "results", "results[].index", "results[].relevance_score", "meta", "meta.api_version",
        "meta.api_version.version", "meta.billed_units", "meta.billed_units.search_units",
    },
    # https://platform.openai.com/docs/api-reference: events of errors, runs that fail or wait.
    "transcriptions": _ERRORS,
    "assistants": {"last_error.code", "last_error.message", "required_action.type"},
    "llamacpp": {
        *_ERRORS, "choices[].message", "choices[].message.role", "choices[].message.content",
    },
    # https://cloud.ibm.com/apidocs/watsonx-ai: errors.
    "watsonx": {"errors", "errors[].code", "errors[].message", "trace"},
    # https://github.com/huggingface/text-generation-inference/blob/main/docs/openapi.json
    "tgi": {"error", "error_type", "details.input_length", "details.prefill", "details.tokens"},
    # https://replicate.com/docs/reference/http: predictions, and how their streams end.
    "replicate": {
        "detail", "reason", "id", "model", "version", "input", "input.prompt", "urls", "urls.get", "urls.stream",
        "created_at", "error", "logs", "status", "output", "metrics", "metrics.predict_time", "metrics.total_time",
    },
    "bedrock": _BEDROCK,
    "bedrock invoke": _BEDROCK,
}  # fmt: skip
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
        known |= _ERRORS | _CHAT_ANSWER
    made = set()
    for stream in sampled(STRATEGIES[name](cuts=False), 40):
        if stream.status == 200:
            made |= said(stream.bytes, stream.content_type, stream.content_encoding)
    assert made <= known, sorted(made - known)
    assert len(made) > (3 if name != "replicate" else 0)


# Their recordings are of another endpoint of the same provider.
NOT_RECORDED = ("other embeddings", "rerank", "bedrock invoke")
_CHAT = {"usage.prompt_tokens", "usage.completion_tokens", "usage.total_tokens"}
# Counts that a recording shows and that are not made up.
LEFT_OUT = {
    # The recording of Groq's keep-alive is of DeepSeek.
    "groq": {"usage.prompt_cache_hit_tokens", "usage.prompt_cache_miss_tokens",
             "usage.prompt_tokens_details.cached_tokens"},
    # Ollama's other door speaks OpenAI's language.
    "ollama": _CHAT,
}  # fmt: skip
_COUNTING = ("usage", "usageMetadata", "timings", "details", "results", "meta", "x_groq", "billed_units")


def counting(paths):
    """Those of the paths that lead to a count."""
    words = ("tokens", "count", "Tokens", "Count", "_n", "seconds", "units", "requests")
    return {path for path in paths if set(path.replace("[]", "").split(".")) & set(_COUNTING) and path.endswith(words)}


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in NOT_RECORDED])
def test_no_count_of_the_recordings_is_left_out(name):
    made = set()
    for seed in range(2):
        for stream in sampled(STRATEGIES[name](cuts=False, errors=False, noise=False, encodings=False), 40, seed):
            made |= said(stream.bytes, stream.content_type, stream.content_encoding)
    shown = counting(recorded(RECORDINGS[name]))
    assert shown - made <= LEFT_OUT.get(name, set()), sorted(shown - made)


def test_an_invented_key_would_be_seen():
    assert key_paths({"a": [{"b": 1}, {"c": {"d": None}}]}) == {"a", "a[].b", "a[].c", "a[].c.d"}
    assert "usage" in said(b'data: {"usage": null}\n\n', "text/event-stream", "")
