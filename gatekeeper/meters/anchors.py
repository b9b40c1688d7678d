"""Which parts of an expression are read where they stand: an anchor (a name, one item of a stream) with a chain on it.

The rule: a chain (``json(sseLastData(allData)).usage.total_tokens``, ``len(response.items)``) is taken when its anchor
passes, so that only its small result is kept, and that result is what the evidence shows.
"""

from dataclasses import replace

from gatekeeper.meters import tree
from gatekeeper.meters.functions import BY_NAME, Style
from gatekeeper.meters.kinds import Kind, Phase, Shape
from gatekeeper.meters.names import NAMES, RESPONSE_NAMES
from gatekeeper.meters.operators import TEXTUAL
from gatekeeper.meters.scope import Binder, Facts

# A variable that stands for a chain is replaced by it, unless the result would be larger than an expression may be.
EXPANDED_NODES_MAX = 500
EXPANDED_DEPTH_MAX = 60


class TooLarge(Exception):
    """A variable that stands for a stream would make the expression too large."""

    def __init__(self, binder: Binder) -> None:
        self.binder = binder
        super().__init__(binder.name)


class Anchors:
    """Questions about one checked tree."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._anchors: dict[int, tree.Node | None] = {}
        self._beside: dict[int, bool] = {}
        self._sizes: dict[int, tuple[int, int]] = {}

    def resolved(self, node: tree.Node) -> tree.Node:
        """The node, or what it stands for if it is a variable that stands for a stream or a chain."""
        while isinstance(node, tree.Name):
            binder = self.facts.binders.get(id(node))
            if binder is None or not self.stands_in(binder):
                break
            assert binder.value is not None
            node = binder.value
        return node

    def stands_in(self, binder: Binder) -> bool:
        """Whether a variable is replaced by its value: a stream, or a chain that must be read where it stands."""
        if binder.value is None:
            return False
        size, depth = self.expanded_size(binder.value)
        if size > EXPANDED_NODES_MAX or depth > EXPANDED_DEPTH_MAX:
            if binder.type.kind is Kind.STREAM:
                raise TooLarge(binder)
            return False
        return binder.type.kind in (Kind.STREAM, Kind.BODY) or self.anchor_of(binder.value) is not None

    def expanded_size(self, node: tree.Node) -> tuple[int, int]:
        """(nodes, depth) of a part with every variable in it replaced."""
        if id(node) not in self._sizes:
            binder = self.facts.binders.get(id(node))
            parts = node.children() if binder is None or binder.value is None else (binder.value,)
            found = [self.expanded_size(part) for part in parts]
            self._sizes[id(node)] = (
                1 + sum(size for size, _ in found),
                1 + max((depth for _, depth in found), default=0),
            )
        return self._sizes[id(node)]

    def is_anchor(self, node: tree.Node) -> bool:
        """Whether a chain can begin here."""
        facts = self.facts
        if isinstance(node, tree.Name):
            given = NAMES.get(node.name)
            return id(node) not in facts.binders and given is not None and bool(given.phase)
        if isinstance(node, tree.Index):
            return facts.type(node.of).kind is Kind.STREAM
        if not isinstance(node, tree.Call) or len(node.arguments) != 1:
            return False
        over = facts.type(node.arguments[0])
        if over.kind is Kind.BODY:
            return node.name in ("sseLastData", "json", "jsonDecode")
        # Items that are never null: the last of them is one place, not a search for what is not null.
        never_null = over.kind is Kind.STREAM and (over.shape is not Shape.VALUE or over.of.kind is Kind.TEXT)
        return node.name in ("last", "first") and never_null and self.whole_items(node.arguments[0])

    def whole_items(self, stream: tree.Node) -> bool:
        """Whether the items of a stream are its own, not a function of them."""
        node = self.resolved(stream)
        while isinstance(node, tree.Call) and node.name == "filter":
            node = self.resolved(node.arguments[0])
        return not (isinstance(node, tree.Call) and node.name == "map")

    def anchor_of(self, node: tree.Node) -> tree.Node | None:
        """The anchor that a chain begins with, or None if this is no chain."""
        node = self.resolved(node)
        if id(node) not in self._anchors:
            self._anchors[id(node)] = self._anchor_of(node)
        return self._anchors[id(node)]

    def _anchor_of(self, node: tree.Node) -> tree.Node | None:
        if self.is_anchor(node):
            return node
        match node:
            case tree.Member():
                return self.anchor_of(node.of)
            case tree.Index():
                return self.anchor_of(node.of) if self.beside(node.at) else None
            case tree.Slice():
                ends = [end for end in (node.start, node.stop) if end is not None]
                return self.anchor_of(node.of) if all(self.beside(end) for end in ends) else None
            case tree.Binary() if node.sign.removeprefix("not ") in TEXTUAL | {"in"}:
                holder, other = (node.right, node.left) if node.sign.endswith("in") else (node.left, node.right)
                return self.anchor_of(holder) if self.beside(other) and not self._is_body(holder) else None
            case tree.Call():
                return self._anchor_of_call(node)
        return None

    def _anchor_of_call(self, node: tree.Call) -> tree.Node | None:
        function = BY_NAME[node.name]
        if node.name == "tokens":
            # The estimate goes on record, not the prompt; of a stream it would be made again with every event.
            found = self.anchor_of(node.arguments[0])
            return found if isinstance(found, tree.Name) else None
        if function.style not in (Style.PLAIN, Style.FOLD, Style.PIPE) or not node.arguments:
            return None
        first, *rest = node.arguments
        if self.facts.type(first).kind in (Kind.STREAM, Kind.BODY):
            return None
        if node.name in ("max", "min") and not self.facts.walks.get(id(node)):
            return None
        return self.anchor_of(first) if all(self.beside(other) for other in rest) else None

    def _is_body(self, node: tree.Node) -> bool:
        return self.facts.type(node).kind is Kind.BODY

    def beside(self, node: tree.Node) -> bool:
        """Whether a part may go along with a chain: it reads the request and its own parameters at most,
        not a parameter of an aggregate around it."""
        if id(node) not in self._beside:
            self._beside[id(node)] = self._goes_beside(node)
        return self._beside[id(node)]

    def _goes_beside(self, node: tree.Node) -> bool:
        if self.facts.hangs_on(node):
            return False
        for part in node.walk():
            if isinstance(part, tree.Name):
                binder = self.facts.binders.get(id(part))
                if binder is not None and binder.value is not None:
                    if binder.phase & (Phase.FINISH | Phase.EVENT) or not self.beside(binder.value):
                        return False
                elif binder is None and (part.name not in NAMES or NAMES[part.name].phase is not Phase.REQUEST):
                    return False
            elif isinstance(part, tree.Call) and BY_NAME[part.name].style in (Style.SOURCE, Style.SPECIAL):
                return False
        return True

    def is_response(self, node: tree.Node) -> bool:
        """Whether an anchor is the JSON body of an answer that is no stream."""
        if isinstance(node, tree.Name):
            return node.name in RESPONSE_NAMES
        return isinstance(node, tree.Call) and node.name in ("json", "jsonDecode")

    def expanded(self, node: tree.Node) -> tree.Node:
        """The same part with such variables replaced, for printing."""
        node = self.resolved(node)
        match node:
            case tree.Member() | tree.Unary():
                return replace(node, of=self.expanded(node.of))
            case tree.Index():
                return replace(node, of=self.expanded(node.of), at=self.expanded(node.at))
            case tree.Slice():
                start = None if node.start is None else self.expanded(node.start)
                stop = None if node.stop is None else self.expanded(node.stop)
                return replace(node, of=self.expanded(node.of), start=start, stop=stop)
            case tree.Binary() | tree.Fallback():
                return replace(node, left=self.expanded(node.left), right=self.expanded(node.right))
            case tree.Choice():
                return replace(
                    node, test=self.expanded(node.test), yes=self.expanded(node.yes), no=self.expanded(node.no)
                )
            case tree.Call():
                return replace(node, arguments=tuple(self.expanded(argument) for argument in node.arguments))
            case tree.Lambda():
                return replace(node, body=self.expanded(node.body))
        return node

    def outer_variables(self, node: tree.Node) -> set[int]:
        """The places of the variables that a part uses and that are neither replaced nor its own."""
        own = {binder.place for part in node.walk() if (binder := self.facts.functions.get(id(part))) is not None}
        used: set[int] = set()
        for part in node.walk():
            binder = self.facts.binders.get(id(part))
            if binder is None:
                continue
            if self.stands_in(binder):
                assert binder.value is not None
                used |= self.outer_variables(binder.value)
            else:
                used.add(binder.place)
        return used - own
