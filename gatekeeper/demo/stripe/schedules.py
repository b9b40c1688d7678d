"""Subscription schedules: changes at a later time, for a downgrade at the period's end.

The rule: a phase that begins when a period ends brings its items without proration. Source:
https://docs.stripe.com/billing/subscriptions/subscription-schedules and its use cases ("downgrade a subscription").
"""

from collections.abc import Mapping
from typing import Any

from gatekeeper.demo.stripe.account import Account, Stored, merge_metadata
from gatekeeper.demo.stripe.cycles import boundary_s
from gatekeeper.demo.stripe.items import check_items, new_item, quantity_for, set_period, usable_price
from gatekeeper.demo.stripe.listing import matching, page
from gatekeeper.demo.stripe.refusing import invalid
from gatekeeper.demo.stripe.subscriptions import Subscriptions
from gatekeeper.demo.stripe.turning import Turning

OVER = ("released", "canceled", "completed")


class Schedules:
    """The schedules of one account; all are made from a subscription."""

    def __init__(self, account: Account, subscriptions: Subscriptions, turning: Turning) -> None:
        self._account = account
        self._subscriptions = subscriptions
        turning.phase_items = self._phase_items

    def create(self, params: Mapping[str, Any]) -> Stored:
        """A schedule whose only phase is the present period. Raises Refused (400, 404)."""
        if "from_subscription" not in params or set(params) - {"from_subscription", "metadata", "expand"}:
            raise invalid(
                "The fake makes schedules with from_subscription only.", "from_subscription", "fake_unsupported"
            )
        found = self._account.get("subscription", params["from_subscription"], "from_subscription")
        if found["schedule"] is not None:
            raise invalid("You cannot migrate a subscription that is already attached to a schedule: "
                          f"{found['schedule']}", "from_subscription")  # fmt: skip
        rows = found["items"]["data"]
        start_s, end_s = rows[0]["current_period_start"], rows[0]["current_period_end"]
        made = self._account.put(
            "subscription_schedule",
            "sub_sched",
            {
                "canceled_at": None,
                "completed_at": None,
                "current_phase": {"start_date": start_s, "end_date": end_s},
                "customer": found["customer"],
                "end_behavior": "release",
                "metadata": params.get("metadata") or {},
                "phases": [{"items": [_row(row) for row in rows], "start_date": start_s, "end_date": end_s}],
                "released_at": None,
                "released_subscription": None,
                "status": "active",
                "subscription": found["id"],
            },
        )
        found["schedule"] = made["id"]
        self._account.emit("subscription_schedule.created", made, None)
        self._plan(made)
        return made

    def update(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """phases (the present one first), end_behavior, metadata. Raises Refused (400, 404)."""
        found = self._open(identifier)
        if set(params) - {"phases", "end_behavior", "metadata", "proration_behavior", "expand"}:
            raise invalid("The fake updates phases, end_behavior and metadata only.", "phases", "fake_unsupported")
        if "phases" in params:
            found["phases"] = self._phases(found, params["phases"])
        found["end_behavior"] = params.get("end_behavior", found["end_behavior"])
        merge_metadata(found, params)
        self._account.emit("subscription_schedule.updated", found, None)
        self._plan(found)
        return found

    def release(self, identifier: str) -> Stored:
        """The subscription goes on as it is. Raises Refused."""
        found = self._open(identifier)
        self._detach(found, "released", "released_at")
        found["released_subscription"], found["subscription"] = found["subscription"], None
        self._account.emit("subscription_schedule.released", found, None)
        return found

    def cancel(self, identifier: str, params: Mapping[str, Any]) -> Stored:
        """The schedule and its subscription end now. Raises Refused."""
        found = self._open(identifier)
        self._detach(found, "canceled", "canceled_at")
        self._subscriptions.cancel(found["subscription"], {"invoice_now": params.get("invoice_now", False)})
        self._account.emit("subscription_schedule.canceled", found, None)
        return found

    def listed(self, params: Mapping[str, Any]) -> Stored:
        """By customer."""
        rows = self._account.shelf("subscription_schedule").values()
        return page("/v1/subscription_schedules", matching(rows, params, ("customer",)), params)

    def _phases(self, found: Stored, given: list[Mapping[str, Any]]) -> list[Stored]:
        made: list[Stored] = []
        for index, phase in enumerate(given):
            path = f"phases[{index}]"
            start_s = phase.get("start_date", made[-1]["end_date"] if made else found["current_phase"]["start_date"])
            start_s = self._account.now_s if start_s == "now" else start_s
            if made and start_s != made[-1]["end_date"]:
                raise invalid("Phases must follow each other without a gap.", f"{path}[start_date]")
            if not made and start_s != found["current_phase"]["start_date"]:
                raise invalid("You can not modify the start date of the current phase.", f"{path}[start_date]")
            for number, row in enumerate(phase["items"]):
                price = usable_price(self._account, row.get("price", ""), f"{path}[items][{number}][price]")
                quantity_for(price, row, f"{path}[items][{number}]")
            end_s = phase.get("end_date") or self._end(phase, start_s)
            made.append({"items": [dict(row) for row in phase["items"]], "start_date": start_s, "end_date": end_s})
        return made

    def _end(self, phase: Mapping[str, Any], start_s: int) -> int:
        """Without a duration a phase lasts one interval of its first price."""
        if "duration" in phase:
            wanted = phase["duration"]
            return boundary_s(start_s, wanted["interval"], wanted.get("interval_count", 1), 1)
        recurring = self._account.get("price", phase["items"][0]["price"])["recurring"]
        return boundary_s(start_s, recurring["interval"], recurring["interval_count"], 1)

    def _plan(self, found: Stored) -> None:
        for phase in found["phases"]:
            self._account.at(phase["start_date"], lambda: self._begin(found))
        self._account.at(found["phases"][-1]["end_date"], lambda: self._finish(found))

    def _begin(self, found: Stored) -> None:
        """A phase in the middle of a period; one at its end is the turn's (``_phase_items``)."""
        subscription = self._account.shelf("subscription").get(found["subscription"] or "")
        if found["status"] in OVER or subscription is None:
            return
        if subscription["items"]["data"][0]["current_period_end"] <= self._account.now_s:
            return
        rows = self._phase_items(subscription)
        if rows is not None:
            subscription["items"]["data"] = rows
            self._account.emit("customer.subscription.updated", subscription, None)

    def _phase_items(self, subscription: Stored) -> list[Stored] | None:
        """The items of the phase that begins now, with the ids of those whose price stays."""
        found = self._account.shelf("subscription_schedule").get(subscription["schedule"] or "")
        if found is None or found["status"] in OVER:
            return None
        now_s = self._account.now_s
        phase = next((phase for phase in found["phases"] if phase["start_date"] == now_s), None)
        if phase is None or found["current_phase"]["start_date"] == now_s:
            return None
        found["current_phase"] = {"start_date": phase["start_date"], "end_date": phase["end_date"]}
        old = {row["price"]["id"]: row for row in subscription["items"]["data"]}
        some = next(iter(old.values()))
        rows = []
        for index, given in enumerate(phase["items"]):
            row = old.get(given["price"]) or new_item(self._account, subscription["id"], given, f"items[{index}]")
            if row["price"]["id"] not in old:
                set_period([row], some["current_period_start"], some["current_period_end"])
            elif "quantity" in given:
                row["quantity"] = given["quantity"]
            rows.append(row)
        check_items(rows)
        self._account.emit("subscription_schedule.updated", found, None)
        return rows

    def _finish(self, found: Stored) -> None:
        if found["status"] in OVER or self._account.now_s < found["phases"][-1]["end_date"]:
            return
        if found["end_behavior"] == "cancel":
            self.cancel(found["id"], {"invoice_now": True})
        else:
            self.release(found["id"])

    def _detach(self, found: Stored, status: str, moment: str) -> None:
        found["status"], found["current_phase"] = status, None
        found[moment] = self._account.now_s
        self._account.get("subscription", found["subscription"])["schedule"] = None

    def _open(self, identifier: str) -> Stored:
        found = self._account.get("subscription_schedule", identifier)
        if found["status"] in OVER:
            raise invalid(f"The schedule is {found['status']}.", "id")
        return found


def _row(row: Stored) -> Stored:
    made = {"price": row["price"]["id"], "quantity": row["quantity"], "metadata": dict(row["metadata"])}
    return {name: value for name, value in made.items() if value is not None}
