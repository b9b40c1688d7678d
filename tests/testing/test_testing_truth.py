"""The truth that comes with a made-up stream is what ``usage()`` reads, and what was asked for is what comes."""

import zlib

import brotli
import pytest
import zstandard
from fakes.effort import FACTOR, unhurried
from testing_dialects import ALWAYS_STREAMED, NEVER_STREAMED, STRATEGIES, sampled

from gatekeeper import testing
from gatekeeper.meters import Outcome
from gatekeeper.testing import any_streams, assert_chunking_law, assert_meters, openai_streams
from gatekeeper.testing.script import Framing, Habits, Script, Step, Switches
from gatekeeper.testing.wiring import draw_stream

# Where special things are made, and how many responses it takes to see all of them.
SPECIAL = {
    "openai": 80, "groq": 40, "responses": 80, "anthropic": 150, "gemini": 120, "cohere": 30, "ollama": 20,
    "bedrock": 30, "bedrock invoke": 60, "assistants": 40, "llamacpp": 30, "tgi": 30, "transcriptions": 30,
    "speech": 10, "replicate": 10,
}  # fmt: skip
PLAIN = {"errors": False, "cuts": False, "encodings": False, "noise": False}


@unhurried
@pytest.mark.parametrize("name", STRATEGIES)
def test_usage_reads_the_whole_truth_of_every_dialect(name):
    assert_meters("usage()", STRATEGIES[name](), reads="usage", examples=30 * FACTOR, seed=11)


@unhurried
def test_usage_reads_the_same_however_the_bytes_are_cut():
    assert_chunking_law("usage()", any_streams(), examples=100 * FACTOR, seed=12)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_switches_are_kept(name):
    make = STRATEGIES[name]
    for stream in sampled(make(usage=True), 10):
        assert stream.says_usage or not stream.says
    for stream in sampled(make(usage=False), 10):
        assert not stream.says_usage and not stream.says_total
    for stream in sampled(make(**PLAIN), 10):
        assert (stream.status, stream.outcome, stream.content_encoding) == (200, Outcome.COMPLETE, "")
        assert "error" not in stream.note and "line end" not in stream.note and stream.bytes == stream.plain
        assert b": keep-alive" not in stream.bytes and not stream.bytes.startswith(b"\xef\xbb\xbf")
    if name not in ALWAYS_STREAMED:
        for stream in sampled(make(streamed=False), 5):
            assert not stream.streamed
    if name not in NEVER_STREAMED:
        for stream in sampled(make(streamed=True), 5):
            assert stream.streamed


def test_a_switch_that_does_not_exist_is_refused():
    with pytest.raises(TypeError, match="usages"):
        openai_streams(usages=True)


@pytest.mark.parametrize("vendor", ["openia", (), ("openai", "nobody")])
def test_an_unknown_vendor_is_refused(vendor):
    with pytest.raises(ValueError, match="is not one of openai"):
        openai_streams(vendor)


ALL_NOTES = {
    "no usage", "usage under x_groq only", "usage under x_groq too", "error in the stream", "BOM", "cut",
    "no blank line at the end", "no line end at the end", "line ends '\\r'", "line ends '\\r\\n'", "server tool",
    "compaction", "delta has the output only", "delta repeats the input", "message_start twice", "incomplete",
    "failed", "failed with usage", "bare error at the end", "the prompt's count may fall", "v1", "v2", "converse",
    "anthropic inside", "llama inside", "exception in the stream", "the run is completed", "the run is incomplete",
    "the run is failed", "the run is requires_action", "timings alone", "usage and timings", "with the input",
    "seconds", "tokens", "audio", "text without usage",
}  # fmt: skip
ALL_TYPES = {
    "text/event-stream", "application/json", "application/x-ndjson", "application/stream+json", "text/plain",
    "audio/mpeg", "application/vnd.amazon.eventstream",
}  # fmt: skip
# What a seed makes depends on what else is loaded; several seeds make sure of what is rare.
SEEDS = 8


def missing_from(streams):
    """What should occur and has not yet."""
    notes = {note for stream in streams for note in stream.note.split(", ")}
    missing = ALL_NOTES - notes
    missing |= {"", "gzip", "br", "zstd", "deflate"} - {stream.content_encoding for stream in streams}
    missing |= ALL_TYPES - {stream.content_type.split(";")[0] for stream in streams}
    seen = {
        "status 429": any(stream.status == 429 for stream in streams),
        "a large one": any(len(stream.plain) > 65_536 for stream in streams),
        "half an emoji": any(b"\\ud83d" in stream.plain for stream in streams),
        "usage is null": any(b'"usage":null' in stream.plain for stream in streams),
        "partial usage": any(stream.usage is not None and not stream.says_usage for stream in streams),
        "an hour in the cache": any((stream.usage or {}).get("cache_write_1h") for stream in streams),
        "output alone": any(stream.says == "output" and stream.says_usage for stream in streams),
    }
    return missing | {name for name, found in seen.items() if not found}


def test_everything_special_occurs():
    streams = []
    for number in range(SEEDS):
        streams += [one for name, examples in SPECIAL.items() for one in sampled(STRATEGIES[name](), examples, number)]
        if not missing_from(streams):
            break
    assert missing_from(streams) == set()
    partial = [stream for stream in streams if stream.usage is not None and not stream.says_usage]
    assert all(stream.dialect == "anthropic" or "anthropic inside" in stream.note for stream in partial)


def test_any_streams_are_of_every_dialect():
    dialects = {
        "openai", "openai_responses", "openai_audio", "anthropic", "gemini", "cohere", "ollama", "bedrock",
        "assistants", "watsonx", "tgi", "replicate",
    }  # fmt: skip
    seen = set()
    for number in range(SEEDS):
        seen |= {(stream.dialect, stream.vendor) for stream in sampled(any_streams(), 250, number)}
        if {dialect for dialect, _ in seen} == dialects and len(seen) > 20:
            break
    assert {dialect for dialect, _ in seen} == dialects
    assert len(seen) > 20


@pytest.mark.parametrize(
    ("make", "known"),
    [(testing.bedrock_streams, "converse, invoke"), (testing.transcription_streams, "seconds, tokens"),
     (testing.embedding_answers, "openai, cohere, gemini, ollama")],
)  # fmt: skip
def test_a_word_that_is_not_known_is_refused(make, known):
    for wrong in ("nobody", ()):
        with pytest.raises(ValueError, match=f"is not among {known}"):
            make(wrong)


def test_the_coding_gives_back_the_body():
    undo = {
        "gzip": lambda body: zlib.decompressobj(31).decompress(body),
        "deflate": lambda body: zlib.decompressobj(15).decompress(body),
        "br": lambda body: brotli.Decompressor().process(body),
        "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body),
    }
    coded = [stream for stream in sampled(any_streams(), 120) if stream.content_encoding]
    assert {stream.outcome for stream in coded} == {Outcome.COMPLETE, Outcome.CUT}
    for stream in coded:
        assert undo[stream.content_encoding](stream.bytes) == stream.plain


def test_pieces_are_the_body():
    stream = sampled(openai_streams(**PLAIN), 1)[0]
    for sizes in ((), (1,), (7,), (3, 1, 100), (10**6,)):
        pieces = stream.pieces(sizes)
        assert b"".join(pieces) == stream.bytes and all(pieces)
    assert [len(piece) for piece in stream.pieces((3, 1, 100))[:4]] == [3, 1, 100, 3]


class _Scripted:
    """Draws that a test has decided: the cut's place, and the first of everything else."""

    def __init__(self, cut):
        self.cut, self.turn = cut, 0

    def __call__(self, strategy):
        self.turn += 1
        # The first is whether to cut (the last of 4 turns), the second where.
        return 4 if self.turn == 1 else self.cut


def test_the_truth_of_a_cut_is_that_of_the_last_step_which_has_arrived():
    early, late = {"total": 7}, {"total": 87}
    steps = (Step({"a": 1}, None), Step({"b": 2}, early), Step({"c": 3}, late), Step("[DONE]", late))
    script = Script("x", "x", Framing.SSE, "text/event-stream", steps, habits=Habits())
    switches = Switches(encodings=False, noise=False)
    whole = b'data: {"a":1}\n\ndata: {"b":2}\n\ndata: {"c":3}\n\ndata: [DONE]\n\n'
    for at in range(len(whole) + 1):
        stream = draw_stream(_Scripted(at), script, switches)
        assert (stream.plain, stream.outcome) == (whole[:at], Outcome.CUT)
        arrived = [step.usage for step, end in zip(steps, (13, 28, 43, 57), strict=True) if at >= end]
        assert stream.usage == (arrived[-1] if arrived else None), at


@pytest.mark.parametrize("name", ["openai", "anthropic", "gemini"])
def test_the_same_seed_makes_the_same_streams(name):
    assert sampled(STRATEGIES[name](), 20, 3) == sampled(STRATEGIES[name](), 20, 3)
    assert sampled(STRATEGIES[name](), 20, 3) != sampled(STRATEGIES[name](), 20, 4)
