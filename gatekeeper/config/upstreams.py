"""``[upstreams.NAME]`` -> UpstreamConfig: where a provider is, and how its key is sent.

The rule: a key stands in ``auth`` (or ``headers``), never in the URL, and no message shows it. An upstream whose key
is empty sends none, with a warning.
"""

import ipaddress
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

from gatekeeper.config.failover import read_breaker
from gatekeeper.config.gateway import AuthKind, Secret, Transport, UpstreamAuth, UpstreamConfig
from gatekeeper.config.headers import check_name, fixed_headers
from gatekeeper.config.kinds import choice, flag, seconds, text, whole
from gatekeeper.config.reading import Cell, Reported, Table, Wrong, read_cell
from gatekeeper.config.variables import Variables
from gatekeeper.diagnostics import Severity
from gatekeeper.rules.breaker import BreakerConfig

UPSTREAM_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_HOST = re.compile(r"[a-z0-9_](?:[a-z0-9._-]{0,252})")
_PATH = re.compile(r"[\x21-\x7e]*")
_KEY = re.compile(r"[\x21-\x7e]+")
_QUERY_NAME = re.compile(r"[A-Za-z0-9._~-]{1,64}")


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart. ``path`` has no slash at its end."""

    scheme: str
    host: str
    port: int
    path: str


def read_upstreams(top: Table, variables: Variables, directory: Path) -> dict[str, UpstreamConfig | None]:
    """Every upstream by name; None for one that has mistakes (so that routes may still refer to it)."""
    found: dict[str, UpstreamConfig | None] = {}
    for name, cell in top.table("upstreams").named():
        if not UPSTREAM_NAME.fullmatch(name):
            hint = "1 to 64 letters, digits, '.', '_' or '-'"
            top.file.complain(cell.path, f"{name!r} cannot be the name of an upstream", hint, at_key=True)
        table = read_cell(cell, Cell.table, None)
        found[name] = None if table is None else _upstream(name, table, variables, directory)
    return found


def _upstream(name: str, table: Table, variables: Variables, directory: Path) -> UpstreamConfig | None:
    address = table.need(
        "url", lambda cell: read_address(variables.text(cell)), None, 'url = "https://api.example.com"'
    )
    auth = table.take("auth", lambda cell: _auth(cell, name, variables), UpstreamAuth())
    headers = fixed_headers(table.table("headers"), variables)
    connections_max = table.take("connections_max", whole(1, 100_000), 1_000)
    timeouts = table.table("timeouts_s")
    connect = timeouts.take("connect", seconds, 5.0)
    first_byte = timeouts.take("first_byte", seconds, 600.0)
    idle = timeouts.take("idle", seconds, 300.0)
    total = timeouts.take("total", seconds, None)
    timeouts.finish()
    connect_retries = table.take("connect_retries", whole(0, 10), 1)
    breaker = table.take("breaker", read_breaker, BreakerConfig())
    tls = table.table("tls")
    verify = tls.take("verify", flag, True)
    ca_file = tls.take("ca_file", variables.text, None)
    tls.finish()
    transport = table.take("transport", choice(Transport), Transport.NATIVE)
    http2 = table.take("http2", _http2, False)
    proxy = table.take("proxy", lambda cell: _proxy(cell, variables), None)
    for key in ("http2", "proxy"):
        if key in table.values and transport is Transport.NATIVE:
            hint = 'write transport = "httpx" (slower), or take it away'
            table.file.complain((*table.path, key), f"{key} needs another transport", hint, at_key=True)
    table.finish()
    if address is None:
        return None
    if address.scheme == "http" and "tls" in table.values:
        table.file.complain((*table.path, "tls"), "this upstream's URL is http, so there is no TLS", at_key=True)
    return UpstreamConfig(
        name=name,
        scheme=address.scheme,
        host=address.host,
        port=address.port,
        base_path=address.path,
        auth=auth,
        headers=headers,
        connections_max=connections_max,
        connect_timeout_s=connect,
        first_byte_timeout_s=first_byte,
        idle_timeout_s=idle,
        total_timeout_s=total,
        tls_verify=verify,
        ca_file=directory / ca_file if ca_file is not None else None,
        connect_retries=connect_retries,
        breaker=breaker,
        transport=transport,
        http2=http2,
        proxy=proxy,
    )


def _http2(cell: Cell) -> bool:
    wanted = flag(cell)
    if wanted and find_spec("h2") is None:
        raise Wrong("HTTP/2 needs a package that is not installed", "pip install 'gatekeeper[http2]'")
    return wanted


def _proxy(cell: Cell, variables: Variables) -> Secret:
    """``http://user:password@host:port``. No message shows it."""
    url = variables.text(cell)
    hint = 'as in "http://proxy.example.com:3128"'
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        raise Wrong("the host or the port of this URL cannot be read", hint) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise Wrong("this is no URL of a proxy", hint)
    return Secret(url)


def read_address(url: str) -> Address:
    """An ``http://`` or ``https://`` URL without credentials, query or fragment. Raises Wrong, without the URL."""
    hint = 'as in "https://api.openai.com" or "http://127.0.0.1:8000"'
    if not _PATH.fullmatch(url):
        raise Wrong("this URL holds blanks or letters that are not ASCII", hint)
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise Wrong("the host or the port of this URL cannot be read", hint) from None
    if parts.scheme not in ("http", "https"):
        raise Wrong("this URL begins neither with http:// nor with https://", hint)
    if parts.username is not None or parts.password is not None:
        raise Wrong("this URL holds a user or a password", 'use auth = { type = "bearer", key = "${NAME}" }')
    if "?" in url or "#" in url:
        hint = 'a key in the query: auth = { type = "query", name = "key", key = "${NAME}" }'
        raise Wrong("an upstream's URL has neither query nor fragment", hint)
    host = parts.hostname or ""
    if not (_HOST.fullmatch(host) or _is_ip(host)):
        raise Wrong("this URL has no host", hint)
    if port == 0:
        raise Wrong("port 0 cannot be called", hint)
    return Address(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), parts.path.rstrip("/"))


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _auth(cell: Cell, upstream: str, variables: Variables) -> UpstreamAuth:
    if isinstance(cell.value, str):
        raise Wrong("auth is a table", 'auth = { type = "bearer", key = "${OPENAI_API_KEY}" }')
    table = cell.table()
    hint = 'type = "bearer", "header", "query" or "none"'
    kind = table.need("type", choice(AuthKind), None, hint)
    if kind is None:
        raise Reported
    named = kind in (AuthKind.HEADER, AuthKind.QUERY)
    example = "x-api-key" if kind is AuthKind.HEADER else "key"
    name = ""
    if named:
        name = table.need("name", lambda cell: _auth_name(cell, kind), "", f'name = "{example}"')
    elif table.has("name"):
        table.file.complain((*table.path, "name"), f"auth of type {kind.value!r} has no name", at_key=True)
    key: str | None = None
    if kind is not AuthKind.NONE:
        key = table.need("key", variables.maybe, None, 'key = "${NAME}", from the environment or .env')
    elif table.has("key"):
        table.file.complain((*table.path, "key"), 'auth of type "none" sends no key', at_key=True)
    table.finish()
    if key and not _KEY.fullmatch(key):
        hint = "printable ASCII without blanks; is there a line end at its end?"
        table.file.complain((*table.path, "key"), "this key holds characters that cannot be sent", hint)
    if key == "":
        message = f"the key of upstream {upstream!r} is empty: calls go there without one"
        hint = "set the variable in the environment or in .env"
        table.file.complain((*table.path, "key"), message, hint, severity=Severity.WARNING)
    # Without a key nothing is sent: an empty one would only make an odd header.
    return UpstreamAuth(kind, name, Secret(key)) if key else UpstreamAuth()


def _auth_name(cell: Cell, kind: AuthKind) -> str:
    name = text(cell)
    if kind is AuthKind.HEADER:
        try:
            check_name(name)
        except Wrong as wrong:
            raise Wrong(wrong.message, wrong.hint) from None
    elif not _QUERY_NAME.fullmatch(name):
        raise Wrong(f"{name!r} is no name of a query parameter", "letters, digits, '.', '_', '~' or '-'")
    return name
