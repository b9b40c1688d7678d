"""The relay is faithful: bodies, targets and headers pass as they came, and only what belongs to a hop is dropped."""

import asyncio
import gzip
from collections.abc import Iterator

import brotli
import pytest
from fakes.origin import Asked, Line
from fakes.raw import Answer, Client, ask, chat, completion, request
from fakes.stand import UPSTREAM_KEY, Stand, running
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ANY = """
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "origin"
[[routes]]
name = "files"
path = "/files/*"
upstream = "origin"
free = true
request_bytes_max = 300_000
"""


class Script:
    """What the upstream does next; a test sets it."""

    def __init__(self) -> None:
        self.raw: list[bytes] = []

    async def __call__(self, asked: Asked, line: Line) -> None:
        await line.send(*self.raw)


def length(body: bytes, *headers: bytes, status: bytes = b"200 OK") -> list[bytes]:
    head = b"".join(b"%b\r\n" % header for header in headers)
    return [b"HTTP/1.1 %b\r\n%bContent-Length: %d\r\n\r\n" % (status, head, len(body)), body]


def chunked(pieces: list[bytes], *headers: bytes) -> list[bytes]:
    head = b"".join(b"%b\r\n" % header for header in headers)
    framed = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
    return [b"HTTP/1.1 200 OK\r\n%bTransfer-Encoding: chunked\r\n\r\n" % head, *framed, b"0\r\n\r\n"]


script = Script()


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("relay"), script, routes=ANY, plans=UNLIMITED) as found:
        yield found


UNLIMITED = {"pro.toml": 'name = "Pro"\nmonthly_price = 0\n[quota]\nunits = "unlimited"\nwindow = "month"\n',
             "free.toml": 'name = "Free"\nmonthly_price = 0\n[quota]\nunits = 1\nwindow = "month"\n'}  # fmt: skip


def call(stand: Stand, *more: str, path: str = "/files/x", method: str = "POST", body: bytes = b"") -> Answer:
    headers = dict(line.split(": ", 1) for line in more)
    return ask(stand.url, request(stand.key, body, path=path, method=method, headers=headers), method)


def last(stand: Stand) -> Asked:
    return stand.origin.asked[-1]


# --- bodies -------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    pieces=st.lists(st.binary(max_size=300) | st.just(b"data: {}\n\n") | st.just(b"x" * 70_000), max_size=5),
    kind=st.sampled_from([b"text/event-stream", b"application/json", b"application/octet-stream"]),
    stated=st.booleans(),
    path=st.sampled_from(["/v1/chat/completions", "/files/x"]),
    stream=st.booleans(),
)
def test_every_byte_of_every_body_arrives_however_it_is_cut_and_framed(stand, pieces, kind, stated, path, stream):
    body = b"".join(pieces)
    kind = b"Content-Type: " + kind
    script.raw = length(body, kind) if stated else chunked(pieces, kind)
    answer = call(stand, path=path, body=chat(stream))
    assert answer.ended
    assert answer.body == body
    hidden = path != "/files/x" and stream
    assert (answer.header("content-length") is not None) == (stated and not hidden)


@pytest.mark.parametrize(("name", "code"), [("gzip", gzip.compress), ("br", brotli.compress)])
def test_an_encoded_body_stays_encoded(stand, name, code):
    body = code(completion())
    script.raw = length(body, b"Content-Type: application/json", b"Content-Encoding: " + name.encode())
    answer = call(stand, f"Accept-Encoding: {name};q=1", path="/v1/chat/completions", body=chat())
    assert (answer.body, answer.header("content-encoding")) == (body, name)
    assert last(stand).header("accept-encoding") == f"{name};q=1"
    assert stand.records()[-1].units_micro == 7_000_000


def test_nothing_is_asked_for_that_the_client_did_not_ask_for(stand):
    script.raw = length(b"")
    call(stand)
    names = {name.lower() for name, _ in last(stand).headers}
    assert names.isdisjoint({b"accept-encoding", b"user-agent", b"accept", b"connection"})


def test_a_body_that_ends_with_the_connection_is_chunked_for_the_client(tmp_path):
    async def closes(asked: Asked, line: Line) -> None:
        await line.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\nall of it")
        line.writer.close()

    with running(tmp_path, closes, routes=ANY) as stand:
        answer = call(stand)
        assert (answer.body, answer.ended, answer.header("transfer-encoding")) == (b"all of it", True, "chunked")


# --- targets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "target",
    ["/files/a//b/../c/%2F%2520|~", "/files/", "/files/%00%ff", "/files/x?", "/files/x?a=1&&b=%2B+|&c", "/files/x?a?b",
     "/files/'\"<>\\^`{}[]@:!$()*,;=", "/files/x?" + "q" * 5000],
)  # fmt: skip
def test_path_and_query_are_bytes(stand, target):
    script.raw = length(b"")
    assert call(stand, path=target).status == 200
    # ASGI cannot tell `/a?` from `/a`.
    assert last(stand).target == target.removesuffix("?").encode()


@pytest.mark.parametrize(
    ("query", "left"),
    [("key=K", ""), ("a=1&key=K", "a=1"), ("key=K&a=%20", "a=%20"), ("a=|&key=K&&b", "a=|&&b"),
     ("xkey=1&key=K", "xkey=1"), ("%6bey=K&a", "a"), ("ke%79=K", ""), ("key=K&key=K&key", "key")],
)  # fmt: skip
def test_the_key_is_cut_out_of_the_query_and_nothing_else_is(stand, query, left):
    script.raw = length(b"")
    target = "/files/x?" + query.replace("K", stand.key)
    assert ask(stand.url, request(None, path=target)).status == 200
    assert last(stand).target == b"/files/x" + (b"?" + left.encode() if left else b"")


# --- headers ------------------------------------------------------------------------------------------------------


def test_fields_of_one_name_stay_apart_and_in_order_both_ways(stand):
    script.raw = length(
        b"x", b"Set-Cookie: a=1; Expires=Wed, 01 Jan", b"X-Two: 1", b"Set-Cookie: b=2", b"X-Two: \xe9,2"
    )
    with Client(stand.url) as client:
        lines = b"X-Many: 1\r\nX-Other: \xff\r\nX-Many: 2, 3\r\n"
        client.send(request(stand.key, path="/files/x", headers={"A": "1"})[:-2] + lines + b"\r\n")
        answer = client.answer()
    assert answer.all("set-cookie") == [b"a=1; Expires=Wed, 01 Jan", b"b=2"]
    assert answer.all("x-two") == [b"1", b"\xe9,2"]
    sent = [(name.lower(), value) for name, value in last(stand).headers]
    assert [pair for pair in sent if pair[0].startswith((b"x-many", b"x-other"))] == [
        (b"x-many", b"1"), (b"x-other", b"\xff"), (b"x-many", b"2, 3"),
    ]  # fmt: skip


def test_what_belongs_to_a_hop_ends_there(stand):
    script.raw = length(b"x", b"Connection: x-up, keep-alive", b"X-Up: 1", b"Keep-Alive: timeout=9", b"Trailer: t",
                        b"Proxy-Authenticate: p", b"Upgrade: u")  # fmt: skip
    answer = call(
        stand, "Connection: ,x-mine,  Authorization, x-forwarded-for, host", "X-Mine: 1", "TE: trailers",
        "Keep-Alive: 5", "Proxy-Authorization: Basic x", "Proxy-Connection: keep-alive", "Trailer: X-T", "X-Kept: yes",
    )  # fmt: skip
    for name in ("x-up", "keep-alive", "trailer", "proxy-authenticate", "upgrade"):
        assert answer.header(name) is None
    asked = last(stand)
    for name in ("connection", "x-mine", "te", "keep-alive", "proxy-authorization", "proxy-connection", "trailer"):
        assert asked.header(name) is None, name
    assert asked.header("authorization") == f"Bearer {UPSTREAM_KEY}"
    assert asked.header("x-forwarded-for") == "127.0.0.1"
    assert asked.header("host") == f"127.0.0.1:{stand.origin.port}"
    assert asked.header("x-kept") == "yes"


def test_the_upstream_is_told_who_calls_and_the_client_cannot_lie(stand):
    script.raw = length(b"x")
    call(stand, "X-User-ID: root", "X-Plan-ID: enterprise", "X_User_ID: root", "X-Agent-Id: a", "X-Plan_ID: e",
         "X-Gatekeeper-Call-Id: mine", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4",
         "X-Real-IP: 1.2.3.4")  # fmt: skip
    asked = last(stand)
    folded = [(name.lower().replace(b"_", b"-"), value) for name, value in asked.headers]
    assert [value for name, value in folded if name == b"x-user-id"] == [b"acme"]
    assert [value for name, value in folded if name == b"x-plan-id"] == [b"pro"]
    assert asked.header("x-forwarded-for") == "127.0.0.1"
    assert {b"x-agent-id", b"forwarded", b"x-real-ip", b"x-gatekeeper-call-id"}.isdisjoint(name for name, _ in folded)


def test_a_key_that_may_assert_names_its_users(stand):
    script.raw = length(b"x")
    key = stand.make_key(may_assert=True)
    assert ask(stand.url, request(key, path="/files/x", headers={"X-User-Id": "ann@x"})).status == 200
    assert last(stand).header("x-user-id") == "ann@x"
    refused = ask(stand.url, request(key, path="/files/x", headers={"X-User-Id": "a b"}))
    assert (refused.status, refused.error["code"]) == (400, "bad_request")


@pytest.mark.parametrize("place", ["authorization: Bearer ", "X-API-Key: ", "x-goog-api-key: ", "API-Key: ", "?key="])
def test_neither_keys_nor_cookies_go_upstream(stand, place):
    script.raw = length(b"x", b"X-RateLimit-Limit: theirs", b"X-Gatekeeper-Call-Id: theirs")
    query = f"?key={stand.key}" if place == "?key=" else ""
    headers = {"Cookie": "session=1"} if query else {"Cookie": "session=1", place[:-2].split(":")[0]: ""}
    if not query:
        name, _, scheme = place.partition(": ")
        headers[name] = scheme + stand.key
    answer = ask(stand.url, request(None, path="/files/x" + query, headers=headers))
    assert answer.status == 200
    asked = last(stand)
    assert stand.key.encode() not in asked.target + b"".join(value for _, value in asked.headers)
    assert asked.header("cookie") is None
    assert [value for value in answer.all("x-gatekeeper-call-id") if value == b"theirs"] == []


def test_the_key_in_two_places_is_one_key(stand):
    script.raw = length(b"x")
    assert call(stand, f"X-API-Key: {stand.key}", path=f"/files/x?key={stand.key}").status == 200


# --- methods and statuses -----------------------------------------------------------------------------------------


def test_an_answer_to_head_has_its_length_and_no_body(stand):
    script.raw = [b"HTTP/1.1 200 OK\r\nContent-Length: 1234\r\nX-A: b\r\n\r\n"]
    with Client(stand.url) as client:
        for _ in range(2):
            client.send(request(stand.key, path="/files/x", method="HEAD"))
            answer = client.answer("HEAD")
            assert (answer.status, answer.header("content-length"), answer.header("x-a")) == (200, "1234", "b")
        assert client.read == b""


@pytest.mark.parametrize(
    "head", [b"204 No", b"304 Not\r\nContent-Length: 77", b"304 Not\r\nETag: x", b"204 N\r\nContent-Length: 0"]
)
def test_answers_without_a_body_end_and_the_connection_goes_on(stand, head):
    script.raw = [b"HTTP/1.1 " + head + b"\r\n\r\n"]
    with Client(stand.url) as client:
        for _ in range(2):
            client.send(request(stand.key, path="/files/x", method="GET"))
            assert client.answer("GET").status == int(head[:3])
        assert client.silent_for(0.05)
        client.send(request(None, path="/healthz", method="GET"))
        assert client.answer("GET").status == 200


@pytest.mark.parametrize("method", ["OPTIONS", "DELETE", "PUT", "PATCH", "PROPFIND", "GET"])
def test_every_method_passes(stand, method):
    script.raw = length(b"x")
    assert call(stand, method=method, body=b'{"a":1}').body == b"x"
    assert (last(stand).method, last(stand).body) == (method, b'{"a":1}')


@pytest.mark.parametrize("status", [201, 301, 302, 307, 400, 404, 418, 451, 500, 503, 529, 599])
def test_every_status_passes_and_no_redirect_is_followed(stand, status):
    before = len(stand.origin.asked)
    script.raw = length(b"<html>", b"Location: http://127.0.0.1:1/else", status=b"%d Odd" % status)
    answer = call(stand)
    assert (answer.status, answer.body, answer.header("location")) == (status, b"<html>", "http://127.0.0.1:1/else")
    assert len(stand.origin.asked) == before + 1


def test_a_status_that_no_server_can_write_is_a_bad_gateway(stand):
    script.raw = length(b"x", status=b"999 LinkedIn")
    answer = call(stand)
    assert (answer.status, answer.error["code"]) == (502, "upstream_protocol")


def test_a_header_that_no_server_can_write_does_not_hang_the_client(stand):
    script.raw = length(b"x", b"X-Odd: a\x01b")
    answer = call(stand)
    assert answer.status in (200, 500, 502)


def test_interim_answers_are_not_the_answer(stand):
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    script.raw = [hints, *length(b"final")]
    assert (call(stand).body, call(stand).status) == (b"final", 200)


# --- uploads ------------------------------------------------------------------------------------------------------


def test_100_continue_is_said_only_to_who_is_let_in(stand):
    script.raw = length(b"ok")
    expecting = {"Expect": "100-continue", "Content-Type": "application/json"}
    with Client(stand.url) as client:
        client.send(request("gk_wrong", headers=expecting, framing="Content-Length: 2"))
        answer = client.answer()
        assert (answer.status, answer.header("connection")) == (401, "close")
        assert not client.more()
    with Client(stand.url) as client:
        client.send(request(stand.key, path="/files/x", headers=expecting, framing="Content-Length: 2"))
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 100")
        client.send(b"{}")
        assert client.answer().body == b"ok"
    assert last(stand).header("expect") is None


@pytest.mark.parametrize("framed", [True, False])
def test_an_upload_streams_through(stand, framed):
    script.raw = length(b"stored")
    pieces = [bytes([65 + n]) * 20_000 for n in range(8)]
    framing = "Transfer-Encoding: chunked" if framed else f"Content-Length: {8 * 20_000}"
    with Client(stand.url) as client:
        kind = {"Content-Type": "multipart/form-data; boundary=x"}
        client.send(request(stand.key, path="/files/up", headers=kind, framing=framing))
        for piece in pieces:
            client.send(b"%x\r\n%b\r\n" % (len(piece), piece) if framed else piece)
        client.send(b"0\r\nX-User-ID: root\r\nX-Late: 1\r\n\r\n" if framed else b"")
        assert client.answer().body == b"stored"
    asked = last(stand)
    assert asked.body == b"".join(pieces)
    assert asked.header("x-late") is None
    assert (asked.header("content-length"), asked.header("transfer-encoding")) == (
        (None, "chunked") if framed else ("160000", None)
    )


def test_trailers_of_a_request_are_no_headers(stand):
    script.raw = length(b"x")
    with Client(stand.url) as client:
        client.send(request(stand.key, path="/files/x", framing="Transfer-Encoding: chunked"))
        client.send(b"2\r\n{}\r\n0\r\nX-Late: 1\r\nContent-Encoding: br\r\n\r\n")
        assert client.answer().status == 200
    assert (last(stand).header("x-late"), last(stand).header("content-encoding")) == (None, None)


@pytest.mark.parametrize("kind", ["application/json", "application/octet-stream"])
@pytest.mark.parametrize("framed", [True, False])
def test_a_body_above_the_bound_is_refused(stand, kind, framed):
    script.raw = length(b"x")
    framing = "Transfer-Encoding: chunked" if framed else "Content-Length: 300001"
    with Client(stand.url) as client:
        client.send(request(stand.key, path="/files/x", headers={"Content-Type": kind}, framing=framing))
        if framed:
            client.send(b"493e1\r\n" + b" " * 300_001)
        answer = client.answer()
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")


async def nothing(asked: Asked, line: Line) -> None:
    raise AssertionError("nothing is asked here")


def test_the_answer_of_an_upstream_that_refuses_an_upload_arrives_before_the_upload_ends(tmp_path):
    async def refuse(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await line.send(*length(b"wait", b"Retry-After: 7", status=b"429 Slow"))
        await line.gone()

    with running(tmp_path, nothing, routes=ANY) as stand:
        stand.origin.accept = refuse
        with Client(stand.url) as client:
            kind = {"Content-Type": "application/octet-stream"}
            client.send(
                request(stand.key, path="/files/x", headers=kind, framing="Content-Length: 200000"), b"a" * 5000
            )
            answer = client.answer()
        assert (answer.status, answer.body, answer.header("retry-after")) == (429, b"wait", "7")
        assert stand.record().status == 429


def test_an_upload_goes_no_faster_than_the_upstream_reads(tmp_path):
    async def stall(line: Line) -> None:
        await line.reader.readuntil(b"\r\n\r\n")
        await done.wait()

    done = asyncio.Event()
    with running(tmp_path, nothing, routes=ANY.replace("300_000", "200_000_000")) as stand:
        stand.origin.accept = stall
        with Client(stand.url, timeout_s=0.5) as client:
            kind = {"Content-Type": "application/octet-stream"}
            client.send(request(stand.key, path="/files/x", headers=kind, framing="Content-Length: 100000000"))
            sent = 0
            with pytest.raises(TimeoutError):
                while sent < 100_000_000:
                    sent += client.socket.send(b"a" * 65536)
            # What the kernels on both legs buffer, and no more.
            assert sent < 30_000_000
        stand.loop.call_soon_threadsafe(done.set)
        stand.record()
