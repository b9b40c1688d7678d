"""What the rooms above may ask of the world: one Protocol for each role, and the plain values that pass through.

The rule: a Protocol here is as small as the room that uses it needs; adapters implement several at once.
Money is nano-dollars, units are millionths, times are epoch milliseconds, all int.
"""

from typing import Protocol

from gatekeeper.ports.accounts import Customer, Customers, Holder, Key, Keys
from gatekeeper.ports.audit import Audit, Entry, Holding
from gatekeeper.ports.billing import Biller, Outbox, Statements
from gatekeeper.ports.catalogue import Catalogue, Made
from gatekeeper.ports.events import Deliveries, Events
from gatekeeper.ports.ledger import (
    Attempt,
    BucketState,
    CounterState,
    Extension,
    HoldOrder,
    Journal,
    Journaled,
    Ledger,
    Progress,
    Settled,
    Settlement,
    UsageDay,
    UsageQuery,
    UsageRecord,
    UsageTotal,
)
from gatekeeper.ports.operators import Overlays, Spending
from gatekeeper.ports.subscriptions import Mailroom, Standings
from gatekeeper.ports.upstreams import Incoming, Outgoing, RawHeaders, Upstream

__all__ = [
    "Attempt",
    "Audit",
    "Biller",
    "BucketState",
    "Catalogue",
    "CounterState",
    "Customer",
    "Customers",
    "Deliveries",
    "Entry",
    "Events",
    "Extension",
    "HoldOrder",
    "Holder",
    "Holding",
    "Incoming",
    "Journal",
    "Journaled",
    "Key",
    "Keys",
    "Ledger",
    "Made",
    "Mailroom",
    "Outbox",
    "Outgoing",
    "Overlays",
    "Progress",
    "RawHeaders",
    "Settled",
    "Settlement",
    "Spending",
    "Standings",
    "Statements",
    "Store",
    "Upstream",
    "UsageDay",
    "UsageQuery",
    "UsageRecord",
    "UsageTotal",
]


class Store(
    Customers,
    Keys,
    Ledger,
    UsageQuery,
    Events,
    Deliveries,
    Overlays,
    Spending,
    Outbox,
    Statements,
    Standings,
    Mailroom,
    Protocol,
):
    """All roles at once, as assembly hands them around."""

    async def ping(self) -> None:
        """Raises Fault when the database does not answer."""
        ...

    async def close(self) -> None:
        """Wait for what is under way, then close."""
        ...
