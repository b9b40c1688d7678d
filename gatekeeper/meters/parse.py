"""Text -> tree, or the mistakes that make it unreadable.

The rule: bounds on length, nodes and depth are tested before anything recursive runs, so no text can exhaust the stack.
"""

import re
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from operator import itemgetter
from typing import Any

import orjson
from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedInput
from lark.grammar import Rule

from gatekeeper.diagnostics import Mistake, Source, Span
from gatekeeper.meters import tree
from gatekeeper.meters.syntax import unreadable
from gatekeeper.meters.values import DIGITS_MAX, EXACT, Unmeasurable, bounded

# An expression stands in a config file and is read by people; the longest useful one seen has 600 characters.
SOURCE_BYTES_MAX = 4096
NODES_MAX = 500
# Deeper trees come from programs, not from people, and every pass over the tree recurses.
DEPTH_MAX = 50

_SIGNS = {"or": "||", "and": "&&", "!": "not", "nil": "null"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "0": "\0"} | {sign: sign for sign in "\\/'\"`"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_Branch = Tree[Token]
_FIRST = itemgetter(0)


def parse(source: Source) -> tuple[tree.Node | None, tuple[Mistake, ...]]:
    """The tree, or None and why not. Never raises."""
    root, mistakes = parse_most(source)
    return (None if mistakes else root), mistakes


def parse_most(source: Source) -> tuple[tree.Node | None, tuple[Mistake, ...]]:
    """The mistakes of the writing, and the tree that stands in spite of them (of two readings one), so that what else
    is wrong can be told too; None where there is no tree. Never raises."""
    whole = Span(0, len(source.text))
    size = len(source.text.encode("utf-8", "replace"))
    if size > SOURCE_BYTES_MAX:
        message = f"the expression has {size} bytes; at most {SOURCE_BYTES_MAX} are allowed"
        return None, (Mistake(message, source, whole),)
    try:
        raw = _grammar().parse(source.text)
    except UnexpectedInput as problem:
        return None, (unreadable(problem, source),)
    bound = _bound_passed(raw)
    if bound is not None:
        return None, (Mistake(bound, source, whole, "split it, or name parts of it with 'let x = ...;'"),)
    reader = _Reader(source)
    root = reader.read(raw.children[0])
    return root, tuple(reader.mistakes)


@cache
def _grammar() -> Lark:
    contents, memo = _tables()
    grammar: Lark = Lark._load_from_dict(contents, memo)  # type: ignore[no-untyped-call]
    made: dict[Any, Any] = grammar.parser.parser.parser.callbacks
    for rule in made:
        if _is_step(rule):
            made[rule] = _FIRST
    return grammar


def _is_step(rule: object) -> bool:
    """Whether a rule only leads to the next tighter one (``_sum: _product``): its branch would be taken apart again by
    the rule around it, and most of the time went into making such branches, fourteen for each name."""
    if not isinstance(rule, Rule) or len(rule.expansion) != 1:
        return False
    below = rule.expansion[0]
    return not below.is_term and below.name.startswith("_") and rule.origin.name.startswith("_") and not rule.alias


def _tables() -> tuple[dict[str, Any], dict[int, Any]]:
    """What lark's own standalone parsers are loaded from. JSON has no numbers as keys: they are put back."""
    # Here, so that the tables can be made again where they are missing or broken.
    from gatekeeper.meters._tables import TABLES

    contents, *memo = (orjson.loads(line) for line in TABLES.strip().splitlines())
    table = contents["parser"]["parser"]
    table["tokens"] = {int(number): name for number, name in table["tokens"].items()}
    table["states"] = {
        int(state): {int(symbol): action for symbol, action in row.items()} for state, row in table["states"].items()
    }
    return contents, dict(enumerate(memo))


def _bound_passed(raw: _Branch) -> str | None:
    nodes = deepest = 0
    waiting: list[tuple[_Branch, int]] = [(raw, 0)]
    while waiting:
        branch, depth = waiting.pop()
        nodes += branch.data not in ("start", "args", "items", "entries", "entry", "from", "to", "paren")
        deepest = max(deepest, depth)
        below = 0 if branch.data in ("args", "items", "entries") else 1
        waiting.extend((child, depth + below) for child in branch.children if isinstance(child, Tree))
    if nodes > NODES_MAX:
        return f"the expression has {nodes} parts; at most {NODES_MAX} are allowed"
    if deepest > DEPTH_MAX:
        return f"the expression is nested {deepest} deep; at most {DEPTH_MAX} is allowed"
    return None


class _Reader:
    """Lark's tree -> our tree; gathers every mistake on the way."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.mistakes: list[Mistake] = []

    def read(self, raw: _Branch | Token) -> tree.Node:
        assert isinstance(raw, Tree), raw
        make: Callable[[_Branch, Span], tree.Node] = getattr(self, f"_{raw.data}")
        return make(raw, _span(raw))

    def wrong(self, message: str, span: Span, hint: str | None = None) -> None:
        self.mistakes.append(Mistake(message, self.source, span, hint))

    def written(self, raw: _Branch | Token) -> str:
        span = _span(raw)
        return self.source.text[span.start : span.end]

    # -- operators ------------------------------------------------------------------------------------------------

    def _binary(self, raw: _Branch, span: Span) -> tree.Node:
        left, right = raw.children[0], raw.children[-1]
        words = [_SIGNS.get(str(token), str(token)) for token in raw.children[1:-1]]
        self._refuse_mixed(raw, left, right, " ".join(str(token) for token in raw.children[1:-1]))
        return tree.Binary(" ".join(words), self.read(left), self.read(right), span=span)

    _or = _and = _comparison = _range = _sum = _product = _power = _binary

    def _unary(self, raw: _Branch, span: Span) -> tree.Node:
        sign, of = str(raw.children[0]), raw.children[-1]
        if _is_bare_fallback(of):
            assert isinstance(of, Tree)
            gap = " " if sign == "not" else ""
            left, right = of.children[0], of.children[-1]
            first, second = self.written(left), self.written(right)
            self._mixed(sign, of, f"{sign}{gap}({first} ?? {second})", f"({sign}{gap}{first}) ?? {second}")
        return tree.Unary(_SIGNS.get(sign, sign), self.read(of), span=span)

    _not = _unary

    def _refuse_mixed(self, raw: _Branch, left: Any, right: Any, sign: str) -> None:
        first, second = self.written(left), self.written(right)
        if _is_bare_fallback(left):
            a, b = self.written(left.children[0]), self.written(left.children[-1])
            self._mixed(sign, left, f"({first}) {sign} {second}", f"{a} ?? ({b} {sign} {second})")
        elif _is_bare_fallback(right):
            a, b = self.written(right.children[0]), self.written(right.children[-1])
            self._mixed(sign, right, f"{first} {sign} ({second})", f"({first} {sign} {a}) ?? {b}")

    def _mixed(self, sign: str, fallback: _Branch, one: str, other: str) -> None:
        token = fallback.children[1]
        assert isinstance(token, Token)
        hint = f"write {one}  or  {other}"
        self.wrong(f"'??' beside {sign!r} needs parentheses: it can be read in two ways", _span(token), hint)

    def _fallback(self, raw: _Branch, span: Span) -> tree.Node:
        left, _, right = raw.children
        if isinstance(right, Tree) and right.data == "unary":
            token, a, b = raw.children[1], self.written(left), self.written(right)
            sign = str(right.children[0])
            inner = self.written(right.children[-1])
            hint = f"write {a} ?? ({b})  or  ({a} ?? {sign}{inner})" if sign == "!" else f"write {a} ?? ({b})"
            self.wrong(f"'??' beside {sign!r} needs parentheses: it can be read in two ways", _span(token), hint)
        return tree.Fallback(self.read(left), self.read(right), span=span)

    def _ternary(self, raw: _Branch, span: Span) -> tree.Node:
        test, yes, no = (self.read(child) for child in raw.children)
        return tree.Choice(test, yes, no, span=span)

    def _let(self, raw: _Branch, span: Span) -> tree.Node:
        _, name, value, body = raw.children
        return tree.Let(str(name), self.read(value), self.read(body), span=span, name_span=_span(name))

    def _pipe(self, raw: _Branch, span: Span) -> tree.Node:
        first, name, *more = raw.children
        if _is_bare_fallback(first):
            assert isinstance(first, Tree)
            a, b = self.written(first.children[0]), self.written(first.children[-1])
            call = self.source.text[_span(name).start : span.end]
            self._mixed("|", first, f"({a} ?? {b}) | {call}", f"{a} ?? ({b} | {call})")
        arguments = (self.read(first), *self._arguments(more))
        return tree.Call(str(name), arguments, span=span, name_span=_span(name))

    # -- what binds tightly ---------------------------------------------------------------------------------------

    def _call(self, raw: _Branch, span: Span) -> tree.Node:
        name, *more = raw.children
        return tree.Call(str(name), self._arguments(more), span=span, name_span=_span(name))

    def _arguments(self, more: list[Any]) -> tuple[tree.Node, ...]:
        return tuple(self.read(argument) for argument in more[0].children) if more else ()

    def _lambda(self, raw: _Branch, span: Span) -> tree.Node:
        return tree.Lambda(str(raw.children[0]), self.read(raw.children[1]), span=span)

    def _member(self, raw: _Branch, span: Span) -> tree.Node:
        name = raw.children[-1]
        return tree.Member(self.read(raw.children[0]), str(name), span=span, name_span=_span(name))

    def _index(self, raw: _Branch, span: Span) -> tree.Node:
        return tree.Index(self.read(raw.children[0]), self.read(raw.children[1]), span=span)

    def _slice(self, raw: _Branch, span: Span) -> tree.Node:
        ends: dict[str, tree.Node] = {
            child.data: self.read(child.children[0]) for child in raw.children[1:] if isinstance(child, Tree)
        }
        return tree.Slice(self.read(raw.children[0]), ends.get("from"), ends.get("to"), span=span)

    def _paren(self, raw: _Branch, span: Span) -> tree.Node:
        return self.read(raw.children[0])

    def _list(self, raw: _Branch, span: Span) -> tree.Node:
        items = raw.children[0].children if raw.children else []  # type: ignore[union-attr]
        return tree.Items(tuple(self.read(item) for item in items), span=span)

    def _map(self, raw: _Branch, span: Span) -> tree.Node:
        entries = raw.children[0].children if raw.children else []  # type: ignore[union-attr]
        return tree.Entries(tuple(self._entry(entry) for entry in entries), span=span)

    def _entry(self, raw: Any) -> tuple[tree.Node, tree.Node]:
        key, value = raw.children[0], raw.children[-1]
        read = tree.Text(str(key), span=_span(key)) if isinstance(key, Token) else self.read(key)
        return read, self.read(value)

    def _item(self, raw: _Branch, span: Span) -> tree.Node:
        return tree.Item(span=span)

    def _item_member(self, raw: _Branch, span: Span) -> tree.Node:
        name, item = raw.children[-1], tree.Item(span=Span(span.start, span.start + 1))
        return tree.Member(item, str(name), span=span, name_span=_span(name))

    def _name(self, raw: _Branch, span: Span) -> tree.Node:
        return tree.Name(str(raw.children[0]), span=span)

    def _true(self, raw: _Branch, span: Span) -> tree.Node:
        return tree.Bool(True, span=span)

    def _false(self, raw: _Branch, span: Span) -> tree.Node:
        return tree.Bool(False, span=span)

    def _null(self, raw: _Branch, span: Span) -> tree.Node:
        return tree.Null(span=span)

    def _number(self, raw: _Branch, span: Span) -> tree.Node:
        digits = str(raw.children[0]).replace("_", "")
        # The exponent is looked at before it is expanded: 1e999999999 would be a gigabyte of zeros.
        exponent = int(digits.lower().partition("e")[2][:6] or 0)
        try:
            value = bounded(Decimal(digits) if abs(exponent) <= 2 * DIGITS_MAX else Decimal("Infinity"))
        except Unmeasurable:
            self.wrong(f"the number is too large: at most 10^18, and {DIGITS_MAX} digits", span)
            return tree.Number(Decimal(0), span=span)
        return tree.Number(EXACT.normalize(value), span=span)

    def _string(self, raw: _Branch, span: Span) -> tree.Node:
        written = str(raw.children[0])
        inner = written[1:-1]
        if written[0] == "`":
            return tree.Text(inner, span=span)

        def decoded(found: re.Match[str]) -> str:
            code = found.group(1)
            if len(code) > 1:
                return chr(int(code[1:], 16))
            if code not in _ESCAPES:
                at = span.start + 1 + found.start()
                hint = "write \\\\ for a backslash, or use `...`, in which nothing is escaped"
                self.wrong(f"unknown escape \\{code}", Span(at, at + 2), hint)
            return _ESCAPES.get(code, "")

        text = _ESCAPE.sub(decoded, inner)
        # Two \u escapes may spell one character outside the basic plane, as in JSON.
        paired = text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return tree.Text(paired, span=span)


def _is_bare_fallback(raw: Any) -> bool:
    return isinstance(raw, Tree) and raw.data == "fallback"


def _span(raw: Any) -> Span:
    if isinstance(raw, Token):
        assert raw.start_pos is not None
        assert raw.end_pos is not None
        return Span(raw.start_pos, raw.end_pos)
    return Span(raw.meta.start_pos, raw.meta.end_pos)
