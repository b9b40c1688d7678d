"""The one typed record that goes from room to room: ``Call`` as it came in, ``Admitted`` once we said yes.

The rule: what is only known after admission is only on ``Admitted``, so no room can ask too early.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gatekeeper.config.gateway import Gateway, Route
from gatekeeper.errors import GatekeeperError, Refusal
from gatekeeper.ports import Holder, RawHeaders
from gatekeeper.rules.limits import Granted
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


class CallerGone(GatekeeperError):
    """The client hung up before its request was complete. Nothing was admitted; nobody is there to be answered."""


class Aborted(GatekeeperError):
    """The answer had begun and cannot be ended cleanly: the client must see an abort (HTTP rules, row 15)."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """What the request says about who calls. ``keys`` are the distinct key texts found, in any of the known places;
    ``query`` is the query with a ``key=`` parameter cut out byte-exactly."""

    keys: tuple[str, ...]
    query: bytes
    user_id: str | None = None
    agent_id: str | None = None


@dataclass(frozen=True, slots=True)
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

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, by its lower-case name."""
        return next((value for key, value in self.headers if key.lower() == name), None)


@dataclass(frozen=True, slots=True)
class Admitted:
    """A call that holds what it may use. From here on settle always runs."""

    call: Call
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
    # Usual input and output at that price: what is known when the headers leave.
    cost_estimate_nano: int | None = None
    # The hold grows with the output; a refused extension cuts the stream.
    extends: bool = False


class Interrupt:
    """Cancels the task of one call from outside, at most once, and remembers why.

    A cancellation that we asked for and one that comes from a shutdown look the same inside the task; ``reason``
    tells them apart. ``absorb`` takes our own cancellation back so that the call can go on to settle.
    """

    CLIENT_GONE = "client_gone"
    HOLD_LOST = "hold_lost"

    def __init__(self) -> None:
        self._task = asyncio.current_task()
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
