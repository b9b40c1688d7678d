"""A crowd before a small budget: 1,000 streams at once, $5.00, and $0.10 at most for each.

The rule: as many are let in as can all turn out to be as dear as they may be, and not one more, whoever asks first.
"""

import asyncio
import random
import resource
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.chaos_audit import Report, check_calls, check_sums, doctor, idle, number, watch_caps
from bench.chaos_rig import Gateway, Provider, Seen, Wish, call

BUDGET_NANO = 5_000_000_000
# At $1.00 for 1,000 tokens of output (see the rig's prices): $0.10 each.
TOKENS_MAX = 100
FIT = 50
_DECIDED_WITHIN_S = 60.0
PLANS = {
    "chaos": 'name = "Chaos"\nmonthly_price = 0\n[quota]\nunits = "unlimited"\nwindow = "month"\n'
    '[[limits]]\ndollars = "5.00"\nwindow = "total"\n'
}


@dataclass(frozen=True)
class Crowd:
    """How many, and where."""

    folder: Path
    url: str
    seed: int
    streams: int = 1_000
    workers: int = 1
    # How often those who were refused ask again at once, whatever Retry-After says.
    again: int = 2


def _files_for(count: int) -> None:
    """Each stream is an open file here and one in the gateway, which inherits the bound."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count * 2 + 500
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard) if hard > 0 else wanted, hard))


async def _together(gateway: Gateway, provider: Provider, key: str, asked: list[Seen]) -> tuple[int, int]:
    """All at once; no answer goes on before each call is decided. (let in, refused)."""
    provider.gate.clear()
    calls = [asyncio.create_task(call(gateway.port, key, one.wish, one)) for one in asked]
    try:
        async with asyncio.timeout(_DECIDED_WITHIN_S):
            while True:
                refused = sum(one.status not in (0, 200) for one in asked)
                if refused + provider.in_flight >= len(asked):
                    break
                await asyncio.sleep(0.02)
        let_in = provider.in_flight
    finally:
        provider.gate.set()
    await asyncio.gather(*calls)
    return let_in, refused


async def crowd(wanted: Crowd, say: Callable[[str], None]) -> Report:
    """The first crowd is decided whole before anybody is served; those who were refused ask again while others are
    being served; then the audit."""
    kind = wanted.url.partition(":")[0]
    report = Report(
        f"{wanted.streams} streams, $5.00, {kind}, {wanted.workers} process{'es'[: 2 * (wanted.workers > 1)]}"
    )
    chance = random.Random(wanted.seed)
    _files_for(wanted.streams)
    async with Provider().serving() as provider:
        gateway = Gateway(wanted.folder, wanted.url, provider.port, wanted.workers, PLANS, hold="worst_case")
        # Nobody dies here: a process that a busy machine keeps from its beat must not be taken for dead.
        gateway.hold_ttl_s, gateway.heartbeat_s = 60, 2
        gateway.write()
        key = (await gateway.customers([("acme", "chaos")]))["acme"]
        await watch_caps(wanted.url, [("customer", "acme", "dollars", BUDGET_NANO)])
        await gateway.start()
        try:
            seen = [Seen(Wish(chance.randint(10, TOKENS_MAX * 2), TOKENS_MAX)) for _ in range(wanted.streams)]
            began_s = time.monotonic()
            let_in, refused = await _together(gateway, provider, key, seen)
            took_s = time.monotonic() - began_s
            say(f"{report.name}: {let_in} let in and {refused} refused at once, in {took_s:.1f} s with their answers")
            report.must(let_in == min(FIT, wanted.streams), f"{let_in} were let in at once instead of {FIT}")
            again = seen
            for _ in range(wanted.again):
                again = [Seen(one.wish) for one in again if one.status != 200]
                await asyncio.gather(*(call(gateway.port, key, one.wish, one) for one in again))
                seen = [*seen, *again]
                say(f"{report.name}: {sum(one.complete for one in again)} of {len(again)} let in when they asked again")
            report.must(provider.most_in_flight <= FIT, f"{provider.most_in_flight} were served at once")
            report.must(await idle(wanted.url, 30), "something is still held half a minute later")
        finally:
            report.must(await gateway.stop() == 0, f"the gateway did not stop well:\n{gateway.log()}")
    spent = await number(wanted.url, "SELECT used FROM counter WHERE scope = 'customer' AND dimension = 'dollars'")
    codes = Counter(one.code for one in seen if one.status not in (0, 200))
    unanswered = sum(one.status == 0 for one in seen)
    report.must(not unanswered, f"{unanswered} calls got no answer")
    report.must(set(codes) <= {"limit_held", "exceeds_limit", "budget_exceeded"}, f"refused with {dict(codes)}")
    report.must(0 < spent <= BUDGET_NANO, f"${spent / 1e9} was spent")
    report.figures |= {"seed": wanted.seed, "most at once": provider.most_in_flight, "spent": f"${spent / 1e9:.3f}"}
    report.figures |= {"decided and served in s": round(took_s, 1), "refusals": dict(codes)}
    await check_sums(wanted.url, report)
    await check_calls(wanted.url, seen, report)
    await asyncio.to_thread(doctor, wanted.folder, report)
    return report
