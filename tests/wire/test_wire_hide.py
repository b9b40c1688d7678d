"""The one chunk that is taken out of a stream, and all the bytes that are not."""

import re
from pathlib import Path
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.wire.hide import HELD_BYTES_MAX, UsageHider
from gatekeeper.wire.sse import SseParser

STREAMS = Path(__file__).resolve().parents[1] / "streams"
FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"

TEXT = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":null}],"usage":null}\n\n'
FINISH = b'data: {"choices":[{"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
USAGE = b'data: {"choices":[],"usage":{"total_tokens":3}}\n\n'
AZURE = b'data: {"choices":[],"prompt_filter_results":[{}],"model":""}\n\n'
DONE = b"data: [DONE]\n\n"
KEEPALIVE = b": keep-alive\n\n"


def hidden(pieces: list[bytes]) -> bytes:
    hider = UsageHider()
    return b"".join([hider.feed(piece) for piece in pieces] + [hider.finish()])


def everywhere(body: bytes) -> bytes:
    """What comes out, which must not depend on the pieces."""
    whole = hidden([body])
    for at in range(len(body) + 1):
        assert hidden([body[:at], body[at:]]) == whole
    for size in (1, 2, 3, 5):
        assert hidden([body[at : at + size] for at in range(0, len(body), size)]) == whole
    return whole


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_exactly_the_usage_chunk_is_taken_out(end: bytes) -> None:
    body = b"".join([AZURE, TEXT, KEEPALIVE, FINISH, KEEPALIVE, USAGE, DONE]).replace(b"\n", end)
    assert everywhere(body) == b"".join([AZURE, TEXT, KEEPALIVE, FINISH, KEEPALIVE, DONE]).replace(b"\n", end)


def test_a_usage_chunk_without_its_blank_line_is_taken_out() -> None:
    for cut in (0, 1, 2):
        assert everywhere(TEXT + FINISH + USAGE[: len(USAGE) - cut]) == TEXT + FINISH


@pytest.mark.parametrize(
    "body",
    [
        TEXT + FINISH + DONE,
        TEXT + AZURE + FINISH + AZURE + DONE,
        USAGE + TEXT,  # before the finish chunk nothing may wait, so nothing is hidden
        TEXT + FINISH.replace(b"null}", b'{"total_tokens":3}}') + DONE,  # usage in the finish chunk itself
        TEXT + FINISH + b'data: {"choices":[],"usage":null}\n\n' + DONE,
        TEXT + FINISH + b'data: {"choices":[],"usage":{"total_tok',
        b"event: message_start\ndata: {}\n\n",
        b"no sse at all \r\r\n\n\r",
        b"",
    ],
)
def test_every_other_stream_passes_as_it_is(body: bytes) -> None:
    assert everywhere(body) == body


def test_only_one_chunk_is_taken_out() -> None:
    assert everywhere(TEXT + FINISH + USAGE + USAGE + DONE) == TEXT + FINISH + USAGE + DONE


def test_nothing_waits_before_the_finish_chunk() -> None:
    hider = UsageHider()
    body = TEXT + FINISH[:-1]
    for at in range(len(body)):
        assert hider.feed(body[at : at + 1]) == body[at : at + 1]
        assert not hider.pending


def test_bytes_wait_only_inside_an_event_after_the_finish_chunk() -> None:
    hider = UsageHider()
    assert hider.feed(FINISH + b"data: {") == FINISH
    assert hider.pending
    assert hider.feed(b'"choices":[]}\n\n') == b'data: {"choices":[]}\n\n'
    assert not hider.pending


def test_a_flush_releases_and_gives_that_event_up() -> None:
    hider = UsageHider()
    hider.feed(FINISH)
    assert hider.feed(USAGE[:20]) == b""
    assert hider.flush() == USAGE[:20]
    assert not hider.pending and hider.flush() == b""
    assert hider.feed(USAGE[20:] + DONE) == USAGE[20:] + DONE
    assert hider.feed(USAGE + DONE) == DONE


def test_a_flush_with_nothing_waiting_changes_nothing() -> None:
    hider = UsageHider()
    assert hider.feed(FINISH[:30]) == FINISH[:30]
    assert hider.flush() == b""
    assert hider.feed(FINISH[30:] + USAGE + DONE) == FINISH[30:] + DONE


def test_a_long_event_does_not_wait() -> None:
    long = b'data: {"choices":[],"usage":{"x":"' + b"x" * HELD_BYTES_MAX + b'"}}\n\n'
    hider = UsageHider()
    out = hider.feed(FINISH)
    for at in range(0, len(long), 1000):
        out += hider.feed(long[at : at + 1000])
        assert at + 1000 - (len(out) - len(FINISH)) <= HELD_BYTES_MAX + 1000
    assert out + hider.finish() == FINISH + long == hidden([FINISH + long])


@examples(200)
@given(
    st.lists(st.sampled_from([TEXT, FINISH, USAGE, AZURE, DONE, KEEPALIVE, b"\n", b"data: x\n", b"\xef"]), max_size=9),
    st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data(),
)  # fmt: skip
def test_chunking_changes_nothing(parts: list[bytes], end: bytes, draw: st.DataObject) -> None:
    body = b"".join(parts).replace(b"\n", end)
    places = sorted(draw.draw(st.lists(st.integers(0, len(body)), max_size=9)))
    pieces = [body[start:stop] for start, stop in zip([0, *places], [*places, len(body)], strict=True)]
    whole = hidden([body])
    assert hidden(pieces) == whole
    usage = USAGE.replace(b"\n", end)
    assert whole == body or len(body) - len(whole) >= len(usage) - 2 * len(end)


def is_usage(value: Any) -> bool:
    return isinstance(value, dict) and value.get("choices") == [] and isinstance(value.get("usage"), dict)


@pytest.mark.skipif(not FIXTURES.exists(), reason="the recorded responses are not on this machine")
def test_recorded_streams_lose_their_usage_chunk_and_nothing_else() -> None:
    changed = 0
    for path in sorted(FIXTURES.glob("*.sse")):
        body = path.read_bytes()
        outs = {hidden([body[at : at + size] for at in range(0, len(body), size)]) for size in (1, 7, 333, len(body))}
        assert len(outs) == 1
        out = outs.pop()
        before, after = events_of(body), events_of(out)
        lost = [raw for raw, value in before if is_usage(value)]
        if out == body:
            # Nothing to hide, or no finish chunk went before it: then nothing may wait.
            assert not lost or not re.search(rb'"finish_reason": ?"', body)
            continue
        changed += 1
        kept = next(at for at in range(len(body)) if body[at : at + 1] != out[at : at + 1])
        assert body.endswith(out[kept:])
        assert [raw for raw, _ in before if raw not in lost] == [raw for raw, _ in after]
        assert len(lost) == 1
    assert changed >= 10


def events_of(body: bytes) -> list[tuple[bytes, Any]]:
    parser = SseParser(1 << 20)
    return [(event.raw, event.json) for event in parser.feed(body) + parser.finish(True)]
