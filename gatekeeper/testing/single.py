"""Answers that are never streamed: embeddings, images, rerankings, and refusals with a status that is not 2xx.

The rule: a refusal is worth nothing, whatever its body looks like.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Habits, Script, Switches, SwitchWords, single
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, rarely, up_to


def refusal(draw: DrawFn, dialect: str, vendor: str, says: str = "total") -> Script:
    """An error as JSON, with a status that says so."""
    status = draw(st.sampled_from((429, 400, 401, 500, 503, 529)))
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded", "code": None}}
    return single(dialect, vendor, error, None, f"status {status}", status=status, says=says)


@st.composite
def rerank_answers(draw: DrawFn, **words: Unpack[SwitchWords]) -> ProviderStream:
    """Answers of Cohere's ``/v1/rerank`` and ``/v2/rerank``: search units, no tokens."""
    switches = Switches(**words)
    if switches.errors and switches.usage is not True and rarely(draw, 6):
        return draw_stream(draw, refusal(draw, "cohere", "rerank", "requests"), switches)
    units = draw(st.integers(1, 50))
    found = [{"index": at, "relevance_score": 0.25} for at in range(draw(st.integers(0, 3)))]
    meta: dict[str, Any] = {"api_version": {"version": draw(st.sampled_from(("1", "2")))}}
    truth = None
    if switches.usage is not False:
        meta["billed_units"] = {"search_units": units}
        truth = {"input": None, "output": None, "total": None, "requests": units, "billed": {"search_units": units}}
    body = {"id": "x", "results": found, "meta": meta}
    habits = Habits(indented=draw(st.booleans()))
    return draw_stream(
        draw, single("cohere", "rerank", body, truth, "rerank", habits=habits, says="requests"), switches
    )


EMBEDDERS = ("openai", "cohere", "gemini", "ollama")


def embedding_answers(
    vendor: str | tuple[str, ...] = "openai", **switches: Unpack[SwitchWords]
) -> SearchStrategy[ProviderStream]:
    """Answers of ``/v1/embeddings``, and of Cohere's, Gemini's and Ollama's own endpoints: input only.

    ``vendor``: one or some of openai, cohere, gemini, ollama. Other keywords: see ``Switches``. Raises ValueError for
    another vendor.
    """
    names = (vendor,) if isinstance(vendor, str) else tuple(vendor)
    if not names or not set(names) <= set(EMBEDDERS):
        raise ValueError(f"vendor {names} is not among {', '.join(EMBEDDERS)}")
    return _embeddings(names, Switches(**switches))


@st.composite
def _embeddings(draw: DrawFn, names: tuple[str, ...], switches: Switches) -> ProviderStream:
    vendor = draw(st.sampled_from(names))
    if vendor == "openai":
        return draw_stream(draw, _openai_embeddings(draw, switches), switches)
    says, given = switches.usage is not False, draw(counts())
    truth: dict[str, Any] | None = {"input": given, "output": None, "total": given} if says else None
    if vendor == "gemini":
        values = {"values": [0.25, -1e-05]}
        body: dict[str, Any] = {"embedding": values} if draw(st.booleans()) else {"embeddings": [values]}
        # Older models say nothing, newer ones in the words of every other answer.
        body |= {"usageMetadata": {"promptTokenCount": given}} if says else {}
    elif vendor == "cohere":
        body = {
            "id": "x",
            "embeddings": {"float": [[0.25]]},
            "texts": ["Hi"],
            "meta": {"api_version": {"version": "2"}},
        }
        if says and truth is not None:
            body["meta"]["billed_units"] = {"input_tokens": given}
            truth["billed"] = {"input_tokens": given}
    else:
        body = {"model": "all-minilm", "embeddings": [[0.25]], "total_duration": 14_143_917, "load_duration": 1_019_500}
        body |= {"prompt_eval_count": given} if says else {}
    return draw_stream(draw, single(vendor, vendor, body, truth, "embeddings"), switches)


def _openai_embeddings(draw: DrawFn, switches: Switches) -> Script:
    says, given = switches.usage is not False, draw(counts())
    body: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -1e-05]}],
    }
    body["model"] = "text-embedding-3-small"
    if says:
        body["usage"] = {"prompt_tokens": given, "total_tokens": given}
    truth = {"input": given, "output": None, "total": given} if says else None
    return single("openai", "openai", body, truth, "embeddings", habits=Habits(indented=draw(st.booleans())))


@st.composite
def image_answers(draw: DrawFn, **words: Unpack[SwitchWords]) -> ProviderStream:
    """Answers of ``/v1/images/generations``: gpt-image with usage, dall-e without."""
    switches = Switches(**words)
    says = draw(st.booleans()) if switches.usage is None else switches.usage
    given, made = draw(counts()), draw(counts())
    seen = draw(up_to(given))
    body: dict[str, Any] = {"created": 1_764_967_971, "data": [{"b64_json": "aVZC"}] * draw(st.integers(1, 3))}
    truth = None
    if says:
        body["usage"] = {
            "input_tokens": given, "input_tokens_details": {"image_tokens": seen, "text_tokens": given - seen},
            "output_tokens": made, "output_tokens_details": {"image_tokens": made, "text_tokens": 0},
            "total_tokens": given + made,
        }  # fmt: skip
        truth = {"input": given, "output": made, "total": given + made, "image_input": seen, "image_output": made}
    return draw_stream(draw, single("openai", "openai", body, truth, "images"), switches)
