"""A thread of its own that does one job after another for an event loop.

The rule: what it owns (a connection, a file) is touched by nobody else. It costs one wake-up of the loop for each job,
which ``ThreadPoolExecutor`` takes three times as long for.
"""

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class _Job(NamedTuple):
    job: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    answer: "asyncio.Future[Any]"


class Worker:
    """Begins with its first job. A process that ends without closing it does not wait for it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def run(self, job: Callable[[], T]) -> "asyncio.Future[T]":
        """The job's result, or what it raised. A future that is cancelled before its turn has come is passed over.
        Raises RuntimeError when closed."""
        if self._closed:
            raise RuntimeError("the thread was closed")
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()
        self._jobs.put(_Job(job, loop, answer))
        return answer

    async def close(self) -> None:
        """Waits for the jobs that were asked for."""
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (found := self._jobs.get()) is not None:
            if found.answer.cancelled():
                continue
            result: Any = None
            failure: BaseException | None = None
            try:
                result = found.job()
            except BaseException as raised:  # noqa: BLE001 - it is raised where the answer is awaited
                failure = raised
            try:
                found.loop.call_soon_threadsafe(_tell, found.answer, result, failure)
            except RuntimeError:
                # The loop is gone, and with it whoever waited.
                continue
            del found, result, failure


def _tell(answer: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(result)
    else:
        answer.set_exception(failure)
