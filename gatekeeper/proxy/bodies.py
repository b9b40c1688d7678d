"""The request body on its way in. The rule: JSON is read whole (model and bounds stand in it), anything else streams
through, and both are bounded.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import orjson

from gatekeeper.errors import Code, Refusal
from gatekeeper.frozen import record
from gatekeeper.proxy.call import Call, Caller, CallerGone, Rereadable

# What parsers skip before a JSON text; some also a byte order mark.
_BLANKS = b" \t\r\n\xef\xbb\xbf"


@record(frozen=True, slots=True)
class Body:
    """``whole`` was read; else ``pieces`` arrive. ``parsed`` is set where the whole is a JSON object."""

    whole: bytes | None
    pieces: AsyncIterator[bytes] | None
    content_length: int | None
    parsed: Mapping[str, Any] | None


async def read_body(call: Call, caller: Caller) -> Body:
    """JSON is read whole (model and bounds stand in it), anything else streams through, bounded all the same."""
    bytes_max = call.route.request_bytes_max
    length, comes = _stated_length(call, bytes_max)
    if not comes:
        return Body(b"", None, None, None)
    metered = not call.route.free and call.method in call.route.meter_methods
    if metered and _is_encoded(call):
        raise Refusal(Code.BAD_REQUEST, "The request body is encoded, so it cannot be read.", hint="send it as it is")
    strict = _calls_itself_json(call)
    # A small body has come with its head: then nothing is waited for, and no generator needed. `at_hand` is optional.
    at_hand = getattr(caller, "at_hand", None) if strict else None
    whole: bytes | None = None if at_hand is None else at_hand()
    if whole is not None:
        if len(whole) > bytes_max:
            raise _too_large(bytes_max)
        return _whole_body(whole, length, metered=metered, strict=True)
    arriving = _bounded(caller.body(), bytes_max)
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
    return _whole_body(b"".join(pieces), length, metered=metered, strict=strict)


def _whole_body(whole: bytes, length: int | None, *, metered: bool, strict: bool) -> Body:
    if length is not None and len(whole) != length:
        raise CallerGone("the request body is shorter than its Content-Length")
    if not whole or not metered:
        return Body(whole, None, None, _parse(whole, strict=False) if whole else None)
    return Body(whole, None, None, _parse(whole, strict=strict))


async def look_into(call: Call, caller: Rereadable, bytes_max: int) -> Body:
    """The body as far as a condition can ask for it, before the route is known: JSON whole, of anything else nothing.
    All that was read is given back, so that ``read_body`` finds it. Raises Refusal, and CallerGone."""
    length, comes = _stated_length(call, bytes_max)
    if not comes:
        return Body(b"", None, None, None)
    if _is_encoded(call):
        return Body(None, None, length, None)
    arriving = _bounded(caller.body(), bytes_max)
    pieces: list[bytes] = []
    async with aclosing(arriving):
        pieces.append(await _begun(arriving))
        whole = _calls_itself_json(call) or pieces[0].lstrip(_BLANKS).startswith(b"{")
        if whole:
            pieces += [piece async for piece in arriving]
    read = b"".join(pieces)
    caller.unread(read)
    return Body(read, None, None, _parse(read, strict=False)) if whole else Body(None, None, length, None)


def _stated_length(call: Call, bytes_max: int) -> tuple[int | None, bool]:
    """(the length that the head states, whether a body comes). Raises Refusal for one that is too large."""
    stated = call.header(b"content-length")
    length = int(stated) if stated is not None and stated.isdigit() else None
    if length is not None and length > bytes_max:
        raise _too_large(bytes_max)
    return length, bool(length) or call.header(b"transfer-encoding") is not None


def _is_encoded(call: Call) -> bool:
    stated = call.header(b"content-encoding")
    return stated is not None and stated.strip().lower() not in (b"", b"identity")


def _calls_itself_json(call: Call) -> bool:
    """What calls itself JSON, or text, or nothing at all, must be JSON."""
    stated = call.header(b"content-type")
    if stated == b"application/json":
        return True
    content_type = (stated or b"").decode("latin-1").lower()
    return "json" in content_type or not content_type or content_type.startswith("text/plain")


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
