"""Events of Stripe: kept before they are answered, worked on afterwards, by any process, until they are done or dead.

The rule: an event is a hint that something may have changed. It may come twice, late and in any order, or never: what
follows from it is fetched, so working on it again changes nothing, and what could not be delivered is asked for.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from gatekeeper.billing.subscriptions import Subscriptions
from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.ports import Mailroom, Outbox
from gatekeeper.ports.subscriptions import Invoice, Kept, Sales
from gatekeeper.rules import hints
from gatekeeper.rules.billing import NotTaken, Throttled, retry_delay_ms
from gatekeeper.rules.catalogue import THIN_EVENTS
from gatekeeper.rules.hints import Event, Hint, Junk
from gatekeeper.rules.notices import Kind
from gatekeeper.rules.subscriptions import News, UnknownPrice
from gatekeeper.rules.windows import DAY_MS, HOUR_MS

POLL_S = 1.0
TOGETHER = 8
# Stripe waits for an answer for some 20 s, and counts an endpoint that gives none as broken.
KEEP_S = 5.0
# A few requests of 10 s, each tried three times at most, and a flush.
WORK_S = 90.0
LEASE_MS = 150_000
# 5 s, 15 s, 45 s... and then every hour: most of a day.
ATTEMPTS_MAX = 26
GRACE_EVERY_S = 60.0
MISSED_EVERY_S = 3_600.0
# Stripe lists events of 30 days: one that was forgotten here is not listed any more.
KEPT_MS = 40 * DAY_MS
LISTED_MS = 30 * DAY_MS
_FORGOTTEN = 500
# In one turn, so that grace is looked at under a flood.
_ROUNDS_MAX = 50
_BEGINNINGS = ("checkout.session.", "customer.subscription.", "invoice.")

log = logging.getLogger("gatekeeper.billing")


class Letters(Mailroom, Outbox, Protocol):
    """What is asked of the store."""

    async def first(self, name: str, now_ms: int, until_ms: int) -> bool:
        """See ``ports.Events``."""
        ...


class Webhooks:
    """``receive`` answers Stripe; ``run`` works until it is cancelled; ``turn`` is one round."""

    def __init__(
        self,
        letters: Letters,
        sales: Sales,
        subscriptions: Subscriptions,
        gateway: Callable[[], Gateway],
        clock: Clock,
        chance: Callable[[], float],
    ) -> None:
        self._letters = letters
        self._sales = sales
        self._subscriptions = subscriptions
        self._gateway = gateway
        self._clock = clock
        self._chance = chance
        self._grace_s = self._missed_s = float("-inf")

    async def receive(self, body: bytes, header: str | None) -> bool:
        """Keep an event, durably; False when it is known. Raises Refusal (400) for what is none of Stripe's, and Fault
        when it could not be kept: then Stripe sends it again."""
        secrets = [secret.reveal() for secret in self._gateway().stripe.webhook_secrets]
        now_ms = self._clock.now_ms()
        try:
            hints.verify(body, header, secrets, now_ms / 1000)
            event = hints.read(body, live=self._sales.live)
        except Junk as junk:
            raise Refusal(Code.BAD_REQUEST, f"Not taken: {junk.public}.") from junk
        try:
            async with asyncio.timeout(KEEP_S):
                return bool(await self._letters.keep_events([event], now_ms))
        except TimeoutError as cause:
            # If it is kept after all, it is known when it comes again.
            raise Fault("ledger", FaultKind.STORE, f"an event was not kept within {KEEP_S:g} s") from cause

    async def run(self) -> None:
        """Work for ever; what fails is logged and tried again at the next turn."""
        while True:
            try:
                await self.turn()
            except (Fault, NotTaken) as failed:
                log.warning("events of Stripe wait: %s", failed)
            except Exception:
                log.exception("a turn over the events of Stripe failed")
            await self._clock.sleep(POLL_S)

    async def turn(self) -> int:
        """Ask for what was missed, work on what is due, end what is out of grace; returns how many events ended."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._missed_s:
            # Not at every turn where it fails.
            self._missed_s = now_s + GRACE_EVERY_S
            if await self._first("biller-missed", MISSED_EVERY_S):
                await self._missed()
            self._missed_s = now_s + MISSED_EVERY_S
        worked = 0
        for _ in range(_ROUNDS_MAX):
            now_ms = self._clock.now_ms()
            kept = await self._letters.claim_events(now_ms, now_ms + LEASE_MS, TOGETHER)
            if not kept:
                break
            ends = await asyncio.gather(*map(self._work, kept), return_exceptions=True)
            for end in ends:
                if isinstance(end, BaseException):
                    raise end
            worked += len(kept)
        if now_s >= self._grace_s:
            self._grace_s = now_s + GRACE_EVERY_S
            if await self._first("biller-grace", GRACE_EVERY_S):
                await self._subscriptions.out_of_grace()
        return worked

    async def missed(self) -> int:
        """Ask Stripe for what could not be delivered, and for all reports on usage, and keep what is new; returns how
        many that were."""
        now_ms = self._clock.now_ms()
        found = [*await self._sales.undelivered(), *await self._sales.reports(now_ms - LISTED_MS)]
        return await self._letters.keep_events(found, now_ms)

    async def _missed(self) -> None:
        now_ms = self._clock.now_ms()
        while await self._letters.forget_biller_events(now_ms - KEPT_MS, _FORGOTTEN) == _FORGOTTEN:
            pass
        try:
            new = await self.missed()
        except (Fault, NotTaken):
            # Give the turn back, as from a time when it is over: whoever comes next asks.
            await self._letters.first("biller-missed", now_ms + 2 * HOUR_MS, now_ms)
            raise
        if new:
            log.warning("%d events of Stripe had not been delivered, and are worked on now", new)

    async def _first(self, name: str, every_s: float) -> bool:
        now_ms = self._clock.now_ms()
        return await self._letters.first(name, now_ms, now_ms + int(every_s * 1000) - 1_000)

    async def _work(self, kept: Kept) -> None:
        ended = partial(self._letters.event_ended, kept)
        try:
            async with asyncio.timeout(WORK_S):
                news = await self._meaning(kept.event)
        except NotTaken as refused:
            await self._dead(kept, refused.public)
        except TimeoutError:
            await self._later(kept, f"not done within {WORK_S:g} s")
        except UnknownPrice as unknown:
            await self._later(kept, unknown.public)
        except Fault as fault:
            await self._later(kept, str(fault), fault.retry_after_s if isinstance(fault, Throttled) else None)
        except Exception as mistake:
            log.exception("event %s of Stripe", kept.event.id)
            await self._later(kept, f"a mistake of ours: {type(mistake).__name__}")
        else:
            await ended(self._clock.now_ms(), news=news)

    async def _later(self, kept: Kept, why: str, retry_after_s: float | None = None) -> None:
        if kept.attempts >= ATTEMPTS_MAX:
            await self._dead(kept, why)
            return
        log.warning("event %s of Stripe waits after attempt %d: %s", kept.event.id, kept.attempts, why)
        now_ms = self._clock.now_ms()
        next_ms = now_ms + retry_delay_ms(kept.attempts, self._chance(), retry_after_s)
        await self._letters.event_ended(kept, now_ms, error=why, next_ms=next_ms)

    async def _dead(self, kept: Kept, why: str) -> None:
        log.error("event %s of Stripe is given up: %s", kept.event.id, why)
        told = {"event": kept.event.id, "kind": kept.event.kind, "attempts": kept.attempts, "error": why}
        now_ms = self._clock.now_ms()
        # What is given up a second time is told a second time.
        news = News(Kind.STRIPE_DEAD, f"stripe_dead_{kept.event.id}_{now_ms}", told, personal=False)
        await self._letters.event_ended(kept, now_ms, error=why, news=(news,))

    # --- what an event means ---

    async def _meaning(self, event: Event) -> Sequence[News]:
        if event.kind in THIN_EVENTS:
            return await self._meter_errors(event)
        if not event.kind.startswith(_BEGINNINGS):
            return ()
        hint = hints.hint_of(event.kind, json.loads(event.text))
        if hint.invoice_id is not None:
            await self._invoice(event.kind, hint.invoice_id)
        elif hint.account is not None:
            await self._about(hint, hint.account)
        return ()

    async def _about(self, hint: Hint, account: str) -> None:
        if hint.reference is not None:
            await self._subscriptions.link(hint.reference, account)
        if await self._subscriptions.refresh_account(account) is None:
            log.info("an event of Stripe is about %s, who is nobody of ours", account)

    async def _invoice(self, kind: str, invoice_id: str) -> None:
        invoice = await self._sales.invoice(invoice_id)
        # Whether he may go on, the subscription says, and never the invoice.
        customer = await self._subscriptions.refresh_account(invoice.account)
        if customer is not None:
            news = _invoice_news(kind, invoice)
            await self._letters.keep_invoices(customer.id, [invoice], self._clock.now_ms(), news)

    async def _meter_errors(self, event: Event) -> Sequence[News]:
        identifiers, errors = await self._sales.rejected(event.id)
        now_ms, reopened = self._clock.now_ms(), []
        for identifier in identifiers:
            why = f"Stripe took it and did not count it: see event {event.id} there"
            if (batch := await self._letters.reopen_batch(identifier, why, now_ms)) is not None:
                reopened.append(batch.id)
        said = "Stripe did not count %d events of usage (event %s); %d batches are sent again"
        log.error(said, errors, event.id, len(reopened))
        told: dict[str, object] = {"event": event.id, "kind": event.kind, "errors": errors, "samples": len(identifiers)}
        told["reopened"] = reopened
        return (News(Kind.METER_ERRORS, f"meter_errors_{event.id}", told, personal=False),)


def _invoice_news(kind: str, invoice: Invoice) -> tuple[News, ...]:
    told = {
        "invoice": invoice.id,
        "number": invoice.number,
        "status": invoice.status,
        "currency": invoice.currency,
        "total_cents": invoice.total_cents,
        "due_cents": invoice.due_cents,
        "period_start_ms": invoice.period_start_ms,
        "period_end_ms": invoice.period_end_ms,
        "page": invoice.page,
    }
    if invoice.status == "paid":
        return (News(Kind.INVOICE_PAID, f"invoice_paid_{invoice.id}", told),)
    if kind == "invoice.payment_failed":
        name = f"payment_failed_{invoice.id}_{invoice.attempts}"
        return (News(Kind.PAYMENT_FAILED, name, {**told, "attempts": invoice.attempts}),)
    return ()
