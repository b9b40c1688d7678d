"""``[stripe]`` -> how usage becomes invoices.

The rule: what is enabled without its secret does not start, and no message shows a secret. Disabled means that nothing
is sent at all; the ledger is written all the same.
"""

import ipaddress
import re
from pathlib import Path
from urllib.parse import urlsplit

from gatekeeper.config.gateway import Secret, StripeConfig
from gatekeeper.config.kinds import flag, many, text, whole, word
from gatekeeper.config.reading import Cell, Table, Wrong, described
from gatekeeper.config.variables import Variables, in_environment
from gatekeeper.diagnostics import Mistake, Severity

# Usage that is settled within 50 minutes of a period's end must be frozen and sent before the invoice is closed, an
# hour after it.
FLUSH_INTERVAL_MAX_S = 300
_WORDS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
_SECRET = re.compile(r"[\x21-\x7e]{8,512}")
_METER = word(r"[A-Za-z0-9_.-]{1,100}", "1 to 100 letters, digits, '_', '.' or '-'")
_SECRETS_MAX = 5


def read_stripe(table: Table, variables: Variables, directory: Path, mistakes: list[Mistake]) -> StripeConfig:
    """``[stripe]``; STRIPE_METERING_ENABLED, STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET (several with commas) beat it.
    What is wrong in a variable goes to ``mistakes``. ``paper`` starts at ``directory``."""
    defaults = StripeConfig()
    enabled = table.take("enabled", flag, defaults.enabled)
    key = table.take("secret_key", variables.maybe, "")
    webhooks = table.take("webhook_secrets", lambda cell: _secrets(cell, variables), ())
    api_base = table.take("api_base", lambda cell: _api_url(cell, variables), None)
    interval_s = table.take("flush_interval_s", whole(1, FLUSH_INTERVAL_MAX_S), int(defaults.flush_interval_s))
    meter = table.take("meter", _METER, defaults.meter)
    paper = table.take("paper", text, None)
    grace_days = table.take("grace_days", whole(0, 365), defaults.grace_days)
    table.finish()
    enabled = _enabled(variables, mistakes, enabled)
    beaten = variables.override("STRIPE_SECRET_KEY")
    if beaten is not None:
        key = beaten[0]
        if not _SECRET.fullmatch(key):
            message = "the environment variable STRIPE_SECRET_KEY is no key of Stripe"
            mistakes.append(in_environment(beaten[1], message, "it begins with sk_ or rk_"))
    elif key and not _SECRET.fullmatch(key):
        table.file.complain((*table.path, "secret_key"), "this is no key of Stripe", "it begins with sk_ or rk_")
    webhooks = _webhook_secrets(variables, mistakes, webhooks)
    if enabled:
        _need_secrets(table, key, webhooks, written="enabled" in table.values)
    return StripeConfig(
        enabled=enabled,
        secret_key=Secret(key) if key else None,
        webhook_secrets=tuple(Secret(each) for each in webhooks),
        api_base=api_base,
        flush_interval_s=float(interval_s),
        meter=meter,
        paper=None if paper is None else directory / paper,
        grace_days=grace_days,
    )


def _need_secrets(table: Table, key: str, webhooks: tuple[str, ...], *, written: bool) -> None:
    file, place = table.file, (*table.path, "enabled") if written else table.path
    if not key:
        hint = 'set STRIPE_SECRET_KEY, or write secret_key = "${STRIPE_SECRET_KEY}"; enabled = false sends nothing'
        file.complain(place, "Stripe is enabled, and its secret key is empty", hint, at_key=True)
    if not webhooks:
        message = "without a webhook secret nobody hears of payments and of subscriptions that end"
        hint = "set STRIPE_WEBHOOK_SECRET (whsec_...), as Stripe shows it for the endpoint"
        file.complain(place, message, hint, at_key=True, severity=Severity.WARNING)


def _enabled(variables: Variables, mistakes: list[Mistake], enabled: bool) -> bool:
    beaten = variables.override("STRIPE_METERING_ENABLED")
    if beaten is None:
        return enabled
    value, source = beaten
    if value.lower() not in _WORDS:
        message = "the environment variable STRIPE_METERING_ENABLED is neither true nor false"
        mistakes.append(in_environment(source, message))
    return _WORDS.get(value.lower(), enabled)


def _webhook_secrets(variables: Variables, mistakes: list[Mistake], webhooks: tuple[str, ...]) -> tuple[str, ...]:
    beaten = variables.override("STRIPE_WEBHOOK_SECRET")
    if beaten is None:
        return webhooks
    parts = tuple(part.strip() for part in beaten[0].split(","))
    if len(parts) > _SECRETS_MAX or not all(_SECRET.fullmatch(part) for part in parts):
        message = f"the environment variable STRIPE_WEBHOOK_SECRET is not 1 to {_SECRETS_MAX} secrets with commas"
        mistakes.append(in_environment(beaten[1], message, "each begins with whsec_, and none is empty"))
    return parts


def _secrets(cell: Cell, variables: Variables) -> tuple[str, ...]:
    if not isinstance(cell.value, list):
        hint = 'webhook_secrets = ["${STRIPE_WEBHOOK_SECRET}"]; several while one is being replaced'
        raise Wrong(f"a list is expected here, this is {described(cell.value)}", hint)
    if len(cell.value) > _SECRETS_MAX:
        raise Wrong(f"more than {_SECRETS_MAX} secrets", "the new one, and the old one until it has expired")
    return many(lambda one: _secret(one, variables))(cell)


def _secret(cell: Cell, variables: Variables) -> str:
    secret = variables.text(cell)
    if not _SECRET.fullmatch(secret):
        raise Wrong("this is no secret of a webhook", "it begins with whsec_")
    return secret


def _api_url(cell: Cell, variables: Variables) -> str:
    url = variables.text(cell)
    hint = 'https://..., or http:// on this machine: "http://127.0.0.1:12111"'
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise Wrong("host or port of this URL cannot be read", hint) from None
    if not host or parts.username is not None or parts.query or parts.fragment or parts.path not in ("", "/"):
        raise Wrong("this is not the base of an API", hint)
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise Wrong("a secret key would be sent there in the clear", hint)
    return url.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
