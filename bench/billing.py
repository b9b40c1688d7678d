"""``python -m bench.billing``: kill -9 whoever reports usage, at random, against a Stripe that refuses duplicates.

In each round two processes settle calls and report usage, through the real SDK, to a fake Stripe that is slow, forgets
its answers, breaks connections and throttles; both are killed, and some time passes: a second, or a day, after which an
identifier is no protection any more. In the end, for each customer: what Stripe has counted, and what is less than a
unit, is what the ledger says, to the millionth of a unit (drift 0).
"""

import argparse
import asyncio
import json
import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.billing_lives import METER, PEOPLE, PLAN, Shifted
from bench.chaos import Databases, prepared, rendered
from bench.chaos_audit import Report, number, rows
from bench.systems import ROOT
from gatekeeper.billers.stripe_catalogue import StripeCatalogue
from gatekeeper.billers.stripe_sales import StripeSales
from gatekeeper.billing.catalogue import apply
from gatekeeper.config.gateway import Secret, StripeConfig
from gatekeeper.demo.stripe import FakeStripe, Fault
from gatekeeper.ports import Customer
from gatekeeper.rules.billing import BatchState
from gatekeeper.rules.catalogue import wanted
from gatekeeper.stores import SqlStore, open_store

MICRO = 1_000_000
# Less than an election; more than a lease; hours; more than an identifier is refused for.
_SHIFTS_S = (1, 40, 150, 150, 150, 4_000, 4_000, 90_000)
_LIVES_S = (0.04, 0.7)
_LATENCIES_S = (0.0, 0.002, 0.02)
_DUPLICATE = "already exists with identifier"
_METER_EVENTS = "/v1/billing/meter_events"
# An hour each: the longest pause between two attempts.
_LAST_ROUNDS = 40
_ROUND_TIMEOUT_S = 120.0


async def enter(url: str, clock: Shifted, config: StripeConfig) -> dict[str, str]:
    """The account is set up, and everybody is a customer there; accounts by customer."""
    store = await open_store(url, clock=clock)
    assert isinstance(store, SqlStore)
    sales, catalogue = StripeSales(config), StripeCatalogue(config)
    accounts = {}
    try:
        await apply(catalogue, wanted({PLAN.id: PLAN}, METER, None, live=False), clock, "bench", lambda *_: None)
        for name in PEOPLE:
            now_ms = clock.now_ms()
            made = Customer(name, name, PLAN.id, now_ms, now_ms)
            await store.create_customer(made)
            accounts[name] = await sales.open_account(made)
            await store.link_account(name, accounts[name])
    finally:
        await sales.close()
        await catalogue.close()
        await store.close()
    return accounts


def misbehave(fake: FakeStripe, chance: random.Random) -> None:
    """What the calls of the next round meet."""
    fake.faults.disarm()
    fake.latency_s = chance.choice(_LATENCIES_S)
    faults = (
        Fault.reset_after(), Fault.reset_before(), Fault.error(500, applied=True), Fault.error(503),
        Fault.error(500, applied=True, sticks=True), Fault.too_many(1),
    )  # fmt: skip
    for _ in range(chance.randrange(4)):
        fake.fail(_METER_EVENTS, chance.choice(faults), method="POST", times=chance.choice((1, 3)))


async def told_of(process: asyncio.subprocess.Process, asked: dict[str, Any]) -> dict[str, Any]:
    """One round, done by the process that forks."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(json.dumps(asked).encode() + b"\n")
    await process.stdin.drain()
    async with asyncio.timeout(_ROUND_TIMEOUT_S):
        line = await process.stdout.readline()
    if not line:
        raise RuntimeError("whoever forks is gone")
    found: dict[str, Any] = json.loads(line)
    return found


async def rounds_of(url: str, seed: int, rounds: int) -> Report:
    """All rounds, then as many quiet ones as it takes until nothing waits, and the sums."""
    report = Report(f"kill -9 of reporting, {url.partition(':')[0]}", {"seed": seed, "rounds": rounds})
    chance, clock = random.Random(seed), Shifted(0.0)
    fake = FakeStripe(clock=clock)
    async with fake.serve() as base:
        config = StripeConfig(enabled=True, secret_key=Secret(fake.secret_key), api_base=base, meter=METER)
        accounts = await enter(url, clock, config)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bench.billing_lives", cwd=ROOT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        asked = {"url": url, "stripe": base, "key": fake.secret_key, "last": False}
        passed_s = _SHIFTS_S[-1]
        try:
            for turn in range(rounds):
                misbehave(fake, chance)
                lives_s = [chance.uniform(*_LIVES_S) for _ in range(2)]
                life = {"seed": f"{seed}-{turn}", "shift_s": clock.shift_s, "lives_s": lives_s}
                # Some die before they have begun; after a second nobody is elected yet.
                life["begun"] = passed_s > 1 and chance.random() < 0.8
                ends = (await told_of(process, asked | life))["ends"]
                report.must(ends == [-9, -9], f"round {turn} ended by itself: {ends}")
                # What the dead have sent arrives: no request is on its way for a day.
                await _idle(fake)
                passed_s = chance.choice(_SHIFTS_S)
                clock.shift_s += passed_s
            fake.faults.disarm()
            await _finish(process, asked, clock, report)
            if await _settled_by_hand(url, clock, fake, report):
                await _finish(process, asked, clock, report)
        finally:
            if process.stdin is not None:
                process.stdin.close()
            await process.wait()
    await _check(url, fake, accounts, report)
    return report


async def _idle(fake: FakeStripe) -> None:
    quiet = 0
    while quiet < 3:
        await asyncio.sleep(0.01)
        quiet = 0 if any(fake.requests.in_flight_by_meter.values()) else quiet + 1


async def _finish(process: asyncio.subprocess.Process, asked: dict[str, Any], clock: Shifted, report: Report) -> None:
    said: dict[str, int] | None = None
    for turn in range(_LAST_ROUNDS):
        clock.shift_s += 3_700
        life = {"seed": f"last-{turn}", "shift_s": clock.shift_s, "lives_s": [], "last": True}
        said = (await told_of(process, asked | life))["said"]
        if said is None or (not said["waiting"] and not said["unfrozen"]):
            break
    left = None if said is None else {name: count for name, count in said.items() if name != "dead"}
    report.must(left == {"waiting": 0, "unfrozen": 0}, f"what is left in the end: {said}")
    report.figures["days"] = round(clock.shift_s / 86_400, 1)


async def _settled_by_hand(url: str, clock: Shifted, fake: FakeStripe, report: Report) -> int:
    """What is told apart by no sum is given up to a person, who looks into Stripe's own list of events."""
    counted = {event.identifier for event in fake.meter_events}
    store = await open_store(url, clock=clock)
    try:
        dead = await store.batches(state=BatchState.DEAD, limit=1_000)
        for batch in dead:
            report.must("do not tell" in (batch.error or ""), f"{batch.id} was given up: {batch.error}")
            await store.settle_by_hand(batch.id, clock.now_ms(), told=batch.identifier in counted)
    finally:
        await store.close()
    report.figures["settled by hand"] = len(dead)
    return len(dead)


async def _check(url: str, fake: FakeStripe, accounts: dict[str, str], report: Report) -> None:
    asked = fake.requests.to(_METER_EVENTS, "POST")
    accepted = len(fake.meter_events)
    drift = 0
    for name, account in accounts.items():
        whose = f"WHERE customer_id = '{name}'"
        used = await number(url, f"SELECT CAST(COALESCE(SUM(units_micro), 0) AS BIGINT) FROM usage_record {whose}")
        left = await number(url, f"SELECT CAST(COALESCE(SUM(residue_micro), 0) AS BIGINT) FROM meter_account {whose}")
        counted = fake.metered_units(account, METER) * MICRO
        drift += abs(counted + left - used)
        report.must(counted + left == used, f"{name}: Stripe has {counted}, {left} are carried, the ledger has {used}")
    states = dict(map(tuple, await rows(url, "SELECT state, COUNT(*) FROM meter_batch GROUP BY state")))
    report.must(not states.get("dead"), f"{states.get('dead')} batches are given up in the end")
    identifiers = [event.identifier for event in fake.meter_events]
    report.must(len(identifiers) == len(set(identifiers)), "an identifier was counted twice")
    report.figures |= {
        "calls": await number(url, "SELECT COUNT(*) FROM usage_record"),
        "batches": sum(states.values()),
        "reports": len(asked),
        "accepted": accepted,
        "duplicates refused": sum(_DUPLICATE in (one.refusal or "") for one in asked),
        "units": fake.metered_units(event_name=METER),
        "drift": drift,
    }


def run(asked: argparse.Namespace) -> list[Report]:
    """On each database that was asked for."""
    reports = []
    with ExitStack() as stack:
        databases: Databases = prepared(asked, stack, lambda text: print(text, file=sys.stderr, flush=True))
        for kind in databases.kinds:
            url, _ = databases.new(kind)
            began_s = time.monotonic()
            try:
                report = asyncio.run(rounds_of(url, asked.seed, asked.rounds))
            finally:
                databases.drop(url)
            report.figures["took s"] = round(time.monotonic() - began_s, 1)
            reports.append(report)
    return reports


def main() -> int:
    """The command line; 1 when anything was not as it must be."""
    words = argparse.ArgumentParser(prog="python -m bench.billing", description=__doc__)
    words.add_argument("--rounds", type=int, default=100, help="on each database (default: 100)")
    words.add_argument("--database", choices=("sqlite", "postgres", "both"), default="both")
    words.add_argument("--postgres", metavar="URL", help="a server whose user may create databases")
    words.add_argument("--seed", type=int, default=random.randrange(10**6), help="of everything that is left to chance")
    words.add_argument("--json", metavar="FILE", help="the results for scripts; - prints them instead of the table")
    asked = words.parse_args()
    reports = run(asked)
    results = [{"name": one.name, "figures": one.figures, "wrong": one.wrong} for one in reports]
    if asked.json == "-":
        print(json.dumps(results))
    else:
        print(rendered(reports))
        if asked.json:
            Path(asked.json).write_text(json.dumps(results, indent=1) + "\n")
    return 1 if any(report.wrong for report in reports) or not reports else 0


if __name__ == "__main__":
    sys.exit(main())
