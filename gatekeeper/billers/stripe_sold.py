"""Subscriptions and invoices of Stripe in our words: dicts in, values out.

The rule: both shapes are read, that of before 2025-03-31.basil (the period on the subscription, the subscription on the
invoice) and that since (on the items, under the parent).
"""

from collections.abc import Iterable
from typing import Any

from gatekeeper.billers.stripe_objects import Raw
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.ports.subscriptions import Invoice, Preview
from gatekeeper.rules.hints import subscription_of
from gatekeeper.rules.subscriptions import Item, Subscribed


def subscribed_of(raw: Raw) -> Subscribed:
    """A subscription."""
    rows: list[Raw] = (raw.get("items") or {}).get("data") or []
    items = tuple(Item(row["id"], row["price"]["id"], _is_metered(row["price"])) for row in rows)
    # Of the fee, where there is one: it is what a period is paid for.
    dated = sorted(rows, key=lambda row: _is_metered(row["price"]))
    start_s = _first(*(row.get("current_period_start") for row in dated), raw.get("current_period_start"))
    end_s = _first(*(row.get("current_period_end") for row in dated), raw.get("current_period_end"))
    if start_s is None or end_s is None:
        raise Fault("stripe", FaultKind.PROTOCOL, f"subscription {raw['id']} has no period")
    ends_s = raw.get("cancel_at") or (end_s if raw.get("cancel_at_period_end") else None)
    return Subscribed(
        id=raw["id"],
        account=_id(raw["customer"]) or "",
        status=raw["status"],
        created_ms=raw["created"] * 1000,
        items=items,
        period_start_ms=start_s * 1000,
        period_end_ms=end_s * 1000,
        anchor_ms=raw["billing_cycle_anchor"] * 1000,
        trial_end_ms=_ms(raw.get("trial_end")),
        cancel_ms=_ms(ends_s),
        schedule_id=_id(raw.get("schedule")),
        flexible=(raw.get("billing_mode") or {}).get("type") == "flexible",
    )


def invoice_of(raw: Raw) -> Invoice:
    """An invoice."""
    return Invoice(
        id=raw["id"],
        account=_id(raw["customer"]) or "",
        number=raw.get("number"),
        status=raw.get("status") or "draft",
        reason=raw.get("billing_reason") or "",
        currency=raw["currency"],
        total_cents=raw["total"],
        due_cents=raw["amount_due"],
        paid_cents=raw["amount_paid"],
        attempts=raw.get("attempt_count") or 0,
        created_ms=raw["created"] * 1000,
        period_start_ms=raw["period_start"] * 1000,
        period_end_ms=raw["period_end"] * 1000,
        subscription_id=subscription_of(raw),
        page=raw.get("hosted_invoice_url"),
        pdf=raw.get("invoice_pdf"),
    )


def preview_of(raw: Raw) -> Preview:
    """The next invoice. Its first lines are enough for people: the total counts all of them."""
    rows: Iterable[Raw] = (raw.get("lines") or {}).get("data") or []
    lines = tuple((row.get("description") or "", row["amount"], row.get("quantity")) for row in rows)
    return Preview(raw["total"], raw["currency"], lines)


def _is_metered(price: Raw) -> bool:
    return bool((price.get("recurring") or {}).get("usage_type") == "metered")


def _first(*values: int | None) -> int | None:
    return next((value for value in values if value is not None), None)


def _ms(seconds: int | None) -> int | None:
    return None if seconds is None else seconds * 1000


def _id(value: Any) -> str | None:
    """The id of what may be there as an id or as the whole object."""
    return value["id"] if isinstance(value, dict) else value if isinstance(value, str) else None
