"""Which of the declared limits one call meets."""

from decimal import Decimal

from gatekeeper.rules.declared import DeclaredLimit, DeclaredRate, applying, applying_rates
from gatekeeper.rules.limits import DOLLARS, REQUESTS, Mode, RateLimit, Scope, StockLimit, Window
from gatekeeper.rules.lines import Subject
from gatekeeper.rules.plans import Plan

ALICE = Subject("acme", "pro", "chat", anchor_ms=0, key_id="key_1", user_id="alice", model="gpt-4o").of
BOB = Subject("acme", "pro", "chat", anchor_ms=0, user_id="bob", agent_id="alice").of
QUOTA = StockLimit("quota", Scope.CUSTOMER, "units", Window.MONTH, 1_000)
NO_LIMITS = Plan("pro", "Pro", Decimal(99), None)


def limit(name: str, scope: Scope, subject: str = "each", window: Window = Window.DAY, cap: int | None = 5, **more):
    return DeclaredLimit(StockLimit(name, scope, DOLLARS, window, cap, **more), subject)


def names(limits, of, plan: Plan = NO_LIMITS) -> list[str]:
    return [each.limit.name for each in applying(limits, plan, of)]


def test_a_limit_applies_where_the_call_has_a_subject_of_its_scope():
    limits = [limit(scope.value, scope) for scope in Scope]
    assert names(limits, ALICE) == ["global", "plan", "customer", "user", "key", "route", "model"]
    assert names(limits, BOB) == ["global", "plan", "customer", "user", "agent", "route"]


def test_a_named_limit_beats_the_default_for_its_subject_and_nobody_else():
    limits = [limit("default", Scope.USER), limit("more", Scope.USER, "alice", cap=None)]
    assert names(limits, ALICE) == ["more"]
    # Bob's agent is called alice: that is another scope.
    assert names(limits, BOB) == ["default"]


def test_the_user_of_one_customer_beats_the_name_of_any():
    limits = [limit("any", Scope.USER, "alice"), limit("one", Scope.USER, "acme/alice"), limit("default", Scope.USER)]
    assert names(limits, ALICE) == ["one"]
    other = Subject("other", "pro", "chat", anchor_ms=0, user_id="alice").of
    assert names(limits, other) == ["any"]


def test_only_what_counts_the_same_is_beaten():
    limits = [
        limit("day", Scope.USER),
        limit("month", Scope.USER, window=Window.MONTH),
        limit("agents", Scope.AGENT),
        limit("alice", Scope.USER, "alice"),
    ]
    assert names(limits, ALICE) == ["month", "alice"]


def test_a_warning_and_a_block_of_one_default_both_apply_and_both_are_beaten():
    both = [limit("warn", Scope.USER, mode=Mode.WARN), limit("block", Scope.USER)]
    assert names(both, ALICE) == ["warn", "block"]
    assert names([*both, limit("alice", Scope.USER, "alice")], ALICE) == ["alice"]


def test_a_customer_key_route_plan_or_model_is_named_as_a_whole():
    for scope, subject in (
        (Scope.CUSTOMER, "acme"),
        (Scope.KEY, "key_1"),
        (Scope.ROUTE, "chat"),
        (Scope.PLAN, "pro"),
        (Scope.MODEL, "gpt-4o"),
    ):
        assert names([limit("mine", scope, subject)], ALICE) == ["mine"]
        assert names([limit("other", scope, subject[:-1])], ALICE) == []
    org = Subject("acme", "pro", "chat", anchor_ms=0, model="org/alice").of
    assert names([limit("half", Scope.MODEL, "alice")], org) == []


def test_the_plan_comes_first_and_its_quota_is_never_beaten():
    of_plan = StockLimit("plan-day", Scope.CUSTOMER, DOLLARS, Window.DAY, 5)
    plan = Plan("pro", "Pro", Decimal(99), QUOTA, limits=(of_plan,))
    whole = [limit("global", Scope.GLOBAL)]
    assert names(whole, ALICE, plan) == ["quota", "plan-day", "global"]
    named = DeclaredLimit(StockLimit("acme", Scope.CUSTOMER, "units", Window.MONTH, 1), "acme")
    assert names([named, limit("acme-day", Scope.CUSTOMER, "acme")], ALICE, plan) == ["quota", "acme", "acme-day"]


def test_a_default_of_the_plan_and_one_of_the_gateway_both_apply():
    plan = Plan("pro", "Pro", Decimal(99), None, limits=(StockLimit("a", Scope.USER, DOLLARS, Window.DAY, 5),))
    assert names([limit("b", Scope.USER)], ALICE, plan) == ["a", "b"]


def test_what_a_plan_names_beats_what_names_less_of_the_same_and_is_beaten_by_what_names_more():
    mine = StockLimit("mine", Scope.USER, DOLLARS, Window.DAY, 5)
    plan = Plan("pro", "Pro", Decimal(99), None, limits=(mine,), subjects=(("mine", "alice"),))
    assert names([limit("default", Scope.USER)], ALICE, plan) == ["mine"]
    assert names([limit("default", Scope.USER)], BOB, plan) == ["default"]
    assert names([limit("own", Scope.USER, "acme/alice")], ALICE, plan) == ["own"]
    # Naming as much, both hold.
    assert names([limit("same", Scope.USER, "alice")], ALICE, plan) == ["mine", "same"]


def test_an_unlimited_rate_takes_the_default_away_and_is_none_itself():
    default = RateLimit("default", Scope.USER, REQUESTS, 60_000_000)
    plan = Plan("pro", "Pro", Decimal(99), None, rates=(default,))
    free = DeclaredRate(RateLimit("free", Scope.USER, REQUESTS, 1), "acme/alice", exempt=True)
    whole = DeclaredRate(RateLimit("all", Scope.GLOBAL, REQUESTS, 1))
    assert [each.limit.name for each in applying_rates([free, whole], plan, ALICE)] == ["all"]
    assert [each.limit.name for each in applying_rates([free, whole], plan, BOB)] == ["default", "all"]
    hourly = DeclaredRate(RateLimit("hourly", Scope.USER, REQUESTS, 1, 3_600_000))
    assert [each.limit.name for each in applying_rates([free, hourly], plan, ALICE)] == ["hourly"]
