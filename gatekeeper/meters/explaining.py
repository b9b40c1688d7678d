"""A meter in words: its tree with phases and types, its slots, and what each slot saw of a stream.

The rule: plain text in columns, the same for the same meter, so that it can be read, compared and tested.
"""

import json
from collections.abc import Sequence
from typing import NamedTuple

from gatekeeper.meters import tree
from gatekeeper.meters.anchors import Anchors
from gatekeeper.meters.kinds import Phase
from gatekeeper.meters.names import NAMES, RESPONSE_NAMES, Context
from gatekeeper.meters.printing import printed
from gatekeeper.meters.scope import Facts
from gatekeeper.meters.slots import SlotPlan
from gatekeeper.meters.watching import Seen

_PHASES = ((Phase.REQUEST, "request"), (Phase.EVENT, "event"), (Phase.FINISH, "finish"))
# A line of a terminal; longer values are cut in the middle of nowhere, the whole stands in the evidence.
VALUE_LETTERS = 88
_TREE_LETTERS = 60


class SlotOutline(NamedTuple):
    """One slot: its canonical text, what it is fed with, and what an event's bytes must hold to be parsed for it
    (nothing: every event is)."""

    text: str
    fed_with: str
    looks_for: tuple[str, ...]


class Outline(NamedTuple):
    """A meter for machines: its canonical text (whose hash names it), the type of its value, when it is known
    (``always``, or some of ``request``, ``event``, ``finish``), and what it keeps of a stream."""

    canonical: str
    hash: str
    type: str
    phases: tuple[str, ...]
    slots: tuple[SlotOutline, ...]


def outlined(root: tree.Node, facts: Facts, plans: tuple[SlotPlan, ...], name: str) -> Outline:
    """What ``explained`` says of the whole and of its slots, as values."""
    phases = tuple(word for bit, word in _PHASES if facts.phase(root) & bit)
    slots = tuple(
        SlotOutline(plan.shown, plan.feed.value, tuple(look[0].decode("utf-8", "replace") for look in plan.looks))
        for plan in plans
    )
    return Outline(printed(root), name, str(facts.type(root).kind), phases or ("always",), slots)


def explained(
    root: tree.Node, facts: Facts, plans: tuple[SlotPlan, ...], context: Context, name: str, seen: Sequence[Seen] = ()
) -> str:
    """Some lines of text, without a final line end. ``seen``: what each slot saw, in the order of ``plans``."""
    lines = [f"{context}: {printed(root)}", f"hash: {name}", "", *_Tree(facts, plans).lines(root)]
    for number, plan in enumerate(plans):
        lines += ["", f"slot {number + 1}: {plan.shown}", f"  fed with {plan.feed.value}"]
        if plan.looks:
            keys = " or ".join(look[0].decode() for look in plan.looks)
            lines.append(f"  an event is parsed only where its bytes hold {keys}")
        if seen:
            lines += ["  " + line for line in sightings(seen[number])]
    notes = _notes(root)
    return "\n".join([*lines, *([""] if notes else []), *notes])


def sightings(seen: Seen) -> list[str]:
    """What a slot saw: a line for each event that changed it."""
    lines = [(f"event {event}" if event is not None else "at the end", shown(value)) for event, value in seen.first]
    if seen.omitted:
        lines.append(("...", f"{seen.omitted} more"))
    lines += [(f"event {event}" if event is not None else "at the end", shown(value)) for event, value in seen.last]
    if not lines:
        return ["saw nothing"]
    width = max(len(place) for place, _ in lines)
    return [f"{place.ljust(width)}  {value}" for place, value in lines]


def shown(value: object) -> str:
    """A value as JSON on one line, cut where it is long."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_LETTERS else text[: VALUE_LETTERS - 4] + " ..."


def phase_text(phase: Phase) -> str:
    """``always``, ``request``, ``finish``, or several of them."""
    return "+".join(word for bit, word in _PHASES if phase & bit) or "always"


def _notes(root: tree.Node) -> list[str]:
    notes = []
    for given in sorted({node.name for node in root.walk() if isinstance(node, tree.Name) and node.name in NAMES}):
        if NAMES[given].phase and given not in RESPONSE_NAMES:
            notes.append(f"reads {given}: {NAMES[given].sentence}")
    if any(isinstance(node, tree.Binary) and node.sign == "/" for node in root.walk()):
        notes.append("divides: a quotient is rounded half-even at 50 digits")
    if any(isinstance(node, tree.Fallback) for node in root.walk()):
        notes.append("falls back: a value that was not read is marked 'default'")
    return notes


class _Tree:
    """The table of the nodes: one line each; a chain of members is one line."""

    def __init__(self, facts: Facts, plans: tuple[SlotPlan, ...]) -> None:
        self._facts = facts
        self._anchors = Anchors(facts)
        self._slots = {plan.key: str(number + 1) for number, plan in enumerate(plans)}
        self._rows: list[tuple[str, str, str, str]] = []

    def lines(self, root: tree.Node) -> list[str]:
        self._add(root, 0, inside=False)
        rows = [("tree", "when", "type", "slot"), *self._rows]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        return [
            "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
            for row in rows
        ]

    def _add(self, node: tree.Node, depth: int, *, inside: bool) -> None:
        label, below = _label(node)
        slot = "" if inside else self._slots.get(printed(self._anchors.expanded(node)), "")
        label = "  " * depth + label
        if len(label) > _TREE_LETTERS:
            label = label[: _TREE_LETTERS - 4] + " ..."
        facts = self._facts
        known = id(node) in facts.types
        self._rows.append(
            (label, phase_text(facts.phase(node)) if known else "", str(facts.type(node).kind) if known else "", slot)
        )
        for part in below:
            self._add(part, depth + 1, inside=inside or bool(slot))


def _label(node: tree.Node) -> tuple[str, tuple[tree.Node, ...]]:
    match node:
        case tree.Member() | tree.Index() | tree.Slice():
            return _chain(node)
        case tree.Call():
            return f"{node.name}()", node.arguments
        case tree.Binary() | tree.Unary():
            return node.sign, node.children()
        case tree.Fallback():
            return "??", node.children()
        case tree.Choice():
            return "? :", node.children()
        case tree.Lambda():
            return f"{node.parameter} =>", node.children()
        case tree.Let():
            return f"let {node.name}", node.children()
        case tree.Items() if node.items:
            return "[ ]", node.items
        case tree.Entries() if node.entries:
            return "{ }", node.children()
    return printed(node), ()


def _chain(node: tree.Node) -> tuple[str, tuple[tree.Node, ...]]:
    """``.usage.total_tokens`` over what it is read of; what is a plain path from a name stands whole."""
    path, root = "", node
    while isinstance(root, tree.Member | tree.Index | tree.Slice):
        steps = root.children()[1:]
        constant = all(_is_constant(step) for step in steps)
        if not constant and root is not node:
            break
        whole, of = printed(root), printed(root.of)
        inner = root.of
        if isinstance(inner, tree.Item):
            return printed(root) + path, ()
        # An operator before a member stands in parentheses.
        path = whole.removeprefix(of if whole.startswith(of) else f"({of})") + path
        if not constant:
            return path, (inner, *steps)
        root = inner
    return (root.name + path, ()) if isinstance(root, tree.Name) else (path, (root,))


def _is_constant(node: tree.Node) -> bool:
    node = node.of if isinstance(node, tree.Unary) else node
    return isinstance(node, tree.Number | tree.Text)
