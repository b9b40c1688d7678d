"""Signatures of web hooks. Source: Standard Webhooks, https://github.com/standard-webhooks/standard-webhooks.

The rule: what is signed is ``id.timestamp.body``, over the bytes that are sent; a receiver that is told two secrets in
turn always finds a signature of the one that it knows.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping

# The specification's own tolerance: five minutes either way.
TOLERANCE_S = 300
_TIMESTAMP = re.compile(r"[0-9]{1,15}")


def signed_headers(message_id: str, timestamp_s: int, body: bytes, secrets: Iterable[str]) -> dict[str, str]:
    """The three headers; ``secrets`` are in base64, without ``whsec_``."""
    signatures = " ".join(f"v1,{_signature(message_id, str(timestamp_s), body, secret)}" for secret in secrets)
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp_s), "webhook-signature": signatures}


def is_signed(headers: Mapping[str, str], body: bytes, secret: str, now_s: int) -> bool:
    """Whether one of the signatures is by ``secret`` and recent. Header names are in lower case."""
    message_id, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not _TIMESTAMP.fullmatch(timestamp) or abs(now_s - int(timestamp)) > TOLERANCE_S:
        return False
    expected = f"v1,{_signature(message_id, timestamp, body, secret)}".encode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(expected, one.encode("utf-8", "replace")) for one in given)


def _signature(message_id: str, timestamp: str, body: bytes, secret: str) -> str:
    content = f"{message_id}.{timestamp}.".encode() + body
    return base64.b64encode(hmac.new(base64.b64decode(secret), content, hashlib.sha256).digest()).decode()
