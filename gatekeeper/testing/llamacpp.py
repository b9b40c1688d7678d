"""The server of llama.cpp: chat completions that also tell their timings; source: its README on ``timings``, issue
16048, and a chunk quoted there.

The rule: usage where the server sends it, else the timings, whose ``prompt_n`` leaves out what came from the cache.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Script, Switches, SwitchWords, Telling, Usage, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely, up_to

_DIALECT = "openai"
_VENDOR = "llamacpp"
_HEAD = {"created": 1_758_108_431, "id": "chatcmpl-x", "model": "google/gemma-3-1b-it", "system_fingerprint": "b6497"}


def llamacpp_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of its ``/v1/chat/completions``: with usage and timings, timings alone, or neither. Keywords: see
    ``Switches``."""
    return _streams(Switches(**switches))


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    if not streamed and switches.errors and switches.usage is not True and rarely(draw, 6):
        return draw_stream(draw, refusal(draw, _DIALECT, _VENDOR), switches)
    told, truth, note = _counted(draw, switches)
    words = draw_words(draw, switches.noise)
    if streamed:
        return draw_stream(draw, _stream(draw, switches, words, told, truth, note), switches)
    message = {"role": "assistant", "content": "".join(words)}
    body = {
        "choices": [{"finish_reason": "stop", "index": 0, "message": message}],
        **_HEAD,
        "object": "chat.completion",
    }
    return draw_stream(draw, single(_DIALECT, _VENDOR, {**body, **told}, truth, note), switches)


def _counted(draw: DrawFn, switches: Switches) -> tuple[dict[str, Any], Usage | None, str]:
    """What stands beside the choices, what that says, and a note."""
    ways = {None: ("usage", "timings alone", "no usage"), True: ("usage", "timings alone"), False: ("no usage",)}
    way = draw(st.sampled_from(ways[switches.usage]))
    if way == "no usage":
        return {}, None, way
    given, made = draw(counts()), draw(counts())
    cached = draw(up_to(given))
    timings = {
        "cache_n": cached, "prompt_n": given - cached, "prompt_ms": 180.025, "prompt_per_token_ms": 2.4,
        "prompt_per_second": 416.5, "predicted_n": made, "predicted_ms": 875.429, "predicted_per_token_ms": 28.25,
        "predicted_per_second": 35.5,
    }  # fmt: skip
    truth = {"input": given, "output": made, "total": given + made}
    if way == "timings alone":
        return {"timings": timings}, {**truth, "cached_input": cached}, way
    usage = {"completion_tokens": made, "prompt_tokens": given, "total_tokens": given + made}
    return {"usage": usage, "timings": timings}, truth, "usage and timings"


def _stream(
    draw: DrawFn, switches: Switches, words: list[str], told: dict[str, Any], truth: Usage | None, note: str
) -> Script:
    telling = Telling(notes=[note])

    def chunk(choices: list[Any], **more: Any) -> dict[str, Any]:
        return {"choices": choices, **_HEAD, "object": "chat.completion.chunk", **more}

    for word in words:
        telling.say(chunk([{"finish_reason": None, "index": 0, "delta": {"content": word}}]))
    finish = [{"finish_reason": "stop", "index": 0, "delta": {}}]
    if switches.errors and switches.usage is not True and rarely(draw, 6):
        telling.notes.append("error in the stream")
        telling.say({"error": {"code": 500, "message": "context shift is disabled", "type": "server_error"}})
    elif "usage" in told:
        telling.say(chunk(finish))
        telling.say(chunk([], **told), usage=truth)
        telling.say("[DONE]")
    else:
        telling.say(chunk(finish, **told), usage=truth)
        telling.say("[DONE]")
    return telling.script(_DIALECT, _VENDOR, "text/event-stream")
