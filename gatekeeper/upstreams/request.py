"""The bytes of a request, without I/O. The rule: what was given goes out as it is, or is refused; nothing is repaired.

Raw target, order and case of the headers are kept; the one thing added is the framing (RFC 9112 section 6), because
framing belongs to one hop.
"""

import re
from functools import lru_cache

from gatekeeper.ports import Outgoing

# RFC 9110 9.2.2. May be sent again after a connection died without an answer.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})

# An empty body is announced for these, as servers may wait for one (RFC 9110 8.6).
_ANNOUNCED = frozenset({"POST", "PUT", "PATCH"})
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_METHOD = re.compile(_TOKEN)
# All names at once, a line each: one call of the regex engine for the whole head.
_NAMES = re.compile(f"{_TOKEN}(?:\n{_TOKEN})*".encode())
# Anything but controls and space, which would end the target early. Bytes above 0x7f pass as they came.
_TARGET = re.compile(rb"[^\x00-\x20\x7f]+")
_USUAL = frozenset({"GET", "POST"})
# Callers choose the names: with the number of entries this bounds what the cache may hold to a megabyte.
_CACHED_BYTES_MAX = 1024


class UnsendableRequest(ValueError):
    """The request cannot be written without meaning something else on the wire. Holds no value of any header."""


def request_head(outgoing: Outgoing) -> bytes:
    """Request line, headers and the empty line.

    Raises UnsendableRequest for CR, LF or NUL in a value, a name or method that is no token, a target with spaces or
    controls, a framing field, a missing or second Host, and CONNECT.
    """
    method, target, headers = outgoing.method, outgoing.target, outgoing.headers
    if method not in _USUAL and (method == "CONNECT" or _METHOD.fullmatch(method) is None):
        raise UnsendableRequest("the method cannot be sent")
    if _TARGET.fullmatch(target) is None:
        raise UnsendableRequest("the target is empty or holds a space or a control character")
    names = b"\n".join([name for name, _ in headers])
    check = _check_names if len(names) <= _CACHED_BYTES_MAX else _check_names.__wrapped__
    check(names, len(headers))
    framing = _framing(outgoing)
    lines = [b"%b %b HTTP/1.1" % (method.encode("ascii"), target), *[b": ".join(header) for header in headers]]
    head = b"\r\n".join([*lines, framing])
    # The names are tokens and the target has no controls, so what is too many came with a value.
    breaks = len(lines) + framing.count(b"\r")
    if head.count(b"\r") != breaks or head.count(b"\n") != breaks or b"\0" in head:
        raise UnsendableRequest("a header has a value with CR, LF or NUL")
    return head


def framed(piece: bytes) -> tuple[bytes, bytes, bytes]:
    """One chunk of a chunked body. Never for an empty piece: that would be the end."""
    assert piece
    return b"%x\r\n" % len(piece), piece, b"\r\n"


LAST_CHUNK = b"0\r\n\r\n"


def _framing(outgoing: Outgoing) -> bytes:
    body = outgoing.body
    if isinstance(body, bytes):
        if body or outgoing.method in _ANNOUNCED:
            return b"Content-Length: %d\r\n\r\n" % len(body)
        return b"\r\n"
    if outgoing.content_length is None:
        return b"Transfer-Encoding: chunked\r\n\r\n"
    if outgoing.content_length < 0:
        raise UnsendableRequest("the length of the body is negative")
    return b"Content-Length: %d\r\n\r\n" % outgoing.content_length


# A client library sends the same names in the same order every time.
@lru_cache(maxsize=1024)
def _check_names(names: bytes, count: int) -> None:
    """``names`` are joined by line ends."""
    if _NAMES.fullmatch(names) is None or names.count(b"\n") != count - 1:
        raise UnsendableRequest("a header has a name that is not a token")
    lowered = names.lower().split(b"\n")
    if lowered.count(b"host") != 1:
        raise UnsendableRequest("there is not exactly one Host")
    if b"content-length" in lowered or b"transfer-encoding" in lowered:
        raise UnsendableRequest("a header of the request sets the framing")
