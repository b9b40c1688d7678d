"""What metering costs: ``python -m bench.meter`` prints every figure beside the one that it is held against.

The rule: ratios to `orjson.loads` of the same bytes, measured in the same minute; a figure over its target is marked.
"""

import gc
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from typing import NamedTuple

import orjson

from gatekeeper.meters import Metering, Outcome, RequestView, compile_meter
from gatekeeper.meters.run import Run
from gatekeeper.meters.slots import Slot
from gatekeeper.wire.events import Event
from gatekeeper.wire.usage import UsageFold

SSE = "text/event-stream"
SHIPPED = (
    "usage().total",
    "usage()",
    "json(sseLastData(allData)).usage.total_tokens ?? 1",
    "len(response.data)",
)
OWN = (
    "last(events, .json.usage.total_tokens)",
    "let u = merge(events, e => e.json.usage ?? e.json.message.usage); (u.input_tokens ?? 0) + (u.output_tokens ?? 0)",
)
# The targets, from the issue and the notes on the data path.
REJECTED_MAX, PARSED_MAX = 0.3, 2.0
COMPILE_MS_MAX, GRAMMAR_MS_MAX, MEMORY_BYTES_MAX = 1.0, 20.0, 4096
EVENTS = 2000
_WORDS = ("Hello", " there", ",", " the", " quick", " brown", " fox", " jumps", " over", " it", ".", "\\n", " grüße")


class Stream(NamedTuple):
    """A provider's stream, as one chunk an event."""

    name: str
    chunks: tuple[bytes, ...]


def openai() -> Stream:
    """Chat completions, with ``"usage":null`` in every chunk."""
    head = '{"id":"chatcmpl-Bx81kq","object":"chat.completion.chunk","created":1747000000,"model":"gpt-4o","choices":['
    made = [
        f'data: {head}{{"index":0,"delta":{{"content":"{word}"}},"finish_reason":null}}],"usage":null}}\n\n'
        for word in _words()
    ]
    usage = '"usage":{"prompt_tokens":78,"completion_tokens":2000,"total_tokens":2078}'
    return Stream("openai", _encoded([*made, f"data: {head}],{usage}}}\n\n", "data: [DONE]\n\n"]))


def openai_padded() -> Stream:
    """The same as it looks since 2025: padded with random letters."""
    head = '{"id":"chatcmpl-Bx81kq","object":"chat.completion.chunk","created":1747000000,"model":"gpt-4o","choices":['
    made = [
        f'data: {head}{{"index":0,"delta":{{"content":"{word}"}},"finish_reason":null}}],"usage":null,'
        f'"obfuscation":"{"aQ7xZ2kLmN0pR"[: 13 - len(word)]}{number % 10}"}}\n\n'
        for number, word in enumerate(_words())
    ]
    return Stream("openai padded", _encoded([*made, "data: [DONE]\n\n"]))


def responses() -> Stream:
    """OpenAI Responses: named events with a number in each."""
    made = [
        'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","sequence_number":'
        f'{number},"item_id":"msg_68a1","output_index":0,"content_index":0,"delta":"{word}","logprobs":[]}}\n\n'
        for number, word in enumerate(_words())
    ]
    usage = '{"input_tokens":9,"output_tokens":5,"total_tokens":14}'
    end = f'{{"type":"response.completed","response":{{"id":"resp_1","usage":{usage}}}}}'
    return Stream("responses", _encoded([*made, f"event: response.completed\ndata: {end}\n\n"]))


def anthropic() -> Stream:
    """Messages: named events, usage at the beginning and near the end."""
    start = '{"type":"message_start","message":{"id":"msg_1","usage":{"input_tokens":25,"output_tokens":1}}}'
    made = [
        'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta",'
        f'"text":"{word}"}}}}\n\n'
        for word in _words()
    ]
    delta = '{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2000}}'
    end = f'event: message_delta\ndata: {delta}\n\nevent: message_stop\ndata: {{"type":"message_stop"}}\n\n'
    return Stream("anthropic", _encoded([f"event: message_start\ndata: {start}\n\n", *made, end]))


def gemini() -> Stream:
    """Gemini: growing usage in every event, CRLF."""
    made = [
        f'data: {{"candidates":[{{"content":{{"parts":[{{"text":"{word}"}}],"role":"model"}},"index":0}}],'
        f'"usageMetadata":{{"promptTokenCount":8,"candidatesTokenCount":{number},"totalTokenCount":{number + 8}}},'
        '"modelVersion":"gemini-2.5-flash","responseId":"yx3"}\r\n\r\n'
        for number, word in enumerate(_words())
    ]
    return Stream("gemini", _encoded(made))


STREAMS = (openai, openai_padded, responses, anthropic, gemini)


def _words() -> Iterator[str]:
    return (_WORDS[number % len(_WORDS)] for number in range(EVENTS))


def _encoded(made: list[str]) -> tuple[bytes, ...]:
    return tuple(text.encode() for text in made)


def best_us(work: Callable[[], object], count: int, rounds: int = 7) -> float:
    """Microseconds for one of ``count`` pieces of work; the best of some rounds, which noise disturbs least."""
    times = []
    gc.disable()
    try:
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
    finally:
        gc.enable()
    return min(times) / count * 1e6


def metered(chunks: tuple[bytes, ...], texts: tuple[str, ...], **how: bool) -> Metering:
    """A metering with these meters after these chunks."""
    metering = Metering({text: _METERS[text] for text in texts}, RequestView(), **how)
    metering.begin(200, SSE, "", {})
    for chunk in chunks:
        metering.feed(chunk)
    return metering


_METERS = {text: compile_meter(text) for text in (*SHIPPED, *OWN)}


def _row(name: str, *cells: str) -> None:
    print(f"  {name:44}" + "".join(f"{cell:>18}" for cell in cells))


def _against(ratio: float, target: float) -> str:
    return f"{ratio:.2f}x" + (" OVER" if ratio > target else "")


def print_events() -> None:
    """One event against one slot: where the prefilter rejects it, and where it is parsed."""
    plain = openai().chunks[0].removeprefix(b"data: ").strip()
    usage = openai().chunks[-2].removeprefix(b"data: ").strip()
    loads = {raw: best_us(lambda raw=raw: [orjson.loads(raw) for _ in range(50)], 50, 200) for raw in (plain, usage)}
    print(f"one event, {len(plain)} bytes (orjson.loads {loads[plain]:.2f} us) and {len(usage)} bytes "
          f"({loads[usage]:.2f} us); targets {REJECTED_MAX}x and {PARSED_MAX}x")  # fmt: skip
    _row("", "rejected us", "of orjson", "parsed us", "of orjson")
    for text in (SHIPPED[0], SHIPPED[2], *OWN):
        us = [_one_event_us(raw, text) for raw in (plain, usage)]
        _row(text[:44], f"{us[0]:.2f}", _against(us[0] / loads[plain], REJECTED_MAX), f"{us[1]:.2f}",
             _against(us[1] / loads[usage], PARSED_MAX))  # fmt: skip


def _one_event_us(raw: bytes, text: str) -> float:
    """Microseconds for an event that a slot (or the fold of usage) looks at first: its parsing, not its making."""
    times = []
    take = _taker(text)
    for _ in range(200):
        # Few at a time: what two thousand parsed events take in memory would be measured, not their parsing.
        events = [Event(number, "message", "", raw) for number in range(50)]
        gc.disable()
        start = time.perf_counter()
        for event in events:
            take(event)
        times.append(time.perf_counter() - start)
        gc.enable()
    return min(times) / 50 * 1e6


def _taker(text: str) -> Callable[[Event], None]:
    if text.startswith("usage"):
        fold = UsageFold()
        fold.feed(Event(0, "message", "", openai().chunks[0][6:-2]))
        return fold.feed
    meter = _METERS[text]
    run: Run = meter.run(RequestView())
    return Slot(meter.plans[0], run).take


def print_streams() -> None:
    """The whole path of a chunk: decoding, framing, usage, signals, slots."""
    print(
        f"\none chunk of a stream of {EVENTS}: framing, usage, signals and slots (us; beside orjson.loads of its data)"
    )
    _row("", "bytes", "orjson", "usage().total", "headline", "both + usage()")
    for make in STREAMS:
        stream = make()
        chunks = stream.chunks
        loads = best_us(lambda chunks=chunks: [_loaded(chunk) for chunk in chunks[1:-2]], len(chunks) - 3)
        cells = [
            best_us(lambda chunks=chunks, texts=texts: metered(chunks, texts), len(chunks))
            for texts in ((SHIPPED[0],), (SHIPPED[2],), SHIPPED[:3])
        ]
        _row(stream.name, str(sum(map(len, chunks)) // len(chunks)), f"{loads:.2f}", *(f"{us:.2f}" for us in cells))
        joined = tuple(b"".join(chunks[at : at + 20]) for at in range(0, len(chunks), 20))
        us = best_us(lambda joined=joined: metered(joined, SHIPPED[:1]), len(chunks))
        _row(f"{stream.name}, 20 in one read", "", "", f"{us:.2f}")


def _loaded(chunk: bytes) -> object:
    return orjson.loads(chunk[chunk.index(b"{") :])


def print_compile() -> None:
    """Compiling, loading the grammar, and what one call costs."""
    print(f"\ncompile (ms; target {COMPILE_MS_MAX})")
    for text in (*SHIPPED, *OWN):
        ms = best_us(lambda text=text: [compile_meter(text) for _ in range(20)], 20) / 1000
        _row(text[:44], f"{ms:.3f}" + (" OVER" if ms > COMPILE_MS_MAX else ""))
    script = ("import time; from gatekeeper.meters import parse; s = time.perf_counter(); parse._grammar();"
              "print(time.perf_counter() - s)")  # fmt: skip
    loads = [
        float(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout) for _ in "12345"
    ]
    ms = min(loads) * 1000
    over = " OVER" if ms > GRAMMAR_MS_MAX else ""
    print(f"\nloading the grammar, fresh process: {ms:.1f} ms (target {GRAMMAR_MS_MAX}){over}")
    us = best_us(lambda: [_one_call() for _ in range(200)], 200)
    print(f"one call without a chunk (begin, finish, two readings): {us:.1f} us")


def _one_call() -> None:
    metering = Metering({"meter": _METERS[SHIPPED[0]], "usage": _METERS[SHIPPED[1]]}, RequestView())
    metering.begin(200, SSE, "", {})
    metering.finish(Outcome.COMPLETE)


def print_memory() -> None:
    """What a stream holds after 2,000 events, measured by the allocator over many streams."""
    print(f"\nmemory of one open stream, beyond the current event (bytes; target {MEMORY_BYTES_MAX})")
    _row("", *(make().name for make in STREAMS))
    for texts in (*((text,) for text in SHIPPED), SHIPPED[:2]):
        cells = []
        for make in STREAMS:
            chunks = make().chunks[:-1]
            metered(chunks, texts)
            tracemalloc.start()
            held = [metered(chunks, texts) for _ in range(20)]
            size = tracemalloc.get_traced_memory()[0] // len(held)
            tracemalloc.stop()
            cells.append(f"{size}" + (" OVER" if size > MEMORY_BYTES_MAX else ""))
        _row(" and ".join(texts)[:44], *cells)


def main() -> None:
    """Prints the tables."""
    print(f"python {sys.version.split()[0]}, orjson {orjson.__version__}; best of 7 rounds")
    print_events()
    print_streams()
    print_compile()
    print_memory()


if __name__ == "__main__":
    main()
