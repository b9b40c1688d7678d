"""The first page: how the business goes, over a chosen time, with figures that move. The rule: what the stream sends
are the very texts that the page was written with; whoever has no JavaScript reloads."""

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from gatekeeper.errors import Code, Refusal
from gatekeeper.money import dollars_to_nano
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import Activity, Overview, SpendBy
from gatekeeper.rules.windows import DAY_MS, HOUR_MS
from gatekeeper.web.gate import DASHBOARD
from gatekeeper.web.pages import formats
from gatekeeper.web.pages.desk import Desk
from gatekeeper.web.pages.live import Hub
from gatekeeper.web.pages.processes import added_ms, at_most, open_calls
from gatekeeper.web.pages.rendering import HEADERS

_MINUTE_MS = 60_000
# (a point of the charts, how many of them). Whole hours read sums that are made already.
RANGES: dict[str, tuple[int, int]] = {
    "1h": (_MINUTE_MS, 60),
    "24h": (HOUR_MS, 24),
    "7d": (3 * HOUR_MS, 56),
    "30d": (DAY_MS, 30),
}
USUAL = "24h"
DAYS_MAX = 400
TOP = 8
_CUSTOM_HOURS_MAX = 3 * DAY_MS


@dataclass(frozen=True, slots=True)
class Span:
    """A time that is looked at: ``name`` is one of RANGES, or custom."""

    name: str
    start_ms: int
    end_ms: int
    step_ms: int


@dataclass(frozen=True, slots=True)
class Seen:
    """All that the page shows of a time."""

    overview: Overview
    told: Sequence[Mapping[str, Any]]
    series: Sequence[tuple[int, Activity]]


class OverviewPages:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self.hub = Hub(self.told, desk.clock)

    async def show(self, request: Request) -> Response:
        """``?range=1h|24h|7d|30d``, or ``?start=&end=`` (days, UTC, both counted)."""
        desk, now_ms = self._desk, self._desk.clock.now_ms()
        span, said = span_of({}, now_ms), None
        try:
            span = span_of(dict(request.query_params), now_ms)
        except Refusal as refusal:
            said = refusal.public
        seen = await self._seen(span)
        bounds = (span.start_ms, span.end_ms)
        first = await desk.store.customers(limit=1)
        query = request.query_params
        return desk.answer(
            request,
            "overview.html",
            200 if said is None else 400,
            said=said,
            span=span,
            ranges=[(name, _WORDS[name]) for name in RANGES],
            start=query.get("start", "") if span.name == "custom" else formats.instant(span.start_ms, "%Y-%m-%d"),
            end=query.get("end", "") if span.name == "custom" else formats.instant(now_ms, "%Y-%m-%d"),
            texts=texts_of(seen),
            charts=charts_of(seen, span),
            series=seen.series,
            total=seen.overview.total,
            monthly_nano=await self._monthly_nano(),
            customers=await desk.store.breakdown(SpendBy.CUSTOMER, Scope.GLOBAL, "", *bounds, limit=TOP),
            models=await desk.store.breakdown(SpendBy.MODEL, Scope.GLOBAL, "", *bounds, limit=TOP),
            has_customers=bool(first),
        )

    async def live(self, request: Request) -> Response:
        """``?range=``: the same figures as a stream, whenever they change."""
        name = request.query_params.get("range", USUAL)
        if name not in RANGES:
            raise Refusal(Code.BAD_REQUEST, f"range is one of {', '.join(RANGES)}.")
        headers = {**HEADERS, "x-accel-buffering": "no"}
        if request.method == "HEAD":
            return Response(headers=headers, media_type="text/event-stream")
        gate = self._desk.gate
        stream = self.hub.open(name, lambda: gate.is_still_in(request, DASHBOARD))
        return StreamingResponse(stream, headers=headers, media_type="text/event-stream")

    async def told(self, name: str) -> str:
        """What the stream of a range sends: one JSON object in one line. Raises Fault."""
        span = span_of({"range": name}, self._desk.clock.now_ms())
        seen = await self._seen(span)
        return orjson.dumps({"texts": texts_of(seen), "charts": charts_of(seen, span)}).decode()

    async def _seen(self, span: Span) -> Seen:
        store = self._desk.store
        return Seen(
            await store.overview(span.start_ms, span.end_ms),
            self._desk.processes(),
            await store.series(Scope.GLOBAL, "", span.start_ms, span.end_ms, span.step_ms),
        )

    async def _monthly_nano(self) -> int:
        """The monthly prices of all customers that are not disabled, as they are now."""
        plans = self._desk.gateway().plans
        found = await self._desk.store.customers_by_plan()
        return sum(dollars_to_nano(plans[name].monthly_price) * count for name, count in found.items() if name in plans)


_WORDS = {"1h": "1 hour", "24h": "24 hours", "7d": "7 days", "30d": "30 days"}


def span_of(query: dict[str, str], now_ms: int) -> Span:
    """The time that a query asks for. Raises Refusal."""
    if "start" in query or "end" in query:
        return _custom(query, now_ms)
    name = query.get("range", USUAL)
    if name not in RANGES:
        raise Refusal(Code.BAD_REQUEST, f"The time is one of {', '.join(RANGES)}, or two days.")
    step_ms, points = RANGES[name]
    start_ms = now_ms // step_ms * step_ms - (points - 1) * step_ms
    # A whole step, so that the figures of a second are those of the page a second ago.
    return Span(name, start_ms, start_ms + points * step_ms, step_ms)


def _custom(query: dict[str, str], now_ms: int) -> Span:
    today = formats.instant(now_ms, "%Y-%m-%d")
    try:
        first = dt.date.fromisoformat(query.get("start") or today)
        last = dt.date.fromisoformat(query.get("end") or today)
    except ValueError as cause:
        raise Refusal(Code.BAD_REQUEST, "From and to are days, YYYY-MM-DD.") from cause
    if not 1970 <= first.year <= last.year < 9999 or last < first:
        raise Refusal(Code.BAD_REQUEST, "The time ends before it begins.")
    if (last - first).days >= DAYS_MAX:
        raise Refusal(Code.BAD_REQUEST, f"At most {DAYS_MAX} days are looked at at once.")
    epoch = dt.date(1970, 1, 1).toordinal()
    start_ms, end_ms = (first.toordinal() - epoch) * DAY_MS, (last.toordinal() + 1 - epoch) * DAY_MS
    return Span("custom", start_ms, end_ms, HOUR_MS if end_ms - start_ms <= _CUSTOM_HOURS_MAX else DAY_MS)


def texts_of(seen: Seen) -> dict[str, str]:
    """Every figure of the page as it is shown, by name."""
    total, overview = seen.overview.total, seen.overview
    return {
        "requests": formats.count(total.requests),
        "units": formats.units(total.units_micro),
        "cost": formats.dollars(total.cost_nano),
        "revenue": formats.dollars(total.charge_nano),
        "margin": formats.dollars(total.margin_nano),
        "margin_share": formats.percent(total.margin_nano, total.charge_nano) + " of revenue"
        if total.charge_nano
        else "",
        "errors": formats.percent(total.errors, total.requests),
        "errors_count": f"{formats.count(total.errors)} failed or refused" if total.requests else "",
        "guessed": formats.percent(total.guessed, total.read),
        "guessed_count": f"{formats.count(total.guessed)} not measured" if total.requests else "",
        "p50": formats.millis(overview.wait_p50_ms),
        "p99": formats.millis(overview.wait_p99_ms),
        "added": at_most(added_ms(seen.told, 50)),
        "added_p99": at_most(added_ms(seen.told, 99)),
        "open": formats.count(open_calls(seen.told)),
    }


def charts_of(seen: Seen, span: Span) -> dict[str, Any]:
    """The points of each chart, by id."""
    rows = [row for _, row in seen.series]
    xs = [at_ms // 1000 for at_ms, _ in seen.series]

    def chart(unit: str, *lines: tuple[str, str, list[float | None]]) -> dict[str, Any]:
        found = [{"label": label, "kind": kind, "values": values} for label, kind, values in lines]
        return {"x": xs, "unit": unit, "step": span.step_ms // 1000, "series": found}

    return {
        "requests": chart(
            "count",
            ("Requests", "bars", [row.requests for row in rows]),
            ("Failed or refused", "bars", [row.errors for row in rows]),
        ),
        "money": chart(
            "dollars",
            ("Revenue by use", "line", [row.charge_nano / 1e9 for row in rows]),
            ("Provider's cost", "line", [row.cost_nano / 1e9 for row in rows]),
        ),
        "units": chart("units", ("Units", "bars", [row.units_micro / 1e6 for row in rows])),
        "waits": chart(
            "ms",
            ("First byte, mean", "line", [row.first_byte_ms / row.answered if row.answered else None for row in rows]),
        ),
    }
