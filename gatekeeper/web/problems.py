"""A Refusal as HTTP, in the shape that the caller's SDK parses. The only place where refusals become responses.

Shapes: OpenAI ``{"error": {message, type, param, code}}``; Anthropic ``{"type": "error", "error": {type, message}}``;
Google ``{"error": {code, message, status}}`` (each provider's API reference, "Errors").
"""

from typing import Any

import orjson

from gatekeeper.config.gateway import Dialect
from gatekeeper.errors import REFUSALS, Code, LimitState, Refusal
from gatekeeper.money import amount_text
from gatekeeper.ports import RawHeaders

_OPENAI_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}
_ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
}
_GOOGLE_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    402: "RESOURCE_EXHAUSTED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    409: "ALREADY_EXISTS",
    429: "RESOURCE_EXHAUSTED",
    502: "UNAVAILABLE",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


def sentence(refusal: Refusal) -> str:
    """What is shown to the caller: what happened, and what to do."""
    return f"{refusal.public} Hint: {refusal.hint}." if refusal.hint else refusal.public


def limit_json(limit: LimitState) -> dict[str, Any]:
    """A limit for machines; amounts as decimal strings in the limit's own unit."""
    return {
        "name": limit.name,
        "scope": limit.scope,
        "dimension": limit.dimension,
        "window": limit.window,
        "cap": None if limit.cap is None else amount_text(limit.dimension, limit.cap),
        "used": amount_text(limit.dimension, limit.used),
        "held": amount_text(limit.dimension, limit.held),
        "remaining": None if limit.remaining is None else amount_text(limit.dimension, limit.remaining),
        "resets_ms": limit.resets_ms,
    }


def problem(refusal: Refusal, dialect: Dialect, call_id: str | None) -> tuple[int, RawHeaders, bytes]:
    """(status, headers, body) of a refusal in one dialect."""
    status, text = refusal.status, sentence(refusal)
    limit = {} if refusal.limit is None else {"limit": limit_json(refusal.limit)}
    usual = "invalid_request_error" if status < 500 else "api_error"
    body: dict[str, Any]
    if dialect is Dialect.ANTHROPIC:
        kind = _ANTHROPIC_TYPES.get(status, usual)
        body = {"type": "error", "error": {"type": kind, "message": text, "code": refusal.code, **limit}}
        if call_id:
            body["request_id"] = call_id
    elif dialect is Dialect.GEMINI:
        name = _GOOGLE_STATUSES.get(status, "INVALID_ARGUMENT" if status < 500 else "INTERNAL")
        details = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": refusal.code, **limit}]
        body = {"error": {"code": status, "message": text, "status": name, "details": details}}
    else:
        kind = _OPENAI_TYPES.get(status, usual)
        body = {"error": {"message": text, "type": kind, "param": None, "code": refusal.code, **limit}}
    return status, _headers(refusal, call_id), orjson.dumps(body)


def problem_event(refusal: Refusal, dialect: Dialect, call_id: str | None) -> bytes:
    """A refusal as the last event of a stream: ``data: {"error": ...}`` for OpenAI and Google, ``event: error`` for
    Anthropic (each provider's API reference, "Streaming")."""
    _, _, body = problem(refusal, dialect, call_id)
    name = b"event: error\n" if dialect is Dialect.ANTHROPIC else b""
    return name + b"data: " + body + b"\n\n"


def _headers(refusal: Refusal, call_id: str | None) -> RawHeaders:
    headers: RawHeaders = [(b"content-type", b"application/json"), (b"x-gatekeeper-refusal", refusal.code.encode())]
    if call_id:
        headers.append((b"x-gatekeeper-call-id", call_id.encode("ascii")))
    if refusal.retry_after_s is not None:
        headers.append((b"retry-after", str(refusal.retry_after_s).encode("ascii")))
    # The official SDKs obey this: no blind retries of what only a payment or a new window can open.
    headers.append((b"x-should-retry", b"true" if REFUSALS[refusal.code].retry_helps else b"false"))
    if refusal.status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="gatekeeper"'))
    headers += [(name.lower().encode("ascii"), value.encode("latin-1")) for name, value in refusal.headers]
    return headers


def internal(call_id: str | None) -> Refusal:
    """What a caller learns of a mistake of ours: the id under which it is in the log."""
    return Refusal(Code.INTERNAL, f"The gateway made a mistake; it is on record as {call_id or 'unknown'}.")
