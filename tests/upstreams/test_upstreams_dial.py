"""From names to sockets: the order of addresses, the race, and that losers are closed."""

import asyncio
import socket

import pytest
from upstreams_server import Play, Wire, answer, fetch, forever, outgoing, serving, talking

from gatekeeper.upstreams.dial import ADDRESSES_MAX, Address, dial, interleaved, race
from gatekeeper.upstreams.pool import Pool


def six(number: int) -> Address:
    """An IPv6 address."""
    return (socket.AF_INET6, socket.SOCK_STREAM, 6, (f"::{number}", 1, 0, 0))


def four(port: int, host: str = "127.0.0.1") -> Address:
    """An IPv4 address."""
    return (socket.AF_INET, socket.SOCK_STREAM, 6, (host, port))


def test_families_take_turns_beginning_with_the_resolvers_first() -> None:
    assert interleaved([six(1), six(2), six(3), four(1), four(2)]) == [six(1), four(1), six(2), four(2), six(3)]
    assert interleaved([four(1), six(1)]) == [four(1), six(1)]
    assert len(interleaved([six(number) for number in range(50)])) == ADDRESSES_MAX


def test_a_name_with_a_dead_first_address_is_reached_by_the_second(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, server):
            # Where localhost has ::1 as well, nobody listens there.
            assert (await fetch(upstream, outgoing(server.config(host="localhost"))))[2] == b"ok"

    play(main)


def test_a_silent_address_does_not_hold_up_the_next(play: Play) -> None:
    """A full backlog is the black hole of loopback: the connect hangs."""

    async def main() -> None:
        async def idle(wire: Wire) -> None:
            await wire.gone()

        with socket.socket() as hole:
            hole.bind(("127.0.0.1", 0))
            hole.listen(0)
            place = hole.getsockname()
            fillers = [socket.socket() for _ in range(4)]
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex(place)
            async with serving(idle) as server:
                sock = await race([four(place[1]), four(server.port)])
                assert sock.getpeername()[1] == server.port
                sock.close()
            for filler in fillers:
                filler.close()

    play(main)


def test_when_every_address_fails_the_last_error_is_told(play: Play) -> None:
    async def main() -> None:
        async with serving(forever(answer())) as server:
            port = server.port
        with pytest.raises(ConnectionRefusedError):
            await race([four(port), four(port)])

    play(main)


def test_a_cancelled_race_leaves_no_socket(play: Play) -> None:
    async def main() -> None:
        async with serving(forever(answer())) as server:
            for turns in range(12):
                task = asyncio.create_task(race([four(server.port), four(server.port)]))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                if not task.cancelled():
                    task.result().close()

    play(main)


def test_an_address_needs_no_resolver(play: Play) -> None:
    async def main() -> None:
        async with serving(forever(answer())) as server:
            sock = await dial("127.0.0.1", server.port)
            assert sock.getpeername() == ("127.0.0.1", server.port)
            sock.close()

    play(main)


def test_a_pool_begins_empty(play: Play) -> None:
    async def main() -> None:
        async with talking(forever(answer())) as (upstream, server):
            pool = upstream.pool(server.config())
            assert isinstance(pool, Pool)
            assert pool.counts == (0, 0, 0)

    play(main)
