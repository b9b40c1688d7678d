"""What happens when a billing period ends. The rule: the ended period is billed by the items it had, then time moves.

Sources: https://docs.stripe.com/billing/subscriptions/billing-cycle, .../trials (trial_will_end three days before, the
end of a trial begins the first paid period), .../cancel (at the period's end the last usage is invoiced), and
https://docs.stripe.com/billing/subscriptions/overview (an ``unpaid`` subscription only gathers drafts).
"""

from collections.abc import Callable
from typing import Any

from gatekeeper.demo.stripe import lines
from gatekeeper.demo.stripe.account import DAY_S, Account, Stored
from gatekeeper.demo.stripe.customers import Card
from gatekeeper.demo.stripe.cycles import next_boundary_s
from gatekeeper.demo.stripe.invoices import Invoices
from gatekeeper.demo.stripe.items import check_items, is_metered, set_period
from gatekeeper.demo.stripe.subscriptions import ENDED, Subscriptions

WARNING_S = 3 * DAY_S


class Turning:
    """Turns the periods of one account's subscriptions."""

    def __init__(self, account: Account, subscriptions: Subscriptions, invoices: Invoices) -> None:
        self._account = account
        self._subscriptions = subscriptions
        self._invoices = invoices
        # New items that a schedule's phase brings at this moment, or None; set by ``schedules``.
        self.phase_items: Callable[[Stored], list[Stored] | None] = lambda found: None
        subscriptions.plan_turn = self.plan  # type: ignore[method-assign]

    def plan(self, found: Stored) -> None:
        """Turn at the end of the present period; warn before the end of a trial."""
        end_s = found["items"]["data"][0]["current_period_end"]
        self._account.at(end_s, lambda: self._turn(found, end_s))
        if found["status"] == "trialing":
            warn_s = max(end_s - WARNING_S, self._account.now_s)
            self._account.at(warn_s, lambda: self._warn(found, end_s))

    def _warn(self, found: Stored, end_s: int) -> None:
        if found["status"] == "trialing" and found["trial_end"] == end_s:
            self._account.emit("customer.subscription.trial_will_end", found, None)

    def _turn(self, found: Stored, end_s: int) -> None:
        rows = found["items"]["data"]
        if found["status"] in ENDED or rows[0]["current_period_end"] != end_s:
            return
        if found["status"] == "incomplete":
            return
        start_s = rows[0]["current_period_start"]
        used = self._subscriptions.metered(found, end_s)
        if found["cancel_at_period_end"]:
            self._draft(found, used, start_s, end_s)
            self._subscriptions.end(found)
            return
        trial_ends = found["status"] == "trialing"
        if trial_ends and self._ends_without_card(found):
            return
        before: dict[str, Any] = {"items": {"data": [_period(row) for row in rows]}}
        phase = self.phase_items(found)
        if phase is not None:
            found["items"]["data"] = rows = phase
        next_s = next_boundary_s(found["billing_cycle_anchor"], *check_items(rows), end_s)
        set_period(rows, end_s, next_s)
        for row in rows:
            row["_usage_from"] = max(row["_usage_from"], end_s)
        if trial_ends:
            before["status"], found["status"] = "trialing", "active"
        licensed = [lines.licensed(found, row, end_s, next_s) for row in rows if not is_metered(row)]
        self._draft(found, used + licensed, start_s, end_s)
        self._account.emit("customer.subscription.updated", found, before)
        self.plan(found)

    def _draft(self, found: Stored, recipes: list[lines.Recipe], start_s: int, end_s: int) -> None:
        self._invoices.draft(
            found["customer"], recipes, reason="subscription_cycle", period=(start_s, end_s), subscription=found,
            auto_advance=found["status"] != "unpaid",
        )  # fmt: skip

    def _ends_without_card(self, found: Stored) -> bool:
        ends = found["trial_settings"]["end_behavior"]["missing_payment_method"] == "cancel"
        if ends and self._account.get("customer", found["customer"])["_card"] is Card.NONE:
            self._subscriptions.end(found)
            return True
        return False


def _period(row: Stored) -> Stored:
    return {name: row[name] for name in ("id", "current_period_start", "current_period_end")}
