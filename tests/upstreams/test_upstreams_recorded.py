"""The replaying upstream keeps the promises of the real one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_upstreams_request import CONFIG
from upstreams_server import fault_of, fetch, outgoing, whole

from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports import Upstream
from gatekeeper.upstreams.client import HttpUpstream
from gatekeeper.upstreams.recorded import Asked, RecordedUpstream, Recording

BROKEN = Fault("upstream", FaultKind.RESET, "recorded")


def test_both_upstreams_have_the_shape_of_the_port() -> None:
    ports: list[Upstream] = [HttpUpstream(), RecordedUpstream(Recording())]
    assert len(ports) == 2


@given(st.binary(max_size=60), st.integers(0, 20), st.none() | st.lists(st.integers(-5, 80)).map(tuple))
def test_the_pieces_are_the_body(body: bytes, chunk_bytes: int, boundaries: tuple[int, ...] | None) -> None:
    pieces = Recording(body, chunk_bytes=chunk_bytes, boundaries=boundaries).pieces()
    assert b"".join(pieces) == body
    assert all(pieces)


def test_a_body_is_cut_where_asked() -> None:
    assert Recording(b"abcdef", chunk_bytes=4).pieces() == [b"abcd", b"ef"]
    assert Recording(b"abcdef", boundaries=(1, 3)).pieces() == [b"a", b"bc", b"def"]
    assert Recording(b"abcdef").pieces() == [b"abcdef"]
    assert Recording(b"").pieces() == []


def test_the_end_is_the_end_for_ever() -> None:
    async def main() -> None:
        async with RecordedUpstream(Recording(b"ab", 201, ((b"X", b"y"),), chunk_bytes=1)).open(
            outgoing(CONFIG)
        ) as incoming:
            assert (incoming.status, incoming.headers) == (201, [(b"X", b"y")])
            assert [await incoming.read() for _ in range(4)] == [b"a", b"b", b"", b""]

    asyncio.run(main())


def test_a_fault_comes_after_all_bytes_before_it() -> None:
    async def main() -> None:
        upstream = RecordedUpstream(Recording(b"abcdef", chunk_bytes=2).failing(BROKEN, after_bytes=3))
        async with upstream.open(outgoing(CONFIG)) as incoming:
            assert [await incoming.read(), await incoming.read()] == [b"ab", b"c"]
            for _ in range(2):
                assert await fault_of(incoming.read()) is BROKEN
        assert upstream.left_early == 1

    asyncio.run(main())


def test_a_fault_may_come_instead_of_the_head() -> None:
    async def main() -> None:
        upstream = RecordedUpstream(Recording(b"abc").failing(BROKEN, after_bytes=None))
        assert await fault_of(fetch(upstream, outgoing(CONFIG))) is BROKEN

    asyncio.run(main())


def test_the_answer_may_depend_on_the_request_and_its_whole_body_is_kept() -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a"
        yield b"b"

    def answers(asked: Asked) -> Recording:
        return Recording(asked.outgoing.target + asked.body)

    async def main() -> None:
        upstream = RecordedUpstream(answers)
        assert (await fetch(upstream, outgoing(CONFIG, "POST", b"/x", body=body())))[2] == b"/xab"
        assert [asked.body for asked in upstream.asked] == [b"ab"]
        assert upstream.left_early == 0
        await upstream.close()
        assert upstream.closed

    asyncio.run(main())


def test_the_gate_holds_the_head_and_the_pace_holds_every_read() -> None:
    async def main() -> None:
        gate = asyncio.Event()
        paces = 0

        async def pace() -> None:
            nonlocal paces
            paces += 1

        upstream = RecordedUpstream(Recording(b"abc", chunk_bytes=1), gate=gate.wait, pace=pace)
        call = asyncio.create_task(fetch(upstream, outgoing(CONFIG)))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not call.done()
        assert len(upstream.asked) == 1
        gate.set()
        assert (await call)[2] == b"abc"
        assert paces == 3

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "headers"),
    [
        ("a.sse", ((b"Content-Type", b"text/event-stream"),)),
        ("a.b.json", ((b"Content-Type", b"application/json"),)),
        ("a.sse.gz", ((b"Content-Type", b"text/event-stream"), (b"Content-Encoding", b"gzip"))),
        ("a", ((b"Content-Type", b"application/octet-stream"),)),
        ("a.gz", ((b"Content-Type", b"application/octet-stream"), (b"Content-Encoding", b"gzip"))),
    ],
)
def test_a_file_is_replayed_with_its_type(tmp_path: Path, name: str, headers: tuple[tuple[bytes, bytes], ...]) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x00\xff")
    recording = Recording.from_file(path, chunk_bytes=1)
    assert recording.headers == headers
    assert recording.pieces() == [b"\x00", b"\xff"]


def test_leaving_early_is_noticed() -> None:
    async def main() -> None:
        upstream = RecordedUpstream(Recording(b"abc", chunk_bytes=1))
        async with upstream.open(outgoing(CONFIG)) as incoming:
            await incoming.read()
        async with upstream.open(outgoing(CONFIG)) as incoming:
            await whole(incoming)
        assert upstream.left_early == 1

    asyncio.run(main())
