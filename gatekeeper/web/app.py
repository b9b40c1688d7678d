"""The only list of URLs. Starlette is the application; configured routes go to the raw endpoint before it."""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.routing import Match as Found
from starlette.types import Receive, Scope, Send

from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.ports import Store
from gatekeeper.rules.billing import Backlog
from gatekeeper.rules.routing import Choice, Match, NoMethod
from gatekeeper.version import __version__
from gatekeeper.web.answers import json_answer, refusal_answer
from gatekeeper.web.calls import NEVER, Calls, dialect_of, no_method
from gatekeeper.web.openapi import Endpoint, routes_of
from gatekeeper.web.openapi.operating import OPEN
from gatekeeper.web.pages.rendering import Pages, wants_page
from gatekeeper.web.problems import internal

log = logging.getLogger("gatekeeper.web")

# URLs of ours that a prefix route (`/v1/*`) may cover: ours win.
OWN_PATHS = frozenset({b"/v1/usage", b"/v1/models", b"/v1/budget", b"/v1/spend", b"/healthz", b"/readyz", b"/metrics"})
OWN_PREFIXES = (
    b"/admin/", b"/auth/", b"/v1/requests/", b"/portal", b"/dashboard", b"/playground", b"/webhook",
    b"/v1/webhooks/", b"/api/webhooks/",
)  # fmt: skip


class Room(Protocol):
    """Something with URLs."""

    def routes(self) -> list[BaseRoute]:
        """Its URLs."""
        ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the application is built from."""

    calls: Calls
    # Everything with URLs of its own.
    rooms: Sequence[Room]
    store: Store
    lifespan: Callable[[], AbstractAsyncContextManager[None]]
    accepting: Callable[[], bool] = lambda: True
    # What is still to be told to the biller, and the present instant; None: nobody is told.
    backlog: Callable[[], Awaitable[tuple[Backlog, int]]] | None = None
    # Refusals on URLs for people; None: they are JSON there too.
    pages: Pages | None = None


class Application(Starlette):
    """Starlette with the data path in front: a call on a configured route passes none of its layers."""

    def __init__(self, parts: Parts) -> None:
        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with parts.lifespan():
                yield

        super().__init__(
            routes=_routes(parts),
            lifespan=lifespan,
            exception_handlers={Refusal: _refused, Fault: _faulted, Exception: _failed},
        )
        # What is no path at all: `OPTIONS *`.
        self.router.default = _Unknown()
        self.pages = parts.pages
        self._calls = parts.calls
        self._accepting = parts.accepting

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI entry."""
        if scope["type"] == "http":
            path: bytes = scope.get("raw_path") or scope["path"].encode()
            if path not in OWN_PATHS and not path.startswith(OWN_PREFIXES):
                match = self._calls.match(scope)
                if isinstance(match, Match):
                    await self._calls.serve(scope, receive, send, match)
                    return
                if isinstance(match, Choice):
                    await self._calls.serve(scope, receive, send, match.candidates[0], match.candidates)
                    return
                scope["gatekeeper.match"] = match
        await super().__call__(scope, receive, send)


def _routes(parts: Parts) -> list[BaseRoute]:
    async def ready(request: Request) -> Response:
        if not parts.accepting():
            raise Refusal(Code.SHUTTING_DOWN)
        await parts.store.ping()
        if parts.backlog is None:
            return json_answer({"ready": True})
        # A biller that is away is no reason to turn calls away: what is owed waits, and is told as that.
        backlog, now_ms = await parts.backlog()
        outbox = {
            "waiting": backlog.waiting,
            "dead": backlog.dead,
            "oldest_s": backlog.age_s(now_ms),
            "behind": backlog.is_behind(now_ms),
        }
        return json_answer({"ready": True, "outbox": outbox})

    return [
        *routes_of([each for each in OPEN if each.endpoint in ("health", "ready")], _Open(ready)),
        *(route for room in parts.rooms for route in room.routes()),
        Route("/{path:path}", _Unknown()),
    ]


class _Open:
    """What anybody may ask."""

    def __init__(self, ready: Endpoint) -> None:
        self.ready = ready

    async def health(self, request: Request) -> Response:
        """This process answers."""
        return json_answer({"status": "ok", "version": __version__})


class _Unknown:
    """An ASGI endpoint, because Starlette lets a function take GET only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope)
        match = scope.get("gatekeeper.match")
        methods = set(match.allowed) if isinstance(match, NoMethod) else _own_methods(request)
        if request.method in NEVER:
            raise no_method(request.method, frozenset(methods))
        if methods:
            allowed = ", ".join(sorted(methods))
            raise Refusal(Code.METHOD_NOT_ALLOWED, f"The route takes {allowed} only.", headers=(("Allow", allowed),))
        raise Refusal(Code.UNKNOWN_ROUTE, hint="the routes are declared in gateway.toml under [[routes]]")


def _own_methods(request: Request) -> set[str]:
    """What the URLs of ours with this path take: the catch-all route hides from Starlette that there are any."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.methods and route.matches(request.scope)[0] is Found.PARTIAL:
            found |= route.methods
    return found


async def _refused(request: Request, refusal: Exception) -> Response:
    assert isinstance(refusal, Refusal)
    if refusal.private:
        log.warning("%s refused: %s: %s", request.url.path, refusal.code, refusal.private)
    return _refusing(request, refusal)


async def _faulted(request: Request, fault: Exception) -> Response:
    log.error("%s: %s", request.url.path, fault)
    return _refusing(request, Refusal(Code.LEDGER_UNAVAILABLE))


async def _failed(request: Request, error: Exception) -> Response:
    return _refusing(request, internal(None))


def _refusing(request: Request, refusal: Refusal) -> Response:
    """For people a page, for programs their dialect."""
    pages: Pages | None = request.app.pages
    if pages is not None and wants_page(request):
        return pages.refused(request, refusal)
    return refusal_answer(refusal, dialect_of(request.url.path))
