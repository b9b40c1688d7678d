"""Puts a slip right that the parser stumbled over, so that what stands behind it is read too and told at once.

The rule: a mended text is never run. It is read once more for its mistakes, and their places are those of the text as
its author wrote it.
"""

from dataclasses import dataclass, replace

from gatekeeper.diagnostics import Mistake, Severity, Source, Span

# What is written for what, by the text that the mistake points at. Where two meanings are possible there is no entry.
_INSTEAD = {
    "=": "==", "===": "==", "==": "==", "!==": "!=", "//": "/", "?:": "??", "&": "&&", "^": "**", "@": "#",
    "\u201c": '"', "\u201d": '"', "\u2018": "'", "\u2019": "'",
}  # fmt: skip
_CLOSING = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Mended:
    """A text in which one slip is put right: ``source`` from ``span`` of the written text on reads ``instead``."""

    written: Source
    source: Source
    span: Span
    instead: str

    def back(self, mistakes: tuple[Mistake, ...]) -> tuple[Mistake, ...]:
        """The errors that have nothing to do with the mended place, at their places in the written text."""
        end = self.span.start + len(self.instead)
        longer = len(self.instead) - (self.span.end - self.span.start)
        found = []
        for one in mistakes:
            if one.severity is not Severity.ERROR:
                continue
            if one.span.end <= self.span.start:
                found.append(replace(one, source=self.written))
            elif one.span.start >= end:
                moved = Span(one.span.start - longer, one.span.end - longer)
                found.append(replace(one, source=self.written, span=moved))
        return tuple(found)


def mended(mistake: Mistake) -> Mended | None:
    """The text with this mistake put right, or None where nobody can tell what was meant."""
    text, span = mistake.source.text, mistake.span
    at = text[span.start : span.end]
    if at in _CLOSING and mistake.message.endswith("is not closed"):
        span, instead = Span(len(text), len(text)), _CLOSING[at]
    elif mistake.message.endswith("closes nothing"):
        instead = " "
    elif at in _INSTEAD:
        instead = _INSTEAD[at]
    else:
        return None
    if text[span.start : span.end] == instead:
        return None
    written = text[: span.start] + instead + text[span.end :]
    return Mended(mistake.source, Source(written, mistake.source.name), span, instead)
