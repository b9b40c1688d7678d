"""Live figures: read once for all who look on, for nobody when nobody does, and over when the gateway ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.web.pages import live
from gatekeeper.web.pages.live import Hub


class Turns:
    """A clock whose sleepers wait until a test lets them go on."""

    def __init__(self) -> None:
        self.at_s = 0.0
        self._sleepers: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    def now_ms(self) -> int:
        return int(self.at_s * 1000)

    def monotonic_s(self) -> float:
        return self.at_s

    async def sleep(self, seconds: float) -> None:
        up = asyncio.Event()
        self._sleepers.put_nowait(up)
        await up.wait()
        self.at_s += seconds

    async def turn(self) -> None:
        """Let the present sleeper go on, and wait until somebody sleeps again."""
        (await self._sleepers.get()).set()
        self._sleepers.put_nowait(await self._sleepers.get())


class Figures:
    """What is read: a number that a test changes."""

    def __init__(self) -> None:
        self.value, self.reads, self.broken = 0, 0, False

    async def read(self, topic: str) -> str:
        self.reads += 1
        if self.broken:
            raise Fault("ledger", FaultKind.STORE, "away")
        return f"{topic}={self.value}"


@contextlib.asynccontextmanager
async def running() -> AsyncIterator[tuple[Hub, Figures, Turns]]:
    figures, turns = Figures(), Turns()
    hub = Hub(figures.read, turns)
    task = asyncio.create_task(hub.run())
    try:
        yield hub, figures, turns
    finally:
        task.cancel()
        await asyncio.wait({task})


async def told(stream: AsyncIterator[bytes]) -> str:
    """The next figures of a stream."""
    async for piece in stream:
        if piece.startswith(b"event: figures"):
            return piece.decode().split("data: ")[1].strip()
    return "over"


def test_however_many_look_on_it_is_read_once_a_turn():
    async def run() -> None:
        async with running() as (hub, figures, turns):
            streams = [hub.open("1h") for _ in range(20)]
            first = [asyncio.create_task(told(stream)) for stream in streams]
            assert await asyncio.gather(*first) == ["1h=0"] * 20
            assert figures.reads <= 2
            before, figures.value = figures.reads, 5
            waiting = [asyncio.create_task(told(stream)) for stream in streams]
            await turns.turn()
            assert await asyncio.gather(*waiting) == ["1h=5"] * 20
            assert figures.reads == before + 1
            for stream in streams:
                await stream.aclose()

    asyncio.run(run())


def test_who_comes_later_has_the_last_figures_at_once():
    async def run() -> None:
        async with running() as (hub, _, _):
            early = hub.open("1h")
            assert await told(early) == "1h=0"
            late = hub.open("1h")
            assert await told(late) == "1h=0"
            await early.aclose()
            await late.aclose()

    asyncio.run(run())


def test_nobody_reads_while_nobody_looks():
    async def run() -> None:
        async with running() as (hub, figures, turns):
            stream = hub.open("1h")
            await told(stream)
            await stream.aclose()
            assert hub.viewers == 0
            reads = figures.reads
            (await turns._sleepers.get()).set()
            for _ in range(50):
                await asyncio.sleep(0)
            assert figures.reads == reads and turns._sleepers.empty()

    asyncio.run(run())


def test_a_ledger_that_is_away_ends_no_stream():
    async def run() -> None:
        async with running() as (hub, figures, turns):
            stream = hub.open("1h")
            await told(stream)
            figures.broken = True
            waiting = asyncio.create_task(told(stream))
            await turns.turn()
            assert not waiting.done()
            figures.broken, figures.value = False, 7
            await turns.turn()
            assert await waiting == "1h=7"
            await stream.aclose()

    asyncio.run(run())


def test_a_stream_ends_in_time_so_that_its_viewer_is_asked_again():
    async def run() -> None:
        async with running() as (hub, _, turns):
            stream = hub.open("1h")
            await told(stream)
            turns.at_s += live.STREAM_S
            assert await told(stream) == "over"
            assert hub.viewers == 0

    asyncio.run(run())


def test_all_streams_end_at_shutdown_and_none_begins():
    async def run() -> None:
        async with running() as (hub, _, turns):
            streams = [hub.open(topic) for topic in ("1h", "24h")]
            first = [asyncio.create_task(told(stream)) for stream in streams]
            await turns.turn()
            assert await asyncio.gather(*first) == ["1h=0", "24h=0"]
            waiting = [asyncio.create_task(told(stream)) for stream in streams]
            await asyncio.sleep(0)
            hub.close()
            assert await asyncio.gather(*waiting) == ["over", "over"]
            with pytest.raises(Refusal) as refused:
                hub.open("1h")
            assert refused.value.code is Code.SHUTTING_DOWN

    asyncio.run(run())


def test_there_is_a_bound_on_viewers():
    async def run() -> None:
        async with running() as (hub, _, _):
            streams = [hub.open("1h") for _ in range(live.VIEWERS_MAX)]
            for stream in streams:
                await told(stream)
            with pytest.raises(Refusal) as refused:
                hub.open("1h")
            assert refused.value.code is Code.RATE_LIMITED
            for stream in streams:
                await stream.aclose()

    asyncio.run(run())


def test_whoever_may_look_no_more_sees_nothing_more():
    async def run() -> None:
        async with running() as (hub, figures, turns):
            may = [True]

            async def may_look() -> bool:
                return may[0]

            stream = hub.open("1h", may_look)
            assert await told(stream) == "1h=0"
            may[0], figures.value = False, 1
            waiting = asyncio.create_task(told(stream))
            await turns.turn()
            assert await waiting == "over"
            assert hub.viewers == 0

    asyncio.run(run())
