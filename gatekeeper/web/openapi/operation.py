"""One operation of the API: its URL, its words and the shapes of what goes in and out.

The rule: the routes are made of the same tables as the OpenAPI document, so there is no URL without its document.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from gatekeeper.ports.people import Role

Endpoint = Callable[[Request], Awaitable[Response]]
Schema = Mapping[str, Any]


class Guard(Protocol):
    """Who lets callers in: the endpoint behind it. ``least`` is the role that it takes at least; None: a viewer may
    look, an admin may change."""

    def __call__(self, endpoint: Endpoint, least: Role | None = None) -> Endpoint:
        """The endpoint, guarded."""
        ...


class Who(StrEnum):
    """Who is asked for at the door."""

    ANYBODY = "anybody"
    KEY = "key"
    OPERATOR = "operator"
    PERSON = "person"
    STRIPE = "stripe"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Query:
    """A parameter of the query."""

    name: str
    said: str
    schema: Schema


@dataclass(frozen=True, slots=True)
class Operation:
    """``endpoint`` is the name of the method that answers, and the operation's id. ``once``: an Idempotency-Key is
    heeded; ``tagged``: the answer has an ETag, and a change heeds If-Match. ``takes`` and ``media`` are the types of
    body and answer. ``errors`` beside those that follow from the rest."""

    method: str
    path: str
    endpoint: str
    summary: str
    answer: Schema
    status: int = 200
    tag: str = "admin"
    who: Who = Who.OPERATOR
    least: Role | None = None
    query: tuple[Query, ...] = ()
    body: Schema | None = None
    errors: tuple[int, ...] = ()
    once: bool = False
    tagged: bool = False
    media: str = "application/json"
    takes: str = "application/json"


def routes_of(operations: Sequence[Operation], room: object, guard: Guard | None = None) -> list[BaseRoute]:
    """The URLs of a room's operations. An operation for operators stands behind ``guard``."""
    found: list[BaseRoute] = []
    for each in operations:
        endpoint: Endpoint = getattr(room, each.endpoint)
        if each.who is Who.OPERATOR:
            assert guard is not None, each.path
            endpoint = guard(endpoint, each.least)
        found.append(Route(each.path, endpoint, methods=[each.method]))
    return found
