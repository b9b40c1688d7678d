"""Cohere's chat, v2 (SSE) and v1 (NDJSON), streamed and not; source: the API reference and recordings.

The rule: there are two counts, ``tokens`` and ``billed_units``; the truth is the first, with the second beside it.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Framing, Script, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely, up_to

_DIALECT = "cohere"


def cohere_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of ``/v2/chat`` and ``/v1/chat``. Keywords: see ``Switches``."""
    return _streams(Switches(**switches))


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    version = draw(st.sampled_from(("v2", "v1")))
    refused = switches.errors and switches.usage is not True and rarely(draw, 6)
    if refused and not streamed:
        return draw_stream(draw, refusal(draw, _DIALECT, version), switches)
    given, made = draw(counts()), draw(counts())
    tokens = {"input_tokens": given, "output_tokens": made}
    billed = {"input_tokens": draw(up_to(given)), "output_tokens": draw(up_to(made))}
    usage: Any = {"billed_units": billed, "tokens": tokens}
    truth: Any = {"input": given, "output": made, "total": given + made, "billed": billed}
    if switches.usage is False or (refused and streamed):
        usage = truth = None
    words = draw_words(draw, switches.noise)
    if not streamed:
        script = _answer(version, "".join(words), usage, truth)
    elif version == "v2":
        script = _v2(words, usage, truth)
    else:
        script = _v1(words, usage, truth)
    return draw_stream(draw, script, switches)


def _v2(words: list[str], usage: Any, truth: Any) -> Script:
    telling = Telling(notes=["v2"])
    start = {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}
    telling.say({"id": "x", "type": "message-start", "delta": {"message": start}}, "message-start")
    for word in words:
        delta = {"message": {"tool_plan": word}}
        telling.say({"type": "tool-plan-delta", "delta": delta}, "tool-plan-delta")
    end = {"finish_reason": "COMPLETE" if usage else "ERROR", **({"usage": usage} if usage else {})}
    telling.say({"type": "message-end", "delta": end}, "message-end", usage=truth)
    telling.say("[DONE]")
    return telling.script(_DIALECT, "v2", "text/event-stream")


def _v1(words: list[str], usage: Any, truth: Any) -> Script:
    telling = Telling(notes=["v1"])
    telling.say({"is_finished": False, "event_type": "stream-start", "generation_id": "x"})
    for word in words:
        telling.say({"is_finished": False, "event_type": "text-generation", "text": word})
    answer = {"text": "".join(words), "generation_id": "x", "meta": {"api_version": {"version": "1"}, **(usage or {})}}
    end = {"is_finished": True, "event_type": "stream-end", "finish_reason": "COMPLETE" if usage else "ERROR"}
    telling.say({**end, "response": answer}, usage=truth)
    return telling.script(_DIALECT, "v1", "application/stream+json", Framing.LINES)


def _answer(version: str, text: str, usage: Any, truth: Any) -> Script:
    if version == "v2":
        message = {"role": "assistant", "content": [{"type": "text", "text": text}]}
        body: dict[str, Any] = {"id": "x", "finish_reason": "COMPLETE", "message": message}
        body |= {"usage": usage} if usage else {}
    else:
        body = {"text": text, "generation_id": "x", "finish_reason": "COMPLETE"}
        body["meta"] = {"api_version": {"version": "1"}, **(usage or {})}
    return single(_DIALECT, version, body, truth, version)
