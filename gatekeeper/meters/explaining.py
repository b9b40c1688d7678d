"""A meter in words: what it reads, what it holds, and what it looks for before it parses."""

from gatekeeper.meters import tree
from gatekeeper.meters.names import NAMES, RESPONSE_NAMES, Context
from gatekeeper.meters.printing import printed
from gatekeeper.meters.slots import SlotPlan


def explained(root: tree.Node, plans: tuple[SlotPlan, ...], context: Context, name: str) -> str:
    """Some lines of text, without a final line end."""
    lines = [f"{context}: {printed(root)}", f"hash: {name}"]
    for plan in plans:
        lines.append(f"slot: {plan.shown}")
        lines.append(f"  fed with {plan.feed.value}")
        if plan.looks:
            keys = " or ".join(look[0].decode() for look in plan.looks)
            lines.append(f"  an event is parsed only where its bytes hold {keys}")
    names = sorted({node.name for node in root.walk() if isinstance(node, tree.Name) and node.name in NAMES})
    for given in names:
        if NAMES[given].phase and given not in RESPONSE_NAMES:
            lines.append(f"reads {given}: {NAMES[given].sentence}")
    if any(isinstance(node, tree.Binary) and node.sign == "/" for node in root.walk()):
        lines.append("divides: a quotient is rounded half-even at 50 digits")
    if any(isinstance(node, tree.Fallback) for node in root.walk()):
        lines.append("falls back: a value that was not read is marked 'default'")
    return "\n".join(lines)
