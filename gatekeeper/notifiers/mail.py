"""Mail by SMTP. The rule: one address is one address, whatever a customer calls himself, and what the server says goes
no further than its number. smtplib blocks, so it works in a thread, and stays in this file."""

import asyncio
import datetime as dt
import hashlib
import logging
import secrets
import smtplib
import ssl
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import MailSecurity, MailServer, MailTarget
from gatekeeper.config.mail import is_address
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.notifiers.letters import letter
from gatekeeper.notifiers.sending import Undelivered
from gatekeeper.ports import Customer
from gatekeeper.rules.notices import Event

log = logging.getLogger("gatekeeper.events")

# For each step of the talk; the whole of an attempt is bounded by the dispatcher.
STEP_TIMEOUT_S = 10.0
# The whole of a mail that somebody waits for.
SEND_TIMEOUT_S = 20.0


class Postman:
    """Hands mail over to one server. Raises OSError when the file with the authorities cannot be read."""

    def __init__(self, server: MailServer) -> None:
        self._server = server
        self._trusted = ssl.create_default_context(cafile=server.ca_file)

    async def send(self, message: EmailMessage, to: tuple[str, ...]) -> None:
        """Raises Undelivered. Cancelled: the thread goes on for the step that it is at, and the mail may be sent."""
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

    def _hand_over(self, message: EmailMessage, to: tuple[str, ...]) -> None:
        server = self._server
        with self._connected() as connection:
            if server.security is MailSecurity.STARTTLS:
                connection.starttls(context=self._trusted)
            if server.user is not None and server.password is not None:
                connection.login(server.user, server.password.reveal())
            refused = connection.send_message(message, server.sender, list(to))
        if refused:
            # The others have it: sending again would only reach them twice.
            log.warning("the mail server refused %d of %d addresses", len(refused), len(to))

    def _connected(self) -> smtplib.SMTP:
        server = self._server
        if server.security is MailSecurity.TLS:
            return smtplib.SMTP_SSL(server.host, server.port, timeout=STEP_TIMEOUT_S, context=self._trusted)
        return smtplib.SMTP(server.host, server.port, timeout=STEP_TIMEOUT_S)


class MailNotifier:
    """See ``sending.Notifier``. Raises OSError when the file with the authorities cannot be read."""

    def __init__(self, target: MailTarget) -> None:
        self._target = target
        self._postman = Postman(target.server)

    async def send(self, event: Event, customer: Customer | None) -> None:
        """Hand the mail over to the server. Raises Undelivered."""
        to = self._target.to or _address_of(customer)
        subject, text = letter(event, customer)
        when = dt.datetime.fromtimestamp(event.created_ms / 1000, dt.UTC)
        await self._postman.send(message_of(self._target.server, to, subject, text, event.id, when), to)

    async def close(self) -> None:
        """Nothing stays open."""


class Post:
    """See ``ports.Mail``: mail to one person by the server of ``[mail]``, as it stands at the moment."""

    def __init__(self, server: Callable[[], MailServer | None], clock: Clock) -> None:
        self._server = server
        self._clock = clock

    @property
    def is_there(self) -> bool:
        """Whether there is a server."""
        return self._server() is not None

    async def send(self, to: str, subject: str, text: str) -> None:
        """Raises Fault when it could not be handed over."""
        server = self._server()
        if server is None or not is_address(to):
            raise Fault("mail", FaultKind.PROTOCOL, "there is no mail server, or the address cannot be used")
        when = dt.datetime.fromtimestamp(self._clock.now_ms() / 1000, dt.UTC)
        message = message_of(server, (to,), subject, text, secrets.token_hex(16), when)
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await Postman(server).send(message, (to,))
        except (Undelivered, OSError) as cause:
            # The text of an OSError may hold a path.
            why = str(cause) if isinstance(cause, Undelivered) else type(cause).__name__
            raise Fault("mail", FaultKind.CONNECT, why, retryable=True) from None


def _address_of(customer: Customer | None) -> tuple[str, ...]:
    """The customer's own address. Asked again when an operator retries: it may have been added since."""
    if customer is None or not customer.email:
        raise Undelivered("the customer has no e-mail address", final=True)
    if not is_address(customer.email):
        raise Undelivered("the customer's e-mail address cannot be used", final=True)
    return (customer.email,)


def message_of(
    server: MailServer, to: tuple[str, ...], subject: str, text: str, name: str, when: dt.datetime
) -> EmailMessage:
    """One mail in plain text. A second copy under one ``name`` has the same id and date, so that whoever reads mail by
    program sees it."""
    message = EmailMessage(policy=SMTP)
    message["From"] = server.sender
    message["To"] = ", ".join(to)
    message["Subject"] = subject
    domain = server.sender.rpartition("@")[2]
    message["Message-ID"] = f"<{hashlib.sha256(name.encode()).hexdigest()[:32]}@{domain}>"
    message["Date"] = format_datetime(when)
    # RFC 3834: nobody's absence assistant answers.
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(text.encode("utf-8", "replace").decode(), cte="quoted-printable")
    return message
