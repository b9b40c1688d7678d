"""JSON answers and refusals for Starlette endpoints (the data path writes its own)."""

from collections.abc import Iterable
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
    raise TypeError(type(value).__name__)


def json_answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON response that no cache keeps."""
    body = orjson.dumps(value, default=_default)
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


async def json_body(request: Request) -> dict[str, Any]:
    """The JSON object that was sent. Raises Refusal for anything else."""
    size, pieces = 0, []
    async for piece in request.stream():
        size += len(piece)
        if size > BODY_BYTES_MAX:
            raise Refusal(Code.BODY_TOO_LARGE)
        pieces.append(piece)
    try:
        value = orjson.loads(b"".join(pieces) or b"{}")
    except orjson.JSONDecodeError as error:
        raise Refusal(Code.BAD_REQUEST, f"The body is not valid JSON: {error}.") from error
    if not isinstance(value, dict):
        raise Refusal(Code.BAD_REQUEST, "The body must be a JSON object.")
    return value
