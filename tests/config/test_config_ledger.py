"""[ledger]: what becomes of calls while the database is away."""

import pytest

from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import LedgerConfig, OnLedgerFailure
from gatekeeper.diagnostics import Mistakes

PLANS = {"free.toml": 'name = "Free"\nmonthly_price = 0\n'}
REST = """
[upstreams.openai]
url = "https://api.openai.com"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "openai"
"""


def _ledger(text: str) -> LedgerConfig:
    return parse_gateway(f'plans = "plans"\n[ledger]\n{text}\n{REST}', "gateway.toml", PLANS, {}).ledger


def test_the_ledger_fails_closed_unless_it_is_said():
    found = _ledger("")
    assert (found.on_ledger_failure, found.open_requests_max, found.open_units_max) == (
        OnLedgerFailure.CLOSED,
        100,
        100_000,
    )


def test_it_may_fail_open_within_an_allowance():
    found = _ledger('on_ledger_failure = "open"\nopen_requests_max = 0\nopen_units_max = 2_000_000')
    assert (found.on_ledger_failure, found.open_requests_max, found.open_units_max) == (
        OnLedgerFailure.OPEN,
        0,
        2_000_000,
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('on_ledger_failure = "opne"', "did you mean"),
        ("on_ledger_failure = true", "on_ledger_failure"),
        ("open_requests_max = -1", "open_requests_max"),
        ('open_units_max = "unlimited"', "open_units_max"),
    ],
)
def test_what_is_no_allowance_is_a_mistake(text, told):
    with pytest.raises(Mistakes, match=told):
        _ledger(text)
