"""The values of the language: exact numbers, equality, order, size, and JSON both ways.

The rule: no binary float gets in. A number is an int or a Decimal; whatever was parsed into a float is parsed again.
"""

import json
from collections.abc import Callable
from decimal import (
    ROUND_HALF_EVEN,
    Context,
    Decimal,
    DecimalException,
    DivisionByZero,
    Inexact,
    InvalidOperation,
    Overflow,
)
from typing import Any

import orjson

from gatekeeper.wire.events import parse_exact

# 10^18 tokens are more than were ever made; 38 digits are what BIGINT products and Postgres NUMERIC(38) hold.
NUMBER_MAX = 10**18
DIGITS_MAX = 38
EXPONENT_MAX = 64
# What a division may leave behind; everything that is read or written has at most DIGITS_MAX.
DIGITS_COMPUTED_MAX = 50
_MAGNITUDE = 18
_SMALLEST = 100
# What one slot may hold (Law 2): a usage record has under 40 keys and 2 KiB.
HELD_BYTES_MAX = 16 * 1024
HELD_KEYS_MAX = 256
# A string that an expression grows (replace, join, +) stops here; what is only passed through may be longer.
TEXT_MADE_MAX = 1 << 20
PARTS_MADE_MAX = 100_000

_TRAPS = [InvalidOperation, DivisionByZero, Overflow]
EXACT = Context(prec=DIGITS_COMPUTED_MAX, rounding=ROUND_HALF_EVEN, traps=_TRAPS)
_STRICT = Context(prec=DIGITS_COMPUTED_MAX, rounding=ROUND_HALF_EVEN, traps=[*_TRAPS, Inexact])

Numeric = int | Decimal


class Unmeasurable(Exception):
    """An expression has no value for this input. The text is shown to people as the reading's note."""


def kind(value: object) -> str:
    """The name of a value's type, as it stands in messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | Decimal):
        return "a number"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, list | tuple):
        return "a list"
    return "a map" if isinstance(value, dict) else "an event"


def number(value: object) -> Decimal:
    """A number within the bounds, as a Decimal. Raises Unmeasurable for anything else."""
    if type(value) is int:
        if -NUMBER_MAX <= value <= NUMBER_MAX:
            return Decimal(value)
        raise Unmeasurable("a number is larger than 10^18")
    if isinstance(value, Decimal):
        return bounded(value, DIGITS_COMPUTED_MAX)
    raise Unmeasurable(f"expected a number, found {kind(value)}")


def bounded(value: Decimal, digits_max: int = DIGITS_MAX) -> Decimal:
    """The same number if it is finite, within 10^18 and so many significant digits."""
    if not value.is_finite():
        raise Unmeasurable("a number is not finite")
    if value.adjusted() > _MAGNITUDE or value.copy_abs() > NUMBER_MAX:
        raise Unmeasurable("a number is larger than 10^18")
    if value and value.adjusted() < -_SMALLEST:
        raise Unmeasurable(f"a number is smaller than 10^-{_SMALLEST}")
    digits = value.as_tuple().digits
    if len(digits) > digits_max and len("".join(map(str, digits)).rstrip("0")) > digits_max:
        raise Unmeasurable(f"a number has more than {digits_max} digits")
    return value


def _checked(operation: Callable[[Decimal, Decimal], Decimal], a: object, b: object) -> Decimal:
    try:
        result = operation(number(a), number(b))
    except Inexact:
        raise Unmeasurable("a result needs more than 50 digits") from None
    except DivisionByZero:
        raise Unmeasurable("division by zero") from None
    except DecimalException:
        raise Unmeasurable("a result is not a number") from None
    return bounded(result, DIGITS_COMPUTED_MAX)


def _context(a: object, b: object) -> Context:
    """Only what came out of a division may be rounded again."""
    for side in (a, b):
        if isinstance(side, Decimal) and len(side.as_tuple().digits) > DIGITS_MAX:
            return EXACT
    return _STRICT


def add(a: object, b: object) -> Decimal:
    """Exact, or Unmeasurable."""
    return _checked(_context(a, b).add, a, b)


def subtract(a: object, b: object) -> Decimal:
    """Exact, or Unmeasurable."""
    return _checked(_context(a, b).subtract, a, b)


def multiply(a: object, b: object) -> Decimal:
    """Exact, or Unmeasurable."""
    return _checked(_context(a, b).multiply, a, b)


def divide(a: object, b: object) -> Decimal:
    """Rounded half-even at 50 digits where it has to be. By zero: Unmeasurable."""
    divisor = number(b)
    if not divisor:
        raise Unmeasurable("division by zero")
    return _checked(EXACT.divide, a, divisor)


def remainder(a: object, b: object) -> Decimal:
    """With the sign of the dividend."""
    if not number(b):
        raise Unmeasurable("division by zero")
    return _checked(EXACT.remainder, a, b)


def power(a: object, b: object) -> Decimal:
    """``a ** b`` for a whole exponent of at most 64 either way."""
    exponent = number(b)
    if exponent != exponent.to_integral_value() or abs(exponent) > EXPONENT_MAX:
        raise Unmeasurable(f"the exponent of ** is a whole number from -{EXPONENT_MAX} to {EXPONENT_MAX}")
    base, result = number(a), Decimal(1)
    if not base and exponent < 0:
        raise Unmeasurable("division by zero")
    for _ in range(abs(int(exponent))):
        result = multiply(result, base)
    return divide(1, result) if exponent < 0 else result


def negate(a: object) -> Decimal:
    """Without a negative zero."""
    value = number(a)
    return value.copy_negate() if value else Decimal(0)


def equal(a: object, b: object) -> bool:
    """Deep equality; values of different types are not equal. Needs no recursion; linear in the smaller one."""
    waiting: list[tuple[Any, Any]] = [(a, b)]
    while waiting:
        left, right = waiting.pop()
        if kind(left) != kind(right):
            return False
        if isinstance(left, list):
            if len(left) != len(right):
                return False
            waiting.extend(zip(left, right, strict=True))
        elif isinstance(left, dict):
            if left.keys() != right.keys():
                return False
            waiting.extend((left[key], right[key]) for key in left)
        elif left != right:
            return False
    return True


def made(value: Any) -> Any:
    """A list or map that an expression put together: refused past a bound on all that is in it. Without this, lists of
    lists of the same list would grow without taking memory, until somebody walks them."""
    count = 0
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is list or type(item) is dict:
            count += len(item)
            if count > PARTS_MADE_MAX:
                raise Unmeasurable(f"a list or map grew past {PARTS_MADE_MAX} parts")
            waiting.extend(item.values() if isinstance(item, dict) else item)
    return value


def less(a: object, b: object) -> bool:
    """``a < b`` for two numbers or two strings; anything else is Unmeasurable."""
    if isinstance(a, str) and isinstance(b, str):
        return a < b
    if kind(a) == kind(b) == "a number":
        return number(a) < number(b)
    raise Unmeasurable(f"cannot order {kind(a)} and {kind(b)}")


def grown(made: int, given: int) -> None:
    """Refuses a string of ``made`` characters that was grown out of ``given`` ones past the bound."""
    if made > TEXT_MADE_MAX and made > given:
        raise Unmeasurable(f"a string grew past {TEXT_MADE_MAX} characters")


def too_large(value: object) -> bool:
    """Whether a slot may not hold this (Law 2)."""
    return weight(value) is None


def weight(value: object) -> tuple[int, int] | None:
    """(bytes, keys) that a slot needs to hold this; None: more than it may hold (Law 2). Needs no recursion and stops
    at the bound. What fits into a machine word counts as nothing."""
    kind_of = type(value)
    if value is None or kind_of is bool or (kind_of is int and -NUMBER_MAX <= value <= NUMBER_MAX):  # type: ignore[operator]
        return 0, 0
    size = keys = 0
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        if type(item) is dict:
            keys += len(item)
            if keys > HELD_KEYS_MAX:
                return None
            waiting.extend(item.values())
            size += sum(map(_text_size, item))
        elif type(item) is list:
            keys += len(item)
            if keys > HELD_KEYS_MAX:
                return None
            waiting.extend(item)
        elif type(item) is str:
            size += _text_size(item)
        elif type(item) is int:
            size += 8 + item.bit_length() // 3
        elif type(item) is Decimal:
            size += 8 + len(item.as_tuple().digits)
        else:
            size += 8
        if size > HELD_BYTES_MAX:
            return None
    return size, keys


def _text_size(text: str) -> int:
    """Bytes of UTF-8; characters where they are over the bound already."""
    if text.isascii() or len(text) > HELD_BYTES_MAX:
        return len(text)
    return len(text.encode("utf-8", "surrogatepass"))


def has_float(value: object) -> bool:
    """Whether a binary float, or an integer that orjson may have bent, stands anywhere in a parsed value."""
    kind_of = type(value)
    if kind_of is float:
        return True
    if kind_of is not dict and kind_of is not list:
        return False
    waiting: list[Any] = [value]
    while waiting:
        item = waiting.pop()
        for part in item.values() if isinstance(item, dict) else item:
            if type(part) is float:
                return True
            if isinstance(part, dict | list):
                waiting.append(part)
    return False


def json_of(text: str) -> Any:
    """Parsed exactly, or None for what is empty or broken. Never raises."""
    try:
        value = orjson.loads(text)
        if not has_float(value):
            return value
    except ValueError:
        pass
    return parse_exact(text.encode("utf-8", "surrogatepass"))


def json_text(value: Any) -> str:
    """JSON of a value of the language, compact, keys in their order, numbers with their exact digits."""
    pieces: list[str] = []
    _write(value, pieces, 0)
    return "".join(pieces)


def _write(value: Any, pieces: list[str], depth: int) -> None:
    if depth > 200:
        raise Unmeasurable("a value is nested too deep for jsonEncode")
    if isinstance(value, Decimal):
        pieces.append(decimal_text(bounded(value, DIGITS_COMPUTED_MAX)))
    elif isinstance(value, dict):
        for position, (key, part) in enumerate(value.items()):
            pieces.append(("," if position else "{") + json.dumps(key, ensure_ascii=False) + ":")
            _write(part, pieces, depth + 1)
        pieces.append("}" if value else "{}")
    elif isinstance(value, list | tuple):
        for position, part in enumerate(value):
            pieces.append("," if position else "[")
            _write(part, pieces, depth + 1)
        pieces.append("]" if value else "[]")
    else:
        pieces.append(json.dumps(value, ensure_ascii=False))


def decimal_text(value: Numeric) -> str:
    """A number in plain digits, without trailing zeros. Only for numbers that are not out of all bounds."""
    if isinstance(value, int):
        return str(value)
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text
