"""The request body on its way in. The rule: JSON is read whole (model and bounds stand in it), anything else streams
through, and both are bounded.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import orjson

from gatekeeper.errors import Code, Refusal
from gatekeeper.proxy.call import Call, Caller, CallerGone

# What parsers skip before a JSON text; some also a byte order mark.
_BLANKS = b" \t\r\n\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Body:
    """``whole`` was read; else ``pieces`` arrive. ``parsed`` is set where the whole is a JSON object."""

    whole: bytes | None
    pieces: AsyncIterator[bytes] | None
    content_length: int | None
    parsed: Mapping[str, Any] | None


async def read_body(call: Call, caller: Caller) -> Body:
    """JSON is read whole (model and bounds stand in it), anything else streams through, bounded all the same."""
    bytes_max = call.route.request_bytes_max
    stated = call.header(b"content-length")
    length = int(stated) if stated is not None and stated.isdigit() else None
    chunked = call.header(b"transfer-encoding") is not None
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    if not length and not chunked:
        return Body(b"", None, None, None)
    metered = not call.route.free and call.method in call.route.meter_methods
    arriving = _bounded(caller.body(), bytes_max)
    content_type = (call.header(b"content-type") or b"").decode("latin-1").lower()
    encoding = (call.header(b"content-encoding") or b"").strip().lower()
    if encoding not in (b"", b"identity") and metered:
        await arriving.aclose()
        raise Refusal(Code.BAD_REQUEST, "The request body is encoded, so it cannot be read.", hint="send it as it is")
    # What calls itself JSON, or text, or nothing at all, must be JSON.
    strict = "json" in content_type or not content_type or content_type.startswith("text/plain")
    if not strict:
        # Uploads go up as they come. But a server that does not look at the type reads JSON whatever it is called.
        first = await _begun(arriving)
        arriving = _again(first, arriving)
        strict = first.lstrip(_BLANKS).startswith(b"{")
        if not strict:
            return Body(None, arriving, length, None)
    pieces: list[bytes] = []
    async with aclosing(arriving):
        async for piece in arriving:
            pieces.append(piece)
    whole = b"".join(pieces)
    if length is not None and len(whole) != length:
        raise CallerGone("the request body is shorter than its Content-Length")
    if not whole or not metered:
        return Body(whole, None, None, _parse(whole, strict=False) if whole else None)
    return Body(whole, None, None, _parse(whole, strict=strict))


async def _begun(arriving: AsyncGenerator[bytes, None]) -> bytes:
    """The body as far as its first byte that is no blank."""
    first = b""
    while not first.lstrip(_BLANKS) and (piece := await anext(arriving, b"")):
        first += piece
    return first


async def _again(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A body from its start, of which the first piece was looked at."""
    async with aclosing(rest):
        if first:
            yield first
        async for piece in rest:
            yield piece


async def _bounded(pieces: AsyncGenerator[bytes, None], bytes_max: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async with aclosing(pieces):
        async for piece in pieces:
            size += len(piece)
            if size > bytes_max:
                raise _too_large(bytes_max)
            yield piece


def _too_large(bytes_max: int) -> Refusal:
    return Refusal(Code.BODY_TOO_LARGE, f"The request body is larger than the {bytes_max} bytes that the route allows.")


def _parse(body: bytes, *, strict: bool) -> Mapping[str, Any] | None:
    """The JSON object; None for anything else, which is a Refusal where the body must be one."""
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        if not strict:
            return None
        raise Refusal(Code.BAD_REQUEST, f"The request body is not valid JSON: {error}.") from error
    if not isinstance(parsed, dict):
        if not strict:
            return None
        raise Refusal(Code.BAD_REQUEST, "The request body must be a JSON object.")
    return parsed
