"""A checked tree -> closures, and the plan of its slots.

The rule: whatever changes with the events goes into a slot; all other parts become closures that read slots and
recorded inputs. What the closures read at the end is written down as evidence.
"""

from typing import Any

from gatekeeper.meters import codes, tree
from gatekeeper.meters.anchors import Anchors
from gatekeeper.meters.evidence import recorded
from gatekeeper.meters.folds import READ, SAW_NULL, Marked, fold_named, holds
from gatekeeper.meters.functions import BY_NAME, Style
from gatekeeper.meters.functions.numbers import largest, smallest
from gatekeeper.meters.kinds import Kind, Phase, Shape
from gatekeeper.meters.names import NAMES
from gatekeeper.meters.paths import Step, parsed_path, stepped
from gatekeeper.meters.pricing import cost_code, tokens_code
from gatekeeper.meters.printing import printed
from gatekeeper.meters.reads import event_member, json_path, variable, whole_event
from gatekeeper.meters.run import REQUEST_PLACE, UNSET, Code, Run, named
from gatekeeper.meters.scope import Binder, Facts
from gatekeeper.meters.slots import SlotPlan
from gatekeeper.meters.streams import Streams
from gatekeeper.meters.values import Unmeasurable, json_of, kind
from gatekeeper.meters.values import made as bounded_parts

# 500 nodes with a few variables put in make some thousand; more would only make the start slow.
CLOSURES_MAX = 20_000


class TooManyClosures(Exception):
    """The expression grows too large when its variables are put in."""


class Lowering(Streams):
    """One tree at work. ``plans`` fills up with the slots that the code reads."""

    def __init__(self, facts: Facts, *, buffer_bytes_max: int) -> None:
        self.facts = facts
        self.anchors = Anchors(facts)
        self.buffer_bytes_max = buffer_bytes_max
        self.plans: list[SlotPlan] = []
        # Inside a slot or a recorded chain nothing is recorded: its result is.
        self.inside = False
        self.keys: dict[str, tuple[int, ...]] = {}
        # An anchor that is being read: its node stands for the item at this place of the frame.
        self.holes: dict[int, tuple[int, Shape]] = {}
        self._made = 0
        self._lets: dict[tuple[int, bool], Code] = {}

    # -- dispatch --------------------------------------------------------------------------------------------------

    def code(self, node: tree.Node) -> Code:
        """The closure of a part."""
        self._made += 1
        if self._made > CLOSURES_MAX:
            raise TooManyClosures
        node = self.anchors.resolved(node)
        path = self.event_path(node)
        if path is not None and (self.inside or path[0] != REQUEST_PLACE):
            return json_path(*path)
        if id(node) in self.holes:
            return self._hole(*self.holes[id(node)])
        if not self.inside:
            anchor = self.anchors.anchor_of(node)
            if anchor is not None:
                return self._chain(node, anchor)
        if self._is_slot(node):
            return self.slot(node)
        return self._structural(node)

    def _structural(self, node: tree.Node) -> Code:
        match node:
            case tree.Null():
                return codes.constant(None)
            case tree.Bool() | tree.Text() | tree.Number():
                return codes.constant(node.value)
            case tree.Name():
                return self._name(node)
            case tree.Item():
                return self._parameter(self.facts.binders[id(node)])
            case tree.Member():
                return self._member(node)
            case tree.Index():
                return codes.indexed(self.code(node.of), self.code(node.at))
            case tree.Slice():
                start = None if node.start is None else self.code(node.start)
                stop = None if node.stop is None else self.code(node.stop)
                return codes.sliced(self.code(node.of), start, stop)
            case tree.Unary():
                return (codes.opposite if node.sign == "not" else codes.negation)(self.code(node.of))
            case tree.Binary():
                return self._binary(node)
            case tree.Fallback():
                return codes.fallback(self.code(node.left), self.code(node.right))
            case tree.Choice():
                return codes.choice(self.code(node.test), self.code(node.yes), self.code(node.no))
            case tree.Items():
                return codes.items([self.code(item) for item in node.items])
            case tree.Entries():
                return codes.entries([(self.code(key), self.code(value)) for key, value in node.entries])
            case tree.Let():
                return self._let(node)
            case tree.Call():
                return self._call(node)
        raise AssertionError(node)

    # -- names -----------------------------------------------------------------------------------------------------

    def _name(self, node: tree.Name) -> Code:
        binder = self.facts.binders.get(id(node))
        if binder is None:
            return json_path(REQUEST_PLACE, ()) if node.name == "request" else named(node.name)
        return self._variable(binder) if binder.is_let else self._parameter(binder)

    def _parameter(self, binder: Binder) -> Code:
        return self._hole(binder.place + 1, binder.shape)

    def _hole(self, place: int, shape: Shape) -> Code:
        if shape is Shape.EVENT:
            return whole_event(place)
        return event_member(place, "data") if shape is Shape.DATA else variable(place)

    def _let(self, node: tree.Let) -> Code:
        binder = self.facts.functions[id(node)]
        body = self.code(node.body)
        place = binder.place + 1

        def code(run: Run) -> Marked:
            run.frame[place] = UNSET
            return body(run)

        return code

    def _variable(self, binder: Binder) -> Code:
        key = (binder.place, self.inside)
        if key not in self._lets:
            assert binder.value is not None
            self._lets[key] = self.code(binder.value)
        value, place = self._lets[key], binder.place + 1

        def code(run: Run) -> Marked:
            marked: Marked = run.frame[place]
            if marked is UNSET:
                marked = run.frame[place] = value(run)
            return marked

        return code

    # -- chains ----------------------------------------------------------------------------------------------------

    def _chain(self, node: tree.Node, anchor: tree.Node) -> Code:
        """An anchor with its chain: a slot where it streams, else a recorded read."""
        if not isinstance(anchor, tree.Name) or self.anchors.is_response(anchor):
            return self.chain_slot(node, anchor)
        self.inside = True
        try:
            code = self.code(node)
        finally:
            self.inside = False
        return recorded(self.key_of(node), code, 0 if NAMES[anchor.name].phase is Phase.REQUEST else READ)

    def key_of(self, node: tree.Node) -> str:
        """The name of a part in the evidence: its text; numbered where the same text means something else."""
        text = printed(self.anchors.expanded(node))
        outer = tuple(sorted(self.anchors.outer_variables(node)))
        key, number = text, 1
        while self.keys.setdefault(key, outer) != outer:
            number += 1
            key = f"{text} #{number}"
        return key

    def event_path(self, node: tree.Node) -> tuple[int, tuple[Step, ...]] | None:
        """(place, steps) where a part is a path into the JSON of an event, of the response or of the request."""
        node = self.anchors.resolved(node)
        if id(node) in self.holes:
            # The hole of a response is its JSON; other holes are the event or its data.
            return (self.holes[id(node)][0], ()) if self.anchors.is_response(node) else None
        match node:
            case tree.Name(name="request") if id(node) not in self.facts.binders:
                return REQUEST_PLACE, ()
            case tree.Member():
                root = self._root(node.of, Shape.EVENT) if node.name == "json" else None
                return (root, ()) if root is not None else self._longer(node.of, node.name)
            case tree.Index():
                step = _constant_step(node.at)
                return None if step is None else self._longer(node.of, step)
            case tree.Call(name="json" | "jsonDecode") if self.facts.type(node.arguments[0]).kind is not Kind.BODY:
                inner = self.anchors.resolved(node.arguments[0])
                root = self._root(inner, Shape.DATA)
                if root is None and isinstance(inner, tree.Member) and inner.name == "data":
                    root = self._root(inner.of, Shape.EVENT)
                return None if root is None else (root, ())
            case tree.Call(name="get") if isinstance(node.arguments[1], tree.Text):
                steps = parsed_path(node.arguments[1].value)
                found = self.event_path(node.arguments[0])
                return None if found is None or steps is None else (found[0], found[1] + steps)
        return None

    def _longer(self, of: tree.Node, step: Step) -> tuple[int, tuple[Step, ...]] | None:
        found = self.event_path(of)
        return None if found is None else (found[0], (*found[1], step))

    def _root(self, node: tree.Node, shape: Shape) -> int | None:
        """The place where an item of this shape stands, if the node is one."""
        node = self.anchors.resolved(node)
        if id(node) in self.holes:
            place, held = self.holes[id(node)]
            return place if held is shape and not self.anchors.is_response(node) else None
        binder = self.facts.binders.get(id(node))
        if binder is None or binder.is_let or binder.shape is not shape:
            return None
        return binder.place + 1

    def _member(self, node: tree.Member) -> Code:
        root = self._root(node.of, Shape.EVENT)
        if root is not None:
            return event_member(root, node.name)
        if self.facts.type(node.of).kind is Kind.EVENT and node.name == "json":
            return codes.called(json_of, [codes.member(self.code(node.of), "data")], sees_null=False, tests=False)
        return codes.member(self.code(node.of), node.name)

    # -- operators and calls ---------------------------------------------------------------------------------------

    def _binary(self, node: tree.Binary) -> Code:
        left, right = self.code(node.left), self.code(node.right)
        if node.sign in ("==", "!="):
            ends = (isinstance(node.left, tree.Null), isinstance(node.right, tree.Null))
            return codes.equality(left, right, wanted=node.sign == "==", null_left=ends[0], null_right=ends[1])
        pattern = node.right.value if isinstance(node.right, tree.Text) else None
        return codes.binary(node.sign, left, right, pattern)

    def _call(self, node: tree.Call) -> Code:
        function = BY_NAME[node.name]
        if function.style is Style.FALLBACK:
            return codes.first_there([self.code(argument) for argument in node.arguments])
        if function.style is Style.FOLD:
            return self._fold(node)
        if function.style is Style.PIPE:
            return self._list_pipe(node)
        if node.name in ("tokens", "cost"):
            arguments = [self.code(argument) for argument in node.arguments]
            code = tokens_code(arguments[0]) if node.name == "tokens" else cost_code(*arguments)
            free = self.facts.hangs_on(node)
            return code if self.inside or free else recorded(self.key_of(node), code, READ)
        assert function.run is not None, node.name
        arguments = [self.code(argument) for argument in node.arguments]
        return codes.called(function.run, arguments, sees_null=function.sees_null, tests=node.name == "has")

    def function_of(self, argument: tree.Node, binder: Binder) -> Code:
        """The code of an aggregate's function; the item stands at the binder's place."""
        place = binder.place + 1
        if isinstance(argument, tree.Text):
            steps = parsed_path(argument.value) or ()
            if binder.shape is Shape.EVENT:
                return json_path(place, steps)
            item = variable(place)
            return lambda run: ((marked := item(run)) and stepped(marked[0], steps), marked[1])
        return self.code(argument.body if isinstance(argument, tree.Lambda) else argument)

    def _fold(self, node: tree.Call) -> Code:
        if node.name in ("max", "min") and not self.facts.walks[id(node)]:
            pick = largest if node.name == "max" else smallest
            arguments = [self.code(argument) for argument in node.arguments]
            return codes.called(pick, arguments, sees_null=False, tests=False)
        walked = self.code(node.arguments[0])
        function: Code | None = None
        place = 0
        if len(node.arguments) == 2:
            binder = self.facts.functions[id(node.arguments[1])]
            function, place = self.function_of(node.arguments[1], binder), binder.place + 1
        return _walking(node.name, walked, function, place)

    def _list_pipe(self, node: tree.Call) -> Code:
        binder = self.facts.functions[id(node.arguments[1])]
        walked, place = self.code(node.arguments[0]), binder.place + 1
        function = self.function_of(node.arguments[1], binder)
        keeps = node.name == "filter"

        def code(run: Run) -> Marked:
            items, marks = walked(run)
            made: list[Any] = []
            for item in _list(items, node.name):
                run.step()
                run.frame[place] = (item, marks)
                value, more = function(run)
                marks |= more & ~SAW_NULL
                if not keeps:
                    made.append(value)
                elif holds(value):
                    made.append(item)
            return (None if items is None else bounded_parts(made)), marks

        return code


def _list(items: Any, who: str) -> list[Any]:
    if items is None:
        return []
    if not isinstance(items, list):
        raise Unmeasurable(f"{who} wants a list, found {kind(items)}")
    return items


def _walking(name: str, walked: Code, function: Code | None, place: int) -> Code:
    """An aggregate over a list."""

    def code(run: Run) -> Marked:
        items, marks = walked(run)
        fold = fold_named(name, marks, held=False)()
        for item in _list(items, name):
            run.step()
            if fold.done:
                break
            if function is None:
                fold.add(True if name == "count" else item, marks)
            else:
                run.frame[place] = (item, marks)
                fold.add(*function(run))
        return fold.result()

    return code


def _constant_step(node: tree.Node) -> Step | None:
    if isinstance(node, tree.Text):
        return node.value
    sign = 1
    if isinstance(node, tree.Unary) and node.sign == "-":
        sign, node = -1, node.of
    if isinstance(node, tree.Number) and node.value == node.value.to_integral_value() and abs(node.value) < 10**9:
        return sign * int(node.value)
    return None


Lowered = tuple[Code, tuple[SlotPlan, ...], int]


def lowered(root: tree.Node, facts: Facts, *, buffer_bytes_max: int) -> Lowered:
    """(the code, the slots that it reads, how many places the frame needs)."""
    lowering = Lowering(facts, buffer_bytes_max=buffer_bytes_max)
    code = lowering.code(root)
    return code, tuple(lowering.plans), facts.places + 1 + lowering.extra_places
