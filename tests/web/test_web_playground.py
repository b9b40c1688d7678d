"""The playground's pages: with and without JavaScript, and with whatever somebody types into them."""

import asyncio
import base64
import re
import threading
from collections.abc import Iterator
from html import unescape
from urllib.parse import urlencode

import pytest
from fakes.callers import Callers, Headers
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, chat, completion, request
from fakes.stand import ROUTES, Stand, running

from gatekeeper.clock import SystemClock
from gatekeeper.errors import Code, Refusal
from gatekeeper.web.playground.samples import samples
from gatekeeper.web.playground.trying import guessed_type
from gatekeeper.web.playground.turns import Turns

MORE = """
[[routes]]
name = "videos"
path = "/v1/videos"
upstream = "origin"
meter = "last(events, .json.total_seconds) ?? usage().total"
meters = { images = "len(response.data)" }
live = "sum(events, .json.seconds)"
cost = "last(events, .json.price)"
when = "request.model startsWith 'video-'"
estimate = "request.max_tokens"
"""


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("playground"), says_hi, routes=ROUTES + MORE) as found:
        yield found


@pytest.fixture(scope="module")
def callers(stand: Stand) -> Callers:
    return Callers(stand)


@pytest.fixture(scope="module")
def viewer(callers: Callers) -> Headers:
    return callers.cookie("viewer")


def page(stand: Stand, path: str, cookie: Headers, form: dict[str, str] | None = None, **headers: str) -> Answer:
    method = "GET" if form is None else "POST"
    body = b"" if form is None else urlencode(form).encode()
    named = {**cookie, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if form is not None:
        named["Content-Type"] = "application/x-www-form-urlencoded"
    return ask(stand.url, request(None, body, method=method, path=path, headers=named), method)


def shown(answer: Answer, status: int = 200) -> str:
    assert answer.status == status, answer
    return answer.body.decode()


def plain(html: str) -> str:
    """The words of a page."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", html)))


def test_the_page_shows_a_reading_at_once(stand, viewer):
    html = shown(page(stand, "/playground", viewer))
    words = plain(html)
    assert "21 units" in words
    assert "events 0 to 13 changed no slot" in words
    assert html.count("<h1") == 1
    assert "<title>Playground" in html
    assert not re.search(r"\son\w+=|style=|<script(?![^>]*\bsrc=)", html)


def test_without_javascript_the_button_answers_with_the_whole_page(stand, viewer):
    form = {"expression": "usge().total\r\n + 1", "context": "meter", "sample": "openai-chat.sse"}
    html = shown(page(stand, "/playground", viewer, form))
    assert "<h1>Playground" in html
    assert "unknown function 'usge'" in plain(html)
    assert "did you mean 'usage'?" in plain(html)
    assert "  usge().total\n  ^^^^" in unescape(html)
    assert "usge().total\r\n + 1</textarea>" in html


def test_htmx_gets_what_is_below_the_code_and_the_mistakes_out_of_band(stand, viewer):
    form = {"expression": "usage().total", "sample": "anthropic-messages.sse", "used": "999,990"}
    html = shown(page(stand, "/playground", viewer, form, HX_Request="true"))
    assert "<h1" not in html
    assert '<div id="mistakes" hx-swap-oob="innerHTML">' in html
    words = plain(html)
    assert "After 999,990 units" in words
    # 11 of 21 beyond the million.
    assert "$0.011" in words


@pytest.mark.parametrize(
    ("route", "part", "text", "context"),
    [
        ("videos", "meter", "last(events, .json.total_seconds) ?? usage().total", "meter"),
        ("videos", "meters.images", "len(response.data)", "meter"),
        ("videos", "live", "sum(events, .json.seconds)", "live"),
        ("videos", "cost", "last(events, .json.price)", "cost"),
        ("videos", "when", "request.model startsWith 'video-'", "when"),
        ("videos", "estimate", "request.max_tokens", "estimate"),
        ("nope", "meter", "usage().total", "meter"),
        ("videos", "nope", "usage().total", "meter"),
    ],
)
def test_a_routes_expressions_are_where_to_start_from(stand, viewer, route, part, text, context):
    html = shown(page(stand, f"/playground?{urlencode({'route': route, 'part': part})}", viewer))
    assert f"{text}</textarea>" in unescape(html)
    assert f'<option value="{context}" selected>' in html


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "</textarea><b>"]
)
def test_whatever_is_typed_is_text(stand, viewer, evil):
    form = {
        "expression": f"'{evil}' + x", "stream": f'data: {{"t": "{evil}"}}\n\n', "request": evil, "used": evil,
        "content_type": evil, "route": evil, "status": evil, "outcome": evil, "content_encoding": evil,
    }  # fmt: skip
    bad = shown(page(stand, "/playground", viewer, form), 400)
    fine = {**form, "used": "", "route": "", "status": "", "outcome": "", "content_encoding": "", "content_type": ""}
    fine["expression"] = f"len('{evil}') + count(events, .data == '{evil}')"
    html = shown(page(stand, "/playground", viewer, fine))
    dry = shown(page(stand, "/playground/dry-run", viewer, {"route": evil, "expression": evil, "last": "1"}), 400)
    for each in (bad, html, dry):
        assert evil not in each or "{{" in evil
        assert "<script>alert" not in each
        assert "<img src=x" not in each
        assert "49" not in plain(each) or "{{" not in evil


@pytest.mark.parametrize(
    "form",
    [
        {"expression": "1", "sample": "../x"}, {"expression": "1", "used": "many"},
        {"expression": "1", "status": "2000"},
        {"expression": "1", "status": "²00"}, {"expression": "1", "outcome": "x"}, {"expression": "1", "context": "x"},
        {"expression": "1", "route": "x"}, {"expression": "1", "stream_base64": "?"},
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_in_the_page(stand, viewer, form):
    assert "not tried" in shown(page(stand, "/playground", viewer, form), 400)
    # While somebody types it is no failure, or htmx would not show it.
    assert "not tried" in shown(page(stand, "/playground", viewer, form, HX_Request="true"))


def test_an_empty_form_is_a_mistake_and_no_crash(stand, viewer):
    assert "error at 1:1" in plain(shown(page(stand, "/playground", viewer, {})))


def test_a_binary_answer_comes_as_base64(stand, viewer):
    packed = base64.b64encode(samples()["bedrock-invoke.bin"].body).decode()
    form = {
        "expression": "usage().total",
        "stream_base64": packed,
        "content_type": "application/vnd.amazon.eventstream",
    }
    assert "394 units" in plain(shown(page(stand, "/playground", viewer, form)))


def test_too_large_a_form_is_refused(stand, viewer):
    assert page(stand, "/playground", viewer, {"expression": "1", "stream": "x" * 1_100_000}).status == 413


def test_nobody_looks_in_who_is_not_signed_in(stand, callers):
    for path in ("/playground", "/playground/dry-run"):
        answer = page(stand, path, {})
        assert answer.status == 303
        assert dict(answer.headers)[b"location"].startswith(b"/dashboard/login?next=%2Fplayground")
        assert page(stand, path, {}, {"expression": "1"}).status == 303
        assert page(stand, path, callers.cookie("acme")).status == 303
        assert page(stand, path, callers.cookie("viewer", csrf=None), {"expression": "1"}).status == 403


def test_typing_is_no_deed(stand, viewer):
    before = len(stand.run(stand.house.store.deeds(limit=1_000)))
    shown(page(stand, "/playground", viewer, {"expression": "1"}))
    shown(page(stand, "/playground/dry-run", viewer, {"expression": "1", "route": "chat", "last": "5"}))
    assert len(stand.run(stand.house.store.deeds(limit=1_000))) == before


def test_recorded_calls_are_told_by_customer(stand, viewer):
    assert ask(stand.url, request(stand.key, chat(max_tokens=4))).status == 200
    stand.records(1)
    assert "What is read again" in plain(shown(page(stand, "/playground/dry-run", viewer)))
    form = {"route": "chat", "expression": "usage().total * 3", "last": "10"}
    words = plain(shown(page(stand, "/playground/dry-run", viewer, form)))
    assert "Route chat, 1 calls" in words
    assert re.search(r"acme 1 7 21 \$0 \$0 \$0 0 0", words), words
    assert "exact" in words
    words = plain(shown(page(stand, "/playground/dry-run", viewer, {**form, "expression": "len(allData)"})))
    assert "1 of 1 calls cannot be read again: the stream is not kept" in words
    words = plain(shown(page(stand, "/playground/dry-run", viewer, {**form, "expression": "usge()"})))
    assert "did you mean 'usage'?" in words
    assert "last is a number" in plain(shown(page(stand, "/playground/dry-run", viewer, {**form, "last": "x"}), 400))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"data: {}\n\n", "text/event-stream"), (b"\xef\xbb\xbfevent: x\n", "text/event-stream"),
        (b": ping\n", "text/event-stream"), (b'{"a":1}\n{"a":2}\n', "application/x-ndjson"),
        (b'{\n"a":1}', "application/json"), (b"[{}]", "application/json"), (b"", "application/json"),
        (b"<html>", "text/plain"), (b'{"a": {}\n,"b":1}', "application/json"),
    ],
)  # fmt: skip
def test_the_content_type_of_what_is_pasted_is_guessed(body, kind):
    assert guessed_type(body) == kind


def test_so_many_may_wait_and_no_more():
    async def crowd() -> tuple[int, int]:
        turns, go = Turns(SystemClock(), waiting_max=3), threading.Event()
        waiting = [asyncio.ensure_future(turns.take(lambda go_on: go.wait(10))) for _ in range(5)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        go.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        refused = [each for each in found if isinstance(each, Refusal)]
        assert all(each.code is Code.RATE_LIMITED for each in refused)
        return len(refused), sum(each is True for each in found)

    assert asyncio.run(crowd()) == (2, 3)


def test_whoever_gives_up_stops_the_work_before_the_next_begins():
    async def given_up() -> tuple[list[str], bool]:
        turns, told = Turns(SystemClock(), work_s=30), list[str]()
        loop, begun = asyncio.get_running_loop(), asyncio.Event()

        def endless(go_on: object) -> None:
            assert callable(go_on)
            loop.call_soon_threadsafe(begun.set)
            while go_on():
                pass
            told.append("ended")

        one = asyncio.ensure_future(turns.take(endless))
        await begun.wait()
        two = asyncio.ensure_future(turns.take(lambda go_on: told.append("next")))
        one.cancel()
        await asyncio.wait([one, two])
        return told, one.cancelled()

    assert asyncio.run(given_up()) == (["ended", "next"], True)
