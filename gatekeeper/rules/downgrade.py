"""A soft limit: from some per cent of its cap on, a cheaper model serves. At the cap it refuses like any other.

The rule: advice, never a guard of the cap: that is the hold's. What counts is what was used and what the call itself
may take of it as it was asked; what others hold comes and goes, and would make calls change their model to and fro.
"""

from collections.abc import Sequence

# Back to the model that was asked for only so far below the line.
HYSTERESIS_PERCENT = 5

Chains = tuple[tuple[str, ...], ...]


def cheaper(chains: Sequence[Sequence[str]], model: str | None) -> tuple[str, ...]:
    """What may serve instead of a model, the next one first; empty where no chain holds it. The first chain counts."""
    for chain in chains:
        if model in chain[:-1]:
            return tuple(chain[chain.index(model) + 1 :])
    return ()


def is_soft(used: int, own: int, cap: int, soft_at: int, *, was_soft: bool) -> bool:
    """Whether a limit asks for a cheaper model. ``own`` is what the call may take as it was asked; ``was_soft`` is the
    last answer for this counter: it goes back only some points below the line."""
    line = max(1, soft_at - HYSTERESIS_PERCENT) if was_soft else soft_at
    return (used + own) * 100 >= cap * line
