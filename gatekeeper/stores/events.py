"""Events and their deliveries: what is to be told, to whom, and how far that is. See ``ports.Events`` and
``ports.Deliveries``.

The rule: an event is written in the transaction that makes it true. A lease is a later ``next_ms``, so whoever dies
with it leaves nothing behind but a delay; ``attempts`` tells one lease from the next.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

from gatekeeper.clock import Clock
from gatekeeper.rules.notices import Claim, Delivery, Event, Kind, Subscription, Wanted
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.stores.database import Ask, AskMany, Database, Row, Steps, alone
from gatekeeper.stores.lane import Lane
from gatekeeper.stores.rows import ids, json_text

SENT_KEPT_MS = 7 * DAY_MS
# As long as an operator may be away.
DEAD_KEPT_MS = 30 * DAY_MS
# A correction may come for so long, and make a counter reach its threshold a second time.
THRESHOLDS_KEPT_MS = 100 * DAY_MS
_ABANDONED = "nobody took it for 7 days: there is no target of this name, or it was down all the time"
# It goes into an HTTP header; a point would blur the text that is signed.
_EVENT_ID = re.compile(r"[!-\-/-~]{1,200}")


class SqlEvents:
    """See ``ports.Events`` and ``ports.Deliveries``."""

    _database: Database
    _clock: Clock
    _lane: Lane

    def tell(self, wanted: Wanted | None) -> None:
        """From now on these events are written; None: none at all."""
        self._lane.wanted = wanted

    async def emit(self, kind: str, event_id: str, customer_id: str | None, content: Mapping[str, Any]) -> bool:
        """Write an event, durably, where anybody wants it; True when it is new."""
        assert _EVENT_ID.fullmatch(event_id), event_id
        wanted = self._lane.wanted
        if wanted is None or kind not in wanted.kinds:
            return False
        row = (event_id, kind, customer_id, self._clock.now_ms(), json_text(content))
        return bool(await self._database.write(lambda: _answered("add_event", [row])))

    async def first(self, name: str, now_ms: int, until_ms: int) -> bool:
        """Whether this caller is the first of all processes to ask for ``name``; nobody else is until then."""
        # An owner of its own for each question: nobody prolongs what he has.
        asked = {"name": name, "owner": secrets.token_hex(8), "lease_ms": until_ms, "now_ms": now_ms}
        return bool(await self._database.write(alone("elect", **asked), durable=False))

    async def due(self, targets: Sequence[str], now_ms: int) -> tuple[bool, Sequence[str]]:
        """(whether events wait to be handed out, the targets for which deliveries are due). Only reads."""
        return await self._database.read(lambda: _due(targets, now_ms))

    async def fan_out(self, subscriptions: Sequence[Subscription], now_ms: int, *, limit: int = 200) -> int:
        """Hand the oldest new events out; returns how many events that were."""
        return await self._database.write(lambda: _fan_out(subscriptions, now_ms, limit), durable=False)

    async def claim(self, target: str, now_ms: int, lease_ms: int, limit: int) -> Sequence[Claim]:
        """Take deliveries that are due, the oldest first."""
        return await self._database.write(lambda: _claim(target, now_ms, lease_ms, limit), durable=False)

    async def delivered(self, claim: Claim, now_ms: int) -> None:
        """The target has it. (Lost with the host's power it is sent again, which its id makes harmless.)"""
        told = alone("delivered", event_id=claim.event.id, target=claim.target, now_ms=now_ms)
        await self._database.write(told, durable=False)

    async def failed(self, claim: Claim, error: str, next_ms: int | None, now_ms: int) -> None:
        """The target does not have it: try again at ``next_ms``, or give up (None)."""
        told = alone(
            "undelivered",
            event_id=claim.event.id,
            target=claim.target,
            attempts=claim.attempts,
            state="dead" if next_ms is None else "waiting",
            next_ms=now_ms if next_ms is None else next_ms,
            error=error,
        )
        await self._database.write(told, durable=False)

    async def prune(self, now_ms: int, *, limit: int = 500, nobody: bool = False) -> int:
        """Forget what is old, at most ``limit`` rows of each sort; returns how many there were of the largest. With
        ``nobody`` also events that wait to be handed out: there is no target."""
        return await self._database.write(lambda: _prune(now_ms, limit, nobody=nobody), durable=False)

    async def deliveries(
        self,
        *,
        event_id: str | None = None,
        state: str | None = None,
        target: str | None = None,
        after: tuple[int, str, str] | None = None,
        limit: int = 100,
    ) -> Sequence[Delivery]:
        """Latest event first; see ``ports.Deliveries``."""
        before_ms, before_id, after_target = (2**62, "", "") if after is None else after
        asked = {"event_id": event_id or "", "state": state or "", "target": target or "", "limit": limit}
        asked |= {"before_ms": before_ms, "before_id": before_id, "after_target": after_target}
        rows = await self._database.report(alone("deliveries", **asked))
        return [Delivery(_event(row[:5]), *row[5:]) for row in rows]

    async def event(self, event_id: str) -> Event | None:
        """One event, or None."""
        rows = await self._database.read(lambda: _answered("events_of", [(event_id,)]))
        return _event(rows[0]) if rows else None

    async def retry(self, now_ms: int, *, event_id: str | None = None, target: str | None = None) -> int:
        """Begin anew with what was given up; of one event also with what waits after a failure."""
        asked = {"event_id": event_id or "", "target": target or "", "now_ms": now_ms}
        return len(await self._database.write(alone("retry_deliveries", **asked)))


def _event(row: Row) -> Event:
    event_id, kind, customer_id, created_ms, content = row
    return Event(event_id, kind, customer_id, created_ms, json.loads(content))


def _answered(query: str, rows: Sequence[Row]) -> Steps[Sequence[Row]]:
    found = yield AskMany(query, rows)
    return found


def _due(targets: Sequence[str], now_ms: int) -> Steps[tuple[bool, Sequence[str]]]:
    new = bool((yield Ask("unfanned")))
    due: list[str] = []
    for target in targets:
        if (yield Ask("due_delivery", {"target": target, "now_ms": now_ms})):
            due.append(target)
    return new, due


def _fan_out(subscriptions: Sequence[Subscription], now_ms: int, limit: int) -> Steps[int]:
    events = [_event(row) for row in (yield Ask("unfanned_events", {"limit": limit}))]
    rows = [
        (event.id, one.target, "waiting", now_ms)
        for event in events
        for one in subscriptions
        if one.takes(event.kind, event.customer_id, event.content)
    ]
    if rows:
        yield AskMany("add_delivery", rows)
    if events:
        yield AskMany("fan_event", [(now_ms, event.id) for event in events])
    return len(events)


def _claim(target: str, now_ms: int, lease_ms: int, limit: int) -> Steps[Sequence[Claim]]:
    asked = {"target": target, "now_ms": now_ms, "lease_ms": lease_ms, "limit": limit}
    attempts: dict[str, int] = {}
    for event_id, count in (yield Ask("claim_deliveries", asked)):
        attempts[event_id] = count
    if not attempts:
        return []
    events = [_event(row) for row in (yield AskMany("events_of", ids(sorted(attempts))))]
    events.sort(key=lambda event: (event.created_ms, event.id))
    return [Claim(event, target, attempts[event.id]) for event in events]


def _prune(now_ms: int, limit: int, *, nobody: bool) -> Steps[int]:
    sent_ms, dead_ms = now_ms - SENT_KEPT_MS, now_ms - DEAD_KEPT_MS
    gone = {"now_ms": now_ms, "before_ms": sent_ms, "error": _ABANDONED, "limit": limit}
    counts = [len((yield Ask("abandon_deliveries", gone)))]
    for state, before_ms in (("sent", sent_ms), ("dead", dead_ms)):
        ended = {"state": state, "before_ms": before_ms, "limit": limit}
        counts.append(len((yield Ask("forget_deliveries", ended))))
    told = {
        "before_ms": sent_ms,
        "lasting_kind": Kind.LIMIT_THRESHOLD.value,
        "lasting_before_ms": now_ms - THRESHOLDS_KEPT_MS,
        "limit": limit,
    }
    counts.append(len((yield Ask("forget_events", told))))
    if nobody:
        counts.append(len((yield Ask("abandon_events", {"before_ms": sent_ms, "limit": limit}))))
    return max(counts)
