"""Calls that are over, for whoever looks back: metered for real, settled by the real store."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any, TypeVar

from gatekeeper.clock import SystemClock
from gatekeeper.meters import Meter, Metering, Outcome, RequestView
from gatekeeper.money import units_to_micro
from gatekeeper.ports import Customer, HoldOrder, Settlement, UsageRecord
from gatekeeper.rules.limits import DOLLARS, ONE_REQUEST, REQUESTS
from gatekeeper.rules.lines import Bounds, Subject, Take, stock_lines
from gatekeeper.rules.plans import Plan
from gatekeeper.stores import SqlStore, open_store
from tests.fakes.records import NOW_MS, complete_call

MICRO = 1_000_000
T = TypeVar("T")


def stored(url: str, body: Callable[[SqlStore], Awaitable[T]]) -> T:
    """Runs ``body(store)`` on an open store and closes it."""

    async def run() -> T:
        store = await open_store(url, clock=SystemClock())
        assert isinstance(store, SqlStore)
        try:
            return await body(store)
        finally:
            await store.close()

    return asyncio.run(run())


async def customer(store: SqlStore, customer_id: str, plan_id: str, anchor_ms: int = NOW_MS) -> None:
    """Somebody who calls."""
    assert await store.create_customer(Customer(customer_id, customer_id, plan_id, anchor_ms, anchor_ms))


def record(call_id: str, plan_id: str, units_micro: int, **changes: Any) -> UsageRecord:
    """A complete call of ``ada`` on route ``chat``."""
    usual = {"customer_id": "ada", "first_byte_ms": 100, "meter_hash": "0123456789abcdef", "request_bytes": 90}
    return complete_call(call_id, **{**usual, "plan_id": plan_id, "units_micro": units_micro, **changes})


def metered(call_id: str, plan_id: str, meter: Meter, body: bytes, **changes: Any) -> UsageRecord:
    """The record of an answer that a meter has read, as the proxy writes it."""
    metering = Metering({"m": meter, "usage": USAGE}, RequestView(model="gpt-4o", customer_id="ada", request_bytes=90))
    metering.begin(200, "text/event-stream", "", {"content-type": "text/event-stream"})
    metering.feed(body)
    readings = metering.finish(Outcome.COMPLETE)
    reading = readings["m"]
    made = record(
        call_id,
        plan_id,
        0 if reading.units is None else units_to_micro(reading.units),
        source=reading.source,
        note=reading.note,
        evidence=reading.evidence,
        usage=readings["usage"].value,
        meter_hash=meter.hash,
    )
    return replace(made, **changes)


def _usage_meter() -> Meter:
    from gatekeeper.meters import compile_meter

    return compile_meter("usage()")


USAGE = _usage_meter()


async def hold(store: SqlStore, made: UsageRecord, plan: Plan, anchor_ms: int = NOW_MS, **changes: Any) -> Any:
    """Hold a unit for that call on the limits of its plan, as admission does."""
    subject = Subject(
        made.customer_id, plan.id, made.route, anchor_ms, made.key_id, made.user_id, made.agent_id, made.model
    )
    order = HoldOrder(
        call_id=made.call_id,
        admitted_month=made.admitted_month,
        customer_id=made.customer_id,
        key_id=made.key_id,
        user_id=made.user_id,
        agent_id=made.agent_id,
        plan_id=plan.id,
        route=made.route,
        upstream=made.upstream,
        model=made.model,
        owner="worker-1",
        now_ms=made.started_ms,
        expires_ms=made.started_ms + 30_000,
        output_tokens=0,
        output_tokens_min=0,
        stock=stock_lines(plan, subject, Bounds(units=Take(MICRO, 0)), made.started_ms),
    )
    return await store.hold(replace(order, **changes))


async def settle(store: SqlStore, made: UsageRecord, plan: Plan | None) -> UsageRecord:
    """The end of the call; a call that was never held counts on the limits of its plan."""
    actual = {REQUESTS: ONE_REQUEST, DOLLARS: made.cost_nano or 0}
    return (await store.settle(Settlement(made, actual, plan, made.ended_ms))).record
