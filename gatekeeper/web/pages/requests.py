"""Single calls on the dashboard: found by what they have in common, and each charge explained with its evidence."""

import datetime as dt
import json
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.errors import Code, Refusal
from gatekeeper.explanation import explained
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import RecordFilter, RecordsFound
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.web.pages.desk import PAGE_ROWS, Desk, with_query

HERE = "/dashboard/requests"
# A slot may hold 16 KiB; the page shows the beginning, the admin API all of it.
EVIDENCE_LETTERS_MAX = 4_000
_TEXTS = ("customer_id", "model", "route", "agent_id", "user_id", "key_id")
_CURSOR = re.compile(r"([0-9]{1,18})-([!-~]{1,200})")
_FOR_EVER_MS = 2**62


class RequestPages:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def listing(self, request: Request) -> Response:
        """Latest first; a filter that cannot be read is said so, and nothing is looked for."""
        query = {name: value.strip() for name, value in request.query_params.items()}
        found, said = RecordsFound([], None), None
        try:
            wanted, after = _filter(query), _after(query.get("after", ""))
            found = await self._desk.store.search_records(wanted, after=after, limit=PAGE_ROWS)
        except Refusal as refusal:
            said = refusal.public
        shown = {name: value for name, value in query.items() if name not in ("after", "done")}
        following = None if found.next is None else with_query(HERE, shown, after=f"{found.next[0]}-{found.next[1]}")
        return self._desk.answer(
            request,
            "requests.html",
            200 if said is None else 400,
            rows=found.records,
            query={name: shown.get(name, "") for name in (*_TEXTS, "outcome", "source", "status", "since", "until")},
            is_filtered=any(shown.values()),
            following=following,
            said=said,
            outcomes=[("", "any outcome"), *((each.value, each.value.replace("_", " ")) for each in Outcome)],
            sources=[("", "any mark"), *((each.value, each.value) for each in Mark)],
            routes=[("", "all routes"), *((route.name, route.name) for route in self._desk.gateway().router.routes)],
        )

    async def show(self, request: Request) -> Response:
        """Why a call cost what it cost."""
        call_id = request.path_params["call_id"]
        told = await explained(self._desk.store, self._desk.gateway(), call_id, self._desk.clock.now_ms())
        if told is None:
            raise Refusal(
                Code.NOT_FOUND,
                f"There is no request {call_id[:64]!r}.",
                hint="a call appears here while it runs, and for good when it has ended",
            )
        if "in_flight" in told:
            return self._desk.answer(request, "request_flying.html", told=told)
        return self._desk.answer(request, "request.html", told=told, shown=_shown)


def _shown(value: Any) -> str:
    """Evidence as text."""
    text = json.dumps(value, ensure_ascii=False, indent=1 if isinstance(value, dict) and len(value) > 3 else None)
    return text if len(text) <= EVIDENCE_LETTERS_MAX else text[:EVIDENCE_LETTERS_MAX] + " …"


def _filter(query: dict[str, str]) -> RecordFilter:
    """Which records are asked for. Raises Refusal."""
    status = query.get("status") or None
    if status is not None and not re.fullmatch(r"[1-5][0-9]{2}", status):
        raise Refusal(Code.BAD_REQUEST, "Status is an HTTP status, as in 200.")
    for name, kinds in (("outcome", tuple(Outcome)), ("source", tuple(Mark))):
        if query.get(name) and query[name] not in kinds:
            raise Refusal(Code.BAD_REQUEST, f"{name} is one of {', '.join(kinds)}.")
    until_ms = _day_ms(query, "until")
    return RecordFilter(
        customer_id=query.get("customer_id") or None,
        model=query.get("model") or None,
        route=query.get("route") or None,
        agent_id=query.get("agent_id") or None,
        user_id=query.get("user_id") or None,
        key_id=query.get("key_id") or None,
        outcome=query.get("outcome") or None,
        source=query.get("source") or None,
        status=None if status is None else int(status),
        start_ms=_day_ms(query, "since") or 0,
        end_ms=_FOR_EVER_MS if until_ms is None else until_ms + DAY_MS,
    )


def _day_ms(query: dict[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    try:
        day = dt.date.fromisoformat(text)
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, f"{name.capitalize()} is a day, YYYY-MM-DD.") from cause
    return (day.toordinal() - dt.date(1970, 1, 1).toordinal()) * DAY_MS


def _after(text: str) -> tuple[int, str] | None:
    if not text:
        return None
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise Refusal(Code.BAD_REQUEST, "That is no page of this list.")
    return int(found[1]), found[2]
