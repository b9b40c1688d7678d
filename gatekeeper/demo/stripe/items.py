"""Subscription items: what a subscription sells. The rule: bookkeeping; who pays for a change is decided elsewhere.

Source: https://docs.stripe.com/api/subscription_items/object (``current_period_*`` live here since basil).
"""

from collections.abc import Iterable, Mapping
from typing import Any

from gatekeeper.demo.stripe.account import Account, Stored
from gatekeeper.demo.stripe.refusing import invalid

ITEMS_MAX = 20


def is_metered(item: Stored) -> bool:
    """Whether the meter says how much."""
    return bool(item["price"]["recurring"]["usage_type"] == "metered")


def new_item(account: Account, subscription_id: str, given: Mapping[str, Any], path: str) -> Stored:
    """An item without a period yet. Raises Refused (400, 404)."""
    if "price" not in given:
        raise invalid(f"Missing required param: {path}[price].", f"{path}[price]", "parameter_missing")
    price = usable_price(account, given["price"], f"{path}[price]")
    item = account.put(
        "subscription_item",
        "si",
        {
            "billing_thresholds": None,
            "current_period_start": 0,
            "current_period_end": 0,
            "discounts": [],
            "metadata": given.get("metadata") or {},
            "price": price,
            "quantity": quantity_for(price, given, path),
            "subscription": subscription_id,
            "tax_rates": [],
            "_usage_from": account.now_s,
        },
    )
    del item["livemode"]
    return item


def usable_price(account: Account, identifier: str, param: str) -> Stored:
    """An active recurring price. Raises Refused (400, 404)."""
    price = account.get("price", identifier, param)
    if not price["active"]:
        raise invalid("The price specified is inactive. This field only accepts active prices.", param)
    if price["recurring"] is None:
        raise invalid("The price specified is set to `type=one_time` but this field only accepts prices with "
                      "`type=recurring`.", param)  # fmt: skip
    return price


def quantity_for(price: Stored, given: Mapping[str, Any], path: str) -> int | None:
    """1 unless given; a metered price takes none. Raises Refused (400)."""
    if price["recurring"]["usage_type"] == "metered":
        if "quantity" in given:
            raise invalid("Quantity cannot be set on metered prices.", f"{path}[quantity]")
        return None
    return int(given.get("quantity", 1))


def check_items(rows: Iterable[Stored]) -> tuple[str, int]:
    """The one interval of all items (interval, count). Raises Refused (400)."""
    rows = list(rows)
    prices = [row["price"]["id"] for row in rows]
    if not rows:
        raise invalid("A subscription must have at least one item.", "items")
    if len(rows) > ITEMS_MAX:
        raise invalid(f"A subscription may have up to {ITEMS_MAX} items.", "items")
    if len(set(prices)) < len(prices):
        raise invalid("Subscription items must have distinct prices.", "items")
    intervals = {(row["price"]["recurring"]["interval"], row["price"]["recurring"]["interval_count"]) for row in rows}
    if len(intervals) > 1:
        # Stripe allows more in flexible mode; we sell by one interval, and a mixture would be our mistake.
        raise invalid("All items must have the same billing interval.", "items")
    return intervals.pop()


def set_period(rows: Iterable[Stored], start_s: int, end_s: int) -> None:
    """The period of all items."""
    for row in rows:
        row["current_period_start"], row["current_period_end"] = start_s, end_s
