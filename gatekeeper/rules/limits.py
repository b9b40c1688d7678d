"""What a limit is, and the figures that one call holds against it. Types only; the decisions stand in
``budgets`` (stock limits) and ``rates`` (rate limits).

All amounts are integers in the dimension's stored unit: millionths of a unit for ``units``, ``units:NAME`` and
``requests`` (one request = 1,000,000), nano-dollars for ``dollars``.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, TypeAlias

from gatekeeper.errors import LimitState
from gatekeeper.frozen import record

ONE_REQUEST = 1_000_000
UNITS = "units"
REQUESTS = "requests"
DOLLARS = "dollars"


class Scope(StrEnum):
    """Whose use a limit counts."""

    GLOBAL = "global"
    PLAN = "plan"
    CUSTOMER = "customer"
    USER = "user"
    AGENT = "agent"
    KEY = "key"
    ROUTE = "route"
    MODEL = "model"


class Pair(StrEnum):
    """Two scopes at once: a limit counts each of their combinations by itself. One spelling of each, in the order of
    ``Scope``, so that a model is always the last part and the only one that may hold a comma.

    Left out is what says nothing new: users, agents and keys are a customer's own; and what would begin anew when a
    customer changes the plan: a limit in the plan's own file holds for each of its customers.
    """

    PLAN_ROUTE = "plan,route"
    PLAN_MODEL = "plan,model"
    CUSTOMER_ROUTE = "customer,route"
    CUSTOMER_MODEL = "customer,model"
    USER_AGENT = "user,agent"
    USER_KEY = "user,key"
    USER_ROUTE = "user,route"
    USER_MODEL = "user,model"
    AGENT_KEY = "agent,key"
    AGENT_ROUTE = "agent,route"
    AGENT_MODEL = "agent,model"
    KEY_ROUTE = "key,route"
    KEY_MODEL = "key,model"
    ROUTE_MODEL = "route,model"


Scoped: TypeAlias = Scope | Pair
SCOPES: tuple[Scoped, ...] = (*Scope, *Pair)
_PARTS: dict[str, tuple[Scope, ...]] = {each: tuple(Scope(part) for part in each.split(",")) for each in SCOPES}
# Who a customer is follows from any of these.
_OWNED = frozenset({Scope.CUSTOMER, Scope.USER, Scope.AGENT, Scope.KEY})


def scope_named(text: str) -> Scoped:
    """A scope or a pair of them by its name. Raises ValueError."""
    return Pair(text) if "," in text else Scope(text)


def parts_of(scope: str) -> tuple[Scope, ...]:
    """The scopes that a name stands for: one, or two in their order."""
    return _PARTS[scope]


def subjects_of(scope: str, subject: str) -> tuple[str, ...]:
    """The subject in each of ``parts_of``. Only the last part, a model, may hold a comma."""
    return tuple(subject.split(",", 1)) if "," in scope else (subject,)


def is_owned(scope: str) -> bool:
    """Whether each subject belongs to one customer, whose billing period it has."""
    return not _OWNED.isdisjoint(_PARTS[scope])


def names_model(scope: str) -> bool:
    """Whether its subjects are models, alone or in a pair: then which one counts depends on who serves the call."""
    return scope[-5:] == "model"


def model_of(scope: str, subject: str) -> str | None:
    """The model that a subject names; None where the scope has none."""
    if not names_model(scope):
        return None
    return subject if scope == "model" else subject.partition(",")[2]


class Mode(StrEnum):
    """What happens when a stock limit is reached."""

    BLOCK = "block"
    WARN = "warn"
    SOFT = "soft"
    OVERAGE = "overage"


class Window(StrEnum):
    """The span of time that a stock limit counts over."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"
    BILLING_PERIOD = "billing_period"
    TOTAL = "total"


class Release(StrEnum):
    """When a limit opens again once what was used has reached its cap: when its window turns, or not before the billing
    period of its customer does."""

    WINDOW = "window"
    BILLING_PERIOD = "billing_period"


class CounterKey(NamedTuple):
    """The row of a stock counter. Without the plan: a plan change keeps what was used. Sorts in lock order."""

    scope: str
    subject: str
    dimension: str
    window: str
    start_ms: int


class BucketKey(NamedTuple):
    """The row of a rate limit's leaky bucket. Sorts in lock order."""

    scope: str
    subject: str
    dimension: str
    per_ms: int


@dataclass(frozen=True, slots=True)
class StockLimit:
    """A quota, budget or spend cap as declared. ``cap`` None is "unlimited". In mode OVERAGE the cap is what is
    included in the price: nothing is refused, what lies above it is charged. In mode SOFT a cheaper model serves from
    ``soft_at`` per cent of the cap on, and at the cap it refuses."""

    name: str
    scope: Scoped
    dimension: str
    window: Window
    cap: int | None
    mode: Mode = Mode.BLOCK
    zone: str = "UTC"
    soft_at: int = 80
    release: Release = Release.WINDOW


@dataclass(frozen=True, slots=True)
class RateLimit:
    """A rate as declared: at most ``cap`` every ``per_ms`` milliseconds, as a leaky bucket of that size."""

    name: str
    scope: Scoped
    dimension: str
    cap: int
    per_ms: int = 60_000


@record(frozen=True, slots=True)
class StockLine:
    """One call against one stock counter: it wants ``fixed + per_output * output_tokens``.

    ``ends_ms`` is when the window turns (None for total). Only mode BLOCK refuses; so does a soft limit at its cap,
    hence its line has that mode, with the per cent at which it is soft (which nobody stores).
    """

    key: CounterKey
    limit: str
    cap: int | None
    mode: Mode
    fixed: int
    per_output: int
    ends_ms: int | None
    soft_at: int | None = None

    def amount(self, output_tokens: int) -> int:
        """What is held when ``output_tokens`` tokens of output are granted."""
        return self.fixed + self.per_output * output_tokens


@record(frozen=True, slots=True)
class RateLine:
    """One call against one bucket: ``amount`` is charged at admission (already at most the cap), ``least`` is the
    part that is known for sure (the input); more than the cap of that alone can never pass."""

    key: BucketKey
    limit: str
    cap: int
    amount: int
    least: int


class CounterRow(NamedTuple):
    """A stock counter as stored."""

    used: int = 0
    held: int = 0


class BucketRow(NamedTuple):
    """A leaky bucket as stored: ``spent`` at the instant ``at_ms``. It may be above the cap (a debt)."""

    spent: int = 0
    at_ms: int = 0


class Reason(StrEnum):
    """Why an order was denied. CLOSED: it was used up in an earlier window, and waits for the billing period."""

    USED = "used"
    CLOSED = "closed"
    HELD = "held"
    EXCEEDS_LIMIT = "exceeds_limit"
    RATE = "rate"
    EXCEEDS_RATE = "exceeds_rate"


class Denied(NamedTuple):
    """The order does not fit. Nothing was held. ``shortfall`` is what is missing, in the limit's stored unit."""

    reason: Reason
    limit: LimitState
    shortfall: int
    retry_after_s: int | None


class Granted(NamedTuple):
    """The order fits, with so many output tokens. ``stock`` and ``rates`` state each limit AFTER the hold."""

    output_tokens: int
    stock: tuple[LimitState, ...] = ()
    rates: tuple[LimitState, ...] = ()
