"""A usage record as most tests want it: one complete streamed call."""

from dataclasses import replace
from typing import Any

from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import UsageRecord
from gatekeeper.rules.windows import admitted_month

# 15 June 2026, noon, UTC.
NOW_MS = 1_781_524_800_000


def complete_call(call_id: str, **changes: Any) -> UsageRecord:
    """Of customer ``acme`` on plan ``pro``, one unit, each field open to change; its month follows from its start."""
    made = UsageRecord(
        call_id=call_id,
        admitted_month="",
        customer_id="acme",
        key_id="k1",
        user_id=None,
        agent_id=None,
        plan_id="pro",
        route="chat",
        upstream="openai",
        model="gpt-4o",
        method="POST",
        path="/v1/chat/completions",
        status=200,
        outcome=Outcome.COMPLETE,
        streamed=True,
        started_ms=NOW_MS,
        ended_ms=NOW_MS + 900,
        first_byte_ms=NOW_MS + 100,
        units_micro=1_000_000,
        source=Mark.MEASURED,
    )
    made = replace(made, **changes)
    return made if "admitted_month" in changes else replace(made, admitted_month=admitted_month(made.started_ms))
