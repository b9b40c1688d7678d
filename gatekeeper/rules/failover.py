"""May a call that an upstream did not serve be sent to the next one?

The rule: what may have been acted on is sent again only where sending it twice was declared harmless (RFC 9110 9.2.2),
and never once a byte of an answer went to the client.
"""

from enum import StrEnum

# Overloaded or broken for the moment, by every provider's list of errors; 529 is Anthropic's "overloaded".
FAILOVER_STATUSES = frozenset({429, 500, 502, 503, 504, 529})
# RFC 9110 9.2.2.
IDEMPOTENT_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PUT", "TRACE"})


class Retry(StrEnum):
    """Which calls may be sent again after a fault. UNSENT: those of which certainly nothing was acted on. IDEMPOTENT:
    also those that say that twice is as once, by their method or an ``Idempotency-Key``. ALWAYS: all."""

    UNSENT = "unsent"
    IDEMPOTENT = "idempotent"
    ALWAYS = "always"


def may_repeat(retry: Retry, method: str, *, unsent: bool, keyed: bool) -> bool:
    """Whether a fault before the head lets the call go on elsewhere. ``unsent``: nothing of it was acted on; ``keyed``:
    it carries an ``Idempotency-Key``."""
    if unsent or retry is Retry.ALWAYS:
        return True
    return retry is Retry.IDEMPOTENT and (keyed or method in IDEMPOTENT_METHODS)
