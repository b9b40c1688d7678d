"""What one call would be charged on a plan, with the sentence that says why: for whoever tries before anybody pays.

The rule: the figures are those of ``Plan``; nothing here knows of a customer or a clock.
"""

from typing import NamedTuple

from gatekeeper.money import units_text
from gatekeeper.rules.plans import Plan


class Quote(NamedTuple):
    """``charge_nano`` is None where the plan refuses the call, and where nothing was read."""

    charge_nano: int | None
    refused: bool
    why: str


def quote(plan: Plan, used_micro: int, units_micro: int | None) -> Quote:
    """The charge of a call of so many units for whoever has used ``used_micro`` in this period. ``units_micro`` None:
    nothing was read."""
    if units_micro is None:
        return Quote(None, False, "nothing was read: the route's 'unmeasured' says what is charged")
    cap = None if plan.quota is None else plan.quota.cap
    if cap is None:
        return Quote(0, False, "everything is included")
    included = f"the {_grouped(cap)} that are included"
    after_micro = used_micro + units_micro
    if not plan.admits(after_micro):
        return Quote(None, True, f"refused: beyond {included}")
    if after_micro <= cap:
        return Quote(0, False, f"within {included}")
    beyond = _grouped(after_micro - max(used_micro, cap))
    return Quote(plan.overage_nano(used_micro, after_micro), False, f"{beyond} beyond {included}")


def _grouped(micro: int) -> str:
    whole, point, rest = units_text(micro).partition(".")
    return f"{int(whole):,}{point}{rest}"
