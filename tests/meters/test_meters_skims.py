"""Events that are passed by unmade change no reading, whatever meters look at the stream and however it is cut."""

import gzip
from typing import Any

import pytest
from fakes.effort import examples
from hypothesis import given
from hypothesis import strategies as st
from meters_reading import SSE

from gatekeeper.meters import Context, Metering, Outcome, RequestView, compile_meter

EXPRESSIONS = (
    "usage()", "json(sseLastData(allData)).usage.total_tokens ?? 1", "last(events, .json.usage.total_tokens)",
    "let u = merge(events, e => e.json.usage ?? e.json.message.usage); (u.input_tokens ?? 0) + (u.output_tokens ?? 0)",
    "events[-2].json.usage.total_tokens ?? 7", "sseEvents(allData)[-3].json.n ?? 2", "count(events)",
    "count(events, .json.usage.total_tokens > 3)", "any(events, .json.error == 'x')", "events[9].json.n",
    "sum(events, .json.usage.total_tokens ?? 1)", "max(events, .json.usage.total_tokens)", "last(events).index",
    "first(events, .json.usage)", "all(events, .json.usage == null)", "avg(events, .json.n)",
    "last(sseAllData(allData), json(#).usage)", "count(lines(allData))", "len(allData)", "last(events).id",
)  # fmt: skip
METERS = {text: compile_meter(text, context=Context.TRIAL) for text in EXPRESSIONS}


def openai(text: str, number: int) -> str:
    return f'{{"id":"c1","object":"chat.completion.chunk","choices":[{{"delta":{{"content":{text}}}}}],"usage":null}}'


def gemini(text: str, number: int) -> str:
    counts = f'"promptTokenCount":8,"totalTokenCount":{number + 8}'
    parts = f'"candidates":[{{"content":{{"parts":[{{"text":{text}}}]}}}}]'
    return f'{{{parts},"usageMetadata":{{{counts}}},"responseId":"r"}}'


def perplexity(text: str, number: int) -> str:
    usage = f'{{"prompt_tokens":3,"completion_tokens":{number},"total_tokens":{number + 3}}}'
    return f'{{"id":"p1","choices":[{{"delta":{{"content":{text}}}}}],"usage":{usage},"n":{number}}}'


def claude(text: str, number: int) -> str:
    return f'{{"type":"content_block_delta","index":{number // 9},"delta":{{"type":"text_delta","text":{text}}}}}'


def code(text: str, number: int) -> str:
    return f'{{"id":"t","candidates":[{{"content":{{"parts":[{{"functionCall":{{"args":{{"s":{text}}}}}}}]}}}}]}}'


def thoughts(text: str, number: int) -> str:
    delta = f'{{"reasoning":{number % 9 % 7},"reasoning_details":[{{"text":{text}}}]}}'
    return f'{{"id":"g1","choices":[{{"delta":{delta}}}],"n":{number},"usage":null}}'


FIRST = '"first"'
TEXTS = st.sampled_from(
    [
        '"a"',
        FIRST,
        '"\\n\\t"',
        '" the"',
        '"\\n"',
        '"ü"',
        '"日本"',
        '""',
        '"\\u00fc"',
        '"\\ud800"',
        '"x\\"usage\\":{"',
        "null",
        "7",
        '"usage"',
    ]
)
ODD = st.sampled_from(
    ["[DONE]", "", "{}", '{"usage":{"total_tokens":5}}', '{"usage" : {"total_tokens":6}}',
     '{"usage":{"total_tokens":2.5}}',
     '{"usage":null,"usage":{"total_tokens":9}}', '{"\\u0075sage":{"total_tokens":4}}', '{"error":"x"}', "no json",
     '{"n":3,"usage":null}', '{"a":"usage","usage":null}', '{"message":{"usage":{"input_tokens":4}},"usage":null}',
     '{"usage":"null"}', '{"usage":{"total_tokens":null}}', '{"n":\ndata: 4}', '{"usage":\ndata: null}']
)  # fmt: skip
ENDS = st.sampled_from(
    ["\n\n", "\n\n", "\n\n", "\r\n\r\n", "\r\r", "\n:\n\n", "\n\n: ping\n\n", "\nid: 4\n\n", "\n\n\n"]
)


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Chunks of a stream whose events are much alike: by events, by some of them, or anyhow."""
    maker = draw(st.sampled_from([openai, gemini, perplexity, claude, code, thoughts]))
    name = draw(st.sampled_from(["", "", "", "event: delta\n", "id: 7\n", '{"error":1}\n', f"{maker(FIRST, 1)}\n"]))
    end = draw(ENDS)
    made = [b"\xef\xbb\xbf"] if draw(st.integers(0, 9)) == 0 else []
    for number in range(draw(st.integers(8, 30))):
        odd = draw(st.integers(0, 9)) == 0
        payload = draw(ODD) if odd else maker(draw(TEXTS), number)
        other = draw(ENDS) if draw(st.integers(0, 19)) == 0 else end
        raw = f"{name}data: {payload}{other}".encode("utf-8", "surrogatepass")
        made.append(raw.replace(b"e", b"\xff", 1) if draw(st.integers(0, 30)) == 0 else raw)
    cut = draw(st.sampled_from([0, 0, 1, 3, 20]))
    if not cut:
        return made
    if cut > 1:
        return [b"".join(made[at : at + cut]) for at in range(0, len(made), cut)]
    whole, size = b"".join(made), draw(st.integers(1, 400))
    return [whole[at : at + size] for at in range(0, len(whole), size)]


def said(meters: tuple[str, ...], chunks: list[bytes], *, prefilter: bool) -> tuple[Any, ...]:
    metering = Metering({text: METERS[text] for text in meters}, RequestView(), prefilter=prefilter)
    metering.begin(200, SSE, "", {})
    meanwhile = []
    for chunk in chunks:
        metering.feed(chunk)
        meanwhile.append((metering.text_bytes, metering.decoded_bytes, metering.usage_so_far(), metering.terminal_seen))
    readings = metering.finish(Outcome.COMPLETE)
    return meanwhile, readings, metering.outcome, metering.response_id


@examples(200)
@given(st.sets(st.sampled_from(EXPRESSIONS), min_size=1, max_size=3), streams())
def test_what_is_passed_by_says_nothing_to_any_meter(meters: set[str], chunks: list[bytes]) -> None:
    chosen = tuple(sorted(meters))
    assert said(chosen, chunks, prefilter=True) == said(chosen, chunks, prefilter=False)


@pytest.mark.parametrize("text", EXPRESSIONS[:4])
@pytest.mark.parametrize("maker", [openai, claude])
def test_nearly_all_of_a_usual_stream_is_passed_by(text: str, maker: Any) -> None:
    metering = Metering({text: METERS[text]}, RequestView())
    metering.begin(200, SSE, "", {})
    for number in range(100):
        word = f'"word{number}"'
        metering.feed(f"data: {maker(word, number // 50)}\n\n".encode())
    assert metering._missed >= 40


def test_a_second_head_forgets_how_the_first_one_was_framed() -> None:
    lines = [claude(f'"word{number}"', 1).encode() + b"\n" for number in range(60)]
    packed = gzip.compress(b"".join(lines), compresslevel=0)
    start = packed.index(lines[0])
    chunks = [packed[:start], *lines, packed[start + sum(map(len, lines)) :]]
    assert b"".join(chunks) == packed
    metering = Metering({"usage": compile_meter("usage().total ?? 1")}, RequestView())
    metering.begin(503, "application/x-ndjson", "", {})
    metering.begin(200, "application/x-ndjson", "gzip", {})
    for chunk in chunks:
        metering.feed(chunk)
    metering.finish(Outcome.COMPLETE)
    assert metering.text_bytes == sum(len(f"word{number}") for number in range(60))
