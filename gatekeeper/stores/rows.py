"""Between rows and the values of the ports. The rule: queries.sql lists columns in the order of the fields."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import (
    Attempt,
    Customer,
    Entry,
    Holder,
    Holding,
    HoldOrder,
    Key,
    UsageRecord,
)
from gatekeeper.rules.charges import Counted
from gatekeeper.rules.holds import HeldLine, HeldRate, Hold, HoldState, held_lines
from gatekeeper.rules.limits import BucketKey, CounterKey, CounterRow, Mode, StockLine
from gatekeeper.rules.rates import INT64_MAX
from gatekeeper.rules.windows import utc_day
from gatekeeper.stores.database import Row

CORRECTION = "#correction"
_RECORD = tuple(field.name for field in fields(UsageRecord))
_CUSTOMER = tuple(field.name for field in fields(Customer))
_KEY = tuple(field.name for field in fields(Key))
# Where in a record's columns the ones stand that are stored as something else.
_OUTCOME, _SOURCE, _STREAMED = (_RECORD.index(name) for name in ("outcome", "source", "streamed"))
_USAGE, _METERS, _EVIDENCE = (_RECORD.index(name) for name in ("usage", "meters", "evidence"))
# What a call adds up to; a time or a size that does not fit is refused by the database.
_NUMBERS = tuple(_RECORD.index(name) for name in ("units_micro", "charge_nano", "cost_nano", "overrun_micro"))
# Text that a client or an upstream chose: it may hold what no database stores.
_FOREIGN = tuple(
    _RECORD.index(name)
    for name in ("model", "method", "path", "note", "response_id", "user_id", "agent_id", "model_requested")
)
_OPEN = HoldState.OPEN.value


class HoldRow(NamedTuple):
    """A row of the table ``hold``."""

    call_id: str
    admitted_month: str
    customer_id: str
    key_id: str | None
    user_id: str | None
    agent_id: str | None
    plan_id: str
    route: str
    upstream: str
    model: str | None
    owner: str
    state: str
    started_ms: int
    expires_ms: int
    output_tokens: int
    progress_units_micro: int
    output_seen: int
    lines: str


def customer_args(customer: Customer) -> dict[str, Any]:
    """The columns of a customer."""
    return {name: getattr(customer, name) for name in _CUSTOMER}


def customer_of(row: Row) -> Customer:
    """From the columns in order."""
    return Customer(*row)


def key_args(key: Key, digest: str) -> dict[str, Any]:
    """The columns of a key."""
    args = {name: getattr(key, name) for name in _KEY}
    for name in ("routes", "models"):
        args[name] = None if args[name] is None else json.dumps(list(args[name]))
    return {**args, "may_assert": int(key.may_assert), "digest": digest}


def key_of(row: Row) -> Key:
    """From the columns in order."""
    named = dict(zip(_KEY, row, strict=True))
    for name in ("routes", "models"):
        named[name] = None if named[name] is None else tuple(json.loads(named[name]))
    return Key(**{**named, "may_assert": bool(named["may_assert"])})


def holder_of(row: Row) -> Holder:
    """From a key's columns, then its customer's."""
    return Holder(key_of(row[: len(_KEY)]), customer_of(row[len(_KEY) :]))


def hold_args(order: HoldOrder, output_tokens: int, lines: str) -> HoldRow:
    """The row of an order that was granted."""
    user_id, agent_id, model = order.user_id, order.agent_id, order.model
    columns = (
        order.call_id,
        order.admitted_month,
        order.customer_id,
        order.key_id,
        None if user_id is None else _storable(user_id),
        None if agent_id is None else _storable(agent_id),
        order.plan_id,
        order.route,
        order.upstream,
        None if model is None else _storable(model),
        order.owner,
        _OPEN,
        order.now_ms,
        order.expires_ms,
        output_tokens,
        0,
        0,
        lines,
    )
    return tuple.__new__(HoldRow, columns)


def lines_text(hold: Hold) -> str:
    """What a hold stands on, for its row. Raises TypeError for a number that does not fit 64 bits."""
    lines = {
        "stock": [
            (
                *line.key,
                line.limit,
                line.cap if line.cap is None or line.cap <= INT64_MAX else INT64_MAX,
                line.mode._value_,
                line.fixed,
                line.per_output,
                line.ends_ms,
            )
            for line in hold.stock
        ],
        "rates": [(*rate.key, rate.limit, rate.cap, rate.amount) for rate in hold.rates],
    }
    return orjson.dumps(lines).decode()


def hold_of(row: HoldRow) -> Hold:
    """What the hold of that row stands on, with its amounts as they are now."""
    lines = orjson.loads(row.lines)
    stock = tuple(
        [
            StockLine(
                CounterKey(scope, subject, dimension, span, start_ms), limit, cap, Mode(mode), fixed, per, ends_ms
            )
            for scope, subject, dimension, span, start_ms, limit, cap, mode, fixed, per, ends_ms in lines["stock"]
        ]
    )
    rates = tuple(
        [
            HeldRate(BucketKey(scope, subject, dimension, per_ms), limit, cap, amount)
            for scope, subject, dimension, per_ms, limit, cap, amount in lines["rates"]
        ]
    )
    return Hold(held_lines(stock, row.output_tokens), rates, stock)


def taken_text(
    lines: Sequence[HeldLine], before: Mapping[CounterKey, int], counters: Mapping[CounterKey, CounterRow]
) -> str:
    """What a record took of each counter, less what was counted ``before`` it, and how that counter stood then."""
    taken = [
        (*line.key, line.limit, (line.actual or 0) - before.get(line.key, 0), counters[line.key].used) for line in lines
    ]
    return orjson.dumps(taken).decode()


def taken_of(text: str) -> dict[CounterKey, int]:
    """The same, by counter."""
    return {CounterKey(*line[:5]): line[6] for line in orjson.loads(text)}


def counted_of(text: str) -> tuple[Counted, ...]:
    """The same in the order of the lines, with the counters as they stood; records of before that was noted lack it."""
    return tuple(
        Counted(CounterKey(*line[:5]), line[5], line[6], line[7] if len(line) > 7 else None)
        for line in orjson.loads(text)
    )


@lru_cache(65_536)
def key_text(key: CounterKey | BucketKey | str) -> str:
    """One element of the JSON text in which a list travels."""
    return json.dumps(key)


def keys_text(keys: Iterable[CounterKey] | Iterable[BucketKey]) -> str:
    """A list of keys as the one JSON text in which it travels."""
    return f"[{','.join(map(key_text, keys))}]"


def ids(found: Iterable[str]) -> list[Row]:
    """Ids as the rows of a statement that takes many."""
    return [(name,) for name in found]


def record_args(
    record: UsageRecord, lines: str, charge_nano: int, overrun_micro: int, corrects: str | None = None
) -> Row:
    """The columns of a record with what its settle found. Raises ValueError for a number that does not fit a BIGINT."""
    units_micro, cost_nano, usage = record.units_micro, record.cost_nano, record.usage
    meters, evidence = record.meters, record.evidence
    values = (
        record.call_id,
        record.admitted_month,
        record.customer_id,
        record.key_id,
        record.user_id,
        record.agent_id,
        record.plan_id,
        record.route,
        record.upstream,
        record.model,
        record.method,
        record.path,
        record.status,
        # As ``value``, without a function for it.
        record.outcome._value_,
        1 if record.streamed else 0,
        record.started_ms,
        record.ended_ms,
        record.first_byte_ms,
        units_micro,
        record.source._value_,
        record.note,
        charge_nano,
        cost_nano,
        None if usage is None else json_text(usage),
        json_text(meters) if meters else "{}",
        json_text(evidence) if evidence else "{}",
        record.meter_hash,
        record.request_bytes,
        record.response_bytes,
        record.response_id,
        overrun_micro,
        record.model_requested,
        utc_day(record.started_ms),
        corrects,
        lines,
    )
    if not (
        -INT64_MAX <= units_micro <= INT64_MAX
        and -INT64_MAX <= charge_nano <= INT64_MAX
        and -INT64_MAX <= overrun_micro <= INT64_MAX
        and (cost_nano is None or -INT64_MAX <= cost_nano <= INT64_MAX)
    ):
        raise ValueError(_too_large(values))
    # Of ``_FOREIGN``, looked through at once.
    foreign = (
        f"{record.model}{record.method}{record.path}{record.note}"
        f"{record.response_id}{record.user_id}{record.agent_id}{record.model_requested}"
    )
    return values if foreign.isascii() and "\x00" not in foreign else _cleaned(values)


def _too_large(values: Row) -> str:
    index = next(index for index in _NUMBERS if not -INT64_MAX <= (values[index] or 0) <= INT64_MAX)
    return f"{_RECORD[index]} does not fit 64 bits: {values[index]}"


def _cleaned(values: Row) -> Row:
    return [_storable(value) if index in _FOREIGN else value for index, value in enumerate(values)]


def record_of(row: Row) -> UsageRecord:
    """From the columns in order; columns after those of a record are left alone."""
    values = list(row[: len(_RECORD)])
    values[_OUTCOME], values[_SOURCE] = Outcome(values[_OUTCOME]), Mark(values[_SOURCE])
    values[_STREAMED] = bool(values[_STREAMED])
    for index in (_USAGE, _METERS, _EVIDENCE):
        values[index] = None if values[index] is None else json.loads(values[index])
    return UsageRecord(*values)


def attempt_args(call_id: str, attempt: Attempt) -> Row:
    """The columns of an attempt."""
    return (
        call_id,
        attempt.number,
        attempt.upstream,
        _storable(attempt.model),
        attempt.started_ms,
        attempt.ended_ms,
        attempt.status,
        attempt.fault,
    )


def attempt_of(row: Row) -> Attempt:
    """From the columns in order, without the call."""
    return Attempt(*row)


def entry_of(row: Row) -> Entry:
    """From a record's columns, then ``corrects`` and ``lines``."""
    return Entry(record_of(row), counted_of(row[-1]), row[-2])


def holding_of(row: Row) -> Holding:
    """From the columns of a hold."""
    hold = HoldRow(*row)
    return Holding(
        hold.call_id,
        hold.customer_id,
        hold.plan_id,
        hold.route,
        hold.model,
        hold.state,
        hold.started_ms,
        hold.expires_ms,
        hold.output_tokens,
        hold.progress_units_micro,
        tuple((line.key, line.limit, line.amount) for line in hold_of(hold).lines),
    )


def merged(rows: list[UsageRecord]) -> UsageRecord | None:
    """One call as it is known in the end: its record, or with a correction the later truth and the sums of both."""
    by_id = {record.call_id: record for record in rows}
    first = next((record for name, record in by_id.items() if not name.endswith(CORRECTION)), None)
    if first is None:
        return None
    later = by_id.get(first.call_id + CORRECTION)
    if later is None:
        return first
    cost = None if later.cost_nano is None and first.cost_nano is None else 0
    return replace(
        later,
        call_id=first.call_id,
        units_micro=first.units_micro + later.units_micro,
        charge_nano=first.charge_nano + later.charge_nano,
        cost_nano=cost if cost is None else (first.cost_nano or 0) + (later.cost_nano or 0),
    )


def correction_of(record: UsageRecord, recovered: UsageRecord) -> UsageRecord:
    """The row that is appended: the true record, with the differences to what the recovery had counted."""
    cost = record.cost_nano if record.cost_nano is None else record.cost_nano - (recovered.cost_nano or 0)
    return replace(
        record,
        call_id=record.call_id + CORRECTION,
        units_micro=record.units_micro - recovered.units_micro,
        cost_nano=cost,
    )


def _storable(text: str | None) -> str | None:
    """Without NUL (Postgres has none) and without lone surrogates (UTF-8 has none)."""
    if text is None or (text.isascii() and "\x00" not in text):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def json_text(value: Mapping[str, Any]) -> str:
    """JSON for whatever a meter saw: a record that cannot be written would be a call that is not billed."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # orjson.JSONEncodeError: an integer above 64 bits, a lone surrogate
        return json.dumps(value, default=str)
