"""What a response says, step by step, before it becomes bytes: every step carries the truth once it has arrived.

The rule: a response that is cut after a step is worth what that step says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypedDict

Usage = Mapping[str, Any]
_KEEP: Any = object()


class Framing(StrEnum):
    """How the steps are put into a body."""

    SSE = "sse"
    LINES = "lines"
    ARRAY = "array"
    JSON = "json"
    FRAMES = "frames"


class SwitchWords(TypedDict, total=False):
    """The keyword switches that every strategy takes."""

    usage: bool | None
    streamed: bool | None
    errors: bool
    cuts: bool
    encodings: bool
    noise: bool


@dataclass(frozen=True, slots=True)
class Switches:
    """What may occur. ``usage``: True only responses that say a total (or what their endpoint says instead: seconds,
    search units), False only those that do not, None both; an endpoint that never says anything ignores it.
    ``streamed`` likewise. ``errors``: failures inside a 200, and non-2xx answers. ``cuts``: connections that break.
    ``encodings``: gzip, br, zstd, deflate. ``noise``: comments, a BOM, CR and CRLF, bodies without a last blank line,
    split emoji: whatever providers and proxies do to a stream without changing what it says."""

    usage: bool | None = None
    streamed: bool | None = None
    errors: bool = True
    cuts: bool = True
    encodings: bool = True
    noise: bool = True

    def allow(self, usage: Usage | None, says: str = "total") -> bool:
        """Whether a response with this truth was asked for; ``says``: the count that it tells at most."""
        return self.usage is None or not says or self.usage == (usage is not None and usage.get(says) is not None)


@dataclass(frozen=True, slots=True)
class Step:
    """One event. ``value`` is written as JSON, a str as it is. ``usage`` is the truth from here on. ``outside``: the
    text stands in no field (Gemini's bare error, a comment that a provider always sends)."""

    value: Any
    usage: Usage | None
    event: str = ""
    outside: bool = False


@dataclass(frozen=True, slots=True)
class Habits:
    """How a provider writes its events where nothing else was drawn. ``padded``: blanks after the JSON (Anthropic).
    ``ids``: the id of each event, with ``{at}`` for its number. ``close``: no space after the colon (TGI)."""

    newline: str = "\n"
    spaced: bool = False
    indented: bool = False
    comment: str = "keep-alive"
    data_first: bool = False
    blank_lines_first: bool = False
    padded: bool = False
    ids: str = ""
    close: bool = False


@dataclass(frozen=True, slots=True)
class Script:
    """A whole response before it is written."""

    dialect: str
    vendor: str
    framing: Framing
    content_type: str
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()
    habits: Habits = Habits()
    status: int = 200
    says: str = "total"


@dataclass
class Telling:
    """Collects steps; the truth stays what it was until a step says otherwise."""

    usage: Usage | None = None
    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def say(self, value: Any, event: str = "", *, usage: Usage | None = _KEEP, outside: bool = False) -> None:
        """One event more."""
        if usage is not _KEEP:
            self.usage = usage
        self.steps.append(Step(value, self.usage, event, outside))

    def script(
        self,
        dialect: str,
        vendor: str,
        content_type: str,
        framing: Framing = Framing.SSE,
        habits: Habits | None = None,
        says: str = "total",
    ) -> Script:
        """The finished script."""
        steps, notes = tuple(self.steps), tuple(self.notes)
        return Script(dialect, vendor, framing, content_type, steps, notes, habits or Habits(), says=says)


def single(dialect: str, vendor: str, value: Any, usage: Usage | None, *notes: str, **how: Any) -> Script:
    """A JSON answer. ``how``: ``status``, ``habits``, ``content_type``, ``says``."""
    content_type = how.pop("content_type", "application/json")
    return Script(dialect, vendor, Framing.JSON, content_type, (Step(value, usage),), notes, **how)
