"""The OpenAPI 3.1 document, made of the operations. Source: OpenAPI Specification 3.1.1."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.errors import REFUSALS
from gatekeeper.ports.people import Role
from gatekeeper.version import __version__
from gatekeeper.web.answers import json_answer
from gatekeeper.web.openapi.accounts import CUSTOMERS, KEYS
from gatekeeper.web.openapi.billing import BILLING, WEBHOOKS
from gatekeeper.web.openapi.expressions import EXPRESSIONS
from gatekeeper.web.openapi.operating import CONFIGURATION, HEALTH, METRICS, NOTICES, OPEN, OUTBOX
from gatekeeper.web.openapi.operation import Operation, Who, routes_of
from gatekeeper.web.openapi.people import AUTH, OPERATORS
from gatekeeper.web.openapi.schemas import COMPONENTS
from gatekeeper.web.openapi.selling import SELLING
from gatekeeper.web.openapi.spending import BUDGETS, OWN, OWN_SPEND, RECORDS, REVENUE, SPEND

OPERATIONS: tuple[Operation, ...] = (
    *AUTH,
    *OPERATORS,
    *CUSTOMERS,
    *KEYS,
    *SELLING,
    *RECORDS,
    *SPEND,
    *REVENUE,
    *BUDGETS,
    *BILLING,
    *OUTBOX,
    *NOTICES,
    *EXPRESSIONS,
    *CONFIGURATION,
    *HEALTH,
    *OWN,
    *OWN_SPEND,
    *WEBHOOKS,
    *OPEN,
    *METRICS,
)
_SAFE = frozenset({"GET", "HEAD"})
_SECURITY: Mapping[Who, list[dict[str, list[str]]]] = {
    Who.ANYBODY: [],
    Who.KEY: [{"customerKey": []}, {"customerHeader": []}],
    Who.OPERATOR: [{"adminKey": []}, {"token": []}, {"dashboard": []}],
    Who.PERSON: [{"token": []}],
    Who.STRIPE: [{"stripeSignature": []}],
    Who.METRICS: [{}, {"adminKey": []}, {"metricsToken": []}],
}
_ETAG = {"ETag": {"description": "The state that If-Match may name.", "schema": {"type": "string"}}}


@cache
def document() -> dict[str, Any]:
    """All of it."""
    paths: dict[str, dict[str, Any]] = {}
    ids: set[str] = set()
    for each in OPERATIONS:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, ids)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "gatekeeper",
            "version": __version__,
            "description": "Whoever runs a gateway uses /admin, whoever has a key of it /v1. Lists are pages: ask "
            "again with `after` until `next` is null. What is refused has the shape of Error; its `code` is one of: "
            + ", ".join(REFUSALS),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": {name: dict(each) for name, each in COMPONENTS.items()},
            "securitySchemes": {
                "adminKey": {"type": "apiKey", "in": "header", "name": "X-Admin-Key"},
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "dashboard": {"type": "apiKey", "in": "cookie", "name": "gatekeeper-dashboard"},
                "customerKey": {"type": "http", "scheme": "bearer"},
                "customerHeader": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
                "stripeSignature": {"type": "apiKey", "in": "header", "name": "Stripe-Signature"},
                "metricsToken": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def documented() -> frozenset[tuple[str, str]]:
    """(method, path) of all that stands in the document."""
    return frozenset((each.method, each.path) for each in OPERATIONS)


class Document:
    """The endpoint of the document itself. It holds nothing that the source does not: anybody may have it."""

    def routes(self) -> list[BaseRoute]:
        """The URL, for ``web.app``."""
        return routes_of([each for each in OPEN if each.endpoint == "openapi"], self)

    async def openapi(self, request: Request) -> Response:
        """The document."""
        return json_answer(document())


def _operation(each: Operation, ids: set[str]) -> dict[str, Any]:
    name = each.endpoint if each.endpoint not in ids else f"{each.endpoint}_{each.tag}"
    assert name not in ids, name
    ids.add(name)
    made: dict[str, Any] = {
        "operationId": name,
        "summary": each.summary,
        "tags": [each.tag],
        "parameters": [*_parameters(each)],
        "responses": _responses(each),
        "security": _SECURITY[each.who],
    }
    if each.who is Who.OPERATOR:
        role = each.least or (Role.VIEWER if each.method in _SAFE else Role.ADMIN)
        made["description"] = f"Takes the role {role.value}."
        made["x-role"] = role.value
    if each.body is not None:
        required = bool(each.body.get("required"))
        made["requestBody"] = {"required": required, "content": {each.takes: {"schema": dict(each.body)}}}
    return made


def _parameters(each: Operation) -> Iterable[dict[str, Any]]:
    for part in each.path.split("/"):
        if part.startswith("{"):
            yield {
                "name": part.strip("{}"),
                "in": "path",
                "required": True,
                "schema": {"type": "string", "minLength": 1},
            }
    for one in each.query:
        yield {"name": one.name, "in": "query", "description": one.said, "schema": dict(one.schema)}
    text = {"type": "string", "maxLength": 200}
    if each.once:
        said = "The same again is answered like the first time, for a day."
        yield {"name": "Idempotency-Key", "in": "header", "description": said, "schema": text}
    if each.tagged and each.method not in (*_SAFE, "POST"):
        yield {
            "name": "If-Match",
            "in": "header",
            "description": "The ETag of the state that is meant.",
            "schema": text,
        }


def _responses(each: Operation) -> dict[str, Any]:
    good: dict[str, Any] = {"description": each.summary, "content": {each.media: {"schema": dict(each.answer)}}}
    if each.tagged and each.method != "DELETE":
        good["headers"] = _ETAG
    wrong = set(each.errors)
    if each.who is not Who.ANYBODY:
        wrong |= {401, 403, 503}
    if each.query or each.body is not None or "{" in each.path or each.once:
        wrong.add(400)
    if "{" in each.path:
        wrong.add(404)
    if each.body is not None:
        wrong.add(413)
    if each.once:
        wrong |= {409, 422}
    if each.tagged and each.method not in (*_SAFE, "POST"):
        wrong |= {409, 412}
    if each.who in (Who.OPERATOR, Who.PERSON):
        # Somebody tries passwords, or tokens.
        wrong.add(429)
    answers = {str(each.status): good}
    if each.once and each.status != 200:
        again = "What was answered the first time, without what is shown once"
        answers["200"] = {"description": again, "content": {each.media: {"schema": {"type": "object"}}}}
    for status in sorted(wrong):
        codes = ", ".join(code for code, kind in REFUSALS.items() if kind.status == status)
        answers[str(status)] = {
            "description": f"Refused: {codes}" if codes else "Refused",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
    return answers
