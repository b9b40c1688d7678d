"""A tree back to text: the canonical form, whose hash names a meter.

The rule: parsing what is printed gives the same tree again.
"""

import json
import re

from gatekeeper.meters import tree
from gatekeeper.money import plain

# How tightly each form binds; a child that binds less tightly than its place asks for gets parentheses.
LET, CHOICE, OR, AND, NOT, COMPARE, RANGE, SUM, PRODUCT, UNARY, POWER, FALLBACK, POSTFIX = range(13)
_LEVEL = {"||": OR, "&&": AND, "..": RANGE, "+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "%": PRODUCT, "**": POWER}
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def printed(node: tree.Node) -> str:
    """The canonical text."""
    return _at(node, LET)


def _at(node: tree.Node, level: int) -> str:
    text, own = _form(node)
    return text if own >= level else f"({text})"


def _operand(node: tree.Node, level: int) -> str:
    """An operand of an operator: ``??`` is never left bare beside another operator."""
    if isinstance(node, tree.Fallback):
        return f"({_form(node)[0]})"
    return _at(node, level)


def _form(node: tree.Node) -> tuple[str, int]:
    match node:
        case tree.Let():
            return f"let {node.name} = {_at(node.value, CHOICE)}; {_at(node.body, LET)}", LET
        case tree.Lambda():
            return f"{node.parameter} => {_at(node.body, LET)}", LET
        case tree.Choice():
            return f"{_at(node.test, OR)} ? {_at(node.yes, CHOICE)} : {_at(node.no, CHOICE)}", CHOICE
        case tree.Fallback():
            return f"{_at(node.left, POSTFIX)} ?? {_at(node.right, FALLBACK)}", FALLBACK
        case tree.Binary():
            return _binary(node)
        case tree.Unary():
            if node.sign == "not":
                return f"not {_operand(node.of, NOT)}", NOT
            return f"-{_operand(node.of, UNARY)}", UNARY
    return _tight(node), POSTFIX


def _binary(node: tree.Binary) -> tuple[str, int]:
    level = _LEVEL.get(node.sign, COMPARE)
    left, right = level, level + 1
    if level in (COMPARE, RANGE):
        left = level + 1
    elif level == POWER:
        left, right = POWER + 1, POWER
    return f"{_operand(node.left, left)} {node.sign} {_operand(node.right, right)}", level


def _tight(node: tree.Node) -> str:
    match node:
        case tree.Null():
            return "null"
        case tree.Bool():
            return "true" if node.value else "false"
        case tree.Number():
            return plain(node.value)
        case tree.Text():
            return json.dumps(node.value)
        case tree.Name():
            return node.name
        case tree.Item():
            return "#"
        case tree.Member():
            return f".{node.name}" if isinstance(node.of, tree.Item) else f"{_at(node.of, POSTFIX)}.{node.name}"
        case tree.Index():
            return f"{_at(node.of, POSTFIX)}[{_at(node.at, LET)}]"
        case tree.Slice():
            ends = ["" if end is None else _at(end, LET) for end in (node.start, node.stop)]
            return f"{_at(node.of, POSTFIX)}[{':'.join(ends)}]"
        case tree.Call():
            return f"{node.name}({', '.join(_at(argument, LET) for argument in node.arguments)})"
        case tree.Items():
            return f"[{', '.join(_at(item, LET) for item in node.items)}]"
        case tree.Entries():
            return "{" + ", ".join(f"{_key(key)}: {_at(value, LET)}" for key, value in node.entries) + "}"
    raise AssertionError(node)


def _key(node: tree.Node) -> str:
    if isinstance(node, tree.Text):
        return node.value if _PLAIN_NAME.match(node.value) else json.dumps(node.value)
    return f"({_at(node, LET)})"
