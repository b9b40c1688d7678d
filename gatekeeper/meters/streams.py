"""The half of the lowering that is about streams: which slot an aggregate, an index or a chain needs.

The rule: equal aggregates share one slot; the search for needed keys is planned here, and it may only pass over an
event for which the function of null is what the function would give.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gatekeeper.meters import tree
from gatekeeper.meters.anchors import Anchors
from gatekeeper.meters.check import stream_place
from gatekeeper.meters.codes import called, opposite
from gatekeeper.meters.evidence import recorded
from gatekeeper.meters.folds import READ, At, AtBack, fold_named
from gatekeeper.meters.functions import BY_NAME
from gatekeeper.meters.kinds import Kind, Shape
from gatekeeper.meters.paths import Step, needles, parsed_path
from gatekeeper.meters.reads import event_member, variable, whole_event
from gatekeeper.meters.run import Code, Run
from gatekeeper.meters.scope import Binder, Facts
from gatekeeper.meters.slots import BodyHash, BodyLength, BodySearch, BodyText, Feed, Nothing, SlotPlan, Stage

_BODY_FOLDS: dict[str, Callable[[], Any]] = {"len": BodyLength, "sha256": BodyHash}
_SOURCES = {
    "sseEvents": (Feed.EVENTS, Shape.EVENT),
    "sseAllData": (Feed.EVENTS, Shape.DATA),
    "lines": (Feed.LINES, Shape.VALUE),
    "linesNonEmpty": (Feed.FULL_LINES, Shape.VALUE),
}
Opened = tuple[Feed, Shape, tuple[Stage, ...], list[tuple[tree.Node, Binder]]]


class Streams:
    """Mixed into the Lowering."""

    facts: Facts
    anchors: Anchors
    plans: list[SlotPlan]
    inside: bool
    holes: dict[int, tuple[int, Shape]]
    buffer_bytes_max: int
    extra_places = 0

    if TYPE_CHECKING:

        def code(self, node: tree.Node) -> Code: ...
        def function_of(self, argument: tree.Node, binder: Binder) -> Code: ...
        def key_of(self, node: tree.Node) -> str: ...
        def event_path(self, node: tree.Node) -> tuple[int, tuple[Step, ...]] | None: ...

    def _is_slot(self, node: tree.Node) -> bool:
        """Whether a part is an aggregate over the stream or the body, or the usage record."""
        if isinstance(node, tree.Name):
            return self._is_body(node)
        if isinstance(node, tree.Binary):
            return node.sign.endswith("contains") and isinstance(node.right, tree.Text) and self._is_body(node.left)
        if not isinstance(node, tree.Call):
            return False
        if node.name == "usage":
            return True
        return bool(node.arguments) and self.facts.type(node.arguments[0]).kind in (Kind.STREAM, Kind.BODY)

    def _is_body(self, node: tree.Node) -> bool:
        found = self.anchors.resolved(node)
        return isinstance(found, tree.Name) and found.name == "allData" and id(found) not in self.facts.binders

    # -- making slots ----------------------------------------------------------------------------------------------

    def slot(self, node: tree.Node) -> Code:
        """The code that reads the slot of an aggregate."""
        if isinstance(node, tree.Call) and node.name == "usage":
            return self._planned(node, feed=Feed.USAGE, fold=Nothing)
        if isinstance(node, tree.Name):
            limit = self.buffer_bytes_max
            return self._planned(node, feed=Feed.BODY, fold=lambda: BodyText(limit))
        if isinstance(node, tree.Binary):
            return self._search_slot(node)
        assert isinstance(node, tree.Call)
        first = node.arguments[0]
        if self._is_body(first):
            if node.name in _BODY_FOLDS:
                return self._planned(node, feed=Feed.BODY, fold=_BODY_FOLDS[node.name])
            return self.buffered(node)
        return self._fold_slot(node)

    def buffered(self, node: tree.Call) -> Code:
        """A function of the whole body, which the route allows to be held."""
        function = BY_NAME[node.name]
        assert function.run is not None, node.name
        arguments = [self.code(argument) for argument in node.arguments]
        return called(function.run, arguments, sees_null=function.sees_null, tests=False)

    def _search_slot(self, node: tree.Binary) -> Code:
        assert isinstance(node.right, tree.Text)
        wanted = node.right.value.encode("utf-8", "replace")
        asked = tree.Binary("contains", node.left, node.right)
        found = self._planned(asked, feed=Feed.BODY, fold=lambda: BodySearch(wanted))
        return found if node.sign == "contains" else opposite(found)

    def _fold_slot(self, node: tree.Call) -> Code:
        with _Inside(self):
            feed, shape, stages, functions = self._opened(node.arguments[0])
            code: Code | None = None
            if len(node.arguments) == 2:
                binder = self.facts.functions[id(node.arguments[1])]
                code, place = self.function_of(node.arguments[1], binder), binder.place + 1
                functions = [*functions, (node.arguments[1], binder)]
            else:
                place = self._new_place()
                if node.name not in ("count", "len"):
                    code = self._itself(place, shape)
            path = _keys(self._path_of(*functions[0]), place) if len(functions) == 1 else ()
        # A function's own `looks` only help while it is the first thing that sees the event.
        looks = self._looks(functions[0]) if len(functions) == 1 and len(node.arguments) == 2 else ()
        name = node.name
        return self._planned(
            node, feed=feed, fold=fold_named(name, READ, held=True), stages=stages, place=place, shape=shape,
            code=code, looks=looks, path=path if looks else (),
        )  # fmt: skip

    def _path_of(self, argument: tree.Node, binder: Binder) -> tuple[int, tuple[Step, ...]] | None:
        """The path that a function is, if it is one."""
        if isinstance(argument, tree.Text):
            return binder.place + 1, parsed_path(argument.value) or ()
        return self.event_path(argument.body if isinstance(argument, tree.Lambda) else argument)

    def chain_slot(self, node: tree.Node, anchor: tree.Node) -> Code:
        """The slot of one item of a stream with what is read of it."""
        with _Inside(self):
            feed, shape, stages, fold = self._place_of(anchor)
            place = self._new_place()
            before = dict(self.holes)
            self.holes[id(anchor)] = (place, shape)
            code = self.code(node)
            path = self.event_path(node)
            self.holes = before
        looks: tuple[tuple[bytes, bytes], ...] = ()
        if path is not None and not stages and feed in (Feed.EVENTS, Feed.DATA):
            found = needles(path[1])
            looks = () if found is None else (found,)
        return self._planned(
            node,
            feed=feed,
            fold=fold,
            stages=stages,
            place=place,
            shape=shape,
            code=code,
            looks=looks,
            path=_keys(path, place) if looks else (),
        )

    def _place_of(self, anchor: tree.Node) -> tuple[Feed, Shape, tuple[Stage, ...], Callable[[], Any]]:
        if self.anchors.is_response(anchor):
            return Feed.RESPONSE, Shape.EVENT, (), lambda: At(0)
        if isinstance(anchor, tree.Index):
            number = stream_place(anchor, self.facts)
            assert number is not None
            stream = anchor.of
        else:
            assert isinstance(anchor, tree.Call)
            if anchor.name == "sseLastData":
                return Feed.DATA, Shape.DATA, (), lambda: AtBack(1)
            number, stream = (0 if anchor.name == "first" else -1), anchor.arguments[0]
        feed, shape, stages, _ = self._opened(stream)
        place = number
        return feed, shape, stages, (lambda: At(place)) if place >= 0 else (lambda: AtBack(-place))

    def _planned(self, node: tree.Node, **how: Any) -> Code:
        outer = self.anchors.outer_variables(node)
        key = self.key_of(node)
        number = next((at for at, plan in enumerate(self.plans) if plan.key == key), None)
        if number is None:
            number = len(self.plans)
            self.plans.append(SlotPlan(key=key, shown=key, shared=not outer, **how))
        place = number

        def code(run: Run) -> Any:
            return run.slots[place].result()

        # A usage record has a bound of its own.
        return code if self.inside else recorded(key, code, READ, small=how["feed"] is Feed.USAGE)

    def _new_place(self) -> int:
        self.extra_places += 1
        return self.facts.places + self.extra_places

    def _itself(self, place: int, shape: Shape) -> Code:
        if shape is Shape.EVENT:
            return whole_event(place)
        return event_member(place, "data") if shape is Shape.DATA else variable(place)

    # -- what a stream is made of ----------------------------------------------------------------------------------

    def _opened(self, node: tree.Node) -> Opened:
        """(what it is fed with, the shape of its items, the steps, the functions of those steps)."""
        node = self.anchors.resolved(node)
        if isinstance(node, tree.Name):
            return Feed.EVENTS, Shape.EVENT, (), []
        assert isinstance(node, tree.Call), node
        if node.name in _SOURCES:
            feed, shape = _SOURCES[node.name]
            return feed, shape, (), []
        feed, shape, stages, functions = self._opened(node.arguments[0])
        argument = node.arguments[1]
        binder = self.facts.functions[id(argument)]
        stage = Stage(node.name == "filter", binder.place + 1, shape, self.function_of(argument, binder))
        after = shape if node.name == "filter" else Shape.VALUE
        return feed, after, (*stages, stage), [*functions, (argument, binder)]

    def _looks(self, function: tuple[tree.Node, Binder]) -> tuple[tuple[bytes, bytes], ...]:
        """What to look for in an event's bytes before the function is run; nothing if it reads more than JSON paths."""
        argument, binder = function
        if binder.shape is Shape.VALUE:
            return ()
        if isinstance(argument, tree.Text):
            found = needles(parsed_path(argument.value) or ())
            return () if found is None else (found,)
        looks: set[tuple[bytes, bytes]] = set()
        body = argument.body if isinstance(argument, tree.Lambda) else argument
        waiting = [body]
        while waiting:
            node = self.anchors.resolved(waiting.pop())
            path = self.event_path(node)
            if path is not None and path[0] == binder.place + 1:
                found = needles(path[1])
                if found is None:
                    return ()
                looks.add(found)
                continue
            if self.facts.binders.get(id(node)) is binder or self._is_let_of(node, binder):
                return ()
            waiting.extend(node.children())
        return tuple(sorted(looks)) if len(looks) <= 4 else ()

    def _is_let_of(self, node: tree.Node, binder: Binder) -> bool:
        """Whether a node is a variable that hangs on the item: too roundabout to look through."""
        other = self.facts.binders.get(id(node))
        return other is not None and other.is_let and binder in other.free


def _keys(path: tuple[int, tuple[Step, ...]] | None, place: int) -> tuple[str, ...]:
    """The keys of a path into the item at ``place``, if there is nothing else in it."""
    if path is None or path[0] != place:
        return ()
    keys = tuple(step for step in path[1] if isinstance(step, str))
    return keys if len(keys) == len(path[1]) else ()


class _Inside:
    """While code for a slot is made, nothing in it is recorded."""

    def __init__(self, lowering: Streams) -> None:
        self.lowering = lowering

    def __enter__(self) -> None:
        self.before = self.lowering.inside
        self.lowering.inside = True

    def __exit__(self, *_: object) -> None:
        self.lowering.inside = self.before
