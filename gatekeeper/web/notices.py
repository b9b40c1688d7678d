"""Who is told what, and how that went: ``/admin/notifications``, as ``gatekeeper events``. The rule: no secret, and no
URL, which may hold a token; of a target only the host is shown."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway, MailTarget, Notification
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Store
from gatekeeper.rules.notices import Delivery, Event
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import limit_of, only, page, take
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.operating import NOTICES

STATES = ("waiting", "sent", "dead")
_CURSOR = re.compile(r"([0-9]{1,18})/([!-~]{1,200})/([ -~]{1,200})")


@dataclass(frozen=True, slots=True)
class Notices:
    """Endpoints; each raises Refusal."""

    store: Store
    gateway: Callable[[], Gateway]
    clock: Clock
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(NOTICES, self, self.guard)

    async def list_targets(self, request: Request) -> Response:
        """Who is told, as declared."""
        declared = self.gateway().notifications
        return json_answer({"targets": [target_json(each) for each in declared], "next": None})

    async def list_deliveries(self, request: Request) -> Response:
        """``?state=&target=&event=&after=&limit=``, the latest event first."""
        query, limit = request.query_params, limit_of(request)
        if query.get("state", "waiting") not in STATES:
            raise Refusal(Code.BAD_REQUEST, f"state is one of {', '.join(STATES)}.")
        rows = await self.store.deliveries(
            event_id=query.get("event"),
            state=query.get("state"),
            target=query.get("target"),
            after=_after(query.get("after")),
            limit=limit + 1,
        )
        return json_answer(page("deliveries", rows, limit, delivery_json, _cursor))

    async def get_event(self, request: Request) -> Response:
        """An event, and how its deliveries stand."""
        event = await self._found(request.path_params["event_id"])
        deliveries = await self.store.deliveries(event_id=event.id)
        return json_answer({**event_json(event), "deliveries": [delivery_json(each) for each in deliveries]})

    async def retry_event(self, request: Request) -> Response:
        """``{"target"?}``: send an event again, at once, to whom it was given up or waits after a failure."""
        target = take(only(await json_body(request), "target"), "target", str)
        event = await self._found(request.path_params["event_id"])
        count = await self.store.retry(self.clock.now_ms(), event_id=event.id, target=target)
        return json_answer({"retried": count})

    async def retry_deliveries(self, request: Request) -> Response:
        """``{"target"?}``: send again everything that was given up."""
        target = take(only(await json_body(request), "target"), "target", str)
        return json_answer({"retried": await self.store.retry(self.clock.now_ms(), target=target)})

    async def _found(self, event_id: str) -> Event:
        event = await self.store.event(event_id)
        if event is None:
            hint = "what was sent is forgotten after 7 days"
            raise Refusal(Code.NOT_FOUND, f"There is no event {event_id[:64]!r}.", hint=hint)
        return event


def target_json(notification: Notification) -> dict[str, Any]:
    """Who is told what, without how it is proven and where exactly it is sent."""
    subscription, target = notification.subscription, notification.target
    if isinstance(target, MailTarget):
        kind, host = "mail", target.server.host
    else:
        kind, host = "webhook", urlsplit(target.url.reveal()).hostname or ""
    return {
        "name": subscription.target,
        "kind": kind,
        "host": host,
        "events": sorted(each.removeprefix("gatekeeper.") for each in subscription.kinds),
        "thresholds": list(subscription.thresholds),
        "to_customers": subscription.of_customers,
    }


def event_json(event: Event) -> dict[str, Any]:
    """An event for machines."""
    return {
        "id": event.id,
        "kind": event.kind,
        "customer_id": event.customer_id,
        "created_ms": event.created_ms,
        "content": dict(event.content),
    }


def delivery_json(one: Delivery) -> dict[str, Any]:
    """How an event stands with one target."""
    return {
        "event": one.event.id,
        "kind": one.event.kind,
        "customer_id": one.event.customer_id,
        "created_ms": one.event.created_ms,
        "target": one.target,
        "state": one.state,
        "attempts": one.attempts,
        "next_ms": one.next_ms,
        "sent_ms": one.sent_ms,
        "error": one.error,
    }


def _cursor(one: Delivery) -> str:
    return f"{one.event.created_ms}/{one.event.id}/{one.target}"


def _after(written: str | None) -> tuple[int, str, str] | None:
    if written is None:
        return None
    found = _CURSOR.fullmatch(written)
    if found is None:
        raise Refusal(Code.BAD_REQUEST, "after is the next of the page before.")
    return int(found[1]), found[2], found[3]
