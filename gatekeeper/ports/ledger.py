"""Holds and settles, and the journal that keeps them while the ledger is away; what was used."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from gatekeeper.frozen import record
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.rules.limits import BucketKey, CounterKey, Denied, Granted, RateLine, StockLine
from gatekeeper.rules.plans import Plan


@record(frozen=True, slots=True)
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


@record(frozen=True, slots=True)
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
    # What the caller asked for, where another model served (``model``).
    model_requested: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A try of a call that did not serve it. Numbers count all tries, also the one that served. ``fault`` is a
    ``FaultKind``, or ``breaker_open``: then nothing was sent; with a ``status`` instead the upstream answered so."""

    number: int
    upstream: str
    model: str | None
    started_ms: int
    ended_ms: int
    status: int | None = None
    fault: str | None = None


@record(frozen=True, slots=True)
class Settlement:
    """The end of a call. ``actual`` is what each dimension really took (``units``, ``requests``, ``dollars``,
    ``units:NAME``); a dimension that is missing took nothing. ``plan`` prices the overage.

    With ``once_per_response`` a response that another call of the customer has paid for is not charged again (see
    ``rules.replays``). ``stock`` and ``rates`` are what the call was to be held on: where its hold is not known to the
    ledger, it counts on them; None counts it on the limits of ``plan``."""

    record: UsageRecord
    actual: Mapping[str, int]
    plan: Plan | None
    now_ms: int
    once_per_response: bool = False
    stock: tuple[StockLine, ...] | None = None
    rates: tuple[RateLine, ...] = ()
    # The tries that did not serve; written with the record.
    attempts: tuple[Attempt, ...] = ()


class Settled:
    """``first`` is False when the call was settled before: nothing was counted this time. ``record`` is the stored
    one, with its charge and overrun; made when it is asked for, because few ask."""

    __slots__ = ("_charge_nano", "_overrun_micro", "_record", "first")

    def __init__(
        self, first: bool, record: UsageRecord, charge_nano: int | None = None, overrun_micro: int | None = None
    ) -> None:
        self.first = first
        self._record = record
        self._charge_nano = record.charge_nano if charge_nano is None else charge_nano
        self._overrun_micro = record.overrun_micro if overrun_micro is None else overrun_micro

    @property
    def record(self) -> UsageRecord:
        """The record as it is known in the end."""
        record, charge_nano, overrun_micro = self._record, self._charge_nano, self._overrun_micro
        if record.charge_nano != charge_nano or record.overrun_micro != overrun_micro:
            self._record = replace(record, charge_nano=charge_nano, overrun_micro=overrun_micro)
        return self._record

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Settled):
            return NotImplemented
        return (self.first, self.record) == (other.first, other.record)

    def __hash__(self) -> int:
        return hash((self.first, self._record.call_id))

    def __repr__(self) -> str:
        return f"Settled(first={self.first}, record={self.record!r})"


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


class InFlight(NamedTuple):
    """What is held, and what waits to be told, of all processes."""

    holds: int
    output_tokens: int
    deliveries_waiting: int
    deliveries_dead: int


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
        returns how many. One whose call is on record is only released; one that cannot be settled keeps no other."""
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
    once_per_response: bool = False
    stock: tuple[StockLine, ...] | None = None
    rates: tuple[RateLine, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    def settlement(self, plan: Plan | None) -> Settlement:
        """The settlement, with the plan that is in force now."""
        return Settlement(
            self.record, self.actual, plan, self.now_ms, self.once_per_response, self.stock, self.rates, self.attempts
        )


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


@dataclass(frozen=True, slots=True)
class RecordFilter:
    """Which records are asked for; None takes any. Bounds as of ``UsageQuery``. A user or agent is told by its own
    name, a model by its whole one."""

    customer_id: str | None = None
    key_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    plan_id: str | None = None
    route: str | None = None
    model: str | None = None
    outcome: str | None = None
    source: str | None = None
    status: int | None = None
    # 4 for 400 to 499; and a part of the call's id.
    status_class: int | None = None
    call_id: str | None = None
    start_ms: int = 0
    end_ms: int = 2**62


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

    async def attempts(self, call_id: str) -> Sequence[Attempt]:
        """The tries that did not serve a call, in order."""
        ...

    async def find_records(
        self, wanted: RecordFilter, *, after: tuple[int, str] | None = None, limit: int = 100
    ) -> Sequence[UsageRecord]:
        """Latest first, as they were appended; ``after`` is the ``started_ms`` and ``call_id`` of the last one seen. A
        filter that few records pass reads all of the time between its bounds."""
        ...

    async def records(
        self, *, customer_id: str | None = None, before_ms: int | None = None, limit: int = 100
    ) -> Sequence[UsageRecord]:
        """Latest first."""
        ...
