"""The operations on the gateway itself: what it tells whom, its configuration and its health."""

from gatekeeper.ports.people import Role
from gatekeeper.web.openapi.operation import Operation, Query, Who
from gatekeeper.web.openapi.parameters import AFTER, LIMIT
from gatekeeper.web.openapi.schemas import (
    BACKLOG,
    DELIVERY,
    EVENT,
    FLAG,
    TEXT,
    TIME,
    WHOLE,
    asked,
    many,
    maybe,
    named,
    obj,
    one_of,
    page_of,
    ref,
)

_STATES = ("waiting", "sent", "dead")

OUTBOX = (
    Operation(
        "GET",
        "/admin/outbox",
        "list_batches",
        "Batches of usage for the biller, the latest first, and what is still to be told",
        page_of("batches", ref("Batch"), backlog=BACKLOG),
        tag="outbox",
        query=(
            Query("state", "Only these.", one_of((*_STATES, "empty"))),
            Query("customer_id", "Only this customer's.", TEXT),
            AFTER,
            LIMIT,
        ),
    ),
    Operation(
        "GET",
        "/admin/outbox/{batch_id}",
        "get_batch",
        "One batch, by its id or its identifier at the biller",
        ref("Batch"),
        tag="outbox",
    ),
    Operation(
        "POST",
        "/admin/outbox/{batch_id}/retry",
        "retry_batch",
        "Send a batch again; or say what a person has found at the biller",
        obj({"changed": WHOLE, "batch": ref("Batch")}),
        tag="outbox",
        body=asked({"known": maybe(one_of(("told", "unsent")))}),
    ),
    Operation(
        "POST",
        "/admin/outbox/retry",
        "retry_batches",
        "Send again everything that was given up",
        obj({"changed": WHOLE}),
        tag="outbox",
        body=asked({}),
    ),
)

NOTICES = (
    Operation(
        "GET",
        "/admin/notifications",
        "list_targets",
        "Who is told what, without secrets, on one page",
        page_of(
            "targets",
            obj(
                {
                    "name": TEXT,
                    "kind": one_of(("webhook", "mail")),
                    "host": TEXT,
                    "events": many(TEXT),
                    "thresholds": many(WHOLE),
                    "to_customers": FLAG,
                }
            ),
        ),
        tag="notifications",
    ),
    Operation(
        "GET",
        "/admin/notifications/deliveries",
        "list_deliveries",
        "Deliveries, those of the latest event first",
        page_of("deliveries", ref("Delivery")),
        tag="notifications",
        query=(
            Query("state", "Only these.", one_of(_STATES)),
            Query("target", "Only to this one.", TEXT),
            Query("event", "Only of this one.", TEXT),
            AFTER,
            LIMIT,
        ),
    ),
    Operation(
        "POST",
        "/admin/notifications/deliveries/retry",
        "retry_deliveries",
        "Send again everything that was given up",
        obj({"retried": WHOLE}),
        tag="notifications",
        body=asked({"target": maybe(TEXT)}),
    ),
    Operation(
        "GET",
        "/admin/notifications/events/{event_id}",
        "get_event",
        "An event, and how its deliveries stand",
        obj({**EVENT, "deliveries": many(obj(DELIVERY))}),
        tag="notifications",
    ),
    Operation(
        "POST",
        "/admin/notifications/events/{event_id}/retry",
        "retry_event",
        "Send an event again, at once, to whom it was given up or waits after a failure",
        obj({"retried": WHOLE}),
        tag="notifications",
        body=asked({"target": maybe(TEXT)}),
    ),
)

CONFIGURATION = (
    Operation(
        "GET",
        "/admin/config",
        "get_config",
        "Which configuration holds, since when, in which worker; no secrets",
        obj(
            {
                "generation": TEXT,
                "loaded_ms": TIME,
                "file": maybe(TEXT),
                "routes": WHOLE,
                "plans": WHOLE,
                "upstreams": many(TEXT),
                "limits": WHOLE,
                "warnings": many(ref("Mistake")),
                "workers": many(ref("Worker")),
            }
        ),
        tag="config",
    ),
    Operation(
        "POST",
        "/admin/config/validate",
        "validate_config",
        "What would be wrong with the file on disk, or with these texts; nothing is changed",
        obj(
            {
                "ok": FLAG,
                "mistakes": many(ref("Mistake")),
                "generation": maybe(TEXT),
                "routes": maybe(WHOLE),
                "plans": maybe(WHOLE),
            }
        ),
        tag="config",
        body=asked(
            {
                "text": maybe({"type": "string", "description": "gateway.toml; the file on disk unless given."}),
                "plans": maybe(
                    {**named(TEXT), "description": "Name of a file -> its text; those on disk unless given."}
                ),
            }
        ),
        errors=(409,),
    ),
    Operation(
        "POST",
        "/admin/config/reload",
        "reload_config",
        "Read the configuration again, as SIGHUP does, in all workers of this host",
        obj(
            {
                "generation": TEXT,
                "before": TEXT,
                "complete": {**FLAG, "description": "Whether every worker of this host has it already."},
                "workers": many(ref("Worker")),
                "warnings": many(ref("Mistake")),
            }
        ),
        tag="config",
        least=Role.OWNER,
        body=asked({}),
        errors=(409,),
    ),
)

HEALTH = (
    Operation(
        "GET",
        "/admin/health",
        "get_health",
        "What `gatekeeper doctor` says of the ledger, worked out at most twice a minute",
        obj(
            {
                "ok": FLAG,
                "checked_ms": TIME,
                "took_ms": WHOLE,
                "checks": many(
                    obj(
                        {
                            "name": TEXT,
                            "ok": FLAG,
                            "said": TEXT,
                            "figures": {"type": "object"},
                            "found": many(obj({"place": TEXT, "what": TEXT})),
                        }
                    )
                ),
            }
        ),
        tag="health",
        query=(Query("days", "Of which routes are judged.", {"type": "integer", "minimum": 1, "maximum": 400}),),
    ),
)

OPEN = (
    Operation(
        "GET",
        "/healthz",
        "health",
        "Whether this process answers",
        obj({"status": TEXT, "version": TEXT}),
        tag="health",
        who=Who.ANYBODY,
    ),
    Operation(
        "GET",
        "/readyz",
        "ready",
        "Whether calls are taken",
        obj(
            {
                "ready": FLAG,
                "outbox": obj({"waiting": WHOLE, "dead": WHOLE, "oldest_s": WHOLE, "behind": FLAG}),
            },
            optional=("outbox",),
        ),
        tag="health",
        who=Who.ANYBODY,
        errors=(503,),
    ),
    Operation(
        "GET",
        "/admin/openapi.json",
        "openapi",
        "This document",
        {"type": "object", "required": ["openapi", "info", "paths"]},
        tag="document",
        who=Who.ANYBODY,
    ),
)
METRICS = (
    Operation(
        "GET",
        "/metrics",
        "metrics",
        "Figures for Prometheus, of all workers of this host",
        {"type": "string"},
        tag="health",
        who=Who.METRICS,
        media="text/plain",
    ),
)
