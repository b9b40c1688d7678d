"""What is found once for many calls is what each of them would find alone."""

from dataclasses import replace
from decimal import Decimal

from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.rules.declared import EACH, DeclaredLimit, DeclaredRate, Origin, applying, applying_rates
from gatekeeper.rules.limits import Mode, Pair, RateLimit, Scope, StockLimit, Window
from gatekeeper.rules.lines import Subject
from gatekeeper.rules.met import met, met_rates
from gatekeeper.rules.plans import Plan

scopes = st.sampled_from(Scope) | st.sampled_from([Pair.USER_MODEL, Pair.USER_AGENT, Pair.KEY_ROUTE])
PAIRS = ["a/ann,gpt", "ann,each", "each,gpt", "bob,other", "k,chat", "each,chat", "ann,ann", "a/ann,a/zoe"]
names = st.sampled_from([EACH, EACH, "*", "ann", "bob", "a", "b", "a/ann", "b/bob", "k", "chat", "gpt", *PAIRS])
stock_limits = st.builds(
    StockLimit,
    st.just("limit"),
    scopes,
    st.sampled_from(["units", "dollars"]),
    st.sampled_from([Window.DAY, Window.MONTH]),
    st.none() | st.integers(0, 9),
    st.sampled_from(Mode),
)
rate_limits = st.builds(RateLimit, st.just("rate"), scopes, st.sampled_from(["units", "requests"]), st.integers(0, 9))
declared_limits = st.builds(DeclaredLimit, stock_limits, names, st.sampled_from([Origin.FILE, Origin.ADMIN]))
declared_rates = st.builds(DeclaredRate, rate_limits, names, st.booleans())


def plan_of(quota, limits, rates) -> Plan:
    """Each of ``limits`` and ``rates`` comes with its subject."""
    stock = [(replace(limit, name=f"limit-{number}"), subject) for number, (limit, subject) in enumerate(limits)]
    speeds = [(replace(rate, name=f"rate-{number}"), subject) for number, (rate, subject) in enumerate(rates)]
    named = tuple((each.name, subject) for each, subject in (*stock, *speeds) if subject != EACH)
    only = {"limits": tuple(each for each, _ in stock), "rates": tuple(each for each, _ in speeds)}
    return Plan("p", "P", Decimal(0), quota, subjects=named, **only)


plans = st.builds(
    plan_of,
    st.none() | stock_limits,
    st.lists(st.tuples(stock_limits, names), max_size=3),
    st.lists(st.tuples(rate_limits, names), max_size=3),
)
subjects = st.builds(
    Subject,
    st.sampled_from(["a", "b", "c"]),
    st.just("p"),
    st.sampled_from(["chat", "other"]),
    st.just(0),
    st.sampled_from([None, "", "k", "l"]),
    st.sampled_from([None, "", "ann", "bob", "eve"]),
    st.sampled_from([None, "ann", "zoe"]),
    st.sampled_from([None, "gpt", "other"]),
)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(declared_limits, max_size=40),
    st.lists(declared_rates, max_size=40),
    st.lists(plans, min_size=1, max_size=2),
    st.lists(subjects, min_size=1, max_size=12),
)
def test_calls_that_share_what_was_found_meet_the_same_limits_as_alone(stock, rates, plans, subjects):
    limits, speeds = tuple(stock), tuple(rates)
    for plan in plans:
        for subject in subjects:
            assert met(limits, plan, subject.of) == tuple(each.limit for each in applying(stock, plan, subject.of))
            found = tuple(each.limit for each in applying_rates(rates, plan, subject.of))
            assert met_rates(speeds, plan, subject.of) == found


def test_a_plan_that_names_a_model_tells_its_calls_apart_and_no_other_plans():
    limit = StockLimit("one", Pair.USER_MODEL, "units", Window.DAY, 1)
    plan = Plan("p", "P", Decimal(0), None, limits=(limit,), subjects=(("one", "each,gpt"),))
    other = replace(plan, subjects=(("one", "each,other"),))
    limits = ()
    for _ in range(2):
        for user in ("ann", "bob"):
            caller = Subject("a", "p", "chat", 0, user_id=user, model="gpt")
            assert met(limits, plan, caller.of) == (limit,)
            assert met(limits, plan, replace(caller, model="other").of) == ()
            assert met(limits, other, caller.of) == ()
            assert met(limits, other, replace(caller, model="other").of) == (limit,)


def test_a_list_that_grows_is_read_anew():
    plan = Plan("p", "P", Decimal(0), None)
    limits, caller = [], Subject("a", "p", "chat", 0)
    assert met(limits, plan, caller.of) == ()
    limits.append(DeclaredLimit(StockLimit("more", Scope.CUSTOMER, "units", Window.DAY, 1)))
    assert [limit.name for limit in met(limits, plan, caller.of)] == ["more"]


def test_many_generations_of_limits_do_not_mix():
    plan, caller = Plan("p", "P", Decimal(0), None), Subject("a", "p", "chat", 0)
    for cap in range(100):
        limits = (DeclaredLimit(StockLimit("cap", Scope.CUSTOMER, "units", Window.DAY, cap)),)
        assert [limit.cap for limit in met(limits, plan, caller.of)] == [cap]
        del limits
