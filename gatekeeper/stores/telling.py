"""What the end of a call has to tell, as rows of the table ``event``.

The rule: amounts are exact decimal texts under the names of the admin API, and nothing is told that nobody wants.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from gatekeeper.money import amount_text, dollars_text, units_text
from gatekeeper.ports import UsageRecord
from gatekeeper.rules.limits import CounterKey, CounterRow, StockLine
from gatekeeper.rules.notices import Crossing, Kind, Wanted, crossed, crossing_id
from gatekeeper.stores.database import Row
from gatekeeper.stores.rows import json_text


def settled_events(
    wanted: Wanted,
    record: UsageRecord,
    corrects: str | None,
    stock: Iterable[StockLine],
    before: Mapping[CounterKey, CounterRow],
    after: Mapping[CounterKey, CounterRow],
    now_ms: int,
) -> list[Row]:
    """The rows of what one settle has to tell. ``record`` is the row that it appends: a correction has an id and
    figures of its own, the differences."""
    rows: list[Row] = []
    if Kind.USAGE_RECORDED in wanted.kinds:
        content = json_text(_usage_content(record, corrects))
        rows.append((record.call_id, Kind.USAGE_RECORDED.value, record.customer_id, now_ms, content))
    if wanted.thresholds:
        for crossing in crossed(stock, before, after, wanted.thresholds):
            customer_id = record.customer_id if crossing.is_personal else None
            content = json_text(_threshold_content(crossing, record))
            rows.append((crossing_id(crossing), Kind.LIMIT_THRESHOLD.value, customer_id, now_ms, content))
    return rows


def _usage_content(record: UsageRecord, corrects: str | None) -> dict[str, Any]:
    """Named and written as in the admin API; the evidence is left to it."""
    return {
        "id": record.call_id,
        "corrects": corrects,
        "customer_id": record.customer_id,
        "key_id": record.key_id,
        "user_id": record.user_id,
        "agent_id": record.agent_id,
        "plan": record.plan_id,
        "route": record.route,
        "upstream": record.upstream,
        "model": record.model,
        "status": record.status,
        "outcome": record.outcome,
        "streamed": record.streamed,
        "started_ms": record.started_ms,
        "ended_ms": record.ended_ms,
        "units": units_text(record.units_micro),
        "source": record.source,
        "note": record.note,
        "charge": dollars_text(record.charge_nano),
        "cost": None if record.cost_nano is None else dollars_text(record.cost_nano),
        "usage": record.usage,
        "meters": dict(record.meters),
    }


def _threshold_content(crossing: Crossing, record: UsageRecord) -> dict[str, Any]:
    line = crossing.line
    key = line.key
    assert line.cap is not None
    return {
        "threshold": crossing.percent,
        "limit": line.limit,
        "scope": key.scope,
        "subject": key.subject,
        "dimension": key.dimension,
        "window": key.window,
        "starts_ms": key.start_ms,
        "resets_ms": line.ends_ms,
        "mode": line.mode,
        "cap": amount_text(key.dimension, line.cap),
        "used": amount_text(key.dimension, crossing.used),
        # The call that reached it.
        "call_id": record.call_id,
    }
