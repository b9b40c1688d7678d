"""Where each key and value stands in a TOML text. Values come from ``tomllib`` alone: this only finds places.

The rule: the text was accepted by ``tomllib`` before, so the scanner decides nothing about what is legal. A path is
``("routes", 0, "meter")``: names for tables, numbers for the entries of arrays and arrays of tables.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from gatekeeper.diagnostics import Span

KeyPath = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_BETWEEN = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_SCALAR = re.compile(r"[^,\]}#\n]*")
_LINE_CONTINUES = re.compile(r"\\[ \t]*\n[ \t\n]*")
_CODE_POINT = {"x": 2, "u": 4, "U": 8}
_LETTERS = {"b": "\b", "t": "\t", "n": "\n", "f": "\f", "r": "\r", "e": "\x1b"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key is written, and its value (for an entry of an array both are the entry itself)."""

    key: Span
    value: Span
    string: bool = False


class Places:
    """All places of one text. A path that is not written answers with its nearest written ancestor."""

    def __init__(self, text: str, found: dict[KeyPath, Place]) -> None:
        self._text = text
        self._found = found

    def key(self, path: KeyPath) -> Span:
        """The key of ``path`` as written, quotes included."""
        return self._nearest(path).key

    def value(self, path: KeyPath) -> Span:
        """The value of ``path`` as written; for a table with a header the last key of that header."""
        return self._nearest(path).value

    def inside(self, path: KeyPath, start: int, end: int) -> Span:
        """Where the characters ``start:end`` of the string at ``path`` are written. An escape counts as one."""
        place = self._found.get(path)
        if place is None or not place.string:
            return self.value(path)
        _, offsets = characters(self._text, place.value)
        first = offsets[max(0, min(start, len(offsets) - 1))]
        last = offsets[max(0, min(end, len(offsets) - 1))]
        return Span(first, max(first + 1, last))

    def strings(self) -> Iterator[tuple[KeyPath, Span]]:
        """Every string value with its quotes."""
        for path, place in self._found.items():
            if place.string:
                yield path, place.value

    def __iter__(self) -> Iterator[KeyPath]:
        return iter(self._found)

    def _nearest(self, path: KeyPath) -> Place:
        while path:
            found = self._found.get(path)
            if found is not None:
                return found
            path = path[:-1]
        return Place(Span(0, 0), Span(0, 0))


def locate(text: str) -> Places:
    """The places of a text that ``tomllib`` accepts. Line ends must be ``\\n``."""
    scanner = _Scanner(text)
    scanner.document()
    return Places(text, scanner.found)


def characters(text: str, span: Span) -> tuple[str, list[int]]:
    """The value of the TOML string at ``span``, and the offset in ``text`` of each of its characters.

    One offset more than there are characters: the last is where the closing quote stands.
    """
    quote = text[span.start]
    width = 3 if text.startswith(quote * 3, span.start) and span.end - span.start >= 6 else 1
    at, end = span.start + width, span.end - width
    if width == 3 and at < end and text[at] == "\n":
        at += 1
    letters: list[str] = []
    offsets: list[int] = []
    while at < end:
        if quote == "'" or text[at] != "\\":
            letter, after = text[at], at + 1
        else:
            joined = _LINE_CONTINUES.match(text, at, end) if width == 3 else None
            if joined is not None:
                at = joined.end()
                continue
            letter, after = _escape(text, at)
        letters.append(letter)
        offsets.append(at)
        at = after
    return "".join(letters), [*offsets, end]


def _escape(text: str, at: int) -> tuple[str, int]:
    kind = text[at + 1]
    digits = _CODE_POINT.get(kind)
    if digits is None:
        return _LETTERS.get(kind, kind), at + 2
    after = at + 2 + digits
    return chr(int(text[at + 2 : after], 16)), after


class _Scanner:
    """Walks over the text once and notes every key."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        # How many entries each array of tables has so far.
        self._entries: dict[KeyPath, int] = {}
        self.found: dict[KeyPath, Place] = {}

    def document(self) -> None:
        table: KeyPath = ()
        while True:
            self._skip(_BETWEEN)
            if self._at >= len(self._text):
                return
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)

    def _skip(self, pattern: re.Pattern[str]) -> None:
        found = pattern.match(self._text, self._at)
        assert found is not None
        self._at = found.end()

    def _header(self) -> KeyPath:
        of_array = self._text.startswith("[[", self._at)
        self._at += 2 if of_array else 1
        parts = self._dotted()
        self._at += 2 if of_array else 1
        path: KeyPath = ()
        for name, span in parts[:-1]:
            path = (*path, name)
            self.found.setdefault(path, Place(span, span))
            if path in self._entries:
                path = (*path, self._entries[path] - 1)
        name, span = parts[-1]
        path = (*path, name)
        self.found.setdefault(path, Place(span, span))
        if of_array:
            entry = self._entries.get(path, 0)
            self._entries[path] = entry + 1
            path = (*path, entry)
            self.found[path] = Place(span, span)
        return path

    def _pair(self, table: KeyPath) -> None:
        parts = self._dotted()
        self._at += 1  # the equals sign
        self._skip(_BLANK)
        path = table
        for name, span in parts[:-1]:
            path = (*path, name)
            self.found.setdefault(path, Place(span, span))
        name, span = parts[-1]
        path = (*path, name)
        # Noted before its children, so that the places stand in the order of the text.
        self.found[path] = Place(span, span)
        value = self._value(path)
        self.found[path] = Place(span, value, self._text[value.start] in "\"'")

    def _dotted(self) -> list[tuple[str, Span]]:
        parts: list[tuple[str, Span]] = []
        while True:
            self._skip(_BLANK)
            start = self._at
            if self._text[start] in "\"'":
                span = self._string()
                parts.append((characters(self._text, span)[0], span))
            else:
                self._skip(_BARE)
                span = Span(start, self._at)
                assert span.end > span.start, start
                parts.append((self._text[span.start : span.end], span))
            self._skip(_BLANK)
            if self._text[self._at] != ".":
                return parts
            self._at += 1

    def _value(self, path: KeyPath) -> Span:
        start = self._at
        first = self._text[start]
        if first in "\"'":
            return self._string()
        if first == "[":
            self._array(path)
        elif first == "{":
            self._inline_table(path)
        else:
            self._skip(_SCALAR)
            return Span(start, start + len(self._text[start : self._at].rstrip()))
        return Span(start, self._at)

    def _string(self) -> Span:
        text, start = self._text, self._at
        quote = text[start]
        # `""` is empty unless a third quote opens a multi-line string.
        width = 3 if text.startswith(quote * 3, start) else 1
        at = start + width
        while not text.startswith(quote * width, at):
            assert at < len(text), start
            at += 2 if quote == '"' and text[at] == "\\" else 1
        at += width
        if width == 3:
            # Up to two quotes may stand before the closing three.
            for _ in range(2):
                at += text.startswith(quote, at)
        self._at = at
        return Span(start, at)

    def _array(self, path: KeyPath) -> None:
        self._at += 1
        entry = 0
        while True:
            self._skip(_BETWEEN)
            if self._text[self._at] == "]":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            inner = (*path, entry)
            start = Span(self._at, self._at + 1)
            self.found[inner] = Place(start, start)
            span = self._value(inner)
            self.found[inner] = Place(span, span, self._text[span.start] in "\"'")
            entry += 1

    def _inline_table(self, path: KeyPath) -> None:
        self._at += 1
        while True:
            self._skip(_BETWEEN)
            if self._text[self._at] == "}":
                self._at += 1
                return
            if self._text[self._at] == ",":
                self._at += 1
                continue
            self._pair(path)
