"""How many calls a second the ledger takes: hold and settle, 32 at a time, on one database URL or on several.

Run as ``python bench/ledger.py [--seconds 5] sqlite:////tmp/x.sqlite postgresql://...``. Each settle is durable.
"""

import argparse
import asyncio
import time
from decimal import Decimal

from gatekeeper.clock import SystemClock
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.money import Price
from gatekeeper.ports import HoldOrder, Settlement, UsageRecord
from gatekeeper.rules.limits import (
    ONE_REQUEST,
    BucketKey,
    CounterKey,
    Granted,
    Mode,
    RateLine,
    Scope,
    StockLimit,
    StockLine,
    Window,
)
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import admitted_month, window_bounds
from gatekeeper.stores import open_store

CONCURRENT = 32
CUSTOMERS = 8
SECONDS_MAX = 20.0
UNITS = 1_000_000
PLAN = Plan(
    "pro",
    "Pro",
    Decimal(29),
    StockLimit("quota", Scope.CUSTOMER, "units", Window.MONTH, 100_000 * UNITS, Mode.OVERAGE),
    overage=Price(Decimal("0.002"), 1_000),
)


def order(call_id: str, customer: str, now_ms: int) -> HoldOrder:
    """Two stock lines and two rates: what a call on a usual plan holds."""
    start_ms, ends_ms = window_bounds(Window.MONTH, now_ms)
    quota = CounterKey("customer", customer, "units", "month", start_ms)
    per_key = quota._replace(scope="key", subject=f"{customer}-key")
    minute = BucketKey("key", f"{customer}-key", "units", 60_000)
    return HoldOrder(
        call_id=call_id,
        admitted_month=admitted_month(now_ms),
        customer_id=customer,
        key_id=f"{customer}-key",
        user_id=None,
        agent_id=None,
        plan_id=PLAN.id,
        route="chat",
        upstream="openai",
        model="gpt-4o",
        owner="bench",
        now_ms=now_ms,
        expires_ms=now_ms + 30_000,
        output_tokens=500,
        output_tokens_min=1,
        stock=(
            StockLine(quota, "quota", 100_000 * UNITS, Mode.OVERAGE, 100 * UNITS, UNITS, ends_ms),
            StockLine(per_key, "budget", None, Mode.BLOCK, 100 * UNITS, UNITS, ends_ms),
        ),
        rates=(
            RateLine(minute, "tokens", 10**15, 356 * UNITS, 100 * UNITS),
            RateLine(minute._replace(dimension="requests"), "requests", 10**15, ONE_REQUEST, ONE_REQUEST),
        ),
    )


def settlement(held: HoldOrder, now_ms: int) -> Settlement:
    """The end of that call."""
    record = UsageRecord(
        call_id=held.call_id,
        admitted_month=held.admitted_month,
        customer_id=held.customer_id,
        key_id=held.key_id,
        user_id=None,
        agent_id=None,
        plan_id=held.plan_id,
        route=held.route,
        upstream=held.upstream,
        model=held.model,
        method="POST",
        path="/v1/chat/completions",
        status=200,
        outcome=Outcome.COMPLETE,
        streamed=True,
        started_ms=held.now_ms,
        ended_ms=now_ms,
        first_byte_ms=now_ms,
        units_micro=321 * UNITS,
        source=Mark.MEASURED,
        usage={"input": {"total": 100}, "output": {"total": 221}},
        evidence={"last": {"prompt_tokens": 100, "completion_tokens": 221}},
    )
    return Settlement(record, {"units": record.units_micro, "requests": ONE_REQUEST}, PLAN, now_ms)


async def measure(url: str, seconds: float) -> str:
    """One line: calls a second, and how long a hold and a settle took (median, 99 %)."""
    clock = SystemClock()
    store = await open_store(url, clock=clock)
    holds: list[float] = []
    settles: list[float] = []
    start = clock.monotonic_s()

    async def caller(number: int) -> None:
        calls = 0
        while clock.monotonic_s() - start < seconds:
            wanted = order(f"{time.time_ns():x}-{number}-{calls}", f"customer-{number % CUSTOMERS}", clock.now_ms())
            before = clock.monotonic_s()
            assert isinstance(await store.hold(wanted), Granted)
            between = clock.monotonic_s()
            await store.settle(settlement(wanted, clock.now_ms()))
            holds.append(between - before)
            settles.append(clock.monotonic_s() - between)
            calls += 1

    await asyncio.gather(*(caller(number) for number in range(CONCURRENT)))
    took = clock.monotonic_s() - start
    await store.close()
    return f"{len(settles) / took:8.0f} calls/s   hold {_times(holds)}   settle {_times(settles)}"


def _times(found: list[float]) -> str:
    ordered = sorted(found)
    return f"{ordered[len(ordered) // 2] * 1000:.1f} / {ordered[len(ordered) * 99 // 100] * 1000:.1f} ms"


def main() -> None:
    """Measure every URL in turn, all within ``SECONDS_MAX``."""
    words = argparse.ArgumentParser(description=__doc__)
    words.add_argument("urls", nargs="+")
    words.add_argument("--seconds", type=float, default=5.0, help="how long each URL is measured")
    asked = words.parse_args()
    for url in asked.urls:
        seconds = min(asked.seconds, SECONDS_MAX / len(asked.urls))
        print(f"{url.split(':')[0]:12}{asyncio.run(measure(url, seconds))}")


if __name__ == "__main__":
    main()
