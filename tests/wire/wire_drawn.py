"""Events that speak of usage in every provider's words at once, made of bytes: a hundred times as many in a second.

The rule: every byte is a choice, and the byte 0 (or no byte) is the simplest one, so that what is found is small.
"""

from collections.abc import Sequence
from typing import Any

# Where the counts of some provider stand, by the last name on the way.
AT = (
    ("usage",), ("usage",), ("usage",), ("message", "usage"), ("response", "usage"), ("usageMetadata",),
    ("delta", "usage"), ("x_groq", "usage"), ("meta",), ("response", "meta"), ("details",), ("timings",),
    ("amazon-bedrock-invocationMetrics",), (),
)  # fmt: skip
# The counts of one provider beside one another.
FAMILIES = (
    ("prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_hit_tokens", "cached_tokens", "cost",
     "num_search_queries"),
    ("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "cost"),
    ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "toolUsePromptTokenCount", "totalTokenCount",
     "cachedContentTokenCount"),
    ("inputTokens", "outputTokens", "totalTokens", "cacheReadInputTokens", "cacheWriteInputTokens"),
    ("inputTokenCount", "outputTokenCount", "cacheReadInputTokenCount", "cacheWriteInputTokenCount"),
    ("input_token_count", "generated_token_count"),
    ("generated_tokens", "input_length", "seconds"),
    ("prompt_eval_count", "eval_count"),
    ("prompt_n", "cache_n", "predicted_n", "prompt_per_token_ms"),
)  # fmt: skip
NESTED = (
    "prompt_tokens_details", "completion_tokens_details", "input_tokens_details", "output_tokens_details",
    "input_token_details", "prompt_token_details", "cache_creation", "tokens", "billed_units", "server_tool_use",
)  # fmt: skip
INNER = (
    "cached_tokens", "reasoning_tokens", "audio_tokens", "image_tokens", "cache_write_tokens", "input_tokens",
    "output_tokens", "search_units", "thinking_tokens", "ephemeral_1h_input_tokens", "web_search_requests",
)  # fmt: skip
GOOD = (0, 1, 2, 7, 40, 90, 0.5, 10**18)
HOSTILE = (None, -1, True, "7", 1e19, 10**19, [3], 2.0, {})
TOP = (
    ("type", ("message_start", "message_delta", "message", "other")), ("object", ("thread.run.step", "thread.run")),
    ("done", (True, False)), ("embeddings", ([],)), ("embedding", ({},)), ("choices", ([],)),
)  # fmt: skip


class _Choices:
    def __init__(self, raw: bytes) -> None:
        self._bytes = iter(raw)
        self.over = not raw

    def up_to(self, most: int) -> int:
        found = next(self._bytes, None)
        self.over = found is None
        return (found or 0) % (most + 1)

    def value(self) -> Any:
        return self.one_of(HOSTILE if self.up_to(7) == 7 else GOOD)

    def one_of(self, things: Sequence[Any]) -> Any:
        return things[self.up_to(len(things) - 1)]


def events_of(raw: bytes) -> list[Any]:
    """At most four events; different bytes mostly make different ones."""
    choices = _Choices(raw)
    events = []
    while not choices.over and len(events) < 4:
        events.append(_event(choices))
    return events


def _event(choices: _Choices) -> dict[str, Any]:
    event: dict[str, Any] = {}
    for _ in range(1 + choices.up_to(2)):
        path, counts = choices.one_of(AT), _counts(choices)
        if choices.up_to(5) == 1:
            # Mostly the whole is one of the parts, as it should be.
            whole = [dict(counts)] if choices.up_to(3) else []
            counts["iterations"] = whole + [_counts(choices) for _ in range(choices.up_to(2))]
            event["type"] = "message_delta"
        inner = event
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        if path:
            inner[path[-1]] = counts
        else:
            event |= counts
    if choices.up_to(2) == 1:
        event["results"] = [_counts(choices)]
    for _ in range(choices.up_to(2)):
        key, values = choices.one_of(TOP)
        event[key] = choices.one_of(values)
    return event


def _counts(choices: _Choices) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    family = choices.one_of(FAMILIES)
    for _ in range(1 + choices.up_to(7)):
        fields = family if choices.up_to(5) else choices.one_of(FAMILIES)
        counts[choices.one_of(fields)] = choices.value()
    for _ in range(choices.up_to(2)):
        inner = {choices.one_of(INNER): choices.value() for _ in range(choices.up_to(3))}
        counts[choices.one_of(NESTED)] = inner
    if choices.up_to(7) == 1:
        kinds = [{"modality": "AUDIO", "tokenCount": choices.value()}]
        counts[choices.one_of(("promptTokensDetails", "candidatesTokensDetails"))] = kinds
        counts["cacheDetails"] = [{"ttl": "1h", "inputTokens": choices.value()}]
    return counts
