"""OpenAI's Responses API, as OpenAI, Bedrock, OpenRouter and DeepSeek stream it; source: the API reference and
recordings.

The rule: usage stands in the terminal event, whichever that is; what stands beside it is not usage.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Habits, Script, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely, up_to

_DIALECT = "openai_responses"
RESPONSES_VENDORS = ("openai", "bedrock", "openrouter", "deepseek")
_QUOTA = {"code": "insufficient_quota", "message": "You exceeded your current quota."}


def openai_responses_streams(
    vendor: str | tuple[str, ...] = RESPONSES_VENDORS, **switches: Unpack[SwitchWords]
) -> SearchStrategy[ProviderStream]:
    """Answers of ``/v1/responses``. Keywords: see ``Switches``. Raises ValueError for an unknown vendor."""
    names = (vendor,) if isinstance(vendor, str) else tuple(vendor)
    if not names or not set(names) <= set(RESPONSES_VENDORS):
        raise ValueError(f"vendor {names} is not among {', '.join(RESPONSES_VENDORS)}")
    return _streams(names, Switches(**switches))


@st.composite
def _streams(draw: DrawFn, names: tuple[str, ...], switches: Switches) -> ProviderStream:
    vendor = draw(st.sampled_from(names))
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    if not streamed and switches.errors and switches.usage is not True and rarely(draw, 6):
        script = refusal(draw, _DIALECT, vendor)
    elif streamed:
        script = _stream(draw, vendor, switches)
    else:
        script = _answer(draw, vendor, switches)
    return draw_stream(draw, script, switches)


def _counted(draw: DrawFn, vendor: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The usage object, and what it says."""
    given, made = draw(counts()), draw(counts())
    cached, reasoning = draw(up_to(given)), draw(up_to(made))
    usage: dict[str, Any] = {"input_tokens": given, "input_tokens_details": {"cached_tokens": cached}}
    usage |= {"output_tokens": made, "output_tokens_details": {"reasoning_tokens": reasoning}}
    usage["total_tokens"] = given + made
    truth = {"input": given, "output": made, "total": given + made, "cached_input": cached, "reasoning": reasoning}
    if vendor == "bedrock":
        fresh = draw(up_to(given - cached))
        usage["input_tokens_details"]["cache_write_tokens"] = fresh
        truth["cache_write"] = fresh
    return usage, truth


def _response(status: str, output: list[Any], usage: Any, *, tools: bool = False, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"id": "resp_x", "object": "response", "created_at": 1_778_037_177, "status": status}
    body |= {"error": None, "incomplete_details": None, "model": "gpt-5-nano-2025-08-07", "output": output}
    if tools:
        # Billed apart, and easily taken for the usage.
        image = {"input_tokens": 3, "output_tokens": 1_056, "total_tokens": 1_059}
        body["tool_usage"] = {"image_gen": image, "web_search": {"num_requests": 1}}
    return {**body, "usage": usage, "metadata": {}, **more}


def _message(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "annotations": [], "text": text}]
    return {"id": "msg_x", "type": "message", "status": "completed", "content": content, "role": "assistant"}


class _Events(Telling):
    """Numbers the events; OpenRouter gives them no names."""

    named = True

    def tell(self, kind: str, *, usage: Any = None, **fields: Any) -> None:
        """One event of this type."""
        event = {"type": kind, "sequence_number": len(self.steps), **fields}
        truth = {} if usage is None else {"usage": usage}
        self.say(event, kind if self.named else "", **truth)


def _stream(draw: DrawFn, vendor: str, switches: Switches) -> Script:
    telling = _Events(notes=[vendor])
    telling.named = vendor != "openrouter"
    usage, truth = _counted(draw, vendor)
    endings = ["completed", "incomplete"]
    if switches.errors:
        endings.append("failed with usage")
    if switches.usage is not True:
        endings = [*endings, "failed"] if switches.errors else endings
    if switches.usage is False:
        endings = ["failed"] if switches.errors else ["completed without usage"]
    ending = draw(st.sampled_from(endings))
    for kind in ("response.created", "response.in_progress"):
        telling.tell(kind, response=_response("in_progress", [], None))
    words = [] if ending == "failed" else draw_words(draw, switches.noise)
    place = {"item_id": "msg_x", "output_index": 0, "content_index": 0}
    for word in words:
        telling.tell("response.output_text.delta", **place, delta=word)
    text = "".join(words)
    if words:
        telling.tell("response.output_text.done", **place, text=text)
        telling.tell("response.output_item.done", item=_message(text), output_index=0)
    output, tools = [_message(text)] if words else [], draw(st.booleans())
    if ending.startswith("completed"):
        told, usage_truth = (usage, truth) if ending == "completed" else (None, None)
        telling.tell(
            "response.completed", response=_response("completed", output, told, tools=tools), usage=usage_truth
        )
    elif ending == "incomplete":
        cut = _response("incomplete", output, usage, tools=tools, incomplete_details={"reason": "max_output_tokens"})
        telling.tell("response.incomplete", response=cut, usage=truth)
    else:
        telling.tell("error", error={"type": "insufficient_quota", **_QUOTA, "param": None})
        told, failed_truth = (usage, truth) if ending == "failed with usage" else (None, None)
        telling.tell("response.failed", response=_response("failed", output, told, error=_QUOTA), usage=failed_truth)
    telling.notes.append(ending)
    if vendor == "openrouter":
        telling.say("[DONE]")
    habits = Habits(data_first=vendor == "bedrock", comment="OPENROUTER PROCESSING")
    return telling.script(_DIALECT, vendor, "text/event-stream", habits=habits)


def _answer(draw: DrawFn, vendor: str, switches: Switches) -> Script:
    usage, truth = _counted(draw, vendor)
    text = "".join(draw_words(draw, switches.noise))
    background = switches.usage is False or (switches.usage is None and rarely(draw, 6))
    if background:
        body = _response("queued", [], None)
        return single(_DIALECT, vendor, body, None, vendor, "in the background: no usage yet")
    habits = Habits(indented=draw(st.booleans()))
    body = _response("completed", [_message(text)], usage, tools=draw(st.booleans()))
    return single(_DIALECT, vendor, body, truth, vendor, habits=habits)
