"""``[[limits]]`` and ``[[rates]]`` of gateway.toml and of plans, and the budgets of the environment."""

import pytest

from gatekeeper.config.gateway import Gateway
from gatekeeper.config.plans import read_plan
from gatekeeper.config.read import parse_gateway
from gatekeeper.diagnostics import Mistakes
from gatekeeper.rules.declared import DeclaredLimit, DeclaredRate, Origin, of_plan, rates_of_plan
from gatekeeper.rules.limits import Mode, RateLimit, Scope, StockLimit, Window

LEAST = """
[upstreams.openai]
url = "https://api.openai.com"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "openai"
meters = { images = "len(response.data)" }
"""
FREE = "monthly_price = 0\n"
DAILY = '[[limits]]\nscope = "customer"\ndollars = "1"\nwindow = "day"\nzone = "Asia/Tokyo"\nmode = "warn"\n'


def parse(text: str, env: dict[str, str] | None = None, plan: str = FREE) -> Gateway:
    return parse_gateway(LEAST + text, "gateway.toml", {"plans/free.toml": plan}, env or {})


def refused(text: str, env: dict[str, str] | None = None, plan: str = FREE) -> str:
    with pytest.raises(Mistakes) as raised:
        parse(text, env, plan)
    return raised.value.render()


def test_without_any_there_are_none():
    gateway = parse("")
    assert (gateway.limits, gateway.rates) == ((), ())


def test_everything_that_a_limit_may_say_stands_in_the_gateway():
    gateway = parse(
        """
        [[limits]]
        scope = "global"
        dollars = "5.00"
        window = "month"

        [[limits]]
        name = "alice"
        scope = "user"
        subject = "acme/alice"
        dollars = "unlimited"
        window = "day"
        zone = "Europe/Berlin"
        mode = "warn"

        [[limits]]
        scope = "key"
        subject = "each"
        units = "0.5"
        meter = "images"
        window = "total"

        [[limits]]
        scope = "model"
        subject = "accounts/x/models/gpt-4o"
        requests = 0
        window = "hour"
        mode = "warn"
        """
    )
    assert gateway.limits == (
        DeclaredLimit(StockLimit("global-dollars-month", Scope.GLOBAL, "dollars", Window.MONTH, 5_000_000_000)),
        DeclaredLimit(
            StockLimit("alice", Scope.USER, "dollars", Window.DAY, None, Mode.WARN, "Europe/Berlin"),
            "acme/alice",
        ),
        DeclaredLimit(StockLimit("key-units-images-total", Scope.KEY, "units:images", Window.TOTAL, 500_000)),
        DeclaredLimit(
            StockLimit(
                "model-accounts-x-models-gpt-4o-requests-hour", Scope.MODEL, "requests", Window.HOUR, 0, Mode.WARN
            ),
            "accounts/x/models/gpt-4o",
        ),
    )


def test_everything_that_a_rate_may_say_stands_in_the_gateway():
    gateway = parse(
        """
        [[rates]]
        scope = "agent"
        requests = 60

        [[rates]]
        name = "fast"
        scope = "agent"
        subject = "acme/bot"
        requests = "unlimited"

        [[rates]]
        scope = "route"
        subject = "chat"
        dollars = "0.50"
        per = "hour"
        """
    )
    assert gateway.rates[0] == DeclaredRate(
        RateLimit("agent-requests-per-minute", Scope.AGENT, "requests", 60_000_000, 60_000)
    )
    assert (gateway.rates[1].subject, gateway.rates[1].exempt) == ("acme/bot", True)
    assert gateway.rates[2] == DeclaredRate(
        RateLimit("route-chat-dollars-per-hour", Scope.ROUTE, "dollars", 500_000_000, 3_600_000), "chat"
    )


def test_a_plan_may_limit_dollars_and_meters():
    plan = """
monthly_price = 0
[[limits]]
dollars = "5.00"
window = "day"
[[limits]]
scope = "agent"
units = 3
meter = "images"
window = "month"
mode = "warn"
[[rates]]
dollars = 2
"""
    found = parse("", plan=plan).plans["free"]
    assert found.limits == (
        StockLimit("customer-dollars-day", Scope.CUSTOMER, "dollars", Window.DAY, 5_000_000_000),
        StockLimit("agent-units-images-month", Scope.AGENT, "units:images", Window.MONTH, 3_000_000, Mode.WARN),
    )
    assert [(rate.dimension, rate.cap) for rate in found.rates] == [("dollars", 2_000_000_000)]


def test_a_meter_that_no_route_has_is_a_mistake_in_a_plan_too():
    plan = FREE + '[[limits]]\nunits = 3\nwindow = "day"\n[[limits]]\nunits = 3\nmeter = "imags"\nwindow = "day"\n'
    assert read_plan(plan, "plans/free.toml")[0] is not None
    message = refused("", plan=plan)
    assert message.startswith("plans/free.toml:7:9: error: no route has a meter 'imags'")
    assert "did you mean 'images'?" in message
    rates = FREE + '[[rates]]\nunits = 3\nmeter = "x"\n'
    assert "no route has a meter 'x'" in refused("", plan=rates)


NAMING = """
monthly_price = 0
[[limits]]
scope = "user,model"
subject = "each,gpt-4o"
requests = 5
window = "day"
[[limits]]
scope = "user,model"
requests = 9
window = "day"
[[limits]]
name = "bots"
scope = "agent"
subject = "crawler"
dollars = "unlimited"
window = "month"
[[limits]]
scope = "model"
subject = "each"
requests = 7
window = "day"
[[rates]]
scope = "key,route"
subject = "each,chat"
units = 100
"""


def test_a_plan_names_what_every_customer_has():
    plan = parse("", plan=NAMING).plans["free"]
    assert [(each.limit.name, each.subject, each.origin) for each in of_plan(plan)] == [
        ("user-model-each-gpt-4o-requests-day", "each,gpt-4o", Origin.PLAN),
        ("user-model-requests-day", "each", Origin.PLAN),
        ("bots", "crawler", Origin.PLAN),
        ("model-requests-day", "each", Origin.PLAN),
    ]
    (rate,) = rates_of_plan(plan)
    assert (rate.limit.name, rate.subject) == ("key-route-each-chat-units-per-minute", "each,chat")


def test_a_route_that_a_plan_names_exists():
    message = refused("", plan=NAMING.replace("each,chat", "each,chta"))
    assert message.startswith("plans/free.toml:25:11: error: there is no route 'chta'")
    assert "did you mean 'chat'?" in message
    alone = FREE + '[[limits]]\nscope = "route"\nsubject = "chat"\nrequests = 1\nwindow = "day"\n'
    assert parse("", plan=alone).plans["free"].subjects == (("route-chat-requests-day", "chat"),)
    assert "there is no route 'images'" in refused("", plan=alone.replace('"chat"', '"images"'))


def test_a_plan_that_names_the_same_twice_is_a_slip():
    twice = NAMING + '[[limits]]\nname = "more"\nscope = "user,model"\nsubject = "each,gpt-4o"\n'
    message = refused("", plan=twice + 'requests = 6\nwindow = "day"\n')
    assert "another limit of this plan counts the requests of user,model 'each,gpt-4o' in the same time" in message


def test_a_named_route_or_plan_exists():
    limit = '[[limits]]\nscope = "{}"\nsubject = "{}"\nrequests = 1\nwindow = "day"\n'
    assert len(parse(limit.format("route", "chat") + limit.format("plan", "free")).limits) == 2
    assert "there is no route 'chta'" in refused(limit.format("route", "chta"))
    assert "there is no plan 'fre'" in refused(limit.format("plan", "fre"))


BUDGETS = [
    ("GLOBAL_BUDGET_CENTS", "2500", "global-budget", Scope.GLOBAL, Window.MONTH, 25_000_000_000),
    ("DEFAULT_USER_BUDGET_CENTS", "150.5", "user-budget", Scope.USER, Window.MONTH, 1_505_000_000),
    ("DEFAULT_AGENT_BUDGET_CENTS", "0", "agent-budget", Scope.AGENT, Window.MONTH, 0),
    ("DEFAULT_DAILY_BUDGET", "25.50", "daily-budget", Scope.CUSTOMER, Window.DAY, 25_500_000_000),
    ("DEFAULT_DAILY_BUDGET", "unlimited", "daily-budget", Scope.CUSTOMER, Window.DAY, None),
]


@pytest.mark.parametrize(("variable", "value", "name", "scope", "window", "cap"), BUDGETS)
def test_a_budget_of_the_environment_is_a_limit_that_blocks(variable, value, name, scope, window, cap):
    gateway = parse("", {variable: value})
    assert gateway.limits == (DeclaredLimit(StockLimit(name, scope, "dollars", window, cap, Mode.BLOCK)),)
    assert gateway.generation != parse("", {variable: "1"}).generation


def test_a_budget_of_the_environment_beats_the_figure_of_the_file_and_nothing_else():
    named = DAILY.replace('scope = "customer"', 'scope = "customer"\nsubject = "acme"')
    gateway = parse(DAILY + named, {"DEFAULT_DAILY_BUDGET": "7", "GLOBAL_BUDGET_CENTS": ""})
    assert [(each.subject, each.limit.cap) for each in gateway.limits] == [
        ("each", 7_000_000_000),
        ("acme", 1_000_000_000),
    ]
    default = gateway.limits[0].limit
    assert (default.name, default.zone, default.mode) == ("customer-dollars-day", "Asia/Tokyo", Mode.WARN)


def test_a_budget_of_the_environment_does_not_take_a_name_that_is_taken():
    other = '[[limits]]\nname = "global-budget"\nscope = "global"\nrequests = 5\nwindow = "day"\n'
    names = [each.limit.name for each in parse(other, {"GLOBAL_BUDGET_CENTS": "5"}).limits]
    assert names == ["global-budget", "global-budget-env"]


@pytest.mark.parametrize("value", ["junk", "-5", "1e3", "NaN", "$5", "5 dollars", "9" * 12, "1,000", " 5", "٣"])
@pytest.mark.parametrize("variable", sorted({variable for variable, *_ in BUDGETS}))
def test_a_budget_that_is_no_amount_is_a_mistake(variable, value):
    message = refused("", {variable: value})
    assert message.startswith("<environment>:1:")
    assert f"the environment variable {variable} is no amount of" in message
    assert "5" not in message.replace("2500", "").replace("25.00", "")
