"""What a single value may be: each kind reads one Cell or raises Wrong with a sentence for people.

The rule: a kind never shows a value that could be a secret, and never lets a binary float near money.
"""

import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TypeVar

from gatekeeper.config.reading import Cell, Kind, Wrong, described, read_cell
from gatekeeper.diagnostics import suggest

T = TypeVar("T")
E = TypeVar("E", bound=StrEnum)

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|sec|m|min|h|d)\s*")
_SECONDS = {
    "ms": Decimal("0.001"),
    "s": Decimal(1),
    "sec": Decimal(1),
    "m": Decimal(60),
    "min": Decimal(60),
    "h": Decimal(3_600),
    "d": Decimal(86_400),
}
_NUMBER = re.compile(r"[+-]?[0-9]{1,19}(?:\.[0-9]{1,19})?")


def text(cell: Cell) -> str:
    """A string that is not empty."""
    if not isinstance(cell.value, str):
        raise Wrong(f"a string is expected here, this is {described(cell.value)}", "strings stand in quotes")
    if not cell.value:
        raise Wrong("this string is empty")
    return cell.value


def flag(cell: Cell) -> bool:
    """``true`` or ``false``."""
    if not isinstance(cell.value, bool):
        raise Wrong(f"true or false is expected here, this is {described(cell.value)}", "they stand without quotes")
    return cell.value


def whole(least: int, most: int) -> Kind[int]:
    """A whole number within bounds, both included."""

    def read(cell: Cell) -> int:
        value = cell.value
        if isinstance(value, bool) or not isinstance(value, int):
            hint = "numbers stand without quotes" if isinstance(value, str) else None
            raise Wrong(f"a whole number is expected here, this is {described(value)}", hint)
        if not least <= value <= most:
            raise Wrong(f"{value} is out of range", f"from {least} to {most}")
        return value

    return read


def seconds(cell: Cell) -> float:
    """A duration in seconds: more than 0, at most a day (longer is a slip of the unit)."""
    value = cell.value
    if isinstance(value, str):
        found = _DURATION.fullmatch(value)
        hint = f"write {Decimal(found[1]) * _SECONDS[found[2]]:f}" if found else "write 30 for half a minute"
        raise Wrong("durations are plain numbers of seconds, without quotes or unit", hint)
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise Wrong(f"a number of seconds is expected here, this is {described(value)}")
    if not (Decimal(value).is_finite() and 0 < value <= 86_400):
        raise Wrong(f"{value} seconds are out of range", "more than 0, at most 86400 (a day)")
    return float(value)


def choice(kind: type[E]) -> Kind[E]:
    """One of the words of an enum."""

    def read(cell: Cell) -> E:
        word = text(cell)
        words = [entry.value for entry in kind]
        if word not in words:
            listed = ", ".join(f'"{entry}"' for entry in words)
            raise Wrong(f"{word!r} is not one of {listed}", suggest(word, words))
        return kind(word)

    return read


def figure(what: str, most: int = 10**12) -> Kind[Decimal]:
    """An exact number >= 0 for ``what`` (money, units): a whole number, or a string where it has a point."""

    def read(cell: Cell) -> Decimal:
        value = cell.value
        if isinstance(value, Decimal):
            # Nobody means a figure of more digits; written out it could fill the memory.
            usual = value.is_finite() and abs(value.adjusted()) < 20
            raise Wrong(f"{what} with a point is written as a string", f'write "{value:f}"' if usual else None)
        if isinstance(value, str) and not _NUMBER.fullmatch(value):
            raise Wrong(f"this string is not {what}", 'plain digits, as in "0.002"; no sign of a currency, no exponent')
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise Wrong(f"{what} is expected here, this is {described(value)}", 'a whole number, or a string: "0.002"')
        try:
            number = Decimal(value)
        except InvalidOperation:
            raise Wrong(f"this string is not {what}") from None
        if not 0 <= number <= most:
            raise Wrong(f"{value} is out of range for {what}", f"from 0 to {most:,}")
        return number

    return read


def many(kind: Kind[T]) -> Kind[tuple[T, ...]]:
    """A list whose entries are each of ``kind``; wrong entries are complained about one by one."""

    def read(cell: Cell) -> tuple[T, ...]:
        found = [read_cell(entry, kind, None) for entry in cell.entries()]
        return tuple(entry for entry in found if entry is not None)

    return read


def word(pattern: str, rule: str) -> Callable[[Cell], str]:
    """A string that fully matches ``pattern``; ``rule`` says it in words."""
    shape = re.compile(pattern)

    def read(cell: Cell) -> str:
        value = text(cell)
        if not shape.fullmatch(value):
            raise Wrong(f"{value!r} is not allowed here", rule)
        return value

    return read
