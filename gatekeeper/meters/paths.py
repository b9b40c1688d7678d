"""Paths into parsed JSON: ``a.b[0].c`` as steps, walking them, and the keys that a prefilter may look for.

The rule: a path never raises; what is missing is null.
"""

import re
from typing import Any

Step = str | int

_PIECE = re.compile(r"(?:^|\.)([^.\[\]]+)|\[(-?\d{1,6})\]|\[\"([^\"]*)\"\]|\['([^']*)'\]")
STEPS_MAX = 64
# Searching from the end takes as long as both lengths multiplied, where bytes are made for it.
NEEDLE_BYTES_MAX = 64
_NULL = b":null"


def parsed_path(path: str) -> tuple[Step, ...] | None:
    """The steps of ``a.b[0]["c d"]``, or None if that is no path. A leading dot is allowed."""
    text = path.strip().removeprefix(".")
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _PIECE.match(text, at) if at == 0 or text[at] in ".[" else None
        if found is None or len(steps) == STEPS_MAX:
            return None
        name, number, double, single = found.groups()
        steps.append(
            int(number) if number is not None else next(part for part in (name, double, single) if part is not None)
        )
        at = found.end()
    return tuple(steps)


def stepped(value: Any, steps: tuple[Step, ...]) -> Any:
    """What stands at the end of the steps; null where one is missing."""
    for step in steps:
        if isinstance(step, str):
            value = value.get(step) if type(value) is dict else None
        elif isinstance(value, list | str) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
        if value is None:
            return None
    return value


def needles(steps: tuple[Step, ...]) -> tuple[bytes, bytes] | None:
    """(the last key as JSON bytes, the escape that could spell it otherwise), or None where nothing can be said.

    An event whose bytes hold neither has null at this path: its JSON need not be parsed (Law 7).
    """
    names = [step for step in steps if isinstance(step, str)]
    if not names or "�" in names[-1]:
        return None
    name = names[-1]
    if not all(" " <= letter <= "\U0010ffff" and not "\ud800" <= letter <= "\udfff" for letter in name):
        return None
    if '"' in name or "\\" in name or "\x7f" in name:
        return None
    # A letter can only be spelled otherwise as \uXXXX; a slash also as \/.
    escape = b"\\u" if "/" not in name else b"\\"
    return b'"' + name.encode() + b'"', escape


def is_silent(raw: bytes, needle: bytes, escape: bytes) -> bool:
    """Whether a path with these ``needles`` is null in an event of these bytes: its key is not in them, or is null
    wherever it stands (many providers write ``"usage":null`` into every event but the last)."""
    if raw.find(needle) >= 0 and raw.count(needle) != raw.count(needle + _NULL):
        return False
    return raw.find(b"\\") < 0 or raw.find(escape) < 0
