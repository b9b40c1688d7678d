"""What needs a person's eye: who spends faster than usual, what was not delivered, whether the ledger adds up, and who
has changed what. The rule: what reads the whole ledger (the doctor) runs when it is asked for, one at a time."""

import json
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Deed
from gatekeeper.proxy.breakers import Standing
from gatekeeper.rules.breaker import Phase
from gatekeeper.rules.diagnosis import all_well
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import Amount
from gatekeeper.rules.spikes import BASELINE_HOURS, MINIMUM_MICRO, MINIMUM_NANO, spikes
from gatekeeper.rules.windows import HOUR_MS
from gatekeeper.web.health import Health, Verdict
from gatekeeper.web.pages.desk import PAGE_ROWS, Desk, paged, with_query
from gatekeeper.web.pages.processes import processes_of

SPIKE_SCOPES = (Scope.CUSTOMER, Scope.KEY, Scope.USER, Scope.AGENT, Scope.MODEL, Scope.ROUTE)
DOCTOR_DAYS = 30
# Somebody who looks for a spike also wants to see who comes near: a tenth of what alarms.
_SHOWN_PART = 10


class WatchPages:
    """Endpoints; each raises Refusal, Fault."""

    def __init__(self, desk: Desk, health: Health) -> None:
        self._desk = desk
        self._health = health

    async def spikes(self, request: Request) -> Response:
        """``?scope=&measure=``: those whose last hour is far above their usual one, and the busiest beside them."""
        query = request.query_params
        try:
            scope, amount = Scope(query.get("scope", "customer")), Amount(query.get("measure", "cost"))
        except ValueError as cause:
            raise Refusal(Code.BAD_REQUEST, "There is no such scope or measure.") from cause
        if scope not in SPIKE_SCOPES:
            raise Refusal(Code.BAD_REQUEST, f"scope is one of {', '.join(SPIKE_SCOPES)}.")
        minimum = MINIMUM_MICRO if amount is Amount.UNITS else MINIMUM_NANO
        now_ms = self._desk.clock.now_ms()
        recent_ms = now_ms - HOUR_MS
        paces = await self._desk.store.paces(
            scope,
            amount,
            Scope.GLOBAL,
            "",
            recent_ms - BASELINE_HOURS * HOUR_MS,
            recent_ms,
            now_ms,
            least=max(1, minimum // _SHOWN_PART),
            limit=PAGE_ROWS,
        )
        found = spikes(paces, now_ms, minimum=minimum)
        alarming = {each.subject for each in found}
        return self._desk.answer(
            request,
            "spikes.html",
            spikes=found,
            others=[pace for pace in paces if pace.subject not in alarming],
            scope=scope.value,
            scopes=[each.value for each in SPIKE_SCOPES],
            measure=amount.value,
            measures=[
                (Amount.COST.value, "provider's cost"),
                (Amount.CHARGE.value, "charge"),
                (Amount.UNITS.value, "units"),
            ],
            minimum=minimum,
            dimension="units" if amount is Amount.UNITS else "dollars",
        )

    async def health(self, request: Request) -> Response:
        """What is cheap to know; the doctor runs when the button asks."""
        return await self._health_page(request, None)

    async def examine(self, request: Request) -> Response:
        """Run the doctor (or have the verdict of the last half minute)."""
        return await self._health_page(request, await self._health.verdict(DOCTOR_DAYS))

    async def audit(self, request: Request) -> Response:
        """``?actor=&subject=&before=``: who has changed what, the latest first."""
        query = {name: value.strip() for name, value in request.query_params.items()}
        words = {name: query.get(name, "") for name in ("actor", "subject")}
        found = await self._desk.store.deeds(
            before=query.get("before", ""),
            actor=words["actor"] or None,
            subject=words["subject"] or None,
            limit=PAGE_ROWS + 1,
        )
        rows, more = paged(found)
        following = with_query("/dashboard/audit", words, before=rows[-1].id) if more else None
        return self._desk.answer(
            request,
            "audit.html",
            rows=[(row, _facts(row)) for row in rows],
            query=words,
            is_filtered=any(words.values()) or "before" in query,
            following=following,
        )

    async def _health_page(self, request: Request, verdict: Verdict | None) -> Response:
        desk, gateway, now_ms = self._desk, self._desk.gateway(), self._desk.clock.now_ms()
        applied, known = await desk.store.schema()
        backlog = await desk.store.backlog(known_only=gateway.stripe.enabled)
        standings = {each.upstream: each for each in desk.breakers()}
        return desk.answer(
            request,
            "health.html",
            verdict=verdict,
            is_well=None if verdict is None else all_well(verdict.checks),
            applied=applied,
            known=known,
            backlog=backlog,
            reports=gateway.stripe.reports,
            generation=gateway.generation,
            warnings=[each.message for each in gateway.warnings],
            is_behind=backlog.is_behind(now_ms),
            upstreams=[(each, _breaker(standings.get(each.name))) for each in gateway.upstreams.values()],
            processes=processes_of(desk.processes()),
            database="Postgres" if gateway.database_url.reveal().startswith("postgres") else "SQLite",
            durability=gateway.ledger.durability.value,
        )


def _breaker(standing: Standing | None) -> tuple[str, str]:
    """(kind of status, words) of a breaker."""
    if standing is None or standing.phase is Phase.CLOSED:
        return "ok", "in use" if standing is not None else "not needed yet"
    if standing.phase is Phase.OPEN:
        return "bad", f"left alone for {standing.wait_s:.0f} s"
    return "warn", "tried again with one call"


def _facts(deed: Deed) -> list[tuple[str, str]]:
    """What a deed says of itself, for people: of what was changed, only what differs."""
    try:
        found = json.loads(deed.detail or "{}")
    except ValueError:
        found = {"detail": deed.detail}
    facts = dict(found) if isinstance(found, dict) else {"detail": found}
    before, after = facts.get("before"), facts.get("after")
    told: list[tuple[str, str]] = []
    if isinstance(before, dict) and isinstance(after, dict):
        del facts["before"], facts["after"]
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        told = [(name, f"{_word(before.get(name))} → {_word(after.get(name))}") for name in names]
    return [*told, *((name, _word(value)) for name, value in facts.items())]


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_word(each)}" for name, each in value.items())
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
