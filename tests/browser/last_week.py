"""A week of business in a database, before a gateway opens it: so that pages and pictures have something to show. Every
call is settled by the real store, so the doctor has nothing to say about it."""

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path

from gatekeeper.cli.init import shipped
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.demo.stand import demo_gateway
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.money import dollars_to_nano
from gatekeeper.ports import Customer, Settlement, Store, UsageRecord
from gatekeeper.rules.limits import DOLLARS, ONE_REQUEST, REQUESTS, UNITS
from gatekeeper.stores import open_store

HOUR_MS = 3_600_000
CALLS = 420
# (id, name, plan, how often of all)
CUSTOMERS = (
    ("northwind", "Northwind Trading", "starter", 7),
    ("globex", "Globex & Söhne", "starter", 4),
    ("acme", "Acme Robotics", "pro", 6),
    ("initech", "Initech", "enterprise", 3),
)
# (model, dollars for a unit, about)
MODELS = (("gpt-4o", "0.0000055"), ("gpt-4o-mini", "0.0000004"), ("gpt-4.1", "0.0000045"))
AGENTS = ("researcher", "coder", "mailer", None)


def fill(database: Path) -> None:
    """The same week for every test run, but for the instant at which it ends."""
    plans = {path.name: path.read_text("utf-8") for path in sorted(shipped("plans").glob("*.toml"))}
    gateway = demo_gateway("http://127.0.0.1:9", database, "127.0.0.1", "admin", plans)
    # In a thread: the one that asks may be running the browser's loop.
    with ThreadPoolExecutor(1) as other:
        other.submit(asyncio.run, _fill(gateway, int(time.time() * 1000))).result()


async def _fill(gateway: Gateway, now_ms: int) -> None:
    store = await open_store(gateway.database_url.reveal(), clock=SystemClock())
    try:
        for customer_id, name, plan_id, _ in CUSTOMERS:
            begun_ms = now_ms - 9 * 24 * HOUR_MS
            email = f"billing@{customer_id}.example"
            await store.create_customer(Customer(customer_id, name, plan_id, begun_ms, begun_ms, email=email))
        chance = random.Random(7)
        # More by day than by night, and more each day than the day before.
        hours = [chance.triangular(0, 167, 8) for _ in range(CALLS)]
        instants = sorted(now_ms - int(hour * HOUR_MS) - chance.randrange(HOUR_MS) for hour in hours)
        for number, at_ms in enumerate(instants):
            await _call(store, gateway, number, at_ms, chance)
    finally:
        await store.close()


async def _call(store: Store, gateway: Gateway, number: int, at_ms: int, chance: random.Random) -> None:
    """One call that is over."""
    customer_id, _, plan_id, _ = chance.choices(CUSTOMERS, [each[3] for each in CUSTOMERS])[0]
    model, price = chance.choices(MODELS, [3, 6, 2])[0]
    read, written = chance.randrange(200, 4_000), chance.randrange(50, 1_200)
    route = next(route for route in gateway.router.routes if route.name == "chat")
    failed, unread = chance.random() < 0.02, chance.random() < 0.03
    usage = {"input": read, "output": written, "total": read + written}
    units_micro = 0 if failed else (read + written) * 10**6
    cost_nano = 0 if failed else dollars_to_nano(Decimal(price) * (read + written))
    wait_ms = int(chance.lognormvariate(6.2, 0.5))
    month = time.strftime("%Y-%m", time.gmtime(at_ms / 1000))
    record = UsageRecord(
        call_id=f"call_past{number:06}",
        admitted_month=month,
        customer_id=customer_id,
        key_id=None,
        user_id=None,
        agent_id=chance.choice(AGENTS),
        plan_id=plan_id,
        route=route.name,
        upstream=route.upstream,
        model=model,
        method="POST",
        path="/v1/chat/completions",
        status=502 if failed else 200,
        outcome=Outcome.UPSTREAM_ERROR if failed else Outcome.COMPLETE,
        streamed=True,
        started_ms=at_ms,
        ended_ms=at_ms + wait_ms + written * 9,
        first_byte_ms=wait_ms,
        units_micro=units_micro,
        source=Mark.ESTIMATED if unread and not failed else Mark.MEASURED,
        cost_nano=cost_nano,
        usage=usage,
        evidence={"usage()": usage},
        meter_hash=route.meter.hash,
        request_bytes=read * 4,
        response_bytes=written * 60,
    )
    actual = {UNITS: units_micro, REQUESTS: ONE_REQUEST, DOLLARS: cost_nano}
    await store.settle(Settlement(record, actual, gateway.plans[plan_id], record.ended_ms))
