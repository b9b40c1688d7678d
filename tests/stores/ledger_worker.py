"""A second process for the store's tests: opens the store, says ``ready``, waits for a line, does one thing.

Run as ``ledger_worker.py URL hold|extend|settle|tell|claim|recover|hang NAME COUNT``.
"""

import asyncio
import importlib.util
import sys
from pathlib import Path

from gatekeeper.clock import SystemClock
from gatekeeper.ports import Extension, Progress
from gatekeeper.rules.limits import Granted
from gatekeeper.rules.notices import Kind, Wanted
from gatekeeper.stores import open_store

_spec = importlib.util.spec_from_file_location("stores_conftest", Path(__file__).with_name("conftest.py"))
assert _spec is not None
_conftest = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_conftest)
make = _conftest.Make
ALL = Wanted(frozenset(Kind), (80, 95, 100))


def say(word):
    """One line to whoever started this process."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def _hold(store, name, count):
    """In waves of five, so that the processes' batches interleave. Every other order names its two limits the other way
    round: locks that were taken in the order of the lines would deadlock."""
    lines = [make.line(), make.line(cap=None, key=make.REQUESTS)]
    granted = 0
    for start in range(0, count, 5):
        calls = [f"{name}-{n}" for n in range(start, start + 5)]
        orders = [
            make.order(call, *(lines if n % 2 else lines[::-1]), rates=(make.rate(cap=10**12),))
            for n, call in enumerate(calls)
        ]
        answers = await asyncio.gather(*(store.hold(order) for order in orders))
        held = [call for call, found in zip(calls, answers, strict=True) if isinstance(found, Granted)]
        await asyncio.gather(*(store.settle(make.settlement(call)) for call in held))
        granted += len(held)
    return granted


async def _extend(store, name, count):
    """Five streams that go on, one unit at a time, until they are cut; the answer is how many units they got."""
    calls = [f"{name}-{n}" for n in range(count)]
    await asyncio.gather(*(store.hold(make.order(call, make.line(per_output=make.MICRO))) for call in calls))
    got = 0
    while calls:
        asked = [Extension(call, 1, 1, 0, True, make.NOW_MS + 30_000, make.NOW_MS) for call in calls]
        answers = await asyncio.gather(*(store.extend(one) for one in asked))
        calls = [call for call, answer in zip(calls, answers, strict=True) if isinstance(answer, Granted)]
        got += len(calls)
    return got


async def _settle(store, _name, count):
    """Every process settles the same calls."""
    settled = await asyncio.gather(*(store.settle(make.settlement(f"c{n}")) for n in range(count)))
    return sum(found.first for found in settled)


async def _tell(store, name, count):
    """Every process settles half of the calls alone, and with all others the other half."""
    store.tell(ALL)
    line = make.line(cap=count * 2 * make.MICRO)
    calls = [f"{name}-{n}" for n in range(count)] + [f"c{n}" for n in range(count)]
    for call in calls:
        if call.startswith(name):
            await store.hold(make.order(call, line))
        await store.settle(make.settlement(call))
    return len(calls)


async def _claim(store, name, count):
    """Claims in waves and reports all but the first of each, which is as good as lost."""
    got = []
    while claims := await store.claim("books", make.NOW_MS, make.NOW_MS + 60_000, count):
        got += [claim.event.id for claim in claims]
        await asyncio.gather(*(store.delivered(claim, make.NOW_MS) for claim in claims[1:]))
    return " ".join(got)


async def _recover(store, _name, count):
    return await store.recover(make.NOW_MS + 60_000, {}, limit=count)


async def _hang(store, name, count):
    """Holds, shows progress for half of them, and is killed while it waits."""
    calls = [f"{name}-{n}" for n in range(count)]
    await asyncio.gather(*(store.hold(make.order(call, make.line(fixed=2 * make.MICRO))) for call in calls))
    seen = [Progress(call, make.MICRO, True) for call in calls[: count // 2]]
    await store.renew(seen, make.NOW_MS + 40_000)
    say("held")
    await asyncio.sleep(3600)


async def main(url, what, name, count):
    store = await open_store(url, clock=SystemClock())
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    deeds = {
        "hold": _hold,
        "extend": _extend,
        "settle": _settle,
        "recover": _recover,
        "tell": _tell,
        "claim": _claim,
        "hang": _hang,
    }
    say(await deeds[what](store, name, count))
    await store.close()


asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
