"""Meter events: taken in, cancelled, summed up, and complained about later.

The rule: 200 means accepted, not billed. Sources: https://docs.stripe.com/api/billing/meter-event/create,
https://docs.stripe.com/billing/subscriptions/usage-based/recording-usage-api (35 days, 5 minutes, whole numbers, one
concurrent call per customer per meter, asynchronous processing), https://docs.stripe.com/api/billing/meter-event-summary,
and the SDK's MeterEventCreateParams. The text of the duplicate's 400 is from https://github.com/langfuse/langfuse/pull/16292.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gatekeeper.demo.stripe.account import DAY_S, HOUR_S, Account, Stored
from gatekeeper.demo.stripe.customers import Customers
from gatekeeper.demo.stripe.happenings import Happenings
from gatekeeper.demo.stripe.listing import page
from gatekeeper.demo.stripe.meters import Meters
from gatekeeper.demo.stripe.refusing import Refused, invalid

PAST_S_MAX = 35 * DAY_S
FUTURE_S_MAX = 5 * 60
IDENTIFIER_CHARACTERS_MAX = 100
CANCEL_WITHIN_S = DAY_S
SAMPLES_MAX = 10
_VALUE = re.compile(r"-?\d{1,15}")
_WINDOWS_S = {"hour": HOUR_S, "day": DAY_S}


@dataclass(slots=True)
class UsageEvent:
    """One accepted event. ``problem`` (code, text) means that it is never billed."""

    identifier: str
    event_name: str
    customer_id: str
    meter_id: str | None
    value: int
    timestamp_s: int
    received_s: int
    cancelled: bool = False
    problem: tuple[str, str] | None = None
    idempotency_key: str = ""
    reported: bool = False


class Usage:
    """All events of one account, oldest first."""

    def __init__(self, account: Account, happenings: Happenings, customers: Customers, meters: Meters) -> None:
        self._account = account
        self._happenings = happenings
        self._customers = customers
        self._meters = meters
        self.events: list[UsageEvent] = []
        self._by_identifier: dict[str, UsageEvent] = {}
        self._in_flight: set[tuple[str, str]] = set()

    def lock(self, params: Mapping[str, Any]) -> tuple[str, str]:
        """One call in flight for each customer and meter; give the result to ``unlock``. Raises Refused (429)."""
        payload = params.get("payload")
        customer = payload.get("stripe_customer_id", "") if isinstance(payload, Mapping) else ""
        held = (str(customer), str(params.get("event_name", "")))
        if held in self._in_flight:
            raise Refused(
                429,
                "This object cannot be accessed right now because another API request or Stripe process is currently "
                "accessing it.",
                code="lock_timeout",
                saved=False,
            )
        self._in_flight.add(held)
        return held

    def unlock(self, held: tuple[str, str]) -> None:
        """The call is over."""
        self._in_flight.discard(held)

    def create(self, params: Mapping[str, Any], idempotency_key: str = "") -> Stored:
        """Accept an event. Raises Refused (400); unknown customers and event names are only reported later."""
        name, payload = params["event_name"], params["payload"]
        now_s = self._account.now_s
        timestamp_s = params.get("timestamp", now_s)
        self._check_time(timestamp_s, now_s)
        meter = self._meters.by_event_name(name)
        value_key = meter["value_settings"]["event_payload_key"] if meter else "value"
        customer_key = meter["customer_mapping"]["event_payload_key"] if meter else "stripe_customer_id"
        text = payload.get(value_key, "1" if _counts(meter) else "")
        if not _VALUE.fullmatch(text):
            message = f"The value must be a whole number of at most 15 digits, as a string: {text!r}"
            raise invalid(message, f"payload[{value_key}]", "meter_event_invalid_value")
        identifier = params.get("identifier") or self._account.new_id("mev")
        self._check_identifier(identifier, now_s)
        customer_id = payload.get(customer_key, "")
        event = UsageEvent(
            identifier, name, customer_id, meter["id"] if meter else None, int(text), timestamp_s, now_s,
            problem=self._problem(meter, name, customer_id), idempotency_key=idempotency_key,
        )  # fmt: skip
        self.events.append(event)
        self._by_identifier[identifier] = event
        if event.problem is not None:
            self._account.at(now_s + self._account.settings.meter_report_after_s, self.report_problems)
        return {
            "object": "billing.meter_event",
            "created": now_s,
            "event_name": name,
            "identifier": identifier,
            "livemode": self._account.livemode,
            "payload": dict(payload),
            "timestamp": timestamp_s,
        }

    def cancel(self, params: Mapping[str, Any]) -> Stored:
        """An adjustment: the event no longer counts, if it came within the last 24 hours. Raises Refused."""
        identifier = params.get("cancel", {}).get("identifier")
        if identifier is None:
            raise invalid("Missing required param: cancel[identifier].", "cancel[identifier]", "parameter_missing")
        event = self._by_identifier.get(identifier)
        if event is None or event.event_name != params["event_name"]:
            raise invalid(f"No meter event with identifier {identifier}.", "cancel[identifier]", "resource_missing")
        if self._account.now_s - event.received_s > CANCEL_WITHIN_S:
            raise invalid(
                "Events can only be cancelled within 24 hours of Stripe receiving them.", "cancel[identifier]"
            )
        event.cancelled = True
        return {
            "object": "billing.meter_event_adjustment",
            "cancel": {"identifier": identifier},
            "event_name": params["event_name"],
            "livemode": self._account.livemode,
            "status": "pending",
            "type": "cancel",
        }

    def summaries(self, meter_id: str, params: Mapping[str, Any]) -> Stored:
        """Aggregates of [start_time, end_time), aligned to minutes (hours, days), lagging by the settings."""
        meter = self._account.get("billing.meter", meter_id)
        start_s, end_s = params["start_time"], params["end_time"]
        step_s = _WINDOWS_S.get(params.get("value_grouping_window", ""), 0)
        for name, at_s in (("start_time", start_s), ("end_time", end_s)):
            if at_s % (step_s or 60):
                raise invalid(f"{name} must align with {'window' if step_s else 'minute'} boundaries.", name)
        if start_s >= end_s:
            raise invalid("end_time must be later than start_time.", "end_time")
        self._account.get("customer", params["customer"], "customer")
        seen_s = self._account.now_s - self._account.settings.meter_lag_s
        made = []
        for left_s in range(start_s, end_s, step_s or end_s - start_s):
            right_s = left_s + (step_s or end_s - start_s)
            events = list(self.billable(meter_id, params["customer"], left_s, right_s, seen_s))
            if events:
                made.append(
                    {
                        "id": f"mtrusg_{meter_id}_{left_s}",
                        "object": "billing.meter_event_summary",
                        "aggregated_value": _aggregate(meter, events),
                        "created": self._account.now_s,
                        "end_time": right_s,
                        "livemode": self._account.livemode,
                        "meter": meter_id,
                        "start_time": left_s,
                    }
                )
        return page(f"/v1/billing/meters/{meter_id}/event_summaries", made, params)

    def quantity(self, meter_id: str, customer_id: str, start_s: int, end_s: int, seen_s: int | None = None) -> int:
        """What an invoice counts for a window, never below 0 (recording-usage-api: "If the overall cycle usage is
        negative ... 0"). ``seen_s``: only what was received by then."""
        meter = self._account.get("billing.meter", meter_id)
        return max(0, _aggregate(meter, list(self.billable(meter_id, customer_id, start_s, end_s, seen_s))))

    def billable(
        self, meter_id: str, customer_id: str, start_s: int, end_s: int, seen_s: int | None = None
    ) -> Iterator[UsageEvent]:
        """Events that count in [start, end)."""
        for event in self.events:
            if (event.meter_id, event.customer_id) != (meter_id, customer_id) or event.cancelled or event.problem:
                continue
            if start_s <= event.timestamp_s < end_s and (seen_s is None or event.received_s <= seen_s):
                yield event

    def report_problems(self) -> None:
        """One thin event for each meter with new problems (a sample of them), one for event names without a meter."""
        fresh = [event for event in self.events if event.problem is not None and not event.reported]
        for meter_id in dict.fromkeys(event.meter_id for event in fresh):
            self._report(meter_id, [event for event in fresh if event.meter_id == meter_id])

    def reject(self, identifier: str, code: str, message: str) -> None:
        """An accepted event turns out to be bad: it does not count, and is reported with the next report."""
        event = self._by_identifier[identifier]
        event.problem = (code, message)
        event.reported = False
        self._account.at(self._account.now_s + self._account.settings.meter_report_after_s, self.report_problems)

    def _report(self, meter_id: str | None, events: list[UsageEvent]) -> None:
        codes = Counter(event.problem[0] for event in events if event.problem)
        kinds = []
        for code, count in codes.items():
            samples = [
                {"error_message": event.problem[1], "request": {"identifier": event.idempotency_key}}
                for event in events
                if event.problem and event.problem[0] == code
            ]
            kinds.append({"code": code, "error_count": count, "sample_errors": samples[:SAMPLES_MAX]})
        for event in events:
            event.reported = True
        content = {
            "developer_message_summary": f"There are {len(events)} invalid event(s)",
            "reason": {"error_count": len(events), "error_types": kinds},
            "validation_start": _iso(min(event.received_s for event in events)),
            "validation_end": _iso(self._account.now_s),
        }
        # An event name without a meter has its own event, which relates to nothing (SDK: stripe.events).
        kind = "error_report_triggered" if meter_id else "no_meter_found"
        self._happenings.thin(f"v1.billing.meter.{kind}", content, meter_id)

    def _problem(self, meter: Stored | None, name: str, customer_id: str) -> tuple[str, str] | None:
        if meter is None:
            archived = self._meters.by_event_name(name, "inactive")
            return ("archived_meter" if archived else "no_meter", f"No active meter for event name {name}")
        if not customer_id:
            return "meter_event_no_customer_defined", "The payload names no customer"
        if not self._customers.known(customer_id):
            return "meter_event_customer_not_found", f"Customer {customer_id} not found"
        return None

    def _check_time(self, timestamp_s: int, now_s: int) -> None:
        if timestamp_s < now_s - PAST_S_MAX:
            raise invalid(
                "The timestamp must be within the past 35 calendar days.", "timestamp", "timestamp_too_far_in_past"
            )
        if timestamp_s > now_s + FUTURE_S_MAX:
            raise invalid(
                "The timestamp must not be more than 5 minutes in the future.", "timestamp", "timestamp_in_future"
            )

    def _check_identifier(self, identifier: str, now_s: int) -> None:
        if len(identifier) > IDENTIFIER_CHARACTERS_MAX:
            raise invalid("The identifier may have at most 100 characters.", "identifier")
        earlier = self._by_identifier.get(identifier)
        if earlier is not None and now_s - earlier.received_s < self._account.settings.identifier_kept_s:
            raise invalid(f"An event already exists with identifier {identifier}.")


def _counts(meter: Stored | None) -> bool:
    return meter is not None and meter["default_aggregation"]["formula"] == "count"


def _aggregate(meter: Stored, events: list[UsageEvent]) -> int:
    match meter["default_aggregation"]["formula"]:
        case "count":
            return len(events)
        case "last":
            return max(events, key=lambda event: event.timestamp_s).value if events else 0
    return sum(event.value for event in events)


def _iso(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
