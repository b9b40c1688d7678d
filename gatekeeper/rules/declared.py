"""A limit with whom it is for: everybody of its scope one by one, or one subject by name; and which ones a call meets.

The rule: a named limit beats the default for everybody that counts the same thing, and no other. What was bought (a
plan's quota) is beaten by nothing that is declared; an operator may set another cap for one customer by name, which
stands in the place of a quota that blocks and beside one that is priced.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias, TypeVar

from gatekeeper.rules.limits import (
    SCOPES,
    Mode,
    RateLimit,
    Scope,
    Scoped,
    StockLimit,
    parts_of,
    subjects_of,
)
from gatekeeper.rules.plans import Plan

# Every user, agent, key, ... has a counter of its own.
EACH = "each"
# Whose subjects live under their customer, as ``customer/subject``.
UNDER_CUSTOMER = frozenset({Scope.USER, Scope.AGENT})

SubjectOf: TypeAlias = Callable[[Scoped], str | None]
Row: TypeAlias = tuple[str, str, str | int]


class Origin(StrEnum):
    """Where a limit was set. ADMIN: by an operator of the running gateway; see ``overlays``."""

    FILE = "file"
    PLAN = "plan"
    ENVIRONMENT = "environment"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class DeclaredLimit:
    """A stock limit as declared. ``subject`` is EACH or a name; users and agents may be named ``customer/name`` (that
    one) or ``name`` (of whichever customer). Of a pair it is EACH or both subjects with a comma between them, of which
    one may be EACH: ``acme/ann,gpt-4o``, ``each,gpt-4o``."""

    limit: StockLimit
    subject: str = EACH
    origin: Origin = field(default=Origin.FILE, compare=False)

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
    origin: Origin = field(default=Origin.FILE, compare=False)

    @property
    def row(self) -> Row:
        """What is counted: scope, dimension and milliseconds."""
        return self.limit.scope, self.limit.dimension, self.limit.per_ms


D = TypeVar("D", DeclaredLimit, DeclaredRate)
# From so many limits on it is quicker to look up those that a call can meet than to ask each.
_FEW = 32


class Many(tuple[D, ...]):
    """Many limits, found by the subjects that they name: a call meets a handful of ten thousand."""

    def __init__(self, found: Iterable[D]) -> None:
        self._places: dict[tuple[str, str], list[int]] = {}
        for place, each in enumerate(self):
            self._places.setdefault((each.limit.scope, each.subject), []).append(place)
        met = {scope for scope, _ in self._places}
        self._scopes = tuple(scope for scope in SCOPES if scope in met)

    def meeting(self, subject_of: SubjectOf) -> tuple[D, ...]:
        """Those that may mean a call with these subjects, in their order."""
        places: list[int] = []
        for scope in self._scopes:
            mine = subject_of(scope)
            if mine is not None:
                for name in forms(scope, mine):
                    places += self._places.get((scope, name), ())
        return tuple(self[place] for place in sorted(places))


def indexed(found: Iterable[D]) -> tuple[D, ...]:
    """The limits, as a ``Many`` where there are many."""
    limits = tuple(found)
    return Many(limits) if len(limits) > _FEW else limits


def _near(limits: Iterable[D], subject_of: SubjectOf) -> Iterable[D]:
    return limits.meeting(subject_of) if isinstance(limits, Many) else limits


def of_plan(plan: Plan) -> tuple[DeclaredLimit, ...]:
    """What a plan limits beside its quota."""
    return tuple(DeclaredLimit(limit, plan.named(limit) or EACH, Origin.PLAN) for limit in plan.limits)


def rates_of_plan(plan: Plan) -> tuple[DeclaredRate, ...]:
    """The rates of a plan."""
    return tuple(DeclaredRate(rate, plan.named(rate) or EACH, origin=Origin.PLAN) for rate in plan.rates)


def applying(limits: Iterable[DeclaredLimit], plan: Plan, subject_of: SubjectOf) -> tuple[DeclaredLimit, ...]:
    """The stock limits that one call meets: the plan's quota first, then the plan's limits, then ``limits``.

    ``subject_of`` gives the call's subject in a scope, None where it has none: then no limit of that scope applies.
    """
    found = _most_exact((*of_plan(plan), *_near(limits, subject_of)), subject_of)
    quota = plan.quota
    return found if quota is None or subject_of(quota.scope) is None else with_quota(quota, found)


def with_quota(quota: StockLimit, limits: tuple[DeclaredLimit, ...]) -> tuple[DeclaredLimit, ...]:
    """The quota first, then ``limits``. An operator's cap for one customer on the quota's own row takes its place; the
    name and the zone stay, so that what was used stays used. A quota that is priced stays as it was sold, because the
    price begins at its cap: there the operator's cap stands beside it, and ends what the price goes on with."""
    bought = DeclaredLimit(quota, origin=Origin.PLAN)
    cap = next((each for each in limits if _caps(each, bought)), None)
    if cap is None or quota.mode is Mode.OVERAGE:
        return (bought, *limits)
    own = replace(quota, cap=cap.limit.cap, mode=cap.limit.mode, release=cap.limit.release)
    return (DeclaredLimit(own, cap.subject, Origin.ADMIN), *(each for each in limits if each is not cap))


def _caps(each: DeclaredLimit, quota: DeclaredLimit) -> bool:
    return each.origin is Origin.ADMIN and each.subject != EACH and each.row == quota.row


def applying_rates(rates: Iterable[DeclaredRate], plan: Plan, subject_of: SubjectOf) -> tuple[DeclaredRate, ...]:
    """The rate limits that one call meets: the plan's first, then ``rates``."""
    found = _most_exact((*rates_of_plan(plan), *_near(rates, subject_of)), subject_of)
    return tuple(each for each in found if not each.exempt)


def rank(declared: DeclaredLimit | DeclaredRate, mine: str | None) -> int:
    """How exactly a limit means the subject ``mine``: 0 not at all, 1 as one of all, 2 by name, 3 by customer and
    name. Of a pair the sum of its parts: whichever names more of it."""
    if mine is None:
        return 0
    scope, subject = declared.limit.scope, declared.subject
    if subject == EACH:
        return 1
    if isinstance(scope, Scope):
        return _rank(scope, subject, mine)
    wanted = subjects_of(scope, subject)
    if len(wanted) != 2:
        return 0
    own = zip(parts_of(scope), wanted, subjects_of(scope, mine), strict=True)
    ranks = [1 if name == EACH else _rank(part, name, one) for part, name, one in own]
    return sum(ranks) if all(ranks) else 0


def _rank(scope: Scope, subject: str, mine: str) -> int:
    under = scope in UNDER_CUSTOMER
    if subject == mine:
        return 3 if under else 2
    # A bare name never equals a whole ``customer/name``: neither part may hold a slash.
    return 2 if under and subject == mine.partition("/")[2] else 0


def forms(scope: Scoped, mine: str) -> frozenset[str]:
    """Every subject of a limit that means ``mine``, EACH among them."""
    if isinstance(scope, Scope):
        return frozenset(_forms(scope, mine))
    first, second = (_forms(*each) for each in zip(parts_of(scope), subjects_of(scope, mine), strict=True))
    return frozenset({EACH, *(f"{one},{other}" for one in first for other in second)})


def _forms(scope: Scope, mine: str) -> tuple[str, ...]:
    return (EACH, mine, mine.partition("/")[2]) if scope in UNDER_CUSTOMER else (EACH, mine)


def is_one(scope: Scoped, subject: str) -> bool:
    """Whether a subject is a single one, which has one counter, and no default for several. Of GLOBAL there is one."""
    if scope is Scope.GLOBAL:
        return True
    found = subjects_of(scope, subject)
    return len(found) == len(parts_of(scope)) and all(
        each != EACH and (part not in UNDER_CUSTOMER or "/" in each)
        for part, each in zip(parts_of(scope), found, strict=True)
    )


def _most_exact(declared: Iterable[D], subject_of: SubjectOf) -> tuple[D, ...]:
    ranked = [(rank(each, subject_of(each.limit.scope)), each) for each in declared]
    best: dict[Row, int] = {}
    for found, each in ranked:
        best[each.row] = max(found, best.get(each.row, 1))
    return tuple(each for found, each in ranked if found == best[each.row])
