"""plans/*.toml -> Plan, with their examples executed to the nano-dollar."""

from decimal import Decimal

import pytest

from gatekeeper.config.examples import broken_promise
from gatekeeper.config.plans import read_plan, warn_of_dear_overage
from gatekeeper.diagnostics import Severity
from gatekeeper.money import Price
from gatekeeper.rules.limits import Mode, RateLimit, Scope, StockLimit, Window
from gatekeeper.rules.plans import Example, Plan

STARTER = 'monthly_price = 29\n[quota]\nunits = 100_000\nwhen_used = "overage"\n[overage]\n'


def plan_of(text: str, filename: str = "plans/starter.toml") -> Plan:
    plan, file = read_plan(text, filename)
    assert plan is not None, [mistake.render() for mistake in file.mistakes]
    return plan


def test_the_name_of_the_file_is_the_id_and_the_least_plan_has_a_price() -> None:
    assert plan_of("monthly_price = 0\n", "some/where/free.toml") == Plan("free", "free", Decimal(0), None)


def test_a_file_name_that_cannot_be_an_id_is_a_mistake() -> None:
    plan, file = read_plan("monthly_price = 0\n", "plans/My Plan.toml")
    assert plan is None
    assert "cannot be a plan's id" in file.mistakes[0].message


def test_everything_that_a_plan_may_say_stands_in_the_plan() -> None:
    plan = plan_of(
        """
        name = "Starter"
        monthly_price = "29.50"
        clamp_output = true
        stripe_price = "price_a"
        metered_price = "price_b"

        [quota]
        units = "0.5"
        window = "billing_period"
        when_used = "overage"
        zone = "UTC"

        [overage]
        price = "0.25"
        per = "10K tokens"

        [[limits]]
        requests = 12
        window = "day"
        mode = "warn"
        scope = "user"

        [[limits]]
        name = "ever"
        units = "unlimited"
        window = "total"

        [[rates]]
        requests = 60

        [[rates]]
        units = 100
        per = "second"
        scope = "key"
        """
    )
    assert (plan.name, plan.monthly_price, plan.clamp_output) == ("Starter", Decimal("29.50"), True)
    assert (plan.stripe_price, plan.metered_price) == ("price_a", "price_b")
    assert plan.quota == StockLimit(
        "quota", Scope.CUSTOMER, "units", Window.BILLING_PERIOD, 500_000, Mode.OVERAGE, "UTC"
    )
    assert plan.overage == Price(Decimal("0.25"), 10_000)
    assert plan.limits == (
        StockLimit("user-requests-day", Scope.USER, "requests", Window.DAY, 12_000_000, Mode.WARN),
        StockLimit("ever", Scope.CUSTOMER, "units", Window.TOTAL, None),
    )
    assert plan.rates == (
        RateLimit("customer-requests-per-minute", Scope.CUSTOMER, "requests", 60_000_000, 60_000),
        RateLimit("key-units-per-second", Scope.KEY, "units", 100_000_000, 1_000),
    )


@pytest.mark.parametrize(
    ("written", "per"),
    [
        ("1 token", 1),
        ("1 unit", 1),
        ("1K tokens", 1_000),
        ("1M tokens", 1_000_000),
        ("250 tokens", 250),
        ("2 K units", 2_000),
    ],
)
def test_a_price_names_its_per(written: str, per: int) -> None:
    assert plan_of(f'{STARTER}price = "2"\nper = "{written}"\n').overage == Price(Decimal(2), per)


@pytest.mark.parametrize(
    "written", ["token", "0 tokens", "1", "1k tokens", "1M", "-1 tokens", "1.5K tokens", "1 Mtokens"]
)
def test_a_per_that_says_nothing_clear_is_refused(written: str) -> None:
    assert read_plan(f'{STARTER}price = "2"\nper = "{written}"\n', "starter.toml")[0] is None


@pytest.mark.parametrize(
    "written", ["0.1", "1e3", "nan", "inf", "-1", '"-1"', '"1e3"', '"1,5"', '""', "true", '"NaN"', "[1]"]
)
def test_money_that_is_no_plain_figure_is_refused(written: str) -> None:
    plan, file = read_plan(f"monthly_price = {written}\n", "starter.toml")
    assert plan is None
    assert [mistake.line for mistake in file.mistakes] == [1]


def test_an_example_holds_to_the_nano_dollar_or_is_broken() -> None:
    plan = plan_of(f'{STARTER}price = "0.000000001"\nper = "3 tokens"\n')

    def broken(units: int, charge: str | None) -> str | None:
        return broken_promise(plan, Example(units * 1_000_000, Decimal(charge) if charge else None))

    assert broken(100_003, "29.000000001") is None
    assert broken(100_004, "29.000000001") is None
    assert broken(100_003, "29.0000000011") is not None
    assert broken(100_003, "29.0000000010000000000000000001") is not None
    assert broken(100_003, "29") == "100003 units are charged $29.000000001"
    assert broken(100_003, None) == "the plan admits 100003 units and charges $29.000000001"


def warnings(*plans: tuple[str, str]) -> list[str]:
    read = {name: read_plan(text, f"plans/{name}.toml") for name, text in plans}
    parsed = {name: plan for name, (plan, _) in read.items() if plan is not None}
    assert len(parsed) == len(plans)
    warn_of_dear_overage(parsed, {name: file for name, (_, file) in read.items()})
    found = [mistake for _, file in read.values() for mistake in file.mistakes]
    assert all(mistake.severity is Severity.WARNING for mistake in found)
    return [mistake.render() for mistake in found]


def test_a_plan_that_costs_more_at_a_million_than_the_next_one_up_is_warned_of() -> None:
    dear = f'{STARTER}price = "0.002"\nper = "1 token"\n'
    pro = "monthly_price = 99\n[quota]\nunits = 1_000_000\n"
    (shown,) = warnings(("starter", dear), ("pro", pro), ("enterprise", "monthly_price = 499\n"))
    assert shown.startswith("plans/starter.toml:6:9: warning: 1,000,000 units a period cost $1829 on 'starter'")
    assert "$99 on the next plan, 'pro'" in shown
    assert "$2000 per 1M tokens" in shown


def test_a_sensible_price_the_dearest_plan_and_a_next_plan_that_refuses_are_not_warned_of() -> None:
    dear = f'{STARTER}price = "0.002"\nper = "1 token"\n'
    assert warnings(("starter", dear)) == []
    assert warnings(("starter", dear.replace("1 token", "1K tokens")), ("pro", "monthly_price = 99\n")) == []
    assert warnings(("starter", dear), ("pro", "monthly_price = 99\n[quota]\nunits = 500_000\n")) == []
    assert warnings(("starter", dear), ("free", "monthly_price = 0\n")) == []
