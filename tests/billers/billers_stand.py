"""The adapter before a fake Stripe: the real SDK on loopback, waits that take no time, runs that are killed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import stripe

from gatekeeper.billers.stripe import StripeBiller
from gatekeeper.billers.stripe_catalogue import StripeCatalogue
from gatekeeper.billers.stripe_client import Wire
from gatekeeper.config.gateway import Secret, StripeConfig
from gatekeeper.demo.stripe import FakeStripe
from gatekeeper.rules.billing import Batch, BatchState

T = TypeVar("T")
A = TypeVar("A", StripeBiller, StripeCatalogue)
METER = "gatekeeper_units"
DAY_MS = 86_400_000


class Killed(BaseException):
    """The process is gone."""


class QuickWire(Wire):
    """Counts what is slept and what is sent. ``dies_at``: the process ends at that request (from 0), before it was sent
    or (``after``) when it was answered."""

    def __init__(self, *, dies_at: int | None = None, after: bool = False, timeout_s: float = 10.0) -> None:
        self.slept_s: list[float] = []
        self.sent = 0
        self._dies_at = dies_at
        self._after = after

        async def sleep(seconds: float) -> None:
            self.slept_s.append(seconds)

        super().__init__(sleep, timeout_s)

    async def request_async(
        self, method: str, url: str, headers: Mapping[str, str], post_data: Any = None
    ) -> tuple[bytes, int, Mapping[str, str]]:
        dies = self.sent == self._dies_at
        self.sent += 1
        if dies and not self._after:
            raise Killed
        answer = await super().request_async(method, url, headers, post_data)
        if dies:
            raise Killed
        return answer


class StillClock:
    """Time stands; whoever sleeps is noted."""

    def __init__(self, now_ms: int = 0) -> None:
        self._now_ms = now_ms
        self.slept_s: list[float] = []

    def now_ms(self) -> int:
        return self._now_ms

    def monotonic_s(self) -> float:
        return self._now_ms / 1000

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)


@dataclass
class Counter:
    """What stands on the counter of a test: the fake, its URL, the configuration."""

    fake: FakeStripe
    config: StripeConfig

    def biller(self, wire: QuickWire | None = None) -> "Opened[StripeBiller]":
        """``async with`` it."""
        return Opened(StripeBiller(self.config, wire or QuickWire()))

    def catalogue(self, wire: QuickWire | None = None) -> "Opened[StripeCatalogue]":
        """``async with`` it."""
        return Opened(StripeCatalogue(self.config, wire or QuickWire()))


class Opened(Generic[A]):
    """Closes what was opened."""

    def __init__(self, adapter: A) -> None:
        self._adapter = adapter

    async def __aenter__(self) -> A:
        return self._adapter

    async def __aexit__(self, *_: object) -> None:
        await self._adapter.close()


def at_counter(
    body: Callable[[Counter], Awaitable[T]],
    fake: FakeStripe | None = None,
    *,
    key: str | None = None,
    check: bool = True,
) -> T:
    """Runs ``body(counter)`` against a served fake; a call that the SDK's types refuse fails the test."""
    stands = fake or FakeStripe()

    async def run() -> T:
        async with stands.serve(check=check) as url:
            config = StripeConfig(enabled=True, secret_key=Secret(key or stands.secret_key), api_base=url, meter=METER)
            return await body(Counter(stands, config))

    return asyncio.run(run())


def a_batch(
    fake: FakeStripe, account: str | None, value: int = 100, *, number: int = 1, ts_ms: int | None = None
) -> Batch:
    """Usage of just now."""
    now_ms = fake.now_ms
    return Batch(
        id=f"bat_{number}",
        customer_id="ada",
        meter=METER,
        period_start_ms=now_ms - DAY_MS,
        period_end_ms=now_ms + DAY_MS,
        value=value,
        ts_ms=now_ms if ts_ms is None else ts_ms,
        identifier=f"bat_{number}-1",
        state=BatchState.WAITING,
        late=False,
        carried_micro=0,
        left_micro=0,
        created_ms=now_ms,
        next_ms=now_ms,
        attempts=1,
        account=account,
    )


def again(batch: Batch, **more: Any) -> Batch:
    """The same one with other figures."""
    return replace(batch, **more)


def sdk_of(counter: Counter, wire: QuickWire, key: str | None = None) -> stripe.StripeClient:
    """Somebody else's hands on the account."""
    return stripe.StripeClient(
        key or counter.fake.secret_key, http_client=wire, base_addresses={"api": str(counter.config.api_base)}
    )


def secret_of(fake: FakeStripe, endpoint_id: str) -> str:
    """What it signs with."""
    return fake._rooms.webhooks.secret(endpoint_id)


def at_mixed_counter(body: Callable[[Counter], Awaitable[T]], fake: FakeStripe, key: str) -> T:
    """``at_counter`` with an account that takes a key of the other mode."""
    fake._door._secret_key = key
    return at_counter(body, fake, key=key)
