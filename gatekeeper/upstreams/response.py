"""The bytes of an answer, without I/O: head and body out of whatever pieces the socket gives.

The rule: of the body only the framing of this hop is taken off; what llhttp or we cannot read without a doubt is one
Fault. The strictness is llhttp's own (no leniency is switched on): both framings at once, two lengths, bare LF,
folded lines and odd chunk sizes are refused (RFC 9112 section 11.2).
"""

import re
from typing import Any

import httptools

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import RawHeaders

WORLD = "upstream"
# A head of an LLM API is 1-4 KB; browsers and proxies stop at 16-256 KB. All 1xx heads count with the final one.
HEAD_BYTES_MAX = 100 * 1024
HEADERS_MAX = 500
# What one waiting piece costs beside its bytes, so that a flood of one-byte chunks counts as what it holds in memory.
PIECE_COST = 64
_KEEP_ALIVE_TIMEOUT = re.compile(rb"timeout\s*=\s*\"?(\d{1,6})", re.IGNORECASE)


class Message:
    """One answer as it is received. ``status`` is 0 until the whole head is there; ``heard`` after any byte.

    ``close_delimited``: the body ends where the connection ends, so that a truncation cannot be seen.
    ``buffered`` is what the waiting ``pieces`` hold in memory, roughly. ``failure`` is raised after the last piece.
    """

    __slots__ = ("buffered", "close_delimited", "ended", "failure", "headers", "heard", "pieces", "status")

    def __init__(self) -> None:
        self.status = 0
        self.headers: RawHeaders = []
        self.pieces: list[bytes] = []
        self.buffered = 0
        self.close_delimited = False
        self.heard = False
        self.ended = False
        self.failure: BaseException | None = None


class ResponseReader:
    """The parser of one connection. ``begin`` names the Message to fill, ``feed`` and ``eof`` fill it.

    After the end: ``keep_alive`` says whether the connection may carry another request, ``idle_max_s`` is what the
    server offered in ``Keep-Alive: timeout=`` (None: nothing).
    """

    __slots__ = (
        "_head_only",
        "_headers",
        "_interim",
        "_measure",
        "_message",
        "_parser",
        "_quiet_bytes",
        "_reason_bytes",
        "_surplus",
        "_wants_close",
        "_worn",
        "idle_max_s",
        "keep_alive",
    )

    def __init__(self) -> None:
        self._parser: Any = None
        self._worn = True
        self._reset(Message(), head_only=False)

    def begin(self, message: Message, *, head_only: bool) -> None:
        """The next bytes answer a new request; ``head_only`` for the method HEAD."""
        self._reset(message, head_only=head_only)

    def _reset(self, message: Message, *, head_only: bool) -> None:
        if self._worn:
            self._parser = httptools.HttpResponseParser(self)
            self._worn = False
        self._message = message
        self._head_only = head_only
        self._headers: RawHeaders = []
        self._reason_bytes = 0
        self._measure = False
        self._quiet_bytes = 0
        self._interim = False
        self._surplus = False
        self._wants_close = False
        self.keep_alive = False
        self.idle_max_s: int | None = None

    def dismiss(self) -> None:
        """Break the cycle between the parser and its callbacks, so that a dead connection is freed at once."""
        self._parser = None
        self._worn = True

    def feed(self, data: bytes) -> None:
        """Take what the socket gave. Raises nothing: what is wrong stands in the Message's ``failure``."""
        message = self._message
        message.heard = True
        before = message.buffered
        # Below that, all that was fed is less than the bound.
        self._measure = self._quiet_bytes + len(data) > HEAD_BYTES_MAX
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse("it switched to another protocol without being asked")
        except httptools.HttpParserError as error:
            self._surplus = True
            self._refuse(f"{error}")
        if message.ended:
            if self._surplus:
                self.keep_alive = False
            return
        # Bytes that make no progress: an unfinished head, endless chunk extensions, endless trailers.
        if message.buffered != before:
            self._quiet_bytes = 0
            return
        self._quiet_bytes += len(data)
        if self._quiet_bytes > HEAD_BYTES_MAX:
            self._refuse("the head is too large" if message.status == 0 else "it sends framing without a body")

    def eof(self) -> None:
        """The server will send no more."""
        message = self._message
        if message.ended or message.failure is not None:
            return
        if message.status and message.close_delimited:
            message.ended = True
        elif message.status:
            message.failure = Fault(WORLD, FaultKind.TRUNCATED, "the connection ended before the body did")
        elif message.heard:
            message.failure = Fault(WORLD, FaultKind.TRUNCATED, "the connection ended within the head")
        else:
            message.failure = Fault(WORLD, FaultKind.RESET, "the connection was closed without an answer")

    def _refuse(self, why: str) -> None:
        message = self._message
        if not message.ended and message.failure is None:
            message.failure = Fault(WORLD, FaultKind.PROTOCOL, why)

    # What the parser calls. An exception here would be swallowed into a parser error, so nothing raises.

    def on_message_begin(self) -> None:
        """Bytes after the end of the answer make the connection unusable."""
        if self._message.ended:
            self._surplus = True

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, or a part of it; only its length is of interest."""
        self._reason_bytes += len(reason)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One field of the head, or of the trailers, which nobody gets."""
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head is whole: decide what frames the body (RFC 9112 section 6.3)."""
        parser = self._parser
        status = parser.get_status_code()
        headers = self._headers
        self._interim = 100 <= status < 200
        self._headers = []
        if len(headers) > HEADERS_MAX or (self._measure and self._reason_bytes + _size(headers) > HEAD_BYTES_MAX):
            self._refuse("the head is too large")
            return
        version = parser.get_http_version()
        if version not in ("1.1", "1.0"):
            self._refuse(f"it speaks HTTP/{version}")
            return
        if status < 200:
            if status < 100 or status == 101:
                self._refuse(f"it answered with status {status}")
            return
        length, coding = self._framing(headers)
        if coding is not None and (coding.lower() != b"chunked" or version == "1.0"):
            # Another coding would reach the client without the header that names it (RFC 9112 6.1). The comparison
            # is llhttp's own: it takes no framing off where so much as a space follows the word.
            self._refuse("it uses a transfer coding that cannot be taken off")
            return
        message = self._message
        bodiless = self._head_only or status == 204 or status == 304
        message.close_delimited = not bodiless and not length and coding is None
        message.headers = headers
        message.status = status
        if self._head_only:
            # The parser cannot be told of HEAD: it now waits for a body, so it is thrown away. With a coding the
            # first bytes of a wrongly sent body would not be noticed, hence no reuse.
            self._worn = True
            message.ended = True
            self.keep_alive = version == "1.1" and not self._wants_close and coding is None

    def on_body(self, body: bytes) -> None:
        """A piece of the body as the socket gave it."""
        message = self._message
        if message.ended:
            self._surplus = True
            return
        if self._interim:
            self._refuse("an interim answer has a body")
        if message.failure is not None:
            return
        message.pieces.append(body)
        message.buffered += len(body) + PIECE_COST

    def on_message_complete(self) -> None:
        """The end of the answer, or of an interim one. Only here should_keep_alive tells the truth."""
        message = self._message
        if self._interim or message.ended or message.failure is not None:
            return
        message.ended = True
        self.keep_alive = self._parser.should_keep_alive()

    def _framing(self, headers: RawHeaders) -> tuple[bool, bytes | None]:
        """Whether a length was given, and all transfer codings; notes what is said about keeping the connection."""
        length = False
        coding: bytes | None = None
        for name, value in headers:
            size = len(name)
            # Comparing lengths first spares lowering every name.
            if size == 14:
                length = length or name.lower() == b"content-length"
            elif size == 17:
                if name.lower() == b"transfer-encoding":
                    coding = value if coding is None else coding + b", " + value
            elif size == 10:
                field = name.lower()
                if field == b"connection":
                    self._wants_close = self._wants_close or b"close" in value.lower()
                elif field == b"keep-alive":
                    offered = _KEEP_ALIVE_TIMEOUT.search(value)
                    self.idle_max_s = int(offered[1]) if offered else None
        return length, coding


def _size(headers: RawHeaders) -> int:
    """With colon, space and line end."""
    return sum(len(name) + len(value) + 4 for name, value in headers)
