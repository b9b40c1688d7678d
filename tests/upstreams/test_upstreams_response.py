"""Answers as bytes, without sockets: each case is fed whole, byte by byte, and with trailing bytes."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.upstreams.response import HEAD_BYTES_MAX, HEADERS_MAX, Message, ResponseReader

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Case:
    """Bytes, and the body (or the failure) and whether the connection may be used again."""

    name: str
    text: bytes
    body: bytes = b""
    keep: bool = True
    status: int = 200
    head_only: bool = False
    fault: FaultKind | None = None


def head(*lines: bytes, first: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """A head."""
    return b"\r\n".join([first, *lines, b"", b""])


GOOD = [
    Case("length", head(b"Content-Length: 2") + b"hi", b"hi"),
    Case("length zero", head(b"Content-Length: 0")),
    Case("length with zeros before", head(b"Content-Length: 0002") + b"hi", b"hi"),
    Case("chunked", CHUNKED + b"2\r\nhi\r\n3\r\nyou\r\n0\r\n\r\n", b"hiyou"),
    Case("chunked, other case", head(b"transfer-ENCODING: Chunked") + b"A\r\n0123456789\r\n0\r\n\r\n", b"0123456789"),
    Case("chunk extensions", CHUNKED + b'2;a=b;c="d"\r\nhi\r\n0;last\r\n\r\n', b"hi"),
    Case("trailers are dropped", CHUNKED + b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n", b"hi"),
    Case("a body that looks like chunks", head(b"Content-Length: 5") + b"0\r\n\r\n", b"0\r\n\r\n"),
    Case("no reason phrase", head(b"Content-Length: 2", first=b"HTTP/1.1 404") + b"hi", b"hi", status=404),
    Case("closing", head(b"Connection: close", b"Content-Length: 2") + b"hi", b"hi", keep=False),
    Case("old version", head(b"Content-Length: 2", first=b"HTTP/1.0 200 OK") + b"hi", b"hi", keep=False),
    Case(
        "old version that stays",
        head(b"Connection: keep-alive", b"Content-Length: 2", first=b"HTTP/1.0 200 OK") + b"hi",
        b"hi",
    ),
    Case("no content", head(first=b"HTTP/1.1 204 No Content"), status=204),
    Case("not modified", head(b"Content-Length: 99", first=b"HTTP/1.1 304 Not Modified"), status=304),
    Case("head with length", head(b"Content-Length: 99"), head_only=True),
    Case("head without length", head(), head_only=True),
    Case("head, chunked", head(b"Transfer-Encoding: chunked"), head_only=True, keep=False),
    Case("head, closing", head(b"Connection: close"), head_only=True, keep=False),
    Case("continue", head(first=b"HTTP/1.1 100 Continue") + head(b"Content-Length: 2") + b"hi", b"hi"),
    Case("early hints", head(b"Link: a", first=b"HTTP/1.1 103 Hints") + head(b"Content-Length: 2") + b"hi", b"hi"),
    Case("upgrade offered", head(b"Upgrade: h2c", b"Connection: upgrade", b"Content-Length: 2") + b"hi", b"hi"),
    Case("empty lines before", b"\r\n\r\n" + head(b"Content-Length: 2") + b"hi", b"hi"),
]

BAD = [
    Case("both framings", head(b"Content-Length: 2", b"Transfer-Encoding: chunked") + b"2\r\nhi\r\n0\r\n\r\n"),
    Case("both, the other way", head(b"Transfer-Encoding: chunked", b"Content-Length: 2") + b"2\r\nhi\r\n0\r\n\r\n"),
    Case("two lengths", head(b"Content-Length: 2", b"Content-Length: 3") + b"hi!"),
    Case("one length twice", head(b"Content-Length: 2", b"Content-Length: 2") + b"hi"),
    Case("a list of lengths", head(b"Content-Length: 2, 2") + b"hi"),
    Case("a signed length", head(b"Content-Length: +2") + b"hi"),
    Case("a negative length", head(b"Content-Length: -2") + b"hi"),
    Case("a length without end", head(b"Content-Length: " + b"9" * 30) + b"hi"),
    Case("another coding", head(b"Transfer-Encoding: gzip") + b"hi"),
    Case("another coding, chunked", head(b"Transfer-Encoding: gzip, chunked") + b"2\r\nhi\r\n0\r\n\r\n"),
    Case("chunked twice", head(*[b"Transfer-Encoding: chunked"] * 2) + b"2\r\nhi\r\n0\r\n\r\n"),
    Case("chunked with a space", head(b"Transfer-Encoding: chunked ") + b"2\r\nhi\r\n0\r\n\r\n"),
    Case("nearly chunked", head(b"Transfer-Encoding: xchunked") + b"2\r\nhi\r\n0\r\n\r\n"),
    Case("chunked in an old version", head(b"Transfer-Encoding: chunked", first=b"HTTP/1.0 200 OK") + b"0\r\n\r\n"),
    Case("a folded header", head(b"X: a", b" b", b"Content-Length: 0")),
    Case("space before the colon", head(b"Content-Length : 2") + b"hi"),
    Case("no colon", head(b"Content-Length")),
    Case("NUL in a value", head(b"X: a\0b", b"Content-Length: 0")),
    Case("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    Case("newer version", head(b"Content-Length: 0", first=b"HTTP/2.0 200 OK")),
    Case("not HTTP", b"SSH-2.0-OpenSSH_9.6\r\n"),
    Case("a status below 100", head(b"Content-Length: 0", first=b"HTTP/1.1 099 Low")),
    Case("a status of two digits", head(b"Content-Length: 0", first=b"HTTP/1.1 20 OK")),
    Case("switching protocols", head(b"Upgrade: x", b"Connection: upgrade", first=b"HTTP/1.1 101 Switch") + b"raw"),
    Case("an interim body", head(b"Content-Length: 2", first=b"HTTP/1.1 104 X") + b"hi" + head(b"Content-Length: 0")),
    Case("a chunk size of letters", CHUNKED + b"2\r\nhi\r\nxyz\r\n", b"hi"),
    Case("a chunk size with 0x", CHUNKED + b"0x2\r\nhi\r\n"),
    Case("a chunk that is longer than its size", CHUNKED + b"2\r\nhi!\r\n", b"hi"),
    Case("a chunk size without end", CHUNKED + b"F" * 17 + b"\r\n"),
    Case("a chunk line of bare LF", CHUNKED + b"2\nhi\n0\n\n"),
]


def feed(case: Case, pieces: list[bytes]) -> tuple[Message, ResponseReader]:
    """Pieces as the socket might give them; nothing comes after an end or a failure but what is in the same piece."""
    reader, message = ResponseReader(), Message()
    reader.begin(message, head_only=case.head_only)
    for piece in pieces:
        if message.ended or message.failure is not None:
            break
        reader.feed(piece)
    return message, reader


def bytewise(text: bytes) -> list[bytes]:
    """Byte by byte."""
    return [text[place : place + 1] for place in range(len(text))]


@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_an_answer_is_the_same_whole_and_byte_by_byte(case: Case) -> None:
    for pieces in ([case.text], bytewise(case.text)):
        message, reader = feed(case, pieces)
        assert message.failure is None
        assert message.ended
        assert (message.status, b"".join(message.pieces)) == (case.status, case.body)
        assert reader.keep_alive is case.keep
        reader.dismiss()


@pytest.mark.parametrize(
    "surplus", [b"x", b"H", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"\0\0", b"5\r\nhello"]
)
@pytest.mark.parametrize("case", GOOD, ids=lambda case: case.name)
def test_bytes_after_the_end_change_nothing_but_spoil_the_connection(case: Case, surplus: bytes) -> None:
    message, reader = feed(case, [case.text + surplus])
    assert message.failure is None
    assert (message.ended, b"".join(message.pieces)) == (True, case.body)
    assert not reader.keep_alive
    reader.dismiss()


@pytest.mark.parametrize("case", BAD, ids=lambda case: case.name)
def test_what_cannot_be_read_without_a_doubt_is_one_protocol_fault(case: Case) -> None:
    for pieces in ([case.text], bytewise(case.text), [case.text + b"trailing"]):
        message, reader = feed(case, pieces)
        assert isinstance(message.failure, Fault)
        assert message.failure.kind is FaultKind.PROTOCOL
        assert not message.failure.retryable
        assert not message.ended
        assert b"".join(message.pieces) == case.body
        reader.dismiss()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (b"", FaultKind.RESET),
        (b"HTTP/1.1 200 OK\r\nContent-Le", FaultKind.TRUNCATED),
        (head(first=b"HTTP/1.1 100 Continue"), FaultKind.TRUNCATED),
        (head(b"Content-Length: 3") + b"ab", FaultKind.TRUNCATED),
        (head(b"Content-Length: 3"), FaultKind.TRUNCATED),
        (CHUNKED + b"2\r\nhi\r\n", FaultKind.TRUNCATED),
        (CHUNKED + b"2\r\nhi\r\n0\r\n", FaultKind.TRUNCATED),
        (CHUNKED + b"2\r\nhi\r\n0\r\nX: y\r\n", FaultKind.TRUNCATED),
        (CHUNKED + b"5\r\nhi", FaultKind.TRUNCATED),
    ],
)
def test_an_end_before_the_end_is_a_fault_at_every_place(text: bytes, kind: FaultKind) -> None:
    for pieces in ([text] if text else [], bytewise(text)):
        message, reader = feed(Case("", text), pieces)
        assert message.failure is None
        reader.eof()
        assert isinstance(message.failure, Fault)
        assert message.failure.kind is kind
        reader.dismiss()


def test_only_a_body_without_framing_ends_with_the_connection() -> None:
    for pieces in ([head() + b"hello"], bytewise(head() + b"hello")):
        message, reader = feed(Case("", b""), pieces)
        assert message.close_delimited
        reader.eof()
        assert message.ended
        assert message.failure is None
        assert b"".join(message.pieces) == b"hello"
        assert not reader.keep_alive
        reader.dismiss()


@pytest.mark.parametrize("piece_bytes", [1000, 65536, 10**9])
@pytest.mark.parametrize(
    "text",
    [
        head(b"X: " + b"a" * HEAD_BYTES_MAX, b"Content-Length: 0"),
        head(*[b"X-%d: %b" % (n, b"a" * 400) for n in range(300)], b"Content-Length: 0"),
        head(b"a" * HEAD_BYTES_MAX + b": x", b"Content-Length: 0"),
        head(*[b"X: y"] * (HEADERS_MAX + 1)),
        head(first=b"HTTP/1.1 200 " + b"a" * HEAD_BYTES_MAX * 2),
        head(b"X: y", first=b"HTTP/1.1 103 Hints") * 10_000,
    ],
    ids=["one value", "many headers", "one name", "too many headers", "reason phrase", "interim answers"],
)
def test_a_head_has_a_bound(text: bytes, piece_bytes: int) -> None:
    pieces = [text[start : start + piece_bytes] for start in range(0, len(text), piece_bytes)]
    message, reader = feed(Case("", text), pieces)
    assert isinstance(message.failure, Fault)
    assert message.failure.kind is FaultKind.PROTOCOL
    assert message.status == 0
    reader.dismiss()


def test_a_head_below_the_bound_passes_in_any_pieces() -> None:
    text = head(b"X: " + b"a" * (HEAD_BYTES_MAX - 100), b"Content-Length: 2") + b"hi"
    for size in (997, 65536, len(text)):
        message, reader = feed(Case("", text), [text[start : start + size] for start in range(0, len(text), size)])
        assert message.failure is None
        assert message.ended
        reader.dismiss()


@pytest.mark.parametrize("flood", [b"2;" + b"x" * 200_000 + b"\r\n", b"0\r\n" + b"X: y\r\n" * 40_000])
def test_framing_without_a_body_has_a_bound(flood: bytes) -> None:
    text = CHUNKED + b"2\r\nhi\r\n" + flood
    message, reader = feed(Case("", text), [text[start : start + 4096] for start in range(0, len(text), 4096)])
    assert isinstance(message.failure, Fault)
    assert message.failure.kind is FaultKind.PROTOCOL
    reader.dismiss()


def test_one_byte_chunks_count_as_what_they_hold_in_memory() -> None:
    message, reader = feed(Case("", b""), [CHUNKED + b"1\r\nx\r\n" * 1000])
    assert len(message.pieces) == 1000
    assert message.buffered > 50_000
    reader.dismiss()


def test_a_reader_takes_one_answer_after_the_other() -> None:
    reader = ResponseReader()
    for case in GOOD * 2:
        message = Message()
        reader.begin(message, head_only=case.head_only)
        reader.feed(case.text)
        assert (message.status, b"".join(message.pieces), message.failure) == (case.status, case.body, None)
        if not case.keep:
            reader.dismiss()
            reader = ResponseReader()
    reader.dismiss()


@pytest.mark.parametrize(
    ("header", "idle_s"),
    [(b"Keep-Alive: timeout=5, max=100", 5), (b"keep-alive: max=3, Timeout = 60", 60), (b"Keep-Alive: x", None)],
)
def test_the_servers_own_idle_limit_is_noticed(header: bytes, idle_s: int | None) -> None:
    message, reader = feed(Case("", b""), [head(header, b"Content-Length: 0")])
    assert message.ended
    assert reader.idle_max_s == idle_s
    reader.dismiss()


@st.composite
def framed_bodies(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """(body, the answer that carries it)."""
    chunks = draw(st.lists(st.binary(min_size=1, max_size=50), max_size=8))
    body = b"".join(chunks)
    if draw(st.booleans()):
        return body, head(b"Content-Length: %d" % len(body)) + body
    framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    return body, CHUNKED + framed + b"0\r\n\r\n"


@settings(max_examples=150)
@given(framed_bodies(), st.lists(st.integers(0, 600), max_size=12))
def test_a_body_arrives_identical_however_it_is_cut(sample: tuple[bytes, bytes], cuts: list[int]) -> None:
    body, text = sample
    edges = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    pieces = [text[start:stop] for start, stop in pairwise(edges)]
    message, reader = feed(Case("", text), pieces)
    assert message.failure is None
    assert message.ended
    assert b"".join(message.pieces) == body
    reader.dismiss()
