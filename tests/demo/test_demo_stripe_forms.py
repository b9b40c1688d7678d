"""Forms and types: what the SDK sends is what the fake reads, and nothing else gets through."""

from decimal import Decimal
from urllib.parse import urlencode

import pytest
from fakes.sdk import with_stripe
from hypothesis import given, settings
from hypothesis import strategies as st
from stripe._encode import _api_encode
from stripe.params import PriceCreateParams, SubscriptionUpdateParams
from stripe.params.billing import MeterEventCreateParams

from gatekeeper.demo.stripe import InvalidCalls, Refused
from gatekeeper.demo.stripe.forms import BadForm, parse_form
from gatekeeper.demo.stripe.params import typed

NAMES = st.text("abcdefghij_", min_size=1, max_size=6)
LEAVES = st.text(max_size=12)
NESTED = st.recursive(
    LEAVES,
    lambda below: st.dictionaries(NAMES, below, min_size=1, max_size=3) | st.lists(below, min_size=1, max_size=3),
    max_leaves=8,
)
PRICE = {"currency": "usd", "product": "prod_1"}


@settings(max_examples=150)
@given(st.dictionaries(NAMES, NESTED, max_size=4))
def test_what_the_sdk_encodes_is_read_back(params):
    assert parse_form(urlencode(list(_api_encode(params)))) == params


@pytest.mark.parametrize("text", ["a[b=1", "a]=1", "=1", "a=1&a[b]=2", "novalue"])
def test_a_form_that_makes_no_sense_is_refused(text):
    with pytest.raises(BadForm):
        parse_form(text)


def test_leaves_get_the_types_of_the_sdk():
    got = typed(
        {**PRICE, "active": "true", "unit_amount_decimal": "0.2", "metadata": {"plan": "1"},
         "recurring": {"interval": "month", "interval_count": "3"}, "expand": ["tiers"]},
        PriceCreateParams,
    )  # fmt: skip
    assert got["active"] is True
    assert got["unit_amount_decimal"] == Decimal("0.2")
    assert got["recurring"] == {"interval": "month", "interval_count": 3}
    assert got["metadata"] == {"plan": "1"}


@pytest.mark.parametrize(
    ("change", "param", "code"),
    [
        ({"colour": "red"}, "colour", "parameter_unknown"),
        ({"recurring": {"interval": "month", "every": "1"}}, "recurring[every]", "parameter_unknown"),
        ({"recurring": {"interval_count": "1"}}, "recurring[interval]", "parameter_missing"),
        ({"unit_amount": "12.5"}, "unit_amount", "parameter_invalid_integer"),
        ({"unit_amount_decimal": "1E-7"}, "unit_amount_decimal", "parameter_invalid_decimal"),
        ({"unit_amount_decimal": "0.1234567890123"}, "unit_amount_decimal", "parameter_invalid_decimal"),
        ({"active": "yes"}, "active", "parameter_invalid_bool"),
        ({"tiers": {"up_to": "1"}}, "tiers", "parameter_invalid_array"),
        ({"tiers": [{"up_to": "all"}]}, "tiers[0][up_to]", "invalid_enum"),
        ({"recurring": {"interval": "monthly"}}, "recurring[interval]", "invalid_enum"),
        ({"billing_scheme": "tierd"}, "billing_scheme", "invalid_enum"),
        ({"api_key": "sk"}, "api_key", "parameter_unknown"),
        ({"idempotency_key": "k"}, "idempotency_key", "parameter_unknown"),
    ],
)
def test_what_the_types_do_not_know_is_a_400_that_names_it(change, param, code):
    with pytest.raises(Refused) as refused:
        typed({**PRICE, **change}, PriceCreateParams)
    assert (refused.value.status, refused.value.param, refused.value.saved) == (400, param, False)
    assert refused.value.code == code


def test_an_empty_text_unsets_where_the_sdk_allows_it_and_open_texts_stay_open():
    assert typed({"metadata": ""}, SubscriptionUpdateParams) == {"metadata": ""}
    assert typed({"description": "any words"}, SubscriptionUpdateParams) == {"description": "any words"}
    assert typed({"trial_end": "now"}, SubscriptionUpdateParams) == {"trial_end": "now"}
    assert typed({"trial_end": "1781524800"}, SubscriptionUpdateParams) == {"trial_end": 1781524800}


def test_a_missing_payload_is_named():
    with pytest.raises(Refused, match="Missing required param: payload"):
        typed({"event_name": "tokens"}, MeterEventCreateParams)


@pytest.mark.parametrize("params", [{"emial": "a@b.c"}, {"email": "a@b.c", "balance": "much"}])
def test_an_invalid_call_fails_the_test_that_made_it_even_if_its_error_was_swallowed(params):
    async def body(fake, sdk):
        with pytest.raises(Exception, match=r"unknown parameter|Invalid integer"):
            await sdk.v1.customers.create_async(params)
        assert len(fake.requests.invalid) == 1

    with pytest.raises(InvalidCalls, match=r"/v1/customers"):
        with_stripe(body)
    with_stripe(body, check=False)


def test_an_unknown_url_fails_the_test_too():
    async def body(fake, sdk):
        with pytest.raises(Exception, match="Unrecognized request URL"):
            await sdk.v1.coupons.create_async({"percent_off": 10})

    with pytest.raises(InvalidCalls, match="coupons"):
        with_stripe(body)
