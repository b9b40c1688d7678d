"""A limit with whom it is for: everybody of its scope one by one, or one subject by name; and which ones a call meets.

The rule: a named limit beats the default for everybody that counts the same thing, and no other. What was bought (a
plan's quota) is never beaten.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from gatekeeper.rules.limits import RateLimit, Scope, StockLimit
from gatekeeper.rules.plans import Plan

# Every user, agent, key, ... has a counter of its own.
EACH = "each"
# Whose subjects live under their customer, as ``customer/subject``.
UNDER_CUSTOMER = frozenset({Scope.USER, Scope.AGENT})

SubjectOf: TypeAlias = Callable[[Scope], str | None]
Row: TypeAlias = tuple[str, str, str | int]


@dataclass(frozen=True, slots=True)
class DeclaredLimit:
    """A stock limit as declared. ``subject`` is EACH or a name; users and agents may be named ``customer/name`` (that
    one) or ``name`` (of whichever customer)."""

    limit: StockLimit
    subject: str = EACH

    @property
    def row(self) -> Row:
        """What is counted: scope, dimension and window."""
        return self.limit.scope, self.limit.dimension, self.limit.window


@dataclass(frozen=True, slots=True)
class DeclaredRate:
    """A rate limit as declared. ``exempt`` is the word "unlimited": it is no limit and only takes the default away from
    its subject."""

    limit: RateLimit
    subject: str = EACH
    exempt: bool = False

    @property
    def row(self) -> Row:
        """What is counted: scope, dimension and milliseconds."""
        return self.limit.scope, self.limit.dimension, self.limit.per_ms


D = TypeVar("D", DeclaredLimit, DeclaredRate)


def applying(limits: Iterable[DeclaredLimit], plan: Plan, subject_of: SubjectOf) -> tuple[DeclaredLimit, ...]:
    """The stock limits that one call meets: the plan's quota first, then the plan's limits, then ``limits``.

    ``subject_of`` gives the call's subject in a scope, None where it has none: then no limit of that scope applies.
    """
    found = _most_exact((*(DeclaredLimit(limit) for limit in plan.limits), *limits), subject_of)
    quota = plan.quota
    return found if quota is None or subject_of(quota.scope) is None else (DeclaredLimit(quota), *found)


def applying_rates(rates: Iterable[DeclaredRate], plan: Plan, subject_of: SubjectOf) -> tuple[DeclaredRate, ...]:
    """The rate limits that one call meets: the plan's first, then ``rates``."""
    found = _most_exact((*(DeclaredRate(rate) for rate in plan.rates), *rates), subject_of)
    return tuple(each for each in found if not each.exempt)


def rank(declared: DeclaredLimit | DeclaredRate, mine: str | None) -> int:
    """How exactly a limit means the subject ``mine``: 0 not at all, 1 as one of all, 2 by name, 3 by customer and
    name."""
    if mine is None:
        return 0
    if declared.subject == EACH:
        return 1
    under = declared.limit.scope in UNDER_CUSTOMER
    if declared.subject == mine:
        return 3 if under else 2
    # A bare name never equals a whole ``customer/name``: neither part may hold a slash.
    return 2 if under and declared.subject == mine.partition("/")[2] else 0


def _most_exact(declared: Iterable[D], subject_of: SubjectOf) -> tuple[D, ...]:
    ranked = [(rank(each, subject_of(each.limit.scope)), each) for each in declared]
    best: dict[Row, int] = {}
    for found, each in ranked:
        best[each.row] = max(found, best.get(each.row, 1))
    return tuple(each for found, each in ranked if found == best[each.row])
