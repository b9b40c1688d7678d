"""Answers that are never streamed: embeddings, images, and refusals with a status that is not 2xx.

The rule: a refusal is worth nothing, whatever its body looks like.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from gatekeeper.testing.script import Habits, Script, Switches, SwitchWords, single
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, up_to


def refusal(draw: DrawFn, dialect: str, vendor: str) -> Script:
    """An error as JSON, with a status that says so."""
    status = draw(st.sampled_from((429, 400, 401, 500, 503, 529)))
    error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded", "code": None}}
    return single(dialect, vendor, error, None, f"status {status}", status=status)


@st.composite
def embedding_answers(draw: DrawFn, **words: Unpack[SwitchWords]) -> ProviderStream:
    """Answers of ``/v1/embeddings``: input only."""
    switches = Switches(**words)
    says, given = switches.usage is not False, draw(counts())
    body: dict[str, Any] = {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -1e-05]}],
    }
    body["model"] = "text-embedding-3-small"
    if says:
        body["usage"] = {"prompt_tokens": given, "total_tokens": given}
    truth = {"input": given, "output": None, "total": given} if says else None
    script = single("openai", "openai", body, truth, "embeddings", habits=Habits(indented=draw(st.booleans())))
    return draw_stream(draw, script, switches)


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
