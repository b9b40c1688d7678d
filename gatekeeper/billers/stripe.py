"""Stripe as a biller: batches become meter events, and its own sums say what it has counted.

The rule: the identifier makes a resend harmless, and nothing else does. A duplicate is refused with a 400, which is a
yes; no idempotency key is kept for longer than one call, because Stripe repeats a 500 under its key for a day.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import stripe

from gatekeeper.billers.stripe_client import Wire, asked, connect
from gatekeeper.config.gateway import StripeConfig
from gatekeeper.rules.billing import VALUE_MAX, Batch, NotTaken, Reported
from gatekeeper.rules.catalogue import CUSTOMER_KEY, VALUE_KEY

# https://docs.stripe.com/api/billing/meter-event/create
IDENTIFIER_CHARACTERS_MAX = 100
# How the 400 begins that a second event of one identifier gets; it has no code of its own.
_DUPLICATE = "already exists with identifier"


class StripeBiller:
    """See ``ports.Biller``. ``wire`` is what requests go through; closed with the biller."""

    name = "stripe"

    def __init__(self, config: StripeConfig, wire: Wire | None = None) -> None:
        self._wire = Wire() if wire is None else wire
        self._client = connect(config, self._wire)
        self._meters: dict[str, str] = {}
        # Who waits for, or has, the one call of a customer and meter.
        self._turns: dict[tuple[str, str], tuple[asyncio.Lock, int]] = {}

    async def report(self, batch: Batch) -> Reported:
        """Send one meter event."""
        params = meter_event(batch)
        async with self._turn(params["payload"][CUSTOMER_KEY], batch.meter):
            return await asked(lambda: self._sent(params))

    async def summary(self, batch: Batch, start_ms: int, end_ms: int) -> int:
        """Sum up its event summaries. They lag behind: Stripe adds events up later."""
        assert start_ms % 60_000 == 0 and end_ms % 60_000 == 0, (start_ms, end_ms)
        if batch.account is None:
            raise NotTaken("the customer is not known to Stripe")
        meter_id = await self._meter_id(batch.meter)
        params: Any = {
            "customer": batch.account,
            "start_time": start_ms // 1000,
            "end_time": end_ms // 1000,
            "limit": 100,
        }

        async def total() -> int:
            page = await self._client.v1.billing.meters.event_summaries.list_async(meter_id, params)
            values = [one.to_dict()["aggregated_value"] async for one in page.auto_paging_iter()]
            return int(sum((Decimal(str(value)) for value in values), Decimal(0)))

        return await asked(total)

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.aclose()

    async def _sent(self, params: Any) -> Reported:
        try:
            # Of this call alone; a report of errors names usage by nothing else.
            key = f"{params['identifier']}.{uuid.uuid4().hex}"
            await self._client.v1.billing.meter_events.create_async(params, {"idempotency_key": key})
        except stripe.InvalidRequestError as error:
            if error.http_status == 400 and _DUPLICATE in (error.user_message or ""):
                return Reported.DUPLICATE
            raise
        return Reported.ACCEPTED

    async def _meter_id(self, event_name: str) -> str:
        if event_name not in self._meters:

            async def look() -> dict[str, str]:
                page = await self._client.v1.billing.meters.list_async({"limit": 100})
                found = [meter.to_dict() async for meter in page.auto_paging_iter()]
                # An active one beats those that had the name before.
                return {
                    one["event_name"]: one["id"] for one in sorted(found, key=lambda one: one["status"] == "active")
                }

            self._meters = await asked(look)
        if event_name not in self._meters:
            raise NotTaken(f"there is no meter {event_name!r} in the account: 'gatekeeper stripe apply' makes it")
        return self._meters[event_name]

    @asynccontextmanager
    async def _turn(self, account: str, meter: str) -> AsyncIterator[None]:
        """Stripe refuses a second call for the same customer and meter while one is under way."""
        lock, waiting = self._turns.get((account, meter), (asyncio.Lock(), 0))
        self._turns[account, meter] = lock, waiting + 1
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns[account, meter]
            if waiting == 1:
                del self._turns[account, meter]
            else:
                self._turns[account, meter] = lock, waiting - 1


def meter_event(batch: Batch) -> dict[str, Any]:
    """What is sent of a batch. Raises NotTaken for what Stripe would never take."""
    if batch.account is None:
        raise NotTaken("the customer is not known to Stripe")
    if type(batch.value) is not int or not 0 <= batch.value <= VALUE_MAX:
        raise NotTaken(f"{batch.value} is no whole number of at most 15 digits")
    if not 0 < len(batch.identifier) <= IDENTIFIER_CHARACTERS_MAX:
        raise NotTaken(f"an identifier has 1 to {IDENTIFIER_CHARACTERS_MAX} characters")
    return {
        "event_name": batch.meter,
        "identifier": batch.identifier,
        "timestamp": batch.ts_ms // 1000,
        "payload": {CUSTOMER_KEY: batch.account, VALUE_KEY: str(batch.value)},
    }
