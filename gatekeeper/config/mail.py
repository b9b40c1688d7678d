"""``[mail]`` and what a ``[[notifications]]`` entry says of its mail server.

The rule: an address is one address of the usual shape, nothing that could be read as a second one or another header.
"""

import re
from pathlib import Path
from typing import Any

from gatekeeper.config.gateway import MailSecurity, MailServer, MailTarget, Notification, Secret
from gatekeeper.config.kinds import choice, whole
from gatekeeper.config.reading import Cell, Table, Wrong
from gatekeeper.config.variables import Variables
from gatekeeper.diagnostics import Severity
from gatekeeper.rules.notices import Kind, Subscription

# Nobody can write this name into gateway.toml.
ALERTS_TARGET = "(alerts)"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
_PORTS = {MailSecurity.STARTTLS: 587, MailSecurity.TLS: 465, MailSecurity.NONE: 25}
# What a usual mail server takes; nothing that could be read as a second address or another header.
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
# RFC 5321, 4.5.3.1.3, without the angle brackets of a path.
_LETTERS_MAX = 254
HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._:-]{0,252})")


def read_mail(table: Table, variables: Variables, directory: Path) -> MailServer | None:
    """``[mail]``: the server for what the gateway itself writes to people; None where there is no such table."""
    if not table.values:
        return None
    written = server_of(table, variables, directory)
    table.finish()
    return None if written is None else MailServer(**written)


def server_of(table: Table, variables: Variables, directory: Path) -> dict[str, Any] | None:
    """The fields of a MailServer; None after a mistake."""
    host = table.need("host", lambda cell: _host(cell, variables), None, 'host = "smtp.example.com"')
    security = table.take("tls", choice(MailSecurity), MailSecurity.STARTTLS)
    port = table.take("port", whole(1, 65_535), _PORTS[security])
    user = table.take("user", variables.text, None)
    password = table.take("password", variables.text, None)
    sender = table.need("from", lambda cell: address_of(cell, variables), None, 'from = "billing@example.com"')
    ca_file = table.take("ca_file", variables.text, None)
    written = {"user", "password"} & table.values.keys()
    if len(written) == 1:
        missing = ({"user", "password"} - written).pop()
        table.file.complain((*table.path, *written), f"{missing!r} is missing beside it", at_key=True)
    if password is not None and security is MailSecurity.NONE and host not in LOOPBACK:
        message = "this password goes over the network in the clear"
        table.file.complain((*table.path, "password"), message, 'tls = "starttls"', severity=Severity.WARNING)
    if host is None or sender is None:
        return None
    return {
        "host": host,
        "port": port,
        "security": security,
        "sender": sender,
        "user": user,
        "password": None if password is None else Secret(password),
        "ca_file": None if ca_file is None else directory / ca_file,
    }


def with_alerts(notifications: tuple[Notification, ...], mail: MailServer | None) -> tuple[Notification, ...]:
    """With the letters of customers' own thresholds, which ``[mail]`` is enough for."""
    if mail is None:
        return notifications
    alerts = Subscription(ALERTS_TARGET, frozenset({Kind.ALERT_REACHED}), of_customers=True)
    return (*notifications, Notification(alerts, MailTarget(mail)))


def _host(cell: Cell, variables: Variables) -> str:
    host = variables.text(cell)
    if not HOST.fullmatch(host):
        raise Wrong("this is no name of a mail server", 'without port or scheme: "smtp.example.com"')
    return host


def address_of(cell: Cell, variables: Variables) -> str:
    """One address. Raises Wrong."""
    address = variables.text(cell)
    if not is_address(address):
        raise Wrong("this is no e-mail address", 'the address alone, as in "billing@example.com"')
    return address


def is_address(text: str) -> bool:
    """Whether this is one e-mail address of the usual shape, and nothing besides."""
    return len(text) <= _LETTERS_MAX and _ADDRESS.fullmatch(text) is not None
