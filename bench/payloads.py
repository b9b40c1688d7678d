"""The bytes that the fake provider sends and the load clients expect. The rule: every byte can be checked.

An event of a stream carries the instant of its sending; the usage event carries the CRC-32 of all bytes before it.
"""

import re
import zlib
from collections.abc import Mapping

# The clock of both sides, in the payload as so many digits.
STAMP_DIGITS = 19
KEY_HEADER = "authorization"
# Tells the provider what to send: ``flat N``, ``paced N``, ``held N`` or ``late N``; without it the answer is JSON.
WISH_HEADER = "x-bench"
# In the head of a late stream: the instant at which its request had come.
CAME_HEADER = b"x-bench-came"

_EVENT_START = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{"content":"'
)
# OpenAI sends the null in every event once usage was asked for: the harder case for a meter.
_EVENT_END = b'"},"finish_reason":null}],"usage":null}\n\n'
STAMP_AT = len(_EVENT_START)
EVENT_BYTES = STAMP_AT + STAMP_DIGITS + len(_EVENT_END)
_FINISH = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini",'
    b'"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}\n\n'
)
_USAGE = (
    b'data: {"id":"chatcmpl-bench","object":"chat.completion.chunk","created":1760000000,"model":"gpt-4o-mini",'
    b'"system_fingerprint":"%08x","choices":[],"usage":{"prompt_tokens":42,"completion_tokens":100,"total_tokens":142}}'
    b"\n\n"
)
_DONE = b"data: [DONE]\n\n"

JSON_BODY = (
    b'{"id":"chatcmpl-bench","object":"chat.completion","created":1760000000,"model":"gpt-4o-mini","choices":[{"index":0,'
    b'"message":{"role":"assistant","content":"' + b"A short answer of the usual length. " * 9 + b'","refusal":null},'
    b'"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":42,"completion_tokens":100,"total_tokens":142,'
    b'"prompt_tokens_details":{"cached_tokens":0}},"service_tier":"default"}'
)
_MESSAGES = (
    '[{"role":"system","content":"You answer in one short paragraph."},'
    '{"role":"user","content":"What does a gateway cost, and who pays for it?"}]'
)


def event(stamp_ns: int) -> bytes:
    """One event of a stream, ``EVENT_BYTES`` long."""
    return b"%b%019d%b" % (_EVENT_START, stamp_ns, _EVENT_END)


def tail(crc: int, *, usage: bool = True) -> bytes:
    """What follows the last event; ``usage`` False as a client sees it who did not ask for the usage event."""
    return _FINISH + (_USAGE % crc if usage else b"") + _DONE


def crc_of(events: bytes) -> int:
    """The CRC-32 of all events and the finish event."""
    return zlib.crc32(_FINISH, zlib.crc32(events))


def whole(body: bytes, events: int, *, usage: bool = True) -> bool:
    """Whether a received body is a stream of so many events, complete and unchanged."""
    split = events * EVENT_BYTES
    return body[split:] == tail(crc_of(body[:split]), usage=usage)


_STAMP = re.compile(rb'"content": ?"\d{%d}"' % STAMP_DIGITS)


def stamps(body: bytes, start: int = 0) -> list[tuple[int, int]]:
    """(where it ends, its stamp) for each event from ``start`` on, however the event was written anew."""
    return [(found.end(), int(found[0][-STAMP_DIGITS - 1 : -1])) for found in _STAMP.finditer(body, start)]


def rewritten(body: bytes, events: int | None) -> bool:
    """Whether an answer that was written anew still says the same: all events, or the usage."""
    if events is None:
        return _TOTAL.search(body) is not None
    return len(stamps(body)) == events and b"[DONE]" in body


_TOTAL = re.compile(rb'"total_tokens": ?142')


def request(
    port: int, key: str, wish: str = "", *, ask_usage: bool = True, headers: Mapping[str, str] | None = None
) -> bytes:
    """A whole request, as a client of OpenAI sends it."""
    stream = ""
    if wish:
        stream = ',"stream":true' + (',"stream_options":{"include_usage":true}' if ask_usage else "")
    body = f'{{"model":"gpt-4o-mini","max_tokens":256{stream},"messages":{_MESSAGES}}}'
    fields = {
        "host": f"127.0.0.1:{port}",
        KEY_HEADER: f"Bearer {key}",
        "content-type": "application/json",
        "accept": "*/*",
        "user-agent": "bench",
        "content-length": str(len(body)),
    }
    if wish:
        fields[WISH_HEADER] = wish
    fields |= headers or {}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n{body}".encode()


def chunked(piece: bytes) -> bytes:
    """A piece in the framing of HTTP/1.1."""
    return b"%x\r\n%b\r\n" % (len(piece), piece)
