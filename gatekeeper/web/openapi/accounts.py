"""The operations on customers and their keys."""

from gatekeeper.accounts import GRACE_HOURS_MAX
from gatekeeper.rules.limits import Mode, Window
from gatekeeper.web.openapi.operation import Operation, Query
from gatekeeper.web.openapi.parameters import AFTER, LIMIT, PERIOD
from gatekeeper.web.openapi.schemas import (
    CUSTOMER,
    DAYS,
    FLAG,
    ID,
    KEY,
    MONEY,
    NAME,
    NUMBER,
    SECRET_KEY,
    SUBJECT,
    TEXT,
    TIME,
    TOTAL,
    WHOLE,
    asked,
    many,
    maybe,
    obj,
    one_of,
    page_of,
    ref,
)

_EMAIL = {"type": "string", "pattern": "^[^@\\s]{1,64}@[^@\\s]{1,255}$"}
_ACCOUNT = {"type": "string", "pattern": "^[A-Za-z0-9_]{1,255}$"}
_CAP = {"type": ["string", "integer", "null"], "description": 'An amount in plain digits, or null: "unlimited".'}
NEW_LIMIT = {
    "dimension": {"type": "string", "examples": ["units", "requests", "dollars"]},
    "window": maybe(one_of(Window)),
    "per_ms": maybe(WHOLE),
    "cap": _CAP,
    "mode": maybe(one_of([*Mode, "warn"])),
    "zone": maybe(TEXT),
    "name": maybe(TEXT),
    "release": maybe(TEXT),
}

CUSTOMERS = (
    Operation(
        "GET",
        "/admin/customers",
        "list_customers",
        "Customers in the order of their ids; search them",
        page_of("customers", ref("Customer")),
        tag="customers",
        query=(
            Query("find", "What stands in the id, name, email or account at Stripe.", TEXT),
            Query("plan", "Only those on this plan.", TEXT),
            AFTER,
            LIMIT,
        ),
    ),
    Operation(
        "POST",
        "/admin/customers",
        "create_customer",
        "Make a customer, with its own limits: all of it or nothing",
        obj({**CUSTOMER, "limits": many(ref("Budget"))}),
        201,
        tag="customers",
        body=asked(
            {
                "name": NAME,
                "plan": maybe(TEXT),
                "id": maybe(ID),
                "email": maybe(_EMAIL),
                "stripe_customer_id": maybe(_ACCOUNT),
                "disabled": maybe(FLAG),
                "limits": maybe(many(asked(NEW_LIMIT, needed=("dimension", "cap")))),
            },
            needed=("name",),
        ),
        errors=(409,),
        once=True,
    ),
    Operation(
        "GET",
        "/admin/customers/{customer_id}",
        "get_customer",
        "One customer",
        ref("Customer"),
        tag="customers",
        tagged=True,
    ),
    Operation(
        "PATCH",
        "/admin/customers/{customer_id}",
        "update_customer",
        "Change a customer: all of it or nothing; null takes an email or an account away",
        ref("Customer"),
        tag="customers",
        body=asked(
            {
                "name": maybe(NAME),
                "plan": maybe(TEXT),
                "email": maybe(_EMAIL),
                "stripe_customer_id": maybe(_ACCOUNT),
                "disabled": maybe(FLAG),
            }
        ),
        errors=(409,),
        tagged=True,
    ),
    Operation(
        "DELETE",
        "/admin/customers/{customer_id}",
        "archive_customer",
        "Archive a customer: disabled, its keys revoked; its records stay and are billed",
        obj({**CUSTOMER, "keys_revoked": WHOLE}),
        tag="customers",
        tagged=True,
    ),
    Operation(
        "GET",
        "/admin/customers/{customer_id}/usage",
        "customer_usage",
        "Sums of a period and by day; today and this month beside them",
        obj(
            {
                **TOTAL,
                "tokens_used_today": NUMBER,
                "tokens_used_month": NUMBER,
                "estimated_cost": MONEY,
                "requests_count": WHOLE,
                "last_request": maybe(TIME),
                "days": DAYS,
            }
        ),
        tag="customers",
        query=PERIOD,
    ),
)

KEYS = (
    Operation(
        "GET",
        "/admin/keys",
        "list_keys",
        "Everybody's keys, without the keys themselves",
        page_of("keys", ref("Key")),
        tag="keys",
        query=(AFTER, LIMIT),
    ),
    Operation(
        "GET",
        "/admin/customers/{customer_id}/keys",
        "list_customer_keys",
        "A customer's keys, without the keys themselves",
        page_of("keys", ref("Key")),
        tag="keys",
        query=(AFTER, LIMIT),
    ),
    Operation(
        "POST",
        "/admin/customers/{customer_id}/keys",
        "create_key",
        "Make a key; it is shown in this answer and never again",
        obj({**KEY, "key": SECRET_KEY}),
        201,
        tag="keys",
        body=asked(
            {
                "name": maybe({"type": "string", "maxLength": 200}),
                "expires_ms": maybe(TIME),
                "routes": maybe(many(TEXT)),
                "models": maybe(many(TEXT)),
                "user_id": maybe(SUBJECT),
                "agent_id": maybe(SUBJECT),
                "may_assert": maybe(FLAG),
            }
        ),
        errors=(409,),
        once=True,
    ),
    Operation("GET", "/admin/keys/{key_id}", "get_key", "One key, without the key itself", ref("Key"), tag="keys"),
    Operation(
        "POST",
        "/admin/keys/{key_id}/rotate",
        "rotate_key",
        "A new key with the same scopes; the old one is good for some hours more",
        obj({**KEY, "key": SECRET_KEY, "replaces": maybe(ref("Key"))}),
        201,
        tag="keys",
        body=asked({"grace_hours": maybe({"type": "integer", "minimum": 0, "maximum": GRACE_HOURS_MAX})}),
        errors=(409,),
        once=True,
    ),
    Operation(
        "DELETE",
        "/admin/keys/{key_id}",
        "revoke_key",
        "Refuse a key from now on, everywhere within a second",
        ref("Key"),
        tag="keys",
    ),
)
