"""Group commit: many calls' holds and settles as one transaction. A unit of work; see ``database``.

The rule: lock in one order (calls by id, then counters, then buckets, missing rows made before any of those is locked),
decide call by call with ``rules``, write each row once. One refused or broken order changes nothing for the others.
Held equal to one transaction for each call by a property test.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gatekeeper.errors import Fault
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import Extension, HoldOrder, Settled, Settlement, UsageRecord
from gatekeeper.rules import budgets, holds, replays
from gatekeeper.rules.holds import HeldLine, Hold, HoldState
from gatekeeper.rules.limits import (
    DOLLARS,
    UNITS,
    BucketKey,
    BucketRow,
    CounterKey,
    CounterRow,
    Denied,
    Granted,
    Mode,
    Scope,
    Window,
)
from gatekeeper.rules.lines import Bounds, Subject, stock_lines
from gatekeeper.rules.notices import Wanted
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.rates import INT64_MAX
from gatekeeper.rules.windows import HOUR_MS, window_bounds
from gatekeeper.stores.claims import Claims, replayed, taken_by
from gatekeeper.stores.database import AskAll, AskEach, AskMany, Row, Rows, Stamp, Steps, fault
from gatekeeper.stores.known import Known, Vanished
from gatekeeper.stores.ops import ExtendOp, Held, HoldOp, Op, RecoverOp, SettleOp
from gatekeeper.stores.rows import (
    CORRECTION,
    HoldRow,
    attempt_args,
    correction_of,
    hold_args,
    ids,
    lines_text,
    merged,
    record_args,
    record_of,
    taken_of,
    taken_text,
)
from gatekeeper.stores.telling import settled_events

# As quick as a tuple: a class of named fields takes two to four times as long to call.
_new = tuple.__new__
# What rules and rows raise for figures that cannot be: it concerns that one call.
_MISTAKEN = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)
_OPEN = HoldState.OPEN.value
_STATES = {state.value: state for state in HoldState}
_NOTHING = Bounds()
_NO_HOLD = Hold()


class Batch:
    """One transaction for ``ops``, no two of which concern the same call."""

    def __init__(
        self,
        ops: Sequence[Op],
        known: Known,
        now_ms: Callable[[], int],
        wanted: Wanted | None = None,
        *,
        doubtful: bool = False,
    ) -> None:
        self._ops = ops
        # Tried before and refused: a new call may be held or on record, an open hold may stand beside its record.
        self._doubtful = doubtful
        self._wanted = wanted
        self._known = known
        self._now_ms = now_ms
        self._clock_ms = 0
        self._holds: dict[str, HoldRow] = {}
        self._lines: dict[str, Hold] = {}
        # Calls whose holds are to be read and locked, and those that may be on record already, with their months.
        self._asked: list[str] = []
        self._new: list[Row] = []
        self._recorded: set[str] = set()
        self._records: dict[str, UsageRecord] = {}
        self._taken: dict[str, dict[CounterKey, int]] = {}
        # The billing period in which a call counts, where a line of its hold tells it; and where it must be looked up.
        self._periods: dict[str, tuple[int, int | None]] = {}
        self._anchors: dict[str, int] = {}
        self._claims = Claims()
        # What is known, and changed in place: until the commit nobody relies on it (see ``Known.is_fresh``).
        self._counters = known.counter_rows
        self._buckets = known.bucket_rows
        self._counters_read: list[CounterKey] = []
        self._buckets_read: list[BucketKey] = []
        self._counters_changed: dict[CounterKey, CounterRow] = {}
        self._buckets_changed: dict[BucketKey, BucketRow] = {}
        self._denied: list[Row] = []
        self._dropped: list[str] = []
        self._made: dict[str, tuple[str, int, Hold, HoldRow]] = {}
        self._rewritten: dict[str, HoldRow] = {}
        self._stamp: Rows = ()
        self._writes: dict[str, list[Row]] = {}

    def work(self) -> Steps[list[Any]]:
        """One answer for each op, in order; an exception stands for an op that could not be."""
        self._known.is_fresh((yield Stamp()))
        if self._has_others():
            yield from self._load()
        yield from self._lock()
        answers: list[Any] = []
        for op in self._ops:
            try:
                answers.append(self._apply(op))
            except _MISTAKEN as mistake:
                if isinstance(op, SettleOp) and (response := self._claims.give_up(op.settlement)) is not None:
                    self._add("unclaim_response", response)
                answers.append(mistake)
        if self._denied and not self._doubtful:
            yield from self._doubt_denials()
        if parts := self._changes():
            yield AskAll(parts)
        self._stamp = yield Stamp()
        return answers

    def remembered(self) -> None:
        """After the commit: the next batch need not ask again for what this one has left."""
        read = self._counters_read, self._buckets_read
        self._known.remember(self._stamp, *read, self._made, self._rewritten, self._dropped)

    def is_safe(self) -> None:
        """After its commit, when that cannot be lost any more."""
        self._known.forget_holds(self._dropped)

    # --- reading and locking ---

    def _has_others(self) -> bool:
        """Take the holds that are known. Whether any op is more than the hold of a new call, which asks for nothing
        here: where it is not new, it cannot be written (see the query ``add_hold``), and is tried again in doubt."""
        rows, others = self._known.hold_rows, self._doubtful
        for op in self._ops:
            made = rows.get(op.call_id)
            if made is not None:
                self._holds[op.call_id] = made
            elif self._doubtful or type(op) is not HoldOp:
                self._asked.append(op.call_id)
            others = others or type(op) is not HoldOp
        return others

    def _load(self) -> Steps[None]:
        if self._asked:
            for found in (yield AskMany("lock_holds", ids(sorted(self._asked)))):
                self._holds[found[0]] = _new(HoldRow, found)
        new, again, lost = self._new, list[Row](), list[Row]()
        for op in self._ops:
            call_id = op.call_id
            hold = self._holds.get(call_id)
            if isinstance(op, HoldOp):
                if hold is None and self._doubtful:
                    new.append((call_id, op.order.admitted_month))
                continue
            if hold is not None:
                self._lines[call_id] = self._known.hold(hold)
                if isinstance(op, RecoverOp):
                    # Nobody puts it on record meanwhile: its hold is locked.
                    new.append((call_id, hold.admitted_month))
            elif isinstance(op, ExtendOp) and (gone := self._known.holds.get(call_id)) is not None:
                lost.append((call_id, gone[3][1]))
                self._lines[call_id] = gone[2]
            if isinstance(op, SettleOp) and (hold is None or hold.state != _OPEN or self._doubtful):
                month = op.settlement.record.admitted_month if hold is None else hold.admitted_month
                again += ((call_id, month), (call_id + CORRECTION, month))
        if again or lost:
            yield from self._look_up(again, lost)
        customers = {customer for op in self._ops if (customer := self._to_look_up(op)) is not None}
        if customers:
            for customer_id, anchor_ms in (yield AskMany("anchors_of", ids(sorted(customers)))):
                self._anchors[customer_id] = anchor_ms
        claiming: list[Settlement] = []
        for op in self._ops:
            if isinstance(op, SettleOp) and self._is_new(op.call_id):
                if op.call_id not in self._holds:
                    self._lines[op.call_id] = unheld = self._unheld(op.settlement)
                    if (period := _period(unheld)) is not None:
                        self._periods[op.call_id] = period
                if op.settlement.once_per_response:
                    claiming.append(op.settlement)
        if claiming:
            yield from self._claims.make(claiming)

    def _look_up(self, again: Sequence[Row], lost: Sequence[Row]) -> Steps[None]:
        """Read the records of the first, and whether there are any of the second. A call without a hold has no row to
        lock, and may be held again here while it is settled there: both lock its name, and look after that."""
        unheld = [op.call_id for op in self._ops if isinstance(op, SettleOp) and op.call_id not in self._holds]
        names = ids(sorted([*unheld, *(row[0] for row in lost)]))
        if names:
            yield AskMany("lock_calls", names)
        asked = (("held_calls", names), ("recorded_calls", lost), ("records_of", again))
        parts = [AskMany(query, rows) for query, rows in asked if rows]
        found = dict(zip([part.query for part in parts], (yield AskEach(parts)), strict=True))
        if found.get("held_calls"):
            raise Vanished
        self._recorded.update(row[0] for row in found.get("recorded_calls", ()))
        for row in found.get("records_of", ()):
            self._records[row[0]], self._taken[row[0]] = record_of(row), taken_of(row[-1])

    def _is_new(self, call_id: str) -> bool:
        """Whether the call is not settled yet; a recovered one is not, until its truth is known."""
        if call_id not in self._records:
            return True
        hold = self._holds.get(call_id)
        return hold is not None and hold.state != _OPEN

    def _to_look_up(self, op: Op) -> str | None:
        """The customer whose billing period is needed and not told by a line of the hold."""
        hold = self._holds.get(op.call_id)
        if isinstance(op, SettleOp):
            plan, customer_id = op.settlement.plan, op.settlement.record.customer_id
        elif isinstance(op, RecoverOp) and hold is not None:
            plan, customer_id = op.plans.get(hold.plan_id), hold.customer_id
        else:
            return None
        if plan is None or (hold is not None and not _is_billed(plan)):
            return None
        period = _period(self._lines.get(op.call_id, _NO_HOLD))
        if period is None:
            return customer_id
        self._periods[op.call_id] = period
        return None

    def _unheld(self, settlement: Settlement) -> Hold:
        """Where a call counts that is not held (any more): where it was to be held, or where it stood before a crash of
        Postgres took its hold, or else on the limits of its plan, in the windows of its admission."""
        record, plan = settlement.record, settlement.plan
        if settlement.stock is not None:
            return holds.unheld(settlement.stock, settlement.rates)
        lost = self._known.holds.get(record.call_id)
        if lost is not None:
            return lost[2]
        if plan is None:
            return Hold()
        subject = Subject(
            record.customer_id,
            record.plan_id,
            record.route,
            self._anchors.get(record.customer_id, 0),
            record.key_id,
            record.user_id,
            record.agent_id,
            record.model,
        )
        lines = {line.key: line for line in stock_lines(plan, subject, _NOTHING, record.started_ms)}
        held = tuple(HeldLine(line.key, line.limit, line.cap, line.mode, 0) for line in lines.values())
        return Hold(held, stock=tuple(lines.values()))

    def _lock(self) -> Steps[None]:
        unread, empty = self._unread()
        # All rows are made before any is locked: two batches that did both by turns could wait for each other.
        if unread and (counters := sorted(unread - self._known.counters)):
            yield AskMany("ensure_counter", counters)
        if empty and (buckets := sorted(empty - self._known.buckets)):
            yield AskMany("ensure_bucket", buckets)
        asked = (("recorded_calls", self._new), ("lock_counters", sorted(unread)), ("lock_buckets", sorted(empty)))
        parts = [AskMany(query, rows) for query, rows in asked if rows]
        found = dict(zip([part.query for part in parts], (yield AskEach(parts)) if parts else (), strict=True))
        self._recorded.update(row[0] for row in found.get("recorded_calls", ()))
        for scope, subject, dimension, span, start_ms, used, held in found.get("lock_counters", ()):
            key = _new(CounterKey, (scope, subject, dimension, span, start_ms))
            self._counters[key] = _new(CounterRow, (used, held))
            self._counters_read.append(key)
        self._clock_ms = self._now_ms()
        for scope, subject, dimension, per_ms, spent, at_ms, now_ms in found.get("lock_buckets", ()):
            bucket = _new(BucketKey, (scope, subject, dimension, per_ms))
            self._buckets[bucket] = _new(BucketRow, (spent, at_ms))
            self._buckets_read.append(bucket)
            self._clock_ms = now_ms or self._clock_ms
        if len(self._counters_read) < len(unread) or len(self._buckets_read) < len(empty):
            raise Vanished

    def _doubt_denials(self) -> Steps[None]:
        """Nothing is written for a call that was denied, so nothing has said yet whether it is a new one."""
        held = AskMany("held_calls", [row[:1] for row in self._denied])
        if any((yield AskEach([held, AskMany("recorded_calls", self._denied)]))):
            raise Vanished

    def _unread(self) -> tuple[set[CounterKey], set[BucketKey]]:
        """The rows that are needed and not known."""
        counters, buckets = self._counters, self._buckets
        unread: set[CounterKey] = set()
        empty: set[BucketKey] = set()
        for op in self._ops:
            stands_on: HoldOrder | Hold | None = op.order if isinstance(op, HoldOp) else self._lines.get(op.call_id)
            if stands_on is None:
                continue
            for line in stands_on.stock:
                if line.key not in counters:
                    unread.add(line.key)
            for rate in stands_on.rates:
                if rate.key not in buckets:
                    empty.add(rate.key)
        return unread, empty

    # --- deciding, in memory ---

    def _apply(self, op: Op) -> Any:
        if isinstance(op, SettleOp):
            return self._settle(op.settlement)
        if isinstance(op, HoldOp):
            return self._hold(op.order)
        if isinstance(op, ExtendOp):
            return self._extend(op.extension)
        return self._recover(op) if isinstance(op, RecoverOp) else self._release(op.call_id)

    def _hold(self, order: HoldOrder) -> Held | Fault:
        call_id = order.call_id
        before = self._holds.get(call_id)
        if call_id in self._recorded or (before is not None and before.state != _OPEN):
            return fault(f"the call {call_id} is over: it cannot hold again")
        if before is not None:
            stock = budgets.stock_states(order.stock, self._counters)
            rates = budgets.rate_states(order.rates, self._buckets, self._clock_ms)
            return Held(Granted(before.output_tokens, stock, rates), created=False)
        verdict, hold, counters, buckets = budgets.decide(
            order.stock,
            order.rates,
            order.output_tokens,
            order.output_tokens_min,
            self._counters,
            self._buckets,
            order.now_ms,
            rates_now_ms=self._clock_ms,
        )
        if hold is None or isinstance(verdict, Denied):
            self._denied.append((call_id, order.admitted_month))
            return Held(verdict, created=False)
        text, granted = lines_text(hold), verdict.output_tokens
        row = hold_args(order, granted, text)
        self._add("add_hold", row)
        self._made[call_id] = text, granted, hold, row
        self._rewritten[call_id] = row
        self._change(counters, buckets)
        return _new(Held, (verdict, True))

    def _extend(self, extension: Extension) -> Granted | Denied | None:
        found = self._holds.get(extension.call_id)
        row, again = self._lost(extension.call_id) if found is None else (found, {})
        if row is None or row.state != _OPEN:
            return None
        stock, granted = self._lines[extension.call_id].stock, row.output_tokens
        wanted, least = extension.output_tokens, extension.output_tokens_min
        counters = {**self._counters, **again} if again else self._counters
        decision = budgets.extend(stock, granted, wanted, least, counters, extension.now_ms)
        if isinstance(decision.verdict, Granted):
            granted += decision.verdict.output_tokens
        if granted > INT64_MAX:
            raise ValueError("so many output tokens do not fit 64 bits")
        # Neither expiry nor progress goes back, and they are kept whatever the answer is.
        expires_ms = max(row.expires_ms, extension.expires_ms)
        units_micro = max(row.progress_units_micro, extension.units_micro)
        output_seen = max(row.output_seen, int(extension.output_seen))
        held = row._replace(
            output_tokens=granted, expires_ms=expires_ms, progress_units_micro=units_micro, output_seen=output_seen
        )
        self._rewritten[extension.call_id] = held
        if found is None:
            self._add("add_hold", held)
            self._change(again, {})
        else:
            self._add("extend_hold", (granted, expires_ms, units_micro, output_seen, extension.call_id))
        self._change(decision.counters, decision.buckets)
        return decision.verdict

    def _lost(self, call_id: str) -> tuple[HoldRow | None, Mapping[CounterKey, CounterRow]]:
        """A hold of this process that is neither there nor on record, and its counters with it held again: a crash of
        Postgres took its commit along. Its call is in flight, so it is held whatever others were granted meanwhile."""
        lost = self._known.holds.get(call_id)
        if lost is None or call_id in self._recorded:
            return None, {}
        rows = ((line, self._counters[line.key]) for line in lost[2].lines)
        return lost[3], {line.key: row._replace(held=row.held + line.amount) for line, row in rows}

    def _settle(self, settlement: Settlement) -> Settled:
        record, call_id = settlement.record, settlement.record.call_id
        before = self._holds.get(call_id)
        recovered: UsageRecord | None = None
        if self._records and not self._is_new(call_id):
            stored = merged([found for name in (call_id, call_id + CORRECTION) if (found := self._records.get(name))])
            if before is not None:
                self._let_go(call_id)
            return Settled(first=False, record=stored or record)
        if before is None:
            state = HoldState.RELEASED
        else:
            if record.admitted_month != before.admitted_month:
                record = replace(record, admitted_month=before.admitted_month)
            state = _STATES[before.state]
            if state is HoldState.RECOVERED:
                recovered = self._records[call_id]
        actual = taken_by(settlement)
        if settlement.once_per_response and (payer := self._claims.payer(settlement)) is not None:
            record, actual = replayed(record, payer), replays.nothing_but_the_request(actual)
        settled = self._count(record, actual, settlement.plan, state, recovered, settlement.now_ms)
        for attempt in settlement.attempts:
            self._add("add_attempt", attempt_args(call_id, attempt))
        if before is not None or call_id in self._known.holds:
            self._dropped.append(call_id)
        return settled

    def _recover(self, op: RecoverOp) -> bool:
        row = self._holds.get(op.call_id)
        if row is None or row.state != _OPEN or row.expires_ms > op.now_ms:
            return False
        if op.call_id in self._recorded:
            self._let_go(op.call_id)
            return True
        hold = self._lines.get(op.call_id, _NO_HOLD)
        units = row.progress_units_micro
        held = max((line.amount for line in hold.lines if line.key.dimension == UNITS), default=0)
        actual = holds.recovered_actual(hold, units, output_seen=bool(row.output_seen))
        record = UsageRecord(
            **{name: getattr(row, name) for name in _SHARED},
            method="",
            path="",
            status=None,
            outcome=Outcome.CUT,
            streamed=bool(row.output_seen),
            ended_ms=op.now_ms,
            first_byte_ms=None,
            units_micro=units,
            source=Mark.ESTIMATED,
            note="recovered",
            # What its dollar limits count: sums over records and over counters stay the same.
            cost_nano=actual.get(DOLLARS),
            # What was held and is not charged: the operator's exposure.
            evidence={"held_micro": held, "exposure_micro": max(0, held - units)},
        )
        self._count(record, actual, op.plans.get(row.plan_id), HoldState.OPEN, None, op.now_ms)
        self._add("recover_hold", (op.call_id,))
        self._rewritten[op.call_id] = row._replace(state=HoldState.RECOVERED.value)
        return True

    def _release(self, call_id: str) -> bool:
        row = self._holds.get(call_id)
        if row is None or row.state != _OPEN:
            return False
        self._give_back(call_id, self._lines.get(call_id, _NO_HOLD))
        return True

    def _let_go(self, call_id: str) -> None:
        """End an open hold whose call is on record; what its buckets were charged was put right with that."""
        self._give_back(call_id, self._lines.get(call_id, _NO_HOLD)._replace(rates=()))

    def _give_back(self, call_id: str, hold: Hold) -> None:
        ending = holds.release(hold, self._counters, self._buckets, self._clock_ms)
        self._dropped.append(call_id)
        self._change(ending.counters, ending.buckets)

    def _count(
        self,
        record: UsageRecord,
        actual: Mapping[str, int],
        plan: Plan | None,
        state: HoldState,
        recovered: UsageRecord | None,
        now_ms: int,
    ) -> Settled:
        """Everything that one end of a call writes but its hold; returns the record as it is known then."""
        call_id = record.call_id
        hold = self._lines.get(call_id, _NO_HOLD)
        taken: Mapping[CounterKey, int] = {}
        if recovered is not None:
            taken = self._taken[call_id]
            hold = hold._replace(lines=tuple(line._replace(actual=taken.get(line.key)) for line in hold.lines))
        ending = holds.settle(
            hold,
            state,
            actual,
            plan,
            self._counters,
            self._buckets,
            self._clock_ms,
            model=record.model,
            since_ms=record.started_ms,
        )
        after, counters, buckets, charge_nano, overrun_micro, all_counted = ending
        settled, row = Settled(True, record, charge_nano, overrun_micro), record
        if recovered is not None:
            row = correction_of(settled.record, recovered)
            settled = Settled(first=True, record=merged([recovered, row]) or record)
        counted = after.lines if all_counted else holds.counted(after.lines, record.model, taken)
        lines = taken_text(counted, taken, counters)
        corrects = None if recovered is None else call_id
        columns = record_args(row, lines, charge_nano, overrun_micro, corrects)
        owed = None
        if plan is not None and (row.units_micro or charge_nano) and _is_billed(plan):
            owed = self._owed(row, charge_nano, now_ms)
        events: Sequence[Row] = ()
        if self._wanted is not None:
            told = row if recovered is not None else settled.record
            events = settled_events(self._wanted, told, corrects, hold.stock, self._counters, counters, now_ms)
        # Nothing raises from here on: an op changes all or nothing.
        self._add("add_record", columns)
        hour_ms = row.started_ms - row.started_ms % HOUR_MS
        if self._clock_ms >= hour_ms + HOUR_MS:
            # Its hour may be summed up: see ``rolling``.
            self._add("add_late", (hour_ms, row.call_id))
        if owed is not None:
            self._add("add_owed", owed)
        for event in events:
            self._add("add_event", event)
        self._change(counters, buckets)
        return settled

    def _owed(self, row: UsageRecord, charge_nano: int, now_ms: int) -> Row:
        # The period in which the call was counted, also when the anchor was moved since.
        period = self._periods.get(row.call_id.removesuffix(CORRECTION))
        if period is None:
            anchor_ms = self._anchors.get(row.customer_id, 0)
            period = window_bounds(Window.BILLING_PERIOD, row.started_ms, anchor_ms=anchor_ms)
        return (
            row.call_id,
            row.customer_id,
            row.plan_id,
            *period,
            row.started_ms,
            now_ms,
            row.units_micro,
            charge_nano,
        )

    # --- writing ---

    def _add(self, query: str, row: Row) -> None:
        rows = self._writes.get(query)
        if rows is None:
            self._writes[query] = [row]
        else:
            rows.append(row)

    def _change(self, counters: Mapping[CounterKey, CounterRow], buckets: Mapping[BucketKey, BucketRow]) -> None:
        self._counters.update(counters)
        self._counters_changed.update(counters)
        if buckets:
            self._buckets.update(buckets)
            self._buckets_changed.update(buckets)

    def _changes(self) -> list[AskMany]:
        parts = [AskMany(query, rows) for query, rows in self._writes.items()]
        if self._dropped:
            parts.append(AskMany("drop_holds", ids(self._dropped)))
        if self._counters_changed:
            parts.append(AskMany("set_counter", [key + row for key, row in self._counters_changed.items()]))
        if self._buckets_changed:
            parts.append(AskMany("set_bucket", [key + row for key, row in self._buckets_changed.items()]))
        # Sorted, so that the same few combinations come again.
        parts.sort(key=_query_of)
        return parts


def _query_of(part: AskMany) -> str:
    return part.query


_SHARED = (
    "call_id",
    "admitted_month",
    "customer_id",
    "key_id",
    "user_id",
    "agent_id",
    "plan_id",
    "route",
    "upstream",
    "model",
    "started_ms",
)


def _is_billed(plan: Plan) -> bool:
    """Whether anybody is to be told what was used on it."""
    return plan.overage is not None or plan.stripe_price is not None or plan.metered_price is not None


def _period(hold: Hold) -> tuple[int, int | None] | None:
    """Start and end of the billing period that the hold counts in, where a line tells it."""
    for line in hold.lines:
        key = line.key
        # Only a priced quota surely began with the period: another limit may have been reset in it.
        if key.window == Window.BILLING_PERIOD and key.scope == Scope.CUSTOMER and line.mode is Mode.OVERAGE:
            return key.start_ms, next((one.ends_ms for one in hold.stock if one.key == key), None)
    return None
