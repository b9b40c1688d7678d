"""Budgets from the environment: GLOBAL_BUDGET_CENTS, DEFAULT_USER_BUDGET_CENTS, DEFAULT_AGENT_BUDGET_CENTS (a month)
and DEFAULT_DAILY_BUDGET (dollars a day, of each customer).

The rule: a variable gives the figure. Where gateway.toml declares that limit, its mode, zone and name stay; where it
does not, the variable makes a limit that blocks. 0 is none, "unlimited" is the word.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import NamedTuple

from gatekeeper.config.amounts import DOLLARS_MAX, UNLIMITED
from gatekeeper.config.variables import Variables, in_environment
from gatekeeper.diagnostics import Mistake
from gatekeeper.money import dollars_to_nano
from gatekeeper.rules.declared import EACH, DeclaredLimit, Origin
from gatekeeper.rules.limits import DOLLARS, Scope, StockLimit, Window

_FIGURE = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


class _Budget(NamedTuple):
    variable: str
    name: str
    scope: Scope
    window: Window
    per_dollar: int


BUDGETS = (
    _Budget("GLOBAL_BUDGET_CENTS", "global-budget", Scope.GLOBAL, Window.MONTH, 100),
    _Budget("DEFAULT_USER_BUDGET_CENTS", "user-budget", Scope.USER, Window.MONTH, 100),
    _Budget("DEFAULT_AGENT_BUDGET_CENTS", "agent-budget", Scope.AGENT, Window.MONTH, 100),
    _Budget("DEFAULT_DAILY_BUDGET", "daily-budget", Scope.CUSTOMER, Window.DAY, 1),
)


def with_budgets(
    limits: Sequence[DeclaredLimit], variables: Variables, mistakes: list[Mistake]
) -> tuple[DeclaredLimit, ...]:
    """The limits as the environment changes them. A variable that is no amount goes to ``mistakes``."""
    found = list(limits)
    for budget in BUDGETS:
        beaten = variables.override(budget.variable)
        if beaten is None:
            continue
        value, source = beaten
        if value != UNLIMITED and not (_FIGURE.fullmatch(value) and Decimal(value) <= DOLLARS_MAX * budget.per_dollar):
            what = "cents" if budget.per_dollar == 100 else "dollars"
            message = f"the environment variable {budget.variable} is no amount of {what}"
            hint = f'plain digits, as in {"2500" if what == "cents" else "25.00"}; or "{UNLIMITED}"'
            mistakes.append(in_environment(source, message, hint))
            continue
        cap = None if value == UNLIMITED else dollars_to_nano(Decimal(value) / budget.per_dollar)
        _put(found, budget, cap)
    return tuple(found)


def _put(limits: list[DeclaredLimit], budget: _Budget, cap: int | None) -> None:
    row = (budget.scope, DOLLARS, budget.window)
    declared = [number for number, each in enumerate(limits) if each.row == row and each.subject == EACH]
    for number in declared:
        limit = replace(limits[number].limit, cap=cap)
        limits[number] = replace(limits[number], limit=limit, origin=Origin.ENVIRONMENT)
    if not declared:
        limit = StockLimit(_free_name(limits, budget.name), *row[:2], budget.window, cap)
        limits.append(DeclaredLimit(limit, origin=Origin.ENVIRONMENT))


def _free_name(limits: Sequence[DeclaredLimit], name: str) -> str:
    taken = {each.limit.name for each in limits}
    while name in taken:
        name = f"{name}-env"
    return name
