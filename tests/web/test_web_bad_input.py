"""Bad input: a clear error in the caller's own dialect, nothing lost, nothing leaked, and no secret in any place."""

import gc
import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest
from fakes.origin import Asked, Line
from fakes.raw import Answer, Client, ask, chat, completion, request
from fakes.stand import ADMIN_KEY, ROUTES, UPSTREAM_KEY, Stand, running

from gatekeeper.rules.keys import make_key
from gatekeeper.web import protocol

STRANGER = make_key(bytes(24))
ONLY_POST = ROUTES.replace('name = "chat"\n', 'name = "chat"\nmethods = ["POST"]\n')


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion()
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("bad"), says_hi, routes=ONLY_POST) as found:
        yield found


def refused(answer: Answer, status: int, code: str) -> dict[str, Any]:
    assert (answer.status, answer.ended) == (status, True), answer
    assert answer.header("x-gatekeeper-refusal") == code
    assert answer.header("content-type") == "application/json"
    return answer.error


def check_nothing_happened(stand: Stand) -> None:
    assert stand.origin.asked == []
    assert stand.records() == []
    assert stand.held_micro() == 0


# --- keys ---------------------------------------------------------------------------------------------------------

PLACES = ["Authorization: Bearer {}", "authorization: bearer  {} ", "X-API-Key: {}", "x-goog-api-key: {}",
          "api-key: {}", "?key={}"]  # fmt: skip


def with_key(stand: Stand, place: str, key: str, path: str = "/v1/chat/completions") -> Answer:
    filled = place.format(key)
    if filled.startswith("?"):
        return ask(stand.url, request(None, chat(), path=path + filled))
    name, _, value = filled.partition(": ")
    return ask(stand.url, request(None, chat(), path=path, headers={"Content-Type": "application/json", name: value}))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("key", "code"),
    [
        ("", "missing_key"),
        ("gk_", "malformed_key"),
        ("sk-proj-somebody-elses", "malformed_key"),
        (STRANGER[:-1] + "!", "malformed_key"),
        (STRANGER.lower(), "malformed_key"),
        ("x" * 5000, "malformed_key"),
        (STRANGER, "unknown_key"),
    ],
)
def test_a_key_that_is_none_of_ours_is_told_apart_in_every_place(stand, place, key, code):
    error = refused(with_key(stand, place, key), 401, code)
    assert len(key) < 4 or key not in json.dumps(error)
    check_nothing_happened(stand)


@pytest.mark.parametrize("place", PLACES)
def test_revoked_and_expired_keys_are_told_apart_in_every_place(stand, place):
    async def ends(secret: str, **change: int) -> None:
        from gatekeeper.rules.keys import digest

        holder = await stand.house.store.holder(digest(secret))
        assert holder is not None
        if "revoked" in change:
            await stand.house.accounts.revoke_key(holder.key.id)

    revoked = stand.make_key()
    stand.run(ends(revoked, revoked=1))
    refused(with_key(stand, place, revoked), 401, "revoked_key")
    expired = stand.make_key(expires_ms=int(time.time() * 1000) + 20)
    time.sleep(0.03)
    refused(with_key(stand, place, expired), 401, "expired_key")
    check_nothing_happened(stand)


def test_a_basic_authorization_is_no_key(stand):
    refused(with_key(stand, "Authorization: Basic {}", "dXNlcjpwYXNz"), 401, "malformed_key")


def test_two_keys_are_refused_even_if_one_is_right(stand):
    headers = {"X-API-Key": STRANGER, "Content-Type": "application/json"}
    refused(ask(stand.url, request(stand.key, chat(), headers=headers)), 401, "conflicting_keys")
    with_query = request(stand.key, chat(), path=f"/v1/chat/completions?key={STRANGER}")
    refused(ask(stand.url, with_query), 401, "conflicting_keys")


def test_every_401_says_how_to_authenticate(stand):
    assert (ask(stand.url, request(None, chat())).header("www-authenticate") or "").startswith("Bearer")


def test_scopes_of_a_key_are_kept(stand):
    key = stand.make_key(routes=["messages"], models=["claude-*"])
    error = refused(ask(stand.url, request(key, chat())), 403, "route_not_allowed")
    assert "messages" in error["message"]
    for body in (b'{"model":"gpt-4o"}', b"{}", b'{"model":7}', b'{"model":"CLAUDE-3"}'):
        refused(ask(stand.url, request(key, body, path="/v1/messages")), 403, "model_not_allowed")
    check_nothing_happened(stand)


def test_a_disabled_customer_is_refused(tmp_path):
    with running(tmp_path, says_hi) as stand:
        stand.run(stand.house.accounts.set_disabled("acme", True))
        refused(ask(stand.url, request(stand.key, chat())), 403, "customer_disabled")


# --- bodies -------------------------------------------------------------------------------------------------------

NOT_JSON = [b"{", b"nonsense", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1,}', b"\xff\xfe{}", b'{"a":"\xff"}',
            b'{"a":"\\ud800"}', b'{"model":"m"} x', b"\x00", b'{"a":' + b"1" * 5000 + b"}", b"[" * 100_000,
            b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"\xef\xbb\xbf{}", b"{'a':1}"]  # fmt: skip


@pytest.mark.parametrize("body", NOT_JSON, ids=range(len(NOT_JSON)))
def test_what_is_no_json_is_refused(stand, body):
    error = refused(ask(stand.url, request(stand.key, body)), 400, "bad_request")
    assert "not valid JSON" in error["message"]
    check_nothing_happened(stand)


@pytest.mark.parametrize("body", [b"[]", b'"text"', b"7", b"null", b"true", b'[{"model":"m"}]'])
def test_what_is_no_object_is_refused(stand, body):
    assert "object" in refused(ask(stand.url, request(stand.key, body)), 400, "bad_request")["message"]
    check_nothing_happened(stand)


ODD_JSON = [
    b'{"n":1,"n":2,"big":123456789012345678901234567890,"t":"\\u0000","messages":[]}',
    b" \r\n{ }\n",
    b'{"max_tokens":1e3,"messages":{},"model":null,"stream":"yes"}',
    b'{"a":' + b"[" * 500 + b"]" * 500 + b"}",
]


def test_odd_but_valid_json_passes_as_it_came(tmp_path):
    with running(tmp_path, says_hi) as stand:
        for body in ODD_JSON:
            assert ask(stand.url, request(stand.key, body)).status == 200
            assert stand.origin.asked[-1].body == body
        stand.records(4)
        assert stand.held_micro() == 0


def test_a_truncated_body_holds_nothing(stand):
    with Client(stand.url) as client:
        client.send(request(stand.key, framing="Content-Length: 100"), b'{"model":')
    check_nothing_happened(stand)


# --- routes and methods -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/v1/nothing", "/v1/chat/completions/", "/v1//chat/completions", "/%2e%2e/x",
                                  "/V1/chat/completions", "/v1/chat/completions%20", "/admin",
                                  "/x?key=" + STRANGER])  # fmt: skip
def test_an_unknown_route_is_not_found(stand, path):
    refused(ask(stand.url, request(stand.key, chat(), path=path)), 404, "unknown_route")


def test_the_asterisk_is_no_route(stand):
    for method in ("OPTIONS", "GET"):
        refused(ask(stand.url, request(stand.key, path="*", method=method), method), 404, "unknown_route")


def test_a_method_that_a_route_does_not_take_is_told_what_it_does(stand):
    answer = ask(stand.url, request(stand.key, method="GET"), "GET")
    assert (refused(answer, 405, "method_not_allowed"), answer.header("allow"))[1] == "POST"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v1/usage", "GET, HEAD"),
        ("DELETE", "/healthz", "GET, HEAD"),
        ("PUT", "/admin/customers", "GET, HEAD, POST"),
        ("PUT", "/admin/keys/x", "DELETE, GET, HEAD"),
    ],
)
def test_a_url_of_ours_tells_its_methods_too(stand, method, path, allow):
    answer = ask(stand.url, request(stand.key, method=method, path=path), method)
    refused(answer, 405, "method_not_allowed")
    assert answer.header("allow") == allow


# --- dialects -----------------------------------------------------------------------------------------------------


def test_each_dialect_gets_the_error_that_its_sdk_parses(stand):
    openai = ask(stand.url, request(None, chat()))
    assert set(openai.error) == {"message", "type", "param", "code"}
    anthropic = json.loads(ask(stand.url, request(None, chat(), path="/v1/messages")).body)
    assert anthropic["type"] == "error"
    assert anthropic["error"]["type"] == "authentication_error"
    assert anthropic["request_id"].startswith("call_")
    google = ask(stand.url, request(None, b"{}", path="/v1beta/models/m:generateContent")).error
    assert (google["code"], google["status"]) == (401, "UNAUTHENTICATED")
    assert google["details"][0]["reason"] == "missing_key"
    unknown = json.loads(ask(stand.url, request(None, b"{}", path="/v1/messages/none")).body)
    assert (unknown["type"], unknown["error"]["type"]) == ("error", "not_found_error")


# --- HTTP ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "framing",
    [
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: +2",
        "Content-Length: 2, 3",
        "Content-Length: -1",
        "Content-Length: 0x2",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: chunked, gzip",
        "Content-Length: 99999999999999999999999",
        "X-Null: a\x00b\r\nContent-Length: 2",
        "Bad Name: x\r\nContent-Length: 2",
        " Folded: x\r\nContent-Length: 2",
        "X-Bare: a\rb\r\nContent-Length: 2",
    ],
)
def test_a_request_that_could_mean_two_things_is_refused(stand, framing):
    with Client(stand.url) as client:
        client.send(request(stand.key, b"{}", framing=framing))
        answer = client.answer()
        refused(answer, 400, "bad_request")
        assert answer.header("connection") == "close"
        assert not client.more()
    check_nothing_happened(stand)


@pytest.mark.parametrize("target", ["/v1/chat\x00", "/v1/ä", "http://[", "", "/a b"])
def test_a_target_that_is_none_is_refused(stand, target):
    with Client(stand.url) as client:
        client.send(request(stand.key, b"{}", path=target))
        assert client.answer().status == 400


def test_what_is_not_http_is_refused(stand):
    with Client(stand.url) as client:
        client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20)
        refused(client.answer(), 400, "bad_request")


def test_headers_above_the_bound_are_refused(stand):
    headers = {f"X-{n}": "a" * 1000 for n in range(66)}
    refused(ask(stand.url, request(stand.key, b"{}", headers=headers)), 431, "headers_too_large")
    check_nothing_happened(stand)


@pytest.mark.parametrize(
    "bomb",
    [b"X-One: " + b"a" * 65536, b"X: y\r\n" * 11_000, b"\r\n"],
    ids=["one endless value", "endless fields", "nothing"],
)
def test_a_head_that_never_ends_is_refused_in_time(stand, bomb):
    with Client(stand.url) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        if bomb == b"\r\n":
            client.send(bomb)
            assert client.answer().status == 401
            return
        sent = 0
        try:
            while sent < 50_000_000:
                client.send(bomb if bomb.startswith(b"X: y") or not sent else b"a" * 65536)
                sent += 65536
        except OSError:
            pass
        assert sent < 20_000_000
        while client.more():
            pass
        assert client.read.startswith(b"HTTP/1.1 431") or client.read == b""


def test_a_head_that_dawdles_is_cut_off(stand, monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_TIMEOUT_S", 0.2)
    with Client(stand.url) as client:
        client.send(b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n")
        assert not client.more()
    with Client(stand.url) as client:
        client.send(request(None, path="/healthz", method="GET"))
        assert client.answer("GET").status == 200
        assert client.silent_for(0.3)
        client.send(request(None, path="/healthz", method="GET"))
        assert client.answer("GET").status == 200


@pytest.mark.parametrize("endless", ["extension", "trailer"])
def test_framing_that_never_ends_is_refused_in_time(stand, endless):
    with Client(stand.url) as client:
        client.send(request(stand.key, framing="Transfer-Encoding: chunked"))
        client.send(b"2;x=" if endless == "extension" else b"2\r\n{}\r\n0\r\nX: ")
        sent = 0
        try:
            while sent < 50_000_000:
                client.send(b"a" * 65536)
                sent += 65536
        except OSError:
            pass
        assert sent < 20_000_000
    check_nothing_happened(stand)


def test_garbage_behind_a_call_aborts_it_and_is_no_second_answer_within_the_first(tmp_path):
    async def streams(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        await line.chunk(b"data: {}\n\n")
        await line.gone()

    with running(tmp_path, streams) as stand, Client(stand.url) as client:
        client.send(request(stand.key, chat(True)))
        client.until(b"data: {}")
        client.send(b"\x00garbage\r\n\r\n")
        answer = client.answer()
        assert not answer.ended
        assert b"HTTP/1.1" not in answer.framed
        assert stand.record().outcome == "client_closed"


@pytest.mark.parametrize("framing", [f"Content-Length: {len(chat())}", "Transfer-Encoding: chunked"])
@pytest.mark.parametrize("cut", [None, 1])
def test_a_request_to_upgrade_is_an_ordinary_request(tmp_path, framing, cut):
    with running(tmp_path, says_hi) as stand, Client(stand.url) as client:
        headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": "h2c", "HTTP2-Settings": "AAMAAABk",
                   "Content-Type": "application/json"}  # fmt: skip
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(chat()), chat()) if "chunked" in framing else chat()
        for _ in range(2):
            asked = request(stand.key, body, headers=headers, framing=framing)
            client.send(*[asked[at : at + cut] for at in range(0, len(asked), cut)] if cut else [asked])
            assert client.answer().status == 200
            assert stand.origin.asked[-1].body == chat()
            assert stand.origin.asked[-1].header("upgrade") is None
        client.send(request(None, method="GET", path="/healthz", headers=headers))
        assert client.answer("GET").status == 200
        assert len(stand.records(2)) == 2


def test_an_unread_body_does_not_become_the_next_request(stand):
    with Client(stand.url) as client:
        smuggled = request(stand.key, chat())
        client.send(request(None, smuggled), request(None, path="/healthz", method="GET"))
        refused(client.answer(), 401, "missing_key")
        assert json.loads(client.answer("GET").body)["status"] == "ok"
        assert client.silent_for(0.05)
    check_nothing_happened(stand)


# --- the ledger is away -------------------------------------------------------------------------------------------


def test_without_a_ledger_no_call_is_admitted(tmp_path):
    with running(tmp_path, says_hi) as stand:
        stand.run(stand.house.store.close())
        refused(ask(stand.url, request(stand.key, chat())), 503, "ledger_unavailable")
        refused(ask(stand.url, request(None, path="/readyz", method="GET")), 503, "ledger_unavailable")
        assert stand.origin.asked == []


# --- secrets ------------------------------------------------------------------------------------------------------


def test_no_secret_stands_in_a_log_an_answer_or_a_record(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    seen = []

    async def fails(asked: Asked, line: Line) -> None:
        if len(stand.origin.asked) % 2:
            await line.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n")
            line.writer.close()
        else:
            await says_hi(asked, line)

    with running(tmp_path, fails) as stand:
        gone = stand.make_key()
        stand.run(stand.house.store.revoke_key(stand.run(stand.house.store.keys("acme"))[0].id, 1))
        for key in (stand.key, gone, STRANGER, gone[:-1]):
            for path in (
                "/v1/chat/completions",
                "/v1/messages",
                "/none",
                "/v1/usage",
                "/v1/models",
                "/admin/customers",
            ):
                for body in (chat(), b"{", chat(True)):
                    seen.append(ask(stand.url, request(key, body, path=path)))
                    seen.append(ask(stand.url, request(None, body, path=f"{path}?key={key}")))
        admin = {"X-Admin-Key": ADMIN_KEY}
        for path in ("/admin/customers", "/admin/customers/acme/keys", "/admin/requests", "/admin/plans"):
            seen.append(ask(stand.url, request(None, path=path, method="GET", headers=admin), "GET"))
        secrets = [stand.key, gone, UPSTREAM_KEY, ADMIN_KEY]
        shown = [repr((answer.headers, answer.body)) for answer in seen] + [repr(stand.records())]
        asked = repr([(each.target, each.headers, each.body) for each in stand.origin.asked])
    shown += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    for secret in secrets:
        assert all(secret not in text for text in shown)
    assert stand.key not in asked
    assert gone not in asked


def test_no_task_is_left_behind(tmp_path, caplog):
    async def stops(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        line.writer.close()

    with running(tmp_path, stops) as stand:
        for _ in range(5):
            ask(stand.url, request(stand.key, chat(True)))
            with Client(stand.url) as client:
                client.send(request(stand.key, chat(True)))
        stand.records(5)
    gc.collect()
    assert [r.getMessage() for r in caplog.records if r.name == "asyncio"] == []
