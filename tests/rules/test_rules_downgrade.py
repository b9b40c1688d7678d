"""Which cheaper model serves, and when."""

from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.downgrade import HYSTERESIS_PERCENT, cheaper, is_soft

CHAINS = (("gpt-4o", "gpt-4o-mini", "gpt-4.1-nano"), ("opus", "sonnet"))
AMOUNT = st.integers(0, 10**15)


def test_the_next_ones_of_the_first_chain_that_holds_a_model():
    assert cheaper(CHAINS, "gpt-4o") == ("gpt-4o-mini", "gpt-4.1-nano")
    assert cheaper(CHAINS, "gpt-4o-mini") == ("gpt-4.1-nano",)
    assert cheaper(CHAINS, "opus") == ("sonnet",)


def test_the_last_one_and_strangers_stay_what_they_are():
    assert cheaper(CHAINS, "sonnet") == cheaper(CHAINS, "other") == cheaper(CHAINS, None) == cheaper((), "x") == ()


def test_a_later_chain_goes_on_where_another_ends():
    assert cheaper((("a", "b"), ("b", "c")), "b") == ("c",)


def test_the_line_is_met_by_what_was_used_and_the_call_itself():
    assert not is_soft(700, 99, 1000, 80, was_soft=False)
    assert is_soft(700, 100, 1000, 80, was_soft=False)


def test_it_goes_back_only_some_points_below_the_line():
    assert is_soft(750, 0, 1000, 80, was_soft=True)
    assert not is_soft(749, 0, 1000, 80, was_soft=True)


@given(AMOUNT, AMOUNT, st.integers(1, 10**15), st.integers(1, 100), st.booleans(), AMOUNT)
def test_more_use_never_brings_the_dear_model_back(used, own, cap, soft_at, was, more):
    if is_soft(used, own, cap, soft_at, was_soft=was):
        assert is_soft(used + more, own, cap, soft_at, was_soft=was)
        assert is_soft(used, own, cap, soft_at, was_soft=True)


@given(st.integers(HYSTERESIS_PERCENT + 1, 100), st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_it_turns_only_across_the_whole_band(soft_at, figures):
    soft = False
    for used in figures:
        now = is_soft(used, 0, 1000, soft_at, was_soft=soft)
        if now != soft:
            assert used * 100 >= soft_at * 1000 if now else used * 100 < (soft_at - HYSTERESIS_PERCENT) * 1000
        soft = now
