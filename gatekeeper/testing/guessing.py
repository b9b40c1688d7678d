"""Which made-up streams fit a route, and what its meter is meant to read.

The rule: a meter is held to a count only if it reads that count from most of the plainest responses; every other
meter is held to the laws alone (and, if it is charged, to find usage where there is some).
"""

from collections import Counter
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from gatekeeper.config.gateway import Dialect, Route
from gatekeeper.meters import Mark, Meter, RequestView
from gatekeeper.testing.anthropic import anthropic_streams
from gatekeeper.testing.assistants import assistants_streams
from gatekeeper.testing.audio import speech_streams, transcription_streams
from gatekeeper.testing.bedrock import bedrock_streams
from gatekeeper.testing.cohere import cohere_streams
from gatekeeper.testing.gemini import gemini_streams
from gatekeeper.testing.judging import Asked, Judge, all_of, judge_chunking, judge_defaults, judge_errors, judge_figure
from gatekeeper.testing.judging import read as read_stream
from gatekeeper.testing.llamacpp import llamacpp_streams
from gatekeeper.testing.ollama import ollama_streams
from gatekeeper.testing.openai import openai_streams
from gatekeeper.testing.replicate import replicate_streams
from gatekeeper.testing.responses import openai_responses_streams
from gatekeeper.testing.search import find_complaint
from gatekeeper.testing.single import embedding_answers, image_answers, rerank_answers
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.tgi import tgi_streams
from gatekeeper.testing.vendors import VENDORS
from gatekeeper.testing.watsonx import watsonx_streams

Maker = Callable[..., SearchStrategy[ProviderStream]]
_SAMPLES = 40
_MODEL = "made-up-model"
_REQUEST = b'{"model": "made-up-model", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
# What a meter may be meant to read, the likeliest first.
_COUNTS = ("total", "output", "input", "seconds", "requests")
_WHOLES = ("total", "output", "input")
# Part of an upstream's host, and the vendor behind it; any other host may be anybody.
_HOSTS = {
    "api.openai.com": "openai", "azure.com": "azure", "mistral.ai": "mistral", "deepseek.com": "deepseek",
    "groq.com": "groq", "x.ai": "xai", "openrouter.ai": "openrouter", "perplexity.ai": "perplexity",
}  # fmt: skip
# How the path of an endpoint ends that only one kind of provider has, whatever the route's dialect.
_ENDPOINTS: dict[str, Maker] = {
    "/api/chat": ollama_streams,
    "/api/generate": ollama_streams,
    "/api/embed": lambda **words: embedding_answers("ollama", **words),
    "/rerank": rerank_answers,
    "/v2/embed": lambda **words: embedding_answers("cohere", **words),
    "/v1/embed": lambda **words: embedding_answers("cohere", **words),
    "/text/generation_stream": lambda **words: watsonx_streams(**{**words, "streamed": True}),
    "/text/generation": lambda **words: watsonx_streams(**{**words, "streamed": False}),
    "/generate_stream": lambda **words: tgi_streams(**{**words, "streamed": True}),
    "/generate": lambda **words: tgi_streams(**{**words, "streamed": False}),
    "/converse-stream": lambda **words: bedrock_streams("converse", **{**words, "streamed": True}),
    "/converse": lambda **words: bedrock_streams("converse", **{**words, "streamed": False}),
    "/invoke-with-response-stream": lambda **words: bedrock_streams("invoke", **words),
    "/predictions": replicate_streams,
    "/threads/runs": assistants_streams,
    "/runs": assistants_streams,
    "/submit_tool_outputs": assistants_streams,
    "/audio/transcriptions": transcription_streams,
    "/audio/translations": transcription_streams,
    "/audio/speech": speech_streams,
    ":embedContent": lambda **words: embedding_answers("gemini", **words),
    ":batchEmbedContents": lambda **words: embedding_answers("gemini", **words),
}


def streams_for(route: Route, host: str = "") -> Maker | None:
    """What makes responses for this route, or None where nothing is known of its endpoint. ``host`` is the upstream's
    (it tells the vendor). The maker takes the keywords of ``Switches``."""
    path = (route.rewrite or route.pattern.text).split("?")[0]
    known = next((maker for ending, maker in _ENDPOINTS.items() if path.endswith(ending)), None)
    if known is not None:
        return known
    if route.dialect is Dialect.ANTHROPIC:
        return anthropic_streams if path.endswith(("/messages", "/*")) else None
    if route.dialect is Dialect.GEMINI:
        return _gemini(path)
    if "cohere" in host:
        return cohere_streams if path.endswith(("/chat", "/*")) else None
    return _openai(path, host)


def _gemini(path: str) -> Maker | None:
    if path.endswith(":generateContent"):
        return lambda **words: gemini_streams(**{**words, "streamed": False})
    if path.endswith((":streamGenerateContent", "/*")):
        return gemini_streams
    return None


def _openai(path: str, host: str) -> Maker | None:
    found = [name for part, name in _HOSTS.items() if host == part or host.endswith(f".{part}")]
    vendors = tuple(found) or tuple(VENDORS)

    def chat(**words: Any) -> SearchStrategy[ProviderStream]:
        made = openai_streams(vendors, **words)
        # llama.cpp runs anywhere, and under no name of its own.
        return made if found else st.one_of(made, made, made, made, llamacpp_streams(**words))

    def completions(**words: Any) -> SearchStrategy[ProviderStream]:
        return openai_streams(vendors, endpoint="completions", **words)

    def anything(**words: Any) -> SearchStrategy[ProviderStream]:
        return chat(**words) | completions(**words) | openai_responses_streams(**words) | embedding_answers(**words)

    endings: dict[str, Maker] = {
        "/chat/completions": chat, "/completions": completions, "/responses": openai_responses_streams,
        "/embeddings": embedding_answers, "/images/generations": image_answers, "/*": anything,
    }  # fmt: skip
    return next((maker for ending, maker in endings.items() if path.endswith(ending)), None)


def asked_of(route: Route) -> Asked:
    """A call of this route that is metered."""
    method = "POST" if "POST" in route.meter_methods else min(route.meter_methods, default="POST")
    request = RequestView(
        method=method, path=route.pattern.text, body=_REQUEST, request_bytes=len(_REQUEST), model=_MODEL
    )  # fmt: skip
    return Asked(request, route.charge_errors, _FlatPrices(), _FourLettersAToken())


class _FlatPrices:
    """Every model costs the same: only whether there is a price matters here."""

    def cost(self, model: str, usage: Mapping[str, Any], at_ms: int) -> Decimal | None:
        """A dollar for a million tokens."""
        return None if usage.get("total") is None else Decimal(usage["total"]) / 1_000_000


class _FourLettersAToken:
    def count(self, text: str, model: str | None) -> int:
        """The usual rule of thumb."""
        return (len(text) + 3) // 4


def judge_for(meter: Meter, make: Maker, asked: Asked, *, charged: bool = True) -> tuple[str, Judge]:
    """What this meter is held to, in words, and the judge that does it. ``charged``: it must not fall back where there
    is usage, even if it does so on the plainest responses."""
    seen: Counter[str] = Counter()

    def sample(stream: ProviderStream, sizes: tuple[int, ...]) -> None:
        usage = stream.usage or {}
        said = [usage[name] for name in _WHOLES if usage.get(name) is not None]
        if usage.get("output") is not None and len(set(said)) < len(said):
            return  # counts that are equal by chance tell nothing
        reading = read_stream(meter, stream, (), asked)
        seen["all"] += 1
        seen["measured"] += reading.source is Mark.MEASURED
        if reading.source is Mark.MEASURED:
            seen.update(name for name in _COUNTS if usage.get(name) == reading.units)

    plainest = make(usage=True, errors=False, cuts=False, encodings=False, noise=False)
    find_complaint(plainest, sample, examples=_SAMPLES, seed_number=0)
    laws = all_of(judge_errors(meter, asked), judge_chunking(meter, asked))
    name = next((name for name in _COUNTS if 2 * seen[name] > seen["all"]), None)
    if name is not None:
        return f"reads {name}", all_of(judge_figure(meter, name, asked), laws)
    if charged or 2 * seen["measured"] > seen["all"]:
        return "laws, and no fallback where there is usage", all_of(judge_defaults(meter, asked), laws)
    return "laws", laws
