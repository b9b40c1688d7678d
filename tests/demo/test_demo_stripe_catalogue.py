"""Products and prices, and the arithmetic of prices and periods."""

from datetime import UTC, datetime
from decimal import Decimal

import pytest
import stripe
from fakes.sdk import open_shop, with_stripe
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.demo.stripe.cycles import boundary_s, next_boundary_s
from gatekeeper.demo.stripe.pricing import charges, round_cents, total_cents

MONTHLY = {"interval": "month"}


def stamp(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def tier(up_to, unit, flat=None):
    return {"up_to": up_to, "unit_amount_decimal": unit, "flat_amount_decimal": flat}


def graduated(*tiers):
    return {"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": list(tiers)}


@pytest.mark.parametrize(
    ("quantity", "cents"),
    [(0, 0), (99_999, 0), (100_000, 0), (100_001, 0), (100_002, 0), (100_003, 1), (100_005, 1), (1_000_000, 180_000)],
)
def test_overage_is_charged_above_the_edge_and_rounded_once(quantity, cents):
    # 0.2 cents a token: the first is 0.2, the third 0.6, which is the first that rounds up.
    price = graduated(tier(100_000, "0"), tier(None, "0.2"))
    made = charges(price, quantity)
    assert sum(charge.cents for charge in made) == cents
    assert sum(charge.quantity for charge in made) == quantity


def test_half_a_cent_is_rounded_up_as_the_documentation_says():
    assert total_cents({"billing_scheme": "per_unit", "unit_amount_decimal": "0.05"}, 30) == 2
    assert (round_cents(Decimal("0.5")), round_cents(Decimal("2.5")), round_cents(Decimal("-0.5"))) == (1, 3, -1)


def test_flat_amounts_count_once_for_each_tier_that_is_reached():
    price = graduated(tier(10, "5", "100"), tier(None, "1", "7"))
    assert [total_cents(price, quantity) for quantity in (0, 10, 11)] == [100, 150, 158]


def test_volume_prices_everything_in_one_tier():
    price = {"billing_scheme": "tiered", "tiers_mode": "volume", "tiers": [tier(10, "5"), tier(None, "1")]}
    assert [total_cents(price, quantity) for quantity in (10, 11)] == [50, 11]


def test_a_package_is_divided_before_it_is_priced():
    price = {"billing_scheme": "per_unit", "unit_amount_decimal": "1000"}
    up = {**price, "transform_quantity": {"divide_by": 60, "round": "up"}}
    down = {**price, "transform_quantity": {"divide_by": 60, "round": "down"}}
    assert (total_cents(up, 150), total_cents(down, 150)) == (3_000, 2_000)


@settings(max_examples=100)
@given(st.integers(0, 10**12), st.integers(1, 10**6), st.decimals(0, 5, places=6))
def test_graduated_equals_the_sum_unit_by_unit(quantity, included, each):
    price = graduated(tier(included, "0"), tier(None, format(each, "f")))
    assert total_cents(price, quantity) == round_cents(max(0, quantity - included) * each)


def test_the_31st_is_the_last_day_of_a_shorter_month_and_comes_back():
    anchor = stamp("2027-01-31T10:30:00")
    found = [datetime.fromtimestamp(boundary_s(anchor, "month", 1, n), UTC).strftime("%m-%d %H:%M") for n in range(6)]
    assert found == ["01-31 10:30", "02-28 10:30", "03-31 10:30", "04-30 10:30", "05-31 10:30", "06-30 10:30"]
    leap = boundary_s(stamp("2024-02-29T00:00:00"), "year", 1, 1)
    assert datetime.fromtimestamp(leap, UTC).date().isoformat() == "2025-02-28"
    assert boundary_s(anchor, "week", 2, 1) - anchor == 14 * 86_400


@settings(max_examples=100)
@given(
    st.integers(stamp("2020-01-01"), stamp("2030-01-01")),
    st.sampled_from(["day", "week", "month", "year"]),
    st.integers(1, 3),
    st.integers(-(10**7), 10**7),
)
def test_the_next_boundary_is_the_first_after(anchor, interval, count, off):
    found = next_boundary_s(anchor, interval, count, anchor + off)
    all_near = {boundary_s(anchor, interval, count, n) for n in range(-130, 130)}
    assert found > anchor + off
    assert found in all_near
    assert not any(anchor + off < other < found for other in all_near)


def test_a_price_shows_whole_and_decimal_cents_as_documented():
    async def body(fake, sdk):
        product = (await sdk.v1.products.create_async({"name": "P"})).id
        params = {"product": product, "currency": "usd", "recurring": MONTHLY}
        whole = await sdk.v1.prices.create_async({**params, "unit_amount_decimal": Decimal(5)})
        part = await sdk.v1.prices.create_async({**params, "unit_amount_decimal": Decimal("0.05")})
        assert (whole.unit_amount, str(whole.unit_amount_decimal)) == (5, "5")
        assert (part.unit_amount, str(part.unit_amount_decimal)) == (None, "0.05")
        # The SDK writes a small Decimal as 1E-7, which is no decimal on the wire.
        with pytest.raises(stripe.InvalidRequestError, match="1E-7"):
            await sdk.v1.prices.create_async({**params, "unit_amount_decimal": Decimal("0.0000001")})
        await sdk.v1.prices.create_async({**params, "unit_amount_decimal": "0.0000001"})

    with_stripe(body, check=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({}, "required"),
        ({"unit_amount": 1, "unit_amount_decimal": "1"}, "Only one"),
        ({"unit_amount": -1}, "negative"),
        ({"unit_amount": 1, "recurring": {"interval": "month", "usage_type": "metered"}}, "backed by a meter"),
        ({"unit_amount": 1, "recurring": {"interval": "month", "meter": "mtr_x"}}, "Only metered"),
        ({"billing_scheme": "tiered", "tiers_mode": "graduated", "tiers": [{"up_to": 5, "unit_amount": 1}]}, "inf"),
        ({"billing_scheme": "tiered", "tiers": [{"up_to": "inf", "unit_amount": 1}]}, "tiers_mode"),
        (
            {"billing_scheme": "tiered", "tiers_mode": "graduated",
             "tiers": [{"up_to": up_to, "unit_amount": 1} for up_to in (5, 5, "inf")]},
            "ascending",
        ),
        ({"unit_amount": 1, "tiers": [{"up_to": "inf", "unit_amount": 1}]}, "billing_scheme"),
        ({"unit_amount": 1, "product_data": {"name": "both"}}, "either"),
    ],
)  # fmt: skip
def test_a_price_that_makes_no_sense_is_refused(change, message):
    async def body(fake, sdk):
        await sdk.v1.products.create_async({"id": "prod_1", "name": "P"})
        with pytest.raises(stripe.InvalidRequestError, match=message):
            await sdk.v1.prices.create_async({"product": "prod_1", "currency": "usd", "recurring": MONTHLY, **change})

    with_stripe(body)


def test_amounts_never_change_but_a_price_can_be_archived():
    async def body(fake, sdk):
        shop = await open_shop(sdk)
        with pytest.raises(stripe.InvalidRequestError, match="unknown parameter: unit_amount"):
            await sdk.v1.prices.update_async(shop.licensed, {"unit_amount": 1})
        await sdk.v1.prices.update_async(shop.licensed, {"active": False, "nickname": "old"})
        active = await sdk.v1.prices.list_async({"active": True, "product": shop.product})
        assert [price.id for price in active.data] == [shop.metered]
        by_meter = await sdk.v1.prices.list_async({"recurring": {"meter": shop.meter}})
        assert [price.id for price in by_meter.data] == [shop.metered]
        with pytest.raises(stripe.InvalidRequestError, match="inactive"):
            await shop.subscribe(await shop.customer())

    with_stripe(body, check=False)


def test_a_lookup_key_has_one_holder_and_can_be_moved():
    async def body(fake, sdk):
        product = (await sdk.v1.products.create_async({"name": "P"})).id
        params = {"product": product, "currency": "usd", "recurring": MONTHLY, "lookup_key": "starter"}
        first = await sdk.v1.prices.create_async({**params, "unit_amount": 100})
        with pytest.raises(stripe.InvalidRequestError, match="already uses that lookup key"):
            await sdk.v1.prices.create_async({**params, "unit_amount": 200})
        second = await sdk.v1.prices.create_async({**params, "unit_amount": 200, "transfer_lookup_key": True})
        found = await sdk.v1.prices.list_async({"lookup_keys": ["starter", "other"]})
        assert [price.id for price in found.data] == [second.id]
        assert (await sdk.v1.prices.retrieve_async(first.id)).lookup_key is None
        with pytest.raises(stripe.InvalidRequestError, match="up to 10"):
            await sdk.v1.prices.list_async({"lookup_keys": [f"k{n}" for n in range(11)]})

    with_stripe(body)


def test_products_are_chosen_by_id_and_changed():
    async def body(fake, sdk):
        made = await sdk.v1.products.create_async({"id": "gk_starter", "name": "Starter", "unit_label": "token"})
        with pytest.raises(stripe.InvalidRequestError) as refused:
            await sdk.v1.products.create_async({"id": "gk_starter", "name": "Again"})
        assert refused.value.code == "resource_already_exists"
        assert (await sdk.v1.products.update_async(made.id, {"name": "New", "active": False})).name == "New"
        assert (await sdk.v1.products.list_async({"active": True})).data == []
        assert [one.id for one in (await sdk.v1.products.list_async({"ids": ["gk_starter"]})).data] == ["gk_starter"]

    with_stripe(body)
