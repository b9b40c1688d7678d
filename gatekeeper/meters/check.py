"""Types and phases: refuses a wrong expression when it is written, with the place and what to write instead.

The rule: it goes on after a mistake, so that one run shows them all; a part that is wrong has type ANY from there on.
"""

from gatekeeper.diagnostics import Mistake, Severity, Source, Span, suggest
from gatekeeper.meters import kinds, tree
from gatekeeper.meters.calls import Calls
from gatekeeper.meters.kinds import ANY, BOOL, EVENT_MEMBERS, NUMBER, TEXT, USAGE_MEMBERS, Kind, Phase, Type, joined
from gatekeeper.meters.names import CONTEXTS, KNOWN_ELSEWHERE, NAMES, SECRET_HEADERS, Context
from gatekeeper.meters.operators import Operators
from gatekeeper.meters.printing import printed
from gatekeeper.meters.scope import Binder, Facts, Scope

# Events that may be counted from either end: a ring of so many projections is what a slot can hold.
INDEX_MAX = 16


class Checker(Calls, Operators):
    """One run over one tree."""

    def __init__(self, source: Source, context: Context, *, buffered: bool) -> None:
        self.source = source
        self.context = context
        self.rules = CONTEXTS[context]
        self.buffered = buffered
        self.facts = Facts()
        self.mistakes: list[Mistake] = []

    def run(self, root: tree.Node) -> None:
        """Checks the whole expression and its result."""
        found = self.value(root, Scope())
        if self.mistakes and any(mistake.severity is Severity.ERROR for mistake in self.mistakes):
            return
        phase = self.facts.phase(root)
        assert not phase & Phase.EVENT, phase
        if not self.rules.allows(found.kind):
            self.wrong(root, *self._bad_result(found))

    def _bad_result(self, found: Type) -> tuple[str, str | None]:
        if self.rules.gives == frozenset({Kind.BOOL}):
            return f"'{self.context}' wants a test (true or false), this is {found.kind}", "compare it: x == 'gpt-4o'"
        hint = {
            Kind.TEXT: "toInt(...) reads a number out of a string",
            Kind.LIST: "sum(xs), count(xs) or last(xs) make a number of a list",
            Kind.BOOL: "write x ? 1 : 0",
            Kind.USAGE: "name a field, as in usage().total",
            Kind.EVENT: "read a number of it, as in .json.usage.total_tokens",
        }.get(found.kind, "name the number in it")
        return f"'{self.context}' wants a number, this is {found.kind}", hint

    # -- telling ---------------------------------------------------------------------------------------------------

    def wrong(self, where: tree.Node | Span, message: str, hint: str | None = None) -> Type:
        """Notes a mistake; gives ANY so that the caller goes on."""
        span = where if isinstance(where, Span) else where.span
        found = Mistake(message, self.source, span, hint)
        if found not in self.mistakes:
            self.mistakes.append(found)
        return ANY

    def warn(self, where: tree.Node | Span, message: str, hint: str | None = None) -> None:
        """Notes something legal that is probably wrong."""
        span = where if isinstance(where, Span) else where.span
        self.mistakes.append(Mistake(message, self.source, span, hint, Severity.WARNING))

    # -- nodes -----------------------------------------------------------------------------------------------------

    def value(self, node: tree.Node, scope: Scope) -> Type:
        """Checks a part that must be one value, not a stream."""
        found = self.check(node, scope)
        if found.kind is Kind.STREAM:
            return self._no_stream(node, node)
        if found.kind is Kind.BODY and not self.buffered:
            return self.no_body(node)
        if found.kind is Kind.BODY:
            self.facts.phases[id(node)] = Phase.FINISH
            return TEXT
        return found

    def _no_stream(self, node: tree.Node, stream: tree.Node, chain: str = "#") -> Type:
        shown = printed(stream)
        what = f", {chain}" if chain != "#" else ""
        hint = f"last({shown}{what}), sum({shown}, ...), max({shown}, ...), {shown}[-1], ..."
        return self.wrong(node, "this value changes with every event; say which one is billed", hint)

    def no_body(self, node: tree.Node) -> Type:
        """A mistake: the whole body is never held."""
        return self.wrong(
            node,
            "this needs the whole body, and a stream is never held",
            "sseLastData(allData), json(allData), or an aggregate: count(lines(allData)), last(events, .data); "
            "or set buffer_bytes_max on the route",
        )

    def no_bytes(self, node: tree.Node) -> Type:
        """A mistake: between two events nothing is known of the body's bytes and lines."""
        return self.wrong(
            node,
            f"this cannot be read in '{self.context}': it has a value after each event, and reads whole events only",
            "sum(events, len(.data)), last(events, .json.n), count(events), usage().output",
        )

    def check(self, node: tree.Node, scope: Scope) -> Type:
        """Checks any part, once; its type may be a stream."""
        facts, key = self.facts, id(node)
        if key in facts.types:
            return facts.types[key]
        found = self._check(node, scope)
        facts.types[key] = found
        if key not in facts.phases:
            parts = node.children()
            facts.phases[key] = Phase(0)
            for part in parts:
                facts.phases[key] |= facts.phase(part)
            facts.free[key] = frozenset().union(*(facts.hangs_on(part) for part in parts))
        return found

    def _check(self, node: tree.Node, scope: Scope) -> Type:
        match node:
            case tree.Null():
                return kinds.NULL
            case tree.Bool():
                return BOOL
            case tree.Number():
                return NUMBER
            case tree.Text():
                return TEXT
            case tree.Name():
                return self._name(node, scope)
            case tree.Item():
                return self._item(node, scope)
            case tree.Member():
                return self._member(node, scope)
            case tree.Index():
                return self._index(node, scope)
            case tree.Slice():
                return self._slice(node, scope)
            case tree.Unary() | tree.Binary() | tree.Fallback() | tree.Choice():
                return self.operator(node, scope)
            case tree.Call():
                return self.call(node, scope)
            case tree.Let():
                return self._let(node, scope)
            case tree.Items():
                found = [self.plain(item, scope) for item in node.items]
                same = found[0] if found and all(each == found[0] for each in found) else ANY
                return Type(Kind.LIST, same)
            case tree.Entries():
                for key, value in node.entries:
                    self.wants(key, scope, Kind.TEXT, "a key")
                    self.plain(value, scope)
                return kinds.MAP
        hint = "a lambda stands only as the function of an aggregate: sum(events, e => e.json.n)"
        return self.wrong(node, "there is nothing that would call this lambda", hint)

    def plain(self, node: tree.Node, scope: Scope) -> Type:
        """Checks a part that must be a value which JSON could hold."""
        found = self.value(node, scope)
        if found.kind is Kind.EVENT:
            return self.wrong(node, "an event is no plain value", "take its .json or its .data")
        return found

    def wants(self, node: tree.Node, scope: Scope, kind: Kind, who: str) -> Type:
        """Checks a part whose type is given."""
        found = self.plain(node, scope)
        fits = found.kind in (kind, Kind.ANY, Kind.NULL) or kind is Kind.ANY
        if not (fits or (kind is Kind.MAP and found.kind is Kind.USAGE)):
            hint = None
            if kind is Kind.NUMBER and found.kind is Kind.TEXT:
                hint = "toInt(...) or toFloat(...) read a number out of a string"
            elif kind is Kind.NUMBER and found.kind is Kind.USAGE:
                hint = "name a field: usage().total"
            elif kind is Kind.TEXT:
                hint = "toString(...) makes a string of anything"
            self.wrong(node, f"{who} wants {kind}, this is {found.kind}", hint)
        return found

    def _name(self, node: tree.Name, scope: Scope) -> Type:
        facts = self.facts
        binder = scope.names.get(node.name)
        if binder is not None:
            binder.used = True
            facts.binders[id(node)] = binder
            facts.phases[id(node)] = binder.phase
            facts.free[id(node)] = binder.free if binder.is_let else frozenset({binder})
            return binder.type
        given = NAMES.get(node.name)
        if given is None:
            return self.wrong(node, f"unknown name {node.name!r}", self._name_hint(node.name, scope))
        streams = given.type.kind in (Kind.STREAM, Kind.BODY)
        if given.phase & ~self.rules.phases or (streams and not self.rules.streams):
            return self.wrong(node, f"{node.name!r} cannot be read in '{self.context}': {self.rules.why}")
        facts.phases[id(node)] = given.phase
        return given.type

    def _name_hint(self, name: str, scope: Scope) -> str | None:
        from gatekeeper.meters.functions import BY_NAME

        if name in BY_NAME:
            return f"call it: {BY_NAME[name].signature}"
        if name in KNOWN_ELSEWHERE:
            return f"did you mean {KNOWN_ELSEWHERE[name]!r}?"
        return suggest(name, [*scope.names, *NAMES])

    def _item(self, node: tree.Item, scope: Scope) -> Type:
        binder = scope.item
        if binder is None:
            hint = "say of what: last(events, .json.usage.total_tokens)" if self.rules.streams else None
            return self.wrong(node, "'#' and '.path' mean the item of an aggregate, and there is none here", hint)
        binder.used = True
        self.facts.binders[id(node)] = binder
        self.facts.phases[id(node)] = binder.phase
        self.facts.free[id(node)] = frozenset({binder})
        return binder.type

    def _let(self, node: tree.Let, scope: Scope) -> Type:
        found = self.check(node.value, scope)
        self.new_name(node.name, node.name_span, scope)
        facts = self.facts
        binder = Binder(
            node.name, facts.places, found, facts.phase(node.value), node.span, node.value,
            free=facts.hangs_on(node.value),
        )  # fmt: skip
        facts.places += 1
        facts.functions[id(node)] = binder
        result = self.check(node.body, scope.having(binder))
        if not binder.used:
            self.warn(node.name_span, f"{node.name!r} is never used")
        facts.phases[id(node)] = facts.phase(node.body)
        facts.free[id(node)] = facts.hangs_on(node.body)
        return result

    def new_name(self, name: str, where: tree.Node | Span, scope: Scope) -> None:
        """A mistake where a new variable would hide another name."""
        if name in scope.names or name in NAMES:
            self.wrong(where, f"{name!r} is already the name of something else", "choose another name")

    # -- access ----------------------------------------------------------------------------------------------------

    def _member(self, node: tree.Member, scope: Scope) -> Type:
        root: tree.Node = node
        names: list[str] = []
        while isinstance(root, tree.Member):
            names.insert(0, root.name)
            root = root.of
        stream = self.check(root, scope)
        if stream.kind is Kind.STREAM:
            from_event = stream.of.kind is Kind.EVENT and names[0] not in EVENT_MEMBERS
            return self._no_stream(node, root, "." + ".".join((["json"] if from_event else []) + names))
        of = self.check(node.of, scope)
        if of.kind is Kind.BODY:
            return self.value(node.of, scope)
        if of.kind is Kind.EVENT:
            if node.name in EVENT_MEMBERS:
                return EVENT_MEMBERS[node.name]
            hint = f"its JSON begins at .json: .json.{node.name}"
            if suggest(node.name, EVENT_MEMBERS):
                hint = f"{suggest(node.name, EVENT_MEMBERS)} An event has .event .data .id .index .json"
            return self.wrong(node.name_span, f"an event has no {node.name!r}", hint)
        if of.kind is Kind.USAGE:
            if node.name in USAGE_MEMBERS:
                return USAGE_MEMBERS[node.name]
            hint = suggest(node.name, USAGE_MEMBERS) or "it has input, output, total, cached_input, reasoning, ..."
            return self.wrong(node.name_span, f"a usage record has no {node.name!r}", hint)
        if of.kind in (Kind.NUMBER, Kind.BOOL, Kind.TEXT, Kind.LIST):
            hints = {Kind.TEXT: "json(...) parses a string", Kind.LIST: "name an item: xs[0], last(xs), ..."}
            return self.wrong(node.name_span, f"{of.kind} has no members", hints.get(of.kind))
        self._refuse_secret(node.of, node.name, node)
        return TEXT if self._is_headers(node.of) else ANY

    def _is_headers(self, node: tree.Node) -> bool:
        return isinstance(node, tree.Name) and node.name in ("headers", "respHeaders")

    def _refuse_secret(self, of: tree.Node, key: str, where: tree.Node) -> None:
        if self._is_headers(of) and key.lower() in SECRET_HEADERS:
            self.wrong(where, f"{key!r} carries a key; what an expression reads is stored", "keyID names the key")
        elif self._is_headers(of) and key != key.lower():
            self.wrong(where, "header names are in lower case here", f"write {key.lower()!r}")

    def _index(self, node: tree.Index, scope: Scope) -> Type:
        of = self.check(node.of, scope)
        if of.kind is Kind.STREAM:
            return self._index_stream(node, of, scope)
        if of.kind is Kind.BODY:
            of = self.value(node.of, scope)
        at = self.plain(node.at, scope)
        if of.kind in (Kind.NUMBER, Kind.BOOL):
            return self.wrong(node, f"{of.kind} has no items")
        if of.kind is Kind.EVENT:
            return self.wrong(node, "an event has no items", "take its .json")
        if of.kind in (Kind.LIST, Kind.TEXT) and at.kind is Kind.TEXT:
            return self.wrong(node.at, f"{of.kind} is indexed by a number")
        if isinstance(node.at, tree.Text):
            self._refuse_secret(node.of, node.at.value, node)
            if of.kind is Kind.USAGE and node.at.value not in USAGE_MEMBERS:
                return self.wrong(
                    node.at, f"a usage record has no {node.at.value!r}", suggest(node.at.value, USAGE_MEMBERS)
                )
        elif self._is_headers(node.of):
            return self.wrong(node.at, "a header is named by a constant string", 'headers["x-request-id"]')
        if of.kind is Kind.LIST:
            return of.of
        return TEXT if of.kind is Kind.TEXT or self._is_headers(node.of) else ANY

    def _index_stream(self, node: tree.Index, of: Type, scope: Scope) -> Type:
        self.check(node.at, scope)
        self.facts.phases[id(node)] = Phase.FINISH | self.facts.phase(node.of) & ~Phase.EVENT
        self.facts.free[id(node)] = self.facts.hangs_on(node.of)
        place = stream_place(node, self.facts)
        if place is None:
            hint = "xs[3], xs[-2], xs[count(xs) - 2], or last(xs, f)"
            return self.wrong(node.at, f"a stream is indexed from either end by a constant up to {INDEX_MAX}", hint)
        return of.of

    def _slice(self, node: tree.Slice, scope: Scope) -> Type:
        of = self.check(node.of, scope)
        for end in (node.start, node.stop):
            if end is not None:
                self.wants(end, scope, Kind.NUMBER, "a slice")
        if of.kind is Kind.STREAM:
            return self.wrong(node, "a stream cannot be cut", "xs[-2] or filter(xs, p)")
        if of.kind is Kind.BODY:
            return self.value(node.of, scope)
        if of.kind not in (Kind.LIST, Kind.TEXT, Kind.ANY, Kind.NULL):
            return self.wrong(node, f"{of.kind} cannot be cut; a list or a string can")
        return of

    def branches(self, left: Type, right: Type, where: tree.Node) -> Type:
        """The type of one or the other; an event and something else do not go together."""
        if Kind.EVENT in (left.kind, right.kind) and joined(left, right).kind is not Kind.EVENT:
            return self.wrong(where, "one side is an event, the other is not", "take the .json or .data of the event")
        return joined(left, right)


def stream_place(node: tree.Index, facts: Facts) -> int | None:
    """Which item of a stream ``E[...]`` means: 0, 1, ... from the front, -1, -2, ... from the back; None: not legal."""
    at = facts.unlet(node.at)
    if isinstance(at, tree.Unary) and at.sign == "-" and isinstance(at.of, tree.Number):
        place = -at.of.value
    elif isinstance(at, tree.Number):
        place = at.value
    elif isinstance(at, tree.Binary) and at.sign == "-" and isinstance(at.right, tree.Number) and at.right.value >= 1:
        call = facts.unlet(at.left)
        if not (isinstance(call, tree.Call) and call.name in ("count", "len") and len(call.arguments) == 1):
            return None
        if printed(facts.unlet(call.arguments[0])) != printed(facts.unlet(node.of)):
            return None
        place = -at.right.value
    else:
        return None
    if place != place.to_integral_value() or abs(place) > INDEX_MAX:
        return None
    return int(place)
