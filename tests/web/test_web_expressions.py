"""Expressions for machines: what the command line says, the API says; and nobody makes it work for ever."""

import base64
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from fakes.callers import Callers
from fakes.origin import Asked, Line
from fakes.raw import Answer, ask, chat, completion, request
from fakes.stand import ADMIN_KEY, PLANS, ROUTES, Stand, running

from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import RouteExample
from gatekeeper.meters import Metering, Outcome, RequestView
from gatekeeper.web.openapi.document import document
from gatekeeper.web.playground.samples import FOLDER, samples

GALLERY = sorted((Path(__file__).parents[1] / "meters" / "mistakes").glob("*.txt"))
TIGHT = {**PLANS, "tight.toml": PLANS["pro.toml"].replace("1_000_000", "10").replace('name = "Pro"', 'name = "Tight"')}
DAY = (
    b'data: {"choices":[{"delta":{"content":"day"}}],"usage":null}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":78,"completion_tokens":9,"total_tokens":87}}\n\n'
    b"data: [DONE]\n\n"
)


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("expressions"), says_hi, routes=ROUTES, plans=TIGHT) as found:
        yield found


def post(stand: Stand, action: str, body: Any, **headers: str) -> Answer:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {"X-Admin-Key": ADMIN_KEY} if not headers else {name.replace("_", "-"): v for name, v in headers.items()}
    path = f"/admin/expressions/{action}"
    return ask(stand.url, request(None, sent, method="POST", path=path, headers=named), "POST")


def done(answer: Answer) -> dict[str, Any]:
    assert answer.status == 200, answer
    found: dict[str, Any] = json.loads(answer.body)
    return found


def tried(stand: Stand, expression: str, **more: Any) -> dict[str, Any]:
    return done(post(stand, "evaluate", {"expression": expression, "stream": DAY.decode(), **more}))


def test_every_mistake_of_the_gallery_is_told_as_the_command_line_tells_it(stand):
    for file in GALLERY:
        expression, _, expected = file.read_text("utf-8").partition("\n----\n")
        route = {"route": "messages"} if file.stem.endswith("__anthropic") else {}
        found = done(post(stand, "check", {"expression": expression, **route}))
        told = "\n\n".join(each["text"] for each in found["mistakes"]) + "\n"
        if route or not found["ok"] or "__" not in file.stem:
            assert told == expected, file.stem
        assert found["ok"] == (not any(each["severity"] == "error" for each in found["mistakes"]))
        assert (found["plan"] is None) == (not found["ok"])
        for each in found["mistakes"]:
            assert each["start"] <= each["end"]
            assert each["line"] >= 1 <= each["column"]


def test_the_plan_says_type_phases_and_slots(stand):
    plan = done(post(stand, "check", {"expression": "last(events,.json.usage.n)??requestBytes"}))["plan"]
    assert plan["canonical"] == "last(events, .json.usage.n) ?? requestBytes"
    assert (plan["phases"], plan["type"]) == (["request", "finish"], "any value")
    assert [(slot["text"], slot["looks_for"]) for slot in plan["slots"]] == [("last(events, .json.usage.n)", ['"n"'])]
    assert plan["hash"] in plan["explain"]


@pytest.mark.parametrize(
    ("context", "expression", "field", "value"),
    [
        ("meter", "usage().total", "units", "87"),
        ("estimate", "request.max_tokens + requestBytes", "units", "127"),
        ("live", "count(events, .json.choices[0].delta.content != null) * 10", "units", "10"),
        ("cost", "usage().total / 1000", "dollars", "0.087"),
        ("when", "request.model startsWith 'gpt-'", "holds", True),
    ],
)
def test_each_context_is_evaluated_as_a_route_would(stand, context, expression, field, value):
    asked = {"model": "gpt-4o", "max_tokens": 90}
    found = tried(stand, expression, context=context, request=asked)
    assert found["ok"]
    assert found["reading"][field] == value
    assert (found["events"] is None) == (context in ("estimate", "when"))
    assert bool(found["charges"]) == (context == "meter")


def test_each_event_stands_beside_what_it_changed(stand):
    found = tried(stand, "last(events, .json.usage.total_tokens)")
    assert [[change["value"] for change in step["changes"]] for step in found["events"]["first"]] == [[], ["87"], []]
    assert found["events"]["slots"] == [{"meter": "meter", "slot": 0, "text": "last(events, .json.usage.total_tokens)"}]
    assert found["reading"]["evidence"] == {"last(events, .json.usage.total_tokens)": 87}


def test_the_charge_on_each_plan_fresh_and_after_use(stand):
    charges = {each["plan"]: each for each in tried(stand, "usage().total", used=1_000_000)["charges"]}
    assert (charges["pro"]["fresh"]["charge"], charges["pro"]["used"]["charge"]) == ("0", "0.087")
    assert charges["tight"]["fresh"]["charge"] == "0.077"
    assert charges["tight"]["beyond"]["charge"] == "0.087"
    assert charges["free"]["used"] == {
        "charge": None, "refused": True, "why": "refused: beyond the 10,000 that are included",
    }  # fmt: skip


def test_named_meters_are_read_beside(stand):
    found = tried(stand, "usage().total", meters={"out": "usage().output", "wrong": "usge()"})
    assert not found["ok"]
    assert found["reading"] is None
    assert [each["meter"] for each in found["mistakes"]] == ["wrong"]
    found = tried(stand, "usage().total", meters={"out": "usage().output"})
    assert found["meters"]["out"]["units"] == "9"


def test_a_default_an_error_and_nothing_are_told_apart(stand):
    texts = ("last(events, .json.x) ?? 1", "1 / (usage().total - 87)", "last(events, .json.x)")
    assert [tried(stand, text)["reading"]["source"] for text in texts] == ["default", "error", "none"]
    assert tried(stand, "usage().total", status=502)["reading"]["note"] == "status"


def test_a_text_with_nul_is_refused_and_bytes_with_nul_are_read(stand):
    for body in ({"expression": "a\0b"}, {"expression": "1", "stream": "\0"}):
        assert post(stand, "evaluate", body).status == 400
    packed = base64.b64encode(b"data: \0\n\n").decode()
    found = done(post(stand, "evaluate", {"expression": "len(last(events).data)", "stream_base64": packed,
                                          "content_type": "text/event-stream"}))  # fmt: skip
    assert found["reading"]["units"] == "1"


@pytest.mark.parametrize("name", list(samples()))
def test_every_sample_is_an_answer_that_is_understood(stand, name):
    found = done(post(stand, "evaluate", {"expression": "usage()", "sample": name}))
    assert found["events"]["count"] > 0
    value = found["reading"]["value"]
    assert any(value.get(key) for key in ("total", "output", "requests")), value


def test_the_samples_are_the_files():
    assert {path.name for path in FOLDER.iterdir()} == set(samples())


@pytest.mark.parametrize("name", list(samples()))
@pytest.mark.parametrize("text", ["usage().total", "count(events)"])
def test_what_is_kept_as_an_example_is_what_the_check_executes(stand, name, text):
    found = done(post(stand, "evaluate", {"expression": text, "sample": name, "request": {"model": "it's"}}))
    example = example_of(f"meter = '{text}'\n" + found["example"])
    assert (None if example.units is None else str(example.units)) == found["reading"]["units"]
    if example.body is None:
        assert "file" in found["example"]
        return
    metering = Metering({"m": parse(f"meter = '{text}'\n").router.routes[0].meter}, RequestView())
    metering.begin(example.status, example.content_type, "", {})
    metering.feed(example.body)
    reading = metering.finish(Outcome.COMPLETE)["m"]
    assert (reading.units, reading.source) == (example.units, found["reading"]["source"])
    assert example.request == b'{"model": "it\'s"}'


def parse(route: str) -> Any:
    text = f"""
[upstreams.o]
url = "http://127.0.0.1:1"
[[routes]]
name = "r"
path = "/v1/r"
upstream = "o"
{route}
"""
    return parse_gateway(f'plans = "plans"\n[database]\nurl = "sqlite:///x"\n{text}', "gateway.toml", PLANS, {})


def example_of(route: str) -> RouteExample:
    (example,) = parse(route).router.routes[0].examples
    return example


@pytest.mark.parametrize(
    ("expression", "more"),
    [
        ("usage()", {"sample": "xai-chat.sse", "request": {"model": "grok"}, "used": "5.5"}),
        ("usage().total", {"sample": "openai-chat.sse", "meters": {"out": "usage().output"}}),
        ("count(events)", {"sample": "cohere-chat.sse", "context": "live"}),
        ("usage().total", {"sample": "ollama-chat.ndjson", "context": "cost"}),
        ("request.n > 1", {"context": "when", "request": {"n": 2}}),
        ("usge()", {}),
        ("last(events, .json)", {"sample": "openai-chat.sse"}),
    ],
)
def test_an_answer_has_the_shape_that_the_document_tells(stand, expression, more):
    for action, body in (("evaluate", {"expression": expression, **more}), ("check", {"expression": expression})):
        operation = document()["paths"][f"/admin/expressions/{action}"]["post"]
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.validate(done(post(stand, action, body)), schema)
        jsonschema.validate(body, operation["requestBody"]["content"]["application/json"]["schema"])


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 100_000, b'{"expression": 1}', b'{"expression": null}',
        {"expression": "1", "more": 1}, {"expression": "1", "context": "trial"}, {"expression": "1", "context": 7},
        {"expression": "1", "route": "nope"}, {"expression": "1", "context": "value"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("action", ["check", "evaluate"])
def test_what_cannot_be_understood_is_refused_and_nothing_breaks(stand, action, body):
    answer = post(stand, action, body)
    assert (answer.status, answer.error["code"]) == (400, "bad_request")


@pytest.mark.parametrize(
    "more",
    [
        {"stream": 1}, {"stream": "a", "sample": "openai-chat.sse"}, {"sample": "../../gateway.toml"}, {"sample": ""},
        {"stream_base64": "%%%"}, {"status": 99}, {"status": "200"}, {"status": True}, {"outcome": "lost"},
        {"used": -1}, {"used": "1e9"}, {"used": 1.5}, {"used": "9" * 400}, {"used": True}, {"method": "get"},
        {"content_type": "a\r\nb"}, {"content_encoding": "x" * 201}, {"meters": []}, {"meters": {"a b": "1"}},
        {"meters": {"meter": "1"}}, {"meters": {f"m{n}": "1" for n in range(17)}}, {"meters": {"a": 1}},
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_meant_is_named(stand, more):
    answer = post(stand, "evaluate", {"expression": "1", **more})
    assert (answer.status, answer.error["code"]) == (400, "bad_request")


def test_a_megabyte_of_expression_is_a_mistake_of_a_few_words(stand):
    answer = post(stand, "check", {"expression": "usage() + " * 100_000 + "1"})
    found = done(answer)
    assert "at most 4096 are allowed" in found["mistakes"][0]["message"]
    assert len(answer.body) < 2_000
    assert post(stand, "check", {"expression": "1" * 1_100_000}).status == 413


@pytest.mark.parametrize("text", ["\u2028", "\x01", "(" * 2_000 + "1", "[1," * 1_300, "-" * 51 + "1", "a." * 2_000])
def test_odd_expressions_are_mistakes_and_never_crashes(stand, text):
    found = done(post(stand, "evaluate", {"expression": text, "stream": DAY.decode()}))
    assert not found["ok"]
    assert found["mistakes"][0]["text"].count("\n") >= 1


@pytest.mark.parametrize(
    "stream",
    ["", "\x01", "data: " + "[" * 100_000 + "\n\n", 'data: {"t":"\\ud800","\\ud801":1e400}\n\n',
     'data: {"n":' + "9" * 5_000 + "}\n\n", "data: {}\n\n" * 20_000, 'data: {"u":' * 3, "<html>no</html>"],
)  # fmt: skip
@pytest.mark.parametrize("text", ["usage()", "last(events, .json.n)", "len(toString(last(events, .json)))"])
def test_odd_streams_are_read_or_said_to_be_unreadable(stand, stream, text):
    found = done(post(stand, "evaluate", {"expression": text, "stream": stream, "content_type": "text/event-stream"}))
    assert found["ok"]
    assert found["reading"]["source"] in ("measured", "none", "error")


def test_deep_and_huge_values_still_make_an_answer(stand):
    deep = 'data: {"a":' + '{"a":' * 200 + "1" + "}" * 200 + ',"n":' + "9" * 30 + "}\n\n"
    found = done(post(stand, "evaluate", {"expression": "usage()", "stream": deep}))
    assert found["reading"]["source"] == "none"
    found = done(post(stand, "evaluate", {"expression": "len(keys(last(events, .json)))", "stream": deep}))
    assert found["reading"]["units"] == "2"


def test_a_packed_stream_is_unpacked_and_a_bomb_is_not(stand):
    def sent(body: bytes) -> dict[str, Any]:
        packed = base64.b64encode(body).decode()
        more = {"content_encoding": "gzip", "content_type": "text/event-stream"}
        return {"expression": "usage().total", "stream_base64": packed, **more}

    assert done(post(stand, "evaluate", sent(gzip.compress(DAY))))["reading"]["units"] == "87"
    bomb = post(stand, "evaluate", sent(gzip.compress(bytes(200 << 20), 9)))
    assert bomb.status in (200, 413)
    if bomb.status == 200:
        assert "content coding" in json.loads(bomb.body)["reading"]["note"]


def test_endless_work_is_stopped(stand):
    text = "sum(events, e => sum(map(1..1000, x => sum(1..40, y => y))))"
    answer = post(stand, "evaluate", {"expression": text, "stream": "data: {}\n\n" * 10_000})
    assert (answer.status, answer.error["code"]) == (400, "bad_request")
    assert "takes too long: stopped after" in answer.error["message"]


def test_who_may_ask_and_that_asking_is_no_deed(stand):
    callers = Callers(stand)
    before = len(stand.run(stand.house.store.deeds(limit=1_000)))
    body = {"expression": "1"}
    assert post(stand, "check", body, **callers.token("viewer")).status == 200
    assert post(stand, "check", body, **callers.cookie("viewer")).status == 200
    assert post(stand, "check", body, **callers.cookie("owner", csrf=None)).status == 403
    assert post(stand, "check", body, **callers.token("acme")).status == 403
    assert post(stand, "check", body, Authorization=f"Bearer {stand.key}").status == 401
    assert post(stand, "evaluate", body, X_Admin_Key="wrong").status == 401
    assert len(stand.run(stand.house.store.deeds(limit=1_000))) == before


# --- recorded calls ---


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Two customers: ada made three calls of 7 units on 10 included, bob one."""
    with running(tmp_path_factory.mktemp("past"), says_hi, routes=ROUTES, plans=TIGHT) as found:
        keys = {}
        for name in ("ada", "bob"):
            found.run(found.house.accounts.create_customer(name, customer_id=name, plan_id="tight"))
            keys[name] = found.make_key(name)
        for name in ("ada", "bob", "ada", "ada"):
            assert ask(found.url, request(keys[name], chat(max_tokens=4))).status == 200
        assert ask(found.url, request(keys["bob"], chat(max_tokens=4), path="/v1/completions")).status == 200
        found.records(3, "ada")
        found.records(2, "bob")
        yield found


def test_the_same_expression_changes_nothing(past):
    found = done(post(past, "dry-run", {"route": "chat", "expression": "usage().total"}))
    assert (found["calls"], found["exact"], found["next"]) == (4, True, None)
    assert found["total"]["charge_difference"] == found["total"]["units_difference"] == "0"
    # 21 of 10 included at 0.001.
    assert found["total"]["charge_before"] == found["total"]["charge_after"] == "0.011"


def test_another_expression_is_told_customer_by_customer(past):
    body = {"route": "chat", "expression": "usage().input + usage().output * 4", "meters": {"out": "usage().output"}}
    found = done(post(past, "dry-run", body))
    operation = document()["paths"]["/admin/expressions/dry-run"]["post"]
    jsonschema.validate(found, operation["responses"]["200"]["content"]["application/json"]["schema"])
    ada, bob = found["customers"]
    # 19 units a call instead of 7.
    assert (ada["customer"], ada["calls"], ada["units_before"], ada["units_after"]) == ("ada", 3, "21", "57")
    assert (ada["charge_before"], ada["charge_after"], ada["charge_difference"]) == ("0.011", "0.047", "0.036")
    # Bob's call on another route came after this one, and counts on the same quota: not before its last call.
    assert (bob["units_after"], bob["charge_difference"]) == ("19", "0.009")
    assert ada["meters"]["out"] == {"before": "0", "after": "12", "not_read_again": 0}
    assert found["exact"]


def test_what_the_records_do_not_hold_is_counted_and_stays(past):
    found = done(post(past, "dry-run", {"route": "chat", "expression": "len(allData) * 1000"}))
    assert (found["exact"], found["not_read_again"], found["total"]["charge_difference"]) == (False, 4, "0")
    assert found["why_not"] == [{"why": "the evidence does not hold len(allData)", "calls": 4}]


def test_the_last_calls_come_page_by_page(past):
    seen, before = 0, None
    while True:
        body = {"route": "chat", "expression": "usage().total", "last": 1, "before": before}
        found = done(post(past, "dry-run", body))
        seen += found["calls"]
        before = found["next"]
        if before is None or found["calls"] == 0:
            break
    assert seen == 4


def test_a_route_without_calls_has_none(past):
    found = done(post(past, "dry-run", {"route": "messages", "expression": "usage().total"}))
    assert (found["calls"], found["customers"], found["scanned"]) == (0, [], 5)


def test_a_mistake_is_told_and_nothing_is_read(past):
    found = done(post(past, "dry-run", {"route": "chat", "expression": "usge()", "meters": {"x": "1 +"}}))
    assert not found["ok"]
    assert found["mistakes"][0]["meter"] == "meter"
    assert "meters.x" in [each["meter"] for each in found["mistakes"]]
    assert "customers" not in found


@pytest.mark.parametrize(
    "body",
    [
        {}, {"route": "chat"}, {"route": "nope", "expression": "1"}, {"expression": "1"},
        {"route": "chat", "expression": "1", "last": 0}, {"route": "chat", "expression": "1", "last": 5_001},
        {"route": "chat", "expression": "1", "last": "5"}, {"route": "chat", "expression": "1", "before": "x"},
        {"route": "chat", "expression": "1", "before": "9" * 30 + ":x"}, {"route": "chat", "meters": []},
        {"route": "chat", "expression": "1", "before": "1:\u0000"}, {"route": "chat", "meters": {}},
    ],
)  # fmt: skip
def test_a_dry_run_that_cannot_be_meant_is_refused(past, body):
    answer = post(past, "dry-run", body)
    assert (answer.status, answer.error["code"]) == (400, "bad_request")
