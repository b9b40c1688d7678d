"""``[mail]``: the server for what the gateway itself writes to people."""

import pytest

from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import MailSecurity, MailServer, MailTarget, Secret
from gatekeeper.config.mail import ALERTS_TARGET
from gatekeeper.diagnostics import Mistakes
from gatekeeper.rules.notices import Kind

GATEWAY = """
[upstreams.acme]
url = "https://llm.acme.test"
[[routes]]
name = "acme"
path = "/acme/chat"
upstream = "acme"
"""


def read(text, **env):
    return parse_gateway(GATEWAY + text, "gateway.toml", {"plans/free.toml": "monthly_price = 0\n"}, env)


def test_a_mail_server_also_sends_the_customers_own_alerts():
    gateway = read('[mail]\nhost = "smtp.test"\nfrom = "a@x.test"\nuser = "u"\npassword = "${WORD}"\n', WORD="hush")
    server = MailServer("smtp.test", 587, MailSecurity.STARTTLS, "a@x.test", "u", Secret("hush"))
    assert gateway.mail == server
    (alerts,) = gateway.notifications
    assert alerts.target == MailTarget(server)
    assert alerts.subscription.target == ALERTS_TARGET
    assert alerts.subscription.takes(Kind.ALERT_REACHED, "acme", {})
    assert not alerts.subscription.takes(Kind.ALERT_REACHED, None, {})
    assert not alerts.subscription.takes(Kind.INVOICE_PAID, "acme", {})
    assert "hush" not in repr(gateway)


def test_without_one_nobody_is_mailed():
    gateway = read("")
    assert (gateway.mail, gateway.notifications) == (None, ())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[mail]\nhost = "smtp.test"\n', "'from' is missing here"),
        ('[mail]\nhost = "smtp.test"\nfrom = "a@x.test, b@x.test"\n', "this is no e-mail address"),
        ('[mail]\nhost = "smtp.test"\nfrom = "a@x.test"\nto = "b@x.test"\n', "to"),
        ('[mail]\nhost = "smtp.test"\nfrom = "a@x.test"\nuser = "u"\n', "'password' is missing beside it"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(Mistakes) as raised:
        read(text)
    assert said in raised.value.render()
