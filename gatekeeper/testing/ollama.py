"""Ollama's own API (``/api/generate``, ``/api/chat``): NDJSON, or one object; source: its docs/api.md and recordings.

The rule: the counts stand in the line that is ``done``; a prompt that was cached may have no count, which means 0.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Framing, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely

_DIALECT = "ollama"
_NANOS = {"total_duration": 4_218_611_084, "load_duration": 1_797_788_834, "eval_duration": 2_252_182_000}


def ollama_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of ``/api/generate`` and ``/api/chat``. Keywords: see ``Switches``."""
    return _streams(Switches(**switches))


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    chat = draw(st.booleans())
    failed = switches.errors and switches.usage is not True and rarely(draw, 6)
    vendor = "chat" if chat else "generate"
    if failed and not streamed:
        return draw_stream(draw, refusal(draw, _DIALECT, vendor), switches)
    says = not failed and switches.usage is not False
    given, made = draw(counts(0)), draw(counts())
    told: dict[str, Any] = {"prompt_eval_count": given} if given else {}
    told |= {"eval_count": made}
    truth = {"input": given, "output": made, "total": given + made} if says else None
    words = draw_words(draw, switches.noise)
    end: dict[str, Any] = {"done": True, "done_reason": "stop", **_NANOS, **(told if says else {})}
    if not streamed:
        script = single(_DIALECT, vendor, {**_line("".join(words), chat), **end}, truth, vendor)
    else:
        telling = Telling(notes=[vendor])
        for word in words:
            telling.say({**_line(word, chat), "done": False})
        if failed:
            telling.notes.append("error in the stream")
            telling.say({"error": "an error was encountered while running the model"})
        else:
            telling.say({**_line("", chat), **end}, usage=truth)
        script = telling.script(_DIALECT, vendor, "application/x-ndjson", Framing.LINES)
    return draw_stream(draw, script, switches)


def _line(text: str, chat: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"response": text}
    return {"model": "llama3", "created_at": "2024-05-24T20:48:36.231229Z", **said}
