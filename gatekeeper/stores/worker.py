"""A thread of its own that does one job after another for an event loop.

The rule: what it owns (a connection, a file) is touched by nobody else. It costs one wake-up of the loop for each job,
which ``ThreadPoolExecutor`` takes three times as long for.
"""

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")


# What is called on the loop: with the result, or with what the job raised.
Then: TypeAlias = Callable[[T | None, BaseException | None], None]
_Job: TypeAlias = tuple[Callable[[], Any], asyncio.AbstractEventLoop, Callable[[Any, BaseException | None], None]]


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
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.begin(lambda: None if answer.cancelled() else job(), partial(_tell, answer))
        return answer

    def begin(self, job: Callable[[], T], then: Then[T]) -> None:
        """The same without a future: ``then`` is called on the loop, without raising."""
        if self._closed:
            raise RuntimeError("the thread was closed")
        if self._thread is None:
            thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            # Raises RuntimeError where no more of them are allowed.
            thread.start()
            self._thread = thread
        self._jobs.put((job, asyncio.get_running_loop(), then))

    async def close(self) -> None:
        """Waits for the jobs that were asked for."""
        self._closed = True
        if self._thread is not None:
            self._jobs.put(None)
            await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while (found := self._jobs.get()) is not None:
            job, loop, then = found
            result: Any = None
            failure: BaseException | None = None
            try:
                result = job()
            except BaseException as raised:  # noqa: BLE001 - it is told to whoever waits
                failure = raised
            try:
                loop.call_soon_threadsafe(then, result, failure)
            except RuntimeError:
                # The loop is gone, and with it whoever waited.
                continue
            del found, job, then, result, failure


def _tell(answer: "asyncio.Future[Any]", result: Any, failure: BaseException | None) -> None:
    if answer.done():
        return
    if failure is None:
        answer.set_result(result)
    else:
        answer.set_exception(failure)
