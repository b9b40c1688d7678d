"""The bytes of a request head: what goes out as it is, and what is refused."""

from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from upstreams_server import HOST, outgoing

from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.upstreams.request import UnsendableRequest, framed, request_head

CONFIG = UpstreamConfig("test", "http", "127.0.0.1", 1)


async def nothing() -> AsyncIterator[bytes]:
    """A body in pieces."""
    return
    yield b""


def test_a_body_is_announced_with_its_length() -> None:
    head = request_head(outgoing(CONFIG, "POST", b"/v1", body=b"abc"))
    assert head == b"POST /v1 HTTP/1.1\r\nHost: upstream.test\r\nContent-Length: 3\r\n\r\n"


@pytest.mark.parametrize(
    ("method", "line"),
    [("POST", b"Content-Length: 0\r\n"), ("PUT", b"Content-Length: 0\r\n"), ("GET", b""), ("DELETE", b"")],
)
def test_an_empty_body_is_announced_only_where_one_is_expected(method: str, line: bytes) -> None:
    head = request_head(outgoing(CONFIG, method))
    assert head == method.encode() + b" / HTTP/1.1\r\nHost: upstream.test\r\n" + line + b"\r\n"


def test_a_body_in_pieces_is_chunked_unless_its_length_is_known() -> None:
    assert b"\r\nTransfer-Encoding: chunked\r\n\r\n" in request_head(outgoing(CONFIG, "POST", body=nothing()))
    known = request_head(outgoing(CONFIG, "POST", body=nothing(), content_length=7))
    assert known.endswith(b"\r\nContent-Length: 7\r\n\r\n")
    assert b"chunked" not in known


def test_an_unknown_method_passes() -> None:
    assert request_head(outgoing(CONFIG, "QUERY")).startswith(b"QUERY / HTTP/1.1\r\n")


@pytest.mark.parametrize("method", ["", "GE T", "GET\r\nX: y", "CONNECT", "GÉT", "GET\0"])
def test_a_method_that_is_no_token_is_refused(method: str) -> None:
    with pytest.raises(UnsendableRequest):
        request_head(outgoing(CONFIG, method))


@pytest.mark.parametrize("target", [b"", b"/a b", b"/a\r\nX: y", b"/\n", b"/\0", b"/\t", b"/ HTTP/1.1", b"/\x7f"])
def test_a_target_that_would_end_early_is_refused(target: bytes) -> None:
    with pytest.raises(UnsendableRequest):
        request_head(outgoing(CONFIG, "GET", target))


@pytest.mark.parametrize(
    "header",
    [
        (b"X", b"a\r\nInjected: 1"),
        (b"X", b"a\n"),
        (b"X", b"\r"),
        (b"X", b"a\0b"),
        (b"X\r\nInjected", b"1"),
        (b"X\nInjected", b"1"),
        (b"X\n", b"1"),
        (b"\nX", b"1"),
        (b"X:", b"1"),
        (b"X ", b"1"),
        (b"", b"1"),
        (b"X\0", b"1"),
        (b"X\xe9", b"1"),
        (b"host", b"second.test"),
        (b"Content-Length", b"5"),
        (b"content-LENGTH", b"5"),
        (b"Transfer-Encoding", b"chunked"),
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_a_header_that_would_change_the_meaning_is_refused(header: tuple[bytes, bytes], place: int) -> None:
    headers = [HOST]
    headers.insert(place, header)
    with pytest.raises(UnsendableRequest) as caught:
        request_head(outgoing(CONFIG, "POST", headers=headers, body=b"abc"))
    assert "Injected" not in str(caught.value)


def test_a_request_without_host_is_refused() -> None:
    for headers in ([], [(b"X", b"y")]):
        with pytest.raises(UnsendableRequest):
            request_head(outgoing(CONFIG, headers=headers))


@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6)), max_size=4))
def test_a_head_has_exactly_the_lines_that_were_given(extra: list[tuple[bytes, bytes]]) -> None:
    try:
        head = request_head(outgoing(CONFIG, headers=[HOST, *extra]))
    except UnsendableRequest:
        return
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")
    assert lines[1:] == [name + b": " + value for name, value in [HOST, *extra]]
    assert b"\n" not in b"".join(lines)


def test_a_chunk_has_its_size_in_hexadecimal() -> None:
    assert b"".join(framed(b"x" * 27)) == b"1b\r\n" + b"x" * 27 + b"\r\n"
