"""From a plan and an ask to the lines that one call holds. Pure: the instant and the customer are handed in."""

from dataclasses import dataclass

from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.rules.limits import (
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
        return f"{self.customer_id}/{mine}" if mine and scope in (Scope.USER, Scope.AGENT) else mine


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one call may take, in units (tokens, on a token meter), before anything is known of the answer.

    ``fixed_micro`` is held whatever the output is; each of ``output_tokens`` adds one unit. The rate is charged
    ``rate_micro`` at admission, of which ``rate_least_micro`` is certain.
    """

    fixed_micro: int
    output_tokens: int
    output_tokens_min: int
    rate_micro: int
    rate_least_micro: int


def stock_lines(plan: Plan, subject: Subject, bounds: Bounds, now_ms: int) -> tuple[StockLine, ...]:
    """One line for each stock limit of the plan that applies, unlimited ones too: what they count is shown."""
    limits = ((plan.quota,) if plan.quota is not None else ()) + plan.limits
    lines = (_stock_line(limit, subject, bounds, now_ms) for limit in limits)
    return tuple(line for line in lines if line is not None)


def _stock_line(limit: StockLimit, subject: Subject, bounds: Bounds, now_ms: int) -> StockLine | None:
    mine = subject.of(limit.scope)
    if mine is None:
        return None
    start_ms, end_ms = window_bounds(limit.window, now_ms, zone=limit.zone, anchor_ms=subject.anchor_ms)
    counts_units = limit.dimension == UNITS
    assert counts_units or limit.dimension == REQUESTS, limit.dimension
    return StockLine(
        key=CounterKey(limit.scope, mine, limit.dimension, limit.window, start_ms),
        limit=limit.name,
        cap=limit.cap,
        mode=limit.mode,
        fixed=bounds.fixed_micro if counts_units else ONE_REQUEST,
        per_output=MICRO_PER_UNIT if counts_units else 0,
        ends_ms=end_ms,
    )


def rate_lines(plan: Plan, subject: Subject, bounds: Bounds) -> tuple[RateLine, ...]:
    """One line for each rate of the plan that applies."""
    lines = (_rate_line(rate, subject, bounds) for rate in plan.rates)
    return tuple(line for line in lines if line is not None)


def _rate_line(rate: RateLimit, subject: Subject, bounds: Bounds) -> RateLine | None:
    mine = subject.of(rate.scope)
    if mine is None:
        return None
    counts_units = rate.dimension == UNITS
    # At most the cap: the first call on a small limit is admitted, and the next one waits for it.
    amount = min(rate.cap, bounds.rate_micro) if counts_units else ONE_REQUEST
    return RateLine(
        key=BucketKey(rate.scope, mine, rate.dimension, rate.per_ms),
        limit=rate.name,
        cap=rate.cap,
        amount=amount,
        least=bounds.rate_least_micro if counts_units else ONE_REQUEST,
    )
