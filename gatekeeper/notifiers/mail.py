"""Mail by SMTP. The rule: one address is one address, whatever a customer calls himself, and what the server says goes
no further than its number. smtplib blocks, so it works in a thread, and stays in this file."""

import asyncio
import datetime as dt
import hashlib
import logging
import smtplib
import ssl
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from gatekeeper.config.gateway import MailSecurity, MailTarget
from gatekeeper.config.notifications import is_address
from gatekeeper.notifiers.letters import letter
from gatekeeper.notifiers.sending import Undelivered
from gatekeeper.ports import Customer
from gatekeeper.rules.notices import Event

log = logging.getLogger("gatekeeper.events")

# For each step of the talk; the whole of an attempt is bounded by the dispatcher.
STEP_TIMEOUT_S = 10.0


class MailNotifier:
    """See ``sending.Notifier``. Raises OSError when the file with the authorities cannot be read."""

    def __init__(self, target: MailTarget) -> None:
        self._target = target
        self._trusted = ssl.create_default_context(cafile=target.ca_file)

    async def send(self, event: Event, customer: Customer | None) -> None:
        """Hand the mail over to the server. Raises Undelivered. Cancelled: the thread goes on for the step that it is
        at, and the mail may be sent."""
        to = self._target.to or _address_of(customer)
        message = _message(event, customer, self._target.sender, to)
        try:
            await asyncio.to_thread(self._hand_over, message, to)
        except smtplib.SMTPResponseException as cause:
            # A number of the server's own; its text may repeat the user's name.
            raise Undelivered(f"the mail server answered {cause.smtp_code}") from None
        except smtplib.SMTPRecipientsRefused as cause:
            codes = sorted({code for code, _ in cause.recipients.values()})
            raise Undelivered(f"the mail server refused every address: {', '.join(map(str, codes))}") from None
        except (smtplib.SMTPException, ssl.SSLError, OSError, UnicodeError) as cause:
            raise Undelivered(f"the mail server cannot be used: {type(cause).__name__}") from None

    async def close(self) -> None:
        """Nothing stays open."""

    def _hand_over(self, message: EmailMessage, to: tuple[str, ...]) -> None:
        target = self._target
        with self._connected() as server:
            if target.security is MailSecurity.STARTTLS:
                server.starttls(context=self._trusted)
            if target.user is not None and target.password is not None:
                server.login(target.user, target.password.reveal())
            refused = server.send_message(message, target.sender, list(to))
        if refused:
            # The others have it: sending again would only reach them twice.
            log.warning("the mail server refused %d of %d addresses", len(refused), len(to))

    def _connected(self) -> smtplib.SMTP:
        target = self._target
        if target.security is MailSecurity.TLS:
            return smtplib.SMTP_SSL(target.host, target.port, timeout=STEP_TIMEOUT_S, context=self._trusted)
        return smtplib.SMTP(target.host, target.port, timeout=STEP_TIMEOUT_S)


def _address_of(customer: Customer | None) -> tuple[str, ...]:
    """The customer's own address. Asked again when an operator retries: it may have been added since."""
    if customer is None or not customer.email:
        raise Undelivered("the customer has no e-mail address", final=True)
    if not is_address(customer.email):
        raise Undelivered("the customer's e-mail address cannot be used", final=True)
    return (customer.email,)


def _message(event: Event, customer: Customer | None, sender: str, to: tuple[str, ...]) -> EmailMessage:
    subject, text = letter(event, customer)
    message = EmailMessage(policy=SMTP)
    message["From"] = sender
    message["To"] = ", ".join(to)
    message["Subject"] = subject
    # A second copy of one event has the same id and date, so that whoever reads mail by program sees it.
    domain = sender.rpartition("@")[2]
    message["Message-ID"] = f"<{hashlib.sha256(event.id.encode()).hexdigest()[:32]}@{domain}>"
    message["Date"] = format_datetime(dt.datetime.fromtimestamp(event.created_ms / 1000, dt.UTC))
    # RFC 3834: nobody's absence assistant answers.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text.encode("utf-8", "replace").decode(), cte="quoted-printable")
    return message
