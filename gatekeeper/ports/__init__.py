"""What the rooms above may ask of the world: one Protocol for each role, and the plain values that pass through.

The rule: a Protocol here is as small as the room that uses it needs; adapters implement several at once.
Money is nano-dollars, units are millionths, times are epoch milliseconds, all int.
"""

from typing import Protocol

from gatekeeper.ports.accounts import Customer, Customers, Holder, Key, Keys
from gatekeeper.ports.alerts import Alerts
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
    InFlight,
    Journal,
    Journaled,
    Ledger,
    Progress,
    RecordFilter,
    Settled,
    Settlement,
    UsageDay,
    UsageQuery,
    UsageRecord,
    UsageTotal,
)
from gatekeeper.ports.operators import Overlays, Spending
from gatekeeper.ports.people import Deed, Login, Logins, Repeats, Role, Session, Sessions, Trail
from gatekeeper.ports.reports import RecordsFound, Reports, Rollups
from gatekeeper.ports.subscriptions import Mailroom, Standings
from gatekeeper.ports.upstreams import Incoming, Outgoing, RawHeaders, Upstream
from gatekeeper.tallies import Tallies

__all__ = [
    "Alerts",
    "Attempt",
    "Audit",
    "Biller",
    "BucketState",
    "Catalogue",
    "CounterState",
    "Customer",
    "Customers",
    "Deed",
    "Deliveries",
    "Entry",
    "Events",
    "Extension",
    "HoldOrder",
    "Holder",
    "Holding",
    "InFlight",
    "Incoming",
    "Journal",
    "Journaled",
    "Key",
    "Keys",
    "Ledger",
    "Login",
    "Logins",
    "Made",
    "Mailroom",
    "Outbox",
    "Outgoing",
    "Overlays",
    "Progress",
    "RawHeaders",
    "RecordFilter",
    "RecordsFound",
    "Repeats",
    "Reports",
    "Role",
    "Rollups",
    "Session",
    "Sessions",
    "Settled",
    "Settlement",
    "Spending",
    "Standings",
    "Statements",
    "Store",
    "Trail",
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
    Audit,
    Events,
    Deliveries,
    Overlays,
    Spending,
    Reports,
    Rollups,
    Outbox,
    Statements,
    Standings,
    Mailroom,
    Logins,
    Sessions,
    Trail,
    Repeats,
    Alerts,
    Protocol,
):
    """All roles at once, as assembly hands them around."""

    def count_in(self, tallies: Tallies) -> None:
        """From now on batches are counted there."""
        ...

    async def in_flight(self) -> InFlight:
        """How much is held and waits to be told, of all processes."""
        ...

    async def ping(self) -> None:
        """Raises Fault when the database does not answer."""
        ...

    async def close(self) -> None:
        """Wait for what is under way, then close."""
        ...
