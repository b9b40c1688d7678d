"""Checkout sessions and the customer portal. The rule: a session changes nothing until it is completed by hand.

Sources: https://docs.stripe.com/api/checkout/sessions, https://docs.stripe.com/payments/checkout/fulfillment,
https://docs.stripe.com/api/customer_portal/sessions.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gatekeeper.demo.stripe import pricing
from gatekeeper.demo.stripe.account import DAY_S, Account, Stored, merge_metadata
from gatekeeper.demo.stripe.customers import Card, Customers
from gatekeeper.demo.stripe.invoices import declined
from gatekeeper.demo.stripe.listing import matching, page, whole
from gatekeeper.demo.stripe.refusing import invalid
from gatekeeper.demo.stripe.subscriptions import Subscriptions

# https://docs.stripe.com/api/checkout/sessions/create#create_checkout_session-expires_at: 24 hours unless set.
EXPIRES_S = DAY_S


class Checkout:
    """The Checkout sessions of one account."""

    def __init__(self, account: Account, customers: Customers, subscriptions: Subscriptions) -> None:
        self._account = account
        self._customers = customers
        self._subscriptions = subscriptions

    def create(self, params: Mapping[str, Any]) -> Stored:
        """An open session with a URL. Raises Refused (400, 404)."""
        mode = params.get("mode", "payment")
        if "customer" in params:
            self._account.get("customer", params["customer"], "customer")
            if "customer_email" in params:
                raise invalid("You may only specify one of these parameters: customer, customer_email.", "customer")
        if mode != "setup" and not params.get("line_items"):
            raise invalid("Missing required param: line_items.", "line_items", "parameter_missing")
        rows = [self._line(given, mode, f"line_items[{i}]") for i, given in enumerate(params.get("line_items", []))]
        total = sum(row["amount_total"] for row in rows)
        now_s = self._account.now_s
        made = self._account.put(
            "checkout.session",
            "cs_live" if self._account.livemode else "cs_test",
            {
                "amount_subtotal": total,
                "amount_total": total,
                "cancel_url": params.get("cancel_url"),
                "client_reference_id": params.get("client_reference_id"),
                "currency": "usd",
                "customer": params.get("customer"),
                "customer_details": None,
                "customer_email": params.get("customer_email"),
                "expires_at": params.get("expires_at", now_s + EXPIRES_S),
                "invoice": None,
                "line_items": whole("/v1/checkout/sessions/line_items", rows),
                "metadata": params.get("metadata") or {},
                "mode": mode,
                "payment_intent": None,
                "payment_status": "unpaid" if mode != "setup" else "no_payment_required",
                "status": "open",
                "subscription": None,
                "success_url": params.get("success_url"),
                "_subscription_data": dict(params.get("subscription_data", {})),
            },
        )
        made["url"] = f"https://checkout.stripe.invalid/c/pay/{made['id']}"
        self._account.at(made["expires_at"], lambda: self._expire(made))
        return made

    def complete(self, identifier: str, card: Card = Card.WORKS, email: str | None = None) -> Stored:
        """What a customer does on the page. Raises Refused (400 for a session that is not open, 402 for a card that
        declines: the session stays open)."""
        found = self._account.get("checkout.session", identifier)
        if found["status"] != "open":
            raise invalid(f"The session is {found['status']}.", "id")
        if card is Card.DECLINES:
            raise declined()
        if found["customer"] is None and found["mode"] != "payment":
            found["customer"] = self._customers.create({"email": email or found["customer_email"]})["id"]
        if found["customer"] is not None:
            self._customers.set_card(found["customer"], card)
        if found["mode"] == "subscription":
            self._subscribe(found)
        elif found["mode"] == "payment":
            found["payment_status"], found["payment_intent"] = "paid", self._account.new_id("pi")
        found["status"], found["url"] = "complete", None
        found["customer_details"] = {"email": email or found["customer_email"], "name": None}
        self._account.emit("checkout.session.completed", found, None)
        return found

    def expire(self, identifier: str) -> Stored:
        """Only an open session. Raises Refused."""
        found = self._account.get("checkout.session", identifier)
        if found["status"] != "open":
            raise invalid("Only Checkout Sessions with a status of `open` can be expired.", "id")
        self._expire(found)
        return found

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """By customer, subscription, status."""
        rows = self._account.shelf("checkout.session").values()
        return page("/v1/checkout/sessions", matching(rows, params, ("customer", "subscription", "status")), params)

    def list_lines(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """What is bought."""
        rows = self._account.get("checkout.session", identifier)["line_items"]["data"]
        return page(f"/v1/checkout/sessions/{identifier}/line_items", rows[::-1], params)

    def _subscribe(self, found: Stored) -> None:
        rows = found["line_items"]["data"]
        items = [
            {"price": row["price"]["id"]} | ({} if row["quantity"] is None else {"quantity": row["quantity"]})
            for row in rows
        ]
        more = found["_subscription_data"]
        params = {**more, "customer": found["customer"], "items": items}
        made = self._subscriptions.create(params, self._account.api_version, at_checkout=True)
        found["subscription"], found["invoice"] = made["id"], made["latest_invoice"]
        paid = self._account.get("invoice", made["latest_invoice"])["amount_due"] > 0
        found["payment_status"] = "paid" if paid else "no_payment_required"

    def _expire(self, found: Stored) -> None:
        if found["status"] == "open":
            found["status"], found["url"] = "expired", None
            self._account.emit("checkout.session.expired", found, None)

    def _line(self, given: Mapping[str, Any], mode: str, path: str) -> Stored:
        quantity = given.get("quantity")
        if "price_data" in given:
            if mode != "payment":
                raise invalid(
                    "The fake takes price_data in payment mode only.", f"{path}[price_data]", "fake_unsupported"
                )
            each = given["price_data"]
            exact = Decimal(each.get("unit_amount", each.get("unit_amount_decimal", 0)))
            return self._row(None, quantity or 1, pricing.round_cents(exact * (quantity or 1)))
        price = self._account.get("price", given.get("price", ""), f"{path}[price]")
        if not price["active"]:
            raise invalid("The price specified is inactive. This field only accepts active prices.", f"{path}[price]")
        recurring = price["recurring"]
        if (mode == "payment") is not (recurring is None):
            raise invalid(f"You specified `{mode}` mode but passed a {price['type']} price.", f"{path}[price]")
        if recurring and recurring["usage_type"] == "metered":
            if quantity is not None:
                raise invalid("Quantity should not be specified where usage_type is `metered`.", f"{path}[quantity]")
            return self._row(price, None, 0)
        if quantity is None:
            raise invalid("Quantity is required.", f"{path}[quantity]", "parameter_missing")
        return self._row(price, quantity, pricing.total_cents(price, quantity))

    def _row(self, price: Stored | None, quantity: int | None, cents: int) -> Stored:
        return {
            "id": self._account.new_id("li"),
            "object": "item",
            "amount_total": cents,
            "currency": "usd",
            "price": price,
            "quantity": quantity,
        }


class Portal:
    """Customer portal: configurations and sessions."""

    def __init__(self, account: Account) -> None:
        self._account = account

    def configure(self, params: Mapping[str, Any]) -> Stored:
        """A configuration; the first is the default one."""
        known = self._account.shelf("billing_portal.configuration")
        made = self._account.put(
            "billing_portal.configuration",
            "bpc",
            {
                "active": True,
                "business_profile": params.get("business_profile", {}),
                "default_return_url": params.get("default_return_url") or None,
                "features": params["features"],
                "is_default": not known,
                "login_page": params.get("login_page", {"enabled": False}),
                "metadata": params.get("metadata") or {},
                "name": params.get("name") or None,
                "updated": self._account.now_s,
            },
        )
        self._account.emit("billing_portal.configuration.created", made, None)
        return made

    def reconfigure(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """Change what is given; features are replaced one by one. Raises Refused (404)."""
        found = self._account.get("billing_portal.configuration", identifier)
        for name in ("active", "default_return_url", "name"):
            found[name] = params.get(name, found[name])
        for name in ("business_profile", "features", "login_page"):
            found[name] = {**found[name], **params.get(name, {})}
        merge_metadata(found, params)
        found["updated"] = self._account.now_s
        self._account.emit("billing_portal.configuration.updated", found, None)
        return found

    def configurations(self, params: Mapping[str, Any]) -> Stored:
        """By active, is_default."""
        rows = self._account.shelf("billing_portal.configuration").values()
        return page("/v1/billing_portal/configurations", matching(rows, params, ("active", "is_default")), params)

    def open(self, params: Mapping[str, Any]) -> Stored:
        """A session with a URL. Raises Refused (400) while nothing is configured."""
        if "customer" not in params:
            raise invalid("Missing required param: customer.", "customer", "parameter_missing")
        self._account.get("customer", params["customer"], "customer")
        known = self._account.shelf("billing_portal.configuration")
        chosen = params.get("configuration") or next((row["id"] for row in known.values() if row["is_default"]), None)
        if chosen is None:
            raise invalid("You can't create a portal session in test mode until you save your customer portal settings "
                          "in test mode.")  # fmt: skip
        self._account.get("billing_portal.configuration", chosen, "configuration")
        made = self._account.put(
            "billing_portal.session",
            "bps",
            {
                "configuration": chosen,
                "customer": params["customer"],
                "flow": params.get("flow_data"),
                "locale": params.get("locale"),
                "return_url": params.get("return_url") or known[chosen]["default_return_url"],
            },
        )
        made["url"] = f"https://billing.stripe.invalid/p/session/{made['id']}"
        return made
