"""From the numbers that a shape's fields gave to the normalised record.

The rule: what is written is consistent. Parts never exceed the total, an unknown count is None and never 0, and a
total that contradicts its parts is not believed.
"""

from collections.abc import Mapping
from decimal import Context, Decimal
from typing import Any

from gatekeeper.wire.paths import Condition, Number, Path, parse_alternatives, parse_conditions, parse_path, parse_sums
from gatekeeper.wire.shapes import Shape

# Sums of counts up to 10^18 with 18 decimals stay exact.
_EXACT = Context(prec=60)
# What each of these is a part of.
_PART_OF = {"audio_input": "input", "image_input": "input", "audio_output": "output", "image_output": "output"}


# The paths of a shape as a tree: (step, the path that ends here or None, what goes on below).
Tree = tuple[tuple[Any, Path | None, "Tree"], ...]


class Row:
    """A Shape with its small words parsed. ``tree`` holds all the paths that its counts read."""

    __slots__ = (
        "at", "billed", "counts", "deciding", "first", "iterations", "keep_last", "keys", "need", "need_first",
        "need_starts", "opening", "placeholder", "quick", "shape", "tree", "waits", "when",
    )  # fmt: skip

    def __init__(self, shape: Shape) -> None:
        guessed_at = parse_path(shape.placeholder_at) if shape.placeholder_at else None
        self.shape = shape
        self.keep_last = shape.keep == "last"
        self.at = tuple((path, path == guessed_at) for path in parse_alternatives(shape.at))
        self.counts = {name: parse_sums(text) for name, text in shape.counts.items()}
        terms = tuple(dict.fromkeys(term for sums in self.counts.values() for part in sums for term in part))
        self.tree = _tree(terms, 0)
        self.need = parse_alternatives(shape.need) if shape.need else terms
        # The first of them, where it is one key.
        self.need_first = str(self.need[0][0]) if self.need and len(self.need[0]) == 1 else ""
        self.need_starts = frozenset(str(path[0]) for path in self.need)
        # The last name on each path; "" where there is none, which no search can find.
        self.keys = frozenset(next((step for step in reversed(path) if type(step) is str), "") for path in self.need)
        self.when = parse_conditions(shape.when)
        self.quick = _quick(self.when)
        self.opening = parse_conditions(shape.opening)
        # Whether a number at a needed path is enough to know that the event will be remembered, as it is.
        self.waits = self.keep_last and set(self.need) <= set(terms)
        asked = [path for condition in (*self.when, *self.opening) for path in condition.paths]
        found_by = [step[0] for path in (*asked, *terms, *self.need) for step in path if type(step) is tuple]
        # The keys whose values decide which shape, or which element, is read.
        self.deciding = frozenset([*(str(path[-1]) for path in asked if path), *found_by])
        self.first = frozenset(parse_alternatives(shape.first)) if shape.first else frozenset()
        self.placeholder = parse_path(shape.placeholder)
        self.iterations = parse_path(shape.iterations)
        self.billed = parse_path(shape.billed)


def _quick(when: tuple[Condition, ...]) -> tuple[str, tuple[str, ...], bool] | None:
    """(key, values, negated) of a lone condition on one key of the event, which needs no walk."""
    if len(when) != 1:
        return None
    (path, *more), values, negated = when[0]
    if values is None or "true" in values:
        return None
    key = path[0] if len(path) == 1 and not more else None
    # A tuple: whatever stands at the key can be compared with it, also what cannot be hashed.
    return (key, tuple(values), negated) if type(key) is str else None


def _tree(terms: tuple[Path, ...], depth: int) -> Tree:
    steps = dict.fromkeys(term[depth] for term in terms)
    tree = []
    for step in steps:
        below = tuple(term for term in terms if term[depth] == step)
        ends = next((term for term in below if len(term) == depth + 1), None)
        tree.append((step, ends, _tree(tuple(term for term in below if len(term) > depth + 1), depth + 1)))
    return tuple(tree)


class State:
    """What the fold remembers of one shape: a number for each field, the sums over iterations, the billed units."""

    __slots__ = ("billed", "parts", "placeholder", "values")

    def __init__(self) -> None:
        self.values: dict[Path, Number] = {}
        self.parts: dict[Path, Number] = {}
        self.billed: dict[str, Number] = {}
        self.placeholder = False


def record(row: Row, state: State) -> dict[str, Any]:
    """The normalised record; ``input``, ``output`` and ``total`` are always in it."""
    result: dict[str, Any] = _counts(row, state.values)
    if state.parts:
        summed = _counts(row, {**state.values, **state.parts})
        message = {name: result[name] for name in ("input", "output", "total")}
        if message != {name: summed[name] for name in message} and _covers(summed, message):
            result = {**summed, "message": message}
    if state.placeholder and result["output"] is None:
        result["output_placeholder"] = True
    if state.billed:
        result["billed"] = dict(state.billed)
    return result


def add(left: Number, right: Number) -> Number:
    """Exact for all numbers that ``paths.number`` lets through; an int where the sum is whole."""
    if type(left) is int and type(right) is int:
        return left + right
    total = _EXACT.add(Decimal(left), Decimal(right))
    return int(total) if total == total.to_integral_value() else total


def _counts(row: Row, values: Mapping[Path, Number]) -> dict[str, Any]:
    counts: dict[str, Any] = {"input": None, "output": None, "total": None}
    for name, sums in row.counts.items():
        counts[name] = _sum(sums, values)
    for name in row.shape.zero:
        counts[name] = counts[name] or 0
    _complete(row, counts)
    counts = {
        name: value for name, value in counts.items() if value is not None or name in ("input", "output", "total")
    }
    _bound(counts)
    return counts


def _sum(sums: tuple[tuple[Path, ...], ...], values: Mapping[Path, Number]) -> Number | None:
    """The first alternative of which any term is there."""
    for terms in sums:
        found = [values[term] for term in terms if term in values]
        if found:
            total: Number = 0
            for value in found:
                total = add(total, value)
            return total
    return None


def _complete(row: Row, counts: dict[str, Any]) -> None:
    """Fills in of input, output and total what the others tell."""
    known, output, total = counts["input"], counts["output"], counts["total"]
    if total is not None and total < add(known or 0, output or 0):
        total = None
    if total is not None and known is not None:
        left = add(total, -known)
        if row.shape.rest == "absent" and output is None:
            output = left
        elif row.shape.rest == "more" and output is not None and left > output:
            output = counts["output_billed"] = left
    if total is None and known is not None:
        if output is not None:
            total = add(known, output)
        elif "output" not in row.counts:
            total = known
    counts["output"], counts["total"] = output, total


def _bound(counts: dict[str, Any]) -> None:
    """Cuts every part to its whole: a provider that says otherwise contradicts itself."""
    total = counts["total"]
    whole = total if counts["input"] is None else counts["input"]
    if whole is not None and "cached_input" in counts:
        counts["cached_input"] = min(counts["cached_input"], whole)
    if whole is not None and "cache_write" in counts:
        counts["cache_write"] = min(counts["cache_write"], add(whole, -counts.get("cached_input", 0)))
    if "cache_write_1h" in counts and (written := counts.get("cache_write", whole)) is not None:
        counts["cache_write_1h"] = min(counts["cache_write_1h"], written)
    # Not cut to the output: OpenRouter counts reasoning that no output followed (11 of 10).
    if total is not None and "reasoning" in counts:
        counts["reasoning"] = min(counts["reasoning"], total)
    for part, of in _PART_OF.items():
        limit = total if counts[of] is None else counts[of]
        if part in counts and limit is not None:
            counts[part] = min(counts[part], limit)


def _covers(summed: Mapping[str, Any], message: Mapping[str, Any]) -> bool:
    """Whether the sum over the iterations is at least the whole that they are said to make up."""
    return all(
        summed[name] is not None and (message[name] is None or summed[name] >= message[name]) for name in message
    )
