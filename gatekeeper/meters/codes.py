"""Closures for operators: values in, value out, with their marks.

The rule: arithmetic with null is null; a test's null is false; the marks of the parts join in the whole, but a null
has no marks: nothing was read.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from gatekeeper.meters import values
from gatekeeper.meters.folds import NOTHING, SAW_NULL, Marked, holds
from gatekeeper.meters.functions.numbers import contained
from gatekeeper.meters.operators import compiled_pattern
from gatekeeper.meters.run import Code, Run
from gatekeeper.meters.values import Unmeasurable, equal, kind, less

# `a..b` makes a list; a longer one has no use in a meter.
RANGE_MAX = 1000


def constant(value: Any) -> Code:
    """Always the same."""
    marked: Marked = (value, 0)
    return lambda run: marked


def _plus(left: Any, right: Any) -> Any:
    if isinstance(left, str) and isinstance(right, str):
        values.grown(len(left) + len(right), max(len(left), len(right)))
        return left + right
    if isinstance(left, str) or isinstance(right, str):
        raise Unmeasurable(f"'+' cannot join {kind(left)} and {kind(right)}")
    return values.add(left, right)


def _span(left: Any, right: Any) -> list[Any]:
    first, last = values.number(left), values.number(right)
    if first != first.to_integral_value() or last != last.to_integral_value():
        raise Unmeasurable("'..' wants whole numbers")
    if last - first >= RANGE_MAX:
        raise Unmeasurable(f"'..' gives at most {RANGE_MAX} numbers")
    return list(range(int(first), int(last) + 1))


_ARITHMETIC: dict[str, Callable[[Any, Any], Any]] = {
    "+": _plus,
    "-": values.subtract,
    "*": values.multiply,
    "/": values.divide,
    "%": values.remainder,
    "**": values.power,
    "..": _span,
}
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": less,
    ">": lambda left, right: less(right, left),
    "<=": lambda left, right: not less(right, left),
    ">=": lambda left, right: not less(left, right),
}


def _texts(test: Callable[[str, str], bool]) -> Callable[[Any, Any], bool]:
    def tested(left: Any, right: Any) -> bool:
        for side in (left, right):
            if not isinstance(side, str):
                raise Unmeasurable(f"expected a string, found {kind(side)}")
        return test(left, right)

    return tested


def _matching(pattern: str) -> Callable[[Any, Any], bool]:
    program = compiled_pattern(pattern)

    def search(left: str, _: str) -> bool:
        return program.search(left.encode("utf-8", "replace")) is not None

    return _texts(search)


_WORDS: dict[str, Callable[[Any, Any], bool]] = {
    "contains": _texts(lambda text, part: part in text),
    "startsWith": _texts(str.startswith),
    "endsWith": _texts(str.endswith),
    "in": contained,
}


def binary(sign: str, left: Code, right: Code, pattern: str | None = None) -> Code:
    """Any operator of two operands but ``??``, ``==``, ``!=``. ``pattern``: the constant right side of ``matches``."""
    if sign in _ARITHMETIC:
        return _arithmetic(_ARITHMETIC[sign], left, right)
    if sign in ("&&", "||"):
        return _both(left, right) if sign == "&&" else _either(left, right)
    if sign in _ORDER:
        return _ordered(_ORDER[sign], left, right)
    word = sign.removeprefix("not ")
    test = _matching(pattern) if word == "matches" and pattern is not None else _WORDS[word]
    return _worded(test, left, right, negated=sign != word)


def _arithmetic(operation: Callable[[Any, Any], Any], left: Code, right: Code) -> Code:
    def code(run: Run) -> Marked:
        a, marks = left(run)
        b, more = right(run)
        if a is None or b is None:
            return NOTHING
        run.weigh(a)
        return operation(a, b), marks | more

    return code


def _both(left: Code, right: Code) -> Code:
    def code(run: Run) -> Marked:
        a, marks = _tested(left(run))
        if not a:
            return a, marks
        b, more = _tested(right(run))
        return b, marks | more

    return code


def _either(left: Code, right: Code) -> Code:
    def code(run: Run) -> Marked:
        a, marks = _tested(left(run))
        if a:
            return a, marks
        b, more = _tested(right(run))
        return b, marks | more

    return code


def _tested(marked: Marked) -> tuple[bool, int]:
    value, marks = marked
    return (False, SAW_NULL) if value is None else (holds(value), marks)


def equality(left: Code, right: Code, *, wanted: bool, null_left: bool, null_right: bool) -> Code:
    """``==`` and ``!=``. A side that is written as ``null`` is no null that was met."""

    def code(run: Run) -> Marked:
        a, marks = left(run)
        b, more = right(run)
        met = (a is None and not null_left) or (b is None and not null_right)
        run.weigh(a)
        known = (0 if a is None else marks) | (0 if b is None else more)
        return equal(a, b) is wanted, known | (SAW_NULL if met else 0)

    return code


def _ordered(test: Callable[[Any, Any], bool], left: Code, right: Code) -> Code:
    def code(run: Run) -> Marked:
        a, marks = left(run)
        b, more = right(run)
        return NOTHING if a is None or b is None else (test(a, b), marks | more)

    return code


def _worded(test: Callable[[Any, Any], bool], left: Code, right: Code, *, negated: bool) -> Code:
    def code(run: Run) -> Marked:
        a, marks = left(run)
        b, more = right(run)
        if a is None or b is None:
            return negated, SAW_NULL
        run.weigh(a)
        run.weigh(b)
        return test(a, b) is not negated, marks | more

    return code


def negation(of: Code) -> Code:
    """``-x``."""

    def code(run: Run) -> Marked:
        value, marks = of(run)
        return NOTHING if value is None else (values.negate(value), marks)

    return code


def opposite(of: Code) -> Code:
    """``not x``; null is false, so its opposite is true."""

    def code(run: Run) -> Marked:
        value, marks = _tested(of(run))
        return not value, marks

    return code


def fallback(left: Code, right: Code) -> Code:
    """``a ?? b``. An error on the left is never caught."""

    def code(run: Run) -> Marked:
        marked = left(run)
        return marked if marked[0] is not None else run.fallback(right(run))

    return code


def first_there(options: list[Code]) -> Code:
    """``coalesce`` and ``default``: null and '' are passed over."""

    def code(run: Run) -> Marked:
        marked = options[0](run)
        for option in options[1:]:
            if marked[0] is not None and marked[0] != "":
                return marked
            marked = run.fallback(option(run))
        return NOTHING if marked[0] == "" else marked

    return code


def choice(test: Code, yes: Code, no: Code) -> Code:
    """``test ? yes : no``. Where the test met a null, the branch is a fallback."""

    def code(run: Run) -> Marked:
        value, marks = _tested(test(run))
        marked = yes(run) if value else no(run)
        return run.fallback(marked) if marks & SAW_NULL else marked

    return code


def called(function: Callable[..., Any], arguments: list[Code], *, sees_null: bool, tests: bool) -> Code:
    """A plain function. ``tests``: it asks whether something is there (``has``)."""

    def code(run: Run) -> Marked:
        given: list[Any] = []
        marks, null = 0, False
        for argument in arguments:
            value, more = argument(run)
            null = null or value is None
            given.append(value)
            marks |= 0 if value is None else more
        # Only now: an error in a later argument is not hidden by a null in an earlier one.
        if null and not sees_null:
            return NOTHING
        for value in given:
            run.weigh(value)
        result = function(*given)
        if type(result) is str:
            values.grown(len(result), max((len(value) for value in given if type(value) is str), default=0))
        return result, marks | (SAW_NULL if tests and result is False else 0)

    return code


def items(parts: list[Code]) -> Code:
    """``[a, b]``."""

    def code(run: Run) -> Marked:
        marked = [part(run) for part in parts]
        marks = 0
        for value, more in marked:
            marks |= 0 if value is None else more
        found = values.made([value for value, _ in marked])
        run.weigh(found)
        return found, marks

    return code


def entries(parts: list[tuple[Code, Code]]) -> Code:
    """``{a: 1}``."""

    def code(run: Run) -> Marked:
        made: dict[str, Any] = {}
        marks = 0
        for key, part in parts:
            name, _ = key(run)
            if not isinstance(name, str):
                raise Unmeasurable(f"a key is a string, found {kind(name)}")
            made[name], more = part(run)
            marks |= 0 if made[name] is None else more
        return values.made(made), marks

    return code


def indexed(of: Code, at: Code) -> Code:
    """``x[i]``: a key of a map, a place in a list or string; null where there is none."""

    def code(run: Run) -> Marked:
        holder, marks = of(run)
        place, more = at(run)
        return _item(holder, place), marks | more

    return code


def _item(holder: Any, place: Any) -> Any:
    if isinstance(holder, dict):
        return holder.get(place) if isinstance(place, str) else None
    if not isinstance(holder, list | str) or isinstance(place, bool) or not isinstance(place, int | Decimal):
        return None
    if place != int(place) or not -len(holder) <= place < len(holder):
        return None
    return holder[int(place)]


def sliced(of: Code, start: Code | None, stop: Code | None) -> Code:
    """``x[a:b]`` of a list or a string; ends out of reach are drawn in."""

    def end(run: Run, code: Code | None) -> int | None:
        value = None if code is None else code(run)[0]
        if value is None:
            return None
        place = values.number(value)
        if place != place.to_integral_value():
            raise Unmeasurable("a slice wants whole numbers")
        return int(place)

    def code(run: Run) -> Marked:
        holder, marks = of(run)
        if holder is None:
            return NOTHING
        if not isinstance(holder, list | str):
            raise Unmeasurable(f"{kind(holder)} cannot be cut")
        run.weigh(holder)
        return holder[end(run, start) : end(run, stop)], marks

    return code


def member(of: Code, name: str) -> Code:
    """``x.name``; null where there is none."""

    def code(run: Run) -> Marked:
        holder, marks = of(run)
        return (holder.get(name), marks) if isinstance(holder, dict) else NOTHING

    return code
