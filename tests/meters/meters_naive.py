"""A second, simple evaluator: it holds the whole response and walks the tree. Slow, obvious, and nothing is shared
with the compiler but numbers, functions and the checker's word on which max or min walks a list.

What it leaves out on purpose: slots, the search of raw bytes, chains, evidence, and the bounds on what a slot holds.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import islice
from typing import Any

import re2

from gatekeeper.diagnostics import Source
from gatekeeper.meters import Context, Mark, Outcome, RequestView, tree
from gatekeeper.meters.check import Checker
from gatekeeper.meters.codes import RANGE_MAX
from gatekeeper.meters.functions import BY_NAME
from gatekeeper.meters.functions.numbers import contained, largest, smallest
from gatekeeper.meters.parse import parse
from gatekeeper.meters.paths import parsed_path, stepped
from gatekeeper.meters.values import (
    Unmeasurable,
    add,
    divide,
    equal,
    json_of,
    kind,
    less,
    multiply,
    negate,
    number,
    power,
    remainder,
    subtract,
)
from gatekeeper.wire.events import Event
from gatekeeper.wire.framing import framer_for
from gatekeeper.wire.json_body import JsonFramer
from gatekeeper.wire.signals import Signals
from gatekeeper.wire.tap import Tap
from gatekeeper.wire.usage import UsageFold

READ, DEFAULT, ESTIMATED, NULL_TEST = "read", "default", "estimated", "null"
Marks = frozenset[str]
NONE: Marks = frozenset()
FROM_ANSWER: Marks = frozenset({READ})
SUMS: dict[str, Callable[[Any, Any], Any]] = {
    "-": subtract, "*": multiply, "/": divide, "%": remainder, "**": power,
}  # fmt: skip
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "<": less, ">": lambda a, b: less(b, a), "<=": lambda a, b: not less(b, a), ">=": lambda a, b: not less(a, b),
}  # fmt: skip


class Body(str):
    """``allData``."""


class Stream:
    """A sequence of (item, marks) that is walked as far as somebody asks, again for everybody who asks."""

    def __init__(self, make: Callable[[], Iterator[tuple[Any, Marks]]]) -> None:
        self.make = make

    def at(self, place: int) -> tuple[Any, Marks]:
        """The item at a place from the front or (negative) from the back."""
        if place >= 0:
            return next(islice(self.make(), place, None), (None, NONE))
        every = list(self.make())
        return every[place] if len(every) >= -place else (None, NONE)


def stream(items: list[Any]) -> Stream:
    """A stream of what was read from the answer."""
    return Stream(lambda: ((item, FROM_ANSWER) for item in items))


class Answer:
    """The whole response, framed in one go."""

    def __init__(self, body: bytes, content_type: str, *, complete: bool = True) -> None:
        tap = Tap(content_type, "")
        decoded, events = tap.feed(body)
        late = tap.finish(complete)
        self.events = events + late
        single = isinstance(framer_for(content_type, 1), JsonFramer)
        self.response = late[0] if single and late else None
        self.text = decoded.decode("utf-8", "replace")
        self.lines = [line.removesuffix(b"\r").decode("utf-8", "replace") for line in decoded.split(b"\n")]
        if self.lines[-1] == "" and not decoded.split(b"\n")[-1]:
            self.lines.pop()
        fold = UsageFold()
        signals = Signals()
        for event in self.events:
            fold.feed(event)
            signals.feed(event)
        signals.feed_tail(tap.tail)
        self.usage = fold.result()
        self.erred = signals.error
        self.status = 200
        self.content_type = content_type
        self.size = tap.decoded_bytes
        self.raw = decoded


class Naive:
    """One expression over one whole answer."""

    def __init__(self, text: str, request: RequestView, answer: Answer) -> None:
        source = Source(text)
        root, mistakes = parse(source)
        assert root is not None, mistakes
        checker = Checker(source, Context.TRIAL, buffered=False)
        checker.run(root)
        self.root, self.walks = root, checker.facts.walks
        self.request, self.answer = request, answer
        self.zero = answer.erred

    def reading(self) -> tuple[Any, Mark]:
        """(value, source)."""
        try:
            value, marks = self.value(self.root, {})
        except Unmeasurable:
            return None, Mark.ERROR
        if value is None:
            return None, Mark.NONE
        return plain(
            value
        ), Mark.ESTIMATED if ESTIMATED in marks else Mark.DEFAULT if DEFAULT in marks else Mark.MEASURED

    # -- nodes -----------------------------------------------------------------------------------------------------

    def value(self, node: tree.Node, names: dict[str, Any]) -> tuple[Any, Marks]:
        return getattr(self, f"_{type(node).__name__.lower()}")(node, names)

    def known(self, node: tree.Node, names: dict[str, Any]) -> tuple[Any, Marks]:
        """A value; null has no marks: nothing was read."""
        value, marks = self.value(node, names)
        return value, NONE if value is None else marks

    def _null(self, node: tree.Null, names: dict[str, Any]) -> tuple[Any, Marks]:
        return None, NONE

    def _bool(self, node: Any, names: dict[str, Any]) -> tuple[Any, Marks]:
        return node.value, NONE

    _number = _text = _bool

    def _name(self, node: tree.Name, names: dict[str, Any]) -> tuple[Any, Marks]:
        if node.name in names:
            held = names[node.name]
            return held() if callable(held) else held
        view, answer = self.request, self.answer
        if node.name == "request":
            return (None if view.body is None else json_of(view.body.decode("utf-8", "replace"))), NONE
        asked = {
            "requestBody": None if view.body is None else view.body.decode("utf-8", "replace"), "model": view.model,
            "method": view.method, "startedAt": view.started_at_ms, "requestBytes": len(view.body or b""),
        }  # fmt: skip
        if node.name in asked:
            return asked[node.name], NONE
        if node.name in ("response", "respBody"):
            return self._response()
        ended = {
            "status": answer.status, "responseBytes": answer.size, "contentType": answer.content_type,
            "durationMs": 1200, "firstByteMs": 300, "events": stream(answer.events), "allData": Body(answer.text),
            "outcome": str(Outcome.UPSTREAM_ERROR if answer.erred else Outcome.COMPLETE),
        }  # fmt: skip
        return ended[node.name], FROM_ANSWER

    def _response(self) -> tuple[Any, Marks]:
        event = self.answer.response
        return (None if event is None else event.json_exact), FROM_ANSWER

    def _item(self, node: tree.Item, names: dict[str, Any]) -> tuple[Any, Marks]:
        return names["#"]

    def _member(self, node: tree.Member, names: dict[str, Any]) -> tuple[Any, Marks]:
        of, marks = self.value(node.of, names)
        if isinstance(of, Event):
            return (of.json_exact if node.name == "json" else getattr(of, node.name)), marks
        return (of.get(node.name) if isinstance(of, dict) else None), marks

    def _index(self, node: tree.Index, names: dict[str, Any]) -> tuple[Any, Marks]:
        of, marks = self.value(node.of, names)
        at, more = self.value(node.at, names)
        if isinstance(of, Stream):
            back = isinstance(node.at, tree.Binary)
            return of.at(-int(node.at.right.value) if back else int(at))
        if isinstance(of, dict):
            return (of.get(at) if isinstance(at, str) else None), marks | more
        whole = isinstance(at, int | Decimal) and not isinstance(at, bool) and at == int(at)
        if not isinstance(of, list | str) or not whole or not -len(of) <= at < len(of):
            return None, marks | more
        return of[int(at)], marks | more

    def _slice(self, node: tree.Slice, names: dict[str, Any]) -> tuple[Any, Marks]:
        of, marks = self.value(node.of, names)
        if of is None:
            return None, NONE
        if not isinstance(of, list | str):
            raise Unmeasurable("cut")
        ends = []
        for end in (node.start, node.stop):
            found = None if end is None else self.value(end, names)[0]
            if found is not None and number(found) != int(number(found)):
                raise Unmeasurable("slice")
            ends.append(None if found is None else int(found))
        return of[ends[0] : ends[1]], marks

    def _unary(self, node: tree.Unary, names: dict[str, Any]) -> tuple[Any, Marks]:
        value, marks = self.value(node.of, names)
        if node.sign == "not":
            holds, more = test((value, marks))
            return not holds, more
        return (None, NONE) if value is None else (negate(value), marks)

    def _fallback(self, node: tree.Fallback, names: dict[str, Any]) -> tuple[Any, Marks]:
        left = self.value(node.left, names)
        return left if left[0] is not None else self.fallen(self.value(node.right, names))

    def fallen(self, found: tuple[Any, Marks]) -> tuple[Any, Marks]:
        value, marks = found
        if READ in marks or value is None:
            return found
        if self.zero and isinstance(value, int | Decimal) and not isinstance(value, bool):
            value = Decimal(0)
        return value, marks | {DEFAULT}

    def _choice(self, node: tree.Choice, names: dict[str, Any]) -> tuple[Any, Marks]:
        holds, marks = test(self.value(node.test, names))
        found = self.value(node.yes if holds else node.no, names)
        return self.fallen(found) if NULL_TEST in marks else found

    def _let(self, node: tree.Let, names: dict[str, Any]) -> tuple[Any, Marks]:
        held: list[tuple[Any, Marks]] = []

        def look() -> tuple[Any, Marks]:
            if not held:
                held.append(self.value(node.value, names))
            return held[0]

        return self.value(node.body, {**names, node.name: look})

    def _items(self, node: tree.Items, names: dict[str, Any]) -> tuple[Any, Marks]:
        found = [self.known(item, names) for item in node.items]
        return [value for value, _ in found], NONE.union(*(marks for _, marks in found))

    def _entries(self, node: tree.Entries, names: dict[str, Any]) -> tuple[Any, Marks]:
        made, marks = {}, NONE
        for key, part in node.entries:
            name = self.value(key, names)[0]
            if not isinstance(name, str):
                raise Unmeasurable("key")
            made[name], more = self.known(part, names)
            marks |= more
        return made, marks

    # -- operators -------------------------------------------------------------------------------------------------

    def _binary(self, node: tree.Binary, names: dict[str, Any]) -> tuple[Any, Marks]:
        sign = node.sign
        if sign in ("&&", "||"):
            left, marks = test(self.value(node.left, names))
            if left is (sign == "||"):
                return left, marks
            right, more = test(self.value(node.right, names))
            return right, marks | more
        (a, marks), (b, more) = self.known(node.left, names), self.known(node.right, names)
        marks |= more
        if sign in ("==", "!="):
            met = (a is None and not isinstance(node.left, tree.Null)) or (
                b is None and not isinstance(node.right, tree.Null)
            )
            return equal(a, b) is (sign == "=="), marks | ({NULL_TEST} if met else NONE)
        if sign in ORDER:
            return (None, NONE) if a is None or b is None else (ORDER[sign](a, b), marks)
        word = sign.removeprefix("not ")
        if word in ("in", "contains", "startsWith", "endsWith", "matches"):
            if a is None or b is None:
                return word != sign, frozenset({NULL_TEST})
            return self._worded(word, a, b) is (word == sign), marks
        return (None, NONE) if a is None or b is None else (arithmetic(sign, a, b), marks)

    def _worded(self, word: str, a: Any, b: Any) -> bool:
        if word == "in":
            return contained(a, b)
        if not isinstance(a, str) or not isinstance(b, str):
            raise Unmeasurable("string")
        if word == "matches":
            return re2.search(b, a) is not None
        return {"contains": b in a, "startsWith": a.startswith(b), "endsWith": a.endswith(b)}[word]

    # -- calls -----------------------------------------------------------------------------------------------------

    def _call(self, node: tree.Call, names: dict[str, Any]) -> tuple[Any, Marks]:
        name = node.name
        if name == "usage":
            return self.answer.usage, FROM_ANSWER
        if name in ("coalesce", "default"):
            return self._first_there(node, names)
        walks = self.walks.get(id(node), True)
        if BY_NAME[name].argument and walks:
            return self._walk(node, names)
        found = [self.known(argument, names) for argument in node.arguments]
        given, marks = [value for value, _ in found], NONE.union(*(more for _, more in found))
        if given and isinstance(given[0], Body):
            return self._over_body(name), FROM_ANSWER
        if name == "tokens":
            return (None, NONE) if given[0] is None else (-(-len(given[0].encode()) // 3), marks | {ESTIMATED})
        function = BY_NAME[name]
        if None in [value for value in given if value is None] and not function.sees_null:
            return None, NONE
        run = function.run or {"max": largest, "min": smallest}.get(name)
        if name == "len" and isinstance(given[0], Stream):
            return len(list(given[0].make())), FROM_ANSWER
        assert run is not None, name
        made = run(*given)
        return made, marks | ({NULL_TEST} if name == "has" and made is False else NONE)

    def _over_body(self, name: str) -> Any:
        answer = self.answer
        if name in ("json", "jsonDecode"):
            return self._response()[0]
        if name == "sseLastData":
            good = [event.data for event in answer.events if event.raw.strip() not in (b"", b"[DONE]")]
            return good[-1] if good else None
        if name == "sha256":
            import hashlib

            return hashlib.sha256(answer.raw).hexdigest()
        return {
            "sseEvents": stream(answer.events), "sseAllData": stream([event.data for event in answer.events]),
            "lines": stream(answer.lines), "linesNonEmpty": stream([line for line in answer.lines if line.strip()]),
            "len": len(answer.text),
        }[name]  # fmt: skip

    def _first_there(self, node: tree.Call, names: dict[str, Any]) -> tuple[Any, Marks]:
        found: tuple[Any, Marks] = (None, NONE)
        for place, argument in enumerate(node.arguments):
            found = self.value(argument, names)
            if place:
                found = self.fallen(found)
            if found[0] is not None and found[0] != "":
                return found
        return None, NONE

    def _walk(self, node: tree.Call, names: dict[str, Any]) -> tuple[Any, Marks]:
        items, marks = self.value(node.arguments[0], names)
        if not (items is None or isinstance(items, Stream | list)):
            raise Unmeasurable("walk")
        function = node.arguments[1] if len(node.arguments) > 1 else None

        def of(item: Any, marks: Marks) -> tuple[Any, Marks]:
            if function is None:
                return (True if node.name in ("count", "len") else item), marks
            if isinstance(function, tree.Text) and BY_NAME[node.name].argument == "f":
                start = item.json_exact if isinstance(item, Event) else item
                return stepped(start, parsed_path(function.value) or ()), marks
            inner = {**names, "#": (item, marks)}
            if isinstance(function, tree.Lambda):
                return self.value(function.body, inner | {function.parameter: (item, marks)})
            return self.value(function, inner)

        if not isinstance(items, Stream):
            return folded_list(node.name, items, of, marks)
        if node.name == "map":
            return Stream(lambda: (of(*pair) for pair in items.make())), marks
        if node.name == "filter":
            return Stream(lambda: (pair for pair in items.make() if test(of(*pair))[0])), marks
        return folded(node.name, (of(*pair) for pair in items.make()), FROM_ANSWER)


def folded_list(name: str, items: list[Any] | None, of: Any, marks: Marks) -> tuple[Any, Marks]:
    """An aggregate, a filter or a map over a list."""
    if name not in ("map", "filter"):
        return folded(name, (of(item, marks) for item in items or []), marks)
    found = [(item, of(item, marks)) for item in items or []]
    joined = NONE.union(marks, *(more - {NULL_TEST} for _, (_, more) in found))
    kept = [value for _, (value, _) in found] if name == "map" else [item for item, each in found if test(each)[0]]
    return (None if items is None else kept), joined


def folded(name: str, found: Iterator[tuple[Any, Marks]], marks: Marks) -> tuple[Any, Marks]:
    """An aggregate."""
    if name == "first":
        return next((each for each in found if each[0] is not None), (None, NONE))
    if name in ("any", "all"):
        for each in found:
            holds, more = test(each)
            marks |= more
            if holds is (name == "any"):
                return holds, marks
        return name == "all", marks
    if name in ("count", "len"):
        passed = [more for value, more in found if test((value, more))[0]]
        return len(passed), NONE.union(marks, *(more - {NULL_TEST} for more in passed))
    there = [(value, more) for value, more in found if value is not None]
    if not there:
        return None, NONE
    return chosen(name, there)


def chosen(name: str, there: list[tuple[Any, Marks]]) -> tuple[Any, Marks]:
    """An aggregate over what is not null."""
    joined = NONE.union(*(more for _, more in there))
    if name == "last":
        return there[-1]
    if name in ("sum", "avg"):
        total = Decimal(0)
        for value, _ in there:
            total = add(total, value)
        return (total if name == "sum" else divide(total, len(there))), joined
    if name in ("max", "min"):
        best = (max if name == "max" else min)(number(value) for value, _ in there)
        winners = [more for value, more in there if number(value) == best]
        return best, next((more for more in winners if READ in more), winners[-1])
    assert name == "merge"
    made: dict[str, Any] = {}
    for value, _ in there:
        if not isinstance(value, dict):
            raise Unmeasurable("merge")
        made |= {key: part for key, part in value.items() if part is not None or key not in made}
    return made, joined


def arithmetic(sign: str, a: Any, b: Any) -> Any:
    """Numbers, strings under ``+``, and ranges."""
    if sign == "+":
        if isinstance(a, str) and isinstance(b, str):
            return a + b
        if isinstance(a, str) or isinstance(b, str):
            raise Unmeasurable("+")
        return add(a, b)
    if sign == "..":
        if number(a) != int(number(a)) or number(b) != int(number(b)) or number(b) - number(a) >= RANGE_MAX:
            raise Unmeasurable("..")
        return list(range(int(a), int(b) + 1))
    return SUMS[sign](a, b)


def test(found: tuple[Any, Marks]) -> tuple[bool, Marks]:
    """A condition: null is false."""
    value, marks = found
    if value is None:
        return False, frozenset({NULL_TEST})
    if not isinstance(value, bool):
        raise Unmeasurable(f"a test gave {kind(value)}")
    return value, marks


test.__test__ = False  # type: ignore[attr-defined]


def plain(value: Any) -> Any:
    """As a Reading shows it: whole numbers as int, fractions as digits, an event as what a slot keeps of it."""
    from gatekeeper.meters.evidence import plain_json

    if isinstance(value, Event):
        return {"index": value.index, "event": value.event, "id": value.id, "data": value.data}
    return plain_json(value)
