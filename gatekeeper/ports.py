"""What the rooms above may ask of the world: one Protocol for each role, and the plain values that pass through.

The rule: a Protocol here is as small as the room that uses it needs; adapters implement several at once.
Money is nano-dollars, units are millionths, times are epoch milliseconds, all int.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from gatekeeper.config.gateway import UpstreamConfig
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.rules.charges import Counted
from gatekeeper.rules.diagnosis import Figures
from gatekeeper.rules.limits import BucketKey, CounterKey, Denied, Granted, RateLine, StockLine
from gatekeeper.rules.plans import Plan

RawHeaders = list[tuple[bytes, bytes]]


# --- upstreams ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request exactly as it goes on the wire. ``target`` is path and query as bytes; ``headers`` in order, with
    Host, without any framing field; ``body`` is the whole (Content-Length) or its pieces.

    ``content_length`` is the length of a body that comes in pieces, None sends it chunked.
    """

    upstream: UpstreamConfig
    method: str
    target: bytes
    headers: RawHeaders
    body: bytes | AsyncIterator[bytes] = b""
    content_length: int | None = None


class Incoming(Protocol):
    """The answer of an upstream, head first."""

    @property
    def status(self) -> int:
        """HTTP status; never 1xx."""
        ...

    @property
    def headers(self) -> RawHeaders:
        """As received: order, duplicates and case kept; hop-by-hop fields still in."""
        ...

    async def read(self) -> bytes:
        """All body bytes that have gathered, chunked framing removed, nothing decoded; ``b""`` is the clean end.

        Raises Fault (reset, truncated, idle timeout, protocol). Waiting applies back-pressure.
        """
        ...


class Upstream(Protocol):
    """A client for streaming HTTP."""

    def open(self, outgoing: Outgoing) -> AbstractAsyncContextManager[Incoming]:
        """Send the request; entering waits for the head. Raises Fault. Leaving before the end of the body (also by
        cancellation) closes the connection; leaving after it gives the connection back to the pool."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


# --- stores: customers and keys -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody who pays. ``anchor_ms`` is the start of the first billing period."""

    id: str
    name: str
    plan_id: str
    created_ms: int
    anchor_ms: int
    email: str | None = None
    disabled_ms: int | None = None
    stripe_customer_id: str | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A customer's key. The key itself is not stored: ``shown`` is its first characters, for people."""

    id: str
    customer_id: str
    name: str
    shown: str
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    last_used_ms: int | None = None
    # None allows all; names of routes; model patterns with `*`.
    routes: tuple[str, ...] | None = None
    models: tuple[str, ...] | None = None
    user_id: str | None = None
    agent_id: str | None = None
    may_assert: bool = False


@dataclass(frozen=True, slots=True)
class Holder:
    """Who calls: a key with its customer."""

    key: Key
    customer: Customer


class Customers(Protocol):
    """The list of customers."""

    async def create_customer(self, customer: Customer) -> bool:
        """False when the id exists."""
        ...

    async def customer(self, customer_id: str) -> Customer | None:
        """One customer, or None."""
        ...

    async def customers(self, *, after: str = "", limit: int = 100) -> Sequence[Customer]:
        """In the order of their ids, those after ``after``."""
        ...

    async def update_customer(self, customer: Customer) -> bool:
        """Replaces all fields but id and created_ms; False when there is none."""
        ...


class Keys(Protocol):
    """Keys, found by digest only."""

    async def create_key(self, key: Key, digest: str) -> bool:
        """False when id or digest exists. ``digest`` is the hex SHA-256 of the whole key."""
        ...

    async def holder(self, digest: str) -> Holder | None:
        """Also finds revoked and expired keys: saying which it is belongs to the rules."""
        ...

    async def key(self, key_id: str) -> Key | None:
        """One key, or None."""
        ...

    async def keys(self, customer_id: str | None = None, *, after: str = "", limit: int = 100) -> Sequence[Key]:
        """In the order of their ids, those after ``after``."""
        ...

    async def revoke_key(self, key_id: str, now_ms: int) -> bool:
        """False when there is no such key; revoking twice keeps the first time."""
        ...

    async def touch_keys(self, last_used_ms: Mapping[str, int]) -> None:
        """Record last use, many keys at once; never moves a time back."""
        ...


# --- stores: the ledger ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HoldOrder:
    """All that one call wants to hold, all-or-nothing. The store decides with ``rules`` inside one transaction.

    Output: ``output_tokens`` are wanted, as few as ``output_tokens_min`` are accepted (equal: not clampable).
    ``admitted_month`` is ``YYYY-MM`` (UTC) and stays with the call for ever. ``progress_units_micro`` is what is
    charged if nobody ever settles (see ``Ledger.recover``); it starts at 0.
    """

    call_id: str
    admitted_month: str
    customer_id: str
    key_id: str | None
    user_id: str | None
    agent_id: str | None
    plan_id: str
    route: str
    upstream: str
    model: str | None
    owner: str
    now_ms: int
    expires_ms: int
    output_tokens: int
    output_tokens_min: int
    stock: tuple[StockLine, ...] = ()
    rates: tuple[RateLine, ...] = ()


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """What is known of one call when it is over. Billing reads this and nothing else.

    ``units_micro`` is what is charged against quota (0 where nothing is), ``source`` says how it is known.
    ``charge_nano`` is computed by the ledger when it settles; ``cost_nano`` is the provider's price, None unknown.
    """

    call_id: str
    admitted_month: str
    customer_id: str
    key_id: str | None
    user_id: str | None
    agent_id: str | None
    plan_id: str
    route: str
    upstream: str
    model: str | None
    method: str
    path: str
    status: int | None
    outcome: Outcome
    streamed: bool
    started_ms: int
    ended_ms: int
    first_byte_ms: int | None
    units_micro: int
    source: Mark
    note: str | None = None
    charge_nano: int = 0
    cost_nano: int | None = None
    usage: Mapping[str, Any] | None = None
    meters: Mapping[str, str] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    meter_hash: str = ""
    request_bytes: int = 0
    response_bytes: int = 0
    response_id: str | None = None
    overrun_micro: int = 0


@dataclass(frozen=True, slots=True)
class Settlement:
    """The end of a call. ``actual`` is what each dimension really took (``units``, ``requests``, ``dollars``,
    ``units:NAME``); a dimension that is missing took nothing. ``plan`` prices the overage."""

    record: UsageRecord
    actual: Mapping[str, int]
    plan: Plan | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class Settled:
    """``first`` is False when the call was settled before: nothing was counted this time. ``record`` is the stored
    one, with its charge."""

    first: bool
    record: UsageRecord


@dataclass(frozen=True, slots=True)
class Progress:
    """A sign of life of one open hold, and what would be charged if it were the last."""

    call_id: str
    units_micro: int
    output_seen: bool


@dataclass(frozen=True, slots=True)
class Extension:
    """More output for a call in flight: ``output_tokens`` more are wanted, ``output_tokens_min`` are accepted.

    ``units_micro`` and ``output_seen`` are the progress so far, kept like a ``Progress`` whatever the answer is.
    """

    call_id: str
    output_tokens: int
    output_tokens_min: int
    units_micro: int
    output_seen: bool
    expires_ms: int
    now_ms: int


@dataclass(frozen=True, slots=True)
class CounterState:
    """A stock counter as it stands."""

    key: CounterKey
    used: int
    held: int


@dataclass(frozen=True, slots=True)
class BucketState:
    """A rate bucket as it stands: ``spent`` decayed to the database's present instant, in the stored unit."""

    key: BucketKey
    spent: int


class Ledger(Protocol):
    """Holds and settles. Every method is one transaction; each raises Fault (world ``ledger``) when it cannot."""

    async def hold(self, order: HoldOrder) -> Granted | Denied:
        """Hold on all lines or on none."""
        ...

    async def extend(self, extension: Extension) -> Granted | Denied | None:
        """Hold more on the stock lines of an open hold (rates never cut a stream). ``Granted.output_tokens`` is how
        many more were granted. Denied: nothing more is held. None: the hold is not open (any more), stop."""
        ...

    async def settle(self, settlement: Settlement) -> Settled:
        """Record, used += actual, held -= hold, charge owed: one transaction, counted once however often called."""
        ...

    async def renew(self, progress: Sequence[Progress], expires_ms: int) -> Sequence[str]:
        """Prolong open holds; returns the call ids that are no longer open (their owner must stop)."""
        ...

    async def recover(self, now_ms: int, plans: Mapping[str, Plan], *, limit: int = 100) -> int:
        """Settle holds whose time is over, at their last progress (source ``estimated``, note ``recovered``);
        returns how many."""
        ...

    async def counters(self, keys: Sequence[CounterKey]) -> Sequence[CounterState]:
        """The state of each counter, zeros where there is no row."""
        ...

    async def buckets(self, keys: Sequence[tuple[BucketKey, int]]) -> Sequence[BucketState]:
        """The state of each bucket; each key comes with its cap, which is its decay per ``per_ms``."""
        ...


@dataclass(frozen=True, slots=True)
class Journaled:
    """A settlement as the journal kept it: without the plan, which is found again by ``record.plan_id``."""

    record: UsageRecord
    actual: Mapping[str, int]
    now_ms: int


class Journal(Protocol):
    """Where settlements wait, durably, while the ledger is away."""

    async def append(self, settlement: Settlement) -> None:
        """Durable when it returns. Raises Fault."""
        ...

    async def done(self, call_id: str) -> None:
        """The ledger has it now. Never raises."""
        ...

    async def orphans(self) -> Sequence[Journaled]:
        """What processes that are gone left behind; each is given to one caller. Raises Fault."""
        ...

    async def close(self) -> None:
        """What is still open is left for whoever comes next."""
        ...


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """Sums over records."""

    requests: int = 0
    units_micro: int = 0
    charge_nano: int = 0
    cost_nano: int = 0
    last_request_ms: int | None = None


@dataclass(frozen=True, slots=True)
class UsageDay:
    """Sums over one UTC day (``YYYY-MM-DD``)."""

    day: str
    total: UsageTotal


class UsageQuery(Protocol):
    """Reading what was used. Bounds: ``start_ms`` inclusive, ``end_ms`` exclusive, on the time of admission."""

    async def usage_total(
        self, start_ms: int, end_ms: int, *, customer_id: str | None = None, key_id: str | None = None
    ) -> UsageTotal:
        """Sums, filtered by customer and key where given."""
        ...

    async def usage_by_day(
        self, start_ms: int, end_ms: int, *, customer_id: str | None = None, key_id: str | None = None
    ) -> Sequence[UsageDay]:
        """One row a day that has records, oldest first."""
        ...

    async def record(self, call_id: str, *, customer_id: str | None = None) -> UsageRecord | None:
        """One record; with ``customer_id`` only that customer's."""
        ...

    async def records(
        self, *, customer_id: str | None = None, before_ms: int | None = None, limit: int = 100
    ) -> Sequence[UsageRecord]:
        """Latest first."""
        ...


# --- stores: looking back --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the records as it was appended, with the counters it counted on. ``corrects`` names the call whose
    recovery it corrects: then its figures are differences."""

    record: UsageRecord
    counted: tuple[Counted, ...]
    corrects: str | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """A hold as it stands: what is held on each counter (key, limit, amount). ``state`` is that of ``HoldState``."""

    call_id: str
    customer_id: str
    plan_id: str
    route: str
    model: str | None
    state: str
    started_ms: int
    expires_ms: int
    output_tokens: int
    progress_units_micro: int
    held: tuple[tuple[CounterKey, str, int], ...]


class Audit(Protocol):
    """Looking back, for whoever checks, explains and replays. Nothing here writes; each method reads one snapshot."""

    async def schema(self) -> tuple[int, int]:
        """(the newest migration of the database, the newest that this code knows)."""
        ...

    async def figures(self, since_ms: int, overdue_ms: int, *, limit: int = 20) -> Figures:
        """All that ``diagnosis`` asks for. Marks are counted from ``since_ms``; a hold that expired before
        ``overdue_ms`` is overdue; of what is wrong at most ``limit`` rows of a kind are told."""
        ...

    async def entries(self, call_id: str) -> Sequence[Entry]:
        """The record of a call, then its correction where there is one."""
        ...

    async def holding(self, call_id: str) -> Holding | None:
        """The hold of a call in flight, or of one that was recovered in the last days."""
        ...

    async def plans_used(self, start_ms: int, end_ms: int) -> Sequence[str]:
        """The ids of the plans of the records between two instants, in order."""
        ...

    async def next_user(self, after: str) -> tuple[str, int] | None:
        """The first customer (id, start of the first billing period) after an id who has any records."""
        ...

    async def history(
        self, customer_id: str, start_ms: int, end_ms: int, *, after: tuple[int, str] | None = None, limit: int = 1_000
    ) -> Sequence[Entry]:
        """A page of a customer's records, in the order of their admission; ``after`` is the last one's ``started_ms``
        and ``call_id``."""
        ...


class Store(Customers, Keys, Ledger, UsageQuery, Protocol):
    """All roles at once, as assembly hands them around."""

    async def ping(self) -> None:
        """Raises Fault when the database does not answer."""
        ...

    async def close(self) -> None:
        """Wait for what is under way, then close."""
        ...
