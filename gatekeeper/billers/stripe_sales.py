"""Subscriptions, Checkout, portal and invoices of a Stripe account. See ``ports.Sales``.

The rule: what is made once has a key that is made of what it is for; what is changed is changed again with the same
end. Everything is sold in flexible billing mode, so that a metered price that goes is invoiced first
(https://docs.stripe.com/billing/subscriptions/billing-mode).
"""

import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from gatekeeper.billers.stripe_client import Wire, asked, connect, is_live
from gatekeeper.billers.stripe_objects import Raw
from gatekeeper.billers.stripe_sold import invoice_of, preview_of, subscribed_of
from gatekeeper.config.gateway import StripeConfig
from gatekeeper.errors import Fault
from gatekeeper.ports import Customer
from gatekeeper.ports.subscriptions import Invoice, Item, Preview, Rejected
from gatekeeper.rules.billing import NotTaken, Throttled
from gatekeeper.rules.catalogue import CURRENCY, SNAPSHOT_EVENTS, THIN_EVENTS, PlanPrices
from gatekeeper.rules.hints import Event, rejected_of
from gatekeeper.rules.subscriptions import Subscribed

CUSTOMER = "gatekeeper_customer"
ITEM = "gatekeeper_item"
_PAGE = 100
# Of one list; a customer has some, and of events that were not delivered a month may have many.
_OBJECTS_MAX = 10_000
_FLEXIBLE = {"type": "flexible"}


class StripeSales:
    """``wire`` is what requests go through; closed with it. Raises NotTaken for a key of no known kind."""

    def __init__(self, config: StripeConfig, wire: Wire | None = None) -> None:
        self._live = is_live(config)
        self._wire = Wire() if wire is None else wire
        self._client = connect(config, self._wire)

    @property
    def live(self) -> bool:
        """By its key."""
        return self._live

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.aclose()

    async def open_account(self, customer: Customer) -> str:
        """A customer at Stripe."""
        params: Any = {"name": customer.name, "metadata": {CUSTOMER: customer.id}}
        if customer.email is not None:
            params["email"] = customer.email
        content = json.dumps([customer.created_ms, params], sort_keys=True)
        key = f"gatekeeper-customer-{hashlib.sha256(content.encode()).hexdigest()[:40]}"
        try:
            made = await self._made(lambda: self._client.v1.customers.create_async(params, {"idempotency_key": key}))
        except Throttled:
            raise
        except Fault as fault:
            if fault.retryable:
                raise
            # Stripe repeats a 500 under its key for a day. If the first was acted on, one customer too many is there,
            # who never buys anything.
            again = f"{key}-again"
            made = await self._made(lambda: self._client.v1.customers.create_async(params, {"idempotency_key": again}))
        return str(made["id"])

    async def owner(self, account: str) -> str | None:
        """By the account's metadata, which only the secret key and the Dashboard can write."""
        found = await self._made(lambda: self._client.v1.customers.retrieve_async(account))
        owner = (found.get("metadata") or {}).get(CUSTOMER)
        return owner if isinstance(owner, str) else None

    async def subscriptions(self, account: str) -> Sequence[Subscribed]:
        """All, those that ended too."""
        listed: Any = {"customer": account, "status": "all", "limit": _PAGE}
        found = await self._all(lambda: self._client.v1.subscriptions.list_async(listed))
        return [subscribed_of(raw) for raw in found]

    async def checkout(self, account: str, customer_id: str, prices: PlanPrices, trial_days: int, back: str) -> str:
        """A Checkout session of a day."""
        lines = [{"price": prices.licensed, "quantity": 1}] if prices.licensed else []
        lines += [{"price": prices.metered}] if prices.metered else []
        sold: dict[str, Any] = {"metadata": {CUSTOMER: customer_id}, "billing_mode": _FLEXIBLE}
        if trial_days:
            sold["trial_period_days"] = trial_days
        params: Any = {
            "mode": "subscription",
            "customer": account,
            "client_reference_id": customer_id,
            "line_items": lines,
            "subscription_data": sold,
            "success_url": f"{back}?checkout=done",
            "cancel_url": f"{back}?checkout=left",
        }
        return str((await self._made(lambda: self._client.v1.checkout.sessions.create_async(params)))["url"])

    async def portal(self, account: str, portal_id: str | None, back: str) -> str:
        """A session of the customer portal."""
        params: Any = {"customer": account, "return_url": back}
        if portal_id is not None:
            params["configuration"] = portal_id
        return str((await self._made(lambda: self._client.v1.billing_portal.sessions.create_async(params)))["url"])

    async def change(self, one: Subscribed, prices: PlanPrices) -> None:
        """Other items, at once. https://docs.stripe.com/billing/subscriptions/pending-updates: while the difference is
        not paid, the subscription stays as it is."""
        if one.schedule_id is not None:
            await self._release(one.schedule_id)
        params: Any = {
            "items": _changed(one, prices),
            "proration_behavior": "always_invoice",
            "payment_behavior": "pending_if_incomplete",
        }
        if params["items"]:
            await self._made(lambda: self._client.v1.subscriptions.update_async(one.id, params))

    async def change_later(self, one: Subscribed, prices: PlanPrices) -> None:
        """A schedule of two phases, of which the second begins with the next period and then lets go."""
        schedules = self._client.v1.subscription_schedules
        schedule_id = one.schedule_id
        if schedule_id is None:
            from_one: Any = {"from_subscription": one.id}
            schedule_id = (await self._made(lambda: schedules.create_async(from_one)))["id"]
        now = [_phase_item(item.price_id, metered=item.metered) for item in one.items]
        then = [_phase_item(prices.licensed, metered=False)] if prices.licensed else []
        then += [_phase_item(prices.metered, metered=True)] if prices.metered else []
        start_s, end_s = one.period_start_ms // 1000, one.period_end_ms // 1000
        month = {"interval": "month", "interval_count": 1}
        params: Any = {
            "end_behavior": "release",
            "proration_behavior": "none",
            "phases": [
                {"items": now, "start_date": start_s, "end_date": end_s, "proration_behavior": "none"},
                {"items": then, "start_date": end_s, "duration": month, "proration_behavior": "none"},
            ],
        }
        held_id = str(schedule_id)
        await self._made(lambda: schedules.update_async(held_id, params))

    async def cancel(self, one: Subscribed, *, at_end: bool) -> None:
        """Later: flagged. Now: the last usage is invoiced, nothing is paid back."""
        if one.schedule_id is not None:
            await self._release(one.schedule_id)
        subscriptions = self._client.v1.subscriptions
        if at_end:
            later: Any = {"cancel_at_period_end": True}
            await self._made(lambda: subscriptions.update_async(one.id, later))
        else:
            params: Any = {"invoice_now": True, "prorate": False}
            await self._made(lambda: subscriptions.cancel_async(one.id, params))

    async def resume(self, one: Subscribed) -> None:
        """No end, and no other prices later."""
        if one.schedule_id is not None:
            await self._release(one.schedule_id)
        if one.cancel_ms is not None:
            stays: Any = {"cancel_at_period_end": False}
            await self._made(lambda: self._client.v1.subscriptions.update_async(one.id, stays))

    async def invoice(self, invoice_id: str) -> Invoice:
        """One invoice."""
        return invoice_of(await self._made(lambda: self._client.v1.invoices.retrieve_async(invoice_id)))

    async def invoices(self, account: str, *, after: str | None, limit: int) -> Sequence[Invoice]:
        """One page."""
        params: Any = {"customer": account, "limit": limit}
        if after is not None:
            params["starting_after"] = after
        page = await asked(lambda: self._client.v1.invoices.list_async(params))
        return [invoice_of(self._checked(raw.to_dict())) for raw in page.data]

    async def preview(self, subscription_id: str) -> Preview:
        """``create_preview``: nothing is made."""
        params: Any = {"subscription": subscription_id}
        return preview_of(await self._made(lambda: self._client.v1.invoices.create_preview_async(params)))

    async def undelivered(self) -> Sequence[Event]:
        """Of the kinds that are acted on."""
        params: Any = {"delivery_success": False, "types": sorted(SNAPSHOT_EVENTS), "limit": _PAGE}
        found = await self._all(lambda: self._client.v1.events.list_async(params))
        return [Event(raw["id"], raw["type"], json.dumps(raw, default=str)) for raw in reversed(found)]

    async def reports(self, since_ms: int) -> Sequence[Event]:
        """``/v2/core/events``: unlike those of v1 they cannot be asked for by whether they were delivered."""
        since = datetime.fromtimestamp(since_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        params: Any = {"types": sorted(THIN_EVENTS), "created": {"gte": since}, "limit": _PAGE}
        found = await self._all(lambda: self._client.v2.core.events.list_async(params))
        return [Event(raw["id"], raw["type"], json.dumps(raw, default=str)) for raw in reversed(found)]

    async def rejected(self, event_id: str) -> Rejected:
        """The report is fetched: the event itself is thin. Its samples carry our idempotency keys, which begin with the
        identifier of a batch."""
        found = await self._made(lambda: self._client.v2.core.events.retrieve_async(event_id))
        keys, errors = rejected_of(found)
        return Rejected(list(dict.fromkeys(key.rpartition(".")[0] for key in keys if "." in key)), errors)

    async def charge(self, item: Item) -> str:
        """An invoice item. Its key makes one of two at once, and its metadata one of whatever comes a day later."""
        listed: Any = {"customer": item.account, "limit": _PAGE}
        for made in await self._all(lambda: self._client.v1.invoice_items.list_async(listed)):
            if (made.get("metadata") or {}).get(ITEM) == item.name:
                return str(made["id"])
        params: Any = {
            "customer": item.account,
            "amount": item.cents,
            "currency": CURRENCY,
            "description": item.text,
            "metadata": {ITEM: item.name},
            "period": {"start": item.start_ms // 1000, "end": item.end_ms // 1000},
        }
        # A 500 is repeated under a key for a day: better no item until then than two.
        key = f"gatekeeper-item-{item.name}"
        made = await self._made(lambda: self._client.v1.invoice_items.create_async(params, {"idempotency_key": key}))
        return str(made["id"])

    async def _release(self, schedule_id: str) -> None:
        await self._made(lambda: self._client.v1.subscription_schedules.release_async(schedule_id))

    async def _made(self, call: Callable[[], Awaitable[Any]]) -> Raw:
        return self._checked((await asked(call)).to_dict())

    async def _all(self, listing: Callable[[], Awaitable[Any]]) -> list[Raw]:
        async def pages() -> list[Raw]:
            page = await listing()
            items: AsyncIterator[Any] = page.auto_paging_iter()
            found: list[Raw] = []
            async for item in items:
                found.append(self._checked(item.to_dict()))
                if len(found) >= _OBJECTS_MAX:
                    break
            return found

        return await asked(pages)

    def _checked(self, raw: Raw) -> Raw:
        if raw.get("livemode", self._live) is not self._live:
            raise NotTaken(f"{raw.get('id')} is not of the mode of the secret key")
        return raw


def _changed(one: Subscribed, prices: PlanPrices) -> list[dict[str, Any]]:
    """The items as changes. A metered one is taken away and another put in its place: its usage is invoiced then."""
    licensed, metered = one.licensed, one.metered
    changes: list[dict[str, Any]] = []
    if licensed is None and prices.licensed is not None:
        changes.append({"price": prices.licensed, "quantity": 1})
    elif licensed is not None and prices.licensed is None:
        changes.append({"id": licensed.id, "deleted": True})
    elif licensed is not None and licensed.price_id != prices.licensed:
        changes.append({"id": licensed.id, "price": prices.licensed, "quantity": 1})
    if metered is None or metered.price_id != prices.metered:
        changes += [{"id": metered.id, "deleted": True}] if metered is not None else []
        changes += [{"price": prices.metered}] if prices.metered is not None else []
    return changes


def _phase_item(price_id: str, *, metered: bool) -> dict[str, Any]:
    return {"price": price_id} if metered else {"price": price_id, "quantity": 1}
