"""Subscriptions: made, changed, cancelled, listed. The rule: each change of state is one event; ``turning`` moves time.

Sources: https://docs.stripe.com/billing/subscriptions/overview (statuses), .../prorations, .../billing-mode (flexible),
https://docs.stripe.com/billing/subscriptions/usage-based/manage-billing-setup (a removed metered price is billed at
once in flexible mode, never in classic mode), .../pending-updates. A parameter that the fake cannot imitate is
refused: ignoring it would let a test pass that means nothing.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

from gatekeeper.demo.stripe import lines
from gatekeeper.demo.stripe.account import DAY_S, HOUR_S, Account, Stored, set_fields
from gatekeeper.demo.stripe.customers import Card
from gatekeeper.demo.stripe.cycles import next_boundary_s
from gatekeeper.demo.stripe.invoices import Invoices, declined, subscription_of
from gatekeeper.demo.stripe.items import check_items, is_metered, new_item, quantity_for, set_period, usable_price
from gatekeeper.demo.stripe.lines import Recipe
from gatekeeper.demo.stripe.listing import matching, page, whole
from gatekeeper.demo.stripe.refusing import invalid

ENDED = ("canceled", "incomplete_expired")
# "Customers have 23 hours" (https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses).
INCOMPLETE_S = 23 * HOUR_S
# Flexible is the default since this version: https://docs.stripe.com/changelog/clover/2025-09-30.
FLEXIBLE_SINCE = "2025-09-30"
_TRIAL_SETTINGS: Stored = {"end_behavior": {"missing_payment_method": "create_invoice"}}
_PLAIN = frozenset({"metadata", "description", "expand", "default_payment_method", "payment_settings", "off_session"})
_CREATES = _PLAIN | {
    "customer", "items", "billing_mode", "billing_cycle_anchor", "cancel_at_period_end", "collection_method",
    "days_until_due", "payment_behavior", "proration_behavior", "trial_end", "trial_period_days", "trial_settings",
    "currency",
}  # fmt: skip
_UPDATES = _PLAIN | {
    "items", "cancel_at_period_end", "cancellation_details", "payment_behavior", "proration_behavior",
    "proration_date", "trial_end", "collection_method", "days_until_due",
}  # fmt: skip


class Subscriptions:
    """The subscriptions of one account."""

    def __init__(self, account: Account, invoices: Invoices) -> None:
        self._account = account
        self._invoices = invoices
        invoices.on_paid = self._invoice_paid
        invoices.on_failed = self._invoice_failed

    def create(self, params: Mapping[str, Any], version: str, *, at_checkout: bool = False) -> Stored:
        """A subscription and its first invoice. Raises Refused (400, 402, 404)."""
        _only(params, _CREATES)
        if "customer" not in params:
            raise invalid("Missing required param: customer.", "customer", "parameter_missing")
        customer = self._account.get("customer", params["customer"], "customer")
        behavior = params.get("payment_behavior", "allow_incomplete")
        trial_end_s = self._trial_end(params)
        if customer["_card"] is Card.NONE and behavior != "default_incomplete" and not trial_end_s:
            raise invalid(
                "This customer has no attached payment source or default payment method.", None, "resource_missing"
            )
        if customer["_card"] is Card.DECLINES and behavior == "error_if_incomplete":
            raise declined()
        made = self._blank(params, version, trial_end_s)
        rows = [
            new_item(self._account, made["id"], given, f"items[{index}]")
            for index, given in enumerate(params.get("items", []))
        ]
        interval = check_items(rows)
        made["items"] = whole(f"/v1/subscription_items?subscription={made['id']}", rows)
        self._account.shelf("subscription")[made["id"]] = made
        start_s = made["start_date"]
        set_period(rows, start_s, next_boundary_s(made["billing_cycle_anchor"], *interval, start_s))
        for row in rows:
            row["_usage_from"] = trial_end_s or start_s
        wait = at_checkout or behavior == "default_incomplete"
        if trial_end_s:
            made["status"] = "trialing"
        if wait or trial_end_s:
            self._announce(made)
        self._first_invoice(made, pay=behavior != "default_incomplete")
        if not made["_announced"]:
            self._announce(made)
        self.plan_turn(made)
        return made

    def update(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """Items (an upgrade, at once), flags, metadata, trial end. Raises Refused (400, 402, 404)."""
        _only(params, _UPDATES)
        found = self._account.get("subscription", identifier)
        if found["status"] in ENDED:
            raise invalid("A canceled subscription can only update its cancellation_details and metadata.", "id")
        before = set_fields(found, params, ("description", "default_payment_method", "collection_method"))
        if "cancel_at_period_end" in params:
            before |= self._cancel_later(found, params["cancel_at_period_end"])
        if "items" in params:
            before |= self.change_items(found, params)
        if "trial_end" in params and found["status"] == "trialing":
            before["trial_end"] = found["trial_end"]
            found["trial_end"] = self._account.now_s if params["trial_end"] == "now" else params["trial_end"]
            found["billing_cycle_anchor"] = found["trial_end"]
            set_period(found["items"]["data"], found["trial_start"], found["trial_end"])
            for row in found["items"]["data"]:
                row["_usage_from"] = found["trial_end"]
            self.plan_turn(found)
        self._account.emit("customer.subscription.updated", found, before)
        # A trial that ends now turns now.
        self._account.run_due(self._account.now_ms)
        return found

    def change_items(self, found: Stored, params: Mapping[str, Any]) -> Stored:
        """Apply ``items`` now. Returns what stood before. Raises Refused; then nothing has changed."""
        old = found["items"]["data"]
        rows = self._changed(found, params["items"])
        check_items(rows)
        behavior = params.get("proration_behavior", "create_prorations")
        at_s = params.get("proration_date", self._account.now_s)
        recipes = [] if behavior == "none" else self._difference(found, old, rows, at_s)
        card = self._account.get("customer", found["customer"])["_card"]
        cents = sum(recipe.cents or 0 for recipe in recipes)
        if behavior == "always_invoice" and cents > 0 and card is not Card.WORKS:
            if params.get("payment_behavior") == "error_if_incomplete":
                raise declined()
            if params.get("payment_behavior") == "pending_if_incomplete":
                return self._hold_back(found, params, rows, recipes)
        before = {"items": copy.deepcopy({"data": [_shown(row) for row in old]})}
        found["items"]["data"] = rows
        if behavior == "always_invoice":
            self._bill_change(found, recipes)
        else:
            for recipe in recipes:
                self._invoices.items.add(recipe)
        return before

    def cancel(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """Now. Usage not yet invoiced is dropped unless ``invoice_now`` (SDK: SubscriptionCancelParams). Raises
        Refused."""
        found = self._account.get("subscription", identifier)
        if found["status"] in ENDED:
            raise invalid(f"No such subscription: '{identifier}'", "id", "resource_missing")
        now_s = self._account.now_s
        if params.get("prorate"):
            for row in filter(lambda row: not is_metered(row), found["items"]["data"]):
                self._invoices.items.add(lines.prorated(found, row, now_s, -1))
        if params.get("invoice_now"):
            used = self.metered(found, now_s)
            self._invoices.bill_now(
                found["customer"], used, reason="subscription_update", subscription=found,
                period=(found["items"]["data"][0]["current_period_start"], now_s),
            )  # fmt: skip
        self.end(found)
        return found

    def end(self, found: Stored, status: str = "canceled") -> None:
        """Over, as of now."""
        found |= {"status": status, "ended_at": self._account.now_s, "canceled_at": self._account.now_s}
        event = "customer.subscription.deleted" if status == "canceled" else "customer.subscription.updated"
        self._account.emit(event, found, None)

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """By customer, price, status ("all" has the cancelled ones too, "ended" only those)."""
        wanted = params.get("status")
        found = []
        for row in matching(self._account.shelf("subscription").values(), params, ("customer",)):
            ended = row["status"] in ENDED
            fits = wanted in ("all", row["status"]) or (ended if wanted == "ended" else wanted is None and not ended)
            prices = [item["price"]["id"] for item in row["items"]["data"]]
            if fits and params.get("price", prices[0]) in prices:
                found.append(row)
        return page("/v1/subscriptions", found, params)

    def metered(self, found: Stored, end_s: int) -> list[Recipe]:
        """The usage of the period up to ``end_s``."""
        rows = [row for row in found["items"]["data"] if is_metered(row)]
        return [
            lines.metered(found, row, row["current_period_start"], end_s) for row in rows if row["_usage_from"] < end_s
        ]

    def upcoming(self, params: Mapping[str, Any]) -> Stored:
        """``create_preview``: the next invoice, with item changes if given. Raises Refused (400, 404)."""
        if "subscription" not in params:
            raise invalid("The fake previews the next invoice of a subscription.", "subscription", "parameter_missing")
        found = self._account.get("subscription", params["subscription"], "subscription")
        if found["status"] in ENDED:
            raise invalid("No upcoming invoices for customer", "subscription", "invoice_upcoming_none")
        changes = params.get("subscription_details", {})
        _only(changes, frozenset({"items", "proration_behavior", "proration_date"}))
        rows = found["items"]["data"]
        start_s, end_s = rows[0]["current_period_start"], rows[0]["current_period_end"]
        recipes = self.metered(found, end_s)
        if "items" in changes:
            rows = self._changed(found, changes["items"], keep=False)
            if changes.get("proration_behavior") != "none":
                at_s = changes.get("proration_date", self._account.now_s)
                recipes = [*self._difference(found, found["items"]["data"], rows, at_s),
                           *(one for one in recipes if any(row["id"] == one.item_id for row in rows))]  # fmt: skip
        if not found["cancel_at_period_end"]:
            interval = check_items(rows)
            next_s = next_boundary_s(found["billing_cycle_anchor"], *interval, end_s)
            recipes += [lines.licensed(found, row, end_s, next_s) for row in rows if not is_metered(row)]
        return self._invoices.preview(found["customer"], recipes, (start_s, end_s), found)

    def plan_turn(self, found: Stored) -> None:
        """Set by ``turning``; what happens at the end of the period."""

    def _first_invoice(self, made: Stored, *, pay: bool) -> None:
        rows = [row for row in made["items"]["data"] if not is_metered(row)]
        start_s = made["start_date"]
        trial = made["status"] == "trialing"
        recipes = [lines.licensed(made, row, start_s, row["current_period_end"], free=trial) for row in rows]
        more: dict[str, Any] = {"reason": "subscription_create", "period": (start_s, start_s), "subscription": made}
        if pay or trial:
            self._invoices.bill_now(made["customer"], recipes, **more)
        else:
            draft = self._invoices.draft(made["customer"], recipes, auto_advance=False, **more)
            self._invoices.finalize(draft["id"])
        if made["status"] == "incomplete":
            self._account.at(start_s + INCOMPLETE_S, lambda: self._expire(made))

    def _expire(self, made: Stored) -> None:
        if made["status"] == "incomplete":
            self._invoices.void(made["latest_invoice"])
            self.end(made, "incomplete_expired")

    def _cancel_later(self, found: Stored, wanted: bool) -> Stored:
        before = {name: found[name] for name in ("cancel_at_period_end", "cancel_at", "canceled_at")}
        found["cancel_at_period_end"] = wanted
        found["cancel_at"] = found["items"]["data"][0]["current_period_end"] if wanted else None
        found["canceled_at"] = self._account.now_s if wanted else None
        return before

    def _changed(self, found: Stored, changes: Iterable[Mapping[str, Any]], *, keep: bool = True) -> list[Stored]:
        """The items as they would be: copies where they change. ``keep``: new ones are stored."""
        rows = {row["id"]: row for row in found["items"]["data"]}
        some = next(iter(rows.values()))
        for index, change in enumerate(changes):
            path = f"items[{index}]"
            identifier = change.get("id")
            if identifier is None:
                row = new_item(self._account, found["id"], change, path)
                set_period([row], some["current_period_start"], some["current_period_end"])
                if not keep:
                    del self._account.shelf("subscription_item")[row["id"]]
                rows[row["id"]] = row
                continue
            if identifier not in rows:
                raise invalid(f"No such subscription item: '{identifier}'", f"{path}[id]", "resource_missing")
            if change.get("deleted"):
                del rows[identifier]
                continue
            row = rows[identifier] = dict(rows[identifier])
            if "price" in change and change["price"] != row["price"]["id"]:
                was_metered = is_metered(row)
                row["price"] = usable_price(self._account, change["price"], f"{path}[price]")
                row["quantity"] = quantity_for(row["price"], change, path)
                if was_metered or is_metered(row):
                    row["_usage_from"] = self._account.now_s
            elif "quantity" in change:
                row["quantity"] = quantity_for(row["price"], change, path)
        return list(rows.values())

    def _difference(self, found: Stored, old: list[Stored], new: list[Stored], at_s: int) -> list[Recipe]:
        """What a change of items costs: credits and debits for licensed ones; in flexible mode the usage of metered
        ones that go. Nothing during a trial."""
        if found["status"] == "trialing":
            return []
        kept = {(row["id"], row["price"]["id"], row["quantity"]) for row in old}
        stay = {(row["id"], row["price"]["id"], row["quantity"]) for row in new}
        gone = [row for row in old if (row["id"], row["price"]["id"], row["quantity"]) not in stay]
        come = [row for row in new if (row["id"], row["price"]["id"], row["quantity"]) not in kept]
        recipes = [lines.prorated(found, row, at_s, -1) for row in gone if not is_metered(row)]
        recipes += [lines.prorated(found, row, at_s, 1) for row in come if not is_metered(row)]
        if found["billing_mode"]["type"] == "flexible":
            used = [row for row in gone if is_metered(row)]
            recipes += [lines.metered(found, row, row["current_period_start"], at_s) for row in used]
        return recipes

    def _bill_change(self, found: Stored, recipes: list[Recipe]) -> None:
        now_s = self._account.now_s
        self._invoices.bill_now(
            found["customer"], recipes, reason="subscription_update", period=(now_s, now_s), subscription=found
        )

    def _hold_back(self, found: Stored, params: Mapping[str, Any], rows: list[Stored], recipes: list[Recipe]) -> Stored:
        """https://docs.stripe.com/billing/subscriptions/pending-updates: applied when the invoice is paid, dropped
        after 23 hours."""
        expires_s = self._account.now_s + INCOMPLETE_S
        found["pending_update"] = {"expires_at": expires_s, "subscription_items": [_shown(row) for row in rows]}
        self._bill_change(found, recipes)
        held = found["latest_invoice"]
        found["_held_back"] = (held, rows)
        self._account.at(expires_s, lambda: self._drop_held_back(found, held))
        return {"pending_update": None}

    def _drop_held_back(self, found: Stored, invoice_id: str) -> None:
        if found.get("_held_back", ("", []))[0] == invoice_id:
            del found["_held_back"]
            found["pending_update"] = None
            self._invoices.void(invoice_id)
            self._account.emit("customer.subscription.pending_update_expired", found, None)

    def _invoice_paid(self, invoice: Stored) -> None:
        found = self._account.shelf("subscription").get(subscription_of(invoice) or "")
        if found is None:
            return
        held_id, rows = found.get("_held_back", ("", []))
        if held_id == invoice["id"]:
            del found["_held_back"]
            found["items"]["data"], found["pending_update"] = rows, None
            self._account.emit("customer.subscription.pending_update_applied", found, None)
        if found["latest_invoice"] == invoice["id"] and found["status"] in ("incomplete", "past_due", "unpaid"):
            before, found["status"] = found["status"], "active"
            if found["_announced"]:
                self._account.emit("customer.subscription.updated", found, {"status": before})

    def _announce(self, made: Stored) -> None:
        made["_announced"] = True
        self._account.emit("customer.subscription.created", made, None)

    def _invoice_failed(self, invoice: Stored, last: bool) -> None:
        found = self._account.shelf("subscription").get(subscription_of(invoice) or "")
        if found is None or found["status"] in ("incomplete", *ENDED) or found.get("pending_update"):
            return
        if invoice["billing_reason"] == "subscription_create":
            return
        wanted = self._account.settings.after_retries if last else "past_due"
        if wanted == "canceled":
            self.end(found)
        elif found["status"] != wanted and not (found["status"] == "unpaid" and not last):
            before, found["status"] = found["status"], wanted
            self._account.emit("customer.subscription.updated", found, {"status": before})

    def _trial_end(self, params: Mapping[str, Any]) -> int | None:
        now_s = self._account.now_s
        if "trial_period_days" in params:
            return now_s + int(params["trial_period_days"]) * DAY_S or None
        wanted = params.get("trial_end", "now")
        if wanted != "now" and wanted <= now_s:
            raise invalid("Invalid timestamp: can only be in the future.", "trial_end")
        return None if wanted == "now" else int(wanted)

    def _blank(self, params: Mapping[str, Any], version: str, trial_end_s: int | None) -> Stored:
        now_s = self._account.now_s
        anchor_s = trial_end_s or params.get("billing_cycle_anchor", now_s)
        mode = params.get("billing_mode", {}).get("type", "flexible" if version >= FLEXIBLE_SINCE else "classic")
        cancels = params.get("cancel_at_period_end", False)
        return {
            "id": self._account.new_id("sub"), "object": "subscription", "created": now_s,
            "livemode": self._account.livemode, "billing_cycle_anchor": anchor_s,
            "billing_mode": {"type": mode, "flexible": None, "updated_at": None}, "billing_schedules": [],
            "cancel_at": None, "cancel_at_period_end": cancels, "canceled_at": None,
            "cancellation_details": {"comment": None, "feedback": None, "reason": None},
            "collection_method": params.get("collection_method", "charge_automatically"), "currency": "usd",
            "customer": params["customer"], "default_payment_method": params.get("default_payment_method"),
            "description": params.get("description") or None, "discounts": [], "ended_at": None, "items": {},
            "latest_invoice": None, "metadata": dict(params.get("metadata") or {}), "pending_update": None,
            "schedule": None, "start_date": now_s, "status": "incomplete", "trial_end": trial_end_s,
            "trial_settings": params.get("trial_settings", _TRIAL_SETTINGS),
            "trial_start": now_s if trial_end_s else None, "_announced": False,
        }  # fmt: skip


def _only(params: Mapping[str, Any], known: frozenset[str]) -> None:
    for name in params:
        if name not in known:
            raise invalid(f"The fake Stripe does not imitate the parameter {name}.", name, "fake_unsupported")


def _shown(row: Stored) -> Stored:
    return {name: value for name, value in row.items() if not name.startswith("_")}
