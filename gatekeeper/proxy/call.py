"""The one typed record that goes from room to room: ``Call`` as it came in, ``Admitted`` once we said yes.

The rule: what is only known after admission is only on ``Admitted``, so no room can ask too early.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from gatekeeper.config.gateway import Gateway, Route
from gatekeeper.errors import GatekeeperError, Refusal
from gatekeeper.frozen import record
from gatekeeper.ports import Holder, RawHeaders
from gatekeeper.rules.limits import CounterKey, Granted, RateLine, StockLine
from gatekeeper.rules.lines import Bounds
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.prices import TokenPrice
from gatekeeper.rules.requests import Ask


class Caller(Protocol):
    """The client's side of a call: where the request body comes from and the answer goes to."""

    def body(self) -> AsyncGenerator[bytes, None]:
        """The request body in pieces. Raises ``CallerGone`` when the client hangs up before its end."""
        ...

    async def start(self, status: int, headers: RawHeaders) -> None:
        """Send the head of the answer at once. Called at most once."""
        ...

    async def send(self, chunk: bytes) -> None:
        """Send a piece of the body; waiting is back-pressure. Silent when the client is gone."""
        ...

    async def end(self, chunk: bytes = b"") -> None:
        """Send the last piece and end the body."""
        ...

    def told(self, refusal: Refusal) -> bytes | None:
        """The refusal as the last event of a stream in the caller's dialect; None where the dialect has none."""
        ...

    def watch(self, on_gone: Callable[[], None]) -> None:
        """From now on call ``on_gone`` once if the client hangs up. The request body must have been read."""
        ...

    def unwatch(self) -> None:
        """Stop watching."""
        ...


class Rereadable(Protocol):
    """A request body that can be looked into."""

    def body(self) -> AsyncGenerator[bytes, None]:
        """As ``Caller.body``; called again it goes on where the last one ended."""
        ...

    def unread(self, read: bytes) -> None:
        """The next ``body`` begins with this."""
        ...


class CallerGone(GatekeeperError):
    """The client hung up before its request was complete. Nothing was admitted; nobody is there to be answered."""


class Aborted(GatekeeperError):
    """The answer had begun and cannot be ended cleanly: the client must see an abort (HTTP rules, row 15)."""


@record(frozen=True, slots=True)
class Credentials:
    """What the request says about who calls. ``keys`` are the distinct key texts found, in any of the known places;
    ``query`` is the query with a ``key=`` parameter cut out byte-exactly."""

    keys: tuple[str, ...]
    query: bytes
    user_id: str | None = None
    agent_id: str | None = None


@record(frozen=True, slots=True)
class Call:
    """A request on a configured route. ``path`` and ``credentials.query`` are raw bytes; ``headers`` as received."""

    id: str
    gateway: Gateway
    route: Route
    names: Mapping[str, str]
    method: str
    path: bytes
    headers: RawHeaders
    credentials: Credentials
    scheme: str
    client_host: str | None
    started_ms: int
    started_s: float
    # Made when it is first needed, then asked a dozen times.
    _named: dict[bytes, bytes] = field(default_factory=dict, init=False, repr=False, compare=False)

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, by its lower-case name."""
        named = self._named
        if not named:
            for key, value in self.headers:
                named.setdefault(key.lower(), value)
        return named.get(name)


@record(frozen=True, slots=True)
class Candidate:
    """Who may serve a call: an upstream, with what it is asked and at which price. ``path`` and ``names`` are those of
    the call, with this model where it stands in the path."""

    upstream: str
    ask: Ask
    price: TokenPrice | None
    bounds: Bounds
    path: bytes
    names: Mapping[str, str]

    @property
    def estimate_nano(self) -> int | None:
        """Usual input and output at this price: what is known when the headers leave."""
        return None if self.price is None else self.bounds.rate_dollars.amount


@record(frozen=True, slots=True)
class Admitted:
    """A call that holds what it may use, as one candidate serves it. From here on settle always runs."""

    call: Call
    candidate: Candidate
    holder: Holder
    plan: Plan
    ask: Ask
    user_id: str | None
    agent_id: str | None
    body: bytes | AsyncIterator[bytes]
    content_length: int | None
    request_bytes: int
    admitted_month: str
    granted: Granted
    injected_usage: bool = False
    # The body without our injection, for the one retry after a 400 that names it.
    plain_body: bytes | None = None
    clamped_output_tokens: int | None = None
    input_estimate_tokens: int = 0
    price: TokenPrice | None = None
    # See ``Candidate.estimate_nano``.
    cost_estimate_nano: int | None = None
    # The hold grows with the output; a refused extension cuts the stream.
    extends: bool = False
    # What it counts for the input, in millionths of a unit; and whether a limit in dollars grows with it.
    units_fixed_micro: int = 0
    grows_dollars: bool = False
    # Who is tried next, and the body as it came, to be made ready for them.
    others: tuple[Candidate, ...] = ()
    original: bytes | None = None
    # The model that the caller asked for; ``ask.model`` is the one that serves.
    asked_model: str | None = None
    # The counters of soft limits, and why a cheaper model serves.
    soft: tuple[CounterKey, ...] = ()
    note: str | None = None
    # What the call was to be held on: it counts there, whatever becomes of its hold.
    stock: tuple[StockLine, ...] = ()
    rates: tuple[RateLine, ...] = ()
    # Nothing is held, because the ledger was away: so much is counted of its key's allowance.
    open_micro: int | None = None

    @property
    def model_requested(self) -> str | None:
        """What the caller asked for, where another model serves."""
        return self.asked_model if self.asked_model != self.ask.model else None


class Interrupt:
    """Cancels the task of one call from outside, at most once, and remembers why.

    A cancellation that we asked for and one that comes from a shutdown look the same inside the task; ``reason``
    tells them apart. ``absorb`` takes our own cancellation back so that the call can go on to settle.
    """

    CLIENT_GONE = "client_gone"
    HOLD_LOST = "hold_lost"

    def __init__(self, task: "asyncio.Task[Any] | None" = None) -> None:
        self._task = task or asyncio.current_task()
        self._armed = True
        self._landed = False
        self.reason: str | None = None

    def fire(self, reason: str) -> None:
        """Cancel the call's task, unless it is past the point where that helps."""
        if self._armed and self.reason is None:
            self.reason = reason
            if self._task is not None:
                self._task.cancel()

    def absorb(self) -> bool:
        """To be called where CancelledError was caught: True if it was ours (it is taken back), else False."""
        if self.reason is None or self._landed:
            return False
        self._landed = True
        if self._task is not None:
            self._task.uncancel()
        return True

    async def disarm(self) -> None:
        """No further ``fire`` has an effect; one that was sent but has not landed yet is received here."""
        self._armed = False
        if self.reason is not None and not self._landed:
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                if not self.absorb():
                    raise


@dataclass(slots=True)
class Facts:
    """What is known of the answer, kept as it arrives and never only at the end (HTTP rules, row 18)."""

    status: int | None = None
    started: bool = False
    upstream_bytes: int = 0
    first_byte_ms: int | None = None
    response_headers: Mapping[str, str] = field(default_factory=dict)
