"""Whether somebody spends much faster than usual: the last hour against the hours before it. Pure figures.

The rule: a rate is a spike when it reaches both ``minimum`` (below that nobody cares, and a first call of a quiet week
would be infinitely more than usual) and ``factor`` times the mean of the baseline. The baseline is the trailing hours
in which the subject has existed, at least one: whoever came yesterday is compared with yesterday.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from gatekeeper.rules.windows import HOUR_MS

# A week has its nights and its weekend in it, whatever the hour is.
BASELINE_HOURS = 168
BASELINE_HOURS_MAX = 744
FACTOR = Decimal(3)
# One dollar in an hour; for units, what a dollar buys of a small model.
MINIMUM_NANO = 1_000_000_000
MINIMUM_MICRO = 100_000_000_000


@dataclass(frozen=True, slots=True)
class Pace:
    """What a subject took: in the hour before the end, and before that since ``first_ms`` (its first call in the
    baseline). Amounts in one stored unit."""

    subject: str
    recent: int
    before: int
    first_ms: int


@dataclass(frozen=True, slots=True)
class Spike:
    """A pace that is one. ``usual`` is the mean of an hour of the baseline, rounded down; ``hours`` how long that is;
    ``times`` how often the one fits in the other, None where there was nothing before."""

    subject: str
    recent: int
    usual: int
    hours: int
    times: Decimal | None


def spikes(
    paces: Iterable[Pace],
    now_ms: int,
    *,
    minimum: int,
    factor: Decimal = FACTOR,
    hours: int = BASELINE_HOURS,
) -> list[Spike]:
    """Those that are spikes, the largest first."""
    found = [one for pace in paces if (one := spike(pace, now_ms, minimum=minimum, factor=factor, hours=hours))]
    return sorted(found, key=lambda each: (-each.recent, each.subject))


def spike(
    pace: Pace, now_ms: int, *, minimum: int, factor: Decimal = FACTOR, hours: int = BASELINE_HOURS
) -> Spike | None:
    """The verdict on one pace; None when it is no spike. Raises ValueError for figures that cannot be asked for."""
    if minimum < 0 or not factor.is_finite() or factor < 1 or hours < 1:
        raise ValueError("a spike needs a minimum of at least 0, a factor of at least 1 and at least 1 hour")
    # The hours in which it has existed, begun ones too: a short life must not look like a quiet one.
    lived = max(1, min(hours, -(-(now_ms - HOUR_MS - pace.first_ms) // HOUR_MS)))
    recent, before = max(0, pace.recent), max(0, pace.before)
    if recent < max(1, minimum) or Fraction(recent) * lived < Fraction(factor) * before:
        return None
    times = (Decimal(recent) * lived / Decimal(before)).quantize(Decimal("0.1")) if before else None
    return Spike(pace.subject, recent, before // lived, lived, times)
