"""docs/billing.md: its configuration is read, and its figures are those of the code."""

import re
from pathlib import Path

from billing_account import VARIABLE

from gatekeeper.assembly import REPORT_WAIT_S
from gatekeeper.billing import outbox
from gatekeeper.config import parse_gateway
from gatekeeper.config.stripe import FLUSH_INTERVAL_MAX_S
from gatekeeper.rules import billing
from gatekeeper.rules.windows import DAY_MS, HOUR_MS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "billing.md").read_text(encoding="utf-8")
REAL_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "billing-real-account.md").read_text(encoding="utf-8")
SUITE = Path(__file__).with_name("test_billing_account.py")
BLOCKS = dict(re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL))
GATEWAY = """
[upstreams.acme]
url = "https://llm.acme.test"
[[routes]]
name = "acme"
path = "/acme/chat"
upstream = "acme"
"""


def test_the_page_on_real_accounts_names_every_test_that_asks_one():
    named = set(re.findall(r"`(test_\w+)`", REAL_PAGE))
    asking = set(re.findall(r"^def (test_\w+)\(kind\)", SUITE.read_text(encoding="utf-8"), re.MULTILINE))
    assert named == asking
    assert f"{VARIABLE}=sk_test_... .venv/bin/pytest -n0 tests/billing/{SUITE.name}" in REAL_PAGE


def test_the_configuration_of_the_page_is_read():
    variables = {"STRIPE_SECRET_KEY": "sk_test_0123456789", "STRIPE_WEBHOOK_SECRET": "whsec_0123456789"}
    plans = {"plans/free.toml": "monthly_price = 0\n"}
    gateway = parse_gateway(GATEWAY + BLOCKS["toml"], "gateway.toml", plans, variables)
    assert (gateway.stripe.enabled, gateway.warnings) == (True, ())
    assert gateway.stripe.flush_interval_s == FLUSH_INTERVAL_MAX_S


def test_the_figures_of_the_page_are_those_of_the_code():
    said = " ".join(PAGE.split())
    assert f"({FLUSH_INTERVAL_MAX_S} s at most)" in said
    assert f"more than {billing.SETTLED_GRACE_MS // 60_000} minutes after the period's end" in said
    assert f"more than {billing.FROZEN_GRACE_MS // 60_000} after it" in said
    assert billing.FINAL_MS == HOUR_MS
    assert "closed an hour after its period's end" in said
    assert f"used more than {(billing.AGE_MAX_MS + HOUR_MS) // DAY_MS} days ago" in said
    assert f"more than {len(str(billing.VALUE_MAX))} digits" in said
    delays = [billing.retry_delay_ms(attempt, 0.0) // 1000 for attempt in (1, 2, 3, 99)]
    assert delays == [5, 15, 45, 3_600]
    assert "after 5 s, 15 s, 45 s and so on, up to an hour" in said
    assert f"nothing known for {billing.RESEND_SAFE_MS // HOUR_MS} hours" in said
    assert f"not taken for {billing.AGE_WARNED_MS // DAY_MS} days" in said
    assert billing.REOPENED_MAX == 3
    assert "three times at most" in said
    assert outbox.LEASE_S == 120
    assert "a lease of two minutes" in said
    assert f"sends for at most {REPORT_WAIT_S:g} s" in said
    assert billing.BACKLOG_BOUND_MS == HOUR_MS
    # What is settled in time is frozen in time, and has time to arrive.
    assert billing.SETTLED_GRACE_MS + FLUSH_INTERVAL_MAX_S * 1000 <= billing.FROZEN_GRACE_MS < billing.FINAL_MS
    assert outbox.ATTEMPT_S < outbox.LEASE_S / 2
