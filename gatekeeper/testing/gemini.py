"""Gemini and Vertex: SSE, one JSON array that arrives in pieces, and single JSON; sources: the reference of
UsageMetadata, and recordings.

The rule: total = prompt + tool prompt + candidates + thoughts, cumulative; the last event that has a total counts.
"""

from typing import Any, Unpack

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from gatekeeper.testing.script import Framing, Habits, Script, Switches, SwitchWords, Telling, single
from gatekeeper.testing.single import refusal
from gatekeeper.testing.stream import ProviderStream
from gatekeeper.testing.wiring import draw_stream
from gatekeeper.testing.writing import counts, draw_words, rarely, up_to

_DIALECT = "gemini"
_JSON = "application/json; charset=UTF-8"
_CANCELLED = """{
  "error": {
    "code": 499,
    "message": "The operation was cancelled.",
    "status": "CANCELLED"
  }
}"""


def gemini_streams(**switches: Unpack[SwitchWords]) -> SearchStrategy[ProviderStream]:
    """Answers of ``:streamGenerateContent`` (SSE and JSON array) and ``:generateContent``, of Gemini and Vertex.
    Keywords: see ``Switches``."""
    return _streams(Switches(**switches))


@st.composite
def _streams(draw: DrawFn, switches: Switches) -> ProviderStream:
    streamed = draw(st.sampled_from((True, True, False))) if switches.streamed is None else switches.streamed
    vendor = draw(st.sampled_from(("gemini", "vertex")))
    if streamed:
        framing = draw(st.sampled_from((Framing.SSE, Framing.SSE, Framing.ARRAY)))
        script = _stream(draw, vendor, framing, switches)
    elif switches.errors and switches.usage is not True and rarely(draw, 6):
        script = refusal(draw, _DIALECT, vendor)
    else:
        script = _answer(draw, vendor, switches)
    return draw_stream(draw, script, switches)


class _Counts:
    """The counts of one call as they grow."""

    def __init__(self, draw: DrawFn, vendor: str) -> None:
        self.prompt = draw(counts())
        self.tool = draw(counts()) if draw(st.booleans()) else 0
        self.thoughts = draw(counts()) if draw(st.booleans()) else 0
        self.cached = draw(up_to(self.prompt)) if draw(st.booleans()) else 0
        self.audio = draw(up_to(self.prompt)) if draw(st.booleans()) else 0
        self.spoken = 0
        self.candidates: int | None = None
        self._vendor = vendor

    def metadata(self) -> dict[str, Any]:
        """``usageMetadata``; counts of nothing are left out."""
        made: dict[str, Any] = {"promptTokenCount": self.prompt}
        if self.candidates is not None:
            made["candidatesTokenCount"] = self.candidates
            written = {"TEXT": self.candidates - self.spoken, **({"AUDIO": self.spoken} if self.spoken else {})}
            made["candidatesTokensDetails"] = _modalities(written)
        read = {"TEXT": self.prompt - self.audio, **({"AUDIO": self.audio} if self.audio else {})}
        optional = {
            "cachedContentTokenCount": self.cached, "toolUsePromptTokenCount": self.tool,
            "thoughtsTokenCount": self.thoughts,
        }  # fmt: skip
        made |= {name: count for name, count in optional.items() if count}
        made |= {"totalTokenCount": self.total, "promptTokensDetails": _modalities(read)}
        parts = {"cacheTokensDetails": self.cached, "toolUsePromptTokensDetails": self.tool}
        made |= {name: _modalities({"TEXT": count}) for name, count in parts.items() if count}
        if self._vendor == "vertex":
            made["trafficType"] = "ON_DEMAND"
        return made

    @property
    def total(self) -> int:
        """Everything."""
        return self.prompt + self.tool + (self.candidates or 0) + self.thoughts

    def truth(self) -> dict[str, Any]:
        """What ``metadata`` says."""
        given = self.prompt + self.tool
        made = {"input": given, "output": (self.candidates or 0) + self.thoughts, "total": self.total}
        parts = {"cached_input": self.cached, "reasoning": self.thoughts, "audio_input": self.audio}
        parts["audio_output"] = self.spoken if self.candidates is not None else 0
        return made | {name: count for name, count in parts.items() if count}


def _modalities(found: dict[str, int]) -> list[dict[str, Any]]:
    return [{"modality": name, "tokenCount": count} for name, count in found.items()]


def _chunk(text: str, metadata: dict[str, Any] | None, *, last: bool = False) -> dict[str, Any]:
    candidate: dict[str, Any] = {"content": {"parts": [{"text": text}], "role": "model"}}
    if last:
        candidate["finishReason"] = "STOP"
    told = {} if metadata is None else {"usageMetadata": metadata}
    return {"candidates": [candidate], **told, "modelVersion": "gemini-2.5-flash", "responseId": "x"}


def _stream(draw: DrawFn, vendor: str, framing: Framing, switches: Switches) -> Script:
    telling = Telling(notes=[vendor])
    found = _Counts(draw, vendor)
    says = not rarely(draw, 5) if switches.usage is None else switches.usage
    if not says:
        telling.notes.append("no usage")
    final = draw(counts())
    words = draw_words(draw, switches.noise)
    for word in words:
        if not says:
            telling.say(_chunk(word, None))
        elif vendor == "vertex":
            telling.say(_chunk(word, {"trafficType": "ON_DEMAND"}))
        else:
            if draw(st.booleans()):
                found.candidates = draw(st.integers(found.candidates or 0, max(final, found.candidates or 0)))
            telling.say(_chunk(word, found.metadata()), usage=found.truth())
    failed = switches.errors and framing is Framing.SSE and rarely(draw, 6)
    if failed and (vendor != "vertex" or switches.usage is not True):
        telling.notes.append("bare error at the end")
        telling.say(_CANCELLED, outside=True)
    else:
        found.candidates = final
        found.spoken = draw(up_to(final)) if draw(st.booleans()) else 0
        if draw(st.booleans()) and found.cached == found.audio == 0:
            found.prompt = draw(st.integers(1, found.prompt))
            telling.notes.append("the prompt's count may fall")
        if says:
            telling.say(_chunk("", found.metadata(), last=True), usage=found.truth())
        else:
            telling.say(_chunk("", None, last=True))
    kind = "text/event-stream" if framing is Framing.SSE else _JSON
    habits = Habits(newline="\r\n", spaced=True, indented=draw(st.booleans()))
    return telling.script(_DIALECT, vendor, kind, framing, habits)


def _answer(draw: DrawFn, vendor: str, switches: Switches) -> Script:
    found = _Counts(draw, vendor)
    found.candidates = draw(counts())
    says = switches.usage is not False
    text = "".join(draw_words(draw, switches.noise))
    body = _chunk(text, found.metadata() if says else None, last=True)
    habits = Habits(spaced=True, indented=draw(st.booleans()))
    truth = found.truth() if says else None
    return single(_DIALECT, vendor, body, truth, vendor, habits=habits, content_type=_JSON)
