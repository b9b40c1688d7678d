"""What is legal and probably wrong: results that are null, constants that hide misses, sums that count twice.

The rule: a warning says what will happen on the bill, and what to write instead; the shipped expressions have none.
"""

from dataclasses import dataclass

from gatekeeper.diagnostics import Mistake, Severity, Source
from gatekeeper.meters import tree
from gatekeeper.meters.kinds import Kind
from gatekeeper.meters.missing import Missing
from gatekeeper.meters.names import RESPONSE_NAMES, Context
from gatekeeper.meters.scope import Facts

_BILLED = frozenset({Context.METER, Context.COST})
# Fields of a usage record that are there whenever the provider says anything; others only where it reports them.
_ALWAYS_SAID = frozenset({"input", "output", "total"})
# Dialects that say what was used before the last data of the stream, and where.
_EARLIER = {
    "anthropic": "'message_start' and 'message_delta', before 'message_stop'",
    "watsonx": "the first event (the input) and the last (the output)",
}
_IN_INPUT = frozenset({
    "usage().cached_input", "usage().cache_write", "usage().cache_write_1h", "usage().audio_input",
    "usage().image_input",
})  # fmt: skip
_IN_OUTPUT = frozenset({"usage().reasoning", "usage().audio_output", "usage().image_output"})
# What a count holds already. Anthropic's own `input_tokens` holds no cache, so only names that do are here.
_HOLDS: dict[str, frozenset[str]] = {
    "usage().input": _IN_INPUT,
    "usage().cache_write": frozenset({"usage().cache_write_1h"}),
    "usage().output": _IN_OUTPUT,
    "usage().total": _IN_INPUT | _IN_OUTPUT | {"usage().input", "usage().output"},
    "prompt_tokens": frozenset({"cached_tokens", "prompt_cache_hit_tokens", "prompt_cache_miss_tokens"}),
    "completion_tokens": frozenset({"reasoning_tokens"}),
    "input_tokens": frozenset({"cached_tokens"}),
    "output_tokens": frozenset({"reasoning_tokens", "thinking_tokens"}),
    "total_tokens": frozenset({
        "prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cached_tokens", "reasoning_tokens",
    }),
    "promptTokenCount": frozenset({"cachedContentTokenCount"}),
    "totalTokenCount": frozenset({
        "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "cachedContentTokenCount",
        "toolUsePromptTokenCount",
    }),
}  # fmt: skip
_PER_EVENT = ("last", "first", "sum", "max", "min")


def warnings_of(
    root: tree.Node, facts: Facts, source: Source, context: Context, dialect: str | None = None
) -> tuple[Mistake, ...]:
    """The warnings on a tree without errors. ``dialect``: what the route's provider speaks, where that is known."""
    found = _Warnings(facts, source, dialect)
    for node in root.walk():
        found.cumulative(node)
        if context is not Context.TRIAL:
            found.last_data(node)
            found.twice(node)
    if context in _BILLED:
        found.nothing_measured(root)
    return tuple(found.mistakes)


@dataclass(frozen=True, slots=True)
class _Term:
    """One summand: what it counts, and whether it is taken away."""

    node: tree.Node
    name: str
    minus: bool


class _Warnings:
    """One run over one tree."""

    def __init__(self, facts: Facts, source: Source, dialect: str | None) -> None:
        self.facts = facts
        self.source = source
        self.dialect = dialect
        self.mistakes: list[Mistake] = []
        self._summed: set[int] = set()

    def _warn(self, where: tree.Node, message: str, hint: str) -> None:
        self.mistakes.append(Mistake(message, self.source, where.span, hint, Severity.WARNING))

    # -- nothing was measured --------------------------------------------------------------------------------------

    def nothing_measured(self, root: tree.Node) -> None:
        """A constant that stands in for every miss; a result that is null with nothing in its place."""
        found = Missing(self.facts).of(root)
        if found.defaults:
            self._warn(
                found.defaults[0],
                "this constant is charged where nothing was measured; it will be marked 'default'",
                "without it (or with '?? null') the route's 'unmeasured' policy decides",
            )
        elif not self.mistakes:
            self._null(root, found.reads)

    def _null(self, root: tree.Node, reads: tuple[tree.Node, ...]) -> None:
        for read in reads:
            field = self._usage_field(read)
            if field is not None:
                if len(reads) > 1 and field not in _ALWAYS_SAID:
                    self._warn(
                        read,
                        f"'{field}' is null where the provider does not report it, and then the whole result is null",
                        f"({self.source.text[read.span.start : read.span.end]} ?? 0)",
                    )
                    return
            elif self._by_hand(read):
                self._warn(
                    read,
                    "this is null where the answer does not say it, and there is no default",
                    "... ?? usage().total reads every provider; '?? null' leaves it to the 'unmeasured' policy",
                )
                return

    def _usage_field(self, node: tree.Node) -> str | None:
        """The field of ``usage()`` that a part reads; ``total`` for the record itself."""
        field = "total"
        node = self.facts.unlet(node)
        while isinstance(node, tree.Member | tree.Index):
            at = node.name if isinstance(node, tree.Member) else getattr(node.at, "value", "")
            field, node = str(at), self.facts.unlet(node.of)
        return field if isinstance(node, tree.Call) and node.name == "usage" else None

    def _by_hand(self, read: tree.Node) -> bool:
        """Whether a part digs in the stream itself, or in a body where only a stream's usage would stand."""
        name = _last_name(read)
        waiting = [read]
        while waiting:
            node = self.facts.unlet(waiting.pop())
            if isinstance(node, tree.Name) and id(node) not in self.facts.binders:
                if node.name in ("events", "allData"):
                    return True
                if node.name in RESPONSE_NAMES:
                    return _counts_tokens(name)
            waiting.extend(node.children())
        return False

    # -- counted more than once ------------------------------------------------------------------------------------

    def cumulative(self, node: tree.Node) -> None:
        """``sum`` over figures that grow from event to event."""
        if not isinstance(node, tree.Call) or node.name != "sum" or not node.arguments:
            return
        if self.facts.type(node.arguments[0]).kind is not Kind.STREAM:
            return
        function = node.arguments[-1]
        mapped = self.facts.unlet(node.arguments[0])
        if len(node.arguments) == 1 and isinstance(mapped, tree.Call) and mapped.name == "map":
            function = mapped.arguments[1]
        if any(_counts_tokens(_last_name(part)) for part in function.walk()):
            self._warn(
                node,
                "many providers repeat a growing usage in every event: a sum counts it more than once",
                "usage().total, or last(events, ...)",
            )

    def last_data(self, node: tree.Node) -> None:
        """``sseLastData`` where the last data says nothing of usage."""
        if not isinstance(node, tree.Call) or node.name != "sseLastData":
            return
        where = _EARLIER.get((self.dialect or "").lower())
        if where is not None:
            self._warn(
                node,
                f"the last data of a stream holds no usage here: {self.dialect} sends it in {where}",
                "usage().total",
            )

    def twice(self, node: tree.Node) -> None:
        """A sum of a whole and of a part that the whole holds already."""
        terms: list[_Term] = []
        if isinstance(node, tree.Binary) and node.sign in ("+", "-") and id(node) not in self._summed:
            self._terms(node, False, terms)
        elif isinstance(node, tree.Call) and node.name == "sum" and isinstance(node.arguments[0], tree.Items):
            for item in node.arguments[0].items:
                self._terms(item, False, terms)
        plus = [term for term in terms if not term.minus]
        taken_away = {term.name for term in terms if term.minus}
        for part in plus:
            whole = next((term for term in plus if part.name in _HOLDS.get(term.name, ())), None)
            if whole is None or part.name in taken_away or self._apart(part.name):
                continue
            self._warn(
                part.node,
                f"'{whole.name}' holds '{part.name}' already: this counts it twice",
                f"let part = {part.name} ?? 0; ({whole.name} - part) * price + part * other_price",
            )
            return

    def _apart(self, name: str) -> bool:
        """xAI leaves reasoning out of completion_tokens."""
        return self.dialect == "xai" and name == "reasoning_tokens"

    def _terms(self, node: tree.Node, minus: bool, terms: list[_Term]) -> None:
        """The summands of a sum, through prices, fallbacks and variables."""
        self._summed.add(id(node))
        node = self.facts.unlet(node)
        self._summed.add(id(node))
        if isinstance(node, tree.Fallback):
            self._terms(node.left, minus, terms)
        elif isinstance(node, tree.Call) and node.name in ("coalesce", "default"):
            self._terms(node.arguments[0], minus, terms)
        elif isinstance(node, tree.Unary) and node.sign == "-":
            self._terms(node.of, not minus, terms)
        elif isinstance(node, tree.Binary) and node.sign in ("+", "-"):
            self._terms(node.left, minus, terms)
            self._terms(node.right, minus is (node.sign == "+"), terms)
        elif isinstance(node, tree.Binary) and node.sign in ("*", "/"):
            for side, other in ((node.left, node.right), (node.right, node.left)):
                if side is node.left or node.sign == "*":
                    self._terms(side, minus is not _negative(other), terms)
        else:
            name = self._counted(node)
            if name:
                terms.append(_Term(node, name, minus))

    def _counted(self, node: tree.Node) -> str:
        field = self._usage_field(node)
        if field is not None:
            return f"usage().{field}"
        if isinstance(node, tree.Call) and node.name in _PER_EVENT and len(node.arguments) == 2:
            node = node.arguments[1]
            node = node.body if isinstance(node, tree.Lambda) else node
        return _last_name(node)


def _negative(node: tree.Node) -> bool:
    return isinstance(node, tree.Unary) and node.sign == "-"


def _last_name(node: tree.Node) -> str:
    """The last key of a path; '' for anything else."""
    if isinstance(node, tree.Member):
        return node.name
    if isinstance(node, tree.Index) and isinstance(node.at, tree.Text):
        return node.at.value
    if isinstance(node, tree.Call) and node.name == "get" and isinstance(node.arguments[1], tree.Text):
        node = node.arguments[1]
    return node.value.rpartition(".")[2] if isinstance(node, tree.Text) else ""


def _counts_tokens(name: str) -> bool:
    return name.lower().endswith(("tokens", "tokencount"))
