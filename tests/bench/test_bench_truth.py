"""What the truthful provider and its clients know beforehand, and what their judges notice. Nothing is started here."""

import asyncio
import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.answers import SHAPES, Dialect, Fault, Wish, answer, bytes_of, wished
from bench.callers import Connection, Saw, Tally
from bench.chaos_audit import Report
from bench.payloads import chunked
from bench.scale import World, judge, repeat
from bench.soak import judge_memory, judge_rest, slope
from bench.standing import Sample
from bench.systems import System
from bench.truthful import Connection as Answering
from bench.truthful import State, cut

WISHES = st.builds(
    Wish,
    number=st.integers(0, 2**47),
    dialect=st.sampled_from(Dialect),
    stream=st.booleans(),
    shape=st.integers(0, SHAPES - 1),
    ask_usage=st.booleans(),
    fault=st.sampled_from(Fault),
    pause_ms=st.integers(0, 30),
)


@given(WISHES)
def test_a_provider_reads_out_of_a_request_what_was_wished(wish: Wish):
    path = {Dialect.CHAT: "/v1/chat/completions", Dialect.MESSAGES: "/v1/messages"}[wish.dialect]
    # Usage is asked for by a field that only streams of one of the two dialects have.
    asks = wish.ask_usage and wish.stream and wish.dialect is Dialect.CHAT
    assert wished(path, json.loads(wish.body())) == replace(wish, ask_usage=asks)


@given(WISHES, WISHES)
def test_no_two_calls_have_the_same_bytes(one: Wish, other: Wish):
    assert (bytes_of(one) == bytes_of(other)) == (
        (one.number, one.dialect, one.stream, one.shape) == (other.number, other.dialect, other.stream, other.shape)
        and (one.ask_usage == other.ask_usage or not one.stream or one.dialect is Dialect.MESSAGES)
    )


@given(WISHES, st.integers(0, 1_000))
def test_an_answer_is_the_same_however_it_is_cut(wish: Wish, seed: int):
    pieces = cut(bytes_of(wish), random.Random(seed))
    assert b"".join(pieces) == bytes_of(wish)
    assert all(pieces)
    assert len(pieces) <= 61 * 20


class _Reader:
    """A transport whose other end reads everything at once."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, piece: bytes) -> None:
        self.written += piece


def test_a_provider_that_is_asked_again_at_once_counts_each_call_once():
    reader, state = _Reader(), State("5")
    body = Wish(1, Dialect.CHAT, stream=True, shape=0, pause_ms=1).body()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n"

    async def until(true: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not true():  # noqa: ASYNC110 - it is the provider's own doing that is awaited
                await asyncio.sleep(0)

    async def asked() -> None:
        provider = Answering(state)
        provider.connection_made(reader)  # type: ignore[arg-type]
        for count in range(1, 4):
            provider.data_received(head.encode() + body)
            # Whole, and its last piece was written just now.
            await until(lambda count=count: reader.written.count(b"\r\n0\r\n\r\n") == count)
        assert state.in_flight == 1
        await until(lambda: state.in_flight == 0)

    asyncio.run(asked())
    assert state.asked == 3


def test_the_units_of_an_answer_are_those_that_its_body_says():
    for dialect in Dialect:
        for shape in range(SHAPES):
            found = answer(dialect, False, shape)
            usage = json.loads(found.body)["usage"]
            read = usage.pop("prompt_tokens_details", None)
            said = usage["total_tokens"] if dialect is Dialect.CHAT else sum(usage.values())
            assert said == found.units
            assert read is None or 0 <= read["cached_tokens"] <= usage["prompt_tokens"]
            assert found.cost_nano > 0


@contextmanager
def connected() -> Iterator[tuple[Connection, "Transport"]]:
    connection, transport = Connection(), Transport()
    connection.connection_made(transport)  # type: ignore[arg-type]
    yield connection, transport


class Transport:
    """What a connection writes to."""

    def __init__(self) -> None:
        self.aborted = False

    def write(self, data: bytes) -> None:
        assert data

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        self.aborted = True


HEAD = b"HTTP/1.1 200 OK\r\nX-Gatekeeper-Call-Id: call_1\r\nTransfer-Encoding: chunked\r\n\r\n"
STREAM = Wish(7, Dialect.CHAT, stream=True, shape=3)


def heard(wish: Wish, *pieces: bytes, **leaving: Any) -> Saw:
    """What a client notes of an answer that comes in these pieces and then breaks off."""

    async def run() -> Saw:
        saw = Saw(wish, "gk_key")
        with connected() as (connection, _):
            calling = asyncio.create_task(connection.call(b"POST", saw, **leaving))
            await asyncio.sleep(0)
            for piece in pieces:
                connection.data_received(piece)
            connection.connection_lost(None)
            await calling
        return saw

    return asyncio.run(run())


def test_a_client_notes_a_whole_answer():
    saw = heard(STREAM, HEAD, chunked(bytes_of(STREAM)), b"0\r\n\r\n")
    assert (saw.complete, saw.wrong, saw.call_id, saw.received) == (True, "", "call_1", len(bytes_of(STREAM)))


def test_a_client_notices_one_byte_that_is_wrong_missing_or_too_many():
    body = bytes_of(STREAM)
    flipped = body[:40] + bytes([body[40] ^ 1]) + body[41:]
    for wrong in (flipped, body[:-1], body[1:], body + b"\n", body + body):
        saw = heard(STREAM, HEAD, chunked(wrong), b"0\r\n\r\n")
        assert saw.wrong
        assert not saw.complete


def test_what_arrived_of_an_answer_that_was_cut_off_must_be_its_beginning():
    body = bytes_of(STREAM)
    assert heard(STREAM, HEAD, chunked(body[:50])).wrong == ""
    assert not heard(STREAM, HEAD, chunked(body[:50])).complete
    assert heard(STREAM, HEAD, chunked(body[:49] + b"!")).wrong


def test_a_usage_event_that_was_not_hidden_is_counted_apart_from_wrong_bytes():
    hidden = replace(STREAM, ask_usage=False)
    assert not heard(hidden, HEAD, chunked(bytes_of(hidden)), b"0\r\n\r\n").revealed
    saw = heard(hidden, HEAD, chunked(bytes_of(STREAM)), b"0\r\n\r\n")
    assert (saw.complete, saw.revealed, saw.wrong) == (True, True, "")


def test_a_client_that_leaves_has_no_complaint():
    saw = heard(STREAM, HEAD, chunked(bytes_of(STREAM)), leave_bytes=10)
    assert (saw.left, saw.complete, saw.wrong) == (True, False, "")


def test_a_tally_knows_every_call_once():
    tally = Tally()
    whole = heard(STREAM, HEAD, chunked(bytes_of(STREAM)), b"0\r\n\r\n")
    tally.add(whole)
    assert tally.complete == {"call_1": (whole.units, whole.cost_nano)}
    assert not tally.wrong
    tally.add(whole)
    assert "two calls" in tally.wrong[0]


def sample(at_s: float, rss_kib: int, **more: Any) -> Sample:
    usual: dict[str, Any] = {"descriptors": 20, "threads": 5, "tasks": 3, "upstream": 2, "kinds": {"beat": 3}}
    return Sample(at_s=at_s, rss_kib=rss_kib, **{**usual, "opened": {"socket": 20}, **more})


def test_the_slope_is_that_of_the_line():
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 5), (0, 9)]) == slope([(3, 4)]) == 0.0


@pytest.mark.parametrize(("kib_per_s", "flat"), [(0, True), (5, True), (50, False)])
def test_memory_may_grow_at_first_and_must_be_level_then(kib_per_s: int, flat: bool):
    early = [sample(at, 50_000 + at * 400) for at in range(100)]
    late = [sample(at, 90_000 + (at - 100) * kib_per_s) for at in range(100, 201)]
    report = Report("soak")
    # 100 calls a second for 100 s, of 32 bytes each: 312 KiB, and 1,000 by themselves.
    judge_memory([*early, *late], 100.0, report, 1_000)
    assert not report.wrong if flat else "memory grew" in report.wrong[0]


def test_what_stays_open_or_running_is_a_leak_and_connections_to_the_provider_are_none():
    report = Report("soak")
    judge_rest(sample(0, 1), sample(9, 1, descriptors=50, upstream=32, opened={"socket": 50}), report)
    assert not report.wrong
    judge_rest(sample(0, 1), sample(9, 1, descriptors=24, opened={"socket": 24}), report)
    assert "4 descriptors more" in report.wrong[0]
    judge_rest(sample(0, 1), sample(9, 1, descriptors=23, opened={"socket": 20, "/a/db": 3}), Report("files"))
    # As many as before, but others.
    judge_rest(sample(0, 1), sample(9, 1, kinds={"beat": 2, "relay": 1}), report)
    assert "relay" in report.wrong[1]


def test_rows_are_repeated_with_other_names():
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE person (id TEXT, town TEXT, age INT)")
        connection.execute("INSERT INTO person VALUES ('ann', 'Bonn', 30), ('bob', 'Rome', 40)")
        repeat(connection, "person", 1, 3, {"id": "printf('p%d', i)"}, "id = 'ann'")
        rows = connection.execute("SELECT * FROM person ORDER BY id").fetchall()
    connection.close()
    assert rows == [("ann", "Bonn", 30), ("bob", "Rome", 40), *((f"p{i}", "Bonn", 30) for i in (1, 2, 3))]


def test_a_call_that_costs_much_more_in_a_large_database_is_noticed():
    keys = [f"k{number}" for number in range(5_000)]
    worlds = [World(count, 1, System("whole", 1), keys[:10], keys) for count in (10_000, 100_000)]
    report = Report("scale")
    judge(worlds, {("few", 0): 80, ("few", 1): 90, ("many", 0): 100, ("many", 1): 140}, report)
    assert not report.wrong
    judge(worlds, {("few", 0): 80, ("few", 1): 90, ("many", 0): 100, ("many", 1): 151}, report)
    assert "1.51 times" in report.wrong[0]
