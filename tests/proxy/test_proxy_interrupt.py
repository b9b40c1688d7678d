"""Interrupt: a call is cancelled from outside at most once, and only a shutdown is passed on."""

import asyncio

import pytest

from gatekeeper.proxy.call import Interrupt


def test_our_own_cancellation_is_taken_back():
    async def body() -> None:
        interrupt = Interrupt()
        asyncio.get_running_loop().call_soon(interrupt.fire, Interrupt.CLIENT_GONE)
        with pytest.raises(asyncio.CancelledError):
            await asyncio.sleep(10)
        assert interrupt.absorb()
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await asyncio.sleep(0)

    asyncio.run(body())


def test_a_shutdown_is_not_taken_for_ours():
    async def body() -> None:
        interrupt = Interrupt()
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        try:
            await asyncio.sleep(10)
        except asyncio.CancelledError:
            assert not interrupt.absorb()
            task.uncancel()

    asyncio.run(body())


def test_a_cancellation_that_has_not_landed_is_received_by_disarm():
    async def body() -> None:
        interrupt = Interrupt()
        # From within the task: it can only land at the next await.
        interrupt.fire(Interrupt.CLIENT_GONE)
        await interrupt.disarm()
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    asyncio.run(body())


def test_after_disarm_nothing_fires_and_it_fires_once():
    async def body() -> None:
        interrupt = Interrupt()
        await interrupt.disarm()
        interrupt.fire(Interrupt.HOLD_LOST)
        await asyncio.sleep(0)
        assert interrupt.reason is None
        other = Interrupt()
        other.fire(Interrupt.HOLD_LOST)
        other.fire(Interrupt.CLIENT_GONE)
        await other.disarm()
        assert other.reason == Interrupt.HOLD_LOST
        assert not other.absorb()
        await asyncio.sleep(0)

    asyncio.run(body())


def test_a_shutdown_during_disarm_passes_when_nothing_was_fired():
    async def body() -> None:
        async def call() -> None:
            interrupt = Interrupt()
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await interrupt.disarm()
            await asyncio.sleep(0)

        with pytest.raises(asyncio.CancelledError):
            await asyncio.create_task(call())

    asyncio.run(body())
