"""Objects as older API versions show them. The rule: only what our readers look at, each with the change that moved it.

- 2025-03-31.basil moved ``current_period_*`` from the subscription to its items:
  https://docs.stripe.com/changelog/basil/2025-03-31/deprecate-subscription-current-period-start-and-end
- 2025-03-31.basil moved ``invoice.subscription`` under ``parent.subscription_details``, and a line's price under
  ``pricing``: https://docs.stripe.com/changelog/basil/2025-03-31/adds-new-parent-field-to-invoicing-objects
"""

from typing import Any

from gatekeeper.demo.stripe.account import Stored

BASIL = "2025-03-31"


def is_old(version: str) -> bool:
    """Whether a version is older than basil. Versions begin with their date, so they compare as text."""
    return version < BASIL


def shaped(value: Any, version: str) -> Any:
    """A rendered object (or a list of them) in the shape of ``version``; changes it in place."""
    if not is_old(version):
        return value
    if isinstance(value, list):
        for below in value:
            shaped(below, version)
    if isinstance(value, dict):
        for below in list(value.values()):
            shaped(below, version)
        _older(value)
    return value


def _older(value: Stored) -> None:
    match value.get("object"):
        case "subscription":
            items = value["items"]["data"]
            if items:
                value["current_period_start"] = min(item["current_period_start"] for item in items)
                value["current_period_end"] = max(item["current_period_end"] for item in items)
            for item in items:
                del item["current_period_start"], item["current_period_end"]
        case "invoice":
            details = (value.pop("parent", None) or {}).get("subscription_details") or {}
            value["subscription"] = details.get("subscription")
            value["subscription_details"] = {"metadata": details.get("metadata", {})} if details else None
            value["paid"] = value["status"] == "paid"
        case "line_item":
            parent = value.pop("parent", None) or {}
            item = parent.get("subscription_item_details") or {}
            pricing = value.pop("pricing", None) or {}
            # A whole price object stood here; our readers only take its id.
            value["price"] = {"id": (pricing.get("price_details") or {}).get("price"), "object": "price"}
            value["type"] = "subscription" if item else "invoiceitem"
            value["subscription_item"] = item.get("subscription_item")
            value["proration"] = (item or parent.get("invoice_item_details") or {}).get("proration", False)
