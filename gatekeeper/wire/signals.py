"""What a stream says besides usage: that it is over, that it failed, its id, and how much text went out.

The rule: a few dictionary steps on JSON that is parsed once; nothing raises; text is never counted short.

How exact ``text_bytes`` is: the UTF-8 bytes of every string under the keys that carry output in the known dialects
(content, reasoning, refusals, transcripts, names and arguments of tool calls), each counted once, also where a
provider repeats the whole at the end. Errors go upwards: tool arguments sent as JSON objects count with their
punctuation, SSE data that is no JSON counts whole, and so does an event of a dialect not known here if it uses one of
these keys. Not counted: base64 audio and images, encrypted reasoning, token ids.
"""

from typing import Any

import orjson

from gatekeeper.wire.events import Event, parse_exact

_ID_CHARACTERS_MAX = 256
# An answer's id stands in its first events or nowhere.
_ID_EVENTS_MAX = 8
# Nobody nests text deeper: response > choice > delta > message > content > part > text > value.
_DEPTH_MAX = 12

# Keys under which text stands as a string, and keys that lead to it.
_TEXT = frozenset({
    "text", "content", "reasoning", "reasoning_content", "thinking", "refusal", "arguments", "partial_json", "value",
    "generated_text", "transcript", "tool_plan", "code", "output", "input", "name", "logs",
})  # fmt: skip
_INTO = frozenset({
    "choices", "delta", "message", "content", "candidates", "parts", "part", "tool_calls", "function_call", "function",
    "results", "token", "content_block", "contentBlock", "output", "summary", "text", "reasoning", "refusal", "audio",
    "thinking", "reasoning_details", "functionCall", "executableCode", "codeExecutionResult", "reasoningContent",
    "reasoningText", "toolUse", "start", "step_details", "code_interpreter", "custom", "outputs",
})  # fmt: skip
# Arguments of tool calls that come as an object: counted as JSON text.
_OBJECTS = frozenset({"args", "input", "arguments", "parameters"})
# At the top of an event only these are text: `delta` of Responses, `response` of Ollama, others of one-field dialects.
_TOP_TEXT = frozenset({
    "delta", "text", "response", "thinking", "generated_text", "generation", "completion", "outputText",
})  # fmt: skip
# Values of `type`, of the event's name and of `object` after which nothing more of the answer comes.
_TERMINAL = frozenset({
    "message_stop", "response.completed", "response.incomplete", "response.failed", "response.cancelled",
    "message-end", "stream-end", "chat.completion.done", "done", "metadata", "speech.audio.done",
    "transcript.text.done", "thread.run.completed", "thread.run.failed", "thread.run.cancelled", "thread.run.expired",
})  # fmt: skip
# The same words, for an answer that failed.
_FAILED = frozenset({"error", "response.failed", "thread.run.failed"})

_CHAT_CHUNK = "chat.completion.chunk"
# With nothing but these keys a choice has no text outside of its delta, nor an event without those outside of choices.
_AROUND_DELTA = frozenset({"index", "delta", "finish_reason", "logprobs", "native_finish_reason", "stop_reason"})
_BESIDE_CHOICES = (_TOP_TEXT | _INTO) - {"choices"}


class Signals:
    """Feed it every event of one response.

    ``terminal``: the dialect's last event was seen. Gemini, TGI and watsonx have none: an event with a finish reason
    may be followed by others (early Gemini models wrote one into every event), so it only sets ``finished``.
    ``error``: an error inside a response whose status said 200. ``response_id``: the provider's id of this answer.
    ``text_bytes``: UTF-8 bytes of text sent so far; see the module for how exact that is.
    """

    __slots__ = ("_id_tries", "error", "finished", "response_id", "terminal", "text_bytes")

    def __init__(self) -> None:
        self.terminal = False
        self.error = False
        self.finished = False
        self.response_id: str | None = None
        self.text_bytes = 0
        self._id_tries = _ID_EVENTS_MAX

    @property
    def settled(self) -> bool:
        """Whether the answer's id is no longer looked for."""
        return not self._id_tries

    def feed(self, event: Event) -> None:
        """Take in one event."""
        name = event.event
        if name != "message":
            self.terminal = self.terminal or name in _TERMINAL
            self.error = self.error or name in _FAILED or name.endswith(("Exception", "Error"))
        root = event.json if name != "output" else None  # Replicate sends bare text, which may look like JSON
        if type(root) is dict:
            self._read(root, name)
        elif type(root) is list:
            self.text_bytes += _below(root, 1)
        elif event.raw.strip() == b"[DONE]":
            self.terminal = True
        elif name not in _FAILED:
            self.text_bytes += len(event.raw)

    def feed_tail(self, tail: bytes) -> None:
        """Take in what stood outside all events (``Tap.tail``): Gemini writes its errors there."""
        root = parse_exact(tail) if tail else None
        first = root[0] if type(root) is list and root else root
        if type(first) is dict and first.get("error"):
            self.error = True

    def _read(self, root: dict[str, Any], name: str) -> None:
        kind = root.get("type") or root.get("event_type") or root.get("object")
        if type(kind) is not str:
            kind = ""
        if kind in _TERMINAL or root.get("done") is True:
            self.terminal = True
        if kind in _FAILED or root.get("error"):
            self.error = True
        if self._id_tries:
            self._id_tries -= 1
            self.response_id = _id_of(root, kind)
            if self.response_id is not None:
                self._id_tries = 0
        choices = root.get("choices")
        if choices and type(choices) is list:
            self._finish_reasons(choices, "finish_reason")
            if kind == _CHAT_CHUNK and _BESIDE_CHOICES.isdisjoint(root):
                self._deltas(choices)
                return
        elif "candidates" in root:
            self._finish_reasons(root["candidates"], "finishReason")
        if not _repeats(kind, name):
            self.text_bytes += _top(root)

    def _deltas(self, choices: list[Any]) -> None:
        """The same as the walk below finds, for the commonest event by far."""
        for choice in choices:
            if type(choice) is dict:
                delta = choice.get("delta")
                alone = type(delta) is dict and choice.keys() <= _AROUND_DELTA
                self.text_bytes += _below(delta if alone else choice, 2)

    def _finish_reasons(self, items: Any, key: str) -> None:
        for item in items if type(items) is list else ():
            reason = item.get(key) if type(item) is dict else None
            if reason:
                self.finished = True
                self.error = self.error or reason == "error"


def _id_of(root: dict[str, Any], kind: str) -> str | None:
    """The answer's id: not an Assistants thread, which many answers share, and not an item within an answer."""
    if kind.startswith("thread") and kind != "thread.run":
        return None
    for holder in (root, root.get("response"), root.get("message")):
        if type(holder) is dict:
            for key in ("id", "responseId", "response_id", "generation_id"):
                found = holder.get(key)
                if type(found) is str and 0 < len(found) <= _ID_CHARACTERS_MAX:
                    return found
    return None


def _repeats(kind: str, name: str) -> bool:
    """Whether this event only says again what deltas have said, or carries base64."""
    if kind.endswith(".delta"):
        return kind.endswith(("audio.delta", "image.delta"))
    return kind.startswith(("response.", "speech.", "transcript.")) or name.startswith("thread.")


def _top(root: dict[str, Any]) -> int:
    total = 0
    for key, value in root.items():
        if type(value) is str:
            if key in _TOP_TEXT and not (key == "generated_text" and "token" in root):
                total += _size(value)
        elif value and key in _INTO:
            total += _below(value, 1)
    return total


def _below(value: Any, depth: int) -> int:
    """The text under a key that leads to it."""
    total = 0
    if type(value) is dict:
        if depth > _DEPTH_MAX:
            return 0
        for key, inner in value.items():
            if not inner:
                continue
            if type(inner) is str:
                if key in _TEXT:
                    total += len(inner) if inner.isascii() else _size(inner)
            elif key in _INTO or key in _OBJECTS:
                if key in _OBJECTS and type(inner) in (dict, list):
                    total += _json_size(inner)
                elif not _is_twin(key, value):
                    total += _below(inner, depth + 1)
    elif type(value) is list:
        for item in value:
            if type(item) is dict:
                total += _below(item, depth + 1)
            elif type(item) is str:
                total += _size(item)
    return total


def _is_twin(key: str, holder: dict[str, Any]) -> bool:
    """Perplexity sends the whole message so far beside each delta, OpenRouter its reasoning a second time."""
    return (key == "message" and "delta" in holder) or (key == "reasoning_details" and bool(holder.get("reasoning")))


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _json_size(value: Any) -> int:
    try:
        return len(orjson.dumps(value)) if value else 0
    except orjson.JSONEncodeError:
        return _walked_size(value)


def _walked_size(value: Any) -> int:
    """The same for what is nested too deep, or holds a number that is too long or exact; at least as much."""
    total = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        total += 2
        if type(item) is dict:
            total += sum(4 + _size(key) for key in item)
            waiting.extend(item.values())
        elif type(item) is list:
            waiting.extend(item)
        else:
            total += _size(item) if type(item) is str else len(str(item)) + 3
    return total
