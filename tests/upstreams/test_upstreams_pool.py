"""Places in the pool: the bound, the queue, and that no cancelled task takes a place with it."""

import asyncio
import gc
from collections import Counter
from functools import partial

import pytest
from upstreams_server import Play, Wire, answer, fault_of, fetch, forever, outgoing, serving, talking, until, whole

from gatekeeper.errors import FaultKind
from gatekeeper.upstreams.client import HttpUpstream
from gatekeeper.upstreams.connection import Connection


def test_no_more_connections_than_the_bound_and_everybody_is_served(play: Play) -> None:
    most = 0
    now = 0

    async def script(wire: Wire) -> None:
        nonlocal most, now
        while True:
            await wire.request()
            now += 1
            most = max(most, now)
            await asyncio.sleep(0.001)
            now -= 1
            await wire.send(answer())

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(connections_max=4)
            results = await asyncio.gather(*(fetch(upstream, outgoing(config)) for _ in range(60)))
            assert Counter(body for _, _, body in results) == {b"ok": 60}
            assert (server.accepted, most) == (4, 4)
            assert upstream.pool(config).counts == (4, 4, 0)

    play(main)


def test_waiters_are_served_in_the_order_in_which_they_came(play: Play) -> None:
    served: list[bytes] = []

    async def script(wire: Wire) -> None:
        while True:
            served.append((await wire.request()).split()[1])
            await wire.send(answer())

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(connections_max=1)
            tasks = []
            for number in range(20):
                tasks.append(asyncio.create_task(fetch(upstream, outgoing(config, target=b"/%d" % number))))
                await asyncio.sleep(0)
            await asyncio.gather(*tasks)
        assert served == [b"/%d" % number for number in range(20)]

    play(main)


def test_nobody_overtakes_the_queue(play: Play) -> None:
    served: list[bytes] = []

    async def script(wire: Wire) -> None:
        while True:
            served.append((await wire.request()).split()[1])
            await wire.send(answer())

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(connections_max=1)

            async def greedy(name: bytes) -> None:
                for _ in range(3):
                    await fetch(upstream, outgoing(config, target=name))

            await asyncio.gather(greedy(b"/a"), greedy(b"/b"), greedy(b"/c"))
        assert served == [b"/a", b"/b", b"/c"] * 3

    play(main)


def test_the_warmest_connection_is_taken_first(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, server):
            pool = upstream.pool(server.config())
            one = await pool.acquire(connect_timeout_s=1, wait_timeout_s=1)
            two = await pool.acquire(connect_timeout_s=1, wait_timeout_s=1)
            pool.release(one, True)
            pool.release(two, True)
            again = await pool.acquire(connect_timeout_s=1, wait_timeout_s=1)
            assert again is two
            pool.release(again, False)

    play(main)


def test_waiting_for_a_place_has_a_limit_and_leaves_the_queue(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(connections_max=1, connect_timeout_s=0.05)
            running = asyncio.create_task(fetch(upstream, outgoing(config)))
            await until(lambda: server.live == 1)
            fault = await fault_of(fetch(upstream, outgoing(config)))
            assert (fault.kind, fault.retryable) == (FaultKind.POOL_FULL, True)
            assert upstream.pool(config).counts == (1, 0, 0)
            running.cancel()
            await asyncio.wait([running])

    play(main)


def test_a_raised_bound_serves_the_queue_and_a_lowered_one_closes_what_comes_back(play: Play) -> None:
    go = asyncio.Event()

    async def script(wire: Wire) -> None:
        while True:
            await wire.request()
            await go.wait()
            await wire.send(answer())

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(connections_max=1)
            tasks = [asyncio.create_task(fetch(upstream, outgoing(config))) for _ in range(3)]
            await until(lambda: server.live == 1)
            pool = upstream.pool(server.config(connections_max=3))
            await until(lambda: server.live == 3)
            assert pool.counts == (3, 0, 0)
            pool.limit(1)
            go.set()
            await asyncio.gather(*tasks)
            await until(lambda: pool.counts == (1, 1, 0))

    play(main)


def test_failing_connects_pass_their_place_on(play: Play) -> None:
    async def main() -> None:
        async with serving(forever(answer())) as server:
            config = server.config(connections_max=1)
        upstream = HttpUpstream()
        faults = await asyncio.gather(*(fault_of(fetch(upstream, outgoing(config))) for _ in range(10)))
        assert {fault.kind for fault in faults} == {FaultKind.CONNECT}
        assert upstream.pool(config).counts == (0, 0, 0)
        await upstream.close()

    play(main)


def test_a_connection_that_dies_on_its_way_to_a_waiter_is_replaced(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        # In one step: the answer makes the client hand the connection over, the end comes right behind it.
        wire.send_at_once(answer())
        wire.end()
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(connections_max=1)
            calls = (fetch(upstream, outgoing(config, "POST", body=b"{}")) for _ in range(5))
            assert [body for _, _, body in await asyncio.gather(*calls)] == [b"ok"] * 5
            assert server.accepted == 5

    play(main)


@pytest.mark.parametrize("reply", [answer(), b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"])
def test_cancelling_at_any_moment_loses_no_place(play: Play, reply: bytes) -> None:
    """One place and three callers; the second is cancelled after n turns of the loop, from the first to long after."""

    async def script(wire: Wire) -> None:
        while True:
            request = await wire.request()
            await wire.send(reply if b" /victim " in request else answer())

    async def main() -> None:
        ends: Counter[str] = Counter()
        async with serving(script) as server:
            upstream = HttpUpstream()
            config = server.config(connections_max=1)
            for turns in range(70):
                first = asyncio.create_task(fetch(upstream, outgoing(config)))
                victim = asyncio.create_task(fetch(upstream, outgoing(config, target=b"/victim")))
                last = asyncio.create_task(fetch(upstream, outgoing(config)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                victim.cancel()
                await asyncio.wait([victim])
                ends["cancelled" if victim.cancelled() else "done"] += 1
                assert (await first)[2] == (await last)[2] == b"ok"
                # Now and then begin with no connection, so that connecting is cancelled too.
                if turns % 2:
                    await upstream.close()
                    upstream = HttpUpstream()
                else:
                    counts = partial(getattr, upstream.pool(config), "counts")
                    await until(lambda counts=counts: counts() in ((1, 1, 0), (0, 0, 0)))
            await upstream.close()
        assert ends["cancelled"] > 5

    play(main)


def test_closing_at_any_moment_ends_every_caller_and_leaves_nothing(play: Play) -> None:
    async def main() -> None:
        async with serving(forever(answer())) as server:
            for turns in range(40):
                upstream = HttpUpstream()
                config = server.config(connections_max=2)
                pool = upstream.pool(config)
                calls = [asyncio.create_task(fetch(upstream, outgoing(config))) for _ in range(5)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                await upstream.close()
                assert pool.counts == (0, 0, 0)
                await asyncio.wait(calls)
                for call in calls:
                    assert call.exception() is None or call.exception().world == "upstream"
            await until(lambda: server.live == 0)

    play(main)


def test_closing_does_not_wait_for_a_connection_that_never_stands(play: Play) -> None:
    """A TLS handshake that nobody answers."""

    async def script(wire: Wire) -> None:
        await wire.gone()

    async def main() -> None:
        async with talking(script) as (upstream, server):
            call = asyncio.create_task(fetch(upstream, outgoing(server.config(scheme="https", connect_timeout_s=60))))
            await until(lambda: server.live == 1)
            async with asyncio.timeout(2):
                await upstream.close()
            assert (await fault_of(call)).kind is FaultKind.CONNECT
            await until(lambda: server.live == 0)

    play(main)


def alive(port: int) -> int:
    """How many connection objects to a server there are, whoever holds them."""
    gc.collect()
    found = [thing for thing in gc.get_objects() if isinstance(thing, Connection)]
    return sum(thing._owner.origin.port == port for thing in found)


def test_nothing_holds_a_closed_connection(play: Play) -> None:
    """Neither a timer that is due in minutes, nor the cycle of parser and callbacks."""

    async def main() -> None:
        async with talking(forever(answer())) as (upstream, server):
            await fetch(upstream, outgoing(server.config()))
            assert alive(server.port) == 1
            await upstream.close()
            await asyncio.sleep(0.01)
            assert alive(server.port) == 0

    play(main)


def test_an_idle_connection_is_closed_at_its_limit(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(answer()), idle_kept_s=0.1) as (upstream, server):
            config = server.config()
            loop = asyncio.get_running_loop()
            for _ in range(3):
                await fetch(upstream, outgoing(config))
                await asyncio.sleep(0.05)
            rested_s = loop.time()
            assert server.accepted == 1
            await until(lambda: upstream.pool(config).counts == (0, 0, 0))
            assert loop.time() - rested_s < 0.5
            await fetch(upstream, outgoing(config))
            assert server.accepted == 2

    play(main)


def test_the_queue_has_a_bound(play: Play) -> None:
    async def script(wire: Wire) -> None:
        await wire.request()
        await wire.gone()

    async def main() -> None:
        async with talking(script, waiters_max=2) as (upstream, server):
            config = server.config(connections_max=1)
            calls = [asyncio.create_task(fetch(upstream, outgoing(config))) for _ in range(3)]
            await until(lambda: upstream.pool(config).counts == (1, 0, 2))
            assert (await fault_of(fetch(upstream, outgoing(config)))).kind is FaultKind.POOL_FULL
            for call in calls:
                call.cancel()
            await asyncio.wait(calls)
            assert upstream.pool(config).counts[2] == 0

    play(main)


def test_many_streams_at_once_keep_their_bytes_apart(play: Play) -> None:
    async def script(wire: Wire) -> None:
        while True:
            name = (await wire.request()).split()[1]
            await wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for number in range(20):
                text = b"%b-%d;" % (name, number)
                await wire.send(b"%x\r\n%b\r\n" % (len(text), text))
            await wire.send(b"0\r\n\r\n")

    async def call(upstream: HttpUpstream, server_config: object, name: bytes) -> None:
        async with upstream.open(outgoing(server_config, target=name)) as incoming:
            assert await whole(incoming) == b"".join(b"%b-%d;" % (name, number) for number in range(20))

    async def main() -> None:
        async with talking(script) as (upstream, server):
            config = server.config(connections_max=10)
            await asyncio.gather(*(call(upstream, config, b"/%d" % number) for number in range(50)))

    play(main)
