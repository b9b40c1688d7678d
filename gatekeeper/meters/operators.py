"""The checker's half for operators: what each one takes and gives, and the warnings about null tests."""

from typing import TYPE_CHECKING, Any

import re2

from gatekeeper.diagnostics import Span
from gatekeeper.meters import tree
from gatekeeper.meters.kinds import ANY, BOOL, NUMBER, TEXT, Kind, Phase, Type
from gatekeeper.meters.names import Rules
from gatekeeper.meters.scope import Facts, Scope

ARITHMETIC = frozenset({"-", "*", "/", "%", "**"})
ORDER = frozenset({"<", "<=", ">", ">="})
TEXTUAL = frozenset({"contains", "startsWith", "endsWith", "matches"})
# RE2 runs in linear time; the program's size is what a pattern can cost.
PATTERN_BYTES_MAX = 1 << 20


def compiled_pattern(pattern: str) -> Any:
    """The RE2 program. Raises re2.error."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES_MAX
    return re2.compile(pattern, options)


class Operators:
    """Mixed into the Checker."""

    if TYPE_CHECKING:
        facts: Facts
        rules: Rules

        def value(self, node: tree.Node, scope: Scope) -> Type: ...
        def check(self, node: tree.Node, scope: Scope) -> Type: ...
        def plain(self, node: tree.Node, scope: Scope) -> Type: ...
        def wants(self, node: tree.Node, scope: Scope, kind: Kind, who: str) -> Type: ...
        def wrong(self, where: tree.Node | Span, message: str, hint: str | None = None) -> Type: ...
        def warn(self, where: tree.Node | Span, message: str, hint: str | None = None) -> None: ...
        def no_bytes(self, node: tree.Node) -> Type: ...
        def branches(self, left: Type, right: Type, where: tree.Node) -> Type: ...

    def operator(self, node: tree.Node, scope: Scope) -> Type:
        """The type of an operator's result."""
        match node:
            case tree.Unary(sign="not"):
                self._test(node.of, scope, "'not'")
                return BOOL
            case tree.Unary():
                self.wants(node.of, scope, Kind.NUMBER, "'-'")
                return NUMBER
            case tree.Fallback():
                return self._fallback(node, scope)
            case tree.Choice():
                return self._choice(node, scope)
        assert isinstance(node, tree.Binary)
        return self._binary(node, scope)

    def _test(self, node: tree.Node, scope: Scope, who: str) -> None:
        self.wants(node, scope, Kind.BOOL, who)

    def _fallback(self, node: tree.Fallback, scope: Scope) -> Type:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        if isinstance(node.left, tree.Number | tree.Text | tree.Bool | tree.Items | tree.Entries):
            self.warn(node.right, "this is never used: the left side is never null")
        return self.branches(left, right, node)

    def _choice(self, node: tree.Choice, scope: Scope) -> Type:
        self._test(node.test, scope, "the test before '?'")
        yes, no = self.value(node.yes, scope), self.value(node.no, scope)
        if tests_null(node.test):
            for branch in (node.yes, node.no):
                constant = self.facts.phase(branch) is Phase.ALWAYS and not isinstance(branch, tree.Null)
                if constant and not self.facts.hangs_on(branch):
                    self.warn(
                        branch,
                        "this constant is charged where nothing was measured; it will be marked 'default'",
                        "'??' says the same shorter; null leaves it to the route's 'unmeasured' policy",
                    )
        return self.branches(yes, no, node)

    def _binary(self, node: tree.Binary, scope: Scope) -> Type:
        sign, who = node.sign, f"'{node.sign}'"
        if sign in ("||", "&&"):
            self._test(node.left, scope, who)
            self._test(node.right, scope, who)
            return BOOL
        if sign in ("==", "!="):
            return self._equality(node, scope)
        if sign == "+":
            return self._plus(node, scope)
        if sign in ARITHMETIC or sign == "..":
            self.wants(node.left, scope, Kind.NUMBER, who)
            self.wants(node.right, scope, Kind.NUMBER, who)
            self._literal_trouble(node)
            return Type(Kind.LIST, NUMBER) if sign == ".." else NUMBER
        if sign in ORDER:
            left, right = self.plain(node.left, scope), self.plain(node.right, scope)
            for side, found in ((node.left, left), (node.right, right)):
                if found.kind not in (Kind.NUMBER, Kind.TEXT, Kind.ANY, Kind.NULL):
                    self.wrong(side, f"{who} orders numbers or strings, this is {found.kind}")
            if {left.kind, right.kind} == {Kind.NUMBER, Kind.TEXT}:
                self.wrong(node, "a number and a string have no order", "toFloat(...) reads a number out of a string")
            return BOOL
        return self._word(node, scope)

    def _plus(self, node: tree.Binary, scope: Scope) -> Type:
        found = [self.plain(side, scope) for side in (node.left, node.right)]
        for side, each in zip((node.left, node.right), found, strict=True):
            if each.kind not in (Kind.NUMBER, Kind.TEXT, Kind.ANY, Kind.NULL):
                hint = "name a field: usage().total" if each.kind is Kind.USAGE else None
                return self.wrong(side, f"'+' adds numbers or joins strings, this is {each.kind}", hint)
        sides = {each.kind for each in found}
        if sides == {Kind.NUMBER, Kind.TEXT}:
            return self.wrong(node, "'+' cannot join a number and a string", "toString(...) or toFloat(...)")
        if Kind.NUMBER in sides:
            return NUMBER
        return TEXT if Kind.TEXT in sides else ANY

    def _literal_trouble(self, node: tree.Binary) -> None:
        if node.sign in ("/", "%") and isinstance(node.right, tree.Number) and not node.right.value:
            self.wrong(node.right, "division by zero")

    def _equality(self, node: tree.Binary, scope: Scope) -> Type:
        left, right = self.value(node.left, scope), self.value(node.right, scope)
        kinds = {left.kind, right.kind}
        if Kind.EVENT in kinds and Kind.NULL not in kinds:
            return self.wrong(node, "events cannot be compared", "compare their .json or .data")
        vague = {Kind.ANY, Kind.NULL, Kind.BODY}
        if len(kinds) == 2 and not kinds & vague and kinds != {Kind.MAP, Kind.USAGE}:
            self.warn(node, f"{left.kind} never equals {right.kind}")
        return BOOL

    def _word(self, node: tree.Binary, scope: Scope) -> Type:
        word = node.sign.removeprefix("not ")
        if word == "in":
            self.plain(node.left, scope)
            right = self.plain(node.right, scope)
            if right.kind not in (Kind.LIST, Kind.MAP, Kind.USAGE, Kind.ANY, Kind.NULL):
                hint = "for a part of a string write: text contains 'x'" if right.kind is Kind.TEXT else None
                self.wrong(node.right, f"'in' wants a list or a map, this is {right.kind}", hint)
            return BOOL
        left = self.check(node.left, scope)
        if left.kind is Kind.BODY and word == "contains" and isinstance(node.right, tree.Text):
            if self.rules.by_event:
                return self.no_bytes(node)
            if not node.right.value:
                self.wrong(node.right, "there is nothing to look for")
            self.check(node.right, scope)
            self.facts.phases[id(node)] = Phase.FINISH
            return BOOL
        self.wants(node.left, scope, Kind.TEXT, f"'{word}'")
        self.wants(node.right, scope, Kind.TEXT, f"'{word}'")
        if word == "matches":
            self._pattern(node.right)
        return BOOL

    def _pattern(self, node: tree.Node) -> None:
        if not isinstance(node, tree.Text):
            self.wrong(node, "'matches' takes a constant pattern", "write it in backticks: x matches `^gpt-4`")
            return
        try:
            compiled_pattern(node.value)
        except (re2.error, UnicodeEncodeError) as problem:
            reason = problem.args[0] if problem.args else "it cannot be read"
            shown = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
            self.wrong(node, f"this is no RE2 pattern: {shown}", "look-around and back references do not exist in RE2")


def tests_null(node: tree.Node) -> bool:
    """Whether a test asks for null, somewhere outside of other functions."""
    match node:
        case tree.Binary(sign="==" | "!="):
            return isinstance(node.left, tree.Null) or isinstance(node.right, tree.Null)
        case tree.Binary(sign="&&" | "||"):
            return tests_null(node.left) or tests_null(node.right)
        case tree.Unary(sign="not"):
            return tests_null(node.of)
        case tree.Call(name="has"):
            return True
    return False
