"""The connection to Stripe, and its errors in our words.

The rule: no type of the SDK leaves this room, and no key, header or URL is in a message. Found by running stripe
16.1.0: a StripeClient retries nothing unless told to, never a 429, and sends the platform's name unless telemetry is
off.
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, TypeVar

import httpx
import stripe

from gatekeeper.config.gateway import StripeConfig
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.rules.billing import NotTaken, Throttled

T = TypeVar("T")

# What stripe-python 16.1.0 is made for; another version would change what answers look like under our feet.
STRIPE_VERSION = "2026-10-28.endive"
# Of connecting, sending, and each wait for bytes.
TIMEOUT_S = 10.0
RETRIES = 2
MESSAGE_CHARACTERS_MAX = 300
_SECRET = re.compile(r"\b(?:sk|rk|pk|whsec|ek)_[A-Za-z0-9_*]+")
_KEY = re.compile(r"(?:sk|rk)_(test|live)_")
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_KINDS: tuple[tuple[type[Exception], FaultKind], ...] = (
    (httpx.ConnectTimeout, FaultKind.CONNECT_TIMEOUT),
    (httpx.ConnectError, FaultKind.CONNECT),
    (httpx.PoolTimeout, FaultKind.POOL_FULL),
    (httpx.TimeoutException, FaultKind.FIRST_BYTE_TIMEOUT),
)


class Doubt:
    """Whether any attempt of one call may have been acted on."""

    def __init__(self) -> None:
        self.any = False


_DOUBT: ContextVar[Doubt | None] = ContextVar("stripe_doubt", default=None)


class Wire(stripe.HTTPXClient):
    """The SDK's client over httpx, which also notes what became of each attempt: the SDK only tells of the last.
    ``sleep`` is how it waits between two of them."""

    def __init__(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep, timeout_s: float = TIMEOUT_S) -> None:
        super().__init__(timeout=timeout_s)
        self._sleep = sleep

    def sleep_async(self, secs: float) -> Awaitable[None]:
        """Between two attempts: half a second, then one."""
        return self._sleep(secs)

    async def aclose(self) -> None:
        """Close all connections; twice does nothing."""
        await self._client_async.aclose()

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        """One attempt."""
        doubt = _DOUBT.get() or Doubt()
        try:
            answer = await super().request_async(method, url, headers, post_data)
        except stripe.APIConnectionError as error:
            doubt.any = doubt.any or not isinstance(error.__cause__, _NEVER_SENT)
            raise
        # 409: another attempt of this call is under way there.
        doubt.any = doubt.any or answer[1] >= 500 or answer[1] == 409
        return answer


def is_live(config: StripeConfig) -> bool:
    """Whether the key moves real money. Raises NotTaken for a key that does not say."""
    found = _KEY.match(config.secret_key.reveal()) if config.secret_key is not None else None
    if found is None:
        raise NotTaken(
            "the secret key of Stripe begins with sk_test_, sk_live_, rk_test_ or rk_live_; this one does not"
        )
    return found[1] == "live"


def connect(config: StripeConfig, wire: Wire) -> stripe.StripeClient:
    """A client; ``wire`` is to be closed by the caller."""
    assert config.secret_key is not None
    stripe.enable_telemetry = False
    for name in ("stripe", "httpx", "httpcore"):
        # At lower levels they write down bodies, and with them the secrets of webhooks.
        logging.getLogger(name).setLevel(logging.WARNING)
    base = config.api_base
    return stripe.StripeClient(
        config.secret_key.reveal(),
        stripe_version=STRIPE_VERSION,
        max_network_retries=RETRIES,
        http_client=wire,
        base_addresses={} if base is None else {"api": base, "meter_events": base, "connect": base, "files": base},
    )


async def asked(call: Callable[[], Awaitable[T]]) -> T:
    """The answer of a call. Raises NotTaken, Throttled and Fault as ``ports.Biller`` says."""
    doubt = Doubt()
    token = _DOUBT.set(doubt)
    try:
        return await call()
    except stripe.StripeError as error:
        # Neither itself nor its cause: they hold what was sent and what came.
        raise translated(error, in_doubt=doubt.any) from None
    finally:
        _DOUBT.reset(token)


def translated(error: stripe.StripeError, *, in_doubt: bool) -> NotTaken | Fault:
    """Our word for an error. ``in_doubt``: this attempt or one before it may have been acted on."""
    status, said = error.http_status, public_text(error)
    if isinstance(error, stripe.RateLimitError):
        throttled = Throttled(said, _retry_after_s(error))
        throttled.retryable = not in_doubt
        return throttled
    if isinstance(error, stripe.APIConnectionError):
        cause = error.__cause__
        kind = next((kind for type_, kind in _KINDS if isinstance(cause, type_)), FaultKind.RESET)
        return Fault("stripe", kind, f"no answer ({type(cause).__name__})", retryable=not in_doubt)
    if status in (401, 403):
        # The key is wrong, not what was sent with it: that is to wait until somebody has put it right.
        return Fault("stripe", FaultKind.PROTOCOL, f"the key is refused: {said}", retryable=not in_doubt)
    if status is None or status >= 500 or status == 409 or in_doubt:
        return Fault("stripe", FaultKind.PROTOCOL, f"answered {status}: {said}")
    return NotTaken(said)


def public_text(error: stripe.StripeError) -> str:
    """What Stripe says, without anything that looks like a key."""
    said = _SECRET.sub("***", error.user_message or type(error).__name__)
    return said if len(said) <= MESSAGE_CHARACTERS_MAX else f"{said[:MESSAGE_CHARACTERS_MAX]}..."


def _retry_after_s(error: stripe.StripeError) -> float | None:
    written = (error.headers or {}).get("retry-after", "")
    return float(written) if written.isascii() and written.isdigit() and len(written) <= 6 else None
