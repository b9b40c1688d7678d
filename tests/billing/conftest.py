"""Ways to run a test's coroutine with a stand on both databases, and to hold biller and ledger against each other."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from billing_stand import Stand, standing


@pytest.fixture
def billing(store_url: str) -> Callable[[Callable[[Stand], Awaitable[Any]]], Any]:
    """Runs ``body(stand)`` on both databases."""
    return lambda body: run_standing(store_url, body)


@pytest.fixture
def billing_once(sqlite_url: str) -> Callable[[Callable[[Stand], Awaitable[Any]]], Any]:
    """The same on SQLite alone, where the database has no say."""
    return lambda body: run_standing(sqlite_url, body)


def run_standing(url: str, body: Callable[[Stand], Awaitable[Any]]) -> Any:
    async def opened() -> Any:
        async with standing(url) as stand:
            return await body(stand)

    return asyncio.run(opened())


@pytest.fixture
def sql(store_url: str, postgres_execute: Callable[..., Sequence[Any]]) -> Callable[..., list[tuple[Any, ...]]]:
    """``sql(statement)``: rows, asked behind the store's back, also while a loop runs."""

    def run(statement: str) -> list[tuple[Any, ...]]:
        if store_url.startswith("sqlite:///"):
            connection = sqlite3.connect(store_url.removeprefix("sqlite:///"))
            try:
                rows = connection.execute(statement).fetchall()
                connection.commit()
                return rows
            finally:
                connection.close()
        return [tuple(row) for row in postgres_execute(store_url, statement)]

    def in_a_thread(statement: str) -> list[tuple[Any, ...]]:
        with ThreadPoolExecutor(1) as executor:
            return executor.submit(run, statement).result()

    return in_a_thread


@pytest.fixture
def drift(sql: Callable[..., list[tuple[Any, ...]]]) -> Callable[[Stand], int]:
    """What the biller has counted and what the next batches carry, less what the ledger says, in millionths: 0."""

    def compute(stand: Stand) -> int:
        ((used,),) = sql("SELECT COALESCE(SUM(units_micro), 0) FROM usage_record WHERE plan_id = 'pro'")
        ((left,),) = sql("SELECT COALESCE(SUM(residue_micro), 0) FROM meter_account")
        ((apart,),) = sql("SELECT COALESCE(SUM(value), 0) FROM meter_batch WHERE state IN ('dead', 'waiting')")
        ((unfrozen,),) = sql(
            "SELECT COALESCE(SUM(units_micro), 0) FROM owed WHERE batch_id IS NULL AND plan_id = 'pro'"
        )
        return (stand.biller.units() + int(apart)) * 1_000_000 + int(left) + int(unfrozen) - int(used)

    return compute
