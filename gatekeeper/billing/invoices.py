"""Invoices of a customer: as Stripe lists them, and what the next one comes to by our figures and by Stripe's.

The rule: ours is the statement of the ledger and Stripe's is Stripe's; where they differ, both are shown, and so is the
difference.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Fault, Refusal
from gatekeeper.money import nano_to_dollars, rounded
from gatekeeper.ports import Customer, Customers, Mailroom, Standings, Statements
from gatekeeper.ports.subscriptions import Invoice, Preview, Sales
from gatekeeper.rules.allowances import Allowance, allowance, item_since
from gatekeeper.rules.billing import NotTaken
from gatekeeper.rules.limits import Window
from gatekeeper.rules.statements import Statement, statement
from gatekeeper.rules.subscriptions import Standing
from gatekeeper.rules.windows import window_bounds

log = logging.getLogger("gatekeeper.billing")


class Books(Customers, Standings, Mailroom, Statements, Protocol):
    """What is asked of the store."""


class Listed(NamedTuple):
    """A page. ``fresh`` False: Stripe is away (or off), and this is what was seen of them last."""

    invoices: Sequence[Invoice]
    fresh: bool


@dataclass(frozen=True, slots=True)
class Beside:
    """Our statement of the present period, and Stripe's preview (None: there is none, ``why`` says it). ``ours_cents``
    is what Stripe would ask for by our figures: without the next fee where the subscription is going to end, and with
    the units that count on the present item (``allowance``; None: there is no subscription) where there is one."""

    ours: Statement
    ours_cents: int
    preview: Preview | None
    why: str | None
    allowance: Allowance | None = None

    @property
    def difference_cents(self) -> int | None:
        """Stripe's less ours."""
        return None if self.preview is None else self.preview.total_cents - self.ours_cents


class Invoices:
    """``sales`` None: Stripe is not enabled. Raises Refusal, Fault."""

    def __init__(self, books: Books, sales: Sales | None, gateway: Callable[[], Gateway], clock: Clock) -> None:
        self._books = books
        self._sales = sales
        self._gateway = gateway
        self._clock = clock

    async def listed(self, customer_id: str, *, after: str | None = None, limit: int = 100) -> Listed:
        """The latest first; ``after`` is the id of the last one of the page before."""
        customer = await self._customer(customer_id)
        if self._sales is not None and customer.stripe_customer_id is not None:
            try:
                found = await self._sales.invoices(customer.stripe_customer_id, after=after, limit=limit)
            except NotTaken as refused:
                raise Refusal(Code.BAD_REQUEST, f"Stripe says no: {refused.public}") from refused
            except Fault as fault:
                log.warning("the invoices of %s are shown as they were: %s", customer_id, fault)
            else:
                await self._books.keep_invoices(customer_id, found, self._clock.now_ms())
                return Listed(found, True)
        if after is not None:
            raise Refusal(Code.BILLER_UNAVAILABLE)
        return Listed(await self._books.kept_invoices(customer_id, limit), False)

    async def preview(self, customer_id: str) -> Beside:
        """The present period, as it stands."""
        customer = await self._customer(customer_id)
        standing = await self._books.standing(customer_id)
        ours = await self._statement(customer)
        fee_nano = ours.fee_nano if standing is None or standing.cancel_ms is None else 0
        counts = None if standing is None or standing.has_ended else await self._allowance(customer, standing, ours)
        overage_nano = ours.overage_nano if counts is None else counts.overage_nano
        cents = rounded(nano_to_dollars(fee_nano), 100) + rounded(nano_to_dollars(overage_nano), 100)
        preview, why = await self._preview(standing)
        return Beside(ours, cents, preview, why, counts)

    async def _allowance(self, customer: Customer, standing: Standing, ours: Statement) -> Allowance:
        gateway, now_ms, start_ms = self._gateway(), self._clock.now_ms(), ours.start_ms
        since_ms, plan = item_since(standing, start_ms), gateway.plans.get(standing.plan_id)
        counted = await self._books.counted(customer.id, start_ms, since_ms, now_ms)
        meter = gateway.stripe.meter
        return allowance(counted, gateway.plans, meter, plan, since_ms, start_ms, now_ms, customer.anchor_ms)

    async def _preview(self, standing: Standing | None) -> tuple[Preview | None, str | None]:
        if self._sales is None:
            return None, "Stripe is not enabled"
        if standing is None or standing.has_ended:
            return None, "the customer has no subscription"
        try:
            return await self._sales.preview(standing.subscription_id), None
        except NotTaken as refused:
            return None, refused.public
        except Fault as fault:
            log.warning("the next invoice of %s cannot be asked for: %s", standing.customer_id, fault)
            return None, "Stripe cannot be reached"

    async def _statement(self, customer: Customer) -> Statement:
        now_ms = self._clock.now_ms()
        start_ms, end_ms = window_bounds(Window.BILLING_PERIOD, now_ms, anchor_ms=customer.anchor_ms)
        assert end_ms is not None
        lines = await self._books.statement_lines(customer.id, start_ms, end_ms)
        told = await self._books.statement_batches(customer.id, start_ms)
        plan = self._gateway().plans.get(customer.plan_id)
        return statement(customer.id, customer.plan_id, plan, (start_ms, end_ms), lines, told)

    async def _customer(self, customer_id: str) -> Customer:
        found = await self._books.customer(customer_id)
        if found is None:
            raise Refusal(Code.NOT_FOUND, f"There is no customer {customer_id[:64]!r}.")
        return found
