"""The small words of a Shape, compiled: paths, sums, conditions; and the search that spares the parsing.

The rule: reading a path never raises, whatever JSON it meets.
"""

from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

Path = tuple[str | int | tuple[str, str], ...]
Number = int | Decimal

# Beyond this nothing is a count: the meters' own bound.
NUMBER_MAX = 10**18
# More decimals than this no provider sends; fewer keep every sum exact.
_DECIMALS_MAX = 18
# A needle shorter than this is found by chance too often.
_NEEDLE_MIN = 4
_KEY_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")


class Inexact(Exception):
    """A float was met where money is read: parse the event again, exactly."""


class Condition(NamedTuple):
    """Holds if one of ``paths`` is there (``values`` None), or says one of ``values`` (or, ``negated``, none)."""

    paths: tuple[Path, ...]
    values: frozenset[str] | None
    negated: bool


def parse_path(text: str) -> Path:
    """``a.0.k=v`` in its steps."""
    steps: list[str | int | tuple[str, str]] = []
    for step in filter(None, text.strip().split(".")):
        key, equals, value = step.partition("=")
        steps.append((key, value) if equals else int(step) if step.isdecimal() else step)
    return tuple(steps)


def parse_alternatives(text: str) -> tuple[Path, ...]:
    """``a | b.c``."""
    return tuple(parse_path(part) for part in text.split("|"))


def parse_sums(text: str) -> tuple[tuple[Path, ...], ...]:
    """``a + b | c``: alternatives of sums."""
    return tuple(tuple(parse_path(term) for term in part.split("+")) for part in text.split("|"))


def parse_conditions(text: str) -> tuple[Condition, ...]:
    """``path``, ``path = a | b`` and ``path != a | b``, joined by ``,``."""
    conditions = []
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        left, equals, right = part.partition("=")
        values = frozenset(value.strip() for value in right.split("|")) if equals else None
        conditions.append(Condition(parse_alternatives(left.rstrip("! ")), values, left.rstrip().endswith("!")))
    return tuple(conditions)


def dig(value: Any, path: Path) -> Any:
    """What stands at ``path``, or None."""
    for step in path:
        kind = type(value)
        if kind is dict:
            value = value.get(step)
        elif kind is not list:
            return None
        elif type(step) is int:
            value = value[step] if step < len(value) else None
        elif type(step) is tuple:
            value = next((item for item in value if type(item) is dict and item.get(step[0]) == step[1]), None)
        else:
            return None
    return value


def holds(conditions: tuple[Condition, ...], value: Any) -> bool:
    """Whether all conditions hold on this JSON."""
    for paths, values, negated in conditions:
        met = False
        for path in paths:
            plain = len(path) == 1 and type(value) is dict
            found = value.get(path[0]) if plain else dig(value, path)
            if values is None:
                met = met or found is not None
            elif found is True:
                met = met or "true" in values
            else:
                met = met or (type(found) is str and found in values)
        if met is negated:
            return False
    return True


def number(value: Any) -> Number | None:
    """A count: an int where it is whole, a Decimal otherwise, None for anything that is no count.

    Raises Inexact for a float."""
    kind = type(value)
    if kind is int:
        return value if 0 <= value <= NUMBER_MAX else None
    if kind is float:
        raise Inexact
    if kind is not Decimal or not value.is_finite() or not 0 <= value <= NUMBER_MAX:
        return None
    if value == 0:
        return 0
    if value.as_tuple().exponent < -_DECIMALS_MAX:
        return None
    return int(value) if value == value.to_integral_value() else value


def number_of_float(value: Any) -> Number | None:
    """The same for JSON that somebody else has parsed: a float counts as the shortest decimal that names it."""
    return number(Decimal(repr(value)) if type(value) is float else value)


@lru_cache(maxsize=256)
def needles(keys: frozenset[str]) -> tuple[bytes, ...] | None:
    """As few byte strings as possible, so that JSON with one of ``keys`` in it holds one of them (or an escape that
    spells one). None: the keys are such that only parsing can tell.

    Most providers' keys share ``oken``; each search costs about as much as a third of parsing the event.
    """
    if not all(set(key) <= _KEY_LETTERS and key for key in keys):
        return None
    left = {f'"{key}"' for key in keys}
    chosen: list[bytes] = []
    while left:
        cover: dict[str, int] = {}
        for word in left:
            sizes = range(min(_NEEDLE_MIN, len(word)), len(word) + 1)
            for part in {word[at : at + size] for size in sizes for at in range(len(word) - size + 1)}:
                cover[part] = cover.get(part, 0) + 1
        best = max(cover, key=lambda part: (cover[part], len(part), part))
        chosen.append(best.encode())
        left = {word for word in left if best not in word}
    return tuple(chosen)
