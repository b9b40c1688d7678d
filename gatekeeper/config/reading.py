"""A typed reader over a parsed TOML text that collects every mistake instead of stopping at the first.

The rule: reading never raises. What is wrong becomes a Mistake in ``TomlFile.mistakes`` and the reader goes on with
the default; whoever reads looks at the mistakes at the end and throws the result away if there is an error.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from gatekeeper.config.locate import KeyPath, Places, locate
from gatekeeper.config.masking import masked, masked_unparsed
from gatekeeper.diagnostics import Mistake, Severity, Source, Span, suggest

T = TypeVar("T")
D = TypeVar("D")

_PLACE = re.compile(r"^(.*) \(at (?:line (\d+), column (\d+)|end of document)\)$", re.DOTALL)


class Wrong(Exception):
    """Raised by a kind: what is wrong with a value. ``start:end`` narrows the place inside a string value;
    ``at_key`` points at the key instead."""

    def __init__(
        self, message: str, hint: str | None = None, *, start: int | None = None, end: int = 0, at_key: bool = False
    ) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.start = start
        self.end = end
        self.at_key = at_key


class Reported(Exception):
    """Raised by a kind that has put its mistakes into the file already."""


class TomlFile:
    """One text with its values, its places, and all that was found wrong in it so far.

    ``broken`` means that it is no TOML at all: there is one mistake, and no values.
    """

    def __init__(self, text: str, name: str) -> None:
        # tomllib counts the same way; a byte order mark is nobody's mistake.
        text = text.removeprefix("\ufeff").replace("\r\n", "\n")
        self.mistakes: list[Mistake] = []
        self.values: dict[str, Any] = {}
        self.places = Places(text, {})
        self.broken = False
        try:
            self.values = tomllib.loads(text, parse_float=Decimal)
        except tomllib.TOMLDecodeError as error:
            self._not_toml(text, name, str(error))
        except RecursionError:
            self._not_toml(text, name, "Nested too deeply (at line 1, column 1)")
        except (ValueError, ArithmeticError):
            # Python's own bounds: integers of thousands of digits, exponents of dozens.
            self._not_toml(text, name, "A number has too many digits (at line 1, column 1)")
        else:
            self.places = locate(text)
            self.source = Source(masked(text, self.places), name)

    def complain(
        self,
        path: KeyPath,
        message: str,
        hint: str | None = None,
        *,
        at_key: bool = False,
        severity: Severity = Severity.ERROR,
    ) -> None:
        """Note a mistake at the value of ``path``, or at its key."""
        self.note(message, self.places.key(path) if at_key else self.places.value(path), hint, severity)

    def note(self, message: str, span: Span, hint: str | None = None, severity: Severity = Severity.ERROR) -> None:
        """Note a mistake at a place; the same one (a default that many routes share) only once."""
        mistake = Mistake(message, self.source, span, hint, severity)
        if mistake not in self.mistakes:
            self.mistakes.append(mistake)

    @property
    def wrong(self) -> bool:
        """Whether anything worse than a warning was found."""
        return any(mistake.severity is Severity.ERROR for mistake in self.mistakes)

    def line(self, path: KeyPath) -> int:
        """The line on which the key of ``path`` stands."""
        return self.source.position(self.places.key(path).start)[0]

    def top(self) -> "Table":
        """The whole document."""
        return Table(self, (), self.values)

    def _not_toml(self, text: str, name: str, message: str) -> None:
        self.broken = True
        self.source = Source(masked_unparsed(text), name)
        found = _PLACE.match(message)
        said, line, column = found.groups() if found else (message, None, None)
        if line is None or column is None:
            start = len(text.rstrip("\n"))
        else:
            start = sum(len(before) + 1 for before in text.split("\n")[: int(line) - 1]) + int(column) - 1
        hint = None
        if "Invalid value" in said:
            hint = 'text stands in quotes: name = "value"; numbers, true and false stand without'
        elif "Illegal character" in said:
            hint = "a string ends with the quote that it began with, on the same line"
        elif "overwrite" in said or "declare" in said.lower():
            hint = "each key and each [table] is written once; a list of tables is written [[name]]"
        self.note(f"this is not TOML: {said[:1].lower()}{said[1:]}", Span(start, start + 1), hint)


@dataclass(frozen=True, slots=True)
class Cell:
    """One value in its place, as a kind gets it."""

    file: TomlFile
    path: KeyPath
    value: Any

    def note(self, message: str, hint: str | None = None, start: int | None = None, end: int = 0) -> None:
        """Note a mistake here, or at the characters ``start:end`` of this string."""
        places = self.file.places
        span = places.value(self.path) if start is None else places.inside(self.path, start, end)
        self.file.note(message, span, hint)

    def entries(self) -> Iterator["Cell"]:
        """The entries of an array. Raises Wrong where this is none."""
        if not isinstance(self.value, list):
            hint = 'a list is written ["one", "two"], a list of tables [[name]]'
            raise Wrong(f"a list is expected here, this is {described(self.value)}", hint)
        for number, value in enumerate(self.value):
            yield Cell(self.file, (*self.path, number), value)

    def table(self) -> "Table":
        """This as a table. Raises Wrong where it is none."""
        if not isinstance(self.value, dict):
            raise Wrong(f"a table is expected here, this is {described(self.value)}")
        return Table(self.file, self.path, self.value)


Kind = Callable[[Cell], T]


class Table:
    """One table under reading. Keys that nobody asked for are complained about by ``finish``.

    ``fallback`` is the table that answers where this one has no such key.
    """

    def __init__(
        self, file: TomlFile, path: KeyPath, values: Mapping[str, Any], fallback: "Table | None" = None
    ) -> None:
        self.file = file
        self.path = path
        self.values = values
        self.fallback = fallback
        self._asked: set[str] = set()

    def take(self, key: str, kind: Kind[T], default: D) -> T | D:
        """The value of ``key`` as ``kind`` reads it; the default where it is missing or wrong."""
        cell = self.cell(key)
        return default if cell is None else read_cell(cell, kind, default)

    def need(self, key: str, kind: Kind[T], placeholder: D, hint: str | None = None) -> T | D:
        """Like ``take``, and its absence is a mistake."""
        cell = self.cell(key)
        if cell is None:
            self.file.complain(self.path, f"{key!r} is missing here", hint, at_key=True)
            return placeholder
        return read_cell(cell, kind, placeholder)

    def cell(self, key: str) -> Cell | None:
        """The value of ``key`` in its place, from here or from the fallback."""
        self._asked.add(key)
        if key in self.values:
            return Cell(self.file, (*self.path, key), self.values[key])
        return self.fallback.cell(key) if self.fallback is not None else None

    def has(self, key: str) -> bool:
        """Whether this table itself writes ``key``."""
        self._asked.add(key)
        return key in self.values

    def table(self, key: str) -> "Table":
        """A table inside this one; an empty one where it is missing or wrong."""
        return self.take(key, Cell.table, None) or Table(self.file, (*self.path, key), {})

    def tables(self, key: str) -> list["Table"]:
        """The entries of ``[[key]]``; those that are no tables are complained about and left out."""
        found = [read_cell(cell, Cell.table, None) for cell in self.take(key, lambda cell: list(cell.entries()), [])]
        return [table for table in found if table is not None]

    def named(self) -> list[tuple[str, Cell]]:
        """Every entry with its name, for tables whose keys the author chooses."""
        self._asked.update(self.values)
        return [(name, Cell(self.file, (*self.path, name), value)) for name, value in self.values.items()]

    def finish(self, *also_known: str) -> None:
        """Complain about every key that nobody has asked for."""
        known = self._asked | set(also_known)
        for key in self.values:
            if key not in known:
                where = ".".join(str(part) for part in self.path if isinstance(part, str))
                place = f"[{where}]" if where else "this file"
                hint = suggest(key, known) or f"known here: {', '.join(sorted(known))}"
                self.file.complain((*self.path, key), f"unknown key {key!r} in {place}", hint, at_key=True)


def read_cell(cell: Cell, kind: Kind[T], default: D) -> T | D:
    """What ``kind`` makes of a cell, or the default after a complaint."""
    try:
        return kind(cell)
    except Wrong as wrong:
        if wrong.at_key:
            cell.file.complain(cell.path, wrong.message, wrong.hint, at_key=True)
        else:
            cell.note(wrong.message, wrong.hint, wrong.start, wrong.end)
    except Reported:
        pass
    return default


def described(value: object) -> str:
    """What a TOML value is, in words for people. Never the value itself: it may be a secret."""
    names = {bool: "true or false", int: "a whole number", Decimal: "a number with a point", str: "a string"}
    names |= {list: "a list", dict: "a table"}
    return names.get(type(value), "a date or time")
