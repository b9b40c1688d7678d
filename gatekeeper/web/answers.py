"""JSON answers and refusals for Starlette endpoints (the data path writes its own)."""

import json
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.config.gateway import Dialect
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import plain
from gatekeeper.web.problems import problem

# An admin body is a few hundred bytes; a megabyte is a mistake or an attack.
BODY_BYTES_MAX = 1024 * 1024


def _default(value: object) -> object:
    if isinstance(value, Decimal):
        return plain(value)
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(type(value).__name__)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response that no cache keeps."""
    try:
        body = orjson.dumps(value, default=_default)
    except TypeError:  # orjson.JSONEncodeError: a provider may send an integer above 64 bits, or half a letter
        body = json.dumps(value, default=_default).encode("ascii")
    return Response(body, status, {"cache-control": "no-store", **(headers or {})}, media_type="application/json")


def refusal_answer(refusal: Refusal, dialect: Dialect = Dialect.OPENAI) -> Response:
    """A refusal as a Starlette response."""
    status, headers, body = problem(refusal, dialect, None)
    shown = {name.decode("latin-1"): value.decode("latin-1") for name, value in headers}
    return Response(body, status, shown)


def check_storable(texts: Iterable[str]) -> None:
    """Raises Refusal for a text with NUL, which no database of ours stores or finds."""
    if any("\0" in text for text in texts):
        raise Refusal(Code.BAD_REQUEST, "A text in the URL holds the character NUL.")


async def body_bytes(request: Request) -> bytes:
    """The body as it came; it may be read again. Raises Refusal for one that is too large."""
    size, pieces = 0, []
    async for piece in request.stream():
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise Refusal(Code.BODY_TOO_LARGE)
        pieces.append(piece)
    # Where Starlette itself keeps it: whoever reads the request after the gate gets it from there.
    request._body = b"".join(pieces)
    return request._body


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. Raises Refusal for anything else."""
    body = await body_bytes(request)
    try:
        value = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise Refusal(Code.BAD_REQUEST, f"The body is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise Refusal(Code.BAD_REQUEST, "The body must be a JSON object.")
    if any("\0" in text for text in _texts_in(value)):
        raise Refusal(Code.BAD_REQUEST, "A text in the body holds the character NUL.")
    return value


def _texts_in(value: object) -> Iterator[str]:
    """All texts, names of fields too, however deep: what is nested deeper than 1024, the parser refuses."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list):
            waiting += one
