"""Invoice lines. The rule: each line knows what it counts, so that a draft can be counted again when it is finalized.

Sources: the SDK's InvoiceLineItem (parent, period, pricing); prorations to the second, for licensed prices only:
https://docs.stripe.com/billing/subscriptions/prorations; metered usage is billed in arrears, licensed in advance:
https://docs.stripe.com/billing/subscriptions/usage-based.
"""

from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from gatekeeper.demo.stripe import pricing
from gatekeeper.demo.stripe.account import Account, Stored
from gatekeeper.demo.stripe.usage import Usage
from gatekeeper.money import plain


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one or more lines come from. ``metered``: the quantity is what the meter says of the period.
    ``cents``: the amount is fixed (prorations, invoice items). ``free``: counted but not charged (trials)."""

    price: Stored | None
    quantity: int
    start_s: int
    end_s: int
    customer_id: str
    description: str
    subscription_id: str | None = None
    item_id: str | None = None
    invoice_item_id: str | None = None
    metered: bool = False
    cents: int | None = None
    proration: bool = False
    free: bool = False

    @property
    def currency(self) -> str:
        """In lower case."""
        return str(self.price["currency"]) if self.price else "usd"


def licensed(subscription: Stored, item: Stored, start_s: int, end_s: int, *, free: bool = False) -> Recipe:
    """A licensed item for the period that begins."""
    return Recipe(
        item["price"], item["quantity"], start_s, end_s, subscription["customer"], "Licensed",
        subscription["id"], item["id"], free=free,
    )  # fmt: skip


def metered(subscription: Stored, item: Stored, start_s: int, end_s: int) -> Recipe:
    """A metered item for the period that ends, counted from when the item (with this price) was there."""
    start_s = max(start_s, item["_usage_from"])
    return Recipe(
        item["price"], 0, start_s, end_s, subscription["customer"], "Metered",
        subscription["id"], item["id"], metered=True,
    )  # fmt: skip


def prorated(subscription: Stored, item: Stored, at_s: int, sign: int) -> Recipe:
    """The rest of the item's period: ``sign`` -1 gives it back, 1 charges it."""
    start_s, end_s = item["current_period_start"], item["current_period_end"]
    share = Decimal(end_s - at_s) / Decimal(end_s - start_s)
    whole = Decimal(pricing.total_cents(item["price"], item["quantity"]))
    text = "Unused time" if sign < 0 else "Remaining time"
    return replace(
        licensed(subscription, item, at_s, end_s),
        cents=sign * pricing.round_cents(whole * share),
        proration=True,
        description=text,
    )


def render(account: Account, usage: Usage, recipe: Recipe, invoice_id: str | None) -> list[Stored]:
    """The lines of a recipe as of now: one for each tier that is reached, else one."""
    quantity = recipe.quantity
    if recipe.metered and recipe.price is not None:
        meter_id = recipe.price["recurring"]["meter"]
        seen_s = account.now_s - account.settings.meter_lag_s
        quantity = usage.quantity(meter_id, recipe.customer_id, recipe.start_s, recipe.end_s, seen_s)
    if recipe.cents is not None or recipe.price is None:
        made = [pricing.Charge(quantity, None, recipe.cents or 0)]
    elif recipe.free:
        made = [pricing.Charge(quantity, Decimal(0), 0, "Trial period")]
    else:
        made = pricing.charges(recipe.price, quantity)
    return [_line(account, recipe, charge, invoice_id) for charge in made]


def _line(account: Account, recipe: Recipe, charge: pricing.Charge, invoice_id: str | None) -> Stored:
    price = recipe.price
    details: dict[str, Any] = {
        "invoice_item": recipe.invoice_item_id,
        "proration": recipe.proration,
        "proration_details": {"credited_items": None},
        "subscription": recipe.subscription_id,
    }
    kind = "subscription_item_details" if recipe.item_id else "invoice_item_details"
    other = "invoice_item_details" if recipe.item_id else "subscription_item_details"
    if recipe.item_id:
        details["subscription_item"] = recipe.item_id
    return {
        "id": account.new_id("il"),
        "object": "line_item",
        "amount": charge.cents,
        "currency": recipe.currency,
        "description": " ".join(filter(None, (f"{charge.quantity} ×", recipe.description, charge.note))),
        "discount_amounts": [],
        "discountable": not recipe.proration,
        "discounts": [],
        "invoice": invoice_id,
        "livemode": account.livemode,
        "metadata": {},
        "parent": {"type": kind, kind: details, other: None},
        "period": {"start": recipe.start_s, "end": recipe.end_s},
        "pretax_credit_amounts": [],
        "pricing": None
        if price is None
        else {
            "type": "price_details",
            "price_details": {"price": price["id"], "product": price["product"]},
            "unit_amount_decimal": None if charge.unit_cents is None else plain(charge.unit_cents),
        },
        "quantity": charge.quantity,
        "quantity_decimal": str(charge.quantity),
        "subtotal": charge.cents,
        "taxes": [],
    }
