"""Anthropic's messages and count_tokens (docs.anthropic.com/en/api/messages, messages-streaming).

What is imitated with care: ``message_start`` holds the input and a placeholder of 1 for the output; ``message_delta``
repeats the input and holds the final, cumulative output (adding the two would bill the input twice); ``ping`` comes in
between; ``message_stop`` ends the stream and holds no usage. There is no total anywhere.
"""

from collections.abc import Iterator
from typing import Any

from gatekeeper.demo.asking import Ask, Choice
from gatekeeper.demo.dialects.frames import Frame, sse

_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    529: "overloaded_error",
}


def error_body(status: int, message: str) -> dict[str, Any]:
    """``{"type": "error", "error": {type, message}, "request_id"}``."""
    kind = _ERROR_TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_demo"}


def broken() -> bytes:
    """``event: error`` after HTTP 200; no ``message_stop`` follows."""
    return sse(error_body(529, "Overloaded"), "error")


def whole(ask: Ask) -> dict[str, Any]:
    """A ``message``."""
    choice = ask.answer.choices[0]
    message = _message(ask, [{"type": "text", "text": choice.text}], _stop_reason(choice))
    return {**message, "usage": _usage(ask, ask.answer.output_tokens)} if ask.reports_usage else message


def events(ask: Ask) -> Iterator[Frame]:
    """One text block between ``message_start`` and ``message_stop``."""
    for body, tokens in _steps(ask):
        yield Frame(sse(body, body["type"]), tokens)


def counted(ask: Ask) -> dict[str, Any]:
    """The answer of count_tokens: a figure that is not in any ``usage``, because it costs nothing."""
    return {"input_tokens": ask.answer.input_tokens}


def models(names: tuple[str, ...]) -> dict[str, Any]:
    """The list of models, one page."""
    rows = [{"type": "model", "id": name, "display_name": name, "created_at": "2025-01-01T00:00:00Z"} for name in names]
    return {"data": rows, "has_more": False, "first_id": names[0], "last_id": names[-1]}


def _steps(ask: Ask) -> Iterator[tuple[dict[str, Any], int]]:
    choice = ask.answer.choices[0]
    begun = _message(ask, [], None)
    placeholder = {"usage": _usage(ask, 1)} if ask.reports_usage else {}
    yield {"type": "message_start", "message": {**begun, **placeholder}}, 0
    yield {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}, 0
    yield {"type": "ping"}, 0
    for piece in choice.pieces:
        yield {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}, 1
    yield {"type": "content_block_stop", "index": 0}, 0
    final = {"usage": _usage(ask, ask.answer.output_tokens)} if ask.reports_usage else {}
    yield {"type": "message_delta", "delta": {"stop_reason": _stop_reason(choice), "stop_sequence": None}, **final}, 0
    yield {"type": "message_stop"}, 0


def _message(ask: Ask, content: list[dict[str, Any]], stop_reason: str | None) -> dict[str, Any]:
    return {
        "id": f"msg_{ask.id}",
        "type": "message",
        "role": "assistant",
        "model": ask.model,
        "content": content,
        "stop_reason": stop_reason,
        "stop_sequence": None,
    }


def _usage(ask: Ask, output_tokens: int) -> dict[str, Any]:
    return {
        "input_tokens": ask.answer.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output_tokens,
    }


def _stop_reason(choice: Choice) -> str:
    return "end_turn" if choice.complete else "max_tokens"
