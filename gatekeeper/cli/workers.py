"""``gatekeeper serve --workers N``: so many processes on one address, and one that watches over them.

The rule: the kernel spreads connections over one socket a process (SO_REUSEPORT; a shared socket was measured to spread
5 to 59), and nothing that decides lives in a process, so any of them may die. A worker whose parent is gone stops.
"""

import asyncio
import logging
import signal
import sys
from collections.abc import Sequence

log = logging.getLogger("gatekeeper.workers")

# A worker that ends sooner than this had something wrong from the start; so many of them in a row, and all is stopped.
_TOO_SOON_S = 5.0
_FAILURES_MAX = 3
_PAUSE_S = 0.5


class Supervisor:
    """Keeps ``count`` workers running until it is told to stop."""

    def __init__(self, command: Sequence[str], count: int) -> None:
        self._command = tuple(command)
        self._count = count
        self._running: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._failures = 0

    async def run(self) -> int:
        """Returns the exit code: 0 for a stop that was asked for."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        await asyncio.gather(*(self._keep(number) for number in range(self._count)))
        return 1 if self._failures >= _FAILURES_MAX else 0

    def _stop(self) -> None:
        self._stopping.set()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, sign: signal.Signals) -> None:
        for process in self._running.values():
            if process.returncode is None:
                process.send_signal(sign)

    async def _keep(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            started_s = loop.time()
            # Its end of the pipe reads nothing for ever; the end of it says that this process is gone.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gatekeeper.cli.main", *self._command, stdin=asyncio.subprocess.PIPE
            )
            self._running[number] = process
            if self._stopping.is_set():
                process.send_signal(signal.SIGTERM)
            code = await process.wait()
            if self._stopping.is_set():
                break
            log.error("worker %d ended with %d", number, code)
            self._failures = self._failures + 1 if loop.time() - started_s < _TOO_SOON_S else 0
            if self._failures >= _FAILURES_MAX:
                log.error("the workers keep ending; giving up")
                self._stop()
                break
            await asyncio.sleep(_PAUSE_S)
        self._running.pop(number, None)
