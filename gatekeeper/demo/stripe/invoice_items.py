"""Invoice items: amounts that wait for the next invoice. Source: https://docs.stripe.com/api/invoiceitems.

The rule: an item waits until an invoice takes it; with a subscription it waits for that subscription's invoice only.
"""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from gatekeeper.demo.stripe import pricing
from gatekeeper.demo.stripe.account import Account, Stored
from gatekeeper.demo.stripe.lines import Recipe
from gatekeeper.demo.stripe.listing import matching, page
from gatekeeper.demo.stripe.refusing import invalid


class InvoiceItems:
    """The invoice items of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create(self, params: Mapping[str, Any]) -> Stored:
        """By amount, by unit_amount_decimal and quantity, by price_data or by price. Raises Refused (400, 404)."""
        if "customer" not in params:
            raise invalid("Missing required param: customer.", "customer", "parameter_missing")
        self._account.get("customer", params["customer"], "customer")
        subscription = params.get("subscription")
        if subscription is not None:
            self._account.get("subscription", subscription, "subscription")
        quantity = params.get("quantity", 1)
        price, cents = self._worth(params, quantity)
        now_s = self._account.now_s
        period = params.get("period", {"start": now_s, "end": now_s})
        recipe = Recipe(
            price, quantity, period["start"], period["end"], params["customer"], params.get("description", ""),
            subscription, cents=cents,
        )  # fmt: skip
        made = self.add(recipe)
        made["metadata"] = params.get("metadata") or {}
        return made

    def add(self, recipe: Recipe) -> Stored:
        """A pending item from a recipe."""
        made = self._account.put(
            "invoiceitem",
            "ii",
            {
                "amount": recipe.cents if recipe.price is None or recipe.cents is not None
                else pricing.total_cents(recipe.price, recipe.quantity),
                "currency": recipe.currency,
                "customer": recipe.customer_id,
                "date": self._account.now_s,
                "description": recipe.description,
                "invoice": None,
                "metadata": {},
                "parent": None if recipe.subscription_id is None else {
                    "type": "subscription_details",
                    "subscription_details": {
                        "subscription": recipe.subscription_id, "subscription_item": recipe.item_id
                    },
                },
                "period": {"start": recipe.start_s, "end": recipe.end_s},
                "pricing": None,
                "proration": recipe.proration,
                "quantity": recipe.quantity,
            },
        )  # fmt: skip
        made["_recipe"] = replace(recipe, invoice_item_id=made["id"])
        self._account.emit("invoiceitem.created", made, None)
        return made

    def pending(self, customer_id: str, subscription: Stored | None) -> list[Recipe]:
        """What the next invoice would take."""
        return [row["_recipe"] for row in self._waiting(customer_id, subscription)]

    def take(self, customer_id: str, subscription: Stored | None, invoice_id: str) -> list[Recipe]:
        """What waited, now on this invoice."""
        taken = self._waiting(customer_id, subscription)
        for row in taken:
            row["invoice"] = invoice_id
        return [row["_recipe"] for row in taken]

    def delete(self, identifier: str) -> Stored:
        """Only while it waits. Raises Refused."""
        if self._account.get("invoiceitem", identifier)["invoice"] is not None:
            raise invalid("Invoice items on an invoice that is not a draft cannot be deleted.", "id")
        del self._account.shelf("invoiceitem")[identifier]
        return {"id": identifier, "object": "invoiceitem", "deleted": True}

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """By customer, invoice, pending."""
        found = list(matching(self._account.shelf("invoiceitem").values(), params, ("customer", "invoice")))
        if "pending" in params:
            found = [row for row in found if (row["invoice"] is None) is params["pending"]]
        return page("/v1/invoiceitems", found, params)

    def _waiting(self, customer_id: str, subscription: Stored | None) -> list[Stored]:
        wanted = (None, subscription["id"] if subscription else None)
        return [
            row
            for row in self._account.shelf("invoiceitem").values()
            if row["invoice"] is None and row["customer"] == customer_id and row["_recipe"].subscription_id in wanted
        ]

    def _worth(self, params: Mapping[str, Any], quantity: int) -> tuple[Stored | None, int | None]:
        if "amount" in params:
            return None, int(params["amount"])
        if "pricing" in params:
            price = self._account.get("price", params["pricing"].get("price", ""), "pricing[price]")
            if price["type"] != "one_time":
                raise invalid("The price must be of type one_time.", "pricing[price]")
            return price, None
        each = params
        if "price_data" in params:
            each = params["price_data"]
            self._account.get("product", each["product"], "price_data[product]")
        if "unit_amount_decimal" not in each and "unit_amount" not in each:
            raise invalid("One of amount, pricing, price_data or unit_amount_decimal is required.", "amount")
        exact = Decimal(each.get("unit_amount_decimal", each.get("unit_amount", 0)))
        return None, pricing.round_cents(exact * quantity)
