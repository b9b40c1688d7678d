"""OpenAI's Responses (platform.openai.com/docs/api-reference/responses, responses-streaming).

What is imitated with care: usage stands in ``response.usage`` of the last event and at the top level of a JSON answer;
there is no ``[DONE]``; an answer that was cut ends in ``response.incomplete`` (with usage), not in ``completed``.
"""

from collections.abc import Iterator
from typing import Any

from gatekeeper.demo.asking import Ask, Choice
from gatekeeper.demo.dialects import openai
from gatekeeper.demo.dialects.frames import Frame, sse

error_body = openai.error_body


def broken() -> bytes:
    """``error`` followed by nothing: what the provider sends when it fails after HTTP 200."""
    failure = {"type": "error", "code": "server_error", "message": "The server had an error.", "param": None}
    return sse({**failure, "sequence_number": 99}, "error")


def whole(ask: Ask) -> dict[str, Any]:
    """A ``response`` that is over."""
    choice = ask.answer.choices[0]
    return _response(ask, _status(choice), [_message(ask, choice.text, _status(choice))], ended=True)


def events(ask: Ask) -> Iterator[Frame]:
    """The event names come as ``event:`` and as ``type``; ``sequence_number`` counts from 0."""
    for number, (kind, fields, tokens) in enumerate(_steps(ask)):
        yield Frame(sse({"type": kind, **fields, "sequence_number": number}, kind), tokens)


def _steps(ask: Ask) -> Iterator[tuple[str, dict[str, Any], int]]:
    choice = ask.answer.choices[0]
    status = _status(choice)
    message = _message(ask, choice.text, status)
    item: dict[str, Any] = {"output_index": 0}
    part = {**item, "item_id": message["id"], "content_index": 0}
    begun = _response(ask, "in_progress", [], ended=False)
    yield "response.created", {"response": begun}, 0
    yield "response.in_progress", {"response": begun}, 0
    yield "response.output_item.added", {**item, "item": {**message, "status": "in_progress", "content": []}}, 0
    yield "response.content_part.added", {**part, "part": _part("")}, 0
    for piece in choice.pieces:
        yield "response.output_text.delta", {**part, "delta": piece, "logprobs": []}, 1
    yield "response.output_text.done", {**part, "text": choice.text, "logprobs": []}, 0
    yield "response.content_part.done", {**part, "part": _part(choice.text)}, 0
    yield "response.output_item.done", {**item, "item": message}, 0
    yield f"response.{status}", {"response": _response(ask, status, [message], ended=True)}, 0


def _response(ask: Ask, status: str, output: list[dict[str, Any]], *, ended: bool) -> dict[str, Any]:
    return {
        "id": f"resp_{ask.id}",
        "object": "response",
        "created_at": ask.created_s,
        "status": status,
        "background": False,
        "error": None,
        "incomplete_details": {"reason": "max_output_tokens"} if status == "incomplete" else None,
        "instructions": ask.body.get("instructions"),
        "max_output_tokens": ask.body.get("max_output_tokens"),
        "model": ask.model,
        "output": output,
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": _usage(ask) if ended and ask.reports_usage else None,
        "user": None,
        "metadata": {},
    }


def _message(ask: Ask, text: str, status: str) -> dict[str, Any]:
    return {"id": f"msg_{ask.id}", "type": "message", "status": status, "content": [_part(text)], "role": "assistant"}


def _part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": text}


def _status(choice: Choice) -> str:
    return "completed" if choice.complete else "incomplete"


def _usage(ask: Ask) -> dict[str, Any]:
    answer = ask.answer
    return {
        "input_tokens": answer.input_tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": answer.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": answer.input_tokens + answer.output_tokens,
    }
