"""Events: snapshots of v1 objects, and thin v2 events for meters. The rule: every change is one event, and is kept.

Sources: https://docs.stripe.com/api/events/object, https://docs.stripe.com/event-destinations#thin-events; which fields
a thin notification has is in the SDK (``stripe.v2.core.EventNotification``): no ``data``, that is fetched.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from gatekeeper.demo.stripe.account import DAY_S, Account, Stored
from gatekeeper.demo.stripe.listing import page, rendered
from gatekeeper.demo.stripe.refusing import missing
from gatekeeper.demo.stripe.shapes import shaped

# https://docs.stripe.com/api/events: events can be read for 30 days.
KEPT_S = 30 * DAY_S
THIN = "v2.core.event"


@dataclass(slots=True)
class Happenings:
    """Makes events and hands each to ``publish`` (the webhooks)."""

    account: Account
    publish: Callable[[Stored], None] = lambda event: None

    def __post_init__(self) -> None:
        self.account.emit = self.snapshot

    def snapshot(self, kind: str, about: Stored, before: Mapping[str, Any] | None = None) -> None:
        """A v1 event with a copy of the object as it is now (newest shape; made older when it is read)."""
        content: Stored = {"object": rendered(self.account, about)}
        if before:
            content["previous_attributes"] = copy.deepcopy(dict(before))
        event = self.account.put(
            "event",
            "evt",
            {
                "type": kind,
                "api_version": self.account.api_version,
                "data": content,
                "pending_webhooks": 0,
                "request": {"id": None, "idempotency_key": None},
                # Endpoint id -> delivered yet.
                "_deliveries": {},
            },
        )
        self.publish(event)

    def thin(self, kind: str, content: Stored, meter_id: str | None = None) -> Stored:
        """A v2 event; ``content`` is what only a fetch shows."""
        now = datetime.fromtimestamp(self.account.now_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        fields: Stored = {"type": kind, "created": now, "context": None, "reason": None, "data": content}
        if meter_id is not None:
            related = {"id": meter_id, "type": "billing.meter", "url": f"/v1/billing/meters/{meter_id}"}
            fields["related_object"] = related
        event = self.account.put(THIN, "evt", fields | {"_deliveries": {}, "_created_s": self.account.now_s})
        self.publish(event)
        return event

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """v1 events. ``delivery_success`` false: still pending at, or refused by, some endpoint."""
        wanted = params.get("types") or ([params["type"]] if "type" in params else ["*"])
        oldest_s = self.account.now_s - KEPT_S
        found = [
            event
            for event in self.account.shelf("event").values()
            if event["created"] > oldest_s
            and any(fnmatchcase(event["type"], pattern) for pattern in wanted)
            and params.get("delivery_success") in (None, all(event["_deliveries"].values()))
        ]
        return page("/v1/events", found, params)

    def retrieve(self, identifier: str) -> Stored:
        """One v1 event. Raises Refused (404)."""
        return self.account.get("event", identifier)

    def retrieve_thin(self, identifier: str) -> Stored:
        """One v2 event with its data. Raises Refused (404)."""
        found = self.account.shelf(THIN).get(identifier)
        if found is None:
            raise missing("event", identifier)
        return found

    def list_thin(self, params: Mapping[str, Any]) -> Stored:
        """v2 events, newest first, in one page."""
        kinds = params.get("types") or []
        since = params.get("created", {}).get("gte", "")
        found = [
            event
            for event in self.account.shelf(THIN).values()
            if (not kinds or event["type"] in kinds) and event["created"] >= since
        ]
        return {"data": found[::-1][: params.get("limit", 20)], "next_page_url": None, "previous_page_url": None}


def notification(account: Account, event: Stored, version: str) -> Stored:
    """What is sent to an endpoint: a thin event without its data, or a snapshot in the endpoint's version."""
    outside = rendered(account, event)
    if event["object"] == THIN:
        del outside["data"]
        return outside
    outside["api_version"] = version
    shaped(outside["data"]["object"], version)
    return outside
