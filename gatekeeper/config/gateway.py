"""The whole configuration as one immutable value. A call keeps the Gateway it started with; a reload swaps the
reference. Built by ``read``; nothing here knows TOML."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from gatekeeper.diagnostics import Mistake, Source, Span
from gatekeeper.meters import Meter
from gatekeeper.meters.reading import Mark
from gatekeeper.rules.breaker import BreakerConfig
from gatekeeper.rules.declared import DeclaredLimit, DeclaredRate
from gatekeeper.rules.failover import FAILOVER_STATUSES, Retry
from gatekeeper.rules.lines import NO_RESETS, Resets
from gatekeeper.rules.notices import Subscription
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.prices import PriceOverride, TokenPrice
from gatekeeper.rules.routing import Pattern, Router
from gatekeeper.wire.shapes import Shape


class Secret:
    """A value that never shows itself: ``repr`` and ``str`` are masked. ``reveal`` it only onto the wire."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class AuthKind(StrEnum):
    """Where an upstream wants its key."""

    NONE = "none"
    BEARER = "bearer"
    HEADER = "header"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class UpstreamAuth:
    """How the upstream's own key is sent. ``name`` is the header or query parameter (kinds HEADER and QUERY)."""

    kind: AuthKind = AuthKind.NONE
    name: str = ""
    secret: Secret | None = None


class Transport(StrEnum):
    """Which client speaks to an upstream: ours, or httpx where HTTP/2 or a proxy is needed."""

    NATIVE = "native"
    HTTPX = "httpx"


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One provider. ``base_path`` has no slash at its end and is put before the route's path."""

    name: str
    scheme: str
    host: str
    port: int
    base_path: str = ""
    auth: UpstreamAuth = UpstreamAuth()
    # Not shown: an author may put a credential here.
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    connections_max: int = 1_000
    connect_timeout_s: float = 5.0
    # Reasoning models think for minutes before the first byte.
    first_byte_timeout_s: float = 600.0
    idle_timeout_s: float = 300.0
    total_timeout_s: float | None = None
    tls_verify: bool = True
    ca_file: Path | None = None
    transport: Transport = Transport.NATIVE
    # How often a connection that could not be made is tried again at once: nothing was sent on it.
    connect_retries: int = 1
    # When it is left alone for a while; None is never.
    breaker: BreakerConfig | None = field(default_factory=BreakerConfig)
    # Both are for the transport httpx. A proxy's URL may hold a password.
    http2: bool = False
    proxy: Secret | None = None

    @property
    def url(self) -> str:
        """The base URL without a usual port, for price lists, which know providers by it. It holds no secret."""
        usual = {"http": 80, "https": 443}.get(self.scheme)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{'' if self.port == usual else f':{self.port}'}{self.base_path}"


class Dialect(StrEnum):
    """Whose SDK talks on a route: decides the shape of our own errors and what is injected."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    GEMINI = "gemini"


class InjectUsage(StrEnum):
    """Whether ``stream_options.include_usage`` is asked for when the client did not."""

    AUTO = "auto"
    NEVER = "never"


class Unmeasured(StrEnum):
    """What is charged when the meter found nothing (sources ``none`` and ``error``)."""

    ESTIMATE = "estimate"
    DEFAULT = "default"
    FREE = "free"


class OnDisconnect(StrEnum):
    """What happens upstream when the client hangs up."""

    CANCEL = "cancel"
    DRAIN = "drain"


class HoldKind(StrEnum):
    """What a stream holds when it is admitted. INCREMENTAL: the input and a first slice of output, extended while it
    runs. WORST_CASE: all that it may cost, for models that think invisibly."""

    INCREMENTAL = "incremental"
    WORST_CASE = "worst_case"


class Variable(StrEnum):
    """What a route may put into an upstream request header."""

    USER_ID = "userID"
    CUSTOMER_ID = "customerID"
    PLAN_ID = "planID"
    KEY_ID = "keyID"
    AGENT_ID = "agentID"
    CALL_ID = "callID"


@dataclass(frozen=True, slots=True)
class SetHeader:
    """A request header that we set for the upstream; the client's own of that name is always removed."""

    name: str
    value: str | Variable


@dataclass(frozen=True, slots=True)
class Fallback:
    """Who serves a call that the upstreams before it did not. ``model`` None keeps the one that was asked for."""

    upstream: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class RouteExample:
    """One entry of ``[[routes.example]]``, executed by ``gatekeeper check``: this answer is metered as so many units.

    The answer is ``body``, or the bytes of ``file``. ``units`` None: the meter must find nothing. ``mark`` None takes
    any. ``source`` and ``span`` are where the expectation is written.
    """

    name: str
    source: Source
    span: Span
    units: Decimal | None
    mark: Mark | None = None
    body: bytes | None = None
    file: Path | None = None
    content_type: str = "text/event-stream"
    content_encoding: str | None = None
    status: int = 200
    method: str = "POST"
    request: bytes | None = None

    def failed(self, message: str, hint: str | None = None) -> Mistake:
        """The Mistake that points at this example."""
        return Mistake(message, self.source, self.span, hint)


@dataclass(frozen=True, slots=True)
class Route:
    """One entry of ``[[routes]]``."""

    name: str
    pattern: Pattern
    upstream: str
    dialect: Dialect
    meter: Meter
    methods: frozenset[str] | None = None
    host: str | None = None
    priority: int = 0
    # None keeps the path; may hold the template's names in braces, and `*` for what a prefix route left.
    rewrite: str | None = None
    set_headers: tuple[SetHeader, ...] = ()
    remove_headers: frozenset[str] = frozenset()
    meters: Mapping[str, Meter] = field(default_factory=dict)
    estimate: Meter | None = None
    # Units delivered so far, after each event of a stream: what the hold grows with, and what is charged if the meter
    # finds nothing in the end. None: the delivered text, in tokens.
    live: Meter | None = None
    # Dollars that the provider takes, where it says so itself. None, or where it finds nothing: the price list.
    cost: Meter | None = None
    # The route takes a call only if this is true of the request.
    when: Meter | None = None
    meter_methods: frozenset[str] = frozenset({"POST"})
    free: bool = False
    charge_errors: bool = False
    # A response whose provider's id was billed to the customer before is not charged again.
    once_per_response: bool = True
    inject_usage: InjectUsage = InjectUsage.AUTO
    unmeasured: Unmeasured = Unmeasured.ESTIMATE
    unmeasured_default: Decimal = Decimal(1)
    on_disconnect: OnDisconnect = OnDisconnect.CANCEL
    # A drained stream is read for so long and so many output tokens at most: nobody reads what it costs.
    drain_s: float = 60.0
    drain_tokens_max: int = 4_096
    # Calls that are not streamed hold the worst case whatever this says: they cannot be extended.
    hold: HoldKind = HoldKind.INCREMENTAL
    # Output tokens of the first hold and of each extension: small slices ask the ledger often, large ones keep more
    # from other calls.
    hold_slice_tokens: int = 512
    request_bytes_max: int = 32 * 1024 * 1024
    # Bound of the output where the request names none (max_tokens and its spellings).
    output_tokens_max: int = 4_096
    # Bound of input that is not in the body (image URLs, file ids): None refuses nothing and adds nothing.
    input_tokens_max: int | None = None
    rate_output_estimate: int = 256
    # An expression that needs the whole body may hold so many bytes of it; 0 holds none (and is refused when written).
    buffer_bytes_max: int = 0
    # What GET /v1/models lists for this route; a list, not a restriction (keys have scopes for that).
    models: tuple[str, ...] = ()
    examples: tuple[RouteExample, ...] = ()
    # Who is tried next, in order, after a fault that lets the call be repeated or one of these answers.
    fallback: tuple[Fallback, ...] = ()
    failover_status: frozenset[int] = FAILOVER_STATUSES
    retry: Retry = Retry.IDEMPOTENT
    # Whether answers name the upstream that served them.
    show_upstream: bool = False
    # Chains of models, the dearest first: what serves instead where a soft limit asks for it.
    downgrade: tuple[tuple[str, ...], ...] = ()


class Unpriced(StrEnum):
    """What becomes of a call that meets a dollar limit while nobody knows the price of its model."""

    REFUSE = "refuse"
    ALLOW = "allow"
    CEILING = "ceiling"


class Durability(StrEnum):
    """STRICT: the end of the body waits for the durable record. RELAXED: it does not."""

    STRICT = "strict"
    RELAXED = "relaxed"


class OnLedgerFailure(StrEnum):
    """While the ledger is away. CLOSED: no call is admitted. OPEN: each key that was known may make a few."""

    CLOSED = "closed"
    OPEN = "open"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """Where the gateway listens, and its own bounds."""

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str | None = None
    header_bytes_max: int = 64 * 1024
    trusted_proxies: tuple[str, ...] = ()
    keep_alive_s: float = 75.0
    drain_s: float = 30.0
    # Who brings it may read /metrics from elsewhere.
    metrics_token: Secret | None = None

    def trusts(self, host: str | None) -> bool:
        """Whether a peer's forwarding headers are believed: it is one of ``trusted_proxies``, which are addresses and
        networks (``10.0.0.0/8``)."""
        if not self.trusted_proxies:
            return False
        try:
            address = ipaddress.ip_address(host or "")
        except ValueError:
            return False
        # So a socket for both kinds of address names a peer of the older one.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in ipaddress.ip_network(each) for each in self.trusted_proxies)


@dataclass(frozen=True, slots=True)
class LedgerConfig:
    """How calls are held and settled (see ledger rules). Times in seconds."""

    durability: Durability = Durability.STRICT
    hold_ttl_s: float = 30.0
    heartbeat_s: float = 5.0
    settle_wait_s: float = 10.0
    # The folder where records wait while the ledger is away; made when it is first needed.
    journal: Path = Path("gatekeeper-journal")
    on_ledger_failure: OnLedgerFailure = OnLedgerFailure.CLOSED
    # What each key may do in each process while the ledger is away: calls, and units by their bounds.
    open_requests_max: int = 100
    open_units_max: int = 100_000


@dataclass(frozen=True, slots=True)
class CostsConfig:
    """``ceiling`` is set where ``unpriced`` is CEILING: what is taken for the price of a model that has none.
    ``tokenizer``: estimates count the input's tokens where the model's tokenizer is installed."""

    unpriced: Unpriced = Unpriced.REFUSE
    ceiling: TokenPrice | None = None
    tokenizer: bool = False


@dataclass(frozen=True, slots=True)
class KeysConfig:
    """``anonymous_customer`` set means ``keys = "none"``: every call belongs to that customer."""

    anonymous_customer: str | None = None
    default_plan: str = "free"
    # Names that clients assert: in each process, for each key that may.
    new_subjects_per_hour: int = 10_000


class MailSecurity(StrEnum):
    """How a mail server is reached: in the clear and then TLS, with TLS from the first byte, or without."""

    STARTTLS = "starttls"
    TLS = "tls"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """A URL that events are posted to, signed with each of ``secrets`` (the bytes behind ``whsec_``, in base64). The
    URL may hold a token, so it is a Secret too."""

    url: Secret
    secrets: tuple[Secret, ...]
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class MailServer:
    """A mail server, and in whose name mail goes out."""

    host: str
    port: int
    security: MailSecurity
    sender: str
    user: str | None = None
    password: Secret | None = None
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class MailTarget:
    """Mail to ``to``; empty: to the customer whom an event is about."""

    server: MailServer
    to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notification:
    """One entry of ``[[notifications]]``: who is told what, and how. Its name is ``subscription.target``."""

    subscription: Subscription
    target: WebhookTarget | MailTarget


@dataclass(frozen=True, slots=True)
class StripeConfig:
    """How usage becomes invoices. ``secret_key`` is there where ``enabled``. ``paper``: where what would be sent is
    written while it is not enabled; None writes nothing. ``api_base`` None is Stripe itself."""

    enabled: bool = False
    secret_key: Secret | None = None
    webhook_secrets: tuple[Secret, ...] = ()
    api_base: str | None = None
    flush_interval_s: float = 300.0
    meter: str = "gatekeeper_units"
    paper: Path | None = None
    # How long a customer whose payment failed is served on.
    grace_days: int = 7

    @property
    def reports(self) -> bool:
        """Whether anybody is told what was used."""
        return self.enabled or self.paper is not None


@dataclass(frozen=True, slots=True)
class Gateway:
    """Everything that was configured. ``limits`` and ``rates`` hold beside those of the plans, ``prices`` stand in the
    order in which a PriceBook asks. ``database_url`` is ``sqlite:///path`` or ``postgresql://...`` (it may hold a
    password, hence a Secret). ``generation`` is a digest of the files and variables it was read from."""

    server: ServerConfig
    database_url: Secret
    upstreams: Mapping[str, UpstreamConfig]
    router: Router[Route]
    plans: Mapping[str, Plan]
    keys: KeysConfig = KeysConfig()
    ledger: LedgerConfig = LedgerConfig()
    admin_key: Secret | None = None
    # What tokens are signed with; None: a secret that we make, in a file beside the database.
    jwt_secret: Secret | None = None
    limits: tuple[DeclaredLimit, ...] = ()
    rates: tuple[DeclaredRate, ...] = ()
    # Never configured: what operators did to the counts of limits while the gateway ran.
    resets: Resets = field(default_factory=lambda: NO_RESETS)
    prices: tuple[PriceOverride, ...] = ()
    costs: CostsConfig = CostsConfig()
    notifications: tuple[Notification, ...] = ()
    mail: MailServer | None = None
    stripe: StripeConfig = StripeConfig()
    # What is declared under [[usage_shapes]], with the built-in ones behind it; empty means the built-in ones alone.
    usage_shapes: tuple[Shape, ...] = ()
    warnings: tuple[Mistake, ...] = ()
    generation: str = ""
