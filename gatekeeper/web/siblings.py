"""What the workers of one host know of each other: a small file for each, in a folder that their parent made.

The rule: nothing that decides goes through here, so a file that is old, missing or broken costs a figure and no call.
A worker writes its own file once a second and when it ends, and only reads the others. Figures of one that is gone are
kept (counters never go down); what it had open is not.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from gatekeeper.clock import Clock

log = logging.getLogger("gatekeeper.siblings")

EVERY_S = 1.0
# Who has not written for so long is gone, or so busy that what it wrote is not true any more.
OLD_MS = 10_000
_SUFFIX = ".worker"


class Siblings:
    """``folder`` None: this process is alone. ``told`` is what this worker says of itself: plain JSON."""

    def __init__(self, folder: Path | None, told: Callable[[], Mapping[str, Any]], clock: Clock) -> None:
        self._folder = folder
        self._told = told
        self._clock = clock
        self._pid = os.getpid()
        # Of all files that were read: their time and text, so that what is the same is not read again.
        self._read: dict[Path, tuple[int, Mapping[str, Any]]] = {}

    @property
    def alone(self) -> bool:
        """Whether nobody else is here."""
        return self._folder is None

    async def run(self) -> None:
        """Write for ever; what cannot be written is tried again a second later."""
        while self._folder is not None:
            try:
                self.write()
            except Exception:
                # A mistake of ours here must not hide this worker for good.
                log.exception("this worker cannot tell the others how it is")
            await self._clock.sleep(EVERY_S)

    def write(self, *, alive: bool = True) -> None:
        """Say how this worker is; ``alive`` False: for the last time."""
        if self._folder is None:
            return
        told = {**self._told(), "pid": self._pid, "at_ms": self._clock.now_ms(), "alive": alive}
        # A named tuple is no tuple to it.
        text = orjson.dumps(told, default=list)
        place = self._folder / f"{self._pid}{_SUFFIX}"
        fresh = place.with_suffix(".new")
        # Its parent and the folder may be gone already.
        with contextlib.suppress(OSError):
            fresh.write_bytes(text)
            fresh.replace(place)

    def all(self) -> list[Mapping[str, Any]]:
        """What each worker says of itself, this one first and by heart."""
        now_ms = self._clock.now_ms()
        mine = {**self._told(), "pid": self._pid, "at_ms": now_ms, "alive": True}
        return [mine, *self._others(now_ms)]

    def _others(self, now_ms: int) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        if self._folder is None:
            return found
        for place in sorted(self._folder.glob(f"*{_SUFFIX}")):
            if place.stem == str(self._pid):
                continue
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                told = self._of(place)
                found.append({**told, "alive": told["alive"] and now_ms - told["at_ms"] < OLD_MS})
        return found

    def _of(self, place: Path) -> Mapping[str, Any]:
        changed_ns = place.stat().st_mtime_ns
        known = self._read.get(place)
        if known is None or known[0] != changed_ns:
            known = self._read[place] = changed_ns, orjson.loads(place.read_bytes())
        return known[1]


async def closed(siblings: Siblings, task: "asyncio.Task[None]") -> None:
    """End the writing, and write for the last time."""
    task.cancel()
    await asyncio.wait({task})
    siblings.write(alive=False)
