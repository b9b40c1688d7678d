"""What an expression comes to where nothing that it reads of the answer is there: null, or a constant that hides it.

The rule: a static walk with the null rules of the language; it knows only what is certain, so it stays silent else.
"""

from typing import NamedTuple

from gatekeeper.meters import tree
from gatekeeper.meters.functions import BY_NAME, Style
from gatekeeper.meters.kinds import Kind, Phase
from gatekeeper.meters.names import RESPONSE_NAMES
from gatekeeper.meters.operators import ARITHMETIC, tests_null
from gatekeeper.meters.scope import Facts

_SUMS = ARITHMETIC | {"+"}
# Aggregates of nothing that are no null.
_NEVER_NULL = frozenset({"count", "any", "all", "len", "sha256"})


class Empty(NamedTuple):
    """Whether the part is ``there`` although all reads are null; the constants that make it so; the reads that make
    it null."""

    there: bool
    defaults: tuple[tree.Node, ...] = ()
    reads: tuple[tree.Node, ...] = ()


_THERE = Empty(True)


class Missing:
    """Questions about one checked tree."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known: dict[int, Empty] = {}

    def of(self, node: tree.Node) -> Empty:
        """What the part comes to; each part is looked at once."""
        found = self._known.get(id(node))
        if found is None:
            found = self._known[id(node)] = self._of(node)
        return found

    def _of(self, node: tree.Node) -> Empty:
        match node:
            case tree.Null():
                return Empty(False)
            case tree.Name():
                return self._name(node)
            case tree.Item() | tree.Member() | tree.Index() | tree.Slice():
                return Empty(False, (), (node,))
            case tree.Unary():
                return _THERE if node.sign == "not" else self.of(node.of)
            case tree.Binary():
                return self._all(node.left, node.right) if node.sign in _SUMS else _THERE
            case tree.Fallback():
                return self._first(node.left, node.right)
            case tree.Choice():
                return _THERE if tests_null(node.test) else self._either(node.yes, node.no)
            case tree.Let():
                return self.of(node.body)
            case tree.Call():
                return self._call(node)
        return _THERE

    def _name(self, node: tree.Name) -> Empty:
        binder = self._facts.binders.get(id(node))
        if binder is not None:
            return self.of(binder.value) if binder.value is not None else Empty(False, (), (node,))
        return Empty(False, (), (node,)) if node.name == "request" or node.name in RESPONSE_NAMES else _THERE

    def _all(self, *parts: tree.Node) -> Empty:
        """Null if one part is."""
        found = [self.of(part) for part in parts]
        reads = tuple(read for each in found for read in each.reads)
        if not all(each.there for each in found):
            return Empty(False, (), reads)
        return Empty(True, tuple(one for each in found for one in each.defaults), reads)

    def _either(self, *parts: tree.Node) -> Empty:
        """One of them, and it is not known which."""
        found = [self.of(part) for part in parts]
        defaults = tuple(one for each in found for one in each.defaults)
        return Empty(any(each.there for each in found), defaults, tuple(one for each in found for one in each.reads))

    def _first(self, *options: tree.Node) -> Empty:
        """The first that is there."""
        found = self.of(options[0])
        for option in options[1:]:
            if found.there:
                return found
            found = self.of(option)
            if found.there and not found.defaults and self._constant(option):
                found = Empty(True, (option,))
        return found

    def _constant(self, node: tree.Node) -> bool:
        return self._facts.phase(node) is Phase.ALWAYS and not self._facts.hangs_on(node)

    def _call(self, node: tree.Call) -> Empty:
        function = BY_NAME[node.name]
        if function.style is Style.FALLBACK:
            return self._first(*node.arguments)
        if node.name in _NEVER_NULL and self._over_answer(node):
            return _THERE
        if function.style is Style.FOLD and self._facts.walks.get(id(node), True):
            return self._fold(node)
        if function.style is Style.PIPE or function.sees_null or node.name == "cost":
            return _THERE
        if node.name in ("usage", "get") or function.style is Style.SOURCE or self._over_answer(node):
            return Empty(False, (), (node,))
        return self._all(*node.arguments)

    def _over_answer(self, node: tree.Call) -> bool:
        first = node.arguments[0] if node.arguments else None
        return first is not None and self._facts.type(first).kind in (Kind.STREAM, Kind.BODY)

    def _fold(self, node: tree.Call) -> Empty:
        first = node.arguments[0]
        if node.name == "count" or node.name in ("any", "all"):
            return _THERE
        if len(node.arguments) == 1 and isinstance(first, tree.Items) and first.items:
            found = [self.of(item) for item in first.items]
            there = any(each.there for each in found)
            return Empty(there, tuple(one for each in found for one in each.defaults) if there else (),
                         () if there else tuple(one for each in found for one in each.reads))  # fmt: skip
        if len(node.arguments) == 2 and not isinstance(node.arguments[1], tree.Text):
            function = node.arguments[1]
            found_one = self.of(function.body if isinstance(function, tree.Lambda) else function)
            if found_one.there:
                return found_one
        return Empty(False, (), (node,))
