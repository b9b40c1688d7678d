"""Functions over numbers. Exact; nothing rounds but the functions that say so."""

from collections.abc import Callable
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from gatekeeper.meters.functions.spec import Function, ex
from gatekeeper.meters.kinds import NUMBER, Kind
from gatekeeper.meters.values import (
    EXACT,
    Unmeasurable,
    add,
    bounded,
    equal,
    kind,
    multiply,
    number,
    subtract,
)

N, A = Kind.NUMBER, Kind.ANY


def _to_whole(mode: str) -> Callable[[object], Decimal]:
    return lambda value: number(value).to_integral_value(rounding=mode) or Decimal(0)


def _round(value: object, digits: object = 0) -> Decimal:
    places = number(digits)
    if places != places.to_integral_value() or not 0 <= places <= 18:
        raise Unmeasurable("round takes 0 to 18 digits")
    made = number(value).quantize(Decimal(1).scaleb(-int(places)), rounding=ROUND_HALF_EVEN, context=EXACT)
    return made or Decimal(0)


def to_number(value: Any) -> Decimal | None:
    """A number, or a string that spells one; anything else is null."""
    if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
        return None
    if not isinstance(value, str):
        return number(value)
    text = value.strip()
    # Python's Decimal also takes underscores, other scripts' digits, "nan" and "inf": a provider's count has none.
    if len(text) > 64 or not text.isascii() or set(text) - set("0123456789+-.eE"):
        return None
    try:
        read = Decimal(text)
    except InvalidOperation:
        return None
    try:
        return bounded(read)
    except Unmeasurable:
        return None


def _to_int(value: Any) -> Decimal | None:
    read = to_number(value)
    return None if read is None else Decimal(int(read))


def _clamp(value: object, low: object, high: object) -> Decimal:
    if number(low) > number(high):
        raise Unmeasurable("clamp: the lower bound is above the upper one")
    return max(number(low), min(number(value), number(high)))


def smallest(*values: object) -> Decimal:
    """For ``min(a, b, ...)``."""
    return min(number(value) for value in values)


def largest(*values: object) -> Decimal:
    """For ``max(a, b, ...)``."""
    return max(number(value) for value in values)


def tier(value: object, *steps: Any) -> Decimal:
    """Graduated price: each ``[upto, price]`` prices the part of x between the step before it and ``upto``."""
    amount, before, total = number(value), Decimal(0), Decimal(0)
    if amount < 0:
        raise Unmeasurable("tier wants a number that is not negative")
    for position, step in enumerate(steps):
        if not isinstance(step, list) or len(step) != 2 or step[1] is None:
            raise Unmeasurable("a step of tier is [upto, price]")
        if step[0] is None and position < len(steps) - 1:
            raise Unmeasurable("only the last step of tier may go up to null")
        upto = amount if step[0] is None else number(step[0])
        if step[0] is not None and upto <= before:
            raise Unmeasurable("the steps of tier must rise")
        if amount > before:
            total = add(total, multiply(subtract(min(amount, upto), before), step[1]))
        before = upto
    if amount > before:
        raise Unmeasurable("the number is above the last step of tier; let it go up to null")
    return total


def contained(item: object, holder: Any) -> bool:
    """``item in holder``: an item of a list, a key of a map."""
    if isinstance(holder, list):
        return any(equal(item, each) for each in holder)
    if isinstance(holder, dict):
        return isinstance(item, str) and item in holder
    raise Unmeasurable(f"'in' wants a list or a map, found {kind(holder)}")


def _numeric(
    name: str, signature: str, sentence: str, run: Any, *examples: Any, count: int = 1, optional: int = 0
) -> Function:
    return Function(name, signature, sentence, examples, (N,) * count, optional, gives=NUMBER, run=run)


FUNCTIONS = (
    Function(
        "toInt",
        "toInt(x)",
        "A whole number, cut towards zero; null for junk.",
        (ex("toInt('12.9')", "12"), ex("toInt('x')", "null")),
        (A,),
        gives=NUMBER,
        run=_to_int,
    ),
    Function(
        "toFloat",
        "toFloat(x)",
        "A number (exact, not a float); null for junk.",
        (ex("toFloat('0.10')", "0.1"), ex("toFloat('')", "null")),
        (A,),
        gives=NUMBER,
        run=to_number,
    ),
    _numeric("abs", "abs(x)", "Without its sign.", lambda x: number(x).copy_abs(), ex("abs(-2)", "2")),
    _numeric(
        "ceil",
        "ceil(x)",
        "The next whole number upwards.",
        _to_whole(ROUND_CEILING),
        ex("ceil(1.2)", "2"),
        ex("ceil(-1.2)", "-1"),
    ),
    _numeric("floor", "floor(x)", "The next whole number downwards.", _to_whole(ROUND_FLOOR), ex("floor(7 / 2)", "3")),
    _numeric(
        "round",
        "round(x[, digits])",
        "Rounded half-even.",
        _round,
        ex("round(2.5)", "2"),
        ex("round(3.5)", "4"),
        ex("round(1.235, 2)", "1.24"),
        count=2,
        optional=1,
    ),
    _numeric(
        "clamp",
        "clamp(x, low, high)",
        "x, but at least low and at most high.",
        _clamp,
        ex("clamp(7, 1, 5)", "5"),
        count=3,
    ),
    Function(
        "tier",
        "tier(x, [upto, price], ...)",
        "Graduated price: each step prices only the part of x that lies in it; the last may go up to null.",
        (ex("tier(1500, [1000, 0.01], [null, 0.005])", "12.5"), ex("tier(10, [1000, 0.01], [null, 0.005])", "0.1")),
        (N, Kind.LIST),
        rest=Kind.LIST,
        gives=NUMBER,
        run=tier,
    ),
)
