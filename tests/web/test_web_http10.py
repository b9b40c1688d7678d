"""Clients that speak HTTP/1.0: no chunks, the end of the connection is the end of the body (RFC 9112 7.1)."""

import socket

import pytest
from fakes.stand import running

BODY = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}'
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n'
FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'


async def streams(asked, line):
    await line.head(content_type="text/event-stream", transfer_encoding="chunked")
    for piece in (PIECE, FINISH, USAGE, b"data: [DONE]\n\n"):
        await line.chunk(piece)
    await line.end()


async def breaks_off(asked, line):
    await line.head(content_type="text/event-stream", transfer_encoding="chunked")
    await line.chunk(PIECE)
    line.writer.close()


async def answers(asked, line):
    await line.head(content_type="application/json", content_length="2")
    await line.send(b"{}")


def asked_in_1_0(stand, path=b"/v1/chat/completions", body=BODY):
    host, port = stand.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as sock:
        head = b"POST %b HTTP/1.0\r\nAuthorization: Bearer %b\r\nContent-Type: application/json\r\n"
        sock.sendall(head % (path, stand.key.encode()) + b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        said = b""
        while piece := sock.recv(65536):
            said += piece
    head, _, body = said.partition(b"\r\n\r\n")
    return head.lower(), body


def test_a_stream_ends_with_the_connection(tmp_path):
    with running(tmp_path, streams) as stand:
        head, body = asked_in_1_0(stand)
        assert b"transfer-encoding" not in head and b"content-length" not in head
        assert b"connection: close" in head
        assert body == PIECE + FINISH + b"data: [DONE]\n\n"
        assert stand.record().units_micro == 7_000_000


def test_a_stream_that_broke_off_is_a_reset(tmp_path):
    with running(tmp_path, breaks_off) as stand:
        with pytest.raises(ConnectionResetError):
            asked_in_1_0(stand)
        assert stand.record().outcome == "upstream_failed"


def test_a_length_that_is_known_is_told(tmp_path):
    with running(tmp_path, answers) as stand:
        head, body = asked_in_1_0(stand, body=b'{"model":"gpt-4o","messages":[]}')
        assert b"content-length: 2" in head and body == b"{}"


def test_a_refusal_is_told_in_full(tmp_path):
    with running(tmp_path, answers) as stand:
        head, body = asked_in_1_0(stand, b"/nothing")
        assert head.startswith(b"http/1.1 404") and b"unknown_route" in body
