"""Google's generateContent, streamGenerateContent and countTokens (ai.google.dev/api/generate-content).

What is imitated with care: usage is cumulative in every event and complete only in the last; lines of the event stream
end in CRLF; without ``alt=sse`` the same stream is one JSON array, sent element by element; there is no ``[DONE]``.
"""

import json
from collections.abc import Iterator
from typing import Any

from gatekeeper.demo.asking import Ask, Choice
from gatekeeper.demo.dialects.frames import Frame

# Gemini sends a few words at a time, not single tokens.
PIECES_AN_EVENT = 8
_STATUS_NAMES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def error_body(status: int, message: str) -> dict[str, Any]:
    """``{"error": {code, message, status}}``."""
    return {"error": {"code": status, "message": message, "status": _STATUS_NAMES.get(status, "INTERNAL")}}


def broken() -> bytes:
    """A bare, indented error object in the middle of the stream: not an event, so parsers of SSE drop it."""
    return json.dumps(error_body(503, "The model is overloaded. Please try again later."), indent=2).encode() + b"\n"


def whole(ask: Ask) -> dict[str, Any]:
    """One answer with all candidates."""
    candidates = [_candidate(index, choice.text, _finish(choice)) for index, choice in enumerate(ask.answer.choices)]
    return _reply(ask, candidates, ended=True)


def events(ask: Ask) -> Iterator[Frame]:
    """Server-sent events (``alt=sse``)."""
    for reply, tokens in _replies(ask):
        yield Frame(f"data: {json.dumps(reply, separators=(',', ': '))}\r\n\r\n".encode(), tokens)


def array(ask: Ask) -> Iterator[Frame]:
    """The same replies as elements of one JSON array."""
    opening = "["
    for reply, tokens in _replies(ask):
        yield Frame((opening + json.dumps(reply, indent=2)).encode(), tokens)
        opening = "\n,\r\n"
    yield Frame(b"\n]")


def counted(ask: Ask) -> dict[str, Any]:
    """The answer of countTokens; it costs nothing."""
    tokens = ask.answer.input_tokens
    return {"totalTokens": tokens, "promptTokensDetails": [{"modality": "TEXT", "tokenCount": tokens}]}


def models(names: tuple[str, ...]) -> dict[str, Any]:
    """The list of models."""
    methods = ["generateContent", "countTokens"]
    return {"models": [{"name": f"models/{name}", "supportedGenerationMethods": methods} for name in names]}


def _replies(ask: Ask) -> Iterator[tuple[dict[str, Any], int]]:
    for index, choice in enumerate(ask.answer.choices):
        for start in range(0, len(choice.pieces), PIECES_AN_EVENT):
            said = choice.pieces[start : start + PIECES_AN_EVENT]
            over = start + PIECES_AN_EVENT >= len(choice.pieces)
            candidate = _candidate(index, "".join(said), _finish(choice) if over else None)
            ended = over and index == len(ask.answer.choices) - 1
            yield _reply(ask, [candidate], ended=ended), len(said)


def _reply(ask: Ask, candidates: list[dict[str, Any]], *, ended: bool) -> dict[str, Any]:
    reply: dict[str, Any] = {"candidates": candidates}
    if ask.reports_usage:
        reply["usageMetadata"] = _usage(ask, ended=ended)
    return {**reply, "modelVersion": ask.model, "responseId": ask.id}


def _usage(ask: Ask, *, ended: bool) -> dict[str, Any]:
    """Before the end only the prompt is counted, as recorded streams show it."""
    prompt, output = ask.answer.input_tokens, ask.answer.output_tokens
    details = {"promptTokensDetails": [{"modality": "TEXT", "tokenCount": prompt}]}
    if not ended:
        return {"promptTokenCount": prompt, "totalTokenCount": prompt, **details}
    details["candidatesTokensDetails"] = [{"modality": "TEXT", "tokenCount": output}]
    return {"promptTokenCount": prompt, "candidatesTokenCount": output, "totalTokenCount": prompt + output, **details}


def _candidate(index: int, text: str, finish: str | None) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}, "index": index}
    return {**candidate, "finishReason": finish} if finish else candidate


def _finish(choice: Choice) -> str:
    return "STOP" if choice.complete else "MAX_TOKENS"
