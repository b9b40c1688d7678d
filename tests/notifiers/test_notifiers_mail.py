"""Mail as a mail server sees it."""

import asyncio
import ssl
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.postbox import Postbox
from notifiers_stand import PLANS, ROUTES

from gatekeeper.clock import SystemClock
from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import MailSecurity, MailServer
from gatekeeper.errors import Fault
from gatekeeper.notifiers.mail import MailNotifier, Post
from gatekeeper.notifiers.sending import Undelivered
from gatekeeper.ports import Customer
from gatekeeper.rules.notices import Event, Kind

CERTS = Path(__file__).resolve().parents[1] / "upstreams" / "certs"
CUSTOMER = Customer("acme", "Acme", "free", 0, 0, email="bills@acme.test")
REACHED = Event(
    "limit_1",
    Kind.LIMIT_THRESHOLD,
    "acme",
    1_750_000_000_000,
    {
        "threshold": 95,
        "limit": "quota",
        "scope": "customer",
        "subject": "acme",
        "dimension": "units",
        "window": "month",
        "starts_ms": 0,
        "resets_ms": 1_751_328_000_000,
        "mode": "overage",
        "cap": "1000000",
        "used": "950123.5",
        "call_id": "c1",
    },
)
TEXT = """\
95 % of the limit 'quota' is used: 950,123.5 of 1,000,000 units this month.
It counts for: customer acme.
What is used beyond it is charged.
It starts anew at 2025-07-01 00:00 UTC.

2025-06-15 15:06 UTC, event limit_1
"""


def target_of(port, *lines, host="127.0.0.1", tls="none", to='"ops@example.com"'):
    entry = [
        "[[notifications]]",
        'name = "post"',
        'kind = "mail"',
        'events = ["limit.threshold"]',
        f'host = "{host}"',
        f"port = {port}",
        f'tls = "{tls}"',
        'from = "billing@example.com"',
        f"to = {to}",
        *lines,
    ]
    gateway = parse_gateway(ROUTES + "\n".join(entry), "gateway.toml", PLANS, {})
    return gateway.notifications[0].target


def post(event=REACHED, customer=CUSTOMER, *, box=None, lines=(), **settings):
    """Hand one event over; what the server got."""

    async def run():
        postbox = box or Postbox()
        await postbox.start()
        notifier = MailNotifier(target_of(postbox.port, *lines, **settings))
        try:
            await notifier.send(event, customer)
        finally:
            await notifier.close()
            await postbox.stop()
        return postbox.mails

    return asyncio.run(run())


def server_tls():
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTS / "localhost.pem")
    return context


def test_a_threshold_is_told_in_words():
    (mail,) = post()
    message = mail.message
    assert (mail.sender, mail.to) == ("billing@example.com", ["ops@example.com"])
    assert message["Subject"] == "Acme: 95 % of quota used"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Date"] == "Sun, 15 Jun 2025 15:06:40 +0000"
    assert message.get_content().replace("\r\n", "\n") == TEXT
    assert message.get_content_type() == "text/plain"


def test_a_second_copy_is_recognised_by_its_id():
    (first,), (again,) = post(), post()
    (other,) = post(replace(REACHED, id="limit_2"))
    assert first.raw == again.raw
    assert first.message["Message-ID"] != other.message["Message-ID"]
    assert first.message["Message-ID"].endswith("@example.com>")


def test_the_customer_is_told_at_his_own_address():
    (mail,) = post(to='"customer"')
    assert (mail.to, mail.message["To"]) == (["bills@acme.test"], "bills@acme.test")


def test_several_operators_get_one_mail():
    (mail,) = post(to='["a@example.com", "b@example.com"]')
    assert mail.to == ["a@example.com", "b@example.com"]


@pytest.mark.parametrize("email", [None, "", "a@x.test, b@x.test", "a@x.test\r\nBcc: b@x.test", "nobody", "<a@x.test>"])
def test_an_address_that_is_none_is_given_up_at_once(email):
    with pytest.raises(Undelivered) as raised:
        post(customer=replace(CUSTOMER, email=email), to='"customer"')
    assert raised.value.final
    assert "e-mail address" in str(raised.value)


def test_names_cannot_make_headers_and_survive():
    name = "Acme\r\nBcc: b@x.test \U0001f680 \u2028Grüße\ud83d" + "x" * 300
    (mail,) = post(customer=replace(CUSTOMER, name=name))
    assert mail.to == ["ops@example.com"]
    assert "Bcc" not in mail.message
    assert mail.message["Subject"].startswith("Acme  Bcc: b@x.test \U0001f680  Grüße")


def test_what_all_share_and_money_are_told_too():
    content = {**REACHED.content, "scope": "global", "subject": "*", "dimension": "dollars", "used": "9.5", "cap": "10"}
    (mail,) = post(replace(REACHED, customer_id=None, content={**content, "mode": "block", "resets_ms": None}), None)
    assert mail.message["Subject"] == "global *: 95 % of quota used"
    text = mail.message.get_content()
    assert "$9.5 of $10 this month." in text
    assert "refused" in text
    assert "anew" not in text


def test_a_kind_without_words_of_its_own_is_told_by_its_figures():
    event = Event(
        "e1", "gatekeeper.payment.failed", "acme", 0, {"amount": "29", "tries": 2, "why": "card ünknown\n.\nx"}
    )
    (mail,) = post(event)
    assert mail.message["Subject"] == "Payment failed (Acme)"
    text = mail.message.get_content().replace("\r\n", "\n")
    assert text.startswith("amount: 29\ntries: 2\nwhy: card ünknown\n.\nx\n\n1970")


def test_starttls_and_the_password_go_only_to_a_server_that_is_trusted():
    box = Postbox(trusted=server_tls())
    lines = ('user = "postman"', 'password = "pass-word"', f'ca_file = "{CERTS}/authority.pem"')
    (mail,) = post(box=box, lines=lines, tls="starttls")
    assert (mail.user, mail.password, mail.encrypted) == ("postman", "pass-word", True)
    stranger = Postbox(trusted=server_tls())
    with pytest.raises(Undelivered, match="SSLCertVerificationError"):
        post(box=stranger, lines=lines[:2], tls="starttls")
    assert stranger.mails == []


def test_a_server_without_starttls_gets_neither_password_nor_mail():
    box = Postbox()
    with pytest.raises(Undelivered, match="SMTPNotSupportedError"):
        post(box=box, lines=('user = "postman"', 'password = "pass-word"'), tls="starttls")
    assert box.mails == []


def test_tls_from_the_first_byte():
    box = Postbox(trusted=server_tls(), implicit=True)
    (mail,) = post(box=box, lines=(f'ca_file = "{CERTS}/authority.pem"',), tls="tls", host="localhost")
    assert mail.encrypted


@pytest.mark.parametrize(
    ("verb", "said"),
    [
        ("AUTH", "535 postman is unknown here"),
        ("RCPT", "550 ops@example.com is unknown here"),
        ("DATA", "451 later"),
        ("MAIL", "421 busy"),
    ],
)
def test_what_a_server_refuses_is_told_by_its_number_alone(verb, said):
    lines = ('user = "postman"', 'password = "pass-word"')
    with pytest.raises(Undelivered) as raised:
        post(box=Postbox({verb: said}), lines=lines)
    assert said[:3] in str(raised.value)
    assert not raised.value.final
    for hidden in ("unknown here", "postman", "pass-word", "ops@"):
        assert hidden not in str(raised.value)


def test_one_address_that_is_refused_does_not_make_the_others_get_it_twice(caplog):
    class Choosy(dict):
        def __getitem__(self, verb):
            return super().__getitem__(verb).pop()

    box = Postbox(Choosy(RCPT=["550 no", "250 yes"]))
    (mail,) = post(box=box, to='["a@example.com", "b@example.com"]')
    assert mail.message["To"] == "a@example.com, b@example.com"
    assert "refused 1 of 2 addresses" in caplog.text


def test_a_server_that_is_not_there_is_a_failure_to_try_again():
    async def run():
        notifier = MailNotifier(target_of(1))
        with pytest.raises(Undelivered, match="ConnectionRefusedError") as raised:
            await notifier.send(REACHED, CUSTOMER)
        assert not raised.value.final

    asyncio.run(run())


def written(*, answers=None, to="ada@acme.test", there=True):
    """One mail by the server of ``[mail]``: what the server got."""

    async def run():
        postbox = Postbox(answers or {})
        await postbox.start()
        server = MailServer("127.0.0.1", postbox.port, MailSecurity.NONE, "portal@pay.test")
        post = Post(lambda: server if there else None, SystemClock())
        try:
            assert post.is_there is there
            await post.send(to, "Sign in", "A link:\n\nhttps://pay.test/portal/link?t=abc\n")
        finally:
            await postbox.stop()
        return postbox.mails

    return asyncio.run(run())


def test_the_gateways_own_mail_reaches_one_person():
    (mail,) = written()
    assert (mail.sender, mail.to) == ("portal@pay.test", ["ada@acme.test"])
    assert mail.message["Subject"] == "Sign in"
    assert "https://pay.test/portal/link?t=abc" in mail.message.get_content()


@pytest.mark.parametrize(
    "trouble",
    [
        {"there": False},
        {"to": "a@x.test, b@x.test"},
        {"to": "a@x.test\r\nBcc: b@x.test"},
        {"answers": {"MAIL": "550 no"}},
    ],
)
def test_mail_that_cannot_be_handed_over_is_a_fault(trouble):
    with pytest.raises(Fault):
        written(**trouble)
