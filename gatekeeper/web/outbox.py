"""What the biller was told of usage, what waits and what needs a person: ``/admin/outbox``, ``gatekeeper outbox``."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.money import units_text
from gatekeeper.ports import Store
from gatekeeper.rules.billing import Backlog, Batch, BatchState
from gatekeeper.web.answers import json_answer, json_body
from gatekeeper.web.asked import limit_of, only, page, take
from gatekeeper.web.openapi import Guard, routes_of
from gatekeeper.web.openapi.operating import OUTBOX

_CURSOR = re.compile(r"([0-9]{1,18})-([!-~]{1,200})")
_KNOWN = {"told": True, "unsent": False}


@dataclass(frozen=True, slots=True)
class Outbox:
    """Endpoints; each raises Refusal."""

    store: Store
    gateway: Callable[[], Gateway]
    clock: Clock
    guard: Guard

    def routes(self) -> list[BaseRoute]:
        """The URLs, for ``web.app``."""
        return routes_of(OUTBOX, self, self.guard)

    async def list_batches(self, request: Request) -> Response:
        """``?state=&customer_id=&after=&limit=``, the latest first, with what is still to be told."""
        query, limit, now_ms = request.query_params, limit_of(request), self.clock.now_ms()
        state = query.get("state")
        if state is not None and state not in tuple(BatchState):
            raise Refusal(Code.BAD_REQUEST, f"state is one of {', '.join(BatchState)}.")
        rows = await self.store.batches(
            state=None if state is None else BatchState(state),
            customer_id=query.get("customer_id"),
            after=_after(query.get("after")),
            limit=limit + 1,
        )
        backlog = await self.store.backlog(known_only=self.gateway().stripe.enabled)
        whole = await self.store.backlog()
        shown = page(
            "batches", rows, limit, lambda row: batch_json(row, now_ms), lambda row: f"{row.created_ms}-{row.id}"
        )
        return json_answer({**shown, "backlog": backlog_json(backlog, whole, now_ms)})

    async def get_batch(self, request: Request) -> Response:
        """One batch, by its id or its identifier at the biller."""
        return json_answer(batch_json(await self._found(request.path_params["batch_id"]), self.clock.now_ms()))

    async def retry_batch(self, request: Request) -> Response:
        """``{"known"?}``: send it again. ``known`` says what a person has found at the biller: ``told`` (it is there,
        so it is done) or ``unsent`` (it is not, so send it without asking)."""
        known = take(only(await json_body(request), "known"), "known", str)
        if known is not None and known not in _KNOWN:
            raise Refusal(Code.BAD_REQUEST, f"known is one of {', '.join(_KNOWN)}.")
        batch, now_ms = await self._found(request.path_params["batch_id"]), self.clock.now_ms()
        if known is None:
            changed = await self.store.retry_batches(now_ms, batch.id)
        else:
            changed = int(await self.store.settle_by_hand(batch.id, now_ms, told=_KNOWN[known]))
        return json_answer({"changed": changed, "batch": batch_json(await self._found(batch.id), now_ms)})

    async def retry_batches(self, request: Request) -> Response:
        """Send again everything that was given up."""
        only(await json_body(request))
        return json_answer({"changed": await self.store.retry_batches(self.clock.now_ms())})

    async def _found(self, batch_id: str) -> Batch:
        batch = await self.store.batch(batch_id)
        if batch is None:
            raise Refusal(Code.NOT_FOUND, f"There is no batch {batch_id[:64]!r}.")
        return batch


def batch_json(one: Batch, now_ms: int) -> dict[str, Any]:
    """A batch for machines."""
    return {
        "batch": one.id,
        "customer_id": one.customer_id,
        "meter": one.meter,
        "identifier": one.identifier,
        "units": str(one.value),
        "carried_units": units_text(one.carried_micro),
        "left_units": units_text(one.left_micro),
        "period_start_ms": one.period_start_ms,
        "period_end_ms": one.period_end_ms,
        "ts_ms": one.ts_ms,
        "late": one.late,
        "state": one.state,
        "age_s": max(0, now_ms - one.created_ms) // 1000,
        "attempts": one.attempts,
        "reopened": one.reopened,
        "created_ms": one.created_ms,
        "next_ms": one.next_ms,
        "first_sent_ms": one.first_sent_ms,
        "sent_ms": one.sent_ms,
        "error": one.error,
    }


def backlog_json(backlog: Backlog, whole: Backlog, now_ms: int) -> dict[str, Any]:
    """What is still to be told; ``whole`` also counts what waits for an account at the biller."""
    return {
        "waiting": backlog.waiting,
        "dead": backlog.dead,
        "unfrozen": backlog.unfrozen,
        "without_account": whole.unfrozen - backlog.unfrozen,
        "oldest_s": backlog.age_s(now_ms),
        "behind": backlog.is_behind(now_ms),
    }


def _after(written: str | None) -> tuple[int, str] | None:
    if written is None:
        return None
    found = _CURSOR.fullmatch(written)
    if found is None:
        raise Refusal(Code.BAD_REQUEST, "after is the next of the page before.")
    return int(found[1]), found[2]
