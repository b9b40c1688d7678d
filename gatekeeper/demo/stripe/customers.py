"""Customers and the state of their cards. Source: https://docs.stripe.com/api/customers.

The rule: a card is only a state here (works, declines, none); what Stripe does with it is what is imitated.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from gatekeeper.demo.stripe.account import Account, Stored, set_fields
from gatekeeper.demo.stripe.listing import matching, page

_SETTABLE = ("name", "email", "description", "phone", "address", "shipping", "preferred_locales", "tax_exempt")


class Card(StrEnum):
    """What happens when the customer is charged."""

    WORKS = "works"
    # https://docs.stripe.com/testing#declined-payments (generic decline).
    DECLINES = "declines"
    NONE = "none"


class Customers:
    """The customers of one account."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def create(self, params: Mapping[str, Any]) -> Stored:
        """A customer, with a card that works unless the settings say otherwise."""
        has_card = self._account.settings.new_customers_have_a_card or "payment_method" in params
        made = self._account.put(
            "customer",
            "cus",
            {
                **{name: params.get(name) or None for name in _SETTABLE},
                "balance": params.get("balance", 0),
                "currency": None,
                "delinquent": False,
                "default_source": None,
                "invoice_settings": {"default_payment_method": None, "custom_fields": None, "footer": None},
                "metadata": params.get("metadata") or {},
                "_card": Card.WORKS if has_card else Card.NONE,
            },
        )
        if has_card:
            made["invoice_settings"]["default_payment_method"] = self._account.new_id("pm")
        self._account.emit("customer.created", made, None)
        return made

    def retrieve(self, identifier: str) -> Stored:
        """A customer; one that was deleted says only that. Raises Refused (404)."""
        found = self._account.get("customer", identifier)
        if found.get("_deleted"):
            return {"id": identifier, "object": "customer", "deleted": True}
        return found

    def update(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """Change what is given. Raises Refused (404)."""
        found = self._account.get("customer", identifier)
        before = set_fields(found, params, (*_SETTABLE, "balance"))
        if "invoice_settings" in params:
            found["invoice_settings"] |= params["invoice_settings"]
        self._account.emit("customer.updated", found, before)
        return found

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """Customers, by email if asked."""
        present = [row for row in self._account.shelf("customer").values() if not row.get("_deleted")]
        return page("/v1/customers", matching(present, params, ("email",)), params)

    def delete(self, identifier: str) -> Stored:
        """Gone for good; the id stays known."""
        found = self._account.get("customer", identifier)
        found["_deleted"] = True
        self._account.emit("customer.deleted", found, None)
        return {"id": identifier, "object": "customer", "deleted": True}

    def known(self, identifier: str) -> bool:
        """Whether a customer can be billed."""
        found = self._account.shelf("customer").get(identifier)
        return found is not None and not found.get("_deleted")

    def set_card(self, identifier: str, card: Card) -> None:
        """What the next charges meet. Raises Refused (404)."""
        found = self._account.get("customer", identifier)
        found["_card"] = card
        found["invoice_settings"]["default_payment_method"] = None if card is Card.NONE else self._account.new_id("pm")
