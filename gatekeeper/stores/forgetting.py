"""What the ledger forgets, once a day, by one process of all that share a database, a bounded number of rows at a time.

The rule: nothing goes that a decision, a charge or the doctor's proof could still ask for. So these stay for as long as
the usage records do, which are never deleted here: counters of anything (they are the sums of records' lines, and the
doctor holds the one against the other), what is owed and the batches it went into (the sums of charges). What goes:

- buckets that nobody has charged for 35 days and that have drained since even at one unit (a tenth of a cent) a period:
  a row that is not there is an empty bucket;
- counters of nothing, whose window began more than 35 days ago: a row that is not there is 0. Calls that were refused,
  or took nothing, left them;
- holds recovered more than 35 days ago, billed responses of 62, and tries of 100, whose calls' records stay.
"""

import logging
from collections.abc import Sequence
from functools import partial
from uuid import uuid4

from gatekeeper.errors import Fault
from gatekeeper.rules import replays
from gatekeeper.rules.windows import DAY_MS, HOUR_MS, months_from
from gatekeeper.stores.database import AskMany, Database, Row, Steps, alone

_LOG = logging.getLogger(__name__)
_FORGETTER = "forgetter"
# As many as a heartbeat's worth of a busy gateway; the rest at the next one.
AT_ONCE = 5_000
# What a batch of calls takes: nobody waits for longer behind it.
_IN_ONE_COMMIT = 500
# Made while nobody writes into them: this month, too, for a database that is new.
MONTHS_AHEAD = 3
# A call that was recovered may still be settled truly in its own billing period, or just after it.
CORRECTED_WITHIN_MS = 35 * DAY_MS
# Who looks into a failing upstream does so within a quarter; the record of the call itself stays.
ATTEMPTS_KEPT_MS = 100 * DAY_MS


class Forgetter:
    """Of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._owner = uuid4().hex
        self._next_ms = 0

    async def turn(self, now_ms: int) -> None:
        """Often: does something once a day, or as long as there is more to forget. Raises Fault."""
        if now_ms < self._next_ms:
            return
        # Until tomorrow: whoever is not elected asks again in an hour, should this process be gone by then.
        asked = {"name": _FORGETTER, "owner": self._owner, "lease_ms": now_ms + DAY_MS, "now_ms": now_ms}
        if not await self._database.write(alone("elect", **asked), durable=False):
            self._next_ms = now_ms + HOUR_MS
            return
        await self._make_months(now_ms)
        more = await self._forget(now_ms)
        self._next_ms = now_ms if more else now_ms + DAY_MS

    async def _forget(self, now_ms: int) -> bool:
        """Whether any sort of row may have more."""
        corrected_ms = now_ms - CORRECTED_WITHIN_MS
        counts = [
            len(await self._database.write(alone(query, before_ms=before_ms, limit=AT_ONCE), durable=False))
            for query, before_ms in (
                ("forget_recovered", corrected_ms),
                ("forget_responses", now_ms - replays.KEPT_MS),
                ("forget_attempts", now_ms - ATTEMPTS_KEPT_MS),
            )
        ]
        for find, forget in (("idle_buckets", "forget_buckets"), ("empty_counters", "forget_counters")):
            # Found beside the writers, and deleted by all their figures: what was written since is another row.
            found = await self._database.report(alone(find, before_ms=corrected_ms, limit=AT_ONCE))
            rows = sorted(tuple(row) for row in found)
            for start in range(0, len(rows), _IN_ONE_COMMIT):
                some = rows[start : start + _IN_ONE_COMMIT]
                await self._database.write(partial(_many, forget, some), durable=False)
            counts.append(len(rows))
        return AT_ONCE in counts

    async def _make_months(self, now_ms: int) -> None:
        """Where it fails (this user may not make tables, a report reads them all) records stand in the partition that
        takes everything, until it works another day."""
        for month in months_from(now_ms, MONTHS_AHEAD):
            try:
                await self._database.write(alone("make_month", month=month), durable=False)
            except Fault as failure:
                _LOG.warning("no partition for the records of %s: %s", month, failure)
                return


def _many(query: str, rows: Sequence[Row]) -> Steps[None]:
    yield AskMany(query, rows)
