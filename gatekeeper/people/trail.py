"""The audit log. The rule: a deed is written before the change that it is of, so that no change is without one; one
that stays ``begun`` says that nobody knows how it ended. A deed holds no secret.
"""

import json
import logging
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from gatekeeper.clock import Clock
from gatekeeper.errors import Fault, Refusal
from gatekeeper.ports.people import Deed, Trail

log = logging.getLogger("gatekeeper.people")

# What one deed may take in the database: a page of facts.
DETAIL_LETTERS_MAX = 8_000
_SUBJECT_LETTERS_MAX = 300


class Doing:
    """A deed that is going on. ``facts`` goes into its detail; never put a secret there."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.subject = ""
        self.refused = False

    def note(self, facts: Mapping[str, Any]) -> None:
        """More facts; ``subject`` is what the deed is about."""
        more = dict(facts)
        self.subject = str(more.pop("subject", self.subject))[:_SUBJECT_LETTERS_MAX]
        self.facts.update(more)


class Deeds:
    """Writes deeds around changes."""

    def __init__(self, trail: Trail, clock: Clock) -> None:
        self._trail = trail
        self._clock = clock

    @asynccontextmanager
    async def doing(
        self, actor: str, action: str, subject: str, facts: Mapping[str, Any] | None = None
    ) -> AsyncIterator[Doing]:
        """Around a change: the body makes it. A Refusal that comes out of it ends the deed as refused, any other error
        leaves it begun. Raises Fault, and the body does not run, when the deed cannot be written."""
        now_ms = self._clock.now_ms()
        # In the order of time, for 8000 years; the rest tells those of one millisecond apart.
        deed_id = f"deed_{now_ms:012x}{secrets.token_hex(6)}"
        doing = Doing()
        doing.note(facts or {})
        begun = Deed(deed_id, now_ms, actor, action, subject[:_SUBJECT_LETTERS_MAX], "begun", _detail(doing.facts))
        await self._trail.begin_deed(begun)
        try:
            yield doing
        except Refusal as refusal:
            await self._end(deed_id, doing, "refused", {"refused": refusal.code.value})
            raise
        await self._end(deed_id, doing, "refused" if doing.refused else "done", {})

    async def _end(self, deed_id: str, doing: Doing, state: str, more: Mapping[str, Any]) -> None:
        try:
            await self._trail.end_deed(deed_id, state, _detail({**doing.facts, **more}), doing.subject)
        except Fault:
            # The change stands and is answered; its deed stays begun.
            log.exception("the end of %s was not written", deed_id)


def _detail(facts: Mapping[str, Any]) -> str:
    text = json.dumps(facts, ensure_ascii=False, default=str, separators=(",", ":"))
    # No database of ours stores NUL.
    text = text.replace("\\u0000", "\\ufffd")
    return text if len(text) <= DETAIL_LETTERS_MAX else json.dumps({"cut": text[: DETAIL_LETTERS_MAX // 2]})
