"""A second process for the dispatcher's tests: tells what is due, and stands still where a test wants to kill it.

Run as ``notifiers_worker.py DATABASE_URL RECEIVER_URL before|after``: before the answer is written down, or after.
"""

import asyncio
import signal
import sys
from functools import partial

from notifiers_stand import gateway_of, webhook

from gatekeeper.assembly import make_notifier
from gatekeeper.clock import SystemClock
from gatekeeper.notifiers.dispatch import Dispatcher
from gatekeeper.stores import open_store


def say(word):
    """One line to whoever started this process."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


class Halting:
    """The store, which stands still at one place."""

    def __init__(self, store, where):
        self._store = store
        self._where = where

    def __getattr__(self, name):
        return getattr(self._store, name)

    async def delivered(self, claim, now_ms):
        if self._where == "after":
            await self._store.delivered(claim, now_ms)
        say("posted")
        # Until it is killed: a sleep that lets others run would let the lease be taken again here.
        signal.pause()


async def main(database_url, receiver_url, where):
    clock = SystemClock()
    store = Halting(await open_store(database_url, clock=clock), where)
    gateway = gateway_of(webhook(receiver_url))
    make = partial(make_notifier, clock=clock)
    await Dispatcher(store, lambda: gateway, make, clock, lambda: 0.0).run()


asyncio.run(main(*sys.argv[1:]))
