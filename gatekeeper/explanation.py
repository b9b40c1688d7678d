"""Why a call cost what it cost, put together from its record: what ``gatekeeper explain``, the admin API and the
dashboard show.

The rule: every figure of the record stands beside the same figure worked out again, and a difference is a warning.
The result is JSON-ready, with exact amounts as decimal strings.
"""

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from gatekeeper.config.gateway import Gateway, Route, Unmeasured
from gatekeeper.meters import Mark
from gatekeeper.money import amount_text, dollars_text, dollars_to_nano, plain, units_text, units_to_micro
from gatekeeper.ports import Attempt, Audit, Entry, Holding, UsageQuery, UsageRecord
from gatekeeper.rules.charges import Counted, OverageStep, on_quota, overage_step
from gatekeeper.rules.holds import HoldState
from gatekeeper.rules.latches import is_latch, shown
from gatekeeper.rules.limits import DOLLARS
from gatekeeper.rules.prices import cost_nano, price_of
from gatekeeper.rules.remeter import Again, Seen, estimated_tokens, read_again

_PRICE = "$price"
_COST = "$cost"


def instant(ms: int) -> str:
    """An instant for people, UTC."""
    when = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)
    return when.isoformat(sep=" ", timespec="milliseconds").removesuffix("+00:00")


def seen_of(record: UsageRecord) -> Seen:
    """What a record kept of its call, for ``read_again``."""
    return Seen(
        evidence=record.evidence,
        usage=record.usage,
        outcome=record.outcome,
        source=record.source,
        note=record.note,
        units_micro=record.units_micro,
        names={
            "model": record.model,
            "method": record.method,
            "status": record.status,
            "outcome": str(record.outcome),
            "customerID": record.customer_id,
            "userID": record.user_id,
            "agentID": record.agent_id,
            "planID": record.plan_id,
            "keyID": record.key_id,
            "startedAt": record.started_ms,
            "requestBytes": record.request_bytes,
            "firstByteMs": record.first_byte_ms,
        },
    )


def again_on(route: Route, record: UsageRecord) -> Again:
    """What a route of today makes of a recorded call."""
    default = units_to_micro(route.unmeasured_default) if route.unmeasured is Unmeasured.DEFAULT else None
    estimates = route.unmeasured is Unmeasured.ESTIMATE
    return read_again(route.meter, seen_of(record), free=route.free, default_micro=default, estimates=estimates)


class Past(Audit, UsageQuery, Protocol):
    """What an explanation is read from."""


async def explained(past: Past, gateway: Gateway, call_id: str, now_ms: int) -> dict[str, Any] | None:
    """The explanation of a call: that of ``explain_call``, or while it is in flight that of ``explain_hold``; None:
    there is no such call. The id may be that of its correction. Raises Fault."""
    call_id = call_id.removesuffix("#correction")
    holding = await past.holding(call_id)
    entries = await past.entries(call_id)
    if entries:
        return explain_call(entries, holding, gateway, await past.attempts(call_id))
    return None if holding is None else explain_hold(holding, now_ms)


def explain_call(
    entries: Sequence[Entry], holding: Holding | None, gateway: Gateway, attempts: Sequence[Attempt] = ()
) -> dict[str, Any]:
    """The whole of one call that is over: its record, its correction where there is one, and who did not serve it."""
    record = entries[-1].record
    warnings: list[str] = []
    units_micro = sum(entry.record.units_micro for entry in entries)
    charge_nano = sum(entry.record.charge_nano for entry in entries)
    route = next((route for route in gateway.router.routes if route.name == record.route), None)
    return {
        "id": entries[0].record.call_id,
        "customer": record.customer_id,
        "plan": record.plan_id,
        "key": record.key_id,
        "user": record.user_id,
        "agent": record.agent_id,
        "route": record.route,
        "upstream": record.upstream,
        "model": record.model,
        "model_requested": record.model_requested,
        "attempts": [_attempt(each) for each in attempts],
        "method": record.method,
        "path": record.path,
        "streamed": record.streamed,
        "started": instant(record.started_ms),
        "first_byte_ms": record.first_byte_ms,
        "duration_ms": record.ended_ms - record.started_ms,
        "status": record.status,
        "outcome": record.outcome,
        "units": units_text(units_micro),
        "charge": dollars_text(charge_nano),
        "reading": _reading(record, units_micro, route, warnings),
        "steps": [_step(entry, gateway, warnings) for entry in entries],
        "counted": [_counted(line) for entry in entries for line in entry.counted if not is_latch(line.key)],
        "closed": [_closed(line) for entry in entries for line in entry.counted if is_latch(line.key) and line.taken],
        "cost": _cost(entries, charge_nano, route, warnings),
        "overrun": units_text(max(entry.record.overrun_micro for entry in entries)),
        "history": _history(entries, holding),
        "warnings": warnings,
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    took_ms = attempt.ended_ms - attempt.started_ms
    if attempt.fault == "breaker_open":
        said = "passed over, because it had failed too often"
    elif attempt.fault is not None:
        said = f"{attempt.fault.replace('_', ' ')} after {took_ms} ms"
    else:
        said = f"status {attempt.status} after {took_ms} ms"
    return {
        "number": attempt.number,
        "upstream": attempt.upstream,
        "model": attempt.model,
        "status": attempt.status,
        "fault": attempt.fault,
        "took_ms": took_ms,
        "said": said,
    }


def explain_hold(holding: Holding, now_ms: int) -> dict[str, Any]:
    """A call that is still in flight: what it holds until it is settled."""
    return {
        "id": holding.call_id,
        "in_flight": True,
        "customer": holding.customer_id,
        "plan": holding.plan_id,
        "route": holding.route,
        "model": holding.model,
        "started": instant(holding.started_ms),
        "expires_in_s": (holding.expires_ms - now_ms) // 1000,
        "output_tokens": holding.output_tokens,
        "progress": units_text(holding.progress_units_micro),
        "held": [
            {
                "limit": limit,
                "scope": key.scope,
                "subject": key.subject,
                "dimension": key.dimension,
                "window": key.window,
                "amount": amount_text(key.dimension, amount),
            }
            for key, limit, amount in holding.held
            # Nothing is held on a latch.
            if not is_latch(key)
        ],
    }


def _reading(record: UsageRecord, units_micro: int, route: Route | None, warnings: list[str]) -> dict[str, Any]:
    told: dict[str, Any] = {
        "hash": record.meter_hash,
        "source": record.source,
        "note": record.note,
        "usage": record.usage,
        "evidence": {name: value for name, value in record.evidence.items() if name not in (_PRICE, _COST)},
        "meter": None,
        "hash_today": None,
        "again": None,
        "policy": None,
    }
    if route is None:
        warnings.append(f"there is no route {record.route!r} any more: its meter is not known")
        return told
    told |= {"meter": route.meter.text, "hash_today": route.meter.hash}
    recovered = not record.meter_hash
    other = not recovered and route.meter.hash != record.meter_hash
    if other:
        warnings.append(
            f"the meter of route {route.name!r} is another one today ({route.meter.hash}, then {record.meter_hash}): "
            "what is read again is read with today's"
        )
    again = again_on(route, record)
    told["policy"] = again.why
    if again.units_micro is None:
        return told
    same = again.units_micro == units_micro and again.source is record.source
    told["again"] = {"units": units_text(again.units_micro), "source": again.source, "same": same}
    if not same and not other:
        warnings.append(
            f"the evidence gives {units_text(again.units_micro)} units ({again.source}) today, the record has "
            f"{units_text(units_micro)} ({record.source}): have the route's settings changed?"
        )
    return told


def _step(entry: Entry, gateway: Gateway, warnings: list[str]) -> dict[str, Any]:
    """One row's way from units to its charge."""
    record = entry.record
    told: dict[str, Any] = {
        "units": units_text(record.units_micro),
        "charge": dollars_text(record.charge_nano),
        "quota": None,
        "overage": None,
        "why": None,
    }
    plan = gateway.plans.get(record.plan_id)
    if plan is None:
        warnings.append(f"plan {record.plan_id!r} is not declared any more: its prices are not known")
        return told
    line = on_quota(entry.counted, plan)
    if plan.quota is not None:
        cap = plan.quota.cap
        told["quota"] = {
            "limit": plan.quota.name,
            "window": plan.quota.window,
            "included": None if cap is None else units_text(cap),
            "start": None if line is None else instant(line.key.start_ms),
            "before": _units(None if line is None else line.before),
            "after": _units(None if line is None else line.used),
        }
    expected: int | None = 0
    if plan.overage is None:
        told["why"] = "the plan charges nothing beyond its price"
    elif line is None:
        told["why"] = "the call did not count on the quota"
    elif line.before is None or line.used is None:
        told["why"], expected = "how the counter stood was not noted then", None
    else:
        step = overage_step(plan, line.before, line.used)
        assert step is not None
        expected = step.charge_nano
        told["overage"] = _overage(step)
    if expected is not None and expected != record.charge_nano:
        warnings.append(
            f"by plan {plan.id!r} of today this is ${dollars_text(expected)}, the record has "
            f"${dollars_text(record.charge_nano)}: has the plan changed?"
        )
    return told


def _overage(step: OverageStep) -> dict[str, Any]:
    before, after = step.beyond_before_micro, step.beyond_after_micro
    price = f"${plain(step.price.dollars)} per {step.price.per:,} unit{'' if step.price.per == 1 else 's'}"
    totals = [dollars_text(step.price.charge_nano(beyond)) for beyond in (after, before)]
    return {
        "beyond_before": units_text(before),
        "beyond_after": units_text(after),
        "price": price,
        "arithmetic": f"{units_text(after)} beyond at {price} = ${totals[0]}, less {units_text(before)} beyond before "
        f"= ${totals[1]}: ${dollars_text(step.charge_nano)}",
        "charge": dollars_text(step.charge_nano),
    }


def _counted(line: Counted) -> dict[str, Any]:
    dimension = line.key.dimension
    return {
        "limit": line.limit,
        "scope": line.key.scope,
        "subject": line.key.subject,
        "dimension": dimension,
        "window": line.key.window,
        "start": instant(line.key.start_ms),
        "before": None if line.before is None else amount_text(dimension, line.before),
        "taken": amount_text(dimension, line.taken),
        "after": None if line.used is None else amount_text(dimension, line.used),
    }


def _closed(line: Counted) -> dict[str, Any]:
    """A limit that the end of the call closed until the billing period turns, or that a correction opened again."""
    dimension, window = shown(line.key)
    limit = f"{line.limit} ({line.key.scope} {line.key.subject}, {dimension} per {window})"
    # What it adds to what was reached before is what was missing to the cap; see ``latches.closing``.
    at = None if line.used is None or line.taken < 0 else amount_text(dimension, line.used)
    cap = "its cap" if at is None else f"its cap of {'$' if dimension == DOLLARS else ''}{at}"
    said = f"reached {cap}: closed until the billing period turns"
    return {
        "limit": line.limit,
        "scope": line.key.scope,
        "subject": line.key.subject,
        "dimension": dimension,
        "window": window,
        "cap": at,
        "closed": line.taken > 0,
        "said": f"{limit} {said if line.taken > 0 else 'did not reach its cap after all: open again'}",
    }


def _cost(entries: Sequence[Entry], charge_nano: int, route: Route | None, warnings: list[str]) -> dict[str, Any]:
    """What the provider takes: the record's figure, and the same from what was kept: the evidence of the route's
    ``cost``, or the price and the usage."""
    record = entries[-1].record
    costs = [entry.record.cost_nano for entry in entries if entry.record.cost_nano is not None]
    shown, stated = record.evidence.get(_PRICE), record.evidence.get(_COST)
    told: dict[str, Any] = {
        "cost": None,
        "margin": None,
        "price": shown,
        "expression": None if stated is None else _stated(stated, route, warnings),
        "again": None,
        "same": None,
    }
    if not costs:
        return told
    cost = sum(costs)
    told |= {"cost": dollars_text(cost), "margin": dollars_text(charge_nano - cost)}
    if stated is not None and stated.get("used"):
        again = told["expression"]["again"]
        told |= {"again": again, "same": None if again is None else again == told["cost"]}
        if told["same"] is False and not told["expression"]["other"]:
            warnings.append(f"the evidence of 'cost' gives ${again}, the record has ${told['cost']}")
        return told
    if shown is None:
        return told
    try:
        price = price_of(shown)
    except (KeyError, ValueError, TypeError, ArithmeticError):
        warnings.append("the price that was kept cannot be read")
        return told
    usage: dict[str, Any] = dict(record.usage or {})
    tokens = estimated_tokens(record.note) if record.source is Mark.ESTIMATED else None
    if tokens is not None:
        usage |= {"input": tokens[0], "output": tokens[1], "total": tokens[0] + tokens[1]}
    again = cost_nano(price, usage)
    told |= {"again": None if again is None else dollars_text(again), "same": again == cost}
    if again != cost:
        warnings.append(f"the price and the usage that were kept give {told['again']}, the record has ${told['cost']}")
    return told


def _stated(stated: Mapping[str, Any], route: Route | None, warnings: list[str]) -> dict[str, Any]:
    """What the route's ``cost`` said then, and what that of today makes of the same evidence."""
    told = {name: stated.get(name) for name in ("hash", "source", "note", "dollars", "used", "evidence")}
    told |= {"text": None, "hash_today": None, "other": False, "again": None}
    today = None if route is None else route.cost
    if today is None:
        warnings.append("the route has no 'cost' any more: what it said is not read again")
        return told
    told |= {"text": today.text, "hash_today": today.hash, "other": today.hash != stated.get("hash")}
    if told["other"]:
        warnings.append(
            f"the 'cost' of the route is another one today ({today.hash}, then {stated.get('hash')}): "
            "what is read again is read with today's"
        )
    reading = today.replay(stated.get("evidence") or {})
    if reading.units is not None:
        told["again"] = dollars_text(dollars_to_nano(reading.units))
    return told


def _history(entries: Sequence[Entry], holding: Holding | None) -> list[str]:
    """What happened to the record besides an ordinary settle."""
    first = entries[0].record
    told = []
    if first.note == "recovered":
        exposure = first.evidence.get("exposure_micro")
        held = first.evidence.get("held_micro")
        said = "its process died; the sweeper charged the last progress"
        if isinstance(held, int) and isinstance(exposure, int):
            said += f" ({units_text(first.units_micro)} of {units_text(held)} held, {units_text(exposure)} at our risk)"
        told.append(said)
        if len(entries) == 1 and holding is not None and holding.state == HoldState.RECOVERED:
            told.append("a late true settle would append a correction")
    for entry in entries[1:]:
        units, charge = units_text(entry.record.units_micro), dollars_text(entry.record.charge_nano)
        told.append(f"the true settle came later: {units} units and ${charge} were added as a correction")
    return told


def _units(micro: int | None) -> str | None:
    return None if micro is None else units_text(micro)
