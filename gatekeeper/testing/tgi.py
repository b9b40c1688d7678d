"""Hugging Face's text-generation-inference, ``/generate_stream`` and ``/generate``; sources: its OpenAPI description
and recordings.

The rule: only the last event counts. It says the output; servers before 2.4, and answers that are no stream, never
say the input.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Habits, Script, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely

_DIALECT = "tgi"
_SAYS = "output"
_HABITS = Habits(close=True)
_FAILED = {"error": "Request failed during generation: Server error", "error_type": "generation"}


def tgi_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of ``/generate_stream`` and ``/generate``: the output, and from newer servers the input of a stream.
    Keywords: see ``Switches``; ``usage`` means the output."""
    return _streams(Switches(**switches))


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    if streamed:
        script = _stream(draw, switches)
    elif switches.errors and switches.usage is not True and rarely(draw, 6):
        script = refusal(draw, _DIALECT, _DIALECT, _SAYS)
    else:
        script = _answer(draw, switches)
    return draw_stream(draw, script, switches)


def _token(at: int, word: str, **last: Any) -> dict[str, Any]:
    token = {"id": 13 + at, "text": word, "logprob": -0.115, "special": False}
    return {"index": at + 1, "token": token, "generated_text": None, "details": None, **last}


def _stream(draw: DrawFn, switches: Switches) -> Script:
    telling = Telling()
    words = draw_words(draw, switches.noise)
    for at, word in enumerate(words):
        telling.say(_token(at, word))
    fails = switches.errors and (switches.usage is False or (switches.usage is None and rarely(draw, 6)))
    details: dict[str, Any] | None = None
    truth = None
    if fails:
        telling.notes.append("error in the stream")
        telling.say(_FAILED)
    else:
        if switches.usage is not False:
            written = draw(counts())
            truth = {"input": None, "output": written, "total": None}
            details = {"finish_reason": "length", "generated_tokens": written, "seed": None}
            if draw(st.booleans()):
                telling.notes.append("with the input")
                given = draw(counts())
                details["input_length"] = given
                truth = {"input": given, "output": written, "total": given + written}
        telling.say(_token(len(words), "", generated_text="".join(words), details=details), usage=truth)
    return telling.script(_DIALECT, _DIALECT, "text/event-stream", habits=_HABITS, says=_SAYS)


def _answer(draw: DrawFn, switches: Switches) -> Script:
    body: dict[str, Any] = {"generated_text": "".join(draw_words(draw, switches.noise))}
    told = switches.usage is not False and (switches.usage or draw(st.booleans()))
    truth = None
    if told:
        written = draw(counts())
        details = {"finish_reason": "length", "generated_tokens": written, "seed": None, "prefill": [], "tokens": []}
        body["details"] = details
        truth = {"input": None, "output": written, "total": None}
    # The root path answers in a list.
    value = [body] if draw(st.booleans()) else body
    return single(_DIALECT, _DIALECT, value, truth, *([] if told else ["no usage"]), says=_SAYS)
