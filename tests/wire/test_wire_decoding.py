"""Content codings undone piece by piece, and what is done about those that cannot be."""

import gzip
import hashlib
import zlib
from collections.abc import Callable

import brotli
import pytest
import zstandard
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.wire.decoding import Decoder
from gatekeeper.wire.tap import Tap

TEXT = b"".join(b'data: {"n":%d,"salt":"%s"}\n\n' % (n, hashlib.md5(b"%d" % n).hexdigest().encode()) for n in range(60))


def raw_deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def two_members(body: bytes) -> bytes:
    half = len(body) // 2
    return gzip.compress(body[:half]) + gzip.compress(body[half:]) + gzip.compress(b"")


CODINGS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "identity": ("identity", bytes),
    "absent": ("", bytes),
    "gzip": ("gzip", gzip.compress),
    "gzip in members": ("GZIP", two_members),
    "x-gzip": ("x-gzip", gzip.compress),
    "deflate": ("deflate", zlib.compress),
    "raw deflate": ("deflate", raw_deflate),
    "br": ("br", brotli.compress),
    "zstd": ("zstd", zstandard.compress),
    "zstd in frames": ("zstd", lambda body: zstandard.compress(body[:9]) + zstandard.compress(body[9:])),
    "gzip, br": ("gzip, br", lambda body: brotli.compress(gzip.compress(body))),
    "identity, zstd": ("identity,zstd", zstandard.compress),
}


def decoded(coding: str, packed: bytes, size: int) -> tuple[bytes, str | None]:
    decoder = Decoder(coding)
    pieces = [decoder.feed(packed[at : at + size]) for at in range(0, len(packed), size)]
    return b"".join(pieces) + decoder.finish(), decoder.error


@pytest.mark.parametrize("name", CODINGS)
def test_a_coding_is_undone_whatever_the_pieces(name: str) -> None:
    coding, pack = CODINGS[name]
    packed = pack(TEXT)
    for size in (1, 2, 7, 100, len(packed)):
        assert decoded(coding, packed, size) == (TEXT, None)


@examples(60)
@given(st.binary(max_size=300), st.sampled_from(sorted(CODINGS)), st.integers(1, 40))
def test_chunking_changes_nothing(body: bytes, name: str, size: int) -> None:
    coding, pack = CODINGS[name]
    assert decoded(coding, pack(body), size) == (body, None)


@pytest.mark.parametrize("letters", [0, 40_000, 3_000_000])  # brotli hands out 32 KiB at a time
@pytest.mark.parametrize("size", [None, 1])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_an_event_that_was_flushed_comes_out_at_once(coding: str, size: int | None, letters: int) -> None:
    event = b'data: {"text": "%s"}\n\n' % (b"x" * letters)
    if coding == "br":
        packer = brotli.Compressor()
        first = packer.process(event) + packer.flush()
    elif coding == "zstd":
        stream = zstandard.ZstdCompressor().compressobj()
        first = stream.compress(event) + stream.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    else:
        gz = zlib.compressobj(wbits=31 if coding == "gzip" else 15)
        first = gz.compress(event) + gz.flush(zlib.Z_SYNC_FLUSH)
    decoder = Decoder(coding)
    size = size or len(first)
    assert b"".join(decoder.feed(first[at : at + size]) for at in range(0, len(first), size)) == event
    assert decoder.error is None


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd"])
def test_a_body_that_stops_early_gives_what_came(coding: str) -> None:
    packed = CODINGS[coding][1](TEXT * 20)
    out, error = decoded(coding, packed[: len(packed) // 2], 50)
    assert error is None
    assert (TEXT * 20).startswith(out)
    assert len(out) > 1000 or coding in ("br", "zstd")  # these two give whole blocks only


def test_what_follows_the_last_gzip_member_is_ignored() -> None:
    for size in (1, 3, 10_000):
        assert decoded("gzip", gzip.compress(TEXT) + b"\0\0\0junk", size) == (TEXT, None)


@pytest.mark.parametrize("coding", ["compress", "gzip, foo", "gzip,gzip,gzip,gzip", "x" * 500])
def test_an_unknown_coding_is_an_error_from_the_start(coding: str) -> None:
    decoder = Decoder(coding)
    assert decoder.error is not None and len(decoder.error) < 100
    assert decoder.feed(TEXT) == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
def test_broken_bytes_are_an_error_and_no_exception(coding: str) -> None:
    for junk in (b"this is not compressed at all, not a bit of it", b"\xff" * 64):
        decoder = Decoder(coding)
        decoder.feed(junk)
        assert decoder.error is not None
        assert decoder.feed(CODINGS[coding][1](TEXT)) == b""


@pytest.mark.parametrize("coding", ["gzip", "br", "zstd", "gzip, br"])
def test_a_bomb_is_refused(coding: str) -> None:
    zeros = b"\0" * 40_000_000
    packed = brotli.compress(zeros, quality=4) if coding == "br" else CODINGS[coding][1](zeros)
    decoder = Decoder(coding)
    out = sum(len(decoder.feed(packed[at : at + 4096])) for at in range(0, len(packed), 4096))
    assert decoder.error is not None and "bomb" in decoder.error
    assert out < 40_000_000


def test_the_decoded_size_is_bounded() -> None:
    decoder = Decoder("gzip", decoded_bytes_max=1000)
    decoder.feed(gzip.compress(TEXT))
    assert decoder.error is not None and "too large" in decoder.error


def test_a_tap_reads_events_through_the_coding() -> None:
    tap = Tap("text/event-stream", "gzip")
    packed = gzip.compress(TEXT)
    events = [event for at in range(0, len(packed), 11) for event in tap.feed(packed[at : at + 11])[1]]
    assert [event.json["n"] for event in events] == list(range(60))
    assert [event.index for event in events] == list(range(60))
    assert (tap.decoded_bytes, tap.error, tap.dropped, tap.tail) == (len(TEXT), None, 0, b"")


def test_a_tap_with_an_unknown_coding_yields_nothing() -> None:
    tap = Tap("text/event-stream", "rot13")
    assert tap.feed(TEXT) == (b"", [])
    assert tap.finish(True) == []
    assert tap.error is not None


@examples(100)
@given(
    st.sampled_from(["text/event-stream", "application/json", "application/vnd.amazon.eventstream", "text/x", ""]),
    st.sampled_from(["", "gzip", "deflate", "br", "zstd", "br, gzip"]),
    st.lists(st.binary(max_size=60), max_size=5), st.booleans(),
)  # fmt: skip
def test_no_bytes_make_a_tap_raise(content_type: str, coding: str, chunks: list[bytes], clean: bool) -> None:
    tap = Tap(content_type, coding, event_bytes_max=50)
    for chunk in chunks:
        tap.feed(chunk)
    for event in tap.finish(clean):
        assert event.data is not None
    assert tap.dropped >= 0
