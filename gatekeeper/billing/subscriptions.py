"""Customers and their subscriptions: Checkout, portal, up, down, end, and what follows from the state at Stripe.

The rule: whatever happened, all subscriptions of the customer are fetched and decided on anew
(``rules.subscriptions``); an action asks Stripe, and then looks. Before anything that ends what
is metered, what is owed is told.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from gatekeeper.billing.outbox import Flusher
from gatekeeper.billing.shelf import Shelf
from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.ports import Customer, Customers, Standings
from gatekeeper.ports.subscriptions import Sales
from gatekeeper.rules.billing import NotTaken
from gatekeeper.rules.catalogue import PlanPrices
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.subscriptions import GRANTING, Decision, Standing, Subscribed, Terms, UnknownPrice, decide, live
from gatekeeper.rules.windows import DAY_MS

# Another process that decides at the same moment is done after one or two.
_ATTEMPTS = 5
# Stripe knows whole seconds, and counts what lies before the one in which a price goes: the last use must.
_BEFORE_END_S = 2.0

log = logging.getLogger("gatekeeper.billing")


class Desk(Customers, Standings, Protocol):
    """What is asked of the store."""


class When(StrEnum):
    """When a change takes effect."""

    NOW = "now"
    PERIOD_END = "period_end"


class Subscriptions:
    """The actions raise Refusal for what cannot be, and for a Stripe that is away; ``refresh`` raises Fault, NotTaken
    and UnknownPrice. Cancelled: look again, with ``refresh``."""

    def __init__(
        self,
        desk: Desk,
        sales: Sales,
        shelf: Shelf,
        flusher: Flusher,
        gateway: Callable[[], Gateway],
        clock: Clock,
    ) -> None:
        self._desk = desk
        self._sales = sales
        self._shelf = shelf
        self._flusher = flusher
        self._gateway = gateway
        self._clock = clock

    # --- what a customer or an operator asks for ---

    async def checkout(self, customer_id: str, plan_id: str) -> str:
        """The URL of a page on which the customer subscribes to a plan, also to a larger one than the free one whose
        limit he has reached. Nothing is granted before Stripe says that it stands."""
        customer, back = await self._customer(customer_id), self._back()
        plan = self._plan(plan_id)
        with _refusing():
            prices = await self._prices(plan)
            account = await self._account(customer)
            found = await self._sales.subscriptions(account)
            if live(found) is not None:
                hint = f"change it: POST /admin/customers/{customer_id}/subscription"
                raise Refusal(Code.CONFLICT, "The customer has a subscription already.", hint=hint)
            # A trial is for whoever is new.
            trial_days = 0 if any(one.status != "incomplete_expired" for one in found) else plan.trial_days
            return await self._sales.checkout(account, customer_id, prices, trial_days, back)

    async def portal(self, customer_id: str) -> str:
        """The URL of Stripe's page for card, invoices, and the end."""
        customer, back = await self._customer(customer_id), self._back()
        with _refusing():
            account = await self._account(customer)
            return await self._sales.portal(account, (await self._shelf.sold()).portal_id, back)

    async def change(self, customer_id: str, plan_id: str, when: When | None = None) -> Standing | None:
        """Another plan: a dearer one at once, another at the period's end, unless ``when`` says otherwise. Returns what
        stands then: while an upgrade is not paid, that is what stood before."""
        customer, plan = await self._customer(customer_id), self._plan(plan_id)
        with _refusing():
            prices = await self._prices(plan)
            one = await self._live(customer)
            if one.status not in GRANTING:
                raise Refusal(Code.CONFLICT, "A payment is overdue.", hint="the portal takes another card")
            if when is None:
                when = When.NOW if plan.monthly_price > await self._present_price(one) else When.PERIOD_END
            if when is When.PERIOD_END:
                await self._sales.change_later(one, prices)
            elif not one.flexible and one.metered is not None:
                hint = f'"when": "{When.PERIOD_END}", or move it to billing mode flexible at Stripe'
                raise Refusal(Code.CONFLICT, "What was used so far would never be invoiced.", hint=hint)
            else:
                await self._flush(customer_id)
                await self._sales.change(one, prices)
            return await self._look(customer)

    async def cancel(self, customer_id: str, when: When = When.PERIOD_END) -> Standing | None:
        """The end, now or at the period's end. Returns what stands then."""
        customer = await self._customer(customer_id)
        with _refusing():
            one = await self._live(customer)
            if when is When.NOW:
                await self._flush(customer_id)
            await self._sales.cancel(one, at_end=when is When.PERIOD_END)
            return await self._look(customer)

    async def resume(self, customer_id: str) -> Standing | None:
        """Take back an end, or another plan, that was to come at the period's end. Returns what stands then."""
        customer = await self._customer(customer_id)
        with _refusing():
            await self._sales.resume(await self._live(customer))
            return await self._look(customer)

    async def standing(self, customer_id: str) -> Standing | None:
        """As it was decided last. Raises Refusal, Fault."""
        await self._customer(customer_id)
        return await self._desk.standing(customer_id)

    # --- what follows ---

    async def refresh(self, customer: Customer) -> Standing | None:
        """Fetch and decide; returns what stands then."""
        if customer.stripe_customer_id is None:
            return None
        for _ in range(_ATTEMPTS):
            # Read before it is fetched: whoever decides in between has a later answer than ours.
            before = await self._desk.standing(customer.id)
            found = await self._sales.subscriptions(customer.stripe_customer_id)
            decision = await self._decide(before, customer.id, found)
            if decision is None:
                return before
            if decision.ends:
                await self._try_flush(customer.id)
            if await self._desk.decided(decision, self._clock.now_ms()):
                return await self._desk.standing(customer.id)
        raise Fault("ledger", FaultKind.STORE, "others decide on this subscription all the time", retryable=True)

    async def refresh_account(self, account: str) -> Customer | None:
        """The same by the id at Stripe; None: it is nobody of ours."""
        customer = await self._desk.customer_of_account(account)
        if customer is not None:
            await self.refresh(customer)
        return customer

    async def link(self, customer_id: str, account: str) -> None:
        """A Checkout session that was opened for a customer is done: from now on this is his account. Raises NotTaken
        where he has another, and for an account that we did not open for him: whoever pays by a payment link can write
        into its URL for whom that is."""
        customer = await self._desk.customer(customer_id)
        if customer is None:
            log.info("a Checkout session is for no customer of ours")
            return
        held = customer.stripe_customer_id
        if held is None:
            if await self._sales.owner(account) != customer_id:
                raise NotTaken(f"a Checkout session names customer {customer_id}, and {account} was not opened for him")
            held = await self._desk.link_account(customer_id, account)
        if held != account:
            raise NotTaken(
                f"customer {customer_id} has the account {held}, and a Checkout session was paid by {account}"
            )

    async def out_of_grace(self, limit: int = 100) -> int:
        """Look at those whose grace is over; returns how many. One that cannot be looked at waits."""
        names = await self._desk.out_of_grace(self._clock.now_ms(), limit)
        for customer_id in names:
            customer = await self._desk.customer(customer_id)
            try:
                if customer is not None:
                    await self.refresh(customer)
            except (Fault, NotTaken, UnknownPrice) as failed:
                log.warning("the grace of %s is over, and it cannot be looked at: %s", customer_id, failed)
        return len(names)

    async def _decide(self, before: Standing | None, customer_id: str, found: Sequence[Subscribed]) -> Decision | None:
        gateway, now_ms = self._gateway(), self._clock.now_ms()
        terms = Terms(gateway.stripe.grace_days * DAY_MS, gateway.plans, gateway.keys.default_plan)
        plan_of = (await self._shelf.sold()).plan_of
        try:
            return decide(before, customer_id, found, plan_of, terms, now_ms)
        except UnknownPrice:
            plan_of = (await self._shelf.sold(fresh=True)).plan_of
            return decide(before, customer_id, found, plan_of, terms, now_ms)

    # --- for the actions ---

    async def _customer(self, customer_id: str) -> Customer:
        found = await self._desk.customer(customer_id)
        if found is None:
            raise Refusal(Code.NOT_FOUND, f"There is no customer {customer_id[:64]!r}.")
        return found

    def _plan(self, plan_id: str) -> Plan:
        plans = self._gateway().plans
        if plan_id not in plans:
            raise Refusal(
                Code.BAD_REQUEST, f"There is no plan {plan_id[:64]!r}; there are: {', '.join(sorted(plans))}."
            )
        return plans[plan_id]

    def _back(self) -> str:
        url = self._gateway().server.public_url
        if url is None:
            raise Refusal(Code.CONFLICT, "Nobody could come back from Stripe's page.", hint="set [server] public_url")
        return f"{url}/portal"

    async def _prices(self, plan: Plan) -> PlanPrices:
        prices = (await self._shelf.sold()).prices.get(plan.id)
        if prices is None:
            prices = (await self._shelf.sold(fresh=True)).prices.get(plan.id)
        if prices is None:
            hint = "a free plan is what follows an end; for another run 'gatekeeper stripe apply'"
            raise Refusal(Code.CONFLICT, f"Plan {plan.id!r} has no price at Stripe.", hint=hint)
        return prices

    async def _account(self, customer: Customer) -> str:
        if customer.stripe_customer_id is not None:
            return customer.stripe_customer_id
        made = await self._sales.open_account(customer)
        held = await self._desk.link_account(customer.id, made)
        if held is None:
            raise Refusal(Code.CONFLICT, "The customer's account at Stripe is another customer's.")
        return held

    async def _live(self, customer: Customer) -> Subscribed:
        account = customer.stripe_customer_id
        one = None if account is None else live(await self._sales.subscriptions(account))
        if one is None:
            hint = f"begin one: POST /admin/customers/{customer.id}/checkout"
            raise Refusal(Code.CONFLICT, "The customer has no subscription.", hint=hint)
        return one

    async def _present_price(self, one: Subscribed) -> Decimal:
        plan_of = (await self._shelf.sold()).plan_of
        names = [plan_of[item.price_id] for item in one.items if item.price_id in plan_of]
        plan = self._gateway().plans.get(names[0]) if names else None
        return Decimal(0) if plan is None else plan.monthly_price

    async def _flush(self, customer_id: str) -> None:
        """Raises Refusal when not all could be told: what is ended first would not be invoiced."""
        if await self._flusher.flush(customer_id):
            raise Refusal(Code.BILLER_UNAVAILABLE, "What was used so far could not be reported; nothing was changed.")
        await self._clock.sleep(_BEFORE_END_S)

    async def _try_flush(self, customer_id: str) -> None:
        try:
            left = await self._flusher.flush(customer_id)
        except Fault as fault:
            log.warning("the subscription of %s has ended, and what is owed waits: %s", customer_id, fault)
            return
        if left:
            # An hour is left until its invoice is closed; keeping him served would only add to it.
            log.warning("the subscription of %s has ended, and %d batches are still to be told", customer_id, len(left))

    async def _look(self, customer: Customer) -> Standing | None:
        """What stands after an action. It was done: where it cannot be looked at now, the webhook will."""
        try:
            return await self.refresh(customer)
        except (Fault, NotTaken, UnknownPrice) as failed:
            log.warning("%s was changed at Stripe, and could not be looked at: %s", customer.id, failed)
            return await self._desk.standing(customer.id)


@contextmanager
def _refusing() -> Iterator[None]:
    """What Stripe says, as a Refusal; a ledger that is away stays a Fault."""
    try:
        yield
    except NotTaken as refused:
        raise Refusal(Code.CONFLICT, f"Stripe says no: {refused.public}") from refused
    except Fault as fault:
        if fault.world == "ledger":
            raise
        raise Refusal(Code.BILLER_UNAVAILABLE, private=str(fault)) from fault
