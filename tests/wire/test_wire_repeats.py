"""Events that are known by their bytes: they say exactly what they would say if they were read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.wire.events import Event
from gatekeeper.wire.ndjson import LineFramer
from gatekeeper.wire.repeats import Repeats
from gatekeeper.wire.signals import Signals
from gatekeeper.wire.tap import EVENT_BYTES_MAX, Tap
from gatekeeper.wire.usage import UsageFold

FIXTURES = Path(__file__).resolve().parents[2].parent / "shared" / "fixtures"
RECORDED = json.loads((FIXTURES / "expected.json").read_text()) if FIXTURES.exists() else []
SSE = "text/event-stream"


def said(fold: UsageFold, signals: Signals) -> tuple[Any, ...]:
    return fold.result(), signals.terminal, signals.error, signals.finished, signals.response_id, signals.text_bytes


def read_plainly(chunks: list[bytes], content_type: str, encoding: str = "", limit: int = EVENT_BYTES_MAX) -> Any:
    tap, fold, signals = Tap(content_type, encoding, event_bytes_max=limit), UsageFold(prefilter=False), Signals()
    events = [event for chunk in chunks for event in tap.feed(chunk)[1]] + tap.finish(True)
    for event in events:
        fold.feed(event)
        signals.feed(event)
    return len(events), tap.dropped, tap.tail, *said(fold, signals)


def read_skimming(
    chunks: list[bytes], content_type: str, encoding: str = "", limit: int = EVENT_BYTES_MAX
) -> tuple[Any, int]:
    """The same, and how many events were never made."""
    tap, fold, signals = Tap(content_type, encoding, event_bytes_max=limit), UsageFold(), Signals()
    repeats, count, skipped = Repeats(fold, signals, limit), 0, 0
    for chunk in chunks:
        decoded = tap.decode(chunk)
        wire = tap.skips is not None and tap.skips.idle
        if wire:
            known = repeats.skim(decoded)
            if known:
                assert tap.skips is not None
                tap.skips.skip(repeats.count)
                skipped += repeats.count
                decoded = decoded[known:]
        for number, event in enumerate(tap.frame(decoded)):
            assert event.index == count + skipped
            count += 1
            known = repeats.knows(event) or repeats.read(event)
            if known and wire and not number and repeats.unframed:
                repeats.learn_framing(event, decoded, lines=isinstance(tap.skips, LineFramer))
    for event in tap.finish(True):
        count += 1
        if not repeats.knows(event):
            repeats.read(event)
    return (count + skipped, tap.dropped, tap.tail, *said(fold, signals)), skipped


def read_by_events(chunks: list[bytes], content_type: str) -> tuple[Any, int]:
    """With events that are made, for slots; how many of them were known."""
    tap, fold, signals = Tap(content_type, ""), UsageFold(), Signals()
    repeats, known = Repeats(fold, signals, EVENT_BYTES_MAX), 0
    events = [event for chunk in chunks for event in tap.feed(chunk)[1]] + tap.finish(True)
    for event in events:
        if repeats.knows(event):
            known += 1
        else:
            repeats.read(event)
    return (len(events), tap.dropped, tap.tail, *said(fold, signals)), known


Maker = Callable[[str, int], str]


def chat(text: str, number: int) -> str:
    return (
        '{"id":"chatcmpl-1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":'
        f'{text}}},"finish_reason":null}}],"usage":null,"obfuscation":"{"abcdef"[: 1 + number % 6]}"}}'
    )


def responses(text: str, number: int) -> str:
    return (
        f'{{"type":"response.output_text.delta","sequence_number":{number},"item_id":"msg_1","delta":{text},'
        '"response_id":"resp_1"}'
    )


def gemini(text: str, number: int) -> str:
    counts = f'"promptTokenCount":8,"candidatesTokenCount":{number},"totalTokenCount":{number + 8}'
    return (
        f'{{"candidates":[{{"content":{{"parts":[{{"text":{text}}}]}}}}],"usageMetadata":{{{counts}}},'
        '"responseId":"r1"}'
    )


def claude(text: str, number: int) -> str:
    return f'{{"type":"content_block_delta","index":{number // 9},"delta":{{"type":"text_delta","text":{text}}}}}'


def perplexity(text: str, number: int) -> str:
    usage = f'{{"prompt_tokens":3,"completion_tokens":{number},"total_tokens":{number + 3}}}'
    return f'{{"id":"p1","choices":[{{"delta":{{"content":{text}}},"message":{{"content":{text}}}}}],"usage":{usage}}}'


def ollama(text: str, number: int) -> str:
    return f'{{"model":"m","created_at":"2025-01-01T00:00:0{number % 10}Z","response":{text},"done":false}}'


def openrouter(text: str, number: int) -> str:
    return (
        f'{{"id":"gen-1","choices":[{{"delta":{{"reasoning":{text},"reasoning_details":[{{"text":{text}}}]}}}}],'
        f'"n":{number}}}'
    )


def tools(text: str, number: int) -> str:
    call = f'{{"functionCall":{{"args":{{"n":{number},"s":{text}}}}}}}'
    return f'{{"id":"t","candidates":[{{"content":{{"parts":[{call}]}}}}]}}'


def code(text: str, number: int) -> str:
    return f'{{"id":"t","candidates":[{{"content":{{"parts":[{{"functionCall":{{"args":{{"s":{text}}}}}}}]}}}}]}}'


def thoughts(text: str, number: int) -> str:
    delta = f'{{"reasoning":{number % 9 % 7},"reasoning_details":[{{"text":{text}}}]}}'
    return f'{{"id":"gen-1","choices":[{{"delta":{delta}}}],"n":{number}}}'


MAKERS: list[Maker] = [chat, responses, gemini, claude, perplexity, ollama, openrouter, tools]
ODD_MAKERS: list[Maker] = [code, thoughts]
ODD = (
    "[DONE]", "{}", '{"error":{"message":"no"}}', '{"type":"message_stop"}', '{"type":"error"}', "text", '{"usage":{}}',
    '{"usage":{"prompt_tokens":5,"completion_tokens":1.5,"total_tokens":7}}', '{"usage":{"total_tokens":-1}}',
    '{"id":"late","choices":[{"finish_reason":"stop","delta":{}}]}', '{"usageMetadata":{"totalTokenCount":2}}',
)  # fmt: skip
FIRST = '"first"'
TEXTS = st.sampled_from(
    ['"a"', FIRST, '"\\n\\t"',
     '" the"', '"\\n"', '"ü"', '"日本"', '""', '"\\u00fc"', '"\\ud800"', '"x\\"y"', "null", "7", '"\\q"',
     '"a:b,{}"', '"error"', '"usage"']
)  # fmt: skip


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[bytes], str]:
    """Chunks of a stream whose events are much alike, and its content type."""
    maker = draw(st.sampled_from([*MAKERS, *ODD_MAKERS]))
    name = draw(
        st.sampled_from(["", "", "event: delta\n", "id: 7\nevent: error\n", '{"error":1}\n', f"{maker(FIRST, 1)}\n"])
    )
    end = draw(st.sampled_from(["\n\n", "\n\n", "\r\n\r\n", "\r\r", "\n:\n\n"]))
    lines = maker is ollama and draw(st.booleans())
    made: list[bytes] = []
    for number in range(draw(st.integers(8, 24))):
        odd = draw(st.integers(0, 11)) == 0
        payload = (
            draw(st.sampled_from(ODD)) if odd else maker(draw(TEXTS), number * draw(st.sampled_from([1, 1, 1, -1])))
        )
        raw = payload.encode("utf-8", "surrogatepass")
        if draw(st.integers(0, 30)) == 0:
            raw = raw.replace(b"a", b"\xff", 1)
        made.append(raw + b"\n" if lines else name.encode() + b"data: " + raw + end.encode())
    whole = b"".join(made)
    cut = draw(st.sampled_from(["events", "events", "pairs", "pieces"]))
    if cut == "pairs":
        made = [b"".join(made[at : at + 2]) for at in range(0, len(made), 2)]
    elif cut == "pieces":
        size = draw(st.integers(1, 300))
        made = [whole[at : at + size] for at in range(0, len(whole), size)]
    return made, "application/x-ndjson" if lines else SSE


@examples(200)
@given(streams(), st.sampled_from([EVENT_BYTES_MAX, 150]))
def test_a_known_event_says_what_it_would_say_if_it_were_read(stream: tuple[list[bytes], str], limit: int) -> None:
    chunks, content_type = stream
    assert read_skimming(chunks, content_type, limit=limit)[0] == read_plainly(chunks, content_type, limit=limit)
    assert read_by_events(chunks, content_type)[0] == read_plainly(chunks, content_type)


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_nearly_all_of_a_usual_stream_is_known(maker: Maker) -> None:
    words = ['"Hello"', '" there"', '", "', '"日本"', '" a"']
    end = "\n" if maker is ollama else "\n\n"
    content_type = "application/x-ndjson" if maker is ollama else SSE
    prefix = "" if maker is ollama else "data: "
    chunks = [f"{prefix}{maker(words[number % 5], 10 + number)}{end}".encode() for number in range(100)]
    plain = read_plainly(chunks, content_type)
    for read in (read_skimming, read_by_events):
        found, known = read(chunks, content_type)
        assert found == plain
        # Arguments of a tool call are counted as JSON text, in which a number has a length.
        assert (known == 0) if maker is tools else (known >= 80), (read, known)


@pytest.mark.skipif(not RECORDED, reason="the recorded responses are not on this machine")
@pytest.mark.parametrize("case", RECORDED, ids=lambda case: case["file"])
def test_a_recorded_response_is_the_same_whether_its_events_are_made_or_not(case: dict[str, Any]) -> None:
    body = (FIXTURES / case["file"]).read_bytes()
    content_type, encoding = case["content_type"], case["content_encoding"]
    for size in (200, len(body) or 1):
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        by_event = [part + b"\n\n" for part in body.split(b"\n\n")] if not encoding else chunks
        for pieces in (chunks, by_event):
            assert read_skimming(pieces, content_type, encoding)[0] == read_plainly(pieces, content_type, encoding)


def test_an_event_over_the_bound_is_not_known() -> None:
    event = Event(0, "message", "", b'{"id":"a","text":"b"}')
    repeats = Repeats(UsageFold(), Signals(), 10)
    assert not repeats.knows(event)
    assert repeats.skim(b"data: x\n\n") == 0


def event_of(text: str, before: str = "") -> bytes:
    return f'{before}data: {{"id":"c","choices":[{{"delta":{{"content":"{text}"}}}}]}}\n\n'.encode()


def argument_of(text: str) -> bytes:
    call = f'{{"functionCall":{{"name":"f","args":{{"code":"{text}"}}}}}}'
    return f'data: {{"id":"t","candidates":[{{"content":{{"parts":[{call}]}}}}]}}\n\n'.encode()


def thought_of(number: int, text: str) -> bytes:
    delta = f'{{"reasoning":{number},"reasoning_details":[{{"text":"{text}"}}]}}'
    return f'data: {{"id":"c","choices":[{{"delta":{delta}}}]}}\n\n'.encode()


def line_of(text: str) -> bytes:
    return event_of(text).removeprefix(b"data: ")[:-1]


WORDS = [f"word{number}" for number in range(30)]
HOSTILE = {
    "a stray error in every block, then another stray line": [
        *(event_of(word, '{"error":1}\n') for word in WORDS), b"odd\n",
        *(event_of(word, '{"error":1}\n') for word in WORDS),
    ],
    "stray lines that look like NDJSON": [
        *(line_of(word) + event_of(word) for word in WORDS), *(line_of("x" * 99) for _ in WORDS)
    ],
    "arguments of a tool call that are all escapes": [
        *(argument_of(word) for word in WORDS), *(argument_of("\\n\\t" * 20) for _ in WORDS)
    ],
    "a number that was never nothing": [
        *(thought_of(number + 1, word) for number, word in enumerate(WORDS)), *(thought_of(0, word) for word in WORDS)
    ],
    "a sample that is no UTF-8": [
        event_of("w"), *(event_of(word).replace(b"word", b"\xff\xc3ord") for word in WORDS[:8]), *map(event_of, WORDS)
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_no_structure_of_a_stream_makes_known_events_say_something_else(name: str) -> None:
    chunks = HOSTILE[name]
    assert read_skimming(chunks, SSE)[0] == read_plainly(chunks, SSE)
    assert read_by_events(chunks, SSE)[0] == read_plainly(chunks, SSE)


def test_a_known_event_of_megabytes_is_read_at_once_and_not_kept() -> None:
    words = [*(f'"w{number}"' for number in range(20)), '"' + "x" * 4_000_000 + '"']
    tap, fold, signals = Tap(SSE, ""), UsageFold(), Signals()
    repeats = Repeats(fold, signals, EVENT_BYTES_MAX)
    for word in words:
        raw = f"data: {gemini(word, 10)}\n\n".encode()
        if repeats.skim(raw) == len(raw):
            continue
        for event in tap.feed(raw)[1]:
            known = repeats.knows(event) or repeats.read(event)
            if known and repeats.unframed:
                repeats.learn_framing(event, raw)
    assert signals.text_bytes > 4_000_000
    assert fold._waiting is None
    assert fold.result() == {"input": 8, "output": 10, "total": 18}
