"""Mistakes and plans of expressions as JSON: what ``check`` answers and what the page shows under the code.

The rule: the text of a mistake is the one that the command line prints. Only what no screen could show is cut.
"""

from collections.abc import Sequence
from typing import Any

from gatekeeper.diagnostics import Mistake, Severity
from gatekeeper.meters import Context, Meter

# Contexts that an author writes expressions for; in this order they are offered.
CONTEXTS = (Context.METER, Context.ESTIMATE, Context.LIVE, Context.COST, Context.WHEN)
# A line of code that is longer than this is shown around the place only.
LINE_LETTERS = 400
_AROUND_LETTERS = 80
# Whoever makes more mistakes at once reads the first ones.
MISTAKES_MAX = 50


def mistakes_json(mistakes: Sequence[Mistake], meter: str = "") -> list[dict[str, Any]]:
    """Each with its place: ``line`` and ``column`` from 1, ``start`` and ``end`` in characters from 0."""
    return [
        {
            "meter": meter,
            "severity": one.severity,
            "message": one.message,
            "hint": one.hint,
            "line": one.line,
            "column": one.column,
            "start": one.span.start,
            "end": one.span.end,
            "text": caret_text(one),
        }
        for one in mistakes[:MISTAKES_MAX]
    ]


def caret_text(mistake: Mistake) -> str:
    """``Mistake.render``; of a very long line only what stands around the place."""
    line = mistake.source.line(mistake.line)
    if len(line) <= LINE_LETTERS:
        return mistake.render()
    at = mistake.column - 1
    start = max(0, at - _AROUND_LETTERS)
    width = max(1, min(mistake.span.end - mistake.span.start, _AROUND_LETTERS))
    cut_before, cut_after = ("... " if start else ""), (" ..." if at + _AROUND_LETTERS < len(line) else "")
    shown = line[start : at + _AROUND_LETTERS]
    lines = [
        f"{mistake.source.name}:{mistake.line}:{mistake.column}: {mistake.severity}: {mistake.message}",
        f"  {cut_before}{shown}{cut_after}",
        f"  {' ' * (len(cut_before) + at - start)}{'^' * width}",
    ]
    return "\n".join(lines + ([f"  hint: {mistake.hint}"] if mistake.hint else []))


def is_refused(mistakes: Sequence[Mistake]) -> bool:
    """Whether one of them is an error."""
    return any(one.severity is Severity.ERROR for one in mistakes)


def plan_json(meter: Meter) -> dict[str, Any]:
    """How a meter works: its canonical text and hash, type, phases, slots, and the tree in words."""
    outline = meter.outline()
    return {
        "context": meter.context,
        "canonical": outline.canonical,
        "hash": outline.hash,
        "type": outline.type,
        "phases": list(outline.phases),
        "slots": [
            {"slot": number, "text": slot.text, "fed_with": slot.fed_with, "looks_for": list(slot.looks_for)}
            for number, slot in enumerate(outline.slots)
        ],
        "needs_request": meter.needs_request,
        "explain": meter.explain(),
    }
