"""The ``.env`` file beside gateway.toml: ``NAME=value`` lines, as shells and containers write them.

The rule: the real environment wins over the file, and a message never shows a value.
"""

import re

from gatekeeper.diagnostics import Mistake, Source, Span

_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")
_QUOTED = re.compile(r"(?:'([^']*)'|\"((?:[^\"\\]|\\.)*)\")\s*(?:#.*)?")
_ESCAPE = re.compile(r"\\(.)")
_LETTERS = {"n": "\n", "r": "\r", "t": "\t"}


def read_dotenv(text: str, name: str) -> tuple[dict[str, str], tuple[Mistake, ...]]:
    """The variables, and what is wrong.

    '...' is literal, "..." knows escapes; without quotes a ``#`` after a blank begins a comment.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    found: dict[str, str] = {}
    mistakes: list[Mistake] = []
    at = 0
    for line in text.split("\n"):
        start, at = at, at + len(line) + 1
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        pair = _LINE.fullmatch(line)
        value = _value(pair[2]) if pair is not None else None
        if pair is None or value is None:
            source = Source(_without_values(text), name)
            what = "a quote is not closed" if pair is not None else "this line is no NAME=value"
            place = Span(start + (pair.start(2) if pair is not None else 0), start + len(line))
            mistakes.append(Mistake(what, source, place, "comments begin with #; values with spaces stand in quotes"))
        else:
            found[pair[1]] = value
    return found, tuple(mistakes)


def _value(written: str) -> str | None:
    if written[:1] not in ("'", '"'):
        return "" if written.startswith("#") else re.split(r"\s+#", written, maxsplit=1)[0]
    quoted = _QUOTED.fullmatch(written)
    if quoted is None:
        return None
    if quoted[1] is not None:
        return quoted[1]
    return _ESCAPE.sub(lambda escape: _LETTERS.get(escape[1], escape[1]), quoted[2])


def _without_values(text: str) -> str:
    """The same length, each letter after a line's first ``=`` blanked; a line without ``=`` is blanked whole."""
    lines = []
    for line in text.split("\n"):
        kept = line.find("=") + 1
        comment = line.lstrip().startswith("#")
        lines.append(line if comment else line[:kept] + re.sub(r"\S", "*", line[kept:]))
    return "\n".join(lines)
