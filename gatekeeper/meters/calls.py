"""The checker's half for calls: names, arity, argument types, and the functions of aggregates."""

from typing import TYPE_CHECKING

from gatekeeper.diagnostics import Span, suggest
from gatekeeper.meters import tree
from gatekeeper.meters.functions import BY_NAME, Function, Style
from gatekeeper.meters.kinds import ANY, NUMBER, TEXT, Kind, Phase, Shape, Type
from gatekeeper.meters.names import Rules
from gatekeeper.meters.paths import parsed_path
from gatekeeper.meters.scope import Binder, Facts, Scope

_COMPARES = frozenset({"max", "min"})
_NUMBERS = "numbers", (Kind.NUMBER,)
# What an aggregate can add up.
_ITEMS = {
    **dict.fromkeys(("sum", "avg", "max", "min"), _NUMBERS), "merge": ("maps", (Kind.MAP, Kind.USAGE)),
}  # fmt: skip
_BY_LINE = frozenset({"lines", "linesNonEmpty"})
_ELSEWHERE = {
    "length": "len", "size": "len", "average": "avg", "mean": "avg", "some": "any", "every": "all", "one": "any",
    "reduce": "sum", "parse": "json", "parseJson": "json", "fromJSON": "json", "toJSON": "jsonEncode",
    "int": "toInt", "float": "toFloat", "string": "toString", "find": "first", "findLast": "last", "none": "all",
    "concat": "join", "substr": "split", "toLower": "lower", "toUpper": "upper", "number": "toFloat",
}  # fmt: skip


class Calls:
    """Mixed into the Checker."""

    if TYPE_CHECKING:
        facts: Facts
        rules: Rules
        context: str

        def value(self, node: tree.Node, scope: Scope) -> Type: ...
        def check(self, node: tree.Node, scope: Scope) -> Type: ...
        def plain(self, node: tree.Node, scope: Scope) -> Type: ...
        def wants(self, node: tree.Node, scope: Scope, kind: Kind, who: str) -> Type: ...
        def wrong(self, where: tree.Node | Span, message: str, hint: str | None = None) -> Type: ...
        def warn(self, where: tree.Node | Span, message: str, hint: str | None = None) -> None: ...
        def no_body(self, node: tree.Node) -> Type: ...
        def no_bytes(self, node: tree.Node) -> Type: ...
        def new_name(self, name: str, where: tree.Node | Span, scope: Scope) -> None: ...
        def branches(self, left: Type, right: Type, where: tree.Node) -> Type: ...

    def call(self, node: tree.Call, scope: Scope) -> Type:
        """The type of a call's result."""
        function = BY_NAME.get(node.name)
        if function is None:
            return self._unknown(node, scope)
        if not self._count_fits(node, function):
            return ANY
        match function.style:
            case Style.FOLD:
                return self._fold(node, function, scope)
            case Style.PIPE:
                return self._pipe(node, function, scope)
            case Style.SOURCE:
                return self._source(node, function, scope)
            case Style.FALLBACK:
                return self._fallback_call(node, scope)
        if node.name == "usage":
            return self._usage(node, function)
        if node.arguments:
            special = self._over_stream(node, scope)
            if special is not None:
                return special
        for position, argument in enumerate(node.arguments):
            params = function.params
            kind = params[position] if position < len(params) else function.rest
            assert kind is not None
            self.wants(argument, scope, kind, f"{node.name}()")
        self._check_tier(node)
        return self._element(node, function)

    def _element(self, node: tree.Call, function: Function) -> Type:
        if (
            node.name == "get"
            and isinstance(node.arguments[1], tree.Text)
            and parsed_path(node.arguments[1].value) is None
        ):
            return self.wrong(node.arguments[1], "this is no path", "write it like 'a.b[0].c'")
        return function.gives

    def _unknown(self, node: tree.Call, scope: Scope) -> Type:
        for argument in node.arguments:
            if not isinstance(argument, tree.Lambda):
                self.check(argument, Scope(scope.names, scope.item))
        hint = suggest(node.name, BY_NAME)
        if node.name in _ELSEWHERE:
            hint = f"did you mean {_ELSEWHERE[node.name]!r}?"
        return self.wrong(node.name_span, f"unknown function {node.name!r}", hint)

    def _count_fits(self, node: tree.Call, function: Function) -> bool:
        count, least, most = len(node.arguments), function.least, function.most
        if least <= count and (most is None or count <= most):
            return True
        wanted = str(least) if most == least else f"at least {least}" if most is None else f"{least} to {most}"
        plural = "" if wanted == "1" else "s"
        self.wrong(
            node, f"{node.name}() takes {wanted} argument{plural}, this has {count}", f"it is {function.signature}"
        )
        return False

    def _usage(self, node: tree.Call, function: Function) -> Type:
        if not self.rules.streams:
            return self.wrong(node, f"usage() cannot be read in '{self.context}': {self.rules.why}")
        self.facts.phases[id(node)] = Phase.FINISH
        return function.gives

    def _check_tier(self, node: tree.Call) -> None:
        if node.name != "tier":
            return
        for position, step in enumerate(node.arguments[1:], 1):
            if isinstance(step, tree.Items) and len(step.items) != 2:
                self.wrong(step, "a step of tier() is [upto, price]", "the last one may be [null, price]")
            elif (
                isinstance(step, tree.Items)
                and isinstance(step.items[0], tree.Null)
                and position < len(node.arguments) - 1
            ):
                self.wrong(step, "only the last step of tier() may go up to null")
            for part in step.items if isinstance(step, tree.Items) else ():
                found = self.facts.type(part).kind
                if found not in (Kind.NUMBER, Kind.ANY, Kind.NULL):
                    self.wrong(part, f"a step of tier() holds numbers, this is {found}")

    # -- streams ---------------------------------------------------------------------------------------------------

    def _over_stream(self, node: tree.Call, scope: Scope) -> Type | None:
        """len, sha256 and json of what streams; None for any other call."""
        first = node.arguments[0]
        if isinstance(first, tree.Lambda):
            return None
        found = self.check(first, scope)
        if found.kind is Kind.STREAM and node.name == "len":
            return self._ended(node, NUMBER)
        if node.name == "len" and found.kind in (Kind.NUMBER, Kind.BOOL):
            return self.wrong(first, f"len() wants a string, a list or a map, this is {found.kind}")
        if found.kind is Kind.BODY and node.name in ("len", "sha256", "json", "jsonDecode"):
            if self.rules.by_event:
                return self.no_bytes(node)
            return self._ended(node, {"len": NUMBER, "sha256": TEXT}.get(node.name, ANY))
        return None

    def _ended(self, node: tree.Call, gives: Type) -> Type:
        """An aggregate over the stream: known at the end."""
        self.facts.phases[id(node)] = Phase.FINISH | self.facts.phase(node.arguments[0]) & ~Phase.EVENT
        self.facts.free[id(node)] = self.facts.hangs_on(node.arguments[0])
        return gives

    def _source(self, node: tree.Call, function: Function, scope: Scope) -> Type:
        argument = node.arguments[0]
        if isinstance(argument, tree.Lambda) or self.check(argument, scope).kind is not Kind.BODY:
            return self.wrong(argument, f"{node.name}() reads allData", f"{node.name}(allData)")
        if self.rules.by_event and node.name in _BY_LINE:
            return self.no_bytes(node)
        if function.gives.kind is not Kind.STREAM:
            self.facts.phases[id(node)] = Phase.FINISH
        return function.gives

    def _walked(self, node: tree.Call, scope: Scope) -> Type:
        """The type of the thing that an aggregate walks."""
        first = node.arguments[0]
        if isinstance(first, tree.Lambda):
            self.wrong(
                first, f"the first argument of {node.name}() is what it walks", f"{node.name}(events, {'x => ...'})"
            )
            return ANY
        found = self.check(first, scope)
        if found.kind is Kind.BODY:
            self.wrong(first, f"{node.name}() walks a stream or a list", "events, or lines(allData)")
            return ANY
        if found.kind not in (Kind.STREAM, Kind.LIST, Kind.ANY, Kind.NULL):
            hint = "values(...) makes a list of a map" if found.kind is Kind.MAP else None
            self.wrong(first, f"{node.name}() walks a stream or a list, this is {found.kind}", hint)
            return ANY
        return found

    def _function(self, node: tree.Call, function: Function, walked: Type, scope: Scope) -> Type:
        """Checks the function argument; gives the type of its result."""
        argument = node.arguments[1]
        over_stream = walked.kind is Kind.STREAM
        facts, item = self.facts, walked.of
        phase = Phase.EVENT if over_stream else facts.phase(node.arguments[0])
        shape = walked.shape if over_stream else Shape.VALUE
        name = argument.parameter if isinstance(argument, tree.Lambda) else "#"
        binder = Binder(name, facts.places, item, phase, argument.span, shape=shape)
        facts.places += 1
        facts.functions[id(argument)] = binder
        if isinstance(argument, tree.Text) and function.argument == "f":
            return self._string_path(argument, item)
        if isinstance(argument, tree.Lambda):
            self.new_name(name, argument, scope)
            body, inner = argument.body, scope.having(binder, item=True)
        else:
            body, inner = argument, scope.within(binder)
        given = self.value(body, inner)
        if function.argument == "p" and given.kind not in (Kind.BOOL, Kind.ANY, Kind.NULL):
            self.wrong(body, f"{node.name}() wants a test (true or false), this is {given.kind}")
        facts.types[id(argument)] = given
        facts.phases[id(argument)] = facts.phase(body)
        facts.free[id(argument)] = facts.hangs_on(body) - {binder}
        if over_stream:
            self._check_stream_function(node, body)
        return given

    def _string_path(self, argument: tree.Text, item: Type) -> Type:
        if parsed_path(argument.value) is None:
            return self.wrong(argument, "this is no path", "write it like 'usage.total_tokens'")
        if item.kind in (Kind.TEXT, Kind.NUMBER, Kind.BOOL):
            return self.wrong(argument, f"{item.kind} has no members", "json(#).a.b parses a string")
        return ANY

    def _check_stream_function(self, node: tree.Call, body: tree.Node) -> None:
        if self.facts.phase(body) & Phase.FINISH:
            late = next(
                (part for part in body.walk() if self.facts.phase(part) & Phase.FINISH and not part.children()), body
            )
            self.wrong(
                late,
                "this is only known at the end, and the function here runs with every event",
                "take it out of the aggregate: sum(events, .json.n) * total",
            )
        outside = self.facts.hangs_on(node.arguments[1])
        if outside:
            name = min(binder.name for binder in outside)
            self.wrong(node.arguments[1], f"an aggregate over the stream runs before {name!r} is known")

    def _settle(self, node: tree.Call, walked: Type, rest: tuple[tree.Node, ...]) -> None:
        """Phase and free variables of an aggregate."""
        facts = self.facts
        phase = facts.phase(node.arguments[0])
        free = facts.hangs_on(node.arguments[0])
        for argument in rest:
            phase |= facts.phase(argument)
            free |= facts.hangs_on(argument)
        if walked.kind is Kind.STREAM:
            phase = Phase.FINISH | phase & ~Phase.EVENT
        facts.phases[id(node)], facts.free[id(node)] = phase, free

    def _fold(self, node: tree.Call, function: Function, scope: Scope) -> Type:
        if node.name in _COMPARES and not self._walks(node, scope):
            for argument in node.arguments:
                self.wants(argument, scope, Kind.NUMBER, f"{node.name}()")
            return NUMBER
        if len(node.arguments) > 2:
            return self.wrong(node, f"{node.name}() takes a list and one function", f"it is {function.signature}")
        walked = self._walked(node, scope)
        given = walked.of
        if len(node.arguments) == 2:
            given = self._function(node, function, walked, scope)
        elif given.kind is Kind.EVENT and node.name in ("sum", "max", "min", "avg", "merge"):
            self.wrong(
                node,
                f"{node.name}() needs to know what to read of each event",
                f"{node.name}(events, .json.usage.total_tokens)",
            )
        self._settle(node, walked, node.arguments[1:])
        if node.name in ("last", "first"):
            return given
        self._check_items(node, given)
        return function.gives

    def _check_items(self, node: tree.Call, given: Type) -> None:
        """Whether an aggregate can add up what it is given of each item."""
        wanted = _ITEMS.get(node.name)
        if wanted is None or given.kind in (*wanted[1], Kind.ANY, Kind.NULL):
            return
        if len(node.arguments) == 2:
            self.wrong(node.arguments[1], f"{node.name}() wants {wanted[0]}, this is {given.kind}")
        elif given.kind is Kind.TEXT and Kind.NUMBER in wanted[1]:
            self.wrong(node, f"{node.name}() wants numbers, these are strings", f"{node.name}(xs, toInt(#))")
        elif given.kind is not Kind.EVENT:
            self.wrong(node, f"{node.name}() wants {wanted[0]}, an item here is {given.kind}")

    def _walks(self, node: tree.Call, scope: Scope) -> bool:
        """Whether this max or min walks a list; told by the static types, or a mistake."""
        first, *rest = node.arguments
        walks = not rest
        if len(rest) == 1:
            second = rest[0]
            found = ANY if isinstance(first, tree.Lambda) else self.check(first, scope)
            if found.kind in (Kind.STREAM, Kind.LIST) or isinstance(second, tree.Lambda | tree.Text):
                walks = True
            elif found.kind is Kind.ANY and self._reads_item(second):
                if scope.item is not None:
                    self._two_ways(node)
                walks = True
            elif found.kind is Kind.ANY and self.check(second, scope).kind is Kind.ANY:
                self._two_ways(node)
        self.facts.walks[id(node)] = walks
        return walks

    def _two_ways(self, node: tree.Call) -> None:
        self.wrong(
            node,
            f"{node.name}() of two values of unknown type can mean two things",
            f"{node.name}([a, b]) compares them; {node.name}(xs, x => x.n) walks a list",
        )

    def _reads_item(self, node: tree.Node) -> bool:
        """Whether ``#`` stands in this part and belongs to the function around it."""
        if isinstance(node, tree.Item):
            return True
        parts = node.children()
        if isinstance(node, tree.Call) and BY_NAME.get(node.name) is not None and BY_NAME[node.name].argument:
            parts = parts[:1]
        return any(self._reads_item(part) for part in parts)

    def _pipe(self, node: tree.Call, function: Function, scope: Scope) -> Type:
        walked = self._walked(node, scope)
        given = self._function(node, function, walked, scope)
        facts = self.facts
        if walked.kind is Kind.STREAM:
            facts.phases[id(node)] = facts.phase(node.arguments[0]) | facts.phase(node.arguments[1]) & ~Phase.EVENT
            facts.free[id(node)] = facts.hangs_on(node.arguments[0]) | facts.hangs_on(node.arguments[1])
            if node.name == "filter":
                return walked
            if given.kind is Kind.EVENT:
                self.wrong(node.arguments[1], "map() wants a value of each event, this is an event", "take its .json")
            return Type(Kind.STREAM, given, Shape.VALUE)
        self._settle(node, walked, node.arguments[1:])
        if node.name == "filter":
            return walked if walked.kind is Kind.LIST else function.gives
        return Type(Kind.LIST, given)

    def _fallback_call(self, node: tree.Call, scope: Scope) -> Type:
        found = self.value(node.arguments[0], scope)
        for argument in node.arguments[1:]:
            found = self.branches(found, self.value(argument, scope), argument)
        return found
