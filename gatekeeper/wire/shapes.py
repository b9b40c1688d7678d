"""Where each provider writes its usage: one row for each shape, first match wins. ``shape_of`` reads a row from TOML.

The rule: a new provider is a new row. Sources: the providers' API references, checked against recorded responses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from gatekeeper.diagnostics import suggest


@dataclass(frozen=True, slots=True)
class Shape:
    """One way to write usage.

    A *path* is ``a.b``, with ``0`` for a list's first element and ``k=v`` for the element whose ``k`` is ``v``.
    ``|`` separates alternatives (the first present wins), ``+`` adds (a missing term counts 0, all missing: absent).
    Values that are no number from 0 to 10^18 are absent. The counts' names are the keys of the normalised record:
    ``input`` includes cached tokens, ``output`` includes reasoning; ``seconds``, ``requests`` and ``cost`` (dollars)
    are not tokens.
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
        "cache_write_1h": "cache_creation.ephemeral_1h_input_tokens",
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
        "cost": "cost",
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
        # Dollars, of resellers that say what they take: OpenRouter a number, Perplexity an object.
        "cost": "cost | cost.total_cost",
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
        "cache_write_1h": "cacheDetails.ttl=1h.inputTokens",
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
    # The last event of /generate_stream; the prompt is counted since 2.4, and never in an answer that is no stream.
    name="tgi",
    at="details",
    need="generated_tokens",
    counts={"input": "input_length", "output": "generated_tokens"},
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

# What a normalised record counts; the names that a shape's ``counts`` may have.
COUNTS: tuple[str, ...] = tuple(sorted({name for shape in SHAPES for name in shape.counts}))
_COUNTS_MAX = 32
_TEXT_MAX = 500
_CHOICES = {"keep": ("last", "fields"), "rest": ("", "more", "absent")}
# A path's step: a key, a place in a list, or `key=value`. Brackets and quotes are another language's paths.
_STEP = re.compile(r"[^\s.|+=,!\[\]\"'{}]+(=[^\s.|+=,!\[\]\"'{}]+)?")
_PATHS = ("at", "need", "first", "placeholder_at", "placeholder", "iterations", "billed")
_CONDITION = re.compile(r"\s*(?P<paths>[^=!,]+?)\s*(!?=\s*[^,=!]+)?\s*")


def shape_of(mapping: Mapping[str, Any]) -> Shape:
    """The Shape that a table (``[[usage_shapes]]`` of a TOML file) declares; its keys are the fields of ``Shape``.

    ``name`` and ``counts`` must be there. Raises ValueError with one sentence for people.
    """
    known = [each.name for each in fields(Shape)]
    for key in mapping:
        if key not in known:
            near = suggest(str(key), known)
            raise ValueError(f"a usage shape has no key {key!r}; {near or 'it has ' + ', '.join(known)}")
    name = mapping.get("name")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,63}", name):
        raise ValueError("'name' of a usage shape is a word: a letter, then letters, digits, '_' or '-'")
    row: dict[str, Any] = {"at": "", **mapping}
    row["counts"] = _counts_of(mapping.get("counts"))
    row["zero"] = _zero_of(mapping.get("zero", ()), row["counts"])
    for key in (*_PATHS, "when", "opening", "keep", "rest"):
        value = row.get(key, "")
        if not isinstance(value, str) or len(value) > _TEXT_MAX:
            raise ValueError(f"{key!r} of a usage shape is a string of at most {_TEXT_MAX} characters")
    for key, words in _CHOICES.items():
        if key in row and row[key] not in words:
            raise ValueError(f"{key!r} of a usage shape is one of {', '.join(repr(word) for word in words)}")
    for key in _PATHS:
        _check_paths(key, row.get(key, ""), alternatives=key in ("at", "need", "first"))
    for key in ("when", "opening"):
        _check_conditions(key, row.get(key, ""))
    if row.get("first") and row.get("keep") != "fields":
        raise ValueError("'first' of a usage shape goes with keep = 'fields'")
    if bool(row.get("placeholder")) != bool(row.get("placeholder_at")):
        raise ValueError("'placeholder' and 'placeholder_at' of a usage shape go together")
    if row.get("rest") and not {"input", "output", "total"} <= row["counts"].keys():
        raise ValueError("'rest' of a usage shape needs counts of input, output and total")
    return Shape(**row)


def _counts_of(counts: object) -> dict[str, str]:
    if not isinstance(counts, Mapping) or not counts or len(counts) > _COUNTS_MAX:
        raise ValueError('\'counts\' of a usage shape is a table: input = "path", output = "path", ...')
    for name, path in counts.items():
        if name not in COUNTS:
            near = suggest(str(name), COUNTS)
            raise ValueError(f"a usage record counts no {name!r}; {near or 'it counts ' + ', '.join(COUNTS)}")
        if not isinstance(path, str) or not path.strip() or len(path) > _TEXT_MAX:
            raise ValueError(f'\'counts.{name}\' is a path, such as "prompt_tokens" or "a.b + a.c | d"')
        for part in path.split("|"):
            for term in part.split("+"):
                _check_path(f"counts.{name}", term)
    return dict(counts)


def _zero_of(zero: object, counts: Mapping[str, str]) -> tuple[str, ...]:
    names = tuple(zero) if isinstance(zero, list | tuple) else (None,)
    if not all(isinstance(name, str) and name in counts for name in names):
        raise ValueError("'zero' of a usage shape is a list of names that stand in its counts")
    return names


def _check_paths(key: str, text: str, *, alternatives: bool) -> None:
    if text.strip():
        for part in text.split("|") if alternatives else [text]:
            _check_path(key, part)


def _check_path(key: str, text: str) -> None:
    for step in text.strip().split("."):
        if not _STEP.fullmatch(step):
            raise ValueError(
                f"{key!r}: {text.strip()!r} is no path; write a.b, a.0 for an item, a.key=value to find one"
            )


def _check_conditions(key: str, text: str) -> None:
    for part in text.split(",") if text.strip() else ():
        found = _CONDITION.fullmatch(part)
        if found is None:
            raise ValueError(f"{key!r}: {part.strip()!r} is no condition; write 'path', 'path = a | b' or 'path != a'")
        _check_paths(key, found["paths"], alternatives=True)
