"""What a customer has used, and what is left: figures, limits as bars, days; and the same for a table program."""

import csv
import io
from collections.abc import AsyncIterator

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gatekeeper.errors import Code, Refusal
from gatekeeper.money import dollars_text, units_text
from gatekeeper.ports import Customer, Entry
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import SpendBy, Spent
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.web.pages.customer import limit_bars
from gatekeeper.web.pages.formats import instant
from gatekeeper.web.pages.series import day_series
from gatekeeper.web.portal.desk import PortalDesk
from gatekeeper.web.usage import day_of, period_bounds

RANGES = {"7d": 7, "30d": 30, "90d": 90}
PARTS = (SpendBy.MODEL, SpendBy.KEY, SpendBy.USER, SpendBy.AGENT, SpendBy.ROUTE)
ROWS = 12
CSV_ROWS_MAX = 10_000
_PAGE = 1_000
_BY = (SpendBy.DAY, *PARTS)
_CALLS = "request"
# What a table program takes for a formula (OWASP, "CSV Injection"): names are chosen by whoever calls.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")


class Home:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, portal: PortalDesk) -> None:
        self._portal = portal

    async def overview(self, request: Request) -> Response:
        """This month, the limits, and the last 30 days."""
        customer, desk = await self._portal.customer(request), self._portal.desk
        now_ms = desk.clock.now_ms()
        start_ms, end_ms = period_bounds({"period": "current_month"}, now_ms)
        days_ms = now_ms // DAY_MS * DAY_MS - 29 * DAY_MS
        days = await desk.store.spend_by(SpendBy.DAY, Scope.CUSTOMER, customer.id, days_ms, now_ms + DAY_MS, limit=31)
        keys = await desk.store.keys(customer.id, limit=1)
        return self._portal.answer(
            request,
            "home.html",
            customer=customer,
            plan=desk.gateway().plans.get(customer.plan_id),
            bars=await limit_bars(desk, customer),
            total=await desk.store.spend_total(Scope.CUSTOMER, customer.id, start_ms, end_ms),
            standing=await desk.store.standing(customer.id),
            days=days,
            has_keys=bool(keys),
            units=day_series(days, days_ms, now_ms, [("Units", lambda row: row.units_micro / 1e6, "bars")], "units"),
        )

    async def usage(self, request: Request) -> Response:
        """``?range=7d|30d|90d``: by day, model, key, user, agent and route."""
        customer, desk = await self._portal.customer(request), self._portal.desk
        chosen = request.query_params.get("range", "30d")
        if chosen not in RANGES:
            raise Refusal(Code.BAD_REQUEST, f"range is one of {', '.join(RANGES)}.")
        now_ms = desk.clock.now_ms()
        start_ms = now_ms // DAY_MS * DAY_MS - (RANGES[chosen] - 1) * DAY_MS
        who = (Scope.CUSTOMER, customer.id, start_ms, now_ms + 1)
        days = await desk.store.spend_by(SpendBy.DAY, *who, limit=RANGES[chosen] + 1)
        parts = [(by.value, await desk.store.spend_by(by, *who, limit=ROWS)) for by in PARTS]
        money = [("Charged", lambda row: row.charge_nano / 1e9, "line")]
        return self._portal.answer(
            request,
            "usage.html",
            customer=customer,
            chosen=chosen,
            ranges=list(RANGES),
            days=days,
            total=await desk.store.spend_total(*who),
            parts=parts,
            by=[*(by.value for by in _BY), _CALLS],
            first=day_of(start_ms),
            last=day_of(now_ms),
            units=day_series(days, start_ms, now_ms, [("Units", lambda row: row.units_micro / 1e6, "bars")], "units"),
            money=day_series(days, start_ms, now_ms, money, "dollars"),
        )

    async def as_csv(self, request: Request) -> Response:
        """``?by=day|model|key|user|agent|route|request`` and a period as ``/v1/usage`` has it (RFC 4180)."""
        customer, desk = await self._portal.customer(request), self._portal.desk
        query = dict(request.query_params)
        by = query.pop("by", SpendBy.DAY)
        if by not in (*_BY, _CALLS):
            raise Refusal(Code.BAD_REQUEST, f"by is one of {', '.join((*_BY, _CALLS))}.")
        period = {name: text for name, text in query.items() if name in ("period", "start", "end")}
        start_ms, end_ms = period_bounds(period, desk.clock.now_ms())
        headers = {
            "content-disposition": f'attachment; filename="usage-{by}-{day_of(start_ms)}-{day_of(end_ms - 1)}.csv"',
            "cache-control": "no-store",
            "x-content-type-options": "nosniff",
        }
        if by == _CALLS:
            calls = self._calls(customer, start_ms, end_ms)
            return StreamingResponse(calls, headers=headers, media_type="text/csv; charset=utf-8")
        rows = await desk.store.spend_by(SpendBy(by), Scope.CUSTOMER, customer.id, start_ms, end_ms, limit=CSV_ROWS_MAX)
        text = _lines([(by, "requests", "units", "charge_usd"), *map(_row, rows)])
        return Response(text, headers=headers, media_type="text/csv; charset=utf-8")

    async def _calls(self, customer: Customer, start_ms: int, end_ms: int) -> AsyncIterator[str]:
        """Every record, a page at a time. One that corrects another has the difference."""
        head = ("id", "corrects", "started", "key", "user", "agent", "route", "model", "outcome", "source", "units")
        yield _lines([(*head, "charge_usd")])
        after: tuple[int, str] | None = None
        while True:
            page = await self._portal.desk.store.history(customer.id, start_ms, end_ms, after=after, limit=_PAGE)
            yield _lines([_call(entry) for entry in page])
            if len(page) < _PAGE:
                return
            after = (page[-1].record.started_ms, page[-1].record.call_id)


def _row(row: Spent) -> tuple[str, ...]:
    return (row.part or "", str(row.requests), units_text(row.units_micro), dollars_text(row.charge_nano))


def _call(entry: Entry) -> tuple[str, ...]:
    record = entry.record
    started = instant(record.started_ms, "%Y-%m-%dT%H:%M:%S") + f".{record.started_ms % 1000:03}Z"
    names = (record.key_id, record.user_id, record.agent_id, record.route, record.model)
    figures = (record.outcome, record.source, units_text(record.units_micro), dollars_text(record.charge_nano))
    return (record.call_id, entry.corrects or "", started, *(name or "" for name in names), *figures)


def _lines(rows: list[tuple[str, ...]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    for row in rows:
        writer.writerow([harmless(value) for value in row])
    return text.getvalue()


def harmless(value: str) -> str:
    """A text that no table program runs; a negative number stays one."""
    if value.startswith(_FORMULA) and not _is_number(value):
        return "'" + value
    return value


def _is_number(value: str) -> bool:
    return value.startswith("-") and value[1:].replace(".", "", 1).isdigit()
