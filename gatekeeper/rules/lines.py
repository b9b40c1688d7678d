"""From a plan, the declared limits and an ask to the lines that one call holds. Pure: instant and customer are handed
in."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.rules.declared import DeclaredLimit, DeclaredRate, applying, applying_rates
from gatekeeper.rules.limits import (
    DOLLARS,
    ONE_REQUEST,
    REQUESTS,
    UNITS,
    BucketKey,
    CounterKey,
    RateLimit,
    RateLine,
    Scope,
    StockLimit,
    StockLine,
)
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import window_bounds


@dataclass(frozen=True, slots=True)
class Subject:
    """Who and what a call belongs to: the subjects of every scope."""

    customer_id: str
    plan_id: str
    route: str
    anchor_ms: int
    key_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    model: str | None = None

    def of(self, scope: Scope) -> str | None:
        """The subject in that scope; users and agents live under their customer. None: the scope does not apply."""
        mine = {
            Scope.GLOBAL: "*",
            Scope.PLAN: self.plan_id,
            Scope.CUSTOMER: self.customer_id,
            Scope.USER: self.user_id,
            Scope.AGENT: self.agent_id,
            Scope.KEY: self.key_id,
            Scope.ROUTE: self.route,
            Scope.MODEL: self.model,
        }[scope]
        if not mine:
            return None
        return f"{self.customer_id}/{mine}" if scope in (Scope.USER, Scope.AGENT) else mine


class Take(NamedTuple):
    """What a call may take of one dimension, in its stored unit: ``fixed``, and so much for each token of output."""

    fixed: int
    per_output: int


class Charge(NamedTuple):
    """What a rate is charged at admission, and the part of it that is certain."""

    amount: int
    least: int


# A call is one request; of a named meter nothing is known beforehand, so it holds one unit: used-up caps refuse it, and
# what runs beside each other may pass a cap by what it really takes.
_ONE = Take(ONE_REQUEST, 0)
_ONE_CHARGE = Charge(ONE_REQUEST, ONE_REQUEST)
_NOTHING = Take(0, 0)
_NO_CHARGE = Charge(0, 0)


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one call may take before anything is known of the answer.

    ``units`` and ``dollars`` are bounds for stock limits, ``rate_units`` and ``rate_dollars`` usual figures for rates.
    """

    output_tokens: int = 0
    output_tokens_min: int = 0
    units: Take = _NOTHING
    dollars: Take = _NOTHING
    rate_units: Charge = _NO_CHARGE
    rate_dollars: Charge = _NO_CHARGE

    def take(self, dimension: str) -> Take:
        """The bound in one dimension."""
        if dimension == UNITS:
            return self.units
        return self.dollars if dimension == DOLLARS else _ONE

    def charge(self, dimension: str) -> Charge:
        """The charge of a rate in one dimension."""
        if dimension == UNITS:
            return self.rate_units
        return self.rate_dollars if dimension == DOLLARS else _ONE_CHARGE


def token_bounds(
    input_bound: int, input_usual: int, input_least: int, output: int, output_min: int, rate_output: int
) -> Bounds:
    """The bounds of a call whose meter counts tokens, without dollars."""
    return Bounds(
        output_tokens=output,
        output_tokens_min=output_min,
        units=Take(input_bound * MICRO_PER_UNIT, MICRO_PER_UNIT),
        rate_units=Charge((input_usual + rate_output) * MICRO_PER_UNIT, input_least * MICRO_PER_UNIT),
    )


def counts_dollars(
    plan: Plan, limits: Iterable[DeclaredLimit], rates: Iterable[DeclaredRate], subject: Subject
) -> bool:
    """Whether any limit or rate that the call meets is in dollars: then its price must be known."""
    stock = any(each.limit.dimension == DOLLARS for each in applying(limits, plan, subject.of))
    return stock or any(each.limit.dimension == DOLLARS for each in applying_rates(rates, plan, subject.of))


def stock_lines(
    plan: Plan, subject: Subject, bounds: Bounds, now_ms: int, limits: Iterable[DeclaredLimit] = ()
) -> tuple[StockLine, ...]:
    """One line for each stock limit that applies, unlimited ones too: what they count is shown."""
    found = applying(limits, plan, subject.of)
    lines = (_stock_line(each.limit, subject, bounds, now_ms) for each in found)
    return tuple(line for line in lines if line is not None)


def _stock_line(limit: StockLimit, subject: Subject, bounds: Bounds, now_ms: int) -> StockLine | None:
    mine = subject.of(limit.scope)
    if mine is None:
        return None
    start_ms, end_ms = window_bounds(limit.window, now_ms, zone=limit.zone, anchor_ms=subject.anchor_ms)
    take = bounds.take(limit.dimension)
    return StockLine(
        key=CounterKey(limit.scope, mine, limit.dimension, limit.window, start_ms),
        limit=limit.name,
        cap=limit.cap,
        mode=limit.mode,
        fixed=take.fixed,
        per_output=take.per_output,
        ends_ms=end_ms,
    )


def rate_lines(
    plan: Plan, subject: Subject, bounds: Bounds, rates: Iterable[DeclaredRate] = ()
) -> tuple[RateLine, ...]:
    """One line for each rate that applies."""
    lines = (_rate_line(each.limit, subject, bounds) for each in applying_rates(rates, plan, subject.of))
    return tuple(line for line in lines if line is not None)


def _rate_line(rate: RateLimit, subject: Subject, bounds: Bounds) -> RateLine | None:
    mine = subject.of(rate.scope)
    if mine is None:
        return None
    charge = bounds.charge(rate.dimension)
    return RateLine(
        key=BucketKey(rate.scope, mine, rate.dimension, rate.per_ms),
        limit=rate.name,
        cap=rate.cap,
        # At most the cap: the first call on a small limit is admitted, and the next one waits for it.
        amount=min(rate.cap, charge.amount) if rate.dimension != REQUESTS else charge.amount,
        least=charge.least,
    )
