"""Which limits a call meets, found once for all calls whose subjects no limit tells apart. The rule: nothing else of a
call than its subjects matters (see ``declared``), so what was found for one is found again for every other like it.
"""

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from gatekeeper.rules.declared import (
    EACH,
    DeclaredLimit,
    DeclaredRate,
    SubjectOf,
    applying,
    applying_rates,
    forms,
)
from gatekeeper.rules.limits import SCOPES, RateLimit, Scoped, StockLimit
from gatekeeper.rules.plans import Plan

# A gateway has one list until somebody changes a limit, and calls in flight may still have the one before.
_LISTS_MAX = 8
_PLANS_MAX = 1_000
# Of callers whom limits name; everybody else is alike. Some 5 MB.
_LIKE_MAX = 10_000

Find: TypeAlias = Callable[[Any, Plan, SubjectOf], Iterable[Any]]
Likeness: TypeAlias = tuple[str | None, ...]


class _Met:
    """What calls on one plan meet of one list of limits."""

    def __init__(self, limits: tuple[Any, ...], names: dict[Scoped, frozenset[str]], plan: Plan) -> None:
        # Kept, so that no other plan can have its identity.
        self.plan = plan
        told = dict(names)
        own: tuple[StockLimit | RateLimit, ...] = (*plan.limits, *plan.rates)
        for limit in own:
            named = plan.named(limit)
            told[limit.scope] = told.get(limit.scope, frozenset()).union(() if named is None else (named,))
        if plan.quota is not None:
            told.setdefault(plan.quota.scope, frozenset())
        self._limits = limits
        self._told_apart = tuple((scope, told[scope]) for scope in SCOPES if scope in told)
        self._found: dict[Likeness, tuple[Any, ...]] = {}

    def by(self, subject_of: SubjectOf, find: Find) -> tuple[Any, ...]:
        """The limits that such a call meets."""
        like = tuple([_likeness(subject_of(scope), scope, names) for scope, names in self._told_apart])
        found = self._found.get(like)
        if found is None:
            if len(self._found) >= _LIKE_MAX:
                self._found.clear()
            found = self._found[like] = tuple([each.limit for each in find(self._limits, self.plan, subject_of)])
        return found


def _likeness(mine: str | None, scope: Scoped, names: frozenset[str]) -> str | None:
    """Whether there is a subject in a scope, and which one where a limit names it: that is all that limits look at."""
    if mine is None or mine in names:
        return mine
    return mine if names and not names.isdisjoint(forms(scope, mine)) else ""


class _List:
    """One list of limits. Found by identity: ten thousand limits are not compared at each call."""

    def __init__(self, limits: tuple[Any, ...]) -> None:
        self._limits = limits
        names: dict[Scoped, set[str]] = {}
        for each in limits:
            named = names.setdefault(each.limit.scope, set())
            if each.subject != EACH:
                named.add(each.subject)
        self._names = {scope: frozenset(named) for scope, named in names.items()}
        self._plans: dict[int, _Met] = {}

    def on(self, plan: Plan) -> _Met:
        """What calls on that plan meet."""
        met_on = self._plans.get(id(plan))
        if met_on is None:
            if len(self._plans) >= _PLANS_MAX:
                self._plans.clear()
            met_on = self._plans[id(plan)] = _Met(self._limits, self._names, plan)
        return met_on


_STOCK: dict[int, _List] = {}
_RATES: dict[int, _List] = {}


def met(limits: Iterable[DeclaredLimit], plan: Plan, subject_of: SubjectOf) -> tuple[StockLimit, ...]:
    """The stock limits that ``declared.applying`` finds."""
    return _met(_STOCK, limits, plan, subject_of, applying)


def met_rates(rates: Iterable[DeclaredRate], plan: Plan, subject_of: SubjectOf) -> tuple[RateLimit, ...]:
    """The rate limits that ``declared.applying_rates`` finds."""
    return _met(_RATES, rates, plan, subject_of, applying_rates)


def _met(
    lists: dict[int, _List], limits: Iterable[Any], plan: Plan, subject_of: SubjectOf, find: Find
) -> tuple[Any, ...]:
    if not isinstance(limits, tuple):
        # It may be another one next time, or can only be read once.
        return tuple([each.limit for each in find(limits, plan, subject_of)])
    here = lists.get(id(limits))
    if here is None:
        if len(lists) >= _LISTS_MAX:
            lists.clear()
        here = lists[id(limits)] = _List(limits)
    return here.on(plan).by(subject_of, find)
