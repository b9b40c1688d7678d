"""The short way to the client writes what uvicorn's own ``send`` would write, and hears what ``receive`` hears."""

import asyncio
from typing import Any

import pytest
import uvicorn
from hypothesis import given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gatekeeper.web.calls import PEER, AsgiCaller
from gatekeeper.web.protocol import GatewayProtocol

NAMES = st.sampled_from(
    [b"Content-Type", b"X-A", b"x-b", b"Connection", b"Transfer-Encoding", b"Set-Cookie", b"bad name"]
)
VALUES = st.sampled_from([b"text/plain", b"close", b"chunked", b"", b"a b", b"br\r\noken", b"\xff"])
LENGTHS = st.sampled_from([[], [(b"content-length", b"3")], [(b"Content-Length", b"3"), (b"content-length", b"3")]])
HEADS = st.tuples(
    st.sampled_from([200, 201, 204, 304, 404, 503]), st.lists(st.tuples(NAMES, VALUES), max_size=4), LENGTHS
)


class Pipe(asyncio.Transport):
    """The client's socket: what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closing = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def write(self, data: Any) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


async def served(request: bytes, app: Any, *, hang_up: bool = False) -> Pipe:
    config = uvicorn.Config(app, http=GatewayProtocol, access_log=False, lifespan="off", log_config=None)
    protocol = GatewayProtocol(config, ServerState(), {})
    pipe = Pipe()
    protocol.connection_made(pipe)
    protocol.data_received(request)
    if hang_up:
        await asyncio.sleep(0)
        protocol.connection_lost(None)
    await asyncio.gather(*protocol.tasks)
    if not hang_up:
        protocol.connection_lost(None)
    return pipe


def answered(request: bytes, head: Any, chunks: list[bytes], *, short: bool) -> tuple[bytes, bool]:
    """(what was written, whether it was refused as wrong)."""
    refused = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller = AsgiCaller(receive, send, has_body=False, peer=scope[PEER] if short else None)
        try:
            await caller.start(head[0], [*head[1], *head[2]])
            for chunk in chunks:
                await caller.send(chunk)
            await caller.end()
        except RuntimeError as error:
            refused.append(str(error))

    pipe = asyncio.run(served(request, app))
    return pipe.written, bool(refused)


@settings(max_examples=150, deadline=None)
@given(HEADS, st.lists(st.sampled_from([b"abc", b"", b"x" * 300]), max_size=3), st.sampled_from(["GET", "HEAD"]))
def test_the_short_way_writes_what_uvicorn_writes(head: Any, chunks: list[bytes], method: str) -> None:
    request = f"{method} /a HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    assert answered(request, head, chunks, short=True) == answered(request, head, chunks, short=False)


def test_nothing_follows_the_head_of_an_answer_to_head() -> None:
    head = (200, [(b"transfer-encoding", b"chunked")], [])
    request = b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n"
    assert answered(request, head, [b"abc"], short=True) == answered(request, head, [b"abc"], short=False)


@pytest.mark.parametrize("line", ["Connection: close", "Expect: 100-continue"])
def test_the_end_of_the_connection_is_announced_on_both_ways(line: str) -> None:
    request = f"GET /a HTTP/1.1\r\nHost: a\r\n{line}\r\n\r\n".encode()
    head = (200, [(b"x-a", b"b")], [(b"content-length", b"3")])
    assert answered(request, head, [b"abc"], short=True) == answered(request, head, [b"abc"], short=False)


def test_a_body_that_came_with_its_head_is_taken_at_once_and_only_once() -> None:
    taken = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller = AsgiCaller(receive, send, has_body=True, peer=scope[PEER])
        taken.extend([caller.at_hand(), caller.at_hand(), [piece async for piece in caller.body()]])
        await caller.start(200, [(b"content-length", b"0")])
        await caller.end()

    asyncio.run(served(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", app))
    assert taken == [b"abc", None, []]


def test_a_body_of_which_a_part_is_missing_is_not_taken() -> None:
    taken = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        taken.append(AsgiCaller(receive, send, has_body=True, peer=scope[PEER]).at_hand())

    asyncio.run(served(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab", app))
    assert taken == [None]


@pytest.mark.parametrize("before", [True, False])
def test_who_hangs_up_is_told_once_also_when_that_was_before_anybody_watched(before: bool) -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller = AsgiCaller(receive, send, has_body=False, peer=scope[PEER])
        if not before:
            caller.watch(lambda: told.append("gone"))
        while (await receive())["type"] != "http.disconnect":
            pass
        if before:
            caller.watch(lambda: told.append("gone"))
            assert told == []
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        caller.unwatch()

    asyncio.run(served(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", app, hang_up=True))
    assert told == ["gone"]


def test_who_does_not_watch_any_more_is_told_nothing() -> None:
    told = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        caller = AsgiCaller(receive, send, has_body=False, peer=scope[PEER])
        caller.watch(lambda: told.append("gone"))
        caller.unwatch()
        while (await receive())["type"] != "http.disconnect":
            pass

    asyncio.run(served(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n", app, hang_up=True))
    assert told == []
