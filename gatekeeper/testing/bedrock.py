"""Amazon Bedrock: Converse and InvokeModel, streamed in binary frames, and Converse's single answer; sources: the API
reference of TokenUsage, the reference of InvokeModelWithResponseStream, and a recording.

The rule: Converse leaves the cache out of inputTokens; InvokeModel says what the model inside says, and in its last
chunk Amazon's own count.
"""

import base64
from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.anthropic import message_script
from gatekeeper.testing.script import Framing, Habits, Script, Step, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import as_json, counts, draw_words, rarely, up_to

_DIALECT = "bedrock"
APIS = ("converse", "invoke")
_FRAMES = "application/vnd.amazon.eventstream"
_LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_THROTTLED = {"message": "Too many requests, please wait before trying again."}
_METRICS = "amazon-bedrock-invocationMetrics"
_TIMES = {"invocationLatency": 1183, "firstByteLatency": 446}


def bedrock_streams(
    api: str | tuple[str, ...] = APIS, **switches: Unpack[SwitchWords]
) -> SearchStrategy[ProviderStream]:
    """Answers of ``/model/{id}/converse-stream`` and ``/converse`` (``api="converse"``) and of
    ``/model/{id}/invoke-with-response-stream`` (``api="invoke"``: always streamed). Other keywords: see ``Switches``.
    Raises ValueError for another api."""
    names = (api,) if isinstance(api, str) else tuple(api)
    if not names or not set(names) <= set(APIS):
        raise ValueError(f"api {names} is not among {', '.join(APIS)}")
    return _streams(names, Switches(**switches))


@st.composite
def _streams(draw: DrawFn, names: tuple[str, ...], switches: Switches) -> ProviderStream:
    api = draw(st.sampled_from(names))
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    if api == "invoke" and (streamed or "converse" not in names):
        inside = draw(st.sampled_from((_anthropic_inside, _llama_inside)))
        script = inside(draw, switches)
    elif streamed:
        script = _converse(draw, switches)
    elif switches.errors and switches.usage is not True and rarely(draw, 6):
        script = refusal(draw, _DIALECT, "converse")
    else:
        script = _answer(draw, switches)
    return draw_stream(draw, script, switches)


def _padding(draw: DrawFn) -> str:
    """Amazon hides the length of what is said."""
    return _LETTERS[: draw(st.integers(2, len(_LETTERS)))]


# -- Converse ----------------------------------------------------------------------------------------------------------


def _counted(draw: DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """TokenUsage, and what it says."""
    fresh, made = draw(counts()), draw(counts())
    usage: dict[str, Any] = {"inputTokens": fresh, "outputTokens": made}
    truth: dict[str, Any] = {"input": fresh, "output": made, "total": fresh + made}
    if draw(st.booleans()):
        read, written = draw(counts(0)), draw(counts(0))
        usage |= {"cacheReadInputTokens": read, "cacheWriteInputTokens": written}
        given = fresh + read + written
        truth |= {"input": given, "total": given + made, "cached_input": read, "cache_write": written}
        if draw(st.booleans()):
            hour = draw(up_to(written))
            found = {"1h": hour, "5m": written - hour}
            usage["cacheDetails"] = [{"ttl": ttl, "inputTokens": count} for ttl, count in found.items() if count]
            truth |= {"cache_write_1h": hour} if hour else {}
    usage |= {"serverToolUsage": {}} if draw(st.booleans()) else {}
    return {**usage, "totalTokens": truth["total"]}, truth


def _converse(draw: DrawFn, switches: Switches) -> Script:
    telling = Telling(notes=["converse"])

    def say(event: str, truth: Any = None, **fields: Any) -> None:
        known = {} if truth is None else {"usage": truth}
        telling.say({**fields, "p": _padding(draw)}, event, **known)

    say("messageStart", role="assistant")
    for word in draw_words(draw, switches.noise):
        say("contentBlockDelta", contentBlockIndex=0, delta={"text": word})
    fails = switches.errors and (switches.usage is False or (switches.usage is None and rarely(draw, 6)))
    if fails:
        telling.notes.append("exception in the stream")
        telling.say(_THROTTLED, draw(st.sampled_from(("throttlingException", "modelStreamErrorException"))))
    else:
        say("contentBlockStop", contentBlockIndex=0)
        say("messageStop", stopReason="end_turn")
        if switches.usage is not False:
            usage, truth = _counted(draw)
            say("metadata", truth, metrics={"latencyMs": 3950}, usage=usage)
    return telling.script(_DIALECT, "converse", _FRAMES, Framing.FRAMES)


def _answer(draw: DrawFn, switches: Switches) -> Script:
    message = {"role": "assistant", "content": [{"text": "".join(draw_words(draw, switches.noise))}]}
    body: dict[str, Any] = {"metrics": {"latencyMs": 551}, "output": {"message": message}, "stopReason": "end_turn"}
    if switches.usage is False:
        return single(_DIALECT, "converse", body, None, "converse", "no usage")
    usage, truth = _counted(draw)
    habits = Habits(indented=draw(st.booleans()))
    return single(_DIALECT, "converse", {**body, "usage": usage}, truth, "converse", habits=habits)


# -- InvokeModel -------------------------------------------------------------------------------------------------------


def _packed(draw: DrawFn, value: Any) -> dict[str, str]:
    """A ``chunk`` frame's payload: the model's own JSON in base64."""
    return {"bytes": base64.b64encode(as_json(value).encode()).decode(), "p": _padding(draw)}


def _anthropic_inside(draw: DrawFn, switches: Switches) -> Script:
    """The events of Anthropic's stream, one to a frame. Its own words beat Amazon's count."""
    told = message_script(draw, switches)
    steps = []
    for step in told.steps:
        value = step.value
        if value["type"] == "error":
            steps.append(Step(_THROTTLED, step.usage, "modelStreamErrorException"))
            continue
        if value["type"] == "message_stop":
            usage = step.usage or {}
            metrics = {"inputTokenCount": usage["input"], "outputTokenCount": usage["output"], **_TIMES}
            value = {**value, _METRICS: metrics}
        steps.append(Step(_packed(draw, value), step.usage, "chunk"))
    notes = ("invoke", "anthropic inside", *told.notes)
    return Script(_DIALECT, "invoke", Framing.FRAMES, _FRAMES, tuple(steps), notes)


def _llama_inside(draw: DrawFn, switches: Switches) -> Script:
    """Llama's words are known to nobody but Amazon's count."""
    telling = Telling(notes=["invoke", "llama inside"])
    given, made = draw(counts()), draw(counts())
    head = {"prompt_token_count": given, "generation_token_count": 0, "stop_reason": None}
    for at, word in enumerate(draw_words(draw, switches.noise)):
        first = head if at == 0 else {"prompt_token_count": None, "generation_token_count": at, "stop_reason": None}
        telling.say(_packed(draw, {"generation": word, **first}), "chunk")
    fails = switches.errors and (switches.usage is False or (switches.usage is None and rarely(draw, 6)))
    if fails:
        telling.notes.append("exception in the stream")
        telling.say(_THROTTLED, "throttlingException")
        return telling.script(_DIALECT, "invoke", _FRAMES, Framing.FRAMES)
    last = {"generation": "", "prompt_token_count": None, "generation_token_count": made, "stop_reason": "stop"}
    if switches.usage is False:
        telling.say(_packed(draw, last), "chunk")
        return telling.script(_DIALECT, "invoke", _FRAMES, Framing.FRAMES)
    metrics = {"inputTokenCount": given, "outputTokenCount": made, **_TIMES}
    truth: dict[str, Any] = {"input": given, "output": made, "total": given + made}
    if draw(st.booleans()):
        read, written = draw(counts(0)), draw(counts(0))
        metrics |= {"cacheReadInputTokenCount": read, "cacheWriteInputTokenCount": written}
        whole = given + read + written
        truth |= {"input": whole, "total": whole + made, "cached_input": read, "cache_write": written}
    telling.say(_packed(draw, {**last, _METRICS: metrics}), "chunk", usage=truth)
    return telling.script(_DIALECT, "invoke", _FRAMES, Framing.FRAMES)
