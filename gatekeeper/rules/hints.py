"""What comes on a webhook of Stripe: whether it is from Stripe, and whom it is about. Pure, on bytes and dicts.

The rule: nothing in a body is believed beyond ids; what is behind them is fetched. A body is only read when its
signature was right. Signatures: https://docs.stripe.com/webhooks#verify-manually.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gatekeeper.errors import GatekeeperError

TOLERANCE_S = 300
# Stripe sends at most some; more are junk, and each costs a comparison.
_SIGNATURES_MAX = 16
_ID = re.compile(r"[A-Za-z0-9_]{1,255}")
_KIND = re.compile(r"[A-Za-z0-9_.]{1,200}")
_HEADER_MAX = 4_096


class Junk(GatekeeperError):
    """No event of Stripe, or not one for us. ``public`` is shown to whoever sent it."""

    def __init__(self, public: str) -> None:
        self.public = public
        super().__init__(public)


class Event(NamedTuple):
    """An event with a good signature. ``text`` is the body as it came."""

    id: str
    kind: str
    text: str


class Hint(NamedTuple):
    """Whom an event is about: ids at Stripe, and ``reference``, the customer that a Checkout session was opened for."""

    account: str | None = None
    subscription_id: str | None = None
    invoice_id: str | None = None
    reference: str | None = None


def verify(body: bytes, header: str | None, secrets: Sequence[str], now_s: float) -> None:
    """Raises Junk unless one of the secrets has signed these very bytes within five minutes, before or after."""
    stamp, signatures = _signatures(header)
    if abs(now_s - int(stamp)) > TOLERANCE_S:
        raise Junk("the signature is older or newer than 5 minutes")
    signed = stamp.encode() + b"." + body
    good = False
    for secret in secrets:
        expected = hmac.new(secret.encode(), signed, hashlib.sha256).hexdigest().encode()
        for signature in signatures:
            good = hmac.compare_digest(expected, signature) or good
    if not good:
        raise Junk("the signature is of none of the webhook secrets")


def read(body: bytes, *, live: bool) -> Event:
    """The event of a body whose signature is right. Raises Junk for what is none, or of the other mode."""
    try:
        text = body.decode()
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise Junk("the body is not JSON in UTF-8") from None
    event_id, kind = (found.get("id"), found.get("type")) if isinstance(found, dict) else (None, None)
    if not (isinstance(event_id, str) and _ID.fullmatch(event_id) and isinstance(kind, str) and _KIND.fullmatch(kind)):
        raise Junk("the body is no event")
    if found.get("livemode") is not live:
        raise Junk(f"the event is not of {'live' if live else 'test'} mode, as the secret key is")
    return Event(event_id, kind, text)


def hint_of(kind: str, event: Mapping[str, Any]) -> Hint:
    """Whom it is about, in the shapes before and since 2025-03-31.basil: an invoice names its subscription at its top,
    or under its parent (https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects)."""
    about = _below(_below(event, "data"), "object")
    account = _id(about.get("customer"))
    if kind.startswith("customer.subscription."):
        return Hint(account, subscription_id=_id(about))
    if kind.startswith("invoice."):
        return Hint(account, subscription_of(about), invoice_id=_id(about))
    reference = about.get("client_reference_id")
    reference = reference if isinstance(reference, str) and about.get("mode") == "subscription" else None
    return Hint(account, _id(about.get("subscription")), reference=reference)


def subscription_of(invoice: Mapping[str, Any]) -> str | None:
    """The subscription that an invoice is for, in both shapes."""
    details = _below(_below(invoice, "parent"), "subscription_details")
    return _id(details.get("subscription")) or _id(invoice.get("subscription"))


def rejected_of(event: Mapping[str, Any]) -> tuple[list[str], int]:
    """The idempotency keys of the meter events of a report that are given as samples, and how many events it is of."""
    reason = _below(_below(event, "data"), "reason")
    kinds, counted = reason.get("error_types"), reason.get("error_count")
    found: list[str] = []
    for kind in kinds if isinstance(kinds, list) else []:
        samples = kind.get("sample_errors") if isinstance(kind, dict) else None
        for sample in samples if isinstance(samples, list) else []:
            key = _below(sample if isinstance(sample, dict) else {}, "request").get("identifier")
            if isinstance(key, str):
                found.append(key)
    return found, max(len(found), counted if isinstance(counted, int) else 0)


def _signatures(header: str | None) -> tuple[str, list[bytes]]:
    if not header or len(header) > _HEADER_MAX:
        raise Junk("there is no Stripe-Signature")
    stamp, signatures = "", []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            stamp = value
        elif name == "v1" and value.isascii():
            signatures.append(value.encode())
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12 and 0 < len(signatures) <= _SIGNATURES_MAX):
        raise Junk("the Stripe-Signature cannot be read")
    return stamp, signatures


def _below(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _id(value: object) -> str | None:
    """The id of what may be there as an id or as the whole object."""
    found = value.get("id") if isinstance(value, Mapping) else value
    return found if isinstance(found, str) and _ID.fullmatch(found) else None
