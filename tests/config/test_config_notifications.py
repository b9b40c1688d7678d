"""``[[notifications]]`` as it is meant."""

from pathlib import Path

import pytest

from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import MailSecurity, MailServer, MailTarget, Secret, WebhookTarget
from gatekeeper.config.mail import is_address
from gatekeeper.diagnostics import Mistakes
from gatekeeper.rules.notices import Kind, Subscription

GATEWAY = """
[upstreams.acme]
url = "https://llm.acme.test"
[[routes]]
name = "acme"
path = "/acme/chat"
upstream = "acme"
"""
KEY = "c2VjcmV0IG9mIHRoZSBjb25maWd1cmF0aW9uIHRlc3Rz"


def read(text, **env):
    return parse_gateway(
        GATEWAY + text, "gateway.toml", {"plans/free.toml": "monthly_price = 0\n"}, env, directory=Path("etc")
    )


def test_a_web_hook_with_its_defaults():
    text = """
[[notifications]]
name = "books"
kind = "webhook"
url = "https://example.com/hooks?token=${TOKEN}"
secret = "${HOOK_SECRET}"
events = ["usage.recorded", "limit.threshold"]
"""
    gateway = read(text, TOKEN="t0k", HOOK_SECRET=f"whsec_{KEY}")
    (one,) = gateway.notifications
    assert one.subscription == Subscription(
        "books", frozenset({Kind.USAGE_RECORDED, Kind.LIMIT_THRESHOLD}), (80, 95, 100)
    )
    assert one.target == WebhookTarget(Secret("https://example.com/hooks?token=t0k"), (Secret(KEY),), None)
    assert "t0k" not in repr(one)
    assert KEY not in repr(one)
    assert gateway.generation != read(text, TOKEN="other", HOOK_SECRET=f"whsec_{KEY}").generation
    with pytest.raises(Mistakes, match="HOOK_SECRET is not set"):
        read(text, TOKEN="t0k")


def test_mail_to_customers_and_to_operators():
    entry = """
[[notifications]]
name = "{name}"
kind = "mail"
host = "smtp.example.com"
user = "postman"
password = "${{SMTP_PASSWORD}}"
from = "billing@example.com"
to = {to}
events = ["limit.threshold"]
thresholds = [100, 50, 100]
{more}
"""
    more = 'tls = "tls"\nca_file = "ca.pem"'
    text = entry.format(name="customers", to='"customer"', more="") + entry.format(
        name="ops", to='["a@x.test", "b@x.test"]', more=more
    )
    customers, ops = read(text, SMTP_PASSWORD="hush").notifications
    assert customers.subscription == Subscription(
        "customers", frozenset({Kind.LIMIT_THRESHOLD}), (50, 100), of_customers=True
    )
    assert customers.target == MailTarget(
        MailServer("smtp.example.com", 587, MailSecurity.STARTTLS, "billing@example.com", "postman", Secret("hush"))
    )
    assert (ops.target.server.port, ops.target.to) == (465, ("a@x.test", "b@x.test"))
    assert ops.target.server.ca_file == Path("etc/ca.pem")
    assert "hush" not in repr(customers)


@pytest.mark.parametrize(
    "line",
    ['secrets = ["whsec_hush-hush", x]', 'secret = "hush-hush', 'url = "https://h.test/?token=hush-hush', "x = ["],
)
def test_a_file_that_is_not_toml_shows_no_secret_either(line):
    with pytest.raises(Mistakes) as raised:
        read(f"[[notifications]]\n{line}\n")
    assert "hush" not in raised.value.render()


def test_nothing_written_tells_nobody():
    assert read("").notifications == ()


@pytest.mark.parametrize("text", ["a@b.test", "first.last+tag@sub.example.com", "o'hara@example.com"])
def test_addresses(text):
    assert is_address(text)


NOT_ONE = ["a", "a@", "@b", "a@b\n", "a b@c", "a@b,c@d", "<a@b>", "a@-b", "a@b-", "ä@b", "a@" + "b" * 255]


@pytest.mark.parametrize("text", NOT_ONE)
def test_what_is_no_address(text):
    assert not is_address(text)
