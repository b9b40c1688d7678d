"""Limits on the dashboard: listed with their state, made, changed, begun anew, taken away. The rule: a form carries the
state that it was made of (as If-Match does); where somebody else has changed it since, nothing is overwritten, and the
page shows both."""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.errors import Code, LimitState, Refusal
from gatekeeper.money import amount_text
from gatekeeper.overlays import Change, Wish, whole_shape
from gatekeeper.rules.declared import EACH, is_one
from gatekeeper.rules.latches import mistake
from gatekeeper.rules.limits import (
    DOLLARS,
    REQUESTS,
    SCOPES,
    UNITS,
    Mode,
    RateLimit,
    Release,
    StockLimit,
    Window,
    scope_named,
)
from gatekeeper.rules.overlays import Standing
from gatekeeper.web.budgets import found_limits, limit_states, parse_cap
from gatekeeper.web.gate import note
from gatekeeper.web.pages.desk import Desk, is_asked_wrongly, seen_other
from gatekeeper.web.pages.forms import Form, read_form

SHOWN_MAX = 300
HERE = "/dashboard/budgets"
_FIELDS = (
    ("cap", r"^cap|above 0"),
    ("scope", r"^scope|no pair of scopes"),
    ("release", r"^release|or release"),
    ("subject", r"^subject|^There is no|^A [a-z,]+ is named|no subjects|must say|counts pairs"),
    ("window", r"window|per_ms|zone"),
    ("dimension", r"^dimension"),
    ("mode", r"mode"),
    ("name", r"^name|^Another limit"),
)
_MODES = (
    (Mode.BLOCK.value, "refuse calls"),
    (Mode.SOFT.value, "a cheaper model first, then refuse"),
    (Mode.WARN.value, "only warn"),
)
_WAITS = Release.BILLING_PERIOD
_RELEASES = (
    (Release.WINDOW.value, "when its window turns"),
    (Release.BILLING_PERIOD.value, "when the billing period turns"),
)
_SCOPES = tuple((each.value, each.value.replace(",", " and ")) for each in SCOPES)
# How a rate is chosen among the windows.
_RATES = {"per_second": 1_000, "per_minute": 60_000, "per_hour": 3_600_000}


@dataclass(frozen=True, slots=True)
class Row:
    """A limit as it is listed: ``bar`` for the one subject that it counts, None where it counts each by itself.
    ``closed_ms`` is until when it stays closed because its cap was hit."""

    standing: Standing
    bar: LimitState | None
    closed_ms: int | None = None

    @property
    def url(self) -> str:
        """Its page."""
        return limit_url(self.standing.id)


def limit_url(limit_id: str) -> str:
    """The page of a limit."""
    return f"{HERE}/{quote(limit_id, safe='')}"


class LimitPages:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def listing(self, request: Request) -> Response:
        """``?scope=&subject=``: all that stands, or what holds for one."""
        await self._desk.limits.refresh()
        query = request.query_params
        scope, subject, said = query.get("scope", ""), query.get("subject", "").strip(), None
        try:
            chosen = scope_named(scope) if scope else None
            found = await found_limits(self._desk.limits, chosen, subject or None)
        except ValueError:
            found, said = [], f"There is no scope {scope[:40]!r}."
        except Refusal as refusal:
            found, said = [], refusal.public
        rows = await self._rows(found[:SHOWN_MAX], subject or None)
        return self._desk.answer(
            request,
            "budgets.html",
            rows=rows,
            said=said,
            scope=scope,
            subject=subject,
            scopes=[("", "all scopes"), *_SCOPES],
            more=len(found) > SHOWN_MAX,
        )

    async def new(self, request: Request) -> Response:
        """The empty form; the query may fill in whose limit it is to be."""
        query = request.query_params
        usual = {"scope": query.get("scope", "customer"), "subject": query.get("subject", "")}
        return self._new_page(request, Form(usual))

    async def create(self, request: Request) -> Response:
        """Set a limit."""
        form = await read_form(request)
        try:
            made = await self._desk.limits.create(_wish(form))
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return self._new_page(request, form.blamed(refusal, _FIELDS), refusal.status)
        note(request, subject=made.id, after=_shown(made))
        return seen_other(limit_url(made.id), done="limit")

    async def show(self, request: Request) -> Response:
        """One limit, with the forms that change it."""
        await self._desk.limits.refresh()
        return await self._page(request, None)

    async def change(self, request: Request) -> Response:
        """Another cap, mode or name, where nobody else was quicker."""
        form, name = await read_form(request), request.path_params["limit_id"]
        before = self._desk.limits.find(name)
        dimension, is_rate = before.declared.limit.dimension, not isinstance(before.declared.limit, StockLimit)
        try:
            change = Change(
                new_cap=True,
                cap=parse_cap(dimension, form.get("cap").replace(",", "") or None),
                mode=None if is_rate else form.get("mode") or None,
                name=form.get("name") or None,
                release=None if is_rate else form.get("release") or None,
            )
            after = await self._desk.limits.change(name, change, tag=form.get("tag") or None)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            await self._desk.limits.refresh()
            stale = refusal.code is Code.CONFLICT and self._desk.limits.find(name).tag != form.get("tag")
            told = form if stale else form.blamed(refusal, _FIELDS)
            return await self._page(request, told, refusal.status, is_stale=stale)
        note(request, before=_shown(before), after=_shown(after))
        return seen_other(limit_url(name), done="limit")

    async def remove(self, request: Request) -> Response:
        """Take an operator's limit away."""
        form, name = await read_form(request), request.path_params["limit_id"]
        before = self._desk.limits.find(name)
        try:
            left = await self._desk.limits.remove(name, tag=form.get("tag") or None)
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            return await self._page(request, Form({}, {}, refusal.public, refusal.hint), refusal.status)
        note(request, before=_shown(before), after=None if left is None else _shown(left))
        return seen_other(HERE if left is None else limit_url(name), done="removed")

    async def reset(self, request: Request) -> Response:
        """Begin the count of one subject anew."""
        form, name = await read_form(request), request.path_params["limit_id"]
        subject = _subject(form, self._desk.limits.find(name).scope)
        try:
            key = await self._desk.limits.reset(name, subject or None, form.get("reason"))
        except Refusal as refusal:
            if not is_asked_wrongly(refusal):
                raise
            field = "reason" if refusal.public.startswith("reason") else "subject"
            return await self._page(request, form.wrong(field, refusal.public), refusal.status)
        note(request, subject=name, of=key.subject, reason=form.get("reason"))
        return seen_other(limit_url(name), done="reset")

    async def _page(
        self, request: Request, form: Form | None, status: int = 200, *, is_stale: bool = False
    ) -> Response:
        found = self._desk.limits.find(request.path_params["limit_id"])
        (row,) = await self._rows([found], None)
        limit = found.declared.limit
        usual = {"cap": _cap_text(found), "mode": _mode_of(found), "name": limit.name, "release": _release_of(found)}
        filled = Form(usual) if form is None else Form({**usual, **form.values}, form.errors, form.said, form.hint)
        return self._desk.answer(
            request,
            "budget.html",
            status,
            row=row,
            form=filled,
            modes=_MODES,
            is_stale=is_stale,
            now=usual,
            is_stock=isinstance(limit, StockLimit),
            releases=_RELEASES if may_wait(limit) else (),
            shape=whole_shape(found.scope),
            is_each=not is_one(found.scope, found.declared.subject),
        )

    def _new_page(self, request: Request, form: Form, status: int = 200) -> Response:
        gateway = self._desk.gateway()
        meters = sorted({f"{UNITS}:{name}" for route in gateway.router.routes for name in route.meters})
        windows = [(each.value, each.value.replace("_", " ")) for each in Window if each is not Window.TOTAL]
        return self._desk.answer(
            request,
            "budget_new.html",
            status,
            form=form,
            scopes=_SCOPES,
            dimensions=[DOLLARS, UNITS, REQUESTS, *meters],
            windows=[
                *windows,
                ("total", "in total, for ever"),
                *((name, name.replace("_", " ") + " (rate)") for name in _RATES),
            ],
            modes=_MODES,
            releases=_RELEASES,
        )

    async def _rows(self, found: list[Standing], subject: str | None) -> list[Row]:
        states = await limit_states(self._desk.limits, self._desk.store, found, self._desk.clock.now_ms(), subject)
        return [
            Row(each, _bar(each, state), None if state is None else state.get("closed_until_ms"))
            for each, state in zip(found, states, strict=True)
        ]


def _bar(found: Standing, state: dict[str, Any] | None) -> LimitState | None:
    """The state of a stock limit as a bar."""
    limit = found.declared.limit
    if state is None or not isinstance(limit, StockLimit):
        return None
    return LimitState(
        limit.name,
        limit.scope,
        limit.dimension,
        limit.window,
        found.cap,
        _stored(limit.dimension, state["used"]),
        _stored(limit.dimension, state["held"]),
        state["resets_ms"],
    )


def _stored(dimension: str, text: str) -> int:
    found = parse_cap(dimension, text)
    assert found is not None, text
    return found


def _wish(form: Form) -> Wish:
    """What the form asks for. Raises Refusal."""
    dimension, window = form.get("dimension"), form.get("window")
    is_rate = window in _RATES
    cap = form.get("cap").replace(",", "").removeprefix("$")
    if not cap:
        raise Refusal(Code.BAD_REQUEST, 'cap is missing; "unlimited" is the word for none.')
    release = form.get("release")
    if is_rate and release == Release.WINDOW:
        # What the field says where nobody has touched it.
        release = ""
    return Wish(
        scope=form.get("scope"),
        dimension=dimension,
        cap=parse_cap(dimension, cap),
        subject=_subject(form, form.get("scope")) or EACH,
        window=None if is_rate else window,
        per_ms=_RATES.get(window),
        mode=None if is_rate else form.get("mode") or None,
        name=form.get("name") or None,
        release=release or None,
    )


def _subject(form: Form, scope: str) -> str:
    """For whom; the blank that people put behind a comma is no part of a name."""
    parts = form.get("subject").split(",", 1) if "," in scope else [form.get("subject")]
    return ",".join(part.strip() for part in parts)


def may_wait(limit: StockLimit | RateLimit) -> bool:
    """Whether a limit may stay closed until the billing period turns, in one mode or another."""
    return isinstance(limit, StockLimit) and mistake(replace(limit, mode=Mode.BLOCK, release=_WAITS)) is None


def _cap_text(found: Standing) -> str:
    return "unlimited" if found.cap is None else amount_text(found.declared.limit.dimension, found.cap)


def _mode_of(found: Standing) -> str:
    limit = found.declared.limit
    return limit.mode.value if isinstance(limit, StockLimit) else Mode.BLOCK.value


def _release_of(found: Standing) -> str:
    limit = found.declared.limit
    return limit.release.value if isinstance(limit, StockLimit) else Release.WINDOW.value


def _shown(found: Standing) -> dict[str, str]:
    limit = found.declared.limit
    return {
        "name": limit.name,
        "scope": limit.scope,
        "subject": found.declared.subject,
        "dimension": limit.dimension,
        "cap": _cap_text(found),
        "mode": _mode_of(found),
        "release": _release_of(found),
    }
