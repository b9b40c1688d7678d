"""The ledger: holds, extensions, settles, renewals and recoveries, each within one transaction. See ``ports.Ledger``.

The rule: every figure that decides is read under a lock, in the transaction that writes it. A late true settle after a
recovery appends one correction, so that sums over records and counters are the true ones.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from gatekeeper.clock import Clock
from gatekeeper.errors import Fault
from gatekeeper.ports import BucketState, CounterState, Extension, HoldOrder, InFlight, Progress, Settled, Settlement
from gatekeeper.rules import rates
from gatekeeper.rules.holds import HoldState
from gatekeeper.rules.limits import BucketKey, BucketRow, CounterKey, Denied, Granted
from gatekeeper.rules.plans import Plan
from gatekeeper.stores.database import AskMany, Database, Rejected, Steps, alone
from gatekeeper.stores.forgetting import Forgetter
from gatekeeper.stores.lane import Lane
from gatekeeper.stores.ops import ExtendOp, HoldOp, RecoverOp, SettleOp
from gatekeeper.stores.rows import HoldRow, ids, keys_text
from gatekeeper.tallies import Tallies

_LOG = logging.getLogger(__name__)
# Before all that expired.
_FIRST = (-(2**63), "")


class SqlLedger:
    """See ``ports.Ledger``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lane = Lane(database, clock.now_ms)
        self._forgetter = Forgetter(database)

    def count_in(self, tallies: Tallies) -> None:
        """From now on batches are counted there."""
        self._lane.tallies = tallies

    async def in_flight(self) -> InFlight:
        """How much is held and waits to be told, of all processes."""
        ((holds, tokens, waiting, dead),) = await self._database.report(alone("in_flight"))
        return InFlight(holds, tokens, waiting, dead)

    async def hold(self, order: HoldOrder) -> Granted | Denied:
        """Hold on all lines or on none. Asking again for the same open call changes nothing and is granted the same;
        for a call that is over it is a Fault. Cancelled: nothing stays held (a hold that is already committed is
        released at once, and if that fails it expires)."""
        return (await self._lane.hold(HoldOp(order))).verdict

    async def extend(self, extension: Extension) -> Granted | Denied | None:
        """Hold more on the stock lines of an open hold; progress and expiry are kept in any case, and neither goes
        back. None: the hold is not open any more. Cancelled: it is carried out all the same, and what was granted stays
        part of the hold, which its settle gives back whole."""
        answer: Granted | Denied | None = await self._lane.carry_out(ExtendOp(extension))
        return answer

    async def settle(self, settlement: Settlement) -> Settled:
        """Count once, however often called, by whichever process; durable when it returns.

        The record's ``units_micro`` is what counts for the dimension ``units``. A call that was never held counts on
        the limits of ``settlement.plan`` (none without a plan).
        Cancelled: it is carried out all the same.
        """
        settled: Settled = await self._lane.carry_out(SettleOp(settlement))
        return settled

    async def renew(self, progress: Sequence[Progress], expires_ms: int) -> Sequence[str]:
        """Prolong open holds; returns the call ids that are not open (any more), in the order given. Neither expiry
        nor progress goes back. A hold of this process that a crash of Postgres took with it is held again."""
        if not progress:
            return []
        alive = await self._database.write(lambda: _renew(progress, expires_ms), durable=False)
        gone = [sign for sign in progress if sign.call_id not in alive]
        now_ms = self._clock.now_ms()
        again = [Extension(sign.call_id, 0, 0, sign.units_micro, sign.output_seen, expires_ms, now_ms) for sign in gone]
        answers = await asyncio.gather(*(self.extend(extension) for extension in again))
        return [sign.call_id for sign, answer in zip(gone, answers, strict=True) if answer is None]

    async def recover(self, now_ms: int, plans: Mapping[str, Plan], *, limit: int = 100) -> int:
        """Settle the holds whose time is over, at their last progress; returns how many this caller ended. A hold whose
        call is on record is only released. A plan that is not in ``plans`` prices no overage. One that cannot be
        settled is told in the log and keeps no other; Fault: the ledger is away. Once a day, what nobody asks for any
        more is forgotten: see ``forgetting``."""
        recovered, after, away = 0, _FIRST, list[Fault]()
        while recovered < limit and not away:
            wanted = limit - recovered
            named = alone("expired_holds", now_ms=now_ms, after_ms=after[0], after=after[1], limit=wanted)
            rows = await self._database.read(named)
            ops = [RecoverOp(row[0], now_ms, plans) for row in rows]
            answers = await asyncio.gather(*(self._lane.carry_out(op) for op in ops), return_exceptions=True)
            recovered += sum(answer is True for answer in answers)
            failures = [(op, answer) for op, answer in zip(ops, answers, strict=True) if not isinstance(answer, bool)]
            away = [found for _, found in failures if isinstance(found, Fault) and not isinstance(found, Rejected)]
            if failures and not away:
                told = "%d holds cannot be recovered; the first is of call %s: %s"
                _LOG.error(told, len(failures), failures[0][0].call_id, failures[0][1])
            if not failures or len(rows) < wanted:
                break
            # As many as these would otherwise keep all that come after them.
            after = (rows[-1][1], rows[-1][0])
        await self._forgetter.turn(now_ms)
        if away and not recovered:
            raise away[0]
        return recovered

    async def counters(self, keys: Sequence[CounterKey]) -> Sequence[CounterState]:
        """The state of each counter, zeros where there is no row."""
        if not keys:
            return []
        rows = await self._database.read(alone("counters", keys=keys_text(keys)))
        found = {CounterKey(*row[:5]): (row[5], row[6]) for row in rows}
        return [CounterState(key, *found.get(key, (0, 0))) for key in keys]

    async def buckets(self, keys: Sequence[tuple[BucketKey, int]]) -> Sequence[BucketState]:
        """The state of each bucket; each key comes with its cap, which is its decay per ``per_ms``."""
        if not keys:
            return []
        names = keys_text([key for key, _ in keys])
        rows = await self._database.read(alone("buckets", keys=names, now_ms=self._clock.now_ms()))
        spent = {BucketKey(*row[:4]): (BucketRow(row[4], row[5]), row[6]) for row in rows}
        states = []
        for key, cap in keys:
            row, now_ms = spent.get(key, (BucketRow(), 0))
            states.append(BucketState(key, rates.decayed(row, cap, key.per_ms, now_ms)))
        return states

    async def unbalanced(self) -> tuple[Sequence[CounterKey], Sequence[str]]:
        """The doctor's question: counters that are not the sums of their calls' lines, and calls whose lines are not
        what their records say. Both are empty unless somebody wrote into the database by hand."""
        counters = await self._database.report(alone("unbalanced_counters", limit=2**31))
        calls = await self._database.report(alone("unbalanced_calls"))
        return [CounterKey(*row[:5]) for row in counters], [row[0] for row in calls]


def _renew(progress: Sequence[Progress], expires_ms: int) -> Steps[set[str]]:
    rows = yield AskMany("lock_holds", ids(sorted({sign.call_id for sign in progress})))
    alive = {row.call_id for row in (HoldRow(*found) for found in rows) if row.state == HoldState.OPEN}
    signs = [
        (expires_ms, sign.units_micro, int(sign.output_seen), sign.call_id)
        for sign in sorted(progress, key=lambda sign: sign.call_id)
        if sign.call_id in alive
    ]
    yield AskMany("renew_hold", signs)
    return alive
