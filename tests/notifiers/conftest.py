"""A way to run a test's coroutine with a store, a dispatcher and a receiver."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from notifiers_stand import Telling, telling


@pytest.fixture
def tell(sqlite_url: str) -> Callable[[Callable[[Telling], Awaitable[Any]]], Any]:
    """Runs ``body(stand)``."""

    def run(body: Callable[[Telling], Awaitable[Any]]) -> Any:
        async def opened() -> Any:
            async with telling(sqlite_url) as stand:
                return await body(stand)

        return asyncio.run(opened())

    return run
