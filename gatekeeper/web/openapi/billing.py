"""The operations on subscriptions and invoices, and where Stripe's events arrive."""

from gatekeeper.web.openapi.operation import Operation, Query, Who
from gatekeeper.web.openapi.parameters import AFTER
from gatekeeper.web.openapi.schemas import (
    FLAG,
    MONEY,
    TEXT,
    TIME,
    UNITS,
    WHOLE,
    asked,
    many,
    maybe,
    obj,
    one_of,
    page_of,
)

_URL = obj({"url": {"type": "string", "description": "A page at Stripe, for the customer."}})
_STANDING = obj({"subscription": maybe({"type": "object"})})
_WHEN = one_of(("now", "period_end"))
INVOICE = obj(
    {
        "id": TEXT,
        "number": maybe(TEXT),
        "status": TEXT,
        "reason": TEXT,
        "currency": TEXT,
        "total_cents": WHOLE,
        "due_cents": WHOLE,
        "paid_cents": WHOLE,
        "attempts": WHOLE,
        "created_ms": TIME,
        "period_start_ms": TIME,
        "period_end_ms": TIME,
        "subscription": maybe(TEXT),
        "page": maybe(TEXT),
        "pdf": maybe(TEXT),
    }
)
_OURS = obj(
    {
        "plan": TEXT,
        "used_units": UNITS,
        "overage_units": UNITS,
        "monthly_price": MONEY,
        "overage": MONEY,
        "total_cents": WHOLE,
    }
)
_THEIRS = obj(
    {
        "total_cents": WHOLE,
        "currency": TEXT,
        "lines": many(obj({"text": TEXT, "cents": WHOLE, "units": maybe(WHOLE)})),
    }
)

_ALLOWANCE = obj(
    {
        "since_ms": TIME,
        "included_units": maybe(WHOLE),
        "used_units": WHOLE,
        "told_units": WHOLE,
        "overage": MONEY,
    }
)

BILLING = (
    Operation(
        "POST",
        "/admin/customers/{customer_id}/checkout",
        "checkout",
        "Where the customer pays, and subscribes",
        _URL,
        201,
        tag="billing",
        body=asked({"plan": TEXT}, needed=("plan",)),
        errors=(409,),
        once=True,
    ),
    Operation(
        "POST",
        "/admin/customers/{customer_id}/portal",
        "portal",
        "Where the customer sees to his card and invoices, and may end",
        _URL,
        201,
        tag="billing",
        body=asked({}),
        errors=(409,),
        once=True,
    ),
    Operation(
        "GET",
        "/admin/customers/{customer_id}/subscription",
        "standing",
        "How the subscription stands, as it was decided last",
        _STANDING,
        tag="billing",
        errors=(409,),
    ),
    Operation(
        "POST",
        "/admin/customers/{customer_id}/subscription",
        "change",
        "Another plan, at once or at the period's end; or take back what is to come",
        _STANDING,
        tag="billing",
        body=asked({"plan": maybe(TEXT), "when": maybe(_WHEN), "resume": maybe(FLAG)}),
        errors=(402, 409),
    ),
    Operation(
        "DELETE",
        "/admin/customers/{customer_id}/subscription",
        "cancel",
        "End the subscription",
        _STANDING,
        tag="billing",
        query=(Query("when", "At the period's end unless said.", _WHEN),),
        errors=(409,),
    ),
    Operation(
        "GET",
        "/admin/customers/{customer_id}/invoices",
        "list_invoices",
        "Invoices, the latest first; those that were seen last where Stripe does not answer",
        page_of("invoices", INVOICE, fresh=FLAG),
        tag="billing",
        query=(
            AFTER,
            Query("limit", "How many at most; a page has 100.", {"type": "integer", "minimum": 1, "maximum": 1_000}),
        ),
        errors=(409,),
    ),
    Operation(
        "GET",
        "/admin/customers/{customer_id}/invoices/preview",
        "preview",
        "The present period by our figures, and Stripe's next invoice beside it",
        obj(
            {
                "period_start_ms": TIME,
                "period_end_ms": TIME,
                "ours": _OURS,
                "stripe": maybe(_THEIRS),
                "allowance": maybe(_ALLOWANCE),
                "why": maybe(TEXT),
                "difference_cents": maybe(WHOLE),
            }
        ),
        tag="billing",
        errors=(409,),
    ),
)

# Four names of one thing: which of them is in the books of an account, nobody here knows.
WEBHOOKS = tuple(
    Operation(
        "POST",
        path,
        "take",
        "Where Stripe's events arrive",
        obj({"received": FLAG, "new": FLAG}),
        tag=f"stripe{number}" if number else "stripe",
        who=Who.STRIPE,
        body={"type": "object"},
        errors=(404,),
    )
    for number, path in enumerate(
        ("/webhooks/stripe", "/webhook/stripe", "/v1/webhooks/stripe", "/api/webhooks/stripe")
    )
)
