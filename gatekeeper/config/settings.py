"""The tables of gateway.toml that are about the process: server, database, admin, ledger, keys.

The rule: without API keys the gateway only listens on loopback, unless the author says otherwise in so many words.
"""

import ipaddress
import re
from enum import StrEnum
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from gatekeeper.config.gateway import Durability, KeysConfig, LedgerConfig, OnLedgerFailure, Secret, ServerConfig
from gatekeeper.config.kinds import choice, flag, many, seconds, text, whole, word
from gatekeeper.config.reading import Cell, Table, Wrong
from gatekeeper.config.variables import Variables, in_environment
from gatekeeper.diagnostics import Mistake, Source, suggest

DEFAULT_DATABASE = "sqlite:///gatekeeper.sqlite"
_DATABASE_HINT = 'as in "sqlite:///gatekeeper.sqlite" or "postgresql://user@host/name"'
_PORT = whole(0, 65_535)


class KeysMode(StrEnum):
    """Whether a call needs a key."""

    REQUIRED = "required"
    NONE = "none"


def read_server(table: Table, variables: Variables, mistakes: list[Mistake]) -> ServerConfig:
    """``[server]``; the variable PORT beats ``port``. A wrong PORT goes to ``mistakes``."""
    defaults = ServerConfig()
    port = table.take("port", _PORT, defaults.port)
    beaten = variables.override("PORT")
    if beaten is not None:
        value, source = beaten
        if re.fullmatch(r"\d{1,5}", value) and int(value) <= 65_535:
            port = int(value)
        else:
            mistakes.append(in_environment(source, "the environment variable PORT is no port", "from 0 to 65535"))
    server = ServerConfig(
        host=table.take("host", lambda cell: _bind_host(cell, variables), defaults.host),
        port=port,
        public_url=table.take("public_url", lambda cell: _public_url(cell, variables), None),
        # Below 4 KiB usual clients fail; above 1 MiB a head is an attack.
        header_bytes_max=table.take("header_bytes_max", whole(4_096, 1 << 20), defaults.header_bytes_max),
        trusted_proxies=table.take("trusted_proxies", many(_network), ()),
        keep_alive_s=table.take("keep_alive_s", seconds, defaults.keep_alive_s),
        drain_s=table.take("drain_s", seconds, defaults.drain_s),
        metrics_token=_secret(table.take("metrics_token", variables.maybe, ""), variables.override("METRICS_TOKEN")),
    )
    table.finish()
    return server


def _secret(written: str, beaten: tuple[str, Source] | None) -> Secret | None:
    found = beaten[0] if beaten is not None else written
    return Secret(found) if found else None


def read_database(table: Table, variables: Variables, directory: Path, mistakes: list[Mistake]) -> Secret:
    """``[database] url``; DATABASE_URL beats it. A relative SQLite path in the TOML starts at ``directory`` (else a
    start from another directory would begin an empty ledger); one in the variable to the working directory."""
    url = table.take("url", lambda cell: _database(cell, variables, directory), None)
    table.finish()
    beaten = variables.override("DATABASE_URL")
    if beaten is not None:
        value, source = beaten
        try:
            return Secret(database_url(value, Path()))
        except Wrong as wrong:
            mistakes.append(in_environment(source, f"DATABASE_URL: {wrong.message}", wrong.hint))
    return Secret(url or database_url(DEFAULT_DATABASE, directory))


def database_url(url: str, directory: Path) -> str:
    """``sqlite:///path`` (made relative to ``directory``) or ``postgresql://...``. Raises Wrong, without the URL."""
    scheme, separator, rest = url.partition("://")
    if scheme == "postgres":
        scheme = "postgresql"
    if not separator or scheme not in ("sqlite", "postgresql"):
        raise Wrong("this is no URL of a database", _DATABASE_HINT)
    if scheme == "postgresql":
        try:
            parts = urlsplit(f"postgresql://{rest}")
            _ = parts.port
        except ValueError:
            raise Wrong("host or port in this URL cannot be read", _DATABASE_HINT) from None
        if not parts.path.strip("/"):
            raise Wrong("this URL names no database", _DATABASE_HINT)
        return f"postgresql://{rest}"
    path = rest.removeprefix("/")
    if not rest.startswith("/") or not path or path.endswith("/"):
        raise Wrong("a SQLite URL has three slashes and then the file", _DATABASE_HINT)
    if path == ":memory:":
        raise Wrong("a ledger in memory would forget what is owed", _DATABASE_HINT)
    return f"sqlite:///{directory / PurePosixPath(path)}"


def read_admin(table: Table, variables: Variables) -> Secret | None:
    """``[admin] key``; ADMIN_API_KEY beats it. None: there is no admin API."""
    key = table.take("key", variables.maybe, "")
    table.finish()
    beaten = variables.override("ADMIN_API_KEY")
    found = beaten[0] if beaten is not None else key
    return Secret(found) if found else None


def read_jwt_secret(variables: Variables, mistakes: list[Mistake]) -> Secret | None:
    """JWT_SECRET. None: one is made and kept. A wrong one goes to ``mistakes``."""
    found = variables.override("JWT_SECRET")
    if found is None:
        return None
    value, source = found
    # RFC 7518, section 3.2: as long as the hash.
    if len(value.encode("utf-8", "surrogateescape")) < 32:
        hint = "at least 32 random letters, as from: openssl rand -hex 32"
        mistakes.append(in_environment(source, "JWT_SECRET is too short to sign with", hint))
        return None
    return Secret(value)


def read_ledger(table: Table, directory: Path) -> LedgerConfig:
    """``[ledger]``. A hold that is not renewed twice before it expires would be swept under a living call."""
    defaults = LedgerConfig()
    ledger = LedgerConfig(
        durability=table.take("durability", choice(Durability), defaults.durability),
        hold_ttl_s=table.take("hold_ttl_s", seconds, defaults.hold_ttl_s),
        heartbeat_s=table.take("heartbeat_s", seconds, defaults.heartbeat_s),
        settle_wait_s=table.take("settle_wait_s", seconds, defaults.settle_wait_s),
        journal=directory / table.take("journal", text, str(defaults.journal)),
        on_ledger_failure=table.take("on_ledger_failure", choice(OnLedgerFailure), defaults.on_ledger_failure),
        open_requests_max=table.take("open_requests_max", whole(0, 1_000_000), defaults.open_requests_max),
        open_units_max=table.take("open_units_max", whole(0, 10**12), defaults.open_units_max),
    )
    if ledger.hold_ttl_s < 2 * ledger.heartbeat_s:
        key = "hold_ttl_s" if "hold_ttl_s" in table.values else "heartbeat_s"
        message = f"holds live {ledger.hold_ttl_s:g} s and are renewed every {ledger.heartbeat_s:g} s"
        table.file.complain((*table.path, key), message, "hold_ttl_s is at least twice heartbeat_s")
    table.finish()
    return ledger


def read_keys(table: Table, server: ServerConfig, plans: frozenset[str]) -> KeysConfig:
    """``[keys]``. ``mode = "none"`` takes every call as ``customer``: on loopback, or with ``allow_network = true``."""
    mode = table.take("mode", choice(KeysMode), KeysMode.REQUIRED)
    name = word(r"[A-Za-z0-9._:@-]{1,128}", "1 to 128 letters, digits, '.', '_', ':', '@' or '-'")
    customer = table.take("customer", name, None)
    allowed = table.take("allow_network", flag, False)
    plan = table.take("default_plan", text, KeysConfig().default_plan)
    subjects = table.take("new_subjects_per_hour", whole(0, 10_000_000), KeysConfig().new_subjects_per_hour)
    file, path = table.file, table.path
    if mode is KeysMode.REQUIRED and customer is not None:
        hint = 'take it away, or write mode = "none"'
        file.complain((*path, "customer"), "a fixed customer is for a gateway without keys", hint, at_key=True)
    if mode is KeysMode.NONE and "customer" not in table.values:
        hint = 'write customer = "local"'
        file.complain((*path, "mode"), "without keys every call belongs to one customer, and none is named", hint)
    if mode is KeysMode.NONE and not allowed and not _loopback(server.host):
        hint = "listen on 127.0.0.1, or write allow_network = true where something else keeps strangers out"
        file.complain((*path, "mode"), f"without keys anybody who reaches {server.host} spends your money", hint)
    if plan not in plans:
        near = suggest(plan, plans)
        hint = near or (f"there are: {', '.join(sorted(plans))}" if plans else "there are no plans at all")
        written = "default_plan" in table.values
        message = f"there is no plan {plan!r}" if written else f"there is no plan {plan!r} for new customers"
        file.complain((*path, "default_plan"), message, hint if written else f"{hint}; [keys] default_plan names one")
    table.finish()
    return KeysConfig(customer if mode is KeysMode.NONE else None, plan, subjects)


def _database(cell: Cell, variables: Variables, directory: Path) -> str:
    return database_url(variables.text(cell), directory)


def _bind_host(cell: Cell, variables: Variables) -> str:
    host = variables.text(cell)
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", host) or (":" in host and not _is_ip(host)):
        raise Wrong("this is no address to listen on", 'without port or scheme: "127.0.0.1", "0.0.0.0" or "::"')
    return host


def _public_url(cell: Cell, variables: Variables) -> str:
    url = variables.text(cell)
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.query and not parts.fragment
    except ValueError:
        fine = False
    if not fine:
        raise Wrong("this is no address that customers could be sent to", 'as in "https://llm.example.com"')
    return url.rstrip("/")


def _network(cell: Cell) -> str:
    written = text(cell)
    try:
        network = ipaddress.ip_network(written, strict=False)
        return str(network.network_address if network.prefixlen == network.max_prefixlen else network)
    except ValueError:
        raise Wrong(f"{written!r} is no IP address or network", 'as in "10.0.0.7" or "10.0.0.0/8"') from None


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _loopback(host: str) -> bool:
    return ipaddress.ip_address(host).is_loopback if _is_ip(host) else host.lower() == "localhost"
