"""Every test that talks does so on both loops, and leaves nothing behind."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from upstreams_server import LOOPS, Play


@pytest.fixture(params=sorted(LOOPS))
def play(request: pytest.FixtureRequest) -> Play:
    """Run a coroutine function on a new loop; no task and no complaint of the loop may be left."""

    def run(main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        complaints: list[dict[str, Any]] = []

        async def watched() -> Any:
            asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
            async with asyncio.timeout(20):
                result = await main()
            # The loop's own tasks for accepted connections end a few turns after their server.
            for _ in range(50):
                if asyncio.all_tasks() == {asyncio.current_task()}:
                    break
                await asyncio.sleep(0.001)
            left = asyncio.all_tasks() - {asyncio.current_task()}
            assert not left, left
            return result

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            result = runner.run(watched())
        assert not complaints, complaints
        return result

    return run
