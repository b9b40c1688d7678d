"""NDJSON, JSON bodies and Amazon's frames: the same events however the bytes are cut."""

import base64
import json
import struct
import zlib
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.wire.framing import NoFramer, framer_for
from gatekeeper.wire.sse import SseParser

MAX = 1 << 24
AMAZON = "application/vnd.amazon.eventstream"


def run(
    content_type: str, pieces: list[bytes], *, clean: bool = True, bound: int = MAX
) -> tuple[list[Any], bytes, int]:
    framer = framer_for(content_type, bound)
    events = [event for piece in pieces for event in framer.feed(piece)] + framer.finish(clean)
    assert [event.index for event in events] == list(range(len(events)))
    return [(event.event, event.raw) for event in events], framer.tail, framer.dropped


def raws(content_type: str, body: bytes, **options: Any) -> list[bytes]:
    """The events' bytes, which must not depend on the pieces."""
    whole = run(content_type, [body], **options)
    for size in (1, 2, 3, 5, 7):
        assert run(content_type, [body[at : at + size] for at in range(0, len(body), size)], **options) == whole
    return [raw for _, raw in whole[0]]


def frame(name: str, payload: bytes, header: str = ":event-type") -> bytes:
    headers = b"\x03num\x04\x00\x00\x00\x07"
    for key, value in ((header, name), (":content-type", "application/json")):
        headers += bytes([len(key)]) + key.encode() + b"\x07" + struct.pack(">H", len(value)) + value.encode()
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", zlib.crc32(prelude)) + headers + payload
    return body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("content_type", "body", "events"),
    [
        ("application/json", b'{"a":1}', 1),
        ("Application/JSON; charset=UTF-8", b'\n\n{"a":1}\n', 1),
        ("application/problem+json", b'{"a":1}', 1),
        ("application/json", b" \n ", 0),
        ("application/json", b"", 0),
        ("application/octet-stream", b'{"a":1}', 1),
        ("", b' [{"a":1},{"a":2}]', 2),
        ("application/octet-stream", b"<html>{}</html>", 0),
        ("text/html", b'{"a":1}', 0),
        ("audio/mpeg", b"data: {}\n\n", 0),
        ("application/x-ndjson", b'{"a":1}\n\n{"a":2}', 2),
        ("application/stream+json", b'{"a":1}\r\n{"a":2}\r\n', 2),
        ("text/event-stream; charset=utf-8", b"data: {}\n\n", 1),
    ],
)
def test_the_content_type_chooses_the_framing(content_type: str, body: bytes, events: int) -> None:
    assert len(raws(content_type, body)) == events


def test_an_unknown_type_and_sse_have_framers_of_their_own() -> None:
    assert isinstance(framer_for("video/mp4", MAX), NoFramer)
    assert isinstance(framer_for("TEXT/EVENT-STREAM", MAX), SseParser)


def test_an_array_gives_each_element_as_it_completes() -> None:
    framer = framer_for("application/json", MAX)
    assert [event.json for event in framer.feed(b'[{"a":"]}\\""}')] == [{"a": ']}"'}]
    assert framer.feed(b"\r\n,\r\n{") == []
    assert [event.json for event in framer.feed(b'"b":[1,{}]},7,"x,y",[2]]')] == [{"b": [1, {}]}, 7, "x,y", [2]]
    assert framer.finish(True) == []


def test_a_cut_array_gives_its_whole_elements() -> None:
    body = b'[{"a":1}\n,\n{"a":2}\n,\n{"a":'
    for clean in (True, False):
        assert raws("application/json", body, clean=clean) == [b'{"a":1}', b'{"a":2}']
    assert run("application/json", [body])[1] == b'{"a":'


def test_a_cut_body_counts_only_as_json() -> None:
    assert raws("application/json", b'{"a":1', clean=False) == []
    assert raws("application/json", b'{"a":1', clean=True) == [b'{"a":1']
    assert raws("application/json", b'{"a":1}', clean=False) == [b'{"a":1}']
    assert raws("application/x-ndjson", b'{"a":1}\n{"b":', clean=False) == [b'{"a":1}']


def test_only_what_is_over_the_bound_is_dropped() -> None:
    big = b'{"a":"' + b"x" * 40 + b'"}'
    assert raws("application/x-ndjson", b"1\n" + big + b"\n2", bound=20) == [b"1", b"2"]
    assert raws("application/json", b"[1," + big + b',{"b":2}]', bound=20) == [b"1", b'{"b":2}']
    assert raws("application/json", big, bound=20) == []
    assert run("application/json", [big], bound=20)[2] == 1


def test_a_frame_is_an_event_named_by_its_type() -> None:
    body = (
        frame("messageStart", b"{}")
        + frame("metadata", b'{"usage":{}}')
        + frame("throttlingException", b"{}", ":exception-type")
    )
    assert run(AMAZON, [body])[0] == [
        ("messageStart", b"{}"), ("metadata", b'{"usage":{}}'), ("throttlingException", b"{}")
    ]  # fmt: skip
    assert len(raws(AMAZON, body)) == 3
    assert len(raws(AMAZON, body[:-1])) == 2


def test_a_chunk_frame_is_unpacked() -> None:
    inner = b'{"generation":"Hi"}'
    packed = json.dumps({"bytes": base64.b64encode(inner).decode(), "p": "ab"}).encode()
    assert raws(AMAZON, frame("chunk", packed)) == [inner]
    for odd in (b"no json", b'{"bytes":5}', b'{"bytes":"***"}', b"[]"):
        assert raws(AMAZON, frame("chunk", odd)) == [odd]


def test_a_damaged_frame_is_dropped_and_damaged_framing_ends_it() -> None:
    good, bad = frame("a", b"{}"), bytearray(frame("b", b"{}"))
    bad[-6] ^= 1
    assert raws(AMAZON, good + bytes(bad) + good) == [b"{}", b"{}"]
    assert run(AMAZON, [good + bytes(bad) + good])[2] == 1
    assert raws(AMAZON, good + b"not a frame at all" + good) == [b"{}"]
    assert run(AMAZON, [good + b"not a frame at all"])[1] == b"not a frame at all"


def test_a_frame_over_the_bound_is_skipped() -> None:
    body = frame("a", b"{}") + frame("b", b"x" * 400_000) + frame("c", b"{}")
    whole = run(AMAZON, [body], bound=1000)
    assert [name for name, _ in whole[0]] == ["a", "c"]
    assert whole[2] == 1
    assert run(AMAZON, [body[at : at + 999] for at in range(0, len(body), 999)], bound=1000) == whole


PIECES = st.sampled_from(
    [
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b'"',
        b"\\",
        b'\\"',
        b"a",
        b"1",
        b"\n",
        b"\r",
        b" ",
        b'{"a":1}',
        b"\xef\xbb\xbf",
        b"\xff",
    ]
) | st.sampled_from([frame("a", b"{}"), frame("chunk", b'{"bytes":"e30="}')])


@examples(200)
@given(
    st.lists(PIECES, max_size=20).map(b"".join), st.data(), st.booleans(), st.sampled_from([5, 9, MAX]),
    st.sampled_from(["application/json", "application/x-ndjson", AMAZON, "", "text/plain"]),
)  # fmt: skip
def test_chunking_changes_nothing(body: bytes, draw: st.DataObject, clean: bool, bound: int, kind: str) -> None:
    whole = run(kind, [body], clean=clean, bound=bound)
    places = sorted(draw.draw(st.lists(st.integers(0, len(body)), max_size=8)))
    pieces = [body[start:end] for start, end in zip([0, *places], [*places, len(body)], strict=True)]
    assert run(kind, pieces, clean=clean, bound=bound) == whole
    assert run(kind, [body[at : at + 1] for at in range(len(body))], clean=clean, bound=bound) == whole
