"""The kinds of "no" that travel: Refusal (we say no to a caller) and Fault (the world failed).

A Mistake (a person wrote something wrong) lives in ``diagnostics``. The table ``REFUSALS`` is the only list
of codes; the README's table is held against it by a test.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class GatekeeperError(Exception):
    """The root of what this package raises on purpose."""


class Code(StrEnum):
    """Every reason for which a call is refused by us."""

    MISSING_KEY = "missing_key"
    MALFORMED_KEY = "malformed_key"
    UNKNOWN_KEY = "unknown_key"
    REVOKED_KEY = "revoked_key"
    EXPIRED_KEY = "expired_key"
    CONFLICTING_KEYS = "conflicting_keys"
    CUSTOMER_DISABLED = "customer_disabled"
    ROUTE_NOT_ALLOWED = "route_not_allowed"
    MODEL_NOT_ALLOWED = "model_not_allowed"
    UNPRICED_MODEL = "unpriced_model"
    UNBOUNDED_INPUT = "unbounded_input"
    UNKNOWN_ROUTE = "unknown_route"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BAD_REQUEST = "bad_request"
    BODY_TOO_LARGE = "body_too_large"
    HEADERS_TOO_LARGE = "headers_too_large"
    TOO_MANY_SUBJECTS = "too_many_subjects"
    RATE_LIMITED = "rate_limited"
    EXCEEDS_RATE = "exceeds_rate"
    LIMIT_HELD = "limit_held"
    EXCEEDS_LIMIT = "exceeds_limit"
    QUOTA_EXCEEDED = "quota_exceeded"
    BUDGET_EXCEEDED = "budget_exceeded"
    BUDGET_SOFT_CAP = "budget_soft_cap"
    ADMIN_KEY_REQUIRED = "admin_key_required"
    NOT_SIGNED_IN = "not_signed_in"
    WRONG_PASSWORD = "wrong_password"
    NOT_PERMITTED = "not_permitted"
    CROSS_SITE = "cross_site"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    BILLER_UNAVAILABLE = "biller_unavailable"
    SHUTTING_DOWN = "shutting_down"
    UPSTREAM_UNAVAILABLE = "upstream_unavailable"
    UPSTREAM_PROTOCOL = "upstream_protocol"
    UPSTREAM_TIMEOUT = "upstream_timeout"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class RefusalKind:
    """What a code always means: HTTP status, one public sentence, and whether trying again can help."""

    status: int
    sentence: str
    retry_helps: bool = False


REFUSALS: dict[Code, RefusalKind] = {
    Code.MISSING_KEY: RefusalKind(401, "No API key was sent."),
    Code.MALFORMED_KEY: RefusalKind(401, "The API key does not have the shape of a gatekeeper key."),
    Code.UNKNOWN_KEY: RefusalKind(401, "The API key is not known."),
    Code.REVOKED_KEY: RefusalKind(401, "The API key was revoked."),
    Code.EXPIRED_KEY: RefusalKind(401, "The API key has expired."),
    Code.CONFLICTING_KEYS: RefusalKind(401, "Two different API keys were sent with one call."),
    Code.CUSTOMER_DISABLED: RefusalKind(403, "This account is disabled."),
    Code.ROUTE_NOT_ALLOWED: RefusalKind(403, "The API key may not use this route."),
    Code.MODEL_NOT_ALLOWED: RefusalKind(403, "The API key may not use this model."),
    Code.UNPRICED_MODEL: RefusalKind(403, "The model has no known price, and a limit in dollars applies."),
    Code.UNBOUNDED_INPUT: RefusalKind(
        400, "Part of the input is not in the request, and a limit applies that it could pass."
    ),
    Code.UNKNOWN_ROUTE: RefusalKind(404, "No route matches this URL."),
    Code.METHOD_NOT_ALLOWED: RefusalKind(405, "The route does not take this method."),
    Code.BAD_REQUEST: RefusalKind(400, "The request cannot be understood."),
    Code.BODY_TOO_LARGE: RefusalKind(413, "The request body is larger than the route allows."),
    Code.HEADERS_TOO_LARGE: RefusalKind(431, "The request headers are larger than the gateway allows."),
    Code.TOO_MANY_SUBJECTS: RefusalKind(
        429, "The API key has brought too many new users and agents within an hour.", retry_helps=True
    ),
    Code.RATE_LIMITED: RefusalKind(429, "The rate limit is used up for the moment.", retry_helps=True),
    Code.EXCEEDS_RATE: RefusalKind(429, "The input alone is larger than the rate limit."),
    Code.LIMIT_HELD: RefusalKind(429, "What remains of the limit is held by calls in flight.", retry_helps=True),
    Code.EXCEEDS_LIMIT: RefusalKind(402, "The call may cost more than what remains of the limit."),
    Code.QUOTA_EXCEEDED: RefusalKind(402, "The plan's quota is used up."),
    Code.BUDGET_EXCEEDED: RefusalKind(402, "The budget is used up."),
    Code.BUDGET_SOFT_CAP: RefusalKind(402, "The soft limit is reached, and the call accepts no cheaper model."),
    Code.ADMIN_KEY_REQUIRED: RefusalKind(401, "The admin API needs a valid X-Admin-Key."),
    Code.NOT_SIGNED_IN: RefusalKind(401, "The session or token has ended, or never was one."),
    Code.WRONG_PASSWORD: RefusalKind(401, "Email or password is wrong."),
    Code.NOT_PERMITTED: RefusalKind(403, "Whoever asks may not do this."),
    Code.CROSS_SITE: RefusalKind(403, "The request does not come from a page of this gateway."),
    Code.NOT_FOUND: RefusalKind(404, "There is no such thing."),
    Code.CONFLICT: RefusalKind(409, "This already exists, or has changed in the meantime."),
    Code.LEDGER_UNAVAILABLE: RefusalKind(
        503, "The ledger cannot be reached, so no call is admitted.", retry_helps=True
    ),
    Code.BILLER_UNAVAILABLE: RefusalKind(503, "The billing provider cannot be reached.", retry_helps=True),
    Code.SHUTTING_DOWN: RefusalKind(503, "The gateway is shutting down.", retry_helps=True),
    Code.UPSTREAM_UNAVAILABLE: RefusalKind(502, "The upstream cannot be reached.", retry_helps=True),
    Code.UPSTREAM_PROTOCOL: RefusalKind(502, "The upstream's answer is not valid HTTP.", retry_helps=True),
    Code.UPSTREAM_TIMEOUT: RefusalKind(504, "The upstream did not answer in time.", retry_helps=True),
    Code.INTERNAL: RefusalKind(500, "The gateway made a mistake. It is on record under the call's id."),
}


class LimitState(NamedTuple):
    """One limit as it stands, for headers and refusals. Amounts are in the dimension's stored integer unit
    (millionths of a unit, or nano-dollars); ``cap`` None means unlimited; ``resets_ms`` None means never."""

    name: str
    scope: str
    dimension: str
    window: str
    cap: int | None
    used: int
    held: int
    resets_ms: int | None

    @property
    def remaining(self) -> int | None:
        """What may still be held; never negative; None when unlimited."""
        return None if self.cap is None else max(0, self.cap - self.used - self.held)


class Refusal(GatekeeperError):
    """We say no to a caller. ``public`` may be shown to anybody; ``private`` goes to the log with the call's id."""

    def __init__(
        self,
        code: Code,
        public: str | None = None,
        *,
        hint: str | None = None,
        limit: LimitState | None = None,
        retry_after_s: int | None = None,
        private: str | None = None,
        headers: tuple[tuple[str, str], ...] = (),
        status: int | None = None,
    ) -> None:
        self.code = code
        # Another one than usual only where HTTP has a word for it: 503 for what we leave alone.
        self.status = status or REFUSALS[code].status
        self.public = public or REFUSALS[code].sentence
        self.hint = hint
        self.limit = limit
        self.retry_after_s = retry_after_s
        self.private = private
        self.headers = headers
        super().__init__(f"{code}: {self.public}")


class FaultKind(StrEnum):
    """How the world failed."""

    CONNECT = "connect"
    CONNECT_TIMEOUT = "connect_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    IDLE_TIMEOUT = "idle_timeout"
    TOTAL_TIMEOUT = "total_timeout"
    TLS = "tls"
    RESET = "reset"
    TRUNCATED = "truncated"
    PROTOCOL = "protocol"
    POOL_FULL = "pool_full"
    STORE = "store"


TIMEOUTS = frozenset(
    {FaultKind.CONNECT_TIMEOUT, FaultKind.FIRST_BYTE_TIMEOUT, FaultKind.IDLE_TIMEOUT, FaultKind.TOTAL_TIMEOUT}
)


class Fault(GatekeeperError):
    """The world failed. ``retryable`` only says that nothing of the request was acted on."""

    def __init__(self, world: str, kind: FaultKind, message: str, *, retryable: bool = False) -> None:
        self.world = world
        self.kind = kind
        self.retryable = retryable
        super().__init__(f"{world}: {kind}: {message}")
