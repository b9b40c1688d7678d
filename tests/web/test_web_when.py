"""Routes of one path that differ only in ``when``: the request decides which of them takes the call."""

import json
import logging
import threading

import httpx
import pytest
from fakes.origin import Asked, Line
from fakes.raw import Client, ask, chat, completion, request
from fakes.stand import PLANS, Stand, running

PAIR = """
[[routes]]
name = "whole"
path = "/v1/chat/completions"
rewrite = "/whole"
upstream = "origin"
[[routes]]
name = "streams"
path = "/v1/chat/completions"
rewrite = "/streams"
upstream = "origin"
when = "request.stream == true"
"""
CHAT = "/v1/chat/completions"


def route(name: str, when: str, more: str = "", path: str = CHAT) -> str:
    condition = f"when = {json.dumps(when)}" if when else ""
    return (
        f'[[routes]]\nname = "{name}"\npath = "{path}"\nrewrite = "/{name}"\nupstream = "origin"\n{condition}\n{more}\n'
    )


async def answers(asked: Asked, line: Line) -> None:
    if asked.method == "HEAD":
        await line.head(200, Content_Type="application/json", Content_Length="9")
        return
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


def post(stand: Stand, content: bytes, key: str | None = None, path: str = CHAT, **headers: str) -> httpx.Response:
    given = {"Authorization": f"Bearer {key or stand.key}", "Content-Type": "application/json", **headers}
    return httpx.post(stand.url + path, content=content, headers=given)


def taken(stand: Stand) -> list[str]:
    """Which routes the upstream saw, in order."""
    return [asked.target.decode().removeprefix("/") for asked in stand.origin.asked]


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_the_request_decides_which_route_takes_it_and_reaches_the_upstream_untouched(tmp_path):
    with running(tmp_path, answers, routes=PAIR) as stand:
        streamed, whole = chat(True), chat()
        assert post(stand, streamed).status_code == 200
        assert post(stand, whole).status_code == 200
        assert taken(stand) == ["streams", "whole"]
        assert json.loads(stand.origin.asked[0].body)["stream"] is True
        assert stand.origin.asked[1].body == whole
        records = stand.records(2)
        assert {(record.route, record.units_micro) for record in records} == {
            ("streams", 7_000_000), ("whole", 7_000_000),
        }  # fmt: skip


def test_a_body_in_many_pieces_is_looked_into_and_sent_on_whole(tmp_path):
    with running(tmp_path, answers, routes=PAIR) as stand, Client(stand.url) as client:
        body = chat(True, padding="x" * 200_000, stream_options={"include_usage": True})
        client.send(request(stand.key, framing="Transfer-Encoding: chunked"))
        for at in range(0, len(body), 30_000):
            piece = body[at : at + 30_000]
            client.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        client.send(b"0\r\n\r\n")
        assert client.answer().status == 200
        assert taken(stand) == ["streams"]
        assert stand.origin.asked[0].body == body
        # The connection goes on.
        client.send(request(stand.key, chat()))
        assert client.answer().status == 200
        assert taken(stand) == ["streams", "whole"]


def test_who_calls_is_known_to_a_condition(tmp_path):
    routes = (
        route("mine", "customerID == 'acme' && userID == 'u-1'")
        + route("pro", "planID == 'pro' && model startsWith 'gpt' && keyID != null && headers['x-team'] == 'red'")
        + route("big", "requestBytes > 500 && method == 'POST' && query == 'a=1'")
        + route("rest", "")
    )
    with running(tmp_path, answers, routes=routes) as stand:
        key = stand.make_key(user_id="u-1")
        assert post(stand, chat(), key).status_code == 200
        assert post(stand, chat(), **{"X-Team": "red"}).status_code == 200
        assert post(stand, chat(padding="x" * 500), path=CHAT + "?a=1").status_code == 200
        assert post(stand, chat()).status_code == 200
        assert [target.partition("?")[0] for target in taken(stand)] == ["mine", "pro", "big", "rest"]


def test_conditions_are_asked_in_the_order_in_which_they_are_written(tmp_path):
    routes = route("z", "request.n >= 1") + route("a", "request.n >= 2") + route("m", "")
    with running(tmp_path, answers, routes=routes) as stand:
        post(stand, chat(n=2))
        post(stand, chat())
        assert taken(stand) == ["z", "m"]


def test_a_request_that_no_route_takes_is_unknown_in_the_words_of_the_first(tmp_path):
    routes = route("one", "request.n == 1", 'dialect = "anthropic"') + route("two", "request.n == 2")
    with running(tmp_path, answers, routes=routes) as stand:
        refused = post(stand, chat(n=3))
        assert refused.status_code == 404
        assert refused.json()["type"] == "error"
        assert "x-gatekeeper-call-id" in refused.headers or refused.json()["error"]
        assert stand.origin.asked == []
        assert stand.records() == []
        assert post(stand, chat(n=2)).status_code == 200


def test_the_key_is_looked_at_before_the_body(tmp_path):
    with running(tmp_path, answers, routes=PAIR) as stand, Client(stand.url) as client:
        # The body never comes: the answer does not wait for it.
        client.send(request("gk_nonsense", framing="Content-Length: 100000", headers={"Expect": "100-continue"}))
        answer = client.answer()
        assert answer.status == 401
        assert answer.header("connection") == "close"


def test_the_scope_of_a_key_holds_for_the_route_that_was_chosen(tmp_path):
    with running(tmp_path, answers, routes=PAIR) as stand:
        key = stand.make_key(routes=("whole",))
        assert code(post(stand, chat(True), key)) == (403, "route_not_allowed")
        assert post(stand, chat(), key).status_code == 200
        assert taken(stand) == ["whole"]


def test_a_request_without_a_body_has_no_json_and_null_is_false(tmp_path):
    routes = PAIR + route("null", "request == null", "free = true", "/v1/files")
    with running(tmp_path, answers, routes=routes) as stand:
        headers = {"Authorization": f"Bearer {stand.key}"}
        assert httpx.get(stand.url + CHAT, headers=headers).status_code == 200
        assert httpx.head(stand.url + CHAT, headers=headers).status_code == 200
        assert taken(stand) == ["whole", "whole"]
        assert httpx.get(stand.url + "/v1/files", headers=headers).status_code == 200
        assert post(stand, chat(), path="/v1/files").status_code == 404
        assert post(stand, b"", path="/v1/files").status_code == 200
        assert [record.units_micro for record in stand.records(4)] == [0, 0, 0, 0]


def test_methods_decide_before_conditions_do(tmp_path):
    routes = route("one", "request.stream == true", 'methods = ["POST"]')
    with running(tmp_path, answers, routes=routes) as stand:
        refused = httpx.get(stand.url + CHAT, headers={"Authorization": f"Bearer {stand.key}"})
        assert code(refused) == (405, "method_not_allowed")
        assert refused.headers["allow"] == "POST"
        assert code(httpx.request("TRACE", stand.url + CHAT))[0] == 405
        assert code(post(stand, chat())) == (404, "unknown_route")


UPLOAD = {"Content-Type": "multipart/form-data; boundary=b"}


def test_an_upload_is_no_json_and_goes_up_as_it_comes(tmp_path):
    begun = threading.Event()
    body = b"--b\r\nnot json\r\n" + b"\0" * 300_000 + b"\r\n--b--"
    seen = bytearray()

    async def take(line: Line) -> None:
        while not seen.endswith(b"--b--"):
            seen.extend(await line.reader.read(65_536))
            if b"not json" in seen:
                begun.set()
        await line.head(204)

    with running(tmp_path, answers, routes=PAIR) as stand, Client(stand.url) as client:
        stand.origin.accept = take
        client.send(request(stand.key, headers=UPLOAD, framing=f"Content-Length: {len(body)}"), body[:100])
        assert begun.wait(10), "the upload waits for its end"
        client.send(body[100:])
        assert client.answer().status == 204
        assert seen.startswith(b"POST /whole HTTP/1.1")
        assert seen.endswith(body)


def test_json_is_looked_into_whatever_it_calls_itself_and_what_is_none_is_refused_as_ever(tmp_path):
    with running(tmp_path, answers, routes=PAIR) as stand:
        for headers in (UPLOAD, {"Content-Type": "application/octet-stream"}):
            assert ask(stand.url, request(stand.key, chat(True), headers=headers)).status == 200
        assert taken(stand) == ["streams", "streams"]
        assert code(post(stand, b"packed", **{"Content-Encoding": "gzip"})) == (400, "bad_request")
        assert code(post(stand, b"{broken")) == (400, "bad_request")


def test_a_body_is_read_as_far_as_any_of_the_routes_allows(tmp_path):
    routes = route("large", "request.n == 1", "request_bytes_max = 100_000") + route(
        "small", "", "request_bytes_max = 1_000"
    )
    with running(tmp_path, answers, routes=routes) as stand:
        assert post(stand, chat(n=1, padding="x" * 50_000)).status_code == 200
        assert code(post(stand, chat(n=2, padding="x" * 50_000)))[0] == 413
        assert "1000 bytes" in post(stand, chat(n=2, padding="x" * 50_000)).json()["error"]["message"]
        assert "100000 bytes" in post(stand, chat(n=1, padding="x" * 200_000)).json()["error"]["message"]
        client_framing = request(stand.key, framing="Transfer-Encoding: chunked")
        piece = chat(n=1, padding="x" * 200_000)
        answer = ask(stand.url, client_framing + b"%x\r\n%s\r\n0\r\n\r\n" % (len(piece), piece))
        assert answer.status == 413
        assert taken(stand) == ["large"]


def test_a_condition_that_cannot_be_evaluated_takes_no_call_and_is_warned_of_once(tmp_path, caplog):
    routes = route("odd", "request.stream") + route("rest", "")
    caplog.set_level(logging.WARNING, "gatekeeper.proxy")
    with running(tmp_path, answers, routes=routes) as stand:
        for _ in range(3):
            assert post(stand, chat(stream=1)).status_code == 200
        assert taken(stand) == ["rest"] * 3
        said = [each.getMessage() for each in caplog.records if "'when'" in each.getMessage()]
        assert len(said) == 1
        assert "route odd" in said[0]
        assert post(stand, chat(True)).status_code == 200
        assert taken(stand)[-1] == "odd"


@pytest.mark.parametrize("priority", [0, 5])
def test_a_condition_that_is_false_leaves_the_call_to_routes_of_less_rank(tmp_path, priority):
    routes = route("special", "request.n == 1", f"priority = {priority}") + route("all", "", 'rewrite = ""', "/v1/*")
    routes = routes.replace('rewrite = ""\n', "").replace('rewrite = "/all"', "")
    with running(tmp_path, answers, routes=routes, plans=PLANS) as stand:
        post(stand, chat(n=1))
        post(stand, chat(n=2))
        assert taken(stand) == ["special", "v1/chat/completions"]
