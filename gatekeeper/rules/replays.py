"""Responses that were billed already: which provider ids tell one response from every other, who pays for it, and what
is left of a call that only fetched it again.

The rule: an id that an upstream may repeat, or that the caller chose, never makes a call free.
"""

import re
from collections.abc import Iterable, Mapping

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.rules.limits import REQUESTS
from gatekeeper.rules.windows import DAY_MS

NOTE = "replayed"
# The evidence of a replay: the call that paid.
PAID_BY = "replays"
# Providers keep responses for 30 days; a billing period more, and nobody fetches one any more.
KEPT_MS = 62 * DAY_MS
# A random id of 16 letters and digits comes again once in 2 ** 80; counters and times are shorter, or padded.
LETTERS_MIN = 16
KINDS_MIN = 6
# Longer ones are no provider's: something was echoed.
ID_LETTERS_MAX = 200

_UUID = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$", re.IGNORECASE)
# From the left and greedy: a search would try every place.
_LAST = re.compile(r"(?:.*[^A-Za-z0-9])?([A-Za-z0-9]+)$", re.DOTALL)
_DIGIT = re.compile("[0-9]")
# A letter or a digit that JSON spells as an escape: nobody needs to, and a name could hide behind it.
_HIDDEN = re.compile(rb"\\u00(?:3[0-9]|4[1-9a-f]|5[0-9a]|6[1-9a-f]|7[0-9a])", re.IGNORECASE)
_SPACERS = bytes(set(range(256)) - set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"))


def unique_part(response_id: str | None) -> str | None:
    """The part of a response id that no other response has: a UUID, or what stands behind the last separator. None
    where that is too short or too plain, as in ``chatcmpl-123``."""
    if response_id is None or len(response_id) > ID_LETTERS_MAX or not response_id.isascii():
        return None
    uuid = _UUID.search(response_id) if response_id.count("-") > 3 else None
    if uuid is not None:
        part = uuid[0].replace("-", "")
    elif (last := _LAST.match(response_id)) is not None:
        part = last[1]
    else:
        return None
    plain = _DIGIT.search(part) is None and part in (part.lower(), part.upper())
    # A padded counter begins anew with its server.
    short = len(part.lstrip("0")) < LETTERS_MIN or len(set(part)) < KINDS_MIN
    return None if plain or short else part


def told_by_caller(response_id: str | None, texts: Iterable[bytes]) -> bool:
    """Whether a request may have chosen that id: its unique part stands in it, in any case and with any separators, or
    letters are written as escapes. (Some servers name an answer after a header or a field of the request.)"""
    part = unique_part(response_id)
    if part is None:
        return False
    wanted = part.lower().encode()
    return any(_HIDDEN.search(text) or wanted in text.translate(None, _SPACERS).lower() for text in texts)


def charges(actual: Mapping[str, int]) -> bool:
    """Whether a call would take more than its request."""
    return any(amount > 0 for dimension, amount in actual.items() if dimension != REQUESTS)


def pays(outcome: Outcome, source: Mark) -> bool:
    """Whether what was charged is all of the response: only then is fetching it again free. Who hangs up is charged an
    estimate of what was delivered, and who then fetches the whole pays for it."""
    return outcome is Outcome.COMPLETE and source is Mark.MEASURED


def nothing_but_the_request(actual: Mapping[str, int]) -> dict[str, int]:
    """What a replay takes."""
    return {dimension: amount if dimension == REQUESTS else 0 for dimension, amount in actual.items()}


def noted(note: str | None) -> str:
    """The note of a replay."""
    return NOTE if note is None else f"{NOTE}; {note}"


def is_replayed(note: str | None) -> bool:
    """Whether a record's note says so."""
    return note is not None and (note == NOTE or note.startswith(f"{NOTE}; "))
