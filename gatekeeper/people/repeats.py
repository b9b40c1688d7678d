"""Requests that are sent twice (draft-ietf-httpapi-idempotency-key-header): the second is answered like the first and
changes nothing. The rule: a secret that was shown is not kept, so the second answer says that it was shown.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports.people import Repeats

KEY_LETTERS_MAX = 255
# Fields that hold a secret, in whatever answer: shown once, never kept.
SECRETS = frozenset({"key", "link", "secret", "token", "url"})
# What is kept for a day.
ANSWER_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Again:
    """What the first was answered: a JSON value, and its ETag."""

    status: int
    answer: Any
    etag: str | None


class Remembered:
    """Answers under keys; each caller's keys are his own."""

    def __init__(self, repeats: Repeats, clock: Clock) -> None:
        self._repeats = repeats
        self._clock = clock

    async def claim(self, caller: str, key: str, asked: bytes) -> tuple[str, Again | None]:
        """(a ticket, what the first was answered; None: go on). Raises Refusal: the key was used for something else
        (422), or the first is not answered yet (409)."""
        if not (0 < len(key) <= KEY_LETTERS_MAX and key.isascii() and key.isprintable()):
            raise Refusal(Code.BAD_REQUEST, f"Idempotency-Key is 1 to {KEY_LETTERS_MAX} printable ASCII letters.")
        ticket = hashlib.sha256(f"{caller}\0{key}".encode()).hexdigest()
        # Passwords are asked for, too: without the key, which is kept nowhere, nobody tries them out on this.
        fingerprint = hashlib.sha256(f"{caller}\0{key}\0".encode() + asked).hexdigest()
        known = await self._repeats.claim_repeat(ticket, fingerprint, self._clock.now_ms())
        if known is None:
            return ticket, None
        first, status, answer = known
        if first != fingerprint:
            raise Refusal(Code.CONFLICT, "The Idempotency-Key was used for another request.", status=422)
        if not status:
            raise Refusal(
                Code.CONFLICT,
                "The request with this Idempotency-Key is not answered yet, or nobody knows how it ended.",
                hint="look whether it was made, then use a new key",
            )
        kept = json.loads(answer)
        return ticket, Again(status, kept["answer"], kept["etag"])

    async def answered(self, ticket: str, status: int, answer: bytes, etag: str | None, once: frozenset[str]) -> None:
        """Keep what the first was answered, but for the fields that are shown once: these, and SECRETS."""
        value = json.loads(answer)
        once = (SECRETS | once).intersection(value) if isinstance(value, dict) else frozenset()
        if once:
            value = {name: each for name, each in value.items() if name not in once}
            value["shown_once"] = sorted(once)
            status = 200
        text = json.dumps({"answer": value, "etag": etag}, ensure_ascii=False)
        if len(text) > ANSWER_BYTES_MAX:
            text = json.dumps({"answer": {"repeated": True}, "etag": etag})
        await self._repeats.answer_repeat(ticket, status, text)

    async def dropped(self, ticket: str) -> None:
        """The first changed nothing: the next one goes on."""
        await self._repeats.drop_repeat(ticket)
