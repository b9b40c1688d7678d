"""Invoices: drafted, counted again, finalized, charged. The rule: amounts are computed from recipes, never patched.

Sources: https://docs.stripe.com/invoicing/integration/workflow-transitions (draft, open, paid; an hour as a draft),
https://docs.stripe.com/billing/subscriptions/usage-based/configure-grace-period (late usage counts until finalization),
https://docs.stripe.com/api/invoices/object (parent.subscription_details since basil),
https://docs.stripe.com/billing/customer/balance (a negative total becomes credit).
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gatekeeper.demo.stripe import lines
from gatekeeper.demo.stripe.account import DAY_S, Account, Stored, merge_metadata
from gatekeeper.demo.stripe.customers import Card
from gatekeeper.demo.stripe.invoice_items import InvoiceItems
from gatekeeper.demo.stripe.lines import Recipe
from gatekeeper.demo.stripe.listing import matching, page, whole
from gatekeeper.demo.stripe.refusing import Refused, invalid
from gatekeeper.demo.stripe.usage import Usage


class Invoices:
    """The invoices of one account. ``on_paid`` and ``on_failed`` tell the subscriptions."""

    def __init__(self, account: Account, usage: Usage, items: InvoiceItems) -> None:
        self._account = account
        self._usage = usage
        self.items = items
        self.on_paid: Callable[[Stored], None] = lambda invoice: None
        # The second argument: no further attempt will be made.
        self.on_failed: Callable[[Stored, bool], None] = lambda invoice, last: None

    def draft(
        self,
        customer_id: str,
        recipes: Iterable[Recipe],
        *,
        reason: str,
        period: tuple[int, int],
        subscription: Stored | None = None,
        auto_advance: bool = True,
        with_pending: bool = True,
    ) -> Stored:
        """A draft with the recipes' lines and whatever was pending. Finalizes itself after the grace period if
        ``auto_advance``."""
        customer = self._account.get("customer", customer_id, "customer")
        invoice = self._account.put("invoice", "in", self._blank(customer, reason, period, subscription))
        pending = self.items.take(customer_id, subscription, invoice["id"]) if with_pending else []
        invoice["_recipes"] = [*recipes, *pending]
        self._count(invoice)
        invoice["auto_advance"] = auto_advance
        if subscription is not None:
            subscription["latest_invoice"] = invoice["id"]
        self._account.emit("invoice.created", invoice, None)
        if auto_advance:
            at_s = self._account.now_s + self._account.settings.finalize_after_s
            invoice["automatically_finalizes_at"] = at_s
            self._account.at(at_s, lambda: self._finalize_and_charge(invoice))
        return invoice

    def bill_now(self, *given: Any, **more: Any) -> Stored:
        """A draft that is finalized and charged at once (first invoices, ``always_invoice``)."""
        invoice = self.draft(*given, **more, auto_advance=False)
        invoice["auto_advance"] = True
        self._finalize_and_charge(invoice)
        return invoice

    def preview(
        self, customer_id: str, recipes: Iterable[Recipe], period: tuple[int, int], subscription: Stored | None
    ) -> Stored:
        """What the next invoice would be; nothing is stored."""
        customer = self._account.get("customer", customer_id, "customer")
        fields = self._blank(customer, "upcoming", period, subscription)
        invoice = {
            "id": self._account.new_id("upcoming_in"), "object": "invoice", "created": self._account.now_s,
            "livemode": self._account.livemode, **fields,
        }  # fmt: skip
        invoice["_recipes"] = [*recipes, *self.items.pending(customer_id, subscription)]
        self._count(invoice)
        return invoice

    def finalize(self, identifier: str) -> Stored:
        """By hand. Raises Refused (400, 404)."""
        invoice = self._account.get("invoice", identifier)
        if invoice["status"] != "draft":
            raise invalid("This invoice is already finalized, you can't re-finalize a non-draft invoice.", "id")
        self._finalize(invoice)
        return invoice

    def pay(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """Charge now. Raises Refused (402 if the card declines, 400 if there is nothing to pay)."""
        invoice = self._account.get("invoice", identifier)
        if invoice["status"] == "paid":
            raise invalid("Invoice is already paid", "id", "invoice_already_paid")
        if invoice["status"] == "draft":
            self._finalize(invoice)
        if invoice["status"] != "open":
            raise invalid(f"You can't pay an invoice that is {invoice['status']}.", "id")
        if params.get("paid_out_of_band"):
            self._paid(invoice)
        elif not self._charge(invoice):
            raise declined()
        return invoice

    def void(self, identifier: str) -> Stored:
        """Only an open (or uncollectible) invoice. Raises Refused."""
        invoice = self._account.get("invoice", identifier)
        if invoice["status"] not in ("open", "uncollectible"):
            raise invalid("You can only void open or uncollectible invoices.", "id")
        return self._closed(invoice, "void", "voided_at", "invoice.voided")

    def mark_uncollectible(self, identifier: str) -> Stored:
        """Only an open invoice. Raises Refused."""
        invoice = self._account.get("invoice", identifier)
        if invoice["status"] != "open":
            raise invalid("You can only mark open invoices as uncollectible.", "id")
        return self._closed(invoice, "uncollectible", "marked_uncollectible_at", "invoice.marked_uncollectible")

    def create(self, params: Mapping[str, Any]) -> Stored:
        """A draft by hand, with the pending items if ``pending_invoice_items_behavior`` says ``include``."""
        if "customer" not in params:
            raise invalid("Missing required param: customer.", "customer", "parameter_missing")
        subscription = None
        if "subscription" in params:
            subscription = self._account.get("subscription", params["subscription"], "subscription")
        now_s = self._account.now_s
        made = self.draft(
            params["customer"], [], reason="manual", period=(now_s, now_s), subscription=subscription,
            auto_advance=params.get("auto_advance", False),
            with_pending=params.get("pending_invoice_items_behavior", "exclude") == "include",
        )  # fmt: skip
        merge_metadata(made, params)
        made["description"] = params.get("description") or None
        return made

    def update(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """metadata, description, auto_advance. Raises Refused."""
        invoice = self._account.get("invoice", identifier)
        merge_metadata(invoice, params)
        for name in ("description", "auto_advance"):
            invoice[name] = params.get(name, invoice[name])
        self._account.emit("invoice.updated", invoice, None)
        return invoice

    def attach(self, identifier: str, recipe: Recipe) -> None:
        """Put an item on a draft. Raises Refused."""
        invoice = self._account.get("invoice", identifier, "invoice")
        if invoice["status"] != "draft":
            raise invalid("This invoice is no longer editable", "invoice", "invoice_not_editable")
        invoice["_recipes"].append(recipe)
        self._count(invoice)

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """By customer, status, subscription, created."""
        found = list(matching(self._account.shelf("invoice").values(), params, ("customer", "status")))
        if "subscription" in params:
            found = [invoice for invoice in found if subscription_of(invoice) == params["subscription"]]
        return page("/v1/invoices", found, params)

    def list_lines(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """The lines, oldest first as on the invoice."""
        rows = self._account.get("invoice", identifier)["lines"]["data"]
        return page(f"/v1/invoices/{identifier}/lines", rows[::-1], params)

    def _finalize_and_charge(self, invoice: Stored) -> None:
        if invoice["status"] == "draft" and invoice["auto_advance"]:
            self._finalize(invoice)
        if invoice["status"] == "open" and invoice["collection_method"] == "charge_automatically":
            self._charge(invoice)

    def _finalize(self, invoice: Stored) -> None:
        self._count(invoice)
        customer = self._account.get("customer", invoice["customer"])
        balance = customer["balance"]
        invoice["starting_balance"] = balance
        # Credit (below 0) pays as far as it goes; a negative total becomes credit.
        due = max(0, invoice["total"] + balance)
        customer["balance"] = invoice["ending_balance"] = invoice["total"] + balance - due
        invoice["amount_due"] = invoice["amount_remaining"] = due
        invoice["status"] = "open"
        invoice["status_transitions"]["finalized_at"] = invoice["effective_at"] = self._account.now_s
        invoice["automatically_finalizes_at"] = None
        invoice["number"] = f"FAKE-{len(self._account.shelf('invoice')):04d}"
        host = "https://invoice.stripe.invalid"
        invoice["hosted_invoice_url"] = f"{host}/i/{invoice['id']}"
        invoice["invoice_pdf"] = f"{host}/i/{invoice['id']}/pdf"
        self._account.emit("invoice.finalized", invoice, None)
        if due == 0:
            self._paid(invoice)

    def _charge(self, invoice: Stored) -> bool:
        """One attempt. A failed one plans the next (Smart Retries), or gives up."""
        card = self._account.get("customer", invoice["customer"])["_card"]
        invoice["attempted"] = True
        invoice["attempt_count"] += 1
        if card is Card.WORKS:
            self._paid(invoice)
            return True
        retries = self._account.settings.retry_after_days
        first = invoice["billing_reason"] == "subscription_create"
        last = first or invoice["attempt_count"] > len(retries)
        invoice["next_payment_attempt"] = None
        if not last:
            at_s = self._account.now_s + DAY_S * (
                retries[invoice["attempt_count"] - 1]
                - (retries[invoice["attempt_count"] - 2] if invoice["attempt_count"] > 1 else 0)
            )
            invoice["next_payment_attempt"] = at_s
            self._account.at(at_s, lambda: self._retry(invoice, at_s))
        self._account.emit("invoice.payment_failed", invoice, None)
        self.on_failed(invoice, last)
        return False

    def _retry(self, invoice: Stored, planned_s: int) -> None:
        if invoice["status"] == "open" and invoice["next_payment_attempt"] == planned_s:
            self._charge(invoice)

    def _paid(self, invoice: Stored) -> None:
        invoice |= {
            "status": "paid",
            "amount_paid": invoice["amount_due"],
            "amount_remaining": 0,
            "next_payment_attempt": None,
        }
        invoice["status_transitions"]["paid_at"] = self._account.now_s
        # Both are sent (https://docs.stripe.com/api/events/types#event_types-invoice.paid).
        self._account.emit("invoice.paid", invoice, None)
        self._account.emit("invoice.payment_succeeded", invoice, None)
        self.on_paid(invoice)

    def _closed(self, invoice: Stored, status: str, moment: str, event: str) -> Stored:
        invoice["status"] = status
        invoice["next_payment_attempt"] = None
        invoice["status_transitions"][moment] = self._account.now_s
        self._account.emit(event, invoice, None)
        return invoice

    def _count(self, invoice: Stored) -> None:
        rows = [
            row
            for recipe in invoice["_recipes"]
            for row in lines.render(self._account, self._usage, recipe, invoice["id"])
        ]
        total = sum(row["amount"] for row in rows)
        invoice["lines"] = whole(f"/v1/invoices/{invoice['id']}/lines", rows)
        invoice |= {"subtotal": total, "subtotal_excluding_tax": total, "total": total, "total_excluding_tax": total}
        invoice["amount_due"] = invoice["amount_remaining"] = max(0, total)

    def _blank(self, customer: Stored, reason: str, period: tuple[int, int], subscription: Stored | None) -> Stored:
        parent = None
        if subscription is not None:
            details = {"subscription": subscription["id"], "metadata": dict(subscription["metadata"])}
            parent = {"type": "subscription_details", "subscription_details": details, "quote_details": None}
        return {
            "account_name": "Fake", "amount_due": 0, "amount_overpaid": 0, "amount_paid": 0, "amount_remaining": 0,
            "attempt_count": 0, "attempted": False, "auto_advance": True, "automatically_finalizes_at": None,
            "billing_reason": reason,
            "collection_method": subscription["collection_method"] if subscription else "charge_automatically",
            "currency": "usd", "customer": customer["id"], "customer_email": customer["email"],
            "customer_name": customer["name"], "default_payment_method": None, "description": None, "discounts": [],
            "due_date": None, "effective_at": None, "ending_balance": None, "hosted_invoice_url": None,
            "invoice_pdf": None, "metadata": {}, "next_payment_attempt": None, "number": None, "parent": parent,
            "period_start": period[0], "period_end": period[1], "starting_balance": 0, "status": "draft",
            "status_transitions": {
                "finalized_at": None, "paid_at": None, "voided_at": None, "marked_uncollectible_at": None
            },
            "total_taxes": [],
        }  # fmt: skip


def subscription_of(invoice: Stored) -> str | None:
    """The subscription that an invoice (newest shape) is for."""
    parent = invoice["parent"]
    return parent["subscription_details"]["subscription"] if parent else None


def declined() -> Refused:
    """402: https://docs.stripe.com/error-codes#card-declined."""
    return Refused(402, "Your card was declined.", code="card_declined", kind="card_error")
