"""Whether a call is sent to the next upstream."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gatekeeper.rules.failover import IDEMPOTENT_METHODS, Retry, may_repeat

METHODS = st.sampled_from([*sorted(IDEMPOTENT_METHODS), "POST", "PATCH"])


@given(METHODS, st.sampled_from(Retry), st.booleans())
def test_what_was_not_acted_on_always_moves_on(method, retry, keyed):
    assert may_repeat(retry, method, unsent=True, keyed=keyed)


@pytest.mark.parametrize(
    ("retry", "method", "keyed", "expected"),
    [
        (Retry.UNSENT, "POST", True, False),
        (Retry.UNSENT, "GET", False, False),
        (Retry.IDEMPOTENT, "POST", False, False),
        (Retry.IDEMPOTENT, "POST", True, True),
        (Retry.IDEMPOTENT, "GET", False, True),
        (Retry.IDEMPOTENT, "PATCH", False, False),
        (Retry.ALWAYS, "POST", False, True),
    ],
)
def test_what_may_have_been_acted_on_moves_on_only_where_twice_is_as_once(retry, method, keyed, expected):
    assert may_repeat(retry, method, unsent=False, keyed=keyed) is expected


@given(METHODS, st.booleans(), st.booleans())
def test_each_word_allows_what_the_one_before_it_allows(method, unsent, keyed):
    allowed = [may_repeat(retry, method, unsent=unsent, keyed=keyed) for retry in Retry]
    assert allowed == sorted(allowed)
