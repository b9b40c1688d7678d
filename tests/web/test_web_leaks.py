"""What a review found: keys that an upstream repeats, uploads that stall, cuts of fast streams, figures too large."""

import json
from collections.abc import Iterator

import pytest
from fakes.origin import Asked, Line
from fakes.raw import Client, ask, chat, completion, delta, request
from fakes.stand import PLANS, ROUTES, UPSTREAM_KEY, Stand, running

from gatekeeper.meters import Outcome
from gatekeeper.proxy import outgoing

ANY = ROUTES + '[[routes]]\nname = "files"\npath = "/files/*"\nupstream = "origin"\n'


class Script:
    """What the upstream says next; a test sets it."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    async def __call__(self, asked: Asked, line: Line) -> None:
        await line.send(*self.raw)


script = Script()


def said(body: bytes = b"", *headers: bytes, status: bytes = b"200 OK") -> list[bytes]:
    lines = b"".join(b"%b\r\n" % header for header in headers)
    return [b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n" % (status, lines, len(body)), body]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("review"), script, routes=ANY) as found:
        yield found


# --- methods that are never forwarded -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/messages", "/files/x", "/nowhere", "/v1/usage", "/healthz"]
)
def test_trace_is_never_forwarded(stand, path):
    before = len(stand.origin.asked)
    answer = ask(stand.url, request(stand.key, path=path, method="TRACE"))
    assert (answer.status, answer.header("x-gatekeeper-refusal")) == (405, "method_not_allowed")
    assert UPSTREAM_KEY.encode() not in answer.body
    assert "TRACE" not in (answer.header("allow") or "")
    if path == "/v1/messages":
        assert json.loads(answer.body)["type"] == "error"
    assert len(stand.origin.asked) == before


@pytest.mark.parametrize("target", ["example.com:443", "/v1/chat/completions", "http://example.com/"])
def test_connect_is_never_forwarded(stand, target):
    before = len(stand.origin.asked)
    with Client(stand.url) as client:
        client.send(request(stand.key, path=target, method="CONNECT"))
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
        assert not client.more()
    assert len(stand.origin.asked) == before


# --- transfer codings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing", ["gzip, chunked", "gzip\r\nTransfer-Encoding: chunked", "identity, chunked", "chunked, chunked"]
)
def test_a_transfer_coding_that_is_not_undone_is_refused(stand, framing):
    before = len(stand.origin.asked)
    with Client(stand.url) as client:
        client.send(request(stand.key, b"2\r\n{}\r\n0\r\n\r\n", framing=f"Transfer-Encoding: {framing}"))
        answer = client.answer()
        assert (answer.status, answer.error["code"]) == (400, "bad_request")
        assert not client.more()
    assert len(stand.origin.asked) == before


def test_chunked_in_any_spelling_is_understood(stand):
    script.raw = said(completion(), b"Content-Type: application/json")
    body = chat()
    framed = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    assert ask(stand.url, request(stand.key, framed, framing="Transfer-Encoding: , Chunked")).status == 200


# --- the upstream's key ---------------------------------------------------------------------------------------------


def test_a_header_that_repeats_the_upstreams_key_is_dropped(stand):
    coded = b"".join(b"%%%02x" % letter for letter in UPSTREAM_KEY.encode())
    echoed = (b"X-Echo: Bearer " + UPSTREAM_KEY.encode(), b"X-Coded: " + coded, b"X-Other: sk-upstream")
    script.raw = said(b"x", *echoed, status=b"200 OK")
    answer = ask(stand.url, request(stand.key, b"{}", path="/files/x"))
    assert (answer.header("x-echo"), answer.header("x-coded"), answer.header("x-other")) == (None, None, "sk-upstream")


@pytest.mark.parametrize(
    ("url", "left"),
    [
        (b"http://other/x?key=sk-UP%2FSECRET", b"http://other/x"),
        (b"/x?a=1&k%65y=sk-UP/SECRET&b=%20#part", b"/x?a=1&b=%20#part"),
        (b"/x?key=mine&a=1", b"/x?key=mine&a=1"),
        (b"/x", b"/x"),
    ],
)
def test_a_redirect_loses_the_upstreams_key_and_nothing_else(url, left):
    assert outgoing._without_key(url, b"key", b"sk-UP/SECRET") == left


def test_an_upload_that_stalls_gives_its_hold_back(tmp_path):
    script.raw = said(completion())
    with running(tmp_path, script, routes=ANY) as stand:
        stand.house.app._calls._body_wait_s = 0.2
        client = Client(stand.url)
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        client.send(request(stand.key, headers=kind, framing="Content-Length: 100"), b"--x")
        answer = client.answer()
        assert answer.status == 400
        client.close()
        assert stand.record().outcome is Outcome.CLIENT_CLOSED
        assert stand.held_micro() == 0


def test_a_fast_stream_is_cut_with_its_error_event_too(tmp_path):
    async def flood(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        await line.chunk(b"".join(delta("x" * 30) for _ in range(6_000)))
        await line.end()

    plan = {**PLANS, "free.toml": PLANS["free.toml"].split("[[rates]]")[0]}
    with running(tmp_path, flood, plans=plan, plan="free") as stand:
        answer = ask(stand.url, request(stand.key, chat(True)))
        assert answer.ended
        last = answer.body.strip().split(b"\n\n")[-1]
        assert json.loads(last.removeprefix(b"data: "))["error"]["limit"]["cap"] == "10000"
        assert stand.record().outcome is Outcome.CUT
