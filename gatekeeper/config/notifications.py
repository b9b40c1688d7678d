"""``[[notifications]]`` -> who is told of what happens, by a signed web hook or by mail.

The rule: no message shows a URL, a secret or a password; a web hook is always signed.
"""

import base64
import binascii
import re
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

from gatekeeper.config.gateway import MailServer, MailTarget, Notification, Secret, WebhookTarget
from gatekeeper.config.kinds import choice, many, text, whole, word
from gatekeeper.config.mail import HOST, LOOPBACK, address_of, server_of
from gatekeeper.config.reading import Cell, Table, Wrong, read_cell
from gatekeeper.config.variables import Variables
from gatekeeper.diagnostics import Severity, suggest
from gatekeeper.rules.notices import DEFAULT_THRESHOLDS, Kind, Subscription

# Standard Webhooks, "Signature scheme": keys of 24 to 64 bytes.
_SECRET_BYTES_MIN, _SECRET_BYTES_MAX = 24, 64
_SECRET_HINT = "whsec_ and the base64 of 32 random bytes: echo whsec_$(openssl rand -base64 32)"
_CUSTOMER = "customer"
_NAME = word(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, '.', '_' or '-'")
# Above 100: how far an overage quota or a warning was passed.
_THRESHOLD_MAX = 1_000


class Way(StrEnum):
    """How somebody is told."""

    WEBHOOK = "webhook"
    MAIL = "mail"


def read_notifications(top: Table, variables: Variables, directory: Path) -> tuple[Notification, ...]:
    """Every entry that has no mistakes."""
    found: list[Notification] = []
    names: set[str] = set()
    for table in top.tables("notifications"):
        notification = _notification(table, variables, directory)
        if notification is None:
            continue
        name = notification.subscription.target
        if name in names:
            table.file.complain((*table.path, "name"), f"two notifications are named {name!r}", "deliveries go by name")
        names.add(name)
        found.append(notification)
    return tuple(found)


def _notification(table: Table, variables: Variables, directory: Path) -> Notification | None:
    name = table.need("name", _NAME, None, 'name = "ops"; deliveries are listed under it')
    way = table.need("kind", choice(Way), None, 'kind = "webhook" or "mail"')
    known = ", ".join(f'"{kind.short}"' for kind in Kind)
    kinds = table.need("events", _kinds, (), f"events = [...] of {known}")
    thresholds = table.take("thresholds", many(whole(1, _THRESHOLD_MAX)), None)
    if thresholds is not None and kinds and Kind.LIMIT_THRESHOLD not in kinds:
        hint = f'add "{Kind.LIMIT_THRESHOLD.short}" to events, or take this away'
        table.file.complain((*table.path, "thresholds"), "thresholds of limits are not among the events", hint)
    target: WebhookTarget | MailTarget | None = None
    if way is Way.WEBHOOK:
        target = _webhook(table, variables, directory)
    elif way is Way.MAIL:
        target = _mail(table, variables, directory)
        if Kind.USAGE_RECORDED in kinds:
            hint = "every call would be a mail; a web hook takes them"
            message = f'"{Kind.USAGE_RECORDED.short}" is not for mail'
            table.file.complain((*table.path, "events"), message, hint)
    if way is not None:
        table.finish()
    if name is None or target is None:
        return None
    to_customers = isinstance(target, MailTarget) and not target.to
    asked = tuple(sorted(set(DEFAULT_THRESHOLDS if thresholds is None else thresholds)))
    return Notification(Subscription(name, frozenset(kinds), asked, of_customers=to_customers), target)


def _webhook(table: Table, variables: Variables, directory: Path) -> WebhookTarget | None:
    url = table.need("url", lambda cell: _url(cell, variables), None, 'url = "https://example.com/hooks"')
    one = table.take("secret", lambda cell: _secret(cell, variables), None)
    several = table.take("secrets", lambda cell: _secrets(cell, variables), None)
    ca_file = table.take("ca_file", variables.text, None)
    if "secret" in table.values and "secrets" in table.values:
        hint = "while a secret is being replaced, write both into secrets"
        table.file.complain((*table.path, "secret"), "both secret and secrets are written here", hint, at_key=True)
    elif "secret" not in table.values and "secrets" not in table.values:
        table.file.complain(table.path, "'secret' is missing here", _SECRET_HINT, at_key=True)
    secrets = several if several is not None else (one,) if one is not None else ()
    if url is None:
        return None
    return WebhookTarget(url, secrets, None if ca_file is None else directory / ca_file)


def _mail(table: Table, variables: Variables, directory: Path) -> MailTarget | None:
    server = server_of(table, variables, directory)
    to = table.need("to", lambda cell: _to(cell, variables), None, 'to = "customer", or addresses of operators')
    return None if server is None or to is None else MailTarget(MailServer(**server), to)


def _kinds(cell: Cell) -> tuple[Kind, ...]:
    found = many(_kind)(cell)
    if cell.value == []:
        raise Wrong("nothing would ever be told", f"known here: {', '.join(kind.short for kind in Kind)}")
    return found


def _kind(cell: Cell) -> Kind:
    written = text(cell)
    known = {kind.short: kind for kind in Kind}
    if written not in known:
        hint = suggest(written, known) or f"known here: {', '.join(known)}"
        raise Wrong(f"there is no event {written!r}", hint)
    return known[written]


def _url(cell: Cell, variables: Variables) -> Secret:
    url = variables.text(cell)
    hint = 'as in "https://example.com/hooks"'
    if not re.fullmatch(r"[\x21-\x7e]*", url):
        raise Wrong("this URL holds blanks or letters that are not ASCII", hint)
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise Wrong("the host or the port of this URL cannot be read", hint) from None
    if parts.scheme not in ("http", "https"):
        raise Wrong("this URL begins neither with http:// nor with https://", hint)
    if not HOST.fullmatch(host) or port == 0:
        raise Wrong("this URL has no host that could be called", hint)
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise Wrong("this URL holds a user, a password or a fragment", "what is sent is signed: see secret")
    if parts.scheme == "http" and host not in LOOPBACK:
        message = "what is sent here can be read by whoever is on the way"
        cell.file.complain(cell.path, message, "https:// encrypts it", severity=Severity.WARNING)
    return Secret(url)


def _secret(cell: Cell, variables: Variables) -> Secret:
    return Secret(key_of_secret(variables.text(cell)))


def key_of_secret(written: str) -> str:
    """What stands behind ``whsec_``, in base64. Raises Wrong, without it."""
    if not written.startswith("whsec_"):
        raise Wrong("this is no secret of a web hook", _SECRET_HINT)
    encoded = written.removeprefix("whsec_")
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise Wrong("what follows whsec_ is not base64", _SECRET_HINT) from None
    if not _SECRET_BYTES_MIN <= len(key) <= _SECRET_BYTES_MAX:
        raise Wrong(f"this secret has {len(key)} bytes, not {_SECRET_BYTES_MIN} to {_SECRET_BYTES_MAX}", _SECRET_HINT)
    return encoded


def _secrets(cell: Cell, variables: Variables) -> tuple[Secret, ...]:
    if not 1 <= len(list(cell.entries())) <= 2:
        hint = "the new one, and the old one until every receiver knows the new one"
        raise Wrong("one or two secrets are expected here", hint)
    return many(lambda one: _secret(one, variables))(cell)


def _to(cell: Cell, variables: Variables) -> tuple[str, ...]:
    """Addresses; none for the customer."""
    if isinstance(cell.value, str):
        return () if variables.text(cell) == _CUSTOMER else (address_of(cell, variables),)
    addresses = [read_cell(entry, lambda one: address_of(one, variables), None) for entry in cell.entries()]
    if not addresses:
        raise Wrong("nobody would be told", 'to = "customer", or the addresses of operators')
    return tuple(address for address in addresses if address is not None)
