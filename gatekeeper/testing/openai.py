"""Chat completions (and legacy completions), of OpenAI and of those who speak its language; sources: their API
references and recordings.

The rule: every count is drawn first, then written where the vendor writes it; the truth is made of the same numbers.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Habits, Script, Switches, SwitchWords, Telling, Usage, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.vendors import CHUNK, EVENT, EVERY, FINISH, OWN, TWICE, VENDORS, WITH_USAGE, X_GROQ, Vendor
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely, up_to

_DIALECT = "openai"
# Dollars, where the vendor says them with the tokens.
_COST = "cost"
_RECORDED = ("cached_input", "cache_write", "reasoning", "audio_input", "audio_output")
_CREATED = 1_755_133_833
_ERROR = {"message": "The server had an error processing your request.", "type": "server_error"}


def openai_streams(
    vendor: str | tuple[str, ...] = "openai", *, endpoint: str = "chat", **switches: Unpack[SwitchWords]
) -> SearchStrategy[ProviderStream]:
    """Answers of ``/v1/chat/completions`` (or, with ``endpoint="completions"``, ``/v1/completions``).

    ``vendor``: one or some of ``VENDORS``: openai, azure, mistral, deepseek, groq, xai, openrouter, perplexity, vllm.
    The other keywords are those of ``Switches``. Raises ValueError for a vendor or endpoint that is not known.
    """
    names = (vendor,) if isinstance(vendor, str) else tuple(vendor)
    unknown = [name for name in names if name not in VENDORS]
    if unknown or not names:
        raise ValueError(f"vendor {', '.join(unknown) or '()'} is not one of {', '.join(VENDORS)}")
    if endpoint not in ("chat", "completions"):
        raise ValueError(f"endpoint {endpoint!r} is not 'chat' or 'completions'")
    return _streams(tuple(VENDORS[name] for name in names), endpoint == "chat", Switches(**switches))


@st.composite
def _streams(draw: DrawFn, vendors: tuple[Vendor, ...], chat: bool, switches: Switches) -> ProviderStream:
    vendor = draw(st.sampled_from(vendors))
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    if streamed:
        script = _Chat(draw, vendor, chat, switches).script()
    elif switches.errors and switches.usage is not True and rarely(draw, 6):
        script = refusal(draw, _DIALECT, vendor.name)
    else:
        script = _answer(draw, vendor, chat, switches)
    return draw_stream(draw, script, switches)


class _Counts:
    """What one call used. ``output`` is what is billed; ``written`` what completion_tokens says."""

    def __init__(self, draw: DrawFn, vendor: Vendor, plain: bool) -> None:
        self._vendor = vendor
        self._details = {} if plain else vendor.details
        said = {name.removeprefix("zero ") for name in self._details.values()}

        def part(name: str, most: int) -> int:
            return draw(up_to(most)) if name in said else 0

        given, written = draw(counts()), draw(counts())
        outside = vendor.outside and not plain
        reasoning = draw(counts(0)) if outside else part("reasoning", written)
        cached = part("cached_input", given)
        self.input = given
        self.written = written
        self.output = written + reasoning if outside else written
        self._parts = {
            "input": given, "cached_input": cached, "uncached": given - cached, "reasoning": reasoning, "zero": 0,
            "cache_write": part("cache_write", given - cached), "audio_input": part("audio_input", given),
            "audio_output": part("audio_output", written), "zero audio_input": 0, "zero audio_output": 0,
        }  # fmt: skip

    def written_as(self, done: int | None = None, *, bare: bool = False) -> dict[str, Any]:
        """The usage object; ``done``: so many tokens of output so far."""
        output, written = (self.output, self.written) if done is None else (done, done)
        made: dict[str, Any] = {
            "prompt_tokens": self.input, "completion_tokens": written, "total_tokens": self.input + output,
        }  # fmt: skip
        if bare or done is not None:
            return made
        made |= self._vendor.extras if self._details or not self._vendor.details else {}
        for path, name in self._details.items():
            *outer, key = path.split(".")
            inner = made.setdefault(outer[0], {}) if outer else made
            inner[key] = self._parts[name]
        return made

    def truth(self, done: int | None = None) -> dict[str, Any]:
        """What that object says."""
        output = self.output if done is None else done
        made: dict[str, Any] = {"input": self.input, "output": output, "total": self.input + output}
        if done is None:
            said = {name.removeprefix("zero "): self._parts[name] for name in self._details.values()}
            made |= {name: said[name] for name in _RECORDED if name in said}
            if self.output > self.written:
                made["output_billed"] = self.output
            if self._details and _COST in self._vendor.extras:
                made[_COST] = Decimal(str(self._vendor.extras[_COST]))
        return made

    def overthink(self) -> None:
        """OpenRouter counts reasoning that no output followed."""
        self._parts["reasoning"] = self.written + 1


class _Chat:
    """One streamed answer."""

    def __init__(self, draw: DrawFn, vendor: Vendor, chat: bool, switches: Switches) -> None:
        self.draw, self.vendor, self.chat, self.switches = draw, vendor, chat, switches
        self.counts = _Counts(draw, vendor, plain=not chat or rarely(draw, 5))
        self.place = draw(st.sampled_from(vendor.places))
        self.telling = Telling(notes=[vendor.name])
        self.nulls = vendor.nulls and draw(st.booleans())
        self.error = self._drawn_error()
        says = draw(st.booleans()) or vendor.unasked if switches.usage is None else switches.usage
        self.says = says and (self.error == "" or self.error == WITH_USAGE or self.place == EVERY)
        self.done_tokens = 0

    def _drawn_error(self) -> str:
        """How it fails, or "". Only failures that leave the usage that was asked for."""
        styles = self.vendor.errors if self.chat else (CHUNK,)
        if self.switches.usage is True:
            styles = tuple(style for style in styles if style == WITH_USAGE or self.place == EVERY)
        elif self.switches.usage is False:
            styles = tuple(style for style in styles if style != WITH_USAGE)
        if not styles or not self.switches.errors or not rarely(self.draw, 6):
            return ""
        return self.draw(st.sampled_from(styles))

    def script(self) -> Script:
        """The whole of it."""
        if self.vendor.name == "azure":
            safe = {"hate": {"filtered": False, "severity": "safe"}}
            filtered = [{"prompt_index": 0, "content_filter_results": safe}]
            head = {"id": "", "object": "", "created": 0, "model": ""}
            self.telling.say({**head, "choices": [], "prompt_filter_results": filtered})
        for turn, word in enumerate(draw_words(self.draw, self.switches.noise)):
            self._text(word, first=turn == 0)
        if self.error:
            self._fail()
        else:
            self._finish()
        if self.error != EVENT and self.draw(st.sampled_from(self.vendor.done)):
            self.telling.say("[DONE]")
        habits = Habits(comment=self.vendor.comment)
        return self.telling.script(_DIALECT, self.vendor.name, self._content_type(), habits=habits)

    def _content_type(self) -> str:
        return self.draw(st.sampled_from(("text/event-stream", "text/event-stream; charset=utf-8")))

    def _text(self, word: str, *, first: bool) -> None:
        delta: dict[str, Any] = {"role": "assistant"} if first else {}
        kinds = ("content", self.vendor.thought) if self.vendor.thought else ("content",)
        if self.vendor.name == "openai" and self.chat:
            kinds = ("content", "tool_calls")
        kind = self.draw(st.sampled_from(kinds))
        call = {"index": 0, "id": "call_x", "type": "function", "function": {"name": "f", "arguments": word}}
        delta[kind] = [call] if kind == "tool_calls" else word
        self.done_tokens += self.draw(st.integers(1, 5))
        self._chunk([self._choice(delta, word, None)])

    def _choice(self, delta: Mapping[str, Any], text: str, reason: str | None) -> dict[str, Any]:
        said: dict[str, Any] = {"delta": delta} if self.chat else {"text": text}
        index = self.draw(st.integers(0, 1)) if self.vendor.name == "openai" else 0
        return {"index": index, **said, **self.vendor.choice, "finish_reason": reason}

    def _chunk(self, choices: list[Any], truth: Usage | None = None, **more: Any) -> None:
        """``truth`` is given if this chunk is the one that holds it all."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        head = {"id": "chatcmpl-x", "object": kind, "created": _CREATED, "model": self.vendor.model}
        chunk: dict[str, Any] = {**head, **self.vendor.head, "choices": choices}
        if truth is None and self.says and self.place == EVERY:
            done = min(self.done_tokens, self.counts.output)
            chunk["usage"], truth = self.counts.written_as(done), self.counts.truth(done)
        elif self.nulls:
            chunk["usage"] = None
        if self.vendor.name == "groq" and not self.telling.steps:
            chunk["x_groq"] = {"id": "req_x"}
        chunk |= more
        if truth is None:
            self.telling.say(chunk)
        else:
            self.telling.say(chunk, usage=truth)

    def _finish(self) -> None:
        told, truth = self.counts.written_as(), self.counts.truth()
        finish = [self._choice({}, "", "stop")]
        if not self.says:
            self.telling.notes.append("no usage")
            self._chunk(finish)
        elif self.place in (FINISH, X_GROQ, TWICE):
            more = {} if self.place == X_GROQ else {"usage": told}
            if self.place != FINISH:
                self.telling.notes.append(f"usage under x_groq{' too' if more else ' only'}")
                more["x_groq"] = {"id": "req_x", "usage": told}
            self._chunk(finish, truth, **more)
        elif self.vendor.name == "perplexity":
            self._chunk(finish, truth, object="chat.completion.done", usage=told)
        else:
            self._chunk(finish)
            self._chunk([], truth, usage=told)
        if self.vendor.name == "openai" and self.chat and self.place == OWN and rarely(self.draw, 5):
            self.telling.notes.append("a chunk after the usage")
            result = {"type": "moderation_results", "model": "omni-moderation-latest", "results": []}
            self._chunk([], None, moderation={"input": result, "output": result}, usage=None)

    def _fail(self) -> None:
        self.telling.notes.append("error in the stream")
        if self.error == WITH_USAGE:
            if self.says:
                self.counts.overthink()
            usage = {"usage": self.counts.written_as()} if self.says else {}
            error = {"code": 400, "message": "Token limit reached"}
            finish = [self._choice({"role": "assistant", "content": ""}, "", None)]
            self._chunk(finish, self.counts.truth() if self.says else None, error=error, **usage)
        else:
            name = "error" if self.error == EVENT else ""
            self.telling.say({"error": {**_ERROR, "code": None}}, name)


def _answer(draw: DrawFn, vendor: Vendor, chat: bool, switches: Switches) -> Script:
    told = _Counts(draw, vendor, plain=not chat or draw(st.booleans()))
    says = switches.usage is not False
    text = "".join(draw_words(draw, switches.noise))
    said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
    kind = "chat.completion" if chat else "text_completion"
    body: dict[str, Any] = {"id": "chatcmpl-x", "object": kind, "created": _CREATED, "model": vendor.model}
    body |= {**vendor.head, "choices": [{"index": 0, **said, "finish_reason": "stop"}]}
    if says:
        body["usage"] = told.written_as()
    habits = Habits(indented=draw(st.booleans()), blank_lines_first=vendor.blank_lines_first)
    return single(_DIALECT, vendor.name, body, told.truth() if says else None, vendor.name, habits=habits)
