"""Webhook endpoints and deliveries. The rule: an event is signed when it leaves, with the SDK's own function.

Sources: https://docs.stripe.com/webhooks (signature at each attempt, one for each secret while a secret is rolled,
retries for three days, order not guaranteed, duplicates possible), https://docs.stripe.com/api/webhook_endpoints (the
secret is shown once) and https://docs.stripe.com/api/v2/core/event_destinations (thin events).
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gatekeeper.demo.stripe.account import HOUR_S, Account, Stored, set_fields
from gatekeeper.demo.stripe.happenings import THIN, notification
from gatekeeper.demo.stripe.listing import page
from gatekeeper.demo.stripe.refusing import invalid

# "Up to three days with an exponential back off": the hours between attempts are ours (unverified), their sum is not.
RETRY_AFTER_HOURS = (1, 2, 4, 8, 16, 32)


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint, signed. ``body`` and ``headers`` are to be sent as they are."""

    id: str
    endpoint_id: str
    url: str
    event_id: str
    event_type: str
    body: bytes
    headers: Mapping[str, str]
    attempt: int


# Sends a delivery and returns the HTTP status; an OSError is a connection that failed.
Sender = Callable[[Delivery], Awaitable[int]]


@dataclass(slots=True)
class Waiting:
    """An event that an endpoint has not confirmed."""

    id: str
    endpoint_id: str
    event_id: str
    event_type: str
    due_ms: int
    attempt: int = 1
    # A test holds it, and says later what became of it.
    taken: bool = False


@dataclass(slots=True)
class Webhooks:
    """Endpoints, and the queue of what waits for them."""

    account: Account
    queue: list[Waiting] = field(default_factory=list)

    def create(self, params: Mapping[str, Any]) -> Stored:
        """A v1 endpoint; the answer shows its secret, and no later one does."""
        made = self.account.put(
            "webhook_endpoint",
            "we",
            {
                "url": params["url"],
                "enabled_events": params["enabled_events"],
                "api_version": params.get("api_version"),
                "description": params.get("description") or None,
                "metadata": params.get("metadata") or {},
                "status": "enabled",
                "application": None,
                "_secrets": [self._new_secret()],
            },
        )
        return {**made, "secret": made["_secrets"][0]}

    def update(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """url, enabled_events, description, metadata, disabled. Raises Refused."""
        endpoint = self.account.get("webhook_endpoint", identifier)
        set_fields(endpoint, params, ("url", "enabled_events", "description"))
        if "disabled" in params:
            endpoint["status"] = "disabled" if params["disabled"] else "enabled"
        return endpoint

    def delete(self, identifier: str) -> Stored:
        """Gone, and with it what waited for it."""
        self.account.get("webhook_endpoint", identifier)
        del self.account.shelf("webhook_endpoint")[identifier]
        self.queue = [waiting for waiting in self.queue if waiting.endpoint_id != identifier]
        return {"id": identifier, "object": "webhook_endpoint", "deleted": True}

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """All v1 endpoints, without secrets."""
        return page("/v1/webhook_endpoints", self.account.shelf("webhook_endpoint").values(), params)

    def create_destination(self, params: Mapping[str, Any]) -> Stored:
        """A v2 event destination of type ``webhook_endpoint``. Raises Refused."""
        if params["type"] != "webhook_endpoint" or "webhook_endpoint" not in params:
            raise invalid("Only destinations of type webhook_endpoint exist here.", "type")
        made = self.account.put(
            "v2.core.event_destination",
            "ed",
            {
                "name": params["name"],
                "description": params.get("description", ""),
                "type": "webhook_endpoint",
                "event_payload": params["event_payload"],
                "snapshot_api_version": params.get("snapshot_api_version"),
                "enabled_events": params["enabled_events"],
                "metadata": params.get("metadata") or {},
                "status": "enabled",
                "webhook_endpoint": {"url": params["webhook_endpoint"]["url"]},
                "_secrets": [self._new_secret()],
            },
        )
        return _destination(made, params, fresh=True)

    def list_destinations(self, params: Mapping[str, Any]) -> Stored:
        """All v2 destinations in one page."""
        found = [_destination(row, params) for row in self.account.shelf("v2.core.event_destination").values()]
        return {"data": found[::-1], "next_page_url": None, "previous_page_url": None}

    def retrieve_destination(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """One v2 destination. Raises Refused (404)."""
        return _destination(self.account.get("v2.core.event_destination", identifier), params)

    def update_destination(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """name, description, enabled_events, metadata (null unsets a key), the URL. Raises Refused (404)."""
        found = self.account.get("v2.core.event_destination", identifier)
        for name in ("name", "description", "enabled_events"):
            found[name] = params.get(name, found[name])
        found["webhook_endpoint"] |= params.get("webhook_endpoint", {})
        merged = {**found["metadata"], **params.get("metadata", {})}
        found["metadata"] = {key: value for key, value in merged.items() if value is not None}
        return _destination(found, params)

    def switch_destination(self, identifier: str, status: str) -> Stored:
        """``enabled`` or ``disabled``. Raises Refused (404)."""
        found = self.account.get("v2.core.event_destination", identifier)
        found["status"] = status
        return _destination(found, {})

    def delete_destination(self, identifier: str) -> Stored:
        """Gone, and with it what waited for it. Raises Refused (404)."""
        self.account.get("v2.core.event_destination", identifier)
        del self.account.shelf("v2.core.event_destination")[identifier]
        self.queue = [waiting for waiting in self.queue if waiting.endpoint_id != identifier]
        return {"id": identifier, "object": "v2.core.event_destination"}

    def roll_secret(self, identifier: str) -> str:
        """A new secret; the old one signs too until ``expire_secret`` (the dashboard offers up to 24 hours)."""
        secrets: list[str] = self._endpoint(identifier)["_secrets"]
        secrets.insert(0, self._new_secret())
        del secrets[2:]
        return secrets[0]

    def expire_secret(self, identifier: str) -> None:
        """The old secret stops signing."""
        del self._endpoint(identifier)["_secrets"][1:]

    def secret(self, identifier: str) -> str:
        """The present secret, for tests that look in."""
        return str(self._endpoint(identifier)["_secrets"][0])

    def publish(self, event: Stored) -> None:
        """Queue an event for every endpoint that wants it."""
        for endpoint in self._endpoints():
            wanted = endpoint["enabled_events"]
            thin = endpoint.get("event_payload") == "thin"
            if thin is not (event["object"] == THIN) or endpoint["status"] != "enabled":
                continue
            if "*" not in wanted and event["type"] not in wanted:
                continue
            event["_deliveries"][endpoint["id"]] = False
            name = self.account.new_id("del")
            self.queue.append(Waiting(name, endpoint["id"], event["id"], event["type"], self.account.now_ms))
        event["pending_webhooks"] = len(event["_deliveries"])

    def due(self) -> list[Waiting]:
        """What may be sent now, oldest first."""
        now_ms = self.account.now_ms
        return [waiting for waiting in self.queue if waiting.due_ms <= now_ms and not waiting.taken]

    def hold(self, delivery_ids: set[str], *, held: bool) -> None:
        """Somebody has these in hand (or has let go of what is left of them): they are not due meanwhile."""
        for waiting in self.queue:
            if waiting.id in delivery_ids:
                waiting.taken = held

    def signed(self, waiting: Waiting) -> Delivery:
        """The delivery of one attempt, signed now with every secret that counts."""
        from stripe import WebhookSignature

        endpoint = self._endpoint(waiting.endpoint_id)
        event = self.account.shelf("event").get(waiting.event_id) or self.account.shelf(THIN)[waiting.event_id]
        version = endpoint.get("api_version") or self.account.api_version
        # Stripe's own bodies are indented: whoever verifies must not parse and print them again.
        text = json.dumps(notification(self.account, event, version), indent=2)
        now_s = self.account.now_s
        signatures = [
            WebhookSignature.generate_signature_header(text, secret, now_s) for secret in endpoint["_secrets"]
        ]
        header = ",".join([signatures[0], *(more.partition(",")[2] for more in signatures[1:])])
        headers = {
            "content-type": "application/json; charset=utf-8",
            "user-agent": "Stripe/1.0 (+https://stripe.com/docs/webhooks)",
            "stripe-signature": header,
        }
        return Delivery(
            waiting.id,
            waiting.endpoint_id,
            endpoint.get("url") or endpoint["webhook_endpoint"]["url"],
            waiting.event_id,
            waiting.event_type,
            text.encode(),
            headers,
            waiting.attempt,
        )

    def confirm(self, delivery_id: str) -> None:
        """The endpoint answered 2xx."""
        waiting = self._remove(delivery_id)
        if waiting is None:
            return
        event = self.account.shelf("event").get(waiting.event_id) or self.account.shelf(THIN)[waiting.event_id]
        event["_deliveries"][waiting.endpoint_id] = True
        event["pending_webhooks"] = sum(not done for done in event["_deliveries"].values())

    def refuse(self, delivery_id: str) -> None:
        """The endpoint answered anything else: again later, or never after three days."""
        waiting = self._remove(delivery_id)
        if waiting is not None and waiting.attempt <= len(RETRY_AFTER_HOURS):
            later_ms = RETRY_AFTER_HOURS[waiting.attempt - 1] * HOUR_S * 1000
            waiting.due_ms = self.account.now_ms + later_ms
            waiting.attempt += 1
            waiting.taken = False
            self.queue.append(waiting)

    def lose(self, delivery_id: str) -> None:
        """It never arrives and is never tried again; the event stays undelivered."""
        self._remove(delivery_id)

    def _remove(self, delivery_id: str) -> Waiting | None:
        found = next((waiting for waiting in self.queue if waiting.id == delivery_id), None)
        if found is not None:
            self.queue.remove(found)
        return found

    def _endpoints(self) -> list[Stored]:
        v1, v2 = self.account.shelf("webhook_endpoint"), self.account.shelf("v2.core.event_destination")
        return [*v1.values(), *v2.values()]

    def _endpoint(self, identifier: str) -> Stored:
        found = self.account.shelf("v2.core.event_destination").get(identifier)
        return found or self.account.get("webhook_endpoint", identifier)

    def _new_secret(self) -> str:
        return self.account.new_id("whsec").replace("whsec_fake", "whsec_fakeSecret")


def _destination(made: Stored, params: Mapping[str, Any], *, fresh: bool = False) -> Stored:
    """A destination as answers show it: URL and secret are redacted unless ``include`` asks, and the secret can only be
    asked for when it is made (SDK: EventDestinationCreateParams.include)."""
    asked = params.get("include", [])
    shown = {"url": made["webhook_endpoint"]["url"] if "webhook_endpoint.url" in asked else None}
    if fresh and "webhook_endpoint.signing_secret" in asked:
        shown["signing_secret"] = made["_secrets"][0]
    return {**made, "webhook_endpoint": shown}
