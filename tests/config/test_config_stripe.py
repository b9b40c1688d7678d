"""``[stripe]`` as it is meant, and what becomes of a customer whose subscription has ended."""

from pathlib import Path

import pytest

from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import Secret, StripeConfig
from gatekeeper.diagnostics import Mistakes

GATEWAY = """
[upstreams.acme]
url = "https://llm.acme.test"
[[routes]]
name = "acme"
path = "/acme/chat"
upstream = "acme"
"""
PLANS = {"plans/free.toml": "monthly_price = 0\n", "plans/pro.toml": "monthly_price = 9\n"}
KEY, HOOK, NEXT = "sk_test_0123456789", "whsec_0123456789", "whsec_9876543210"


def read(text, plans=PLANS, **env):
    return parse_gateway(GATEWAY + text, "gateway.toml", plans, env, directory=Path("etc"))


def wrong(text, plans=PLANS, **env):
    with pytest.raises(Mistakes) as raised:
        read(text, plans, **env)
    message = raised.value.render()
    for secret in (KEY, HOOK, NEXT):
        assert secret not in message
    return message


def test_nothing_is_reported_where_nothing_is_said():
    """Pitfall 50: disabled is disabled, whatever secrets lie around."""
    for gateway in (read(""), read("", STRIPE_SECRET_KEY=KEY, STRIPE_WEBHOOK_SECRET=HOOK)):
        assert not gateway.stripe.enabled
        assert not gateway.stripe.reports
    assert read("").stripe == StripeConfig()


def test_all_of_it():
    text = """
[stripe]
enabled = true
secret_key = "${MY_KEY}"
webhook_secrets = ["${MY_HOOK}", "whsec_9876543210"]
api_base = "http://127.0.0.1:12111/"
flush_interval_s = 60
meter = "tokens"
paper = "paper.jsonl"
grace_days = 3
"""
    gateway = read(text, MY_KEY=KEY, MY_HOOK=HOOK)
    assert gateway.stripe == StripeConfig(
        enabled=True,
        secret_key=Secret(KEY),
        webhook_secrets=(Secret(HOOK), Secret(NEXT)),
        api_base="http://127.0.0.1:12111",
        flush_interval_s=60.0,
        meter="tokens",
        paper=Path("etc/paper.jsonl"),
        grace_days=3,
    )
    assert gateway.warnings == ()
    assert KEY not in repr(gateway)
    assert NEXT not in repr(gateway)


def test_variables_beat_the_file():
    """Pitfalls 41 and 50: several secrets while one is being replaced; a flag that turns all of it off."""
    on = f'[stripe]\nenabled = true\nsecret_key = "sk_test_other_one"\nwebhook_secrets = ["{HOOK}"]\n'
    assert not read(on, STRIPE_METERING_ENABLED="false").stripe.enabled
    found = read(on, STRIPE_SECRET_KEY=KEY, STRIPE_WEBHOOK_SECRET=f"{NEXT}, {HOOK}").stripe
    assert (found.secret_key, found.webhook_secrets) == (Secret(KEY), (Secret(NEXT), Secret(HOOK)))
    found = read("", STRIPE_METERING_ENABLED="TRUE", STRIPE_SECRET_KEY=KEY, STRIPE_WEBHOOK_SECRET=HOOK).stripe
    assert found.enabled


@pytest.mark.parametrize(
    ("text", "env"),
    [
        ("[stripe]\nenabled = true\n", {}),
        ("[stripe]\nenabled = true\n", {"STRIPE_SECRET_KEY": ""}),
        ('[stripe]\nenabled = true\nsecret_key = "${STRIPE_SECRET_KEY:-}"\n', {}),
        ("", {"STRIPE_METERING_ENABLED": "true"}),
    ],
)
def test_an_empty_secret_does_not_start(text, env):
    """Pitfall 42: enabled with an empty secret."""
    assert "Stripe is enabled, and its secret key is empty" in wrong(text, **env)


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('webhook_secrets = [""]', "empty"),
        ('webhook_secrets = ["${NO_SUCH}"]', "NO_SUCH is not set"),
        ('webhook_secrets = "whsec_0123456789"', "a list is expected"),
        ('secret_key = "two words of it"', "no key of Stripe"),
        ('api_base = "http://stripe.test"', "in the clear"),
        ('api_base = "https://user@stripe.test"', "not the base of an API"),
        ('api_base = "https://stripe.test/v1"', "not the base of an API"),
        ('api_base = "https://stripe.test:port"', "cannot be read"),
        ("flush_interval_s = 301", "out of range"),
        ('meter = "two words"', "not allowed here"),
        ("grace_days = -1", "out of range"),
        ("grace = 1", "grace_days"),
    ],
)
def test_a_mistake_is_told_and_shows_no_secret(line, word):
    assert word in wrong(f"[stripe]\n{line}\n")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRIPE_METERING_ENABLED", "maybe"),
        ("STRIPE_SECRET_KEY", "short"),
        ("STRIPE_WEBHOOK_SECRET", f"{HOOK},"),
        ("STRIPE_WEBHOOK_SECRET", ",".join([HOOK] * 6)),
    ],
)
def test_a_wrong_variable_is_named_and_not_shown(name, value):
    message = wrong("", **{name: value})
    assert name in message
    assert value not in message


def test_without_a_webhook_secret_a_warning_is_given():
    gateway = read("[stripe]\nenabled = true\n", STRIPE_SECRET_KEY=KEY)
    assert [warning.message for warning in gateway.warnings] == [
        "without a webhook secret nobody hears of payments and of subscriptions that end"
    ]


def test_what_becomes_of_a_customer_who_cancels():
    plans = {**PLANS, "plans/pro.toml": 'monthly_price = 9\non_cancel = "free"\ntrial_days = 14\n'}
    assert (read("", plans).plans["pro"].on_cancel, read("", plans).plans["pro"].trial_days) == ("free", 14)
    plans = {**PLANS, "plans/pro.toml": 'monthly_price = 9\non_cancel = "disable"\n'}
    assert read("", plans).plans["pro"].on_cancel == "disable"
    for value, word in [("fre", "did you mean 'free'"), ("pro", "nobody pays for 'pro'"), ("A B", "cannot be a plan")]:
        assert word in wrong("", {**PLANS, "plans/pro.toml": f'monthly_price = 9\non_cancel = "{value}"\n'})
    assert "out of range" in wrong("", {**PLANS, "plans/pro.toml": "monthly_price = 9\ntrial_days = 731\n"})
