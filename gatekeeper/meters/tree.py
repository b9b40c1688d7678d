"""The syntax tree of an expression. Frozen; spans do not count when trees are compared.

The rule: one shape for one meaning. ``and`` is ``&&``, ``!`` is ``not``, ``?.`` is ``.``, ``x | f(y)`` is ``f(x, y)``,
``.a`` is ``#.a``, and parentheses are gone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from gatekeeper.diagnostics import Span

NOWHERE = Span(0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Any part of an expression."""

    span: Span = field(default=NOWHERE, compare=False, repr=False)

    def children(self) -> tuple["Node", ...]:
        """The parts directly below, in reading order."""
        return ()

    def walk(self) -> Iterator["Node"]:
        """This node and all below it, parents first; needs no recursion."""
        waiting: list[Node] = [self]
        while waiting:
            node = waiting.pop()
            yield node
            waiting.extend(reversed(node.children()))


@dataclass(frozen=True, slots=True)
class Null(Node):
    """``null``."""


@dataclass(frozen=True, slots=True)
class Bool(Node):
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True, slots=True)
class Number(Node):
    """A literal number, exact."""

    value: Decimal


@dataclass(frozen=True, slots=True)
class Text(Node):
    """A literal string, decoded."""

    value: str


@dataclass(frozen=True, slots=True)
class Name(Node):
    """A variable, a parameter, or a name that the language gives."""

    name: str


@dataclass(frozen=True, slots=True)
class Item(Node):
    """``#``: the item of the innermost function argument."""


@dataclass(frozen=True, slots=True)
class Member(Node):
    """``of.name``; null-safe. ``name_span`` is where the name stands."""

    of: Node
    name: str
    name_span: Span = field(default=NOWHERE, compare=False, repr=False, kw_only=True)

    def children(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclass(frozen=True, slots=True)
class Index(Node):
    """``of[at]``; null-safe."""

    of: Node
    at: Node

    def children(self) -> tuple[Node, ...]:
        return (self.of, self.at)


@dataclass(frozen=True, slots=True)
class Slice(Node):
    """``of[start:stop]``; either end may be open."""

    of: Node
    start: Node | None
    stop: Node | None

    def children(self) -> tuple[Node, ...]:
        return tuple(part for part in (self.of, self.start, self.stop) if part is not None)


@dataclass(frozen=True, slots=True)
class Unary(Node):
    """``-x`` or ``not x``."""

    sign: str
    of: Node

    def children(self) -> tuple[Node, ...]:
        return (self.of,)


@dataclass(frozen=True, slots=True)
class Binary(Node):
    """Two operands; ``sign`` is the operator as printed (``not in`` is one)."""

    sign: str
    left: Node
    right: Node

    def children(self) -> tuple[Node, ...]:
        return (self.left, self.right)


@dataclass(frozen=True, slots=True)
class Fallback(Node):
    """``left ?? right``: right where left is null."""

    left: Node
    right: Node

    def children(self) -> tuple[Node, ...]:
        return (self.left, self.right)


@dataclass(frozen=True, slots=True)
class Choice(Node):
    """``test ? yes : no``."""

    test: Node
    yes: Node
    no: Node

    def children(self) -> tuple[Node, ...]:
        return (self.test, self.yes, self.no)


@dataclass(frozen=True, slots=True)
class Call(Node):
    """``name(arguments)``. ``name_span`` is where the name stands."""

    name: str
    arguments: tuple[Node, ...]
    name_span: Span = field(default=NOWHERE, compare=False, repr=False, kw_only=True)

    def children(self) -> tuple[Node, ...]:
        return self.arguments


@dataclass(frozen=True, slots=True)
class Lambda(Node):
    """``parameter => body``; only as an argument."""

    parameter: str
    body: Node

    def children(self) -> tuple[Node, ...]:
        return (self.body,)


@dataclass(frozen=True, slots=True)
class Let(Node):
    """``let name = value; body``. ``name_span`` is where the name stands."""

    name: str
    value: Node
    body: Node
    name_span: Span = field(default=NOWHERE, compare=False, repr=False, kw_only=True)

    def children(self) -> tuple[Node, ...]:
        return (self.value, self.body)


@dataclass(frozen=True, slots=True)
class Items(Node):
    """``[a, b]``."""

    items: tuple[Node, ...]

    def children(self) -> tuple[Node, ...]:
        return self.items


@dataclass(frozen=True, slots=True)
class Entries(Node):
    """``{a: 1, "b": 2, (c): 3}``; a key is a Text where it is constant."""

    entries: tuple[tuple[Node, Node], ...]

    def children(self) -> tuple[Node, ...]:
        return tuple(part for entry in self.entries for part in entry)
