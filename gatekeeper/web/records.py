"""The operator's look at single calls: found by what they have in common, shown, and explained to the digit."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.explanation import explained
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import RecordFilter, Store
from gatekeeper.web.answers import json_answer
from gatekeeper.web.asked import limit_of, time_of
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.spending import RECORDS
from gatekeeper.web.usage import record_json

# A cursor: when a call began, and its id, or none where only a part was looked at.
_CURSOR = re.compile(r"([0-9]{1,18})-([!-~]{0,200})")
_FOR_EVER_MS = 2**62


@dataclass(frozen=True, slots=True)
class Records:
    """Endpoints; each raises Refusal."""

    store: Store
    gateway: Callable[[], Gateway]
    clock: Clock
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(RECORDS, self, self.guard)

    async def list_requests(self, request: Request) -> Response:
        """Latest first; ``?customer_id=`` and the others narrow, ``?since_ms=&before_ms=`` bound. A page may have fewer
        than its limit, even none, and yet a next one: of so many records only a part is looked at each time."""
        limit = limit_of(request)
        found = await self.store.search_records(read_filter(request), after=_after(request), limit=limit)
        return json_answer(
            {
                "requests": [record_json(row, operator=True) for row in found.records],
                "next": None if found.next is None else f"{found.next[0]}-{found.next[1]}",
            }
        )

    async def get_request(self, request: Request) -> Response:
        """One record, with the tries that did not serve it."""
        record = await self.store.record(request.path_params["call_id"])
        if record is None:
            raise _unknown()
        attempts = await self.store.attempts(record.call_id)
        return json_answer(record_json(record, operator=True, attempts=attempts))

    async def explain_request(self, request: Request) -> Response:
        """As ``gatekeeper explain --json``: also of a call in flight."""
        told = await explained(self.store, self.gateway(), request.path_params["call_id"], self.clock.now_ms())
        if told is None:
            raise _unknown()
        return json_answer(told)


def read_filter(request: Request) -> RecordFilter:
    """Which records the query asks for. Raises Refusal."""
    query = request.query_params
    status, since_ms, before_ms = query.get("status"), time_of(request, "since_ms"), time_of(request, "before_ms")
    if status is not None and not re.fullmatch(r"[1-5](?:[0-9]{2}|xx)", status):
        raise Refusal(Code.BAD_REQUEST, "status is an HTTP status, as in 200, or a class of them, as in 4xx.")
    for name, kinds in (("outcome", tuple(Outcome)), ("source", tuple(Mark))):
        if name in query and query[name] not in kinds:
            raise Refusal(Code.BAD_REQUEST, f"{name} is one of {', '.join(kinds)}.")
    return RecordFilter(
        customer_id=query.get("customer_id"),
        key_id=query.get("key_id"),
        user_id=query.get("user_id"),
        agent_id=query.get("agent_id"),
        route=query.get("route"),
        model=query.get("model"),
        plan_id=query.get("plan"),
        outcome=query.get("outcome"),
        source=query.get("source"),
        status=None if status is None or status.endswith("xx") else int(status),
        status_class=int(status[0]) if status is not None and status.endswith("xx") else None,
        call_id=query.get("id"),
        start_ms=since_ms or 0,
        end_ms=_FOR_EVER_MS if before_ms is None else before_ms,
    )


def _after(request: Request) -> tuple[int, str] | None:
    written = request.query_params.get("after")
    if written is None:
        return None
    found = _CURSOR.fullmatch(written)
    if found is None:
        raise Refusal(Code.BAD_REQUEST, "after is the next of the page before.")
    return int(found[1]), found[2]


def _unknown() -> Refusal:
    return Refusal(Code.NOT_FOUND, "There is no such request.")
