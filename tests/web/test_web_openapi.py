"""The API is what its document says: no route without a place in it, no answer of another shape, no status that it does
not name, whatever is sent. Inputs are made by schemathesis from the document, always the same ones."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from fakes.origin import Asked, Line
from fakes.raw import ask, chat, completion, request
from fakes.stand import ADMIN_KEY, Stand, running
from hypothesis import HealthCheck, Phase, given, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.routing import BaseRoute, Mount, Route

from gatekeeper.web.openapi.document import OPERATIONS, document, documented
from gatekeeper.web.openapi.operation import Who

CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES = 6
# Pages for people, their forms and their files: HTML, which no program asks for.
PAGES = ("/dashboard", "/portal", "/playground")
# One operation with two headers that may fail on their own.
SECRETS = {Who.OPERATOR: {"X-Admin-Key": ADMIN_KEY}, Who.METRICS: {"X-Admin-Key": ADMIN_KEY}}


async def says_hi(asked: Asked, line: Line) -> None:
    body = completion(3, 4)
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with running(tmp_path_factory.mktemp("openapi"), says_hi) as found:
        for _ in range(3):
            assert ask(found.url, request(found.key, chat())).status == 200
        found.records(3)
        yield found


def flat(routes: list[BaseRoute], before: str = "") -> Iterator[tuple[str, str]]:
    for route in routes:
        if isinstance(route, Mount):
            yield from flat(list(route.routes), before + route.path)
        elif isinstance(route, Route):
            yield from ((method, before + route.path) for method in (route.methods or {"GET"}) if method != "HEAD")


def test_the_document_is_valid_openapi_3_1():
    OpenAPIV31SpecValidator(json.loads(json.dumps(document()))).validate()


def test_every_route_stands_in_the_document_or_is_a_page(stand):
    served = set(flat(stand.house.app.routes))
    missing = {one for one in served - documented() if not one[1].startswith(PAGES)} - {("GET", "/{path:path}")}
    assert not missing, "neither in the document nor a page"
    assert not documented() - served, "in the document, and nowhere served"


def test_the_document_is_served_to_anybody_and_holds_no_secret(stand):
    answer = ask(stand.url, request(None, b"", method="GET", path="/admin/openapi.json"), "GET")
    assert answer.status == 200
    assert json.loads(answer.body) == json.loads(json.dumps(document()))
    assert ADMIN_KEY.encode() not in answer.body


def _schema(stand: Stand) -> Any:
    return schemathesis.openapi.from_dict(json.loads(json.dumps(document())))


@pytest.mark.parametrize("number", range(len(OPERATIONS)), ids=[f"{each.method} {each.path}" for each in OPERATIONS])
def test_what_is_answered_is_as_the_document_says(stand, number):
    declared = OPERATIONS[number]
    operation = _schema(stand)[declared.path][declared.method]
    own = {"X-API-Key": stand.key}
    headers = own if declared.who in (Who.KEY, Who.PERSON) else SECRETS.get(declared.who, {})

    @given(case=operation.as_strategy())
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def holds(case: Any) -> None:
        for name in ("customer_id",):
            if name in (case.path_parameters or {}):
                case.path_parameters[name] = "acme"
        case.headers = {**(case.headers or {}), **headers}
        case.call_and_validate(base_url=stand.url, checks=CHECKS)

    holds()


@pytest.mark.parametrize(
    "declared", [each for each in OPERATIONS if each.who is Who.OPERATOR], ids=lambda each: f"{each.method} {each.path}"
)
def test_nobody_without_a_key_is_answered(stand, declared):
    path = declared.path.replace("{", "").replace("}", "")
    answer = ask(stand.url, request(None, b"{}", method=declared.method, path=path), declared.method)
    assert answer.status == 401
    assert json.loads(answer.body)["error"]["code"] == "admin_key_required"
