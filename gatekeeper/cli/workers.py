"""``gatekeeper serve --workers N``: so many processes on one address, and one that watches over them.

The rule: the kernel spreads connections over one socket a process (SO_REUSEPORT; a shared socket was measured to spread
5 to 59), and nothing that decides lives in a process, so any of them may die or be replaced. The sockets belong to the
parent: what waits on one while its worker is replaced is served by the next. A worker whose parent is gone stops.
"""

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass

log = logging.getLogger("gatekeeper.workers")

# A worker that ends sooner than this had something wrong from the start; so many of them in a row, and all is stopped.
_TOO_SOON_S = 5.0
_FAILURES_MAX = 3
_PAUSE_S = 0.5
# A database that is slow to open is waited for; a worker that never comes up must not stop the one before it.
_READY_S = 60.0


@dataclass(slots=True)
class _Worker:
    process: asyncio.subprocess.Process
    started_s: float
    # The end of a pipe that a worker writes to when it serves.
    ready_fd: int


class Supervisor:
    """Keeps one worker on each of ``sockets`` running until it is told to stop; SIGUSR2 replaces them one by one."""

    def __init__(self, command: Sequence[str], sockets: Sequence[socket.socket]) -> None:
        self._command = tuple(command)
        self._sockets = tuple(sockets)
        self._running: dict[int, _Worker] = {}
        self._leaving: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self._renewing: asyncio.Task[None] | None = None
        self._failures = 0

    async def run(self) -> int:
        """Returns the exit code: 0 for a stop that was asked for."""
        loop = asyncio.get_running_loop()
        for sign in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(sign, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._pass_on, signal.SIGHUP)
        loop.add_signal_handler(signal.SIGUSR2, self._begin_to_renew)
        await asyncio.gather(*(self._keep(number) for number in range(len(self._sockets))))
        if self._renewing is not None:
            await asyncio.wait({self._renewing})
        for process in self._leaving:
            await process.wait()
        return 1 if self._failures >= _FAILURES_MAX else 0

    def _stop(self) -> None:
        self._stopping.set()
        self._pass_on(signal.SIGTERM)

    def _pass_on(self, sign: signal.Signals) -> None:
        for process in [*(worker.process for worker in self._running.values()), *self._leaving]:
            if process.returncode is None:
                process.send_signal(sign)

    async def _start(self, number: int) -> _Worker:
        read_fd, write_fd = os.pipe()
        listening_fd = self._sockets[number].fileno()
        command = [*self._command, "--listening-fd", str(listening_fd), "--ready-fd", str(write_fd)]
        try:
            # Its end of stdin reads nothing for ever; the end of it says that this process is gone.
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gatekeeper.cli.main", *command,
                stdin=asyncio.subprocess.PIPE, pass_fds=(listening_fd, write_fd),
            )  # fmt: skip
        except BaseException:
            os.close(read_fd)
            raise
        finally:
            os.close(write_fd)
        return _Worker(process, asyncio.get_running_loop().time(), read_fd)

    async def _keep(self, number: int) -> None:
        """Start, and start again whatever ends."""
        loop = asyncio.get_running_loop()
        while not self._stopping.is_set():
            worker = self._running[number] = await self._start(number)
            if self._stopping.is_set():
                worker.process.send_signal(signal.SIGTERM)
            code = await self._ended(number)
            if self._stopping.is_set():
                break
            worker = self._running[number]
            log.error("worker %d ended with %d", number, code)
            self._failures = self._failures + 1 if loop.time() - worker.started_s < _TOO_SOON_S else 0
            if self._failures >= _FAILURES_MAX:
                log.error("the workers keep ending; giving up")
                self._stop()
                break
            await asyncio.sleep(_PAUSE_S)
        self._running.pop(number, None)

    async def _ended(self, number: int) -> int:
        """Wait for the worker of this number, or whoever took its place; returns its exit code."""
        while True:
            worker = self._running[number]
            code = await worker.process.wait()
            os.close(worker.ready_fd)
            if self._running[number] is worker:
                return code
            self._leaving.discard(worker.process)

    def _begin_to_renew(self) -> None:
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.create_task(self._renew(), name="renew")

    async def _renew(self) -> None:
        """One after the other: the new worker serves before the old one is told to stop, and ends what it has begun."""
        log.info("replacing %d workers", len(self._sockets))
        for number in range(len(self._sockets)):
            old = self._running.get(number)
            if old is None or self._stopping.is_set():
                return
            new = await self._start(number)
            if not await self._is_ready(new):
                log.error("the new worker %d does not come up; the old ones stay", number)
                await _killed(new)
                return
            if self._running.get(number) is not old or self._stopping.is_set():
                # The old one died meanwhile and was replaced, or all is to stop.
                await _killed(new)
                return
            self._leaving.add(old.process)
            self._running[number] = new
            old.process.send_signal(signal.SIGTERM)
        log.info("the workers are replaced; those before them end what they have begun")

    async def _is_ready(self, worker: _Worker) -> bool:
        loop = asyncio.get_running_loop()
        heard: asyncio.Future[bool] = loop.create_future()

        def readable() -> None:
            loop.remove_reader(worker.ready_fd)
            # The end without a word: the worker is gone.
            heard.set_result(bool(os.read(worker.ready_fd, 1)))

        loop.add_reader(worker.ready_fd, readable)
        try:
            async with asyncio.timeout(_READY_S):
                return await heard
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(worker.ready_fd)


async def _killed(worker: _Worker) -> None:
    if worker.process.returncode is None:
        worker.process.send_signal(signal.SIGTERM)
    await worker.process.wait()
    os.close(worker.ready_fd)
