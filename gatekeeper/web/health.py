"""What the doctor says: ``/admin/health``, and what ``gatekeeper doctor`` prints. The rule: a verdict reads the whole
ledger, so one at a time is worked out, and kept for half a minute; nobody waits for ever.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Audit
from gatekeeper.rules.billing import BACKLOG_BOUND_MS
from gatekeeper.rules.diagnosis import Check, all_well, check_schema, diagnose
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.web.answers import json_answer
from gatekeeper.web.asked import number_of
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.operating import HEALTH

SHOWN_MAX = 20
ALARM_PERCENT = 5
KEPT_S = 30.0
# A browser waits no longer with pleasure; the verdict goes on, and whoever asks then has it.
WAIT_S = 20.0
DAYS_MAX = 400


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found, when, and how long that took."""

    checks: tuple[Check, ...]
    checked_ms: int
    took_ms: int = 0


async def verdict(
    audit: Audit, gateway: Gateway, clock: Clock, days: int, alarm_percent: int = ALARM_PERCENT
) -> Verdict:
    """All checks of a ledger; of another schema than this code's only that one. Raises Fault."""
    now_ms, began_s = clock.now_ms(), clock.monotonic_s()
    schema = check_schema(*await audit.schema())
    if not schema.ok:
        return Verdict((schema,), now_ms)
    # After an outage of the database the sweeper itself waits for one whole expiry.
    overdue_ms = now_ms - int(gateway.ledger.hold_ttl_s * 1000)
    # Where nobody is told, all of it waits, and that is no mistake.
    unbilled_ms = now_ms - BACKLOG_BOUND_MS if gateway.stripe.reports else 0
    figures = await audit.figures(now_ms - days * DAY_MS, overdue_ms, unbilled_ms=unbilled_ms, limit=SHOWN_MAX)
    checks = (schema, *diagnose(figures, clock.now_ms(), alarm_percent))
    return Verdict(checks, now_ms, int((clock.monotonic_s() - began_s) * 1000))


def check_json(check: Check) -> dict[str, Any]:
    """A check for machines."""
    rows = [{"place": odd.place, "what": odd.what} for odd in check.found.rows]
    return {"name": check.name, "ok": check.ok, "said": check.said, "figures": check.figures, "found": rows}


class Health:
    """Endpoints; each raises Refusal. ``close`` waits for the verdict under way."""

    def __init__(self, audit: Audit, gateway: Callable[[], Gateway], clock: Clock, guard: Guard) -> None:
        self._audit = audit
        self._gateway = gateway
        self._clock = clock
        self._guard = guard
        self._known: dict[int, tuple[float, Verdict]] = {}
        self._working: tuple[int, asyncio.Task[Verdict]] | None = None

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(HEALTH, self, self._guard)

    async def get_health(self, request: Request) -> Response:
        """``?days=N``: of which routes are judged."""
        days = number_of(request.query_params.get("days", "30"))
        if days is None or not 1 <= days <= DAYS_MAX:
            raise Refusal(Code.BAD_REQUEST, f"days is a number from 1 to {DAYS_MAX}.")
        found = await self.verdict(days)
        return json_answer(
            {
                "ok": all_well(found.checks),
                "checked_ms": found.checked_ms,
                "took_ms": found.took_ms,
                "checks": [check_json(check) for check in found.checks],
            }
        )

    async def verdict(self, days: int) -> Verdict:
        """The present one, or one of the last half minute. Raises Refusal while one is not done in time, Fault."""
        known = self._known.get(days)
        if known is not None and self._clock.monotonic_s() < known[0] + KEPT_S:
            return known[1]
        if self._working is None or self._working[1].done():
            work = verdict(self._audit, self._gateway(), self._clock, days)
            self._working = days, asyncio.create_task(work, name="health")
        of_days, task = self._working
        await asyncio.wait({task}, timeout=WAIT_S)
        if not task.done() or of_days != days:
            raise Refusal(Code.LEDGER_UNAVAILABLE, "The ledger is still being checked.", retry_after_s=5)
        found = task.result()
        self._known = {days: (self._clock.monotonic_s(), found)}
        return found

    async def close(self) -> None:
        """Give up the verdict under way."""
        if self._working is not None:
            task = self._working[1]
            task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.exception()
