"""Group commit: many calls' holds and settles as one transaction. A unit of work; see ``database``.

The rule: lock in one order (calls by id, then counters, then buckets, missing rows made before any of those is locked),
decide call by call with ``rules``, write each row once. One refused or broken order changes nothing for the others.
Held equal to one transaction for each call by a property test.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gatekeeper.errors import Fault
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import HoldOrder, Settled, Settlement, UsageRecord
from gatekeeper.rules import budgets, holds
from gatekeeper.rules.holds import HeldLine, Hold, HoldState
from gatekeeper.rules.limits import UNITS, BucketKey, BucketRow, CounterKey, CounterRow, Denied, Granted, Scope, Window
from gatekeeper.rules.lines import Bounds, Subject, stock_lines
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import window_bounds
from gatekeeper.stores.database import Ask, AskMany, Row, Steps, fault
from gatekeeper.stores.ops import Held, HoldOp, Op, RecoverOp, ReleaseOp, SettleOp
from gatekeeper.stores.rows import (
    CORRECTION,
    HoldRow,
    bucket_args,
    counter_args,
    ended_args,
    hold_of,
    hold_row,
    keys_text,
    line_args,
    merged,
    record_args,
    record_of,
)

# What rules and rows raise for figures that cannot be: it concerns that one call.
_MISTAKEN = (ArithmeticError, AssertionError, LookupError, TypeError, ValueError)
_NOTHING = Bounds(fixed_micro=0, output_tokens=0, output_tokens_min=0, rate_micro=0, rate_least_micro=0)


class Vanished(Exception):
    """A row that was known to exist is gone: somebody emptied the database. Forget and try again."""


@dataclass(slots=True)
class Known:
    """Rows that are known to exist, so that they need not be made again. Their figures are never remembered."""

    counters: set[CounterKey] = field(default_factory=set)
    buckets: set[BucketKey] = field(default_factory=set)
    # About 30 MB; then it starts anew, which costs one INSERT a row.
    rows_max: int = 100_000

    def remember(self, batch: "Batch") -> None:
        """After the commit."""
        if len(self.counters) + len(self.buckets) > self.rows_max:
            self.forget()
        self.counters.update(batch.counters)
        self.buckets.update(batch.buckets)

    def forget(self) -> None:
        """Of all of them."""
        self.counters.clear()
        self.buckets.clear()


class Batch:
    """One transaction for ``ops``, no two of which concern the same call."""

    def __init__(self, ops: Sequence[Op], known: Known, now_ms: Callable[[], int]) -> None:
        self._ops = ops
        self._known = known
        self._now_ms = now_ms
        self._clock_ms = 0
        self._holds: dict[str, HoldRow] = {}
        self._lines: dict[str, Hold] = {}
        self._records: dict[str, UsageRecord] = {}
        self._anchors: dict[str, int] = {}
        self.counters: dict[CounterKey, CounterRow] = {}
        self.buckets: dict[BucketKey, BucketRow] = {}
        self._changed_counters: set[CounterKey] = set()
        self._changed_buckets: set[BucketKey] = set()
        self._writes: dict[str, list[dict[str, Any]]] = {}

    def work(self) -> Steps[list[Any]]:
        """One answer for each op, in order; an exception stands for an op that could not be."""
        yield from self._load()
        yield from self._lock()
        answers: list[Any] = []
        for op in self._ops:
            try:
                answers.append(self._apply(op))
            except _MISTAKEN as mistake:
                answers.append(mistake)
        yield from self._write()
        return answers

    # --- reading and locking ---

    def _load(self) -> Steps[None]:
        call_ids = sorted({op.call_id for op in self._ops})
        for row in (yield Ask("lock_holds", {"call_ids": keys_text(call_ids)})):
            self._holds[row[0]] = HoldRow(*row)
        ending = [op for op in self._ops if not isinstance(op, HoldOp)]
        if not ending:
            return
        lines: dict[str, list[Row]] = {}
        for row in (yield Ask("lines_of", {"call_ids": keys_text([op.call_id for op in ending])})):
            lines.setdefault(row[0], []).append(row)
        self._lines = {call_id: hold_of(rows) for call_id, rows in lines.items()}
        settling = [op for op in ending if isinstance(op, SettleOp | RecoverOp)]
        customers = sorted({customer for op in settling if (customer := self._to_look_up(op)) is not None})
        if customers:
            for customer_id, anchor_ms in (yield Ask("anchors_of", {"customer_ids": keys_text(customers)})):
                self._anchors[customer_id] = anchor_ms
        again = [(self._month_of(op), op.call_id) for op in settling if isinstance(op, SettleOp) and self._is_over(op)]
        if again:
            wanted = again + [(month, call_id + CORRECTION) for month, call_id in again]
            for row in (yield Ask("records_of", {"calls": keys_text(wanted)})):
                self._records[row[0]] = record_of(row)
        for op in settling:
            if isinstance(op, SettleOp) and op.call_id not in self._holds:
                self._lines[op.call_id] = self._lines_of_plan(op.settlement)

    def _is_over(self, op: SettleOp) -> bool:
        hold = self._holds.get(op.call_id)
        return hold is None or hold.state not in (HoldState.OPEN, HoldState.RELEASED)

    def _month_of(self, op: SettleOp) -> str:
        hold = self._holds.get(op.call_id)
        return op.settlement.record.admitted_month if hold is None else hold.admitted_month

    def _to_look_up(self, op: SettleOp | RecoverOp) -> str | None:
        """The customer whose billing period no line of the hold tells."""
        if _period_start_ms(self._lines.get(op.call_id, Hold())) is not None:
            return None
        if isinstance(op, SettleOp):
            return op.settlement.record.customer_id
        hold = self._holds.get(op.call_id)
        return None if hold is None else hold.customer_id

    def _lines_of_plan(self, settlement: Settlement) -> Hold:
        """Where a call counts that was never held (admitted while the ledger was away, then replayed): on the limits
        of its plan, in the windows of its admission."""
        record, plan = settlement.record, settlement.plan
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
        return Hold(tuple(HeldLine(line.key, line.limit, line.cap, line.mode, 0) for line in lines.values()))

    def _lock(self) -> Steps[None]:
        counters: set[CounterKey] = set()
        buckets: set[BucketKey] = set()
        for op in self._ops:
            if isinstance(op, HoldOp):
                counters.update(line.key for line in op.order.stock)
                buckets.update(rate.key for rate in op.order.rates)
            elif (hold := self._lines.get(op.call_id)) is not None:
                counters.update(line.key for line in hold.lines)
                buckets.update(rate.key for rate in hold.rates)
        # All rows are made before any is locked: two batches that did both by turns could wait for each other.
        new_counters = sorted(counters - self._known.counters)
        if new_counters:
            yield AskMany("ensure_counter", [counter_args(key) for key in new_counters])
        new_buckets = sorted(buckets - self._known.buckets)
        if new_buckets:
            yield AskMany("ensure_bucket", [bucket_args(key) for key in new_buckets])
        if counters:
            for row in (yield Ask("lock_counters", {"keys": keys_text(sorted(counters))})):
                self.counters[CounterKey(*row[:5])] = CounterRow(row[5], row[6])
        self._clock_ms = self._now_ms()
        if buckets:
            args = {"keys": keys_text(sorted(buckets)), "now_ms": self._clock_ms}
            for row in (yield Ask("lock_buckets", args)):
                self.buckets[BucketKey(*row[:4])] = BucketRow(row[4], row[5])
                self._clock_ms = row[6]
        if len(self.counters) < len(counters) or len(self.buckets) < len(buckets):
            raise Vanished

    # --- deciding, in memory ---

    def _apply(self, op: Op) -> Any:
        match op:
            case HoldOp(order):
                return self._hold(order)
            case SettleOp(settlement):
                return self._settle(settlement)
            case RecoverOp():
                return self._recover(op)
            case ReleaseOp():
                return self._release(op.call_id)

    def _hold(self, order: HoldOrder) -> Held | Fault:
        before = self._holds.get(order.call_id)
        if before is not None:
            if before.state != HoldState.OPEN:
                return fault(f"the call {order.call_id} is over: it cannot hold again")
            stock = budgets.stock_states(order.stock, self.counters)
            rates = budgets.rate_states(order.rates, self.buckets, self._clock_ms)
            return Held(Granted(before.output_tokens, stock, rates), created=False)
        decision = budgets.decide(
            order.stock,
            order.rates,
            order.output_tokens,
            order.output_tokens_min,
            self.counters,
            self.buckets,
            order.now_ms,
            rates_now_ms=self._clock_ms,
        )
        if isinstance(decision.verdict, Denied):
            return Held(decision.verdict, created=False)
        assert decision.hold is not None
        row, lines = hold_row(order, decision.verdict.output_tokens), line_args(order.call_id, decision.hold)
        self._add("add_hold", row._asdict())
        self._add("add_line", *lines)
        self._change(decision.counters, decision.buckets)
        return Held(decision.verdict, created=True)

    def _settle(self, settlement: Settlement) -> Settled:
        record, call_id = settlement.record, settlement.record.call_id
        before = self._holds.get(call_id)
        stored = merged([found for name in (call_id, call_id + CORRECTION) if (found := self._records.get(name))])
        if before is None:
            if stored is not None:
                return Settled(False, stored)
            state = HoldState.RELEASED
        else:
            if record.admitted_month != before.admitted_month:
                record = replace(record, admitted_month=before.admitted_month)
            state = HoldState(before.state)
            if state in (HoldState.SETTLED, HoldState.CORRECTED):
                assert stored is not None, call_id
                return Settled(False, stored)
        # The record's units are the truth for the dimension of units: counters are sums of records by construction.
        actual = {**settlement.actual, UNITS: record.units_micro}
        recovered = stored if state is HoldState.RECOVERED else None
        assert recovered is not None or state is not HoldState.RECOVERED, call_id
        return Settled(True, self._count(record, actual, settlement.plan, before, state, recovered, settlement.now_ms))

    def _recover(self, op: RecoverOp) -> bool:
        row = self._holds.get(op.call_id)
        if row is None or row.state != HoldState.OPEN or row.expires_ms > op.now_ms:
            return False
        hold = self._lines.get(op.call_id, Hold())
        units = row.progress_units_micro
        held = max((line.amount for line in hold.lines if line.key.dimension == UNITS), default=0)
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
            # What was held and is not charged: the operator's exposure.
            evidence={"held_micro": held, "exposure_micro": max(0, held - units)},
        )
        actual = holds.recovered_actual(hold, units, output_seen=bool(row.output_seen))
        self._count(
            record, actual, op.plans.get(row.plan_id), row, HoldState.OPEN, None, op.now_ms, HoldState.RECOVERED
        )
        return True

    def _release(self, call_id: str) -> bool:
        row = self._holds.get(call_id)
        if row is None or row.state != HoldState.OPEN:
            return False
        ending = holds.release(self._lines.get(call_id, Hold()), self.counters, self.buckets, self._clock_ms)
        self._add("end_hold", {"call_id": call_id, "state": HoldState.RELEASED.value})
        self._change(ending.counters, ending.buckets)
        return True

    def _count(
        self,
        record: UsageRecord,
        actual: Mapping[str, int],
        plan: Plan | None,
        before: HoldRow | None,
        state: HoldState,
        recovered: UsageRecord | None,
        now_ms: int,
        after: HoldState = HoldState.SETTLED,
    ) -> UsageRecord:
        """Everything that one end of a call writes; returns the record as it is known then."""
        call_id = record.call_id
        hold = self._lines.get(call_id, Hold())
        ending = holds.settle(hold, state, actual, plan, self.counters, self.buckets, self._clock_ms)
        if (ending.charge_nano, ending.overrun_micro) != (record.charge_nano, record.overrun_micro):
            record = replace(record, charge_nano=ending.charge_nano, overrun_micro=ending.overrun_micro)
        row, known = record, record
        if recovered is not None:
            row = _correction(record, recovered)
            known, after = merged([recovered, row]) or record, HoldState.CORRECTED
        columns = record_args(row, corrects=None if recovered is None else call_id)
        owed = self._owed(row, hold, now_ms)
        # Nothing raises from here on: an op changes all or nothing.
        if before is None:
            self._add("add_hold", {**_absent(columns), "state": after.value})
            self._add("add_line", *line_args(call_id, ending.hold))
        else:
            self._add("end_hold", {"call_id": call_id, "state": after.value})
            self._add("end_line", *ended_args(call_id, ending.hold))
        self._add("add_record", columns)
        if row.units_micro or row.charge_nano:
            self._add("add_owed", owed)
        self._change(ending.counters, ending.buckets)
        return known

    def _owed(self, row: UsageRecord, hold: Hold, now_ms: int) -> dict[str, Any]:
        # The period in which the call was counted, also when the anchor was moved since.
        start_ms = _period_start_ms(hold)
        if start_ms is None:
            anchor_ms = self._anchors.get(row.customer_id, 0)
            start_ms, _ = window_bounds(Window.BILLING_PERIOD, row.started_ms, anchor_ms=anchor_ms)
        return {
            "call_id": row.call_id,
            "customer_id": row.customer_id,
            "plan_id": row.plan_id,
            "period_start_ms": start_ms,
            "started_ms": row.started_ms,
            "settled_ms": now_ms,
            "units_micro": row.units_micro,
            "charge_nano": row.charge_nano,
        }

    # --- writing ---

    def _add(self, query: str, *rows: dict[str, Any]) -> None:
        if rows:
            self._writes.setdefault(query, []).extend(rows)

    def _change(self, counters: Mapping[CounterKey, CounterRow], buckets: Mapping[BucketKey, BucketRow]) -> None:
        self.counters.update(counters)
        self.buckets.update(buckets)
        self._changed_counters.update(counters)
        self._changed_buckets.update(buckets)

    def _write(self) -> Steps[None]:
        for query in ("add_hold", "add_line", "end_hold", "end_line", "add_record", "add_owed"):
            if query in self._writes:
                yield AskMany(query, self._writes[query])
        if self._changed_counters:
            yield AskMany("set_counter", _counter_rows(self._changed_counters, self.counters))
        if self._changed_buckets:
            yield AskMany("set_bucket", _bucket_rows(self._changed_buckets, self.buckets))


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


def _absent(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a call that was never held, from its record's."""
    return {
        **{name: columns[name] for name in _SHARED},
        "owner": "",
        "expires_ms": columns["ended_ms"],
        "output_tokens": 0,
        "progress_units_micro": 0,
        "output_seen": 0,
    }


def _period_start_ms(hold: Hold) -> int | None:
    mine = (Scope.CUSTOMER, Window.BILLING_PERIOD)
    return next((line.key.start_ms for line in hold.lines if (line.key.scope, line.key.window) == mine), None)


def _correction(record: UsageRecord, recovered: UsageRecord) -> UsageRecord:
    """The row that is appended: the true record, with the differences to what the recovery had counted."""
    cost = record.cost_nano if record.cost_nano is None else record.cost_nano - (recovered.cost_nano or 0)
    return replace(
        record,
        call_id=record.call_id + CORRECTION,
        units_micro=record.units_micro - recovered.units_micro,
        cost_nano=cost,
    )


def _counter_rows(keys: Iterable[CounterKey], rows: Mapping[CounterKey, CounterRow]) -> list[dict[str, Any]]:
    return [{**counter_args(key), "used": rows[key].used, "held": rows[key].held} for key in sorted(keys)]


def _bucket_rows(keys: Iterable[BucketKey], rows: Mapping[BucketKey, BucketRow]) -> list[dict[str, Any]]:
    return [{**bucket_args(key), "spent": rows[key].spent, "at_ms": rows[key].at_ms} for key in sorted(keys)]
