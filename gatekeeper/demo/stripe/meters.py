"""Billing meters. Source: https://docs.stripe.com/api/billing/meter.

The rule: an event name belongs to one meter; what events are worth is ``usage``'s business.
"""

from collections.abc import Mapping
from typing import Any

from gatekeeper.demo.stripe.account import Account, Stored
from gatekeeper.demo.stripe.listing import matching, page
from gatekeeper.demo.stripe.refusing import invalid

EVENT_NAME_CHARACTERS_MAX = 100


class Meters:
    """The meters of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create(self, params: Mapping[str, Any]) -> Stored:
        """An active meter. "You can only use an event name with a single meter"
        (https://docs.stripe.com/billing/subscriptions/usage-based/meters/configure). Raises Refused (400)."""
        name = params["event_name"]
        if len(name) > EVENT_NAME_CHARACTERS_MAX or not name:
            raise invalid("The event name must have 1 to 100 characters.", "event_name")
        if taken := self.by_event_name(name):
            raise invalid(
                f"An active meter ({taken['id']}) already exists with event name {name}.",
                "event_name",
                "resource_already_exists",
            )
        mapping = {"event_payload_key": "stripe_customer_id", "type": "by_id"}
        made = self._account.put(
            "billing.meter",
            "mtr",
            {
                "customer_mapping": params.get("customer_mapping") or mapping,
                "default_aggregation": params["default_aggregation"],
                "display_name": params["display_name"],
                "event_name": name,
                "event_time_window": params.get("event_time_window"),
                "status": "active",
                "status_transitions": {"deactivated_at": None},
                "updated": self._account.now_s,
                "value_settings": params.get("value_settings") or {"event_payload_key": "value"},
            },
        )
        self._account.emit("billing.meter.created", made, None)
        return made

    def update(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """Only the display name can change. Raises Refused (404)."""
        found = self._account.get("billing.meter", identifier)
        found["display_name"] = params.get("display_name", found["display_name"])
        found["updated"] = self._account.now_s
        self._account.emit("billing.meter.updated", found, None)
        return found

    def deactivate(self, identifier: str) -> Stored:
        """No more events; the event name is free again. Raises Refused."""
        found = self._account.get("billing.meter", identifier)
        if found["status"] != "active":
            raise invalid("The meter is already inactive.", "id")
        found["status"] = "inactive"
        found["status_transitions"]["deactivated_at"] = found["updated"] = self._account.now_s
        self._account.emit("billing.meter.deactivated", found, None)
        return found

    def reactivate(self, identifier: str) -> Stored:
        """Active again, unless its event name was taken meanwhile. Raises Refused."""
        found = self._account.get("billing.meter", identifier)
        if found["status"] == "active" or self.by_event_name(found["event_name"]):
            raise invalid("The meter cannot be reactivated.", "id")
        found["status"] = "active"
        found["status_transitions"]["deactivated_at"] = None
        self._account.emit("billing.meter.reactivated", found, None)
        return found

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """Meters, by status."""
        return page(
            "/v1/billing/meters", matching(self._account.shelf("billing.meter").values(), params, ("status",)), params
        )

    def by_event_name(self, name: str, status: str = "active") -> Stored | None:
        """The meter that an event name belongs to."""
        found = self._account.shelf("billing.meter").values()
        return next((meter for meter in found if meter["event_name"] == name and meter["status"] == status), None)
