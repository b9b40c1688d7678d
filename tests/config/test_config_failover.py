"""Fallbacks, breakers, soft limits and cheaper models, as they are written."""

import pytest

from gatekeeper.config.gateway import Fallback, Gateway, Route
from gatekeeper.config.read import parse_gateway
from gatekeeper.diagnostics import Mistakes
from gatekeeper.rules.breaker import BreakerConfig
from gatekeeper.rules.failover import FAILOVER_STATUSES, Retry
from gatekeeper.rules.limits import Mode

UPSTREAMS = '[upstreams.openai]\nurl = "https://api.openai.com"\n[upstreams.azure]\nurl = "https://azure.example"\n'
ROUTE = '[[routes]]\nname = "chat"\npath = "/v1/chat/completions"\nupstream = "openai"\n'
PLAN = "monthly_price = 0\n"


def parse(text: str, plan: str = PLAN) -> Gateway:
    return parse_gateway(text, "gateway.toml", {"free.toml": plan}, {})


def route(text: str) -> Route:
    return parse(UPSTREAMS + text).router.routes[0]


def refused(text: str, plan: str = PLAN) -> str:
    with pytest.raises(Mistakes) as raised:
        parse(text, plan)
    return raised.value.render()


def test_nothing_fails_over_and_breakers_are_on_unless_somebody_says_otherwise():
    plain = route(ROUTE)
    assert (plain.fallback, plain.downgrade, plain.show_upstream) == ((), (), False)
    assert (plain.failover_status, plain.retry) == (FAILOVER_STATUSES, Retry.IDEMPOTENT)
    upstream = parse(UPSTREAMS + ROUTE).upstreams["openai"]
    assert (upstream.breaker, upstream.connect_retries) == (BreakerConfig(), 1)


def test_a_route_says_who_serves_next_and_as_which_model():
    found = route(
        ROUTE + 'fallback = [{ upstream = "azure", model = "gpt-4o-2" }, { upstream = "azure" }]\nretry = "always"\n'
    )
    assert found.fallback == (Fallback("azure", "gpt-4o-2"), Fallback("azure"))
    assert found.retry is Retry.ALWAYS


def test_the_defaults_may_say_it_for_all_and_a_route_leaves_its_own_upstream_out():
    both = '[defaults]\nfallback = [{ upstream = "openai" }, { upstream = "azure" }]\nfailover_status = [503]\n' + ROUTE
    found = route(both)
    assert (found.fallback, found.failover_status) == ((Fallback("azure"),), frozenset({503}))


def test_a_breaker_is_written_as_a_table_or_switched_off():
    text = UPSTREAMS.replace(
        "[upstreams.azure]", "breaker = { failures = 5, window_s = 20, pause_s = 2.5 }\n[upstreams.azure]"
    )
    upstreams = parse(text + "breaker = false\nconnect_retries = 0\n" + ROUTE).upstreams
    assert upstreams["openai"].breaker == BreakerConfig(5, 50, 20.0, 2.5)
    assert (upstreams["azure"].breaker, upstreams["azure"].connect_retries) == (None, 0)


def test_cheaper_models_stand_in_one_chain_or_in_several():
    assert route(ROUTE + 'downgrade = ["a", "b", "c"]\n').downgrade == (("a", "b", "c"),)
    assert route(ROUTE + 'downgrade = [["a", "b"], ["c", "b"]]\n').downgrade == (("a", "b"), ("c", "b"))
    plan = parse(UPSTREAMS + ROUTE, 'downgrade = ["a", "b"]\n' + PLAN).plans["free"]
    assert plan.downgrade == (("a", "b"),)


def test_limits_and_quotas_may_be_soft():
    text = UPSTREAMS + ROUTE + '[[limits]]\nscope = "user"\ndollars = 5\nwindow = "day"\nmode = "soft"\nsoft_at = 60\n'
    quota = '[quota]\nunits = 100\nwhen_used = "soft"\n'
    gateway = parse(text, PLAN + quota)
    assert (gateway.limits[0].limit.mode, gateway.limits[0].limit.soft_at) == (Mode.SOFT, 60)
    plan = gateway.plans["free"]
    assert plan.quota is not None
    assert (plan.quota.mode, plan.quota.soft_at) == (Mode.SOFT, 80)
    assert plan.admits(100 * 10**6)
    assert not plan.admits(100 * 10**6 + 1)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ('fallback = ["azure"]', "a fallback is a table"),
        ('fallback = [{ upstream = "azur" }]', "did you mean 'azure'?"),
        ('fallback = [{ model = "x" }]', "'upstream' is missing here"),
        ('fallback = [{ upstream = "openai" }]', "is tried first already"),
        ('fallback = [{ upstream = "azure" }, { upstream = "azure" }]', "stands twice with the same model"),
        ('fallback = [{ upstream = "azure", models = "x" }]', "unknown key 'models'"),
        ("failover_status = [200]", "out of range"),
        ('retry = "never"', "is not one of"),
        ('downgrade = ["a"]', "a chain names a model and a cheaper one"),
        ('downgrade = ["a", "b", "a"]', "a model stands twice in this chain"),
        ('downgrade = [["a", "b"], ["a", "c"]]', "is said twice"),
        ('downgrade = [["a", "b"], "c"]', "a list is expected here"),
        ("show_upstream = 1", "true or false"),
    ],
)
def test_mistakes_of_a_route_are_told(more, said):
    assert said in refused(UPSTREAMS + ROUTE + more + "\n")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("breaker = true", "a breaker is a table, or false"),
        ("breaker = { failure = 3 }", "did you mean 'failures'?"),
        ("breaker = { failures = 0 }", "out of range"),
        ("connect_retries = -1", "out of range"),
    ],
)
def test_mistakes_of_an_upstream_are_told(more, said):
    assert said in refused(UPSTREAMS + more + "\n" + ROUTE)


def test_only_a_soft_limit_has_a_soft_at():
    text = UPSTREAMS + ROUTE + '[[limits]]\nscope = "user"\nunits = 5\nwindow = "day"\nsoft_at = 60\n'
    assert "only a soft limit has a soft_at" in refused(text)
    assert "only a soft limit has a soft_at" in refused(UPSTREAMS + ROUTE, PLAN + "[quota]\nunits = 1\nsoft_at = 3\n")
