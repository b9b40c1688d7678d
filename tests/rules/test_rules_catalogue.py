"""What plans need in a Stripe account, what differs, and that carrying it out leaves no difference."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rules_account import carried_out

from gatekeeper.money import Price as Overage
from gatekeeper.money import units_to_micro
from gatekeeper.rules.catalogue import (
    SNAPSHOT_EVENTS,
    THIN_EVENTS,
    Content,
    Endpoint,
    Meter,
    Payload,
    PlanPrices,
    Portal,
    Price,
    Role,
    Tier,
    Wanted,
    cents_of,
    wanted,
)
from gatekeeper.rules.drift import (
    Account,
    Action,
    HeldEndpoint,
    HeldMeter,
    HeldPortal,
    HeldPrice,
    HeldProduct,
    differ,
    sold,
)
from gatekeeper.rules.limits import UNITS, Mode, Scope, StockLimit, Window
from gatekeeper.rules.plans import Plan

METER = "gatekeeper_units"
URL = "https://llm.example.com"


def a_plan(
    plan_id: str = "starter",
    monthly: str = "29",
    included: str | None = "100000",
    overage: tuple[str, int] | None = ("0.002", 1),
    *,
    window: Window = Window.BILLING_PERIOD,
    stripe_price: str | None = None,
    metered_price: str | None = None,
) -> Plan:
    """A plan as its file would say."""
    mode = Mode.BLOCK if overage is None else Mode.OVERAGE
    cap = None if included is None else units_to_micro(Decimal(included))
    return Plan(
        id=plan_id,
        name=plan_id.title(),
        monthly_price=Decimal(monthly),
        quota=StockLimit("quota", Scope.CUSTOMER, UNITS, window, cap, mode),
        overage=None if overage is None else Overage(Decimal(overage[0]), overage[1]),
        stripe_price=stripe_price,
        metered_price=metered_price,
    )


def of(*plans: Plan, url: str | None = URL, live: bool = False) -> Wanted:
    """What these need."""
    return wanted({plan.id: plan for plan in plans}, METER, url, live=live)


def settled(want: Wanted, account: Account | None = None) -> Account:
    """The account after all changes."""
    before = account or Account()
    return carried_out(before, differ(want, before).changes)


def titles(want: Wanted, account: Account) -> list[str]:
    """Every change in a few words."""
    return [f"{change.action} {change.kind} {change.title}" for change in differ(want, account).changes]


FREE = a_plan("free", "0", "10000", None)
STARTER = a_plan()
ENTERPRISE = a_plan("enterprise", "499", None, None)


def test_an_empty_account_gets_everything_in_the_order_in_which_it_can_be_made() -> None:
    assert titles(of(FREE, STARTER, ENTERPRISE), Account()) == [
        "create meter gatekeeper_units",
        "create product enterprise",
        "create product starter",
        "create price enterprise licensed",
        "create price starter licensed",
        "create price starter metered",
        "create portal customer portal",
        f"create endpoint {URL}/webhooks/stripe (snapshot)",
        f"create endpoint {URL}/webhooks/stripe (thin)",
    ]


def test_a_free_plan_alone_needs_nothing_at_all() -> None:
    want = of(FREE)
    assert differ(want, Account()).nothing
    assert "free" in want.notes[0]


def test_a_dollar_is_a_hundred_cents_and_two_tenths_of_a_cent_stay_two_tenths() -> None:
    """Pitfall 18: amounts are cents, so $0.002 a token is 0.2, and the 100,001st token costs $0.002."""
    licensed, metered = of(STARTER).prices
    assert licensed.content == Content(Decimal(2900))
    assert metered.content == Content(None, (Tier(100_000, Decimal(0)), Tier(None, Decimal("0.2"))), METER)


def test_equal_amounts_have_equal_lookup_keys_however_they_are_written() -> None:
    written = a_plan(monthly="29.00", overage=("2.0", 1_000))
    assert of(written).prices == of(STARTER).prices


def test_a_small_price_is_written_in_plain_digits() -> None:
    """Pitfall 17: no exponent reaches a lookup key, a text or the wire."""
    (_, metered) = of(a_plan(overage=("0.2", 1_000_000_000))).prices
    assert metered.content is not None
    assert metered.content.tiers[1].cents == Decimal("0.00000002")
    assert "0.0000000002" in metered.content.text and "E-" not in metered.content.text


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (a_plan(overage=("1", 3)), "12 decimals of a cent"),
        (a_plan(overage=("0.000000000000001", 1)), "12 decimals of a cent"),
        (a_plan(monthly="29.005"), "whole number of cents"),
        (a_plan(monthly="1000000"), "whole number of cents"),
        (a_plan(included="0.5"), "no whole number"),
        (a_plan(window=Window.MONTH), "billing_period"),
    ],
)
def test_what_no_invoice_could_say_is_a_problem_and_nothing_is_changed_silently(plan: Plan, said: str) -> None:
    difference = differ(of(plan), Account())
    assert said in difference.problems[0] and not difference.nothing


def test_nothing_included_is_one_tier_that_charges_from_the_first_unit() -> None:
    (_, metered) = of(a_plan(included="0")).prices
    assert metered.content is not None and metered.content.tiers == (Tier(None, Decimal("0.2")),)


def test_live_mode_wants_its_webhooks_over_tls() -> None:
    assert "https://" in of(STARTER, url="http://127.0.0.1:8080", live=True).problems[0]
    assert of(STARTER, url="http://127.0.0.1:8080").problems == ()


def test_another_price_is_a_new_one_and_the_old_one_is_archived() -> None:
    account = settled(of(STARTER))
    dearer = of(a_plan(monthly="39"))
    difference = differ(dearer, account)
    assert [(change.action, change.title) for change in difference.changes] == [
        (Action.CREATE, "starter licensed"),
        (Action.ARCHIVE, "starter licensed"),
    ]
    after = carried_out(account, difference.changes)
    assert sorted(held.content.text for held in after.prices if held.active and held.content.meter is None) == [
        "$39 per month"
    ]
    # Whoever pays the old price is still found.
    old = next(held for held in after.prices if not held.active)
    assert sold(dearer, after).plan_of[old.id] == "starter"


def test_a_price_that_comes_back_is_the_old_one_and_not_a_third() -> None:
    account = settled(of(STARTER))
    first = sold(of(STARTER), account).prices["starter"]
    account = settled(of(a_plan(monthly="39")), account)
    assert sold(of(a_plan(monthly="39")), account).prices["starter"] != first
    account = settled(of(STARTER), account)
    assert sold(of(STARTER), account).prices["starter"] == first
    assert len(account.prices) == 3


def test_the_default_price_of_a_product_gives_way_before_it_is_archived() -> None:
    account = settled(of(STARTER))
    licensed = sold(of(STARTER), account).prices["starter"].licensed
    account = replace(account, products=tuple(replace(one, default_price=licensed) for one in account.products))
    after = settled(of(a_plan(monthly="39")), account)
    assert after.products[0].default_price == sold(of(a_plan(monthly="39")), after).prices["starter"].licensed


def test_a_plan_that_is_gone_is_archived_with_its_prices_and_its_meter_stays() -> None:
    """Customers who still have it keep paying for it."""
    account = settled(of(STARTER, ENTERPRISE))
    assert titles(of(ENTERPRISE), account) == [
        "archive price starter licensed",
        "archive price starter metered",
        "archive product starter",
    ]


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (
            lambda account: replace(account, products=tuple(replace(one, name="?") for one in account.products)),
            ["update product starter"],
        ),
        (
            lambda account: replace(account, products=tuple(replace(one, active=False) for one in account.products)),
            ["update product starter"],
        ),
        (
            lambda account: replace(account, meters=tuple(replace(one, active=False) for one in account.meters)),
            ["update meter gatekeeper_units"],
        ),
        (
            lambda account: replace(account, prices=tuple(replace(one, active=False) for one in account.prices)),
            ["update price starter licensed", "update price starter metered"],
        ),
        (
            lambda account: replace(account, prices=tuple(replace(one, lookup_key=None) for one in account.prices)),
            ["update price starter licensed", "update price starter metered"],
        ),
        (
            lambda account: replace(
                account, prices=tuple(replace(one, plan_id=None, role=None) for one in account.prices)
            ),
            ["update price starter licensed", "update price starter metered"],
        ),
        (
            lambda account: replace(account, endpoints=tuple(replace(one, enabled=False) for one in account.endpoints)),
            [f"update endpoint {URL}/webhooks/stripe ({each})" for each in ("snapshot", "thin")],
        ),
        (
            lambda account: replace(account, endpoints=tuple(replace(one, shown=False) for one in account.endpoints)),
            [
                f"{action} endpoint {URL}/webhooks/stripe ({each})"
                for each in ("snapshot", "thin")
                for action in ("delete", "create")
            ],
        ),
    ],
)
def test_what_somebody_changed_by_hand_is_shown_and_put_right(spoil: Any, expected: list[str]) -> None:
    want = of(STARTER)
    account = spoil(settled(want))
    assert titles(want, account) == expected
    assert differ(want, carried_out(account, differ(want, account).changes)).nothing


def test_a_price_by_hand_is_honoured_and_only_checked() -> None:
    named = a_plan(overage=None, stripe_price="price_1NxAbCdEfGhIjKlM")
    theirs = HeldPrice("price_1NxAbCdEfGhIjKlM", "prod_x", Content(Decimal(2900)), True, None, None, None)
    account = settled(of(named), Account(prices=(theirs,)))
    assert account.prices == (theirs,) and account.products == ()
    assert sold(of(named), account).prices == {"starter": PlanPrices(licensed=theirs.id)}
    wrong = differ(of(named), Account(prices=(replace(theirs, content=Content(Decimal(3500))),)))
    assert "is $35 per month; the plan says $29 per month" in wrong.problems[0]
    gone = differ(of(named), Account(prices=(replace(theirs, active=False),)))
    assert "is archived" in gone.problems[0]


def test_an_id_by_hand_that_is_not_there_is_a_problem_and_a_name_by_hand_is_made() -> None:
    missing = differ(of(a_plan(stripe_price="price_1NxAbCdEfGhIjKlM")), Account())
    assert "has none of that id" in missing.problems[0]
    want = of(a_plan(stripe_price="price_starter_llmgateway"))
    account = settled(want)
    held = next(one for one in account.prices if one.lookup_key == "price_starter_llmgateway")
    assert sold(want, account).prices["starter"].licensed == held.id
    # The name stays with what the plan costs now.
    dearer = of(a_plan(monthly="39", stripe_price="price_starter_llmgateway"))
    account = settled(dearer, account)
    now = next(one for one in account.prices if one.lookup_key == "price_starter_llmgateway")
    assert now.id != held.id and now.content == Content(Decimal(3900))
    assert differ(dearer, account).nothing


def test_a_metered_price_by_hand_without_a_price_in_the_plan_is_looked_up() -> None:
    want = of(a_plan(overage=None, metered_price="tokens-by-hand"))
    assert differ(want, Account()).problems
    content = Content(None, (Tier(None, Decimal("0.2")),), METER)
    theirs = HeldPrice("price_9", "prod_x", content, True, "tokens-by-hand", None, None)
    account = settled(want, Account(prices=(theirs,)))
    assert sold(want, account).prices["starter"].metered == "price_9"


def test_a_meter_that_counts_otherwise_is_a_problem() -> None:
    held = HeldMeter("mtr_1", Meter(METER, "x", aggregation="count"), True)
    assert "can never change" in differ(of(STARTER), Account(meters=(held,))).problems[0]


def test_an_endpoint_by_hand_keeps_what_it_has_and_gets_what_it_lacks() -> None:
    url = f"{URL}/webhooks/stripe"
    theirs = HeldEndpoint("we_1", Endpoint(Payload.SNAPSHOT, url, frozenset({"charge.failed"})), True, False, True)
    account = settled(of(STARTER), Account(endpoints=(theirs,)))
    (held,) = [one for one in account.endpoints if one.endpoint.payload is Payload.SNAPSHOT]
    assert held.id == "we_1" and held.endpoint.events == SNAPSHOT_EVENTS | {"charge.failed"}
    everything = replace(theirs, endpoint=Endpoint(Payload.SNAPSHOT, url, frozenset({"*"})))
    assert not [one for one in titles(of(STARTER), Account(endpoints=(everything,))) if "snapshot" in one]


def test_our_endpoint_at_another_address_is_left_alone_and_named() -> None:
    account = settled(of(STARTER))
    difference = differ(of(STARTER, url="https://other.example.com"), account)
    assert all(change.action is not Action.DELETE for change in difference.changes)
    assert any(URL in note for note in difference.notes)


@given(
    dollars=st.decimals("0", "1000000", places=9),
    per=st.sampled_from([1, 3, 7, 64, 1_000, 1_000_000, 999_000_000_000_000]),
    units=st.integers(0, 10**15),
)
def test_cents_for_each_unit_are_exact_or_refused(dollars: Decimal, per: int, units: int) -> None:
    """Pitfall 18, for any price: units times cents is a hundred times the dollars, to the last digit."""
    cents = cents_of(dollars, per)
    if cents is not None:
        assert cents * per == dollars * 100
        exponent = cents.normalize().as_tuple().exponent
        assert isinstance(exponent, int) and exponent >= -12


_PLANS = st.lists(
    st.builds(
        a_plan,
        st.sampled_from(["starter", "pro", "team"]),
        st.sampled_from(["0", "29", "99"]),
        st.sampled_from(["0", "100"]),
        st.sampled_from([None, ("0.002", 1), ("0.5", 1_000)]),
        stripe_price=st.sampled_from([None, "price_by_name"]),
    ),
    max_size=3,
    unique_by=lambda plan: plan.id,
).filter(lambda plans: sum(plan.stripe_price is not None for plan in plans) <= 1)
_CONTENTS = st.sampled_from(
    [
        Content(Decimal(2900)),
        Content(Decimal(9900)),
        Content(None, (Tier(100, Decimal(0)), Tier(None, Decimal("0.2"))), METER),
        Content(Decimal(2900), odd="not recurring"),
    ]
)
_PLAN_IDS = st.sampled_from(["starter", "pro", "gone"])
_OPTIONAL_ROLES = st.sampled_from([None, "licensed", "metered"])
_ENDPOINTS = st.builds(
    Endpoint,
    st.sampled_from(list(Payload)),
    st.sampled_from([f"{URL}/webhooks/stripe", "https://elsewhere.example.com"]),
    st.sampled_from([SNAPSHOT_EVENTS, THIN_EVENTS, frozenset({"x.y"})]),
)


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    """Anything that people may have left behind, as far as Stripe allows it."""
    found = draw(st.lists(_PLAN_IDS, unique=True))
    names = st.sampled_from(["Starter", "?"])
    prices = draw(
        st.lists(st.tuples(_PLAN_IDS, _CONTENTS, st.booleans(), _OPTIONAL_ROLES, st.integers(0, 3)), max_size=6)
    )
    held = []
    keys: set[str] = set()
    for number, (plan_id, content, active, role, key_kind) in enumerate(prices):
        key = {
            0: None,
            1: "price_by_name",
            2: f"gatekeeper:{plan_id}:licensed:{content.digest}",
            3: f"gatekeeper:{plan_id}:metered:{content.digest}",
        }[key_kind]
        if key in keys:
            key = None
        keys |= {key} if key else set()
        if plan_id in found:
            marks = (plan_id, role) if role else (None, None)
            held.append(HeldPrice(f"price_{number}", f"gatekeeper_{plan_id}", content, active, key, *marks, number))
    ids = [price.id for price in held]
    products = tuple(
        HeldProduct(
            f"gatekeeper_{plan_id}",
            draw(names),
            draw(st.booleans()),
            draw(st.sampled_from([None, plan_id])),
            draw(st.sampled_from([None, *(one for one in ids if held[ids.index(one)].product_id.endswith(plan_id))])),
        )
        for plan_id in found
    )
    portal = st.builds(Portal, st.sampled_from([None, URL]), st.just((("invoice_history", "off"),)))
    portals = draw(st.lists(st.tuples(portal, st.booleans()), max_size=3))
    endpoints = draw(st.lists(st.tuples(_ENDPOINTS, st.booleans(), st.booleans(), st.booleans()), max_size=4))
    meters = draw(st.lists(st.booleans(), max_size=2).filter(lambda active: sum(active) <= 1))
    return Account(
        tuple(HeldMeter(f"mtr_{at}", Meter(METER, "?"), active) for at, active in enumerate(meters)),
        products,
        tuple(held),
        tuple(HeldPortal(f"bpc_{at}", one, on or at == 0, at == 0, at) for at, (one, on) in enumerate(portals)),
        tuple(
            HeldEndpoint(f"we_{at}", one, on, ours, seen or not ours, at)
            for at, (one, on, ours, seen) in enumerate(endpoints)
        ),
    )


@settings(max_examples=150, deadline=None)
@given(plans=_PLANS, account=accounts())
def test_carrying_out_a_difference_reaches_what_is_wanted_from_any_account(plans: list[Plan], account: Account) -> None:
    want = of(*plans)
    first = differ(want, account)
    # Nothing is carried out where there is a problem.
    assume(not first.problems)
    after = carried_out(account, first.changes)
    assert differ(want, after).changes == ()
    found = sold(want, after)
    for price in want.prices:
        held = next(one for one in after.prices if one.id == getattr(found.prices[price.plan_id], price.role.value))
        assert held.active and held.content == price.content
        assert found.plan_of[held.id] == price.plan_id


def test_a_price_with_the_mark_of_one_role_and_the_key_of_the_other_serves_one_role_only() -> None:
    want = of(STARTER)
    licensed = next(price for price in want.prices if price.role is Role.LICENSED)
    metered = next(price for price in want.prices if price.role is Role.METERED)
    assert licensed.content is not None
    mixed = HeldPrice(
        "price_0", "gatekeeper_starter", licensed.content, True, metered.lookup_key, "starter", "licensed", 0
    )
    account = Account((), (HeldProduct("gatekeeper_starter", "Starter", True, "starter", None),), (mixed,), (), ())
    after = carried_out(account, differ(want, account).changes)
    assert differ(want, after).changes == ()
    assert sold(want, after).prices["starter"].licensed == "price_0"


def test_a_name_by_hand_of_another_plans_price_is_a_problem() -> None:
    want = of(a_plan(stripe_price="price_by_name"), a_plan("pro"))
    content = next(price.content for price in want.prices if price.role is Role.LICENSED)
    assert content is not None
    held = HeldPrice("price_0", "gatekeeper_pro", content, True, "price_by_name", "pro", "licensed", 0)
    found = differ(want, Account((), (), (held,), (), ()))
    assert found.problems == (
        "plan 'starter': the licensed price 'price_by_name' (price_0) was made by hand and is marked as the licensed "
        "price of plan 'pro'",
    )


@settings(max_examples=60, deadline=None)
@given(plans=_PLANS, account=accounts(), broken_at=st.integers(0, 20))
def test_a_run_that_broke_off_is_finished_by_the_next(plans: list[Plan], account: Account, broken_at: int) -> None:
    want = of(*plans)
    half = carried_out(account, differ(want, account).changes[:broken_at])
    after = carried_out(half, differ(want, half).changes)
    whole = carried_out(account, differ(want, account).changes)
    assert differ(want, after).changes == ()
    if not differ(want, account).problems:
        assert _shape(after) == _shape(whole)


def _shape(account: Account) -> Any:
    """Without ids."""
    active = sorted((held.plan_id or "", held.role or "", held.content.text) for held in account.prices if held.active)
    products = sorted((held.id, held.name, held.active, held.plan_id or "") for held in account.products)
    endpoints = sorted(
        (held.endpoint.payload, held.endpoint.url, held.ours, held.enabled) for held in account.endpoints
    )
    return active, products, endpoints, [(held.portal, held.active) for held in account.portals if held.active]


def test_the_words_for_a_price_are_those_of_people() -> None:
    (_, metered) = of(STARTER).prices
    assert metered.content is not None
    assert metered.content.text == "up to 100000 $0, then $0.002 each, of meter gatekeeper_units, per month"
    assert Price("starter", Role.METERED, "gatekeeper_starter", None, "x").title == "starter metered"
