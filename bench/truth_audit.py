"""Whether the ledger says what the clients saw: every call once, its units, its cost, and the sum of all charges.

The rule: the truth is computed here, from the wishes; nothing of it was learned from the gateway.
"""

from typing import Any

from bench.callers import Tally
from bench.chaos_audit import MICRO, Report, check_sums, doctor, idle, rows, watch_caps
from bench.standing import CAP_NANO, CUSTOMER, NANO_PER_UNIT, QUOTA_UNITS, Standing

_IDLE_WITHIN_S = 60.0
_SHOWN = 5
_RECORDS = (
    "SELECT COALESCE(corrects, call_id), CAST(SUM(units_micro) AS BIGINT), CAST(SUM(COALESCE(cost_nano, 0)) AS BIGINT),"
    " MIN(outcome), MIN(source), COUNT(*) FROM usage_record GROUP BY 1"
)
_CHARGED = "SELECT CAST(SUM(charge_nano) AS BIGINT), CAST(SUM(units_micro) AS BIGINT) FROM usage_record"


async def watch(standing: Standing) -> None:
    """From now on the database notes every counter that passes the cap."""
    await watch_caps(standing.url, [("customer", CUSTOMER, "dollars", CAP_NANO)])


async def settled(standing: Standing, report: Report) -> None:
    """Wait until nothing is held."""
    report.must(await idle(standing.url, _IDLE_WITHIN_S), f"something is still held after {_IDLE_WITHIN_S:g} s")


async def audit(standing: Standing, tally: Tally, report: Report) -> None:
    """After the gateway has stopped: hold the ledger to what was seen."""
    complaints: list[str] = []
    records: dict[str, Any] = {row[0]: row for row in await rows(standing.url, _RECORDS)}
    for call_id, (units, cost_nano) in tally.complete.items():
        row = records.get(call_id)
        if row is None:
            complaints.append(f"call {call_id} was complete and is not on record")
        elif (row[1], row[2]) != (units * MICRO, cost_nano):
            on_record = f"{row[1] / MICRO:g} units and {row[2]} nano-dollars"
            complaints.append(f"call {call_id}: {units} and {cost_nano} are on record as {on_record}")
        elif call_id in tally.hasty and tuple(row[3:6]) == ("client_closed", "measured", 1):
            # It hung up at the last event, as SDKs do, before that was looked at: the charge is whole all the same.
            continue
        elif row[3] != "complete" or row[4] != "measured" or row[5] != 1:
            complaints.append(f"call {call_id} was complete and is on record as {row[3]}, {row[4]}, {row[5]} rows")
    for call_id, units_max in tally.begun.items():
        row = records.get(call_id)
        if row is None:
            complaints.append(f"call {call_id} had begun and is not on record")
        elif not 0 <= row[1] <= units_max * MICRO:
            complaints.append(f"call {call_id} was cut off and is on record with {row[1] / MICRO:g} units")
    for call_id, status in tally.others.items():
        row = records.get(call_id)
        if row is None and status == 500:
            complaints.append(f"call {call_id} was answered by the upstream's error and is not on record")
        elif row is not None and (row[1] or row[2]):
            complaints.append(f"call {call_id} was answered with {status} and cost {row[1] / MICRO:g} units")
    known = tally.complete.keys() | tally.begun.keys() | tally.others.keys()
    unknown = sum(call_id not in known for call_id in records)
    report.must(unknown <= tally.unanswered, f"{unknown} records are of calls that no client knows")
    ((charged, units_micro),) = await rows(standing.url, _CHARGED)
    owed = max(0, (units_micro or 0) - QUOTA_UNITS * MICRO) * NANO_PER_UNIT // MICRO
    report.must((charged or 0) == owed, f"{charged} nano-dollars were charged instead of {owed}")
    report.wrong += tally.wrong[:_SHOWN] + complaints[:_SHOWN]
    report.figures |= {
        "calls": tally.calls,
        **{f"calls: {name}": count for name, count in sorted(tally.statuses.items())},
        "bytes compared": tally.received,
        "wrong bytes or hung calls": len(tally.wrong),
        "usage events not hidden within 250 ms": tally.revealed,
        "records": len(records),
        "wrong charges": len(complaints),
        "of calls without an answer": unknown,
        "charged in $": round((charged or 0) / 1e9, 6),
    }
    await check_sums(standing.url, report)
    doctor(standing.folder, report)
