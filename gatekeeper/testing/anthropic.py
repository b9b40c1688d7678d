"""Anthropic's messages; source: the API reference on streaming, and recordings of older and newer streams.

The rule: message_start opens the counts, each message_delta overwrites those it names; the output that message_start
tells is a guess.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Habits, Script, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely, up_to

_DIALECT = "anthropic"
_HABITS = Habits(padded=True, comment="ping")
_FIELDS = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
_OVERLOADED = {"type": "error", "error": {"details": None, "type": "overloaded_error", "message": "Overloaded"}}


def anthropic_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of ``/v1/messages``: old and new ways to report, caches, web search, compaction, errors. Keywords: see
    ``Switches``."""
    return _streams(Switches(**switches))


def message_script(draw: DrawFn, switches: Switches) -> Script:
    """One streamed message before it is written; Bedrock packs its events into frames."""
    return _Message(draw, switches).script()


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    refused = switches.usage is False or (switches.errors and switches.usage is None and rarely(draw, 6))
    if streamed:
        script = message_script(draw, switches)
    elif refused and switches.errors:
        script = refusal(draw, _DIALECT, _DIALECT)
    else:
        script = _answer(draw, switches)
    return draw_stream(draw, script, switches)


def _usage(draw: DrawFn) -> dict[str, int]:
    fields = {"input_tokens": draw(counts()), **dict.fromkeys(_FIELDS[1:], 0)}
    if draw(st.booleans()):
        fields["cache_read_input_tokens"] = draw(counts(0))
        fields["cache_creation_input_tokens"] = draw(counts(0))
    return fields


def _kept(draw: DrawFn, fields: dict[str, int]) -> dict[str, int]:
    """How much of what was written to the cache is kept for an hour, as the truth says it; older answers do not."""
    return {"cache_write_1h": draw(up_to(fields[_FIELDS[1]]))} if draw(st.booleans()) else {}


def _cache_creation(fields: dict[str, int], kept: dict[str, int]) -> dict[str, Any]:
    """The same as Anthropic writes it."""
    if not kept:
        return {}
    hour = min(kept["cache_write_1h"], fields[_FIELDS[1]])
    short = fields[_FIELDS[1]] - hour
    return {"cache_creation": {"ephemeral_5m_input_tokens": short, "ephemeral_1h_input_tokens": hour}}


def _truth(fields: dict[str, int], output: int | None, **more: Any) -> dict[str, Any]:
    given = sum(fields[name] for name in _FIELDS)
    cache = {"cached_input": fields[_FIELDS[2]], "cache_write": fields[_FIELDS[1]]}
    total = None if output is None else given + output
    return {"input": given, "output": output, "total": total, **cache, **more}


class _Message:
    """One streamed message."""

    def __init__(self, draw: DrawFn, switches: Switches) -> None:
        self.draw, self.switches = draw, switches
        self.telling = Telling()
        self.start = _usage(draw)
        self.kept = _kept(draw, self.start)
        self.guess = draw(st.integers(1, 40))

    def tell(self, kind: str, **fields: Any) -> None:
        """One event; its name is its type."""
        truth = {"usage": fields.pop("truth")} if "truth" in fields else {}
        self.telling.say({"type": kind, **fields}, kind, **truth)

    def script(self) -> Script:
        """The whole of it."""
        draw = self.draw
        ways = ("delta has the output only", "delta repeats the input", "server tool", "compaction")
        way = draw(st.sampled_from(ways))
        broken = self.switches.usage is False
        if self.switches.errors and self.switches.usage is None:
            broken = rarely(draw, 6)
        self._open()
        if rarely(draw, 8):
            self._open()
            self.telling.notes.append("message_start twice")
        self._blocks()
        if broken:
            if self.switches.errors:
                self.tell("error", **_OVERLOADED)
                self.telling.notes.append("error in the stream")
            return self.telling.script(_DIALECT, _DIALECT, "text/event-stream", habits=_HABITS)
        self.telling.notes.append(way)
        self._close(way)
        self.tell("message_stop")
        kind = draw(st.sampled_from(("text/event-stream; charset=utf-8", "text/event-stream")))
        return self.telling.script(_DIALECT, _DIALECT, kind, habits=_HABITS)

    def _open(self) -> None:
        newer = {"service_tier": "standard"} if self.kept else {}
        usage = {**self.start, **_cache_creation(self.start, self.kept), **newer, "output_tokens": self.guess}
        message: dict[str, Any] = {
            "model": "claude-opus-4-1-20250805",
            "id": "msg_x",
            "type": "message",
            "role": "assistant",
        }
        message |= {"content": [], "stop_reason": None, "stop_sequence": None}
        truth = _truth(self.start, None, **self.kept, output_placeholder=True)
        self.tell("message_start", message={**message, "usage": usage}, truth=truth)

    def _blocks(self) -> None:
        for index, kind in enumerate(self.draw(st.lists(st.sampled_from(("text", "thinking")), max_size=2))):
            self.tell("content_block_start", index=index, content_block={"type": kind, kind: ""})
            if self.draw(st.booleans()):
                self.tell("ping")
            for word in draw_words(self.draw, self.switches.noise):
                self.tell("content_block_delta", index=index, delta={"type": f"{kind}_delta", kind: word})
            self.tell("content_block_stop", index=index)

    def _close(self, way: str) -> None:
        draw, told = self.draw, dict(self.start)
        output = draw(counts())
        if draw(st.booleans()) and way.startswith("delta"):
            # Cumulative: an earlier message_delta says less.
            early = draw(st.integers(0, output))
            self._delta({"output_tokens": early}, _truth(told, early, **self.kept), None)
        usage: dict[str, Any] = {"output_tokens": output}
        more: dict[str, Any] = dict(self.kept)
        if way == "server tool":
            told["input_tokens"] += draw(counts())
            searches = draw(st.integers(1, 5))
            # A fetch costs nothing but its tokens.
            usage["server_tool_use"] = {"web_search_requests": searches, "web_fetch_requests": draw(st.integers(0, 3))}
            more["requests"] = searches
        elif way == "delta repeats the input" and draw(st.booleans()):
            thought = draw(up_to(output))
            usage["output_tokens_details"] = {"thinking_tokens": thought}
            more["reasoning"] = thought
        if way == "compaction":
            self._compact(output)
        else:
            fields = {} if way == "delta has the output only" else told
            self._delta({**fields, **usage}, _truth(told, output, **more), "end_turn")

    def _compact(self, output: int) -> None:
        """The top level covers only the last pass; what is billed is the sum."""
        last = {"input_tokens": self.draw(counts()), **dict.fromkeys(_FIELDS[1:], 0)}
        first = dict(self.start)
        summary = self.draw(counts())
        passes = [
            {**first, **_cache_creation(first, self.kept), "output_tokens": summary, "type": "compaction"},
            {**last, **_cache_creation(last, self.kept), "output_tokens": output, "type": "message"},
        ]
        whole = _truth({name: first[name] + last[name] for name in _FIELDS}, summary + output, **self.kept)
        top = _truth(last, output)
        whole["message"] = {name: top[name] for name in ("input", "output", "total")}
        self._delta({**last, "output_tokens": output, "iterations": passes}, whole, "end_turn")

    def _delta(self, usage: dict[str, Any], truth: dict[str, Any], reason: str | None) -> None:
        self.tell("message_delta", delta={"stop_reason": reason, "stop_sequence": None}, usage=usage, truth=truth)


def _answer(draw: DrawFn, switches: Switches) -> Script:
    fields, output = _usage(draw), draw(counts())
    text = "".join(draw_words(draw, switches.noise))
    body: dict[str, Any] = {"id": "msg_x", "type": "message", "role": "assistant", "model": "claude-opus-4-1-20250805"}
    body |= {"content": [{"type": "text", "text": text}], "stop_reason": "end_turn", "stop_sequence": None}
    if switches.usage is False:
        return single(_DIALECT, _DIALECT, body, None, "no usage")
    kept = _kept(draw, fields)
    body["usage"] = {**fields, **_cache_creation(fields, kept), "output_tokens": output}
    habits = Habits(indented=draw(st.booleans()))
    return single(_DIALECT, _DIALECT, body, _truth(fields, output, **kept), habits=habits)
