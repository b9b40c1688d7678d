"""Between rows and the values of the ports. The rule: queries.sql lists columns in the order of the fields."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, NamedTuple

import orjson

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import Customer, Holder, HoldOrder, Key, UsageDay, UsageRecord, UsageTotal
from gatekeeper.rules.holds import HeldLine, HeldRate, Hold, HoldState
from gatekeeper.rules.limits import BucketKey, CounterKey, Mode
from gatekeeper.rules.rates import INT64_MAX
from gatekeeper.rules.windows import utc_day
from gatekeeper.stores.database import Row

CORRECTION = "#correction"
_RECORD = tuple(field.name for field in fields(UsageRecord))
_CUSTOMER = tuple(field.name for field in fields(Customer))
_KEY = tuple(field.name for field in fields(Key))
# Text that a client or an upstream chose: it may hold what no database stores.
_FOREIGN = ("model", "method", "path", "note", "response_id", "user_id", "agent_id")


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
    progress_units_micro: int = 0
    output_seen: int = 0


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


def hold_row(order: HoldOrder, output_tokens: int) -> HoldRow:
    """The row of an order that was granted."""
    clean = {name: _storable(getattr(order, name)) for name in ("user_id", "agent_id", "model")}
    return HoldRow(
        order.call_id,
        order.admitted_month,
        order.customer_id,
        order.key_id,
        clean["user_id"],
        clean["agent_id"],
        order.plan_id,
        order.route,
        order.upstream,
        clean["model"],
        order.owner,
        HoldState.OPEN.value,
        order.now_ms,
        order.expires_ms,
        output_tokens,
    )


def line_args(call_id: str, hold: Hold) -> list[dict[str, Any]]:
    """The rows of ``hold_line``: stock lines first, numbered in order."""
    rows: list[dict[str, Any]] = []
    for line in hold.lines:
        rows.append(
            {
                **line.key._asdict(),
                "span": str(line.key.window),
                "limit_name": line.limit,
                "cap": None if line.cap is None else min(line.cap, INT64_MAX),
                "mode": line.mode.value,
                "per_ms": None,
                "amount": line.amount,
                "actual": line.actual,
            }
        )
    for rate in hold.rates:
        empty = {"span": None, "start_ms": None, "mode": None, "actual": None}
        rows.append({**rate.key._asdict(), **empty, "limit_name": rate.limit, "cap": rate.cap, "amount": rate.amount})
    return [{**row, "call_id": call_id, "line": number} for number, row in enumerate(rows)]


def ended_args(call_id: str, hold: Hold) -> list[dict[str, Any]]:
    """What the stock lines of a call took, by the numbers of their rows."""
    return [{"call_id": call_id, "line": number, "actual": line.actual} for number, line in enumerate(hold.lines)]


def hold_of(rows: list[Row]) -> Hold:
    """From the rows of one call, in order."""
    lines: list[HeldLine] = []
    rates: list[HeldRate] = []
    for _, _, limit, scope, subject, dimension, span, start_ms, per_ms, cap, mode, amount, actual in rows:
        if per_ms is None:
            key = CounterKey(scope, subject, dimension, span, start_ms)
            lines.append(HeldLine(key, limit, cap, Mode(mode), amount, actual))
        else:
            rates.append(HeldRate(BucketKey(scope, subject, dimension, per_ms), limit, cap, amount))
    return Hold(tuple(lines), tuple(rates))


def counter_args(key: CounterKey) -> dict[str, Any]:
    """The columns that name a counter."""
    scope, subject, dimension, window, start_ms = key
    return {"scope": scope, "subject": subject, "dimension": dimension, "span": window, "start_ms": start_ms}


def bucket_args(key: BucketKey) -> dict[str, Any]:
    """The columns that name a bucket."""
    return key._asdict()


def keys_text(keys: list[CounterKey] | list[BucketKey] | list[tuple[str, str]] | list[str]) -> str:
    """A list as the one JSON text in which it travels."""
    return json.dumps(keys)


def record_args(record: UsageRecord, *, corrects: str | None = None) -> dict[str, Any]:
    """The columns of a record. Raises ValueError for a number that does not fit a BIGINT."""
    args = {name: getattr(record, name) for name in _RECORD}
    for name, value in args.items():
        if isinstance(value, int) and not -INT64_MAX <= value <= INT64_MAX:
            raise ValueError(f"{name} does not fit 64 bits: {value}")
    for name in _FOREIGN:
        args[name] = _storable(args[name])
    args["outcome"], args["source"] = record.outcome.value, record.source.value
    args["streamed"] = int(record.streamed)
    args["usage"] = None if record.usage is None else _json(record.usage)
    args["meters"], args["evidence"] = _json(record.meters), _json(record.evidence)
    return {**args, "day": utc_day(record.started_ms), "corrects": corrects}


def record_of(row: Row) -> UsageRecord:
    """From the columns in order."""
    named = dict(zip(_RECORD, row, strict=True))
    named["outcome"], named["source"] = Outcome(named["outcome"]), Mark(named["source"])
    named["streamed"] = bool(named["streamed"])
    for name in ("usage", "meters", "evidence"):
        named[name] = None if named[name] is None else json.loads(named[name])
    return UsageRecord(**named)


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


def total_of(row: Row) -> UsageTotal:
    """From the sums in order."""
    return UsageTotal(*row)


def day_of(row: Row) -> UsageDay:
    """From the day, then the sums in order."""
    return UsageDay(row[0], total_of(row[1:]))


def _storable(text: str | None) -> str | None:
    """Without NUL (Postgres has none) and without lone surrogates (UTF-8 has none)."""
    if text is None or (text.isascii() and "\x00" not in text):
        return text
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()


def _json(value: Mapping[str, Any]) -> str:
    """JSON for whatever a meter saw: a record that cannot be written would be a call that is not billed."""
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except TypeError:  # orjson.JSONEncodeError: an integer above 64 bits, a lone surrogate
        return json.dumps(value, default=str)
