"""kill -9 at random moments, with streams in flight, again and again on one database.

The rule: the gateway is never told; what a client saw and what the database says afterwards is all that counts.
"""

import asyncio
import os
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.chaos_audit import MICRO, Report, check_calls, check_sums, doctor, idle, number, watch_caps
from bench.chaos_rig import Gateway, Provider, Seen, Wish, call

# In units: a few calls at once hold more than that, a second of calls uses it up.
SMALL_CAP = 3_000
PLANS = {
    "chaos": 'name = "Chaos"\nmonthly_price = 0\n[quota]\nunits = "unlimited"\nwindow = "month"\n',
    "small": f'name = "Small"\nmonthly_price = 0\n[quota]\nunits = {SMALL_CAP}\nwindow = "month"\n'
    'when_used = "block"\n[[limits]]\ndollars = "2.00"\nwindow = "total"\n',
    "priced": 'name = "Priced"\nmonthly_price = 9\n[quota]\nunits = 1_000\nwindow = "month"\nwhen_used = "overage"\n'
    '[overage]\nprice = "0.0010000005"\nper = "1 token"\n'
    '[[limits]]\nscope = "key"\ndollars = "1000"\nwindow = "month"\n',
}
MORE = '[[limits]]\nscope = "global"\nunits = 1_000_000_000\nwindow = "month"\n'
_LIFE_S = (0.15, 1.2)
_PAUSES_S = (0.0, 0.001, 0.005, 0.02)


@dataclass(frozen=True)
class Rounds:
    """How much, and where. With ``workers`` above 1 every third round kills one worker only, and all of them later."""

    folder: Path
    url: str
    seed: int
    rounds: int = 50
    clients: int = 24
    workers: int = 1


def _wish(chance: random.Random) -> Wish:
    tokens = chance.randint(1, 60)
    return Wish(
        tokens,
        max_tokens=chance.choice((tokens, tokens + 20, max(1, tokens // 2))),
        pause_s=chance.choice(_PAUSES_S),
        stream=chance.random() < 0.85,
        ask_usage=chance.random() < 0.5,
    )


async def _client(port: int, key: str, chance: random.Random, seen: list[Seen]) -> None:
    """One call after another until the gateway is gone."""
    while True:
        one = Seen(_wish(chance))
        seen.append(one)
        await call(port, key, one.wish, one)
        if not one.status:
            return
        if one.status != 200:
            await asyncio.sleep(0.02)


async def _round(
    gateway: Gateway, keys: list[str], chance: random.Random, clients: int, seen: list[Seen], *, one_worker: bool
) -> tuple[float, int]:
    """Start, load, kill: (after how many seconds, with how many calls in flight)."""
    await gateway.start()
    before, life_s = len(seen), chance.uniform(*_LIFE_S)
    tasks = [
        asyncio.create_task(_client(gateway.port, keys[number % len(keys)], random.Random(chance.random()), seen))
        for number in range(clients)
    ]
    await asyncio.sleep(life_s)
    if one_worker and len(pids := gateway.pids()) > 1:
        os.kill(chance.choice(pids[1:]), signal.SIGKILL)
        await asyncio.sleep(chance.uniform(*_LIFE_S))
    in_flight = sum(not one.ended for one in seen[before:])
    gateway.kill()
    # What was on its way to the clients still arrives: the kernel has it.
    _, left = await asyncio.wait(tasks, timeout=5)
    for task in left:
        task.cancel()
    await asyncio.gather(*tasks)
    return life_s, in_flight


async def kill_rounds(wanted: Rounds, say: Callable[[str], None]) -> Report:
    """All rounds, then one start that recovers what the last one left, and the audit."""
    kind = wanted.url.partition(":")[0]
    report = Report(f"kill -9, {kind}, {wanted.workers} process{'es' if wanted.workers > 1 else ''}")
    chance = random.Random(wanted.seed)
    seen: list[Seen] = []
    async with Provider().serving() as provider:
        gateway = Gateway(wanted.folder, wanted.url, provider.port, wanted.workers, PLANS, MORE)
        gateway.write()
        names = [f"small-{turn}" for turn in range(wanted.rounds)]
        keys = await gateway.customers([("priced", "priced"), *((name, "small") for name in names)])
        caps = [("customer", "small-%", "units", SMALL_CAP * MICRO), ("customer", "small-%", "dollars", 2 * 10**9)]
        await watch_caps(wanted.url, caps, growth_only=True)
        for turn, name in enumerate(names):
            before = len(seen)
            one_worker = wanted.workers > 1 and turn % 3 == 2
            life_s, in_flight = await _round(
                gateway, [keys["priced"], keys[name]], chance, wanted.clients, seen, one_worker=one_worker
            )
            ours = seen[before:]
            held = await number(wanted.url, "SELECT COUNT(*) FROM hold WHERE state = 'open'")
            say(
                f"{report.name}: round {turn + 1:3} of {wanted.rounds}: killed after {life_s:.2f} s with {in_flight:3}"
                f" calls in flight; {sum(one.complete for one in ours):4} complete,"
                f" {sum(one.status not in (0, 200) for one in ours):4} refused; {held:3} holds left behind"
            )
        await gateway.start()
        try:
            report.must(await idle(wanted.url, 30), "what was held is still held half a minute later")
        finally:
            report.must(await gateway.stop() == 0, f"the last gateway did not stop well:\n{gateway.log()}")
    report.figures |= {"rounds": wanted.rounds, "seed": wanted.seed}
    await check_sums(wanted.url, report)
    await check_calls(wanted.url, seen, report)
    await asyncio.to_thread(doctor, wanted.folder, report)
    return report
