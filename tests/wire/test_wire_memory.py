"""The bound on what the unfinished events of a whole process take."""

import gzip
from pathlib import Path

import pytest

from gatekeeper.meters import Mark, Metering, Outcome, RequestView, compile_meter
from gatekeeper.wire.memory import PAGE_BYTES, PROCESS, PROCESS_BYTES_MAX, EventMemory
from gatekeeper.wire.tap import Tap

STREAMS = Path(__file__).resolve().parents[1] / "streams"
FRAME = (STREAMS / "bedrock_converse.bin").read_bytes()
BEGUN = {
    "text/event-stream": b'data: {"a":"' + b"x" * 100_000,
    "application/x-ndjson": b'{"a":"' + b"x" * 100_000,
    "application/json": b'[{"n":1},{"a":"' + b"x" * 100_000,
    "application/vnd.amazon.eventstream": b"",
}
END = {
    "text/event-stream": b'"}\n\ndata: {"n":2}\n\n',
    "application/x-ndjson": b'"}\n{"n":2}\n',
    "application/json": b'"},{"n":2}]',
    "application/vnd.amazon.eventstream": b"",
}
TYPES = [kind for kind in BEGUN if BEGUN[kind]]


@pytest.mark.parametrize("kind", TYPES)
def test_the_event_that_does_not_fit_is_dropped_and_reading_goes_on(kind: str) -> None:
    memory = EventMemory(128 * 1024)
    first, second = Tap(kind, "", memory=memory), Tap(kind, "", memory=memory)
    first.feed(BEGUN[kind])
    assert 100_000 - PAGE_BYTES < memory.used <= 100_100
    second.feed(BEGUN[kind])
    assert (first.dropped, second.dropped) == (0, 1)
    assert memory.used <= 128 * 1024
    one = first.feed(END[kind])[1] + first.finish(True)
    other = second.feed(BEGUN[kind][-100:] + END[kind])[1] + second.finish(True)
    assert one[-1].json == other[-1].json == {"n": 2}
    assert len(one) == len(other) + 1 or kind == "application/json"
    assert memory.used == 0


def test_a_frame_that_does_not_fit_is_passed_over_to_the_next_one() -> None:
    whole = Tap("application/vnd.amazon.eventstream", "").feed(FRAME)[1]
    first = int.from_bytes(FRAME[:4])
    tap = Tap("application/vnd.amazon.eventstream", "", memory=EventMemory(0))
    tap.feed(FRAME[: first - 1])
    tap._framer.drop()
    rest = tap.feed(FRAME[first - 1 :])[1]
    assert [event.raw for event in rest] == [event.raw for event in whole[1:]]
    assert tap.dropped == 1


def test_a_tap_that_nobody_finished_gives_back_what_it_held() -> None:
    memory = EventMemory()
    tap = Tap("text/event-stream", "", memory=memory)
    tap.feed(BEGUN["text/event-stream"])
    assert memory.used > 0
    del tap
    assert memory.used == 0


def test_what_is_held_is_that_of_the_decoded_bytes() -> None:
    memory = EventMemory()
    tap = Tap("text/event-stream", "gzip", memory=memory)
    tap.feed(gzip.compress(BEGUN["text/event-stream"]))
    assert memory.used > 90_000
    tap.finish(False)
    assert memory.used == 0


def test_a_process_has_one_bound_and_a_stream_past_it_is_an_error_and_no_charge_of_nothing() -> None:
    assert PROCESS.bytes_max == PROCESS_BYTES_MAX == 256 * 1024 * 1024
    before = PROCESS.used
    assert PROCESS.moved(0, PROCESS_BYTES_MAX - before - PAGE_BYTES)
    try:
        metering = Metering({"m": compile_meter("usage().total")}, RequestView())
        metering.begin(200, "text/event-stream", "", {})
        metering.feed(BEGUN["text/event-stream"])
        metering.feed(END["text/event-stream"])
        reading = metering.finish(Outcome.COMPLETE)["m"]
    finally:
        PROCESS.moved(PROCESS_BYTES_MAX - before - PAGE_BYTES, 0)
    assert (reading.source, reading.units) == (Mark.ERROR, None)
    assert "too much for memory" in (reading.note or "")
    assert PROCESS.used == before
