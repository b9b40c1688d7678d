"""From a plan and a subject to the lines that a call holds."""

from decimal import Decimal

from gatekeeper.rules.limits import ONE_REQUEST, REQUESTS, UNITS, Mode, RateLimit, Scope, StockLimit, Window
from gatekeeper.rules.lines import Subject, rate_lines, stock_lines, token_bounds
from gatekeeper.rules.plans import Plan

NOON = 1_750_000_000_000
BOUNDS = token_bounds(input_bound=5, input_usual=4, input_least=2, output=10, output_min=1, rate_output=3)
ACME = Subject("acme", "pro", "chat", anchor_ms=0, key_id="key_1", user_id="u1", agent_id=None, model="gpt-4o")


def plan(*limits: StockLimit, rates: tuple[RateLimit, ...] = (), quota: StockLimit | None = None) -> Plan:
    return Plan("pro", "Pro", Decimal(99), quota, limits=limits, rates=rates)


def limit(scope: Scope, dimension: str = UNITS, cap: int | None = 100) -> StockLimit:
    return StockLimit(f"{scope}", scope, dimension, Window.MONTH, cap, Mode.BLOCK)


def test_the_quota_comes_first_and_holds_input_and_a_unit_for_each_output_token():
    first, second = stock_lines(plan(limit(Scope.KEY), quota=limit(Scope.CUSTOMER)), ACME, BOUNDS, NOON)
    assert (first.key.scope, first.key.subject, first.amount(10)) == (Scope.CUSTOMER, "acme", 15_000_000)
    assert (second.key.scope, second.key.subject) == (Scope.KEY, "key_1")


def test_users_and_agents_live_under_their_customer_and_a_scope_without_subject_does_not_apply():
    lines = stock_lines(plan(limit(Scope.USER), limit(Scope.AGENT), limit(Scope.GLOBAL)), ACME, BOUNDS, NOON)
    assert [(line.key.scope, line.key.subject) for line in lines] == [(Scope.USER, "acme/u1"), (Scope.GLOBAL, "*")]


def test_a_limit_on_requests_holds_one_whatever_the_output():
    (line,) = stock_lines(plan(limit(Scope.CUSTOMER, REQUESTS)), ACME, BOUNDS, NOON)
    assert (line.amount(0), line.amount(1000)) == (ONE_REQUEST, ONE_REQUEST)


def test_an_unlimited_quota_is_a_line_too():
    (line,) = stock_lines(plan(quota=limit(Scope.CUSTOMER, cap=None)), ACME, BOUNDS, NOON)
    assert line.cap is None


def test_a_rate_wants_at_most_its_cap_so_that_the_first_call_passes():
    small = RateLimit("r", Scope.CUSTOMER, UNITS, cap=3_000_000)
    count = RateLimit("n", Scope.CUSTOMER, REQUESTS, cap=9_000_000)
    first, second = rate_lines(plan(rates=(small, count)), ACME, BOUNDS)
    assert (first.amount, first.least) == (3_000_000, 2_000_000)
    assert (second.amount, second.least) == (ONE_REQUEST, ONE_REQUEST)
