"""An event as a CloudEvent in structured JSON. Source: CloudEvents 1.0.2, "JSON Event Format".

The rule: the same event has the same bytes at every attempt.
"""

import datetime as dt
import json
from typing import Any

from gatekeeper.rules.notices import Event

CONTENT_TYPE = "application/cloudevents+json; charset=utf-8"
# Where no public URL is configured; a URI reference, as the specification asks for.
DEFAULT_SOURCE = "gatekeeper"


def cloud_event(event: Event, source: str | None) -> dict[str, Any]:
    """The envelope. ``subject`` is the customer, and left out where there is none."""
    subject = {} if event.customer_id is None else {"subject": event.customer_id}
    when = dt.datetime.fromtimestamp(event.created_ms / 1000, dt.UTC)
    return {
        "specversion": "1.0",
        "id": event.id,
        "source": source or DEFAULT_SOURCE,
        "type": event.kind,
        **subject,
        "time": when.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "datacontenttype": "application/json",
        "data": event.content,
    }


def cloud_event_bytes(event: Event, source: str | None) -> bytes:
    """The same as it is sent: in ASCII, so that no name that a client chose can break it."""
    return json.dumps(cloud_event(event, source), separators=(",", ":")).encode("ascii")
