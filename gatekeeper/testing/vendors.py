"""Who speaks OpenAI's chat language, and with which accent: one row for each vendor.

The rule: a row says only what recordings or the vendor's reference show. No code, so that a new vendor is a new row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Where usage stands: in a chunk of its own, in the chunk with the finish reason, cumulative in every chunk, or in the
# finish chunk under x_groq (alone, or a second time).
OWN, FINISH, EVERY, X_GROQ, TWICE = "own", "finish", "every", "x_groq", "twice"
# What an error in a stream looks like: a chunk, an SSE event named error, or a chunk that also carries the usage.
CHUNK, EVENT, WITH_USAGE = "chunk", "event", "with usage"


@dataclass(frozen=True, slots=True)
class Vendor:
    """``details``: paths inside the usage object, and the count that stands there. ``head``: further fields of every
    chunk. ``choice``: further fields of every choice. ``outside``: completion_tokens leaves the reasoning out.
    ``nulls``: whether the other chunks may say ``usage: null``. ``unasked``: usage comes without include_usage."""

    name: str
    model: str
    places: tuple[str, ...]
    details: Mapping[str, str] = field(default_factory=dict)
    extras: Mapping[str, Any] = field(default_factory=dict)
    head: Mapping[str, Any] = field(default_factory=dict)
    choice: Mapping[str, Any] = field(default_factory=dict)
    thought: str = ""
    nulls: bool = False
    done: tuple[bool, ...] = (True,)
    errors: tuple[str, ...] = (CHUNK,)
    outside: bool = False
    unasked: bool = False
    comment: str = "keep-alive"
    blank_lines_first: bool = False


_OPENAI_DETAILS = {
    "prompt_tokens_details.cached_tokens": "cached_input",
    "prompt_tokens_details.audio_tokens": "audio_input",
    "completion_tokens_details.reasoning_tokens": "reasoning",
    "completion_tokens_details.audio_tokens": "audio_output",
    "completion_tokens_details.accepted_prediction_tokens": "zero",
    "completion_tokens_details.rejected_prediction_tokens": "zero",
}
_DEEPSEEK_DETAILS = {
    "prompt_tokens_details.cached_tokens": "cached_input",
    "completion_tokens_details.reasoning_tokens": "reasoning",
    "prompt_cache_hit_tokens": "cached_input",
    "prompt_cache_miss_tokens": "uncached",
}
_XAI_DETAILS = {
    "prompt_tokens_details.text_tokens": "input",
    "prompt_tokens_details.audio_tokens": "zero audio_input",
    "prompt_tokens_details.image_tokens": "zero",
    "prompt_tokens_details.cached_tokens": "cached_input",
    "completion_tokens_details.reasoning_tokens": "reasoning",
    "completion_tokens_details.audio_tokens": "zero audio_output",
    "completion_tokens_details.accepted_prediction_tokens": "zero",
    "completion_tokens_details.rejected_prediction_tokens": "zero",
}
_OPENROUTER_DETAILS = {
    "prompt_tokens_details.cached_tokens": "cached_input",
    "prompt_tokens_details.cache_write_tokens": "cache_write",
    "prompt_tokens_details.audio_tokens": "audio_input",
    "prompt_tokens_details.video_tokens": "zero",
    "completion_tokens_details.reasoning_tokens": "reasoning",
    "completion_tokens_details.image_tokens": "zero",
    "completion_tokens_details.audio_tokens": "audio_output",
}
_LOGPROBS = {"logprobs": None}
_GROQ_TIMES = {"queue_time": 0.05, "prompt_time": 0.003, "completion_time": 0.4, "total_time": 0.403}
_OPENROUTER_COST = {
    "cost": 0.000837,
    "is_byok": False,
    "cost_details": {
        "upstream_inference_cost": None,
        "upstream_inference_prompt_cost": 0.000762,
        "upstream_inference_completions_cost": 0.000075,
    },
}

VENDORS: Mapping[str, Vendor] = {
    vendor.name: vendor
    for vendor in (
        Vendor(
            "openai", "gpt-4o-mini-2024-07-18", (OWN,), _OPENAI_DETAILS, choice=_LOGPROBS, nulls=True,
            head={"service_tier": "default", "system_fingerprint": "fp_d0469e1700"},
        ),
        Vendor(
            "azure", "gpt-35-turbo", (OWN,), _OPENAI_DETAILS, choice=_LOGPROBS, nulls=True,
            head={"system_fingerprint": None},
        ),
        Vendor("mistral", "mistral-tiny", (FINISH,), unasked=True),
        Vendor(
            "deepseek", "deepseek-reasoner", (FINISH,), _DEEPSEEK_DETAILS, choice=_LOGPROBS, nulls=True, unasked=True,
            thought="reasoning_content", head={"system_fingerprint": "fp_393bca965e"}, blank_lines_first=True,
        ),
        Vendor(
            "groq", "openai/gpt-oss-120b", (TWICE, X_GROQ), extras=_GROQ_TIMES, choice=_LOGPROBS, unasked=True,
            thought="reasoning", head={"system_fingerprint": "fp_e8236260a9"}, errors=(EVENT,),
        ),
        Vendor(
            "xai", "grok-3-mini", (OWN,), _XAI_DETAILS, outside=True, thought="reasoning_content",
            extras={"num_sources_used": 0, "cost_in_usd_ticks": 1466250}, head={"system_fingerprint": "fp_2a885414fb"},
        ),
        Vendor(
            "openrouter", "minimax/minimax-m2:free", (OWN,), _OPENROUTER_DETAILS, extras=_OPENROUTER_COST,
            choice={"native_finish_reason": None}, thought="reasoning", head={"provider": "Minimax"},
            errors=(WITH_USAGE,), comment="OPENROUTER PROCESSING",
        ),
        Vendor(
            "perplexity", "sonar", (EVERY,), done=(False, True), unasked=True,
            head={"citations": ["https://example.com/"]},
        ),
        Vendor("vllm", "meta-llama/Llama-3.1-8B", (OWN, EVERY), choice={**_LOGPROBS, "stop_reason": None}, nulls=True),
    )
}  # fmt: skip
