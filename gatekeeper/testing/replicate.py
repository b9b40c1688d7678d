"""Replicate's streams of predictions; source: its guide on streaming, and recordings.

The rule: the events are plain text, and nothing in them is usage. What a prediction costs is told elsewhere, by its
metrics.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Habits, Script, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import draw_words, rarely

_DIALECT = "replicate"
_HABITS = Habits(ids="1707756341:{at}", comment="hi")
_ENDS = ("done", "done", "cancelled")


def replicate_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """A prediction and its stream. It never says what was used: the switch ``usage`` changes nothing."""
    return _streams(Switches(**switches))


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    if streamed:
        script = _stream(draw, switches)
    elif switches.errors and rarely(draw, 6):
        script = refusal(draw, _DIALECT, _DIALECT, says="")
    else:
        script = _answer(draw, switches)
    return draw_stream(draw, script, switches)


def _stream(draw: DrawFn, switches: Switches) -> Script:
    telling = Telling(notes=["text without usage"])
    for word in draw_words(draw, switches.noise):
        # What UTF-8 cannot hold is no text: only JSON can spell half an emoji.
        telling.say(word.encode("utf-8", "replace").decode(), "output")
    if switches.errors and rarely(draw, 6):
        telling.notes.append("error in the stream")
        telling.say({"detail": "An unexpected error occurred"}, "error")
        telling.say({"reason": "error"}, "done")
    else:
        end = draw(st.sampled_from(_ENDS))
        telling.say("{}" if end == "done" else {"reason": "canceled"}, "done")
    if switches.noise and draw(st.booleans()):
        telling.say(":408: 408 Request Timeout", outside=True)
    return telling.script(_DIALECT, _DIALECT, "text/event-stream; charset=utf-8", habits=_HABITS, says="")


def _answer(draw: DrawFn, switches: Switches) -> Script:
    urls = {"get": "https://api.replicate.com/v1/predictions/x", "stream": "https://stream.replicate.com/x"}
    body: dict[str, Any] = {"id": "x", "model": "meta/llama", "version": "x", "input": {"prompt": "Hi"}, "urls": urls}
    body |= {"created_at": "2024-02-12T16:45:41Z", "error": None, "logs": ""}
    if draw(st.booleans()):
        times = {"predict_time": 1.5, "total_time": 1.75}
        body |= {"status": "succeeded", "output": draw_words(draw, switches.noise), "metrics": times}
    else:
        body |= {"status": "starting", "output": None}
    return single(_DIALECT, _DIALECT, body, None, "a prediction", says="")
