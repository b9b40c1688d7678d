"""A batch that no invoice will count any more becomes an amount on the customer's next one, because a person says so.

The rule: one amount for a batch, however often it is asked for; and never while it could still be counted.
"""

from typing import NamedTuple, Protocol

from gatekeeper.errors import Code, Refusal
from gatekeeper.money import nano_to_dollars, rounded
from gatekeeper.ports import Customers, Outbox, Statements
from gatekeeper.ports.subscriptions import Item, Sales
from gatekeeper.rules.billing import Batch, BatchState, arrives_late


class Shelves(Customers, Outbox, Statements, Protocol):
    """What is asked of the store."""


class Charged(NamedTuple):
    """What a batch comes to, in whole cents. ``item_id`` None: nothing was made, because it comes to nothing or was
    only looked at."""

    batch: Batch
    cents: int
    item_id: str | None


async def charge(
    shelves: Shelves, sales: Sales, batch_id: str, now_ms: int, *, uncounted: bool = False, look: bool = False
) -> Charged:
    """Make an invoice item of a batch that was given up, or that arrived when its invoice was closed, of what its calls
    were charged above what their plan includes; then it is settled. ``uncounted``: a person has looked, and the biller
    has it on no invoice. ``look``: only say what it comes to. Raises Refusal, Fault and NotTaken; cancelled: ask again,
    nothing is made twice."""
    batch = await shelves.batch(batch_id)
    if batch is None:
        raise Refusal(Code.NOT_FOUND, f"There is no batch {batch_id!r}.", hint="see 'gatekeeper outbox list'")
    _must_be_lost(batch, uncounted=uncounted or look)
    nano = await shelves.batch_charge_nano(batch.id)
    customer = await shelves.customer(batch.customer_id)
    if nano is None or customer is None or customer.stripe_customer_id is None:
        missing = "its calls are forgotten" if nano is None else "its customer has no account at Stripe"
        raise Refusal(Code.CONFLICT, f"Batch {batch.id} cannot be charged: {missing}.")
    cents = rounded(nano_to_dollars(nano), 100)
    if look:
        return Charged(batch, cents, None)
    item_id = None
    if cents:
        text = f"{batch.value:,} units used earlier"
        item = Item(customer.stripe_customer_id, cents, text, batch.id, batch.period_start_ms, batch.ts_ms)
        item_id = await sales.charge(item)
    if batch.state is BatchState.DEAD:
        await shelves.settle_by_hand(batch.id, now_ms, told=True)
    return Charged(batch, cents, item_id)


def _must_be_lost(batch: Batch, *, uncounted: bool) -> None:
    late = batch.state is BatchState.SENT and (batch.late or arrives_late(batch, batch.sent_ms or 0))
    if batch.state is not BatchState.DEAD and not late:
        hint = "only what was given up, or arrived when its invoice was closed, is charged by hand"
        raise Refusal(Code.CONFLICT, f"Batch {batch.id} is {batch.state}.", hint=hint)
    if (late or batch.first_sent_ms is not None) and not uncounted:
        hint = "look at the customer's invoices at Stripe; where it is on none, say --uncounted"
        raise Refusal(Code.CONFLICT, f"Batch {batch.id} may have been counted.", hint=hint)
