"""What a provider says, known beforehand to the byte and to the nano-dollar: an answer is a function of its wish.

The rule: whoever asks and whoever answers make the same bytes out of the same few numbers, and never send them to each
other. A wish travels as the text of the request's only message.
"""

import json
import random
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

# So many different answers of each kind; an id of its own makes every one of them unlike all others.
SHAPES = 64
OUTPUT_TOKENS_MAX = 4_096
_MARK = b"@@@@@@@@@@@@"
_ID = b"%012x"
# Of all shapes one in so many is a long answer.
_LONG_EVERY = 16
# Two and three and four bytes in UTF-8, what JSON must escape, and what looks like the framing around it.
_WORDS = ("a", " costs", " é", " 漢字", " 🧾", "\n", '"', "\\", "data: ", " [DONE]", " usage", "\u2028", "\t")
# Nano-dollars a token, as PRICES says.
_CHAT_NANO = {"input": 2_500, "cached": 1_250, "output": 10_000}
_MESSAGES_NANO = {"input": 3_000, "cached": 300, "write": 3_750, "output": 15_000}
PRICES = """
[[prices]]
model = "truth-chat"
input = "2.50"
cached_input = "1.25"
output = "10"
per = "1M tokens"
[[prices]]
model = "truth-messages"
input = "3"
cached_input = "0.30"
cache_write = "3.75"
output = "15"
per = "1M tokens"
"""


class Dialect(StrEnum):
    """Whose API."""

    CHAT = "chat"
    MESSAGES = "messages"


class Fault(StrEnum):
    """What the provider does instead of answering well. GATE answers well, but waits for a word after its first
    event; FLOOD sends as many MiB of one event as the shape says."""

    NONE = "none"
    ERROR = "error"
    REFUSE = "refuse"
    RESET = "reset"
    TRUNCATE = "truncate"
    STALL_HEAD = "stall_head"
    STALL_BODY = "stall_body"
    GATE = "gate"
    FLOOD = "flood"


PATHS = {Dialect.CHAT: "/v1/chat/completions", Dialect.MESSAGES: "/v1/messages"}
MODELS = {Dialect.CHAT: "truth-chat", Dialect.MESSAGES: "truth-messages"}
ERROR_BODY = b'{"error":{"message":"The model is overloaded.","type":"server_error","param":null,"code":null}}'


@dataclass(frozen=True, slots=True)
class Wish:
    """One call. ``number`` is no other call's; ``pause_ms`` stands between two pieces of the answer."""

    number: int
    dialect: Dialect
    stream: bool
    shape: int
    ask_usage: bool = True
    fault: Fault = Fault.NONE
    pause_ms: int = 0

    def words(self) -> str:
        """The text of the message, which tells the provider what to say."""
        return f"{self.number:x} {self.shape} {self.fault} {self.pause_ms}"

    def body(self) -> bytes:
        """The request's body."""
        asked: dict[str, object] = {
            "model": MODELS[self.dialect],
            "max_tokens": OUTPUT_TOKENS_MAX,
            "messages": [{"role": "user", "content": self.words()}],
        }
        if self.stream:
            asked["stream"] = True
            if self.dialect is Dialect.CHAT and self.ask_usage:
                asked["stream_options"] = {"include_usage": True}
        return json.dumps(asked).encode()


def wished(path: str, asked: dict[str, Any]) -> Wish:
    """A wish, out of a request as the provider sees it (which the gateway may have asked to add its usage)."""
    (message,) = asked["messages"]
    content = message["content"]
    # The SDK of Anthropic and its users may write a list of blocks.
    number, shape, fault, pause_ms = (content if isinstance(content, str) else content[0]["text"]).split()
    return Wish(
        number=int(number, 16),
        dialect=Dialect.MESSAGES if path.endswith(PATHS[Dialect.MESSAGES]) else Dialect.CHAT,
        stream=bool(asked.get("stream")),
        shape=int(shape),
        ask_usage=bool((asked.get("stream_options") or {}).get("include_usage")),
        fault=Fault(fault),
        pause_ms=int(pause_ms),
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """``shown`` is what a client sees who did not ask for usage. ``text`` is what an SDK must make of it."""

    body: bytes
    shown: bytes
    text: str
    units: int
    cost_nano: int


def bytes_of(wish: Wish) -> bytes:
    """The body that comes in answer to a wish, if nothing goes wrong."""
    found = answer(wish.dialect, wish.stream, wish.shape)
    hides = wish.stream and wish.dialect is Dialect.CHAT and not wish.ask_usage
    return (found.shown if hides else found.body).replace(_MARK, _ID % wish.number)


@cache
def answer(dialect: Dialect, stream: bool, shape: int) -> Answer:
    """One of the answers, with a mark where the id of the call will stand."""
    chance = random.Random(f"{dialect} {stream} {shape}")
    count = chance.randint(200, 400) if shape % _LONG_EVERY == 0 else chance.randint(1, 40)
    words = [chance.choice(_WORDS) for _ in range(count)]
    return (_chat if dialect is Dialect.CHAT else _messages)(chance, words, stream)


def _json(value: object, chance: random.Random) -> bytes:
    """As one provider writes it or another."""
    separators = chance.choice([(",", ":"), (", ", ": ")])
    return json.dumps(value, ensure_ascii=chance.random() < 0.5, separators=separators).encode()


def _chat(chance: random.Random, words: list[str], stream: bool) -> Answer:
    sent, output = chance.randint(5, 2_000), chance.randint(len(words), OUTPUT_TOKENS_MAX)
    cached = chance.randint(0, sent) if chance.random() < 0.5 else 0
    usage = {
        "prompt_tokens": sent,
        "completion_tokens": output,
        "total_tokens": sent + output,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
    cost = (sent - cached) * _CHAT_NANO["input"] + cached * _CHAT_NANO["cached"] + output * _CHAT_NANO["output"]
    text, units = "".join(words), sent + output
    made = {"id": f"chatcmpl-{_MARK.decode()}", "created": 1_760_000_000, "model": MODELS[Dialect.CHAT]}
    if not stream:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        body = _json({**made, "object": "chat.completion", "choices": [choice], "usage": usage}, chance)
        return Answer(body, body, text, units, cost)
    made["object"] = "chat.completion.chunk"
    end = chance.choice([b"\n\n", b"\r\n\r\n"])
    events = [
        _json({**made, "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}, chance)
        for word in words
    ]
    events.append(_json({**made, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, chance))
    begun = b"".join(b"data: " + event + end for event in events)
    if chance.random() < 0.3:
        begun = b": a comment" + end + begun
    said = b"data: " + _json({**made, "choices": [], "usage": usage}, chance) + end
    done = b"data: [DONE]" + end
    return Answer(begun + said + done, begun + done, text, units, cost)


def _messages(chance: random.Random, words: list[str], stream: bool) -> Answer:
    sent, output = chance.randint(5, 2_000), chance.randint(len(words), OUTPUT_TOKENS_MAX)
    cached, written = (chance.randint(0, 5_000), chance.randint(0, 500)) if chance.random() < 0.5 else (0, 0)
    usage = {"input_tokens": sent, "cache_read_input_tokens": cached, "cache_creation_input_tokens": written}
    prices = _MESSAGES_NANO
    cost = sent * prices["input"] + cached * prices["cached"] + written * prices["write"] + output * prices["output"]
    text, units = "".join(words), sent + cached + written + output
    made: dict[str, Any] = {
        "id": f"msg_{_MARK.decode()}",
        "type": "message",
        "role": "assistant",
        "model": MODELS[Dialect.MESSAGES],
    }
    made["stop_sequence"] = None
    if not stream:
        content = [{"type": "text", "text": text}]
        whole = {**made, "content": content, "stop_reason": "end_turn", "usage": {**usage, "output_tokens": output}}
        body = _json(whole, chance)
        return Answer(body, body, text, units, cost)
    started = {**made, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    events: list[dict[str, object]] = [
        {"type": "message_start", "message": started},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
    ]
    events += [
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}} for word in words
    ]
    stop = {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}}
    events += [
        {"type": "content_block_stop", "index": 0},
        {**stop, "usage": {"output_tokens": output}},
        {"type": "message_stop"},
    ]
    body = b"".join(b"event: %s\ndata: %s\n\n" % (str(one["type"]).encode(), _json(one, chance)) for one in events)
    return Answer(body, body, text, units, cost)
