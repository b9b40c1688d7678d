"""Mistakes that a person wrote, shown with place, caret and hint. One renderer for expressions and TOML.

The rule: every Mistake names its file (or ``<expression>``), line and column, and says what to do.
"""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was written by a person, and the name under which to show it."""

    text: str
    name: str = "<expression>"

    def position(self, offset: int) -> tuple[int, int]:
        """(line, column) of a character offset, both counted from 1."""
        before = self.text[: max(0, min(offset, len(self.text)))]
        return before.count("\n") + 1, len(before) - (before.rfind("\n") + 1) + 1

    def line(self, number: int) -> str:
        """The text of line ``number`` (from 1), without its line end."""
        lines = self.text.split("\n")
        return lines[number - 1].rstrip("\r") if 1 <= number <= len(lines) else ""


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of characters in a Source."""

    start: int
    end: int


class Severity(StrEnum):
    """An error refuses the text; a warning is legal and probably wrong."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong in a text that a person wrote."""

    message: str
    source: Source
    span: Span
    hint: str | None = None
    severity: Severity = Severity.ERROR

    @property
    def line(self) -> int:
        """Line of the first wrong character, from 1."""
        return self.source.position(self.span.start)[0]

    @property
    def column(self) -> int:
        """Column of the first wrong character, from 1, in characters."""
        return self.source.position(self.span.start)[1]

    def render(self) -> str:
        """``file:line:column: error: message``, the line, a caret under the place, and the hint."""
        line, column = self.source.position(self.span.start)
        text = self.source.line(line)
        width = max(1, min(self.span.end - self.span.start, len(text) - column + 1))
        pad = "".join("\t" if letter == "\t" else " " for letter in text[: column - 1])
        shown = [f"{self.source.name}:{line}:{column}: {self.severity}: {self.message}"]
        shown += [f"  {text}", f"  {pad}{'^' * width}"]
        if self.hint:
            shown.append(f"  hint: {self.hint}")
        return "\n".join(shown)

    def moved(self, source: Source, offset: int) -> "Mistake":
        """The same mistake inside an outer text (an expression inside a TOML file), ``offset`` characters in."""
        return replace(self, source=source, span=Span(self.span.start + offset, self.span.end + offset))


class Mistakes(Exception):
    """All the mistakes of one text at once. Never empty."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        assert self.mistakes
        super().__init__(self.render())

    def render(self) -> str:
        """Every mistake, a blank line between two."""
        return "\n\n".join(mistake.render() for mistake in self.mistakes)


def suggest(word: str, known: Iterable[str]) -> str | None:
    """``did you mean 'sum'?`` for the nearest known word, or None when nothing is near."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.6)
    return f"did you mean {names[near[0]]!r}?" if near else None
