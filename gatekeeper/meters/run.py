"""One evaluation at work: the recorded inputs, the variables, the slots, and the evidence that is written down.

The rule: everything that an expression can see is in here; nothing is read from the clock or the process (Law 5).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Protocol

from gatekeeper.frozen import record
from gatekeeper.meters.folds import FELL_BACK, READ, Marked
from gatekeeper.meters.names import SECRET_HEADERS
from gatekeeper.meters.reading import Outcome
from gatekeeper.meters.values import Unmeasurable
from gatekeeper.wire.events import Event

if TYPE_CHECKING:
    from gatekeeper.meters.slots import Slot

# Items of lists that one evaluation may walk: a response of some thousand items passes, nested ranges do not (Law 3).
STEPS_MAX = 50_000
# Shorter values are not counted: nearly all of them.
_FREE_SIZE = 64
# The frame's first place holds the request; variables follow.
REQUEST_PLACE = 0
UNSET: Any = object()


class Prices(Protocol):
    """Price look-up, as the language needs it."""

    def cost(self, model: str, usage: Mapping[str, Any], at_ms: int) -> Decimal | None:
        """Dollars for a usage record (the shape of ``usage()``) at a time; None without a price. Does not raise."""
        ...


class Tokenizer(Protocol):
    """Counting tokens, as the language needs it."""

    def count(self, text: str, model: str | None) -> int:
        """How many tokens a text probably has. Does not raise."""
        ...


@record(frozen=True, slots=True)
class RequestView:
    """The request as expressions see it. ``headers`` come without any that carries a key; ``query`` likewise."""

    method: str = "POST"
    path: str = ""
    query: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    request_bytes: int = 0
    model: str | None = None
    customer_id: str | None = None
    user_id: str | None = None
    agent_id: str | None = None
    plan_id: str | None = None
    key_id: str | None = None
    started_at_ms: int = 0


@dataclass(slots=True)
class End:
    """What is known of the answer."""

    status: int | None = None
    content_type: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    response_bytes: int = 0
    outcome: Outcome = Outcome.COMPLETE
    duration_ms: int = 0
    first_byte_ms: int | None = None


class Run:
    """One meter over one call. ``recorded`` is given when stored evidence is evaluated again."""

    __slots__ = (
        "end", "evidence", "fallbacks_are_zero", "frame", "prefilter", "prices", "recorded", "slots", "steps",
        "tokenizer", "view",
    )  # fmt: skip

    def __init__(
        self,
        view: RequestView,
        places: int,
        *,
        prices: Prices | None = None,
        tokenizer: Tokenizer | None = None,
        prefilter: bool = True,
        recorded: Mapping[str, Any] | None = None,
    ) -> None:
        self.view = view
        self.end = End()
        self.frame: list[Any] = [UNSET] * places
        body = view.body
        self.frame[REQUEST_PLACE] = Event(0, "request", "", body) if body is not None else None
        self.slots: list[Slot] = []
        self.steps = STEPS_MAX
        self.prices = prices
        self.tokenizer = tokenizer
        self.prefilter = prefilter
        self.recorded = recorded
        self.evidence: dict[str, Any] = {}
        self.fallbacks_are_zero = False

    def step(self, count: int = 1) -> None:
        """Counts work: items of a list that are walked, or what takes as long."""
        self.steps -= count
        if self.steps < 0:
            raise Unmeasurable(f"the expression takes more than {STEPS_MAX} steps")

    def weigh(self, value: Any) -> None:
        """Counts the work that a function of a long value takes: a step for 1,000 characters or 8 items."""
        if type(value) is str or type(value) is list or type(value) is dict:
            size = len(value)
            if size > _FREE_SIZE:
                self.step(size >> 10 if type(value) is str else size >> 3)

    def fallback(self, marked: Marked) -> Marked:
        """A value that stands in for one that was null: ``default`` unless it was read from the answer itself."""
        value, marks = marked
        if marks & READ or value is None:
            return marked
        if self.fallbacks_are_zero and isinstance(value, int | Decimal) and not isinstance(value, bool):
            value = Decimal(0)
        return value, marks | FELL_BACK


Code = Callable[[Run], Marked]

_VIEW: dict[str, Callable[[RequestView], Any]] = {
    "requestBody": lambda view: None if view.body is None else view.body.decode("utf-8", "replace"),
    "requestBytes": lambda view: view.request_bytes or len(view.body or b""),
    "method": lambda view: view.method,
    "path": lambda view: view.path,
    "query": lambda view: view.query,
    "headers": lambda view: _readable(view.headers),
    "model": lambda view: view.model,
    "customerID": lambda view: view.customer_id,
    "userID": lambda view: view.user_id,
    "agentID": lambda view: view.agent_id,
    "planID": lambda view: view.plan_id,
    "keyID": lambda view: view.key_id,
    "startedAt": lambda view: view.started_at_ms,
}

_END: dict[str, Callable[[End], Any]] = {
    "status": lambda end: end.status,
    "contentType": lambda end: end.content_type,
    "respHeaders": lambda end: _readable(end.headers),
    "responseBytes": lambda end: end.response_bytes,
    "outcome": lambda end: str(end.outcome),
    "durationMs": lambda end: end.duration_ms,
    "firstByteMs": lambda end: end.first_byte_ms,
}


def _readable(headers: Mapping[str, str]) -> dict[str, str]:
    """Names in lower case; what carries a key is taken out here too: evidence is stored."""
    return {name.lower(): text for name, text in headers.items() if name.lower() not in SECRET_HEADERS}


def named(name: str) -> Code:
    """Reads a name of the request or of the answer's end."""
    if name in _VIEW:
        look = _VIEW[name]
        return lambda run: (look(run.view), 0)
    see = _END[name]
    return lambda run: (see(run.end), READ)
