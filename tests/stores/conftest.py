"""Values for the store's tests, and a way to run a test's coroutine with an open store."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from gatekeeper.clock import SystemClock
from gatekeeper.money import Price
from gatekeeper.ports import HoldOrder, Settlement, UsageRecord
from gatekeeper.rules.limits import (
    ONE_REQUEST,
    BucketKey,
    CounterKey,
    Mode,
    RateLine,
    Scope,
    StockLimit,
    StockLine,
    Window,
)
from gatekeeper.rules.plans import Plan
from gatekeeper.stores import SqlStore, open_store
from tests.fakes.records import NOW_MS, complete_call

# The month around NOW_MS.
MONTH_MS = 1_780_272_000_000
NEXT_MONTH_MS = 1_782_864_000_000
MICRO = 1_000_000
QUOTA = CounterKey("customer", "acme", "units", "month", MONTH_MS)
REQUESTS = CounterKey("customer", "acme", "requests", "month", MONTH_MS)
BUCKET = BucketKey("key", "k1", "units", 3_600_000)


class Make:
    """The usual values, each field open to change."""

    NOW_MS, MONTH_MS, NEXT_MONTH_MS, MICRO = NOW_MS, MONTH_MS, NEXT_MONTH_MS, MICRO
    QUOTA, REQUESTS, BUCKET = QUOTA, REQUESTS, BUCKET

    @staticmethod
    def line(cap: int | None = 100 * MICRO, fixed: int = 1 * MICRO, **changes: Any) -> StockLine:
        """A block quota of 100 units a month; the call wants 1."""
        return replace(StockLine(QUOTA, "quota", cap, Mode.BLOCK, fixed, 0, NEXT_MONTH_MS), **changes)

    @staticmethod
    def rate(cap: int = 100 * MICRO, amount: int = 1 * MICRO, **changes: Any) -> RateLine:
        """100 units an hour: too slow to drain while a test runs."""
        return replace(RateLine(BUCKET, "rate", cap, amount, amount), **changes)

    @staticmethod
    def order(call_id: str, *stock: StockLine, **changes: Any) -> HoldOrder:
        """An order of customer acme, alive for 30 s."""
        order = HoldOrder(
            call_id=call_id,
            admitted_month="2026-06",
            customer_id="acme",
            key_id="k1",
            user_id=None,
            agent_id=None,
            plan_id="pro",
            route="chat",
            upstream="openai",
            model="gpt-4o",
            owner="worker-1",
            now_ms=NOW_MS,
            expires_ms=NOW_MS + 30_000,
            output_tokens=0,
            output_tokens_min=0,
            stock=stock,
        )
        return replace(order, **changes)

    @staticmethod
    def record(call_id: str, units_micro: int = MICRO, **changes: Any) -> UsageRecord:
        """A complete call of that order."""
        return complete_call(call_id, units_micro=units_micro, **changes)

    @classmethod
    def settlement(
        cls, call_id: str, units_micro: int = MICRO, *, plan: Plan | None = None, **changes: Any
    ) -> Settlement:
        """The end of that call: so many millionths of a unit, and one request."""
        actual = {"units": units_micro, "requests": ONE_REQUEST}
        return Settlement(cls.record(call_id, units_micro, **changes), actual, plan, NOW_MS + 1_000)

    @staticmethod
    def plan(cap: int = 10 * MICRO, price: str = "0.002", mode: Mode = Mode.OVERAGE) -> Plan:
        """10 units a month included, then $0.002 each."""
        quota = StockLimit("quota", Scope.CUSTOMER, "units", Window.MONTH, cap, mode)
        return Plan("pro", "Pro", Decimal(29), quota, overage=Price(Decimal(price)))


@pytest.fixture(scope="session")
def make() -> type[Make]:
    """Builders of values."""
    return Make


@pytest.fixture
def with_store(store_url: str) -> Callable[[Callable[[SqlStore], Awaitable[Any]]], Any]:
    """Runs ``body(store)`` on an open store, closes it, and returns what the body returned. Both databases."""

    def run(body: Callable[[SqlStore], Awaitable[Any]]) -> Any:
        async def opened() -> Any:
            store = await open_store(store_url, clock=SystemClock())
            assert isinstance(store, SqlStore)
            try:
                return await body(store)
            finally:
                await store.close()

        return asyncio.run(opened())

    return run


@pytest.fixture
def sql(postgres_execute: Callable[..., Sequence[Any]]) -> Callable[..., list[tuple[Any, ...]]]:
    """``sql(url, statement)``: rows, asked behind the store's back."""

    def run(url: str, *statements: str) -> list[tuple[Any, ...]]:
        if url.startswith("sqlite:///"):
            connection = sqlite3.connect(url.removeprefix("sqlite:///"))
            try:
                rows: list[tuple[Any, ...]] = []
                for statement in statements:
                    rows = connection.execute(statement).fetchall()
                connection.commit()
                return rows
            finally:
                connection.close()
        return [tuple(row) for row in postgres_execute(url, *statements)]

    return run


@pytest.fixture
def refuse(sql: Callable[..., Any]) -> Callable[..., None]:
    """``refuse(url, table, condition, when=)``: from now on the database itself refuses such a row, by a trigger."""

    def run(url: str, table: str, condition: str, *, when: str = "INSERT") -> None:
        if url.startswith("sqlite"):
            body = "BEGIN SELECT RAISE(ABORT, 'refused by the test'); END"
            sql(url, f"CREATE TRIGGER refused BEFORE {when} ON {table} WHEN {condition} {body}")
        else:
            raising = "BEGIN RAISE integrity_constraint_violation USING MESSAGE = 'refused by the test'; END"
            body = f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${raising}$$"
            on = f"CREATE TRIGGER refused BEFORE {when} ON {table} FOR EACH ROW WHEN ({condition})"
            in_a_thread(sql, url, body, f"{on} EXECUTE FUNCTION refuse()")

    return run


def in_a_thread(call: Callable[..., Any], *args: Any) -> Any:
    """For what runs an event loop of its own and is called inside another."""
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(call, *args).result()
