"""IBM's watsonx, ``/ml/v1/text/generation_stream`` and ``/ml/v1/text/generation``; sources: the API reference and
recordings.

The rule: the input stands in the first event only (later it is 0), the output grows from event to event.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Habits, Script, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely

_DIALECT = "watsonx"
_HABITS = Habits(ids="{at}")
_FAILED = {"errors": [{"code": "downstream_request_failed", "message": "Downstream request failed"}], "trace": "x"}


def watsonx_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of ``/ml/v1/text/generation_stream`` and ``/ml/v1/text/generation``. Keywords: see ``Switches``."""
    return _streams(Switches(**switches))


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    if streamed:
        script = _stream(draw, switches)
    elif switches.errors and switches.usage is not True and rarely(draw, 6):
        script = refusal(draw, _DIALECT, _DIALECT)
    else:
        script = _answer(draw, switches)
    return draw_stream(draw, script, switches)


def _event(text: str, reason: str, told: dict[str, int], **more: Any) -> dict[str, Any]:
    result = {"generated_text": text, **told, "stop_reason": reason}
    return {"model_id": "google/flan-ul2", "created_at": "2024-03-01T07:40:24.839Z", "results": [result], **more}


def _told(written: int, given: int) -> dict[str, int]:
    return {"generated_token_count": written, "input_token_count": given}


def _truth(written: int, given: int) -> dict[str, int]:
    return {"input": given, "output": written, "total": given + written}


def _stream(draw: DrawFn, switches: Switches) -> Script:
    telling = Telling()
    words = draw_words(draw, switches.noise)
    fails = switches.errors and rarely(draw, 6)
    if switches.usage is False:
        if switches.errors:
            telling.notes.append("error in the stream")
            telling.say(_FAILED, "error")
        else:
            telling.notes.append("no usage")
            for word in words:
                telling.say(_event(word, "not_finished", {}), "message")
        return telling.script(_DIALECT, _DIALECT, "text/event-stream", habits=_HABITS)
    given, written = draw(counts()), 0
    warning = {"message": "This model is a Non-IBM Product", "id": "disclaimer_warning"}
    system = {"system": {"warnings": [warning]}} if draw(st.booleans()) else {}
    telling.say(_event("", "not_finished", _told(0, given), **system), "message", usage=_truth(0, given))
    for word in words:
        written += draw(st.integers(0, 3))
        telling.say(_event(word, "not_finished", _told(written, 0)), "message", usage=_truth(written, given))
    if fails:
        telling.notes.append("error in the stream")
        telling.say(_FAILED, "error")
    else:
        written += draw(counts())
        telling.say(_event("", "eos_token", _told(written, 0)), "message", usage=_truth(written, given))
    return telling.script(_DIALECT, _DIALECT, "text/event-stream", habits=_HABITS)


def _answer(draw: DrawFn, switches: Switches) -> Script:
    text = "".join(draw_words(draw, switches.noise))
    if switches.usage is False:
        return single(_DIALECT, _DIALECT, _event(text, "eos_token", {}), None, "no usage")
    given, written = draw(counts()), draw(counts())
    body = _event(text, "eos_token", _told(written, given))
    return single(_DIALECT, _DIALECT, body, _truth(written, given), habits=Habits(indented=draw(st.booleans())))
