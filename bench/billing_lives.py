"""``python -m bench.billing_lives``: gateways' billing without the gateways, forked one after the other and killed.

It reads a line of JSON for each round and answers with one. It forks from a process that has never opened a database or
run a loop, so that Python and the SDK are loaded once. The rule: a life knows nothing but the database.
"""

import asyncio
import json
import os
import random
import select
import signal
import sys
import time
import traceback
from decimal import Decimal
from typing import Any

from gatekeeper.billers.stripe import StripeBiller
from gatekeeper.billers.stripe_client import Wire
from gatekeeper.billing.outbox import Flusher, Flushing
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Secret, StripeConfig
from gatekeeper.money import Price
from gatekeeper.ports import Settlement
from gatekeeper.rules.limits import ONE_REQUEST, Mode, Scope, StockLimit, Window
from gatekeeper.rules.plans import Plan
from gatekeeper.stores import SqlStore, open_store
from tests.fakes.past import MICRO, record

METER = "gatekeeper_units"
_QUOTA = StockLimit("quota", Scope.CUSTOMER, "units", Window.BILLING_PERIOD, 1_000 * MICRO, Mode.OVERAGE)
PLAN = Plan("pro", "Pro", Decimal(29), _QUOTA, overage=Price(Decimal("0.002")))
PEOPLE = ("ada", "bob", "eva")
# A flush every 5 minutes would leave nothing to be killed.
_FLUSH_S = 0.02
_LOOK_S = 0.005
# For the first report; on a machine that is busy it takes its time.
_BEGUN_S = 3.0


class Shifted(SystemClock):
    """The present, and so many seconds: leases, hours and days pass without anybody waiting for them."""

    def __init__(self, shift_s: float) -> None:
        self.shift_s = shift_s

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        return super().now_ms() + int(self.shift_s * 1000)


async def use(store: SqlStore, clock: Shifted, chance: random.Random, name: str) -> None:
    """Calls of any size end, until whoever counts them is dead."""
    number = 0
    while True:
        number += 1
        now_ms = clock.now_ms()
        units_micro = chance.choice((1, 250_000, 999_999, 1_000_000, 7_500_000, 130_000_001))
        call = record(
            f"{name}-{number}", PLAN.id, units_micro, customer_id=chance.choice(PEOPLE),
            started_ms=now_ms, ended_ms=now_ms,
        )  # fmt: skip
        await store.settle(Settlement(call, {"requests": ONE_REQUEST}, PLAN, now_ms))
        await asyncio.sleep(chance.uniform(0, 0.01))


async def live(asked: dict[str, Any], number: int, writing: int) -> dict[str, Any]:
    """One process: calls and a flusher; a dot says when it has reported, which only the elected one does. With ``last``
    nobody calls any more, and it ends when nothing is due."""
    chance = random.Random(f"{asked['seed']} {number}")
    clock = Shifted(asked["shift_s"])
    store = await open_store(asked["url"], clock=clock)
    assert isinstance(store, SqlStore)
    config = StripeConfig(enabled=True, secret_key=Secret(asked["key"]), api_base=asked["stripe"], meter=METER)
    # The SDK waits for half a second between two tries.
    biller = StripeBiller(config, Wire(lambda seconds: asyncio.sleep(seconds / 50)))
    owner = f"{asked['seed']}-{number}-{os.getpid()}"
    seeds = iter(range(10**9))
    flusher = Flusher(
        store, biller, lambda: Flushing(_FLUSH_S, METER, {PLAN.id: PLAN}, known_only=True), clock, owner=owner,
        seed=lambda: f"{owner}-{next(seeds)}", chance=chance.random,
    )  # fmt: skip
    if asked["last"]:
        while await flusher.turn():
            pass
        backlog = await store.backlog()
        await flusher.drain(10)
        await biller.close()
        await store.close()
        return {"waiting": backlog.waiting, "dead": backlog.dead, "unfrozen": backlog.unfrozen}
    calls = [asyncio.create_task(use(store, clock, chance, f"{owner}-{turn}")) for turn in range(3)]
    said = False
    while True:
        if (await flusher.turn() or any(call.done() for call in calls)) and not said:
            said = bool(os.write(writing, b"."))
        await asyncio.sleep(_LOOK_S)
        for call in calls:
            if call.done():
                call.result()


def forked(asked: dict[str, Any], number: int) -> tuple[int, int]:
    """(the child's id, where it says how it ended)."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    code = 1
    try:
        os.close(reading)
        said = asyncio.run(live(asked, number, writing))
        os.write(writing, json.dumps(said).encode())
        code = 0
    except BaseException:  # noqa: BLE001 - a child must never go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def round_of(asked: dict[str, Any]) -> dict[str, Any]:
    """So many processes begin, and each is killed at its own moment; the last one is let live."""
    children = [forked(asked, number) for number in range(len(asked["lives_s"]) or 1)]
    said, ends = "", []
    if asked.get("begun"):
        # One of them is elected, unless the time since the last round was too short.
        select.select([reading for _, reading in children], [], [], _BEGUN_S)
    began_s = time.monotonic()
    deaths = sorted(zip(asked["lives_s"], children, strict=False), key=lambda one: float(one[0]))
    for life_s, (child, _) in deaths:
        time.sleep(max(0.0, began_s + life_s - time.monotonic()))
        os.kill(child, signal.SIGKILL)
    for child, reading in children:
        if asked["last"]:
            with open(reading, "rb", closefd=False) as pipe:
                said = pipe.read().decode().lstrip(".")
        ends.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        os.close(reading)
    return {"ends": ends, "said": json.loads(said) if said else None}


def main() -> None:
    """A round for each line, until there are no more."""
    for line in sys.stdin:
        sys.stdout.write(json.dumps(round_of(json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
