"""OpenAI's chat completions, embeddings, images and list of models (platform.openai.com/docs/api-reference).

What is imitated with care, because meters depend on it: the stream ends in ``[DONE]``; usage comes in a chunk of its
own with ``choices: []`` and only if ``stream_options.include_usage`` was set, while every other chunk then says
``usage: null``. Models whose name begins with ``mistral`` answer as Mistral does: usage unasked, in the finish chunk.
"""

import base64
import hashlib
import struct
from collections.abc import Iterator
from typing import Any

from gatekeeper.demo.asking import Ask, BadAsk, Choice, embedding_inputs
from gatekeeper.demo.bill import IMAGE_TOKENS, images
from gatekeeper.demo.dialects.frames import Frame, sse

DONE = b"data: [DONE]\n\n"
DIMENSIONS = 64
# The largest that any model of the provider offers.
DIMENSIONS_MAX = 3_072
_ERROR_TYPES = {
    401: "invalid_request_error",
    404: "invalid_request_error",
    429: "requests",
    400: "invalid_request_error",
}
_ERROR_CODES = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}
# The smallest PNG: one transparent pixel.
_PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="


def error_body(status: int, message: str) -> dict[str, Any]:
    """``{"error": {message, type, param, code}}``."""
    kind = _ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {"error": {"message": message, "type": kind, "param": None, "code": _ERROR_CODES.get(status)}}


def broken() -> bytes:
    """An error as a chunk of a stream that began with 200; the provider still sends ``[DONE]`` after it."""
    return sse(error_body(500, "The server had an error processing your request. Sorry about that!")) + DONE


def whole(ask: Ask) -> dict[str, Any]:
    """A ``chat.completion``."""
    choices: list[dict[str, Any]] = [
        {
            "index": index,
            "message": {"role": "assistant", "content": choice.text, "refusal": None, "annotations": []},
            "logprobs": None,
            "finish_reason": _finish(choice),
        }
        for index, choice in enumerate(ask.answer.choices)
    ]
    completion = {**_head(ask, "chat.completion"), "choices": choices}
    return {**completion, "usage": usage(ask)} if ask.reports_usage else completion


def events(ask: Ask) -> Iterator[Frame]:
    """``chat.completion.chunk`` events: for each choice its role, its tokens and its finish; usage; ``[DONE]``.

    With ``n`` above 1 the choices come interleaved, as the provider sends them.
    """
    options = ask.body.get("stream_options")
    asked = ask.reports_usage and isinstance(options, dict) and options.get("include_usage") is True
    unasked = ask.reports_usage and ask.model.startswith("mistral")
    tail = {"usage": None} if asked and not unasked else {}
    head = _head(ask, "chat.completion.chunk")
    for index in range(len(ask.answer.choices)):
        role = {"role": "assistant", "content": "", "refusal": None}
        yield Frame(sse({**head, "choices": [_delta(index, role)], **tail}))
    for turn in range(max(len(choice.pieces) for choice in ask.answer.choices)):
        for index, choice in enumerate(ask.answer.choices):
            if turn < len(choice.pieces):
                yield Frame(sse({**head, "choices": [_delta(index, {"content": choice.pieces[turn]})], **tail}), 1)
    for index, choice in enumerate(ask.answer.choices):
        last = index == len(ask.answer.choices) - 1
        ending = {"usage": usage(ask)} if unasked and last else tail
        yield Frame(sse({**head, "choices": [_delta(index, {}, _finish(choice))], **ending}))
    if asked and not unasked:
        yield Frame(sse({**head, "choices": [], "usage": usage(ask)}))
    yield Frame(DONE)


def usage(ask: Ask) -> dict[str, Any]:
    """The usage object of chat completions; cached and reasoning tokens are always 0 here."""
    answer = ask.answer
    return {
        "prompt_tokens": answer.input_tokens,
        "completion_tokens": answer.output_tokens,
        "total_tokens": answer.input_tokens + answer.output_tokens,
        "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def embeddings(ask: Ask) -> dict[str, Any]:
    """A list of unit vectors, as floats or (the SDK's default) as base64 of little-endian float32."""
    dimensions = ask.body.get("dimensions", DIMENSIONS)
    if not isinstance(dimensions, int) or not 1 <= dimensions <= DIMENSIONS_MAX:
        raise BadAsk(f"'dimensions' must be a whole number from 1 to {DIMENSIONS_MAX}.")
    packed = ask.body.get("encoding_format") == "base64"
    rows = []
    for index in range(len(embedding_inputs(ask.body))):
        vector = _vector(f"{index} {ask.body.get('input')}", dimensions)
        shown = base64.b64encode(struct.pack(f"<{dimensions}f", *vector)).decode() if packed else vector
        rows.append({"object": "embedding", "index": index, "embedding": shown})
    total = ask.answer.input_tokens
    return {
        "object": "list",
        "data": rows,
        "model": ask.model,
        "usage": {"prompt_tokens": total, "total_tokens": total},
    }


def pictures(ask: Ask) -> dict[str, Any]:
    """One-pixel pictures, with the usage that gpt-image models report."""
    wanted = images(ask.body)
    output = IMAGE_TOKENS * wanted
    total = ask.answer.input_tokens + output
    details = {"text_tokens": ask.answer.input_tokens, "image_tokens": 0}
    return {
        "created": ask.created_s,
        "data": [{"b64_json": _PIXEL} for _ in range(wanted)],
        "usage": {
            "total_tokens": total,
            "input_tokens": ask.answer.input_tokens,
            "output_tokens": output,
            "input_tokens_details": details,
        },
    }


def models(names: tuple[str, ...], created_s: int) -> dict[str, Any]:
    """The list of models."""
    rows = [{"id": name, "object": "model", "created": created_s, "owned_by": "demo"} for name in names]
    return {"object": "list", "data": rows}


def _head(ask: Ask, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{ask.id}",
        "object": kind,
        "created": ask.created_s,
        "model": ask.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def _delta(index: int, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}


def _finish(choice: Choice) -> str:
    return "stop" if choice.complete else "length"


def _vector(text: str, dimensions: int) -> list[float]:
    """Numbers that only the text decides, scaled to length 1."""
    drawn = hashlib.shake_256(text.encode()).digest(dimensions)
    centred = [byte - 127.5 for byte in drawn]
    length = sum(number * number for number in centred) ** 0.5
    return [number / length for number in centred]
