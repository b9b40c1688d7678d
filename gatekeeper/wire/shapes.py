"""Where each provider writes its usage: one row for each shape, first match wins. No code, so that a row fits in TOML.

The rule: a new provider is a new row. Sources: the providers' API references, checked against recorded responses.
"""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to write usage.

    A *path* is ``a.b``, with ``0`` for a list's first element and ``k=v`` for the element whose ``k`` is ``v``.
    ``|`` separates alternatives (the first present wins), ``+`` adds (a missing term counts 0, all missing: absent).
    Values that are no number from 0 to 10^18 are absent. The counts' names are the keys of the normalised record:
    ``input`` includes cached tokens, ``output`` includes reasoning; ``seconds`` and ``requests`` are not tokens.
    """

    name: str
    # Paths of the object that holds the counts; "" is the whole event. All other paths but conditions start here.
    at: str
    counts: dict[str, str] = field(hash=False)
    # The event speaks of usage only if one of these paths is a number. Also what the prefilter looks for.
    need: str = ""
    # Conditions on the event, joined by `,`: `path` (is there), `path = a | b`, `path != a | b`.
    when: str = ""
    # The same, on the first event of the response; a shape that fails it is not looked for any more.
    opening: str = ""
    # `last`: the last event that speaks of usage. `fields`: each field from the last event that has it.
    keep: Literal["last", "fields"] = "last"
    # With `fields`: paths whose first value that is not 0 stays.
    first: str = ""
    # Counts that are 0 where the provider leaves them out.
    zero: tuple[str, ...] = ()
    # Output is all of the total that is not input: always when larger (`more`), or only where it is absent (`absent`).
    rest: Literal["", "more", "absent"] = ""
    # At this `at`, this path is a guess that later events replace; alone it leaves the output unknown.
    placeholder_at: str = ""
    placeholder: str = ""
    # A list of parts, each written like the whole: what is billed is their sum, the whole moves under `message`.
    iterations: str = ""
    # An object of further counts, copied under `billed` as the provider names them.
    billed: str = ""


_ANTHROPIC = Shape(
    # https://docs.anthropic.com/en/api/messages-streaming: the counts in message_delta are cumulative.
    name="anthropic",
    when="type = message_start | message_delta | message",
    at="message.usage | usage",
    need="input_tokens | output_tokens",
    keep="fields",
    counts={
        "input": "input_tokens + cache_read_input_tokens + cache_creation_input_tokens",
        "output": "output_tokens",
        "cached_input": "cache_read_input_tokens",
        "cache_write": "cache_creation_input_tokens",
        "reasoning": "output_tokens_details.thinking_tokens",
        "requests": "server_tool_use.web_search_requests",
    },
    zero=("cached_input", "cache_write"),
    placeholder_at="message.usage",
    placeholder="output_tokens",
    iterations="iterations",
)

_RESPONSES = Shape(
    # Responses (stream and body), images, speech and transcription in tokens.
    name="openai_responses",
    at="response.usage | usage",
    need="input_tokens | output_tokens",
    counts={
        "input": "input_tokens",
        "output": "output_tokens",
        "total": "total_tokens",
        "cached_input": "input_tokens_details.cached_tokens | input_token_details.cached_tokens",
        "cache_write": "input_tokens_details.cache_write_tokens",
        "reasoning": "output_tokens_details.reasoning_tokens",
        "audio_input": "input_tokens_details.audio_tokens | input_token_details.audio_tokens",
        "audio_output": "output_tokens_details.audio_tokens | output_token_details.audio_tokens",
        "image_input": "input_tokens_details.image_tokens",
        "image_output": "output_tokens_details.image_tokens",
    },
)

_CHAT = Shape(
    # Chat completions, completions, embeddings, Assistants runs (whose steps add up to the run), and look-alikes.
    # xAI leaves reasoning out of completion_tokens; older Groq streams have usage only in x_groq.
    name="openai_chat",
    when="object != thread.run.step",
    at="usage | x_groq.usage",
    need="prompt_tokens | completion_tokens | total_tokens",
    rest="more",
    counts={
        "input": "prompt_tokens",
        "output": "completion_tokens",
        "total": "total_tokens",
        "cached_input": "prompt_tokens_details.cached_tokens | prompt_token_details.cached_tokens"
        " | prompt_cache_hit_tokens | cached_tokens",
        "cache_write": "prompt_tokens_details.cache_write_tokens",
        "reasoning": "completion_tokens_details.reasoning_tokens | completion_token_details.reasoning_tokens",
        "audio_input": "prompt_tokens_details.audio_tokens",
        "audio_output": "completion_tokens_details.audio_tokens",
        "requests": "num_search_queries",
    },
)

_DURATION = Shape(
    name="openai_duration",
    at="usage",
    opening="usage.seconds",
    need="seconds",
    counts={"seconds": "seconds"},
)

_GEMINI = Shape(
    # https://ai.google.dev/api/generate-content#UsageMetadata: cumulative in every event, and the last may be lower.
    # Early events of Vertex have the object without the count.
    name="gemini",
    at="usageMetadata | response.usageMetadata",
    need="totalTokenCount",
    rest="absent",
    counts={
        "input": "promptTokenCount + toolUsePromptTokenCount",
        "output": "candidatesTokenCount + responseTokenCount + thoughtsTokenCount",
        "total": "totalTokenCount",
        "cached_input": "cachedContentTokenCount",
        "reasoning": "thoughtsTokenCount",
        "audio_input": "promptTokensDetails.modality=AUDIO.tokenCount",
        "audio_output": "candidatesTokensDetails.modality=AUDIO.tokenCount",
    },
)

_GEMINI_EMBED = Shape(
    name="gemini_embed",
    when="embedding | embeddings",
    at="usageMetadata",
    need="promptTokenCount",
    counts={"input": "promptTokenCount", "total": "totalTokenCount"},
)

_COHERE_COUNTS = {
    "input": "tokens.input_tokens | billed_units.input_tokens",
    "output": "tokens.output_tokens | billed_units.output_tokens",
}

_COHERE = Shape(
    # v2 stream, v2 body, v1 stream, v1 body. `tokens` is what the model read, `billed_units` what is billed.
    name="cohere",
    at="delta.usage | usage | response.meta | meta",
    need="tokens.input_tokens | tokens.output_tokens | billed_units.input_tokens | billed_units.output_tokens",
    counts=_COHERE_COUNTS,
    billed="billed_units",
)

_COHERE_EMBED = Shape(
    name="cohere_embed",
    when="embeddings",
    at="meta",
    need="billed_units.input_tokens | billed_units.image_tokens",
    counts={"input": "billed_units.input_tokens + billed_units.image_tokens"},
    billed="billed_units",
)

_COHERE_RERANK = Shape(
    name="cohere_rerank",
    at="meta",
    opening="meta.billed_units",
    need="billed_units.search_units",
    counts={"requests": "billed_units.search_units"},
    billed="billed_units",
)

_CONVERSE = Shape(
    # https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html; input excludes the cache.
    name="bedrock_converse",
    at="usage",
    need="inputTokens | outputTokens",
    counts={
        "input": "inputTokens + cacheReadInputTokens + cacheWriteInputTokens",
        "output": "outputTokens",
        "total": "totalTokens",
        "cached_input": "cacheReadInputTokens",
        "cache_write": "cacheWriteInputTokens",
    },
)

_INVOKE = Shape(
    # The last chunk of InvokeModelWithResponseStream, whatever the model inside says in its own words.
    name="bedrock_invoke",
    at="amazon-bedrock-invocationMetrics",
    need="inputTokenCount | outputTokenCount",
    counts={
        "input": "inputTokenCount + cacheReadInputTokenCount + cacheWriteInputTokenCount",
        "output": "outputTokenCount",
        "cached_input": "cacheReadInputTokenCount",
        "cache_write": "cacheWriteInputTokenCount",
    },
)

_WATSONX = Shape(
    # The first event has the input (later 0), every event the output so far.
    name="watsonx",
    at="results.0",
    need="generated_token_count | input_token_count",
    keep="fields",
    first="input_token_count",
    counts={"input": "input_token_count", "output": "generated_token_count"},
)

_TGI = Shape(
    # The last event of /generate_stream; the prompt is never counted.
    name="tgi",
    at="details",
    need="generated_tokens",
    counts={"output": "generated_tokens"},
)

_OLLAMA = Shape(
    # https://github.com/ollama/ollama/blob/main/docs/api.md: a count of 0 is left out (a prompt that was cached).
    name="ollama",
    opening="done",
    when="done = true",
    at="",
    need="eval_count | prompt_eval_count",
    zero=("input", "output"),
    counts={"input": "prompt_eval_count", "output": "eval_count"},
)

_OLLAMA_EMBED = Shape(
    name="ollama_embed",
    opening="embeddings",
    at="",
    need="prompt_eval_count",
    counts={"input": "prompt_eval_count"},
)

_LLAMACPP = Shape(
    # Where llama.cpp sends no usage its timings tell; prompt_n leaves out what came from the cache.
    name="llamacpp_timings",
    at="timings",
    need="prompt_per_token_ms | predicted_per_token_ms",
    counts={"input": "prompt_n + cache_n", "output": "predicted_n", "cached_input": "cache_n"},
)

# The order decides where one event, or one response, fits several: the provider's own words before a wrapper's.
SHAPES: tuple[Shape, ...] = (
    _ANTHROPIC,
    _RESPONSES,
    _CHAT,
    _GEMINI,
    _GEMINI_EMBED,
    _COHERE_EMBED,
    _COHERE,
    _COHERE_RERANK,
    _CONVERSE,
    _WATSONX,
    _TGI,
    _OLLAMA,
    _OLLAMA_EMBED,
    _INVOKE,
    _DURATION,
    _LLAMACPP,
)
