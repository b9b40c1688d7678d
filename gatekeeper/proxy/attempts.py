"""The tries of one call: its candidates in order, until one serves. Before the first byte of an answer only.

The rule: what may have been acted on is not sent again unless that was declared harmless; an upstream that is left
alone is passed over at once; and of answers that say "not now", the last one is relayed when nobody else serves.
"""

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from math import ceil
from types import TracebackType
from typing import NamedTuple

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.ports import Attempt, Incoming, RawHeaders, Upstream
from gatekeeper.proxy.breakers import Breakers, Pass
from gatekeeper.proxy.call import Admitted, Candidate
from gatekeeper.proxy.candidates import served_by
from gatekeeper.proxy.outgoing import build_outgoing
from gatekeeper.proxy.pieces import Pieces
from gatekeeper.rules.failover import may_repeat

log = logging.getLogger("gatekeeper.proxy")

BREAKER_OPEN = "breaker_open"
# Enough of an error body to see whether it names our injected field.
_ERROR_BODY_BYTES_MAX = 64 * 1024


class _Answer(NamedTuple):
    """An answer with who gave it. ``row`` is what is told of it if somebody else serves."""

    admitted: Admitted
    incoming: Incoming
    leave: Pass
    closing: AsyncExitStack
    row: Attempt


class Attempts:
    """One call's. ``admitted`` is the call as it is (or was last) tried; ``failed`` tells of the tries that did not
    serve; ``on_switch`` hears of another candidate before it is tried."""

    def __init__(
        self,
        admitted: Admitted,
        upstream: Upstream,
        breakers: Breakers,
        clock: Clock,
        on_switch: Callable[[Admitted], None],
    ) -> None:
        self.admitted = admitted
        self.failed: list[Attempt] = []
        # Whether anybody was asked at all.
        self.begun = False
        # When the first of them was.
        self.asked_s: float | None = None
        self._first = admitted.candidate
        self._upstream = upstream
        self._breakers = breakers
        self._clock = clock
        self._on_switch = on_switch
        self._fault: Fault | None = None
        self._waits_s: list[float] = []

    def open(self) -> AbstractAsyncContextManager[Incoming]:
        """The answer of the first candidate that serves. Raises Fault, that of the last one that was tried; Refusal
        where all are left alone. Cancelled, the try under way is given up."""
        return self._among() if self.admitted.others else _Alone(self)

    def enter_alone(self) -> tuple[Pass, AbstractAsyncContextManager[Incoming]]:
        """Leave for the only candidate, and its exchange. Raises Refusal."""
        leave = self._enter(1, self._first)
        if leave is None:
            raise self._left_alone()
        return leave, _opened(self._upstream, self.admitted)

    def failed_alone(self, fault: Fault, started_ms: int) -> None:
        """The only candidate gave no answer."""
        self.failed.append(self._row(1, self.admitted, started_ms, fault=fault.kind.value))

    def now_ms(self) -> int:
        """The instant."""
        return self._clock.now_ms()

    @asynccontextmanager
    async def _among(self) -> AsyncIterator[Incoming]:
        async with AsyncExitStack() as closing:
            answer = await self._served(closing)
            try:
                yield answer.incoming
            except Fault as fault:
                answer.leave.broke(fault)
                raise

    async def _served(self, closing: AsyncExitStack) -> _Answer:
        kept: _Answer | None = None
        candidates = (self._first, *self.admitted.others)
        for number, candidate in enumerate(candidates, 1):
            leave = self._enter(number, candidate)
            if leave is None:
                continue
            answer = await self._tried(number, candidate, leave, closing)
            if answer is None:
                if not self._may_go_on:
                    break
                continue
            if kept is not None:
                await kept.closing.aclose()
            if number == len(candidates) or not self._moves_on(answer):
                return answer
            kept = answer
            self.failed.append(answer.row)
        if kept is not None:
            # Nobody else has an answer: this one is still the truth.
            self.failed.remove(kept.row)
            self._switch(kept.admitted)
            return kept
        raise self._fault or self._left_alone()

    def _enter(self, number: int, candidate: Candidate) -> Pass | None:
        config = self.admitted.call.gateway.upstreams[candidate.upstream]
        leave = self._breakers.enter(config)
        self.begun = self.begun or leave is not None
        if leave is None:
            self._waits_s.append(self._breakers.wait_s(config))
            now_ms = self._clock.now_ms()
            self.failed.append(
                Attempt(number, candidate.upstream, candidate.ask.model, now_ms, now_ms, fault=BREAKER_OPEN)
            )
        return leave

    async def _tried(self, number: int, candidate: Candidate, leave: Pass, closing: AsyncExitStack) -> _Answer | None:
        """The answer, or None after a fault."""
        if candidate is not self.admitted.candidate:
            self._switch(served_by(self.admitted, candidate))
        admitted, started_ms = self.admitted, self._clock.now_ms()
        # An answer may be given up before the others: each has a stack of its own.
        mine = AsyncExitStack()
        closing.push_async_callback(mine.aclose)
        try:
            incoming = await mine.enter_async_context(_opened(self._upstream, admitted))
            _check_status(incoming)
        except Fault as fault:
            leave.broke(fault)
            log.warning("call %s: %s: %s", admitted.call.id, candidate.upstream, fault)
            self._fault = fault
            self.failed.append(self._row(number, admitted, started_ms, fault=fault.kind.value))
            return None
        except BaseException:
            leave.left()
            raise
        leave.answered(incoming.status)
        row = self._row(number, admitted, started_ms, status=incoming.status)
        return _Answer(admitted, incoming, leave, mine, row)

    def _row(
        self, number: int, admitted: Admitted, started_ms: int, *, status: int | None = None, fault: str | None = None
    ) -> Attempt:
        candidate = admitted.candidate
        return Attempt(number, candidate.upstream, candidate.ask.model, started_ms, self._clock.now_ms(), status, fault)

    def _switch(self, admitted: Admitted) -> None:
        if admitted is not self.admitted:
            self.admitted = admitted
            self._on_switch(admitted)

    @property
    def _may_go_on(self) -> bool:
        """After a fault."""
        call, fault = self.admitted.call, self._fault
        assert fault is not None
        keyed = call.header(b"idempotency-key") is not None
        return self._is_whole and may_repeat(call.route.retry, call.method, unsent=fault.retryable, keyed=keyed)

    def _moves_on(self, answer: _Answer) -> bool:
        return answer.incoming.status in self.admitted.call.route.failover_status and self._is_whole

    @property
    def _is_whole(self) -> bool:
        """Whether the request can be sent again: an upload of which a piece was taken cannot."""
        body = self.admitted.body
        return isinstance(body, bytes) or (isinstance(body, Pieces) and not body.begun)

    def _left_alone(self) -> Refusal:
        wait_s = max(1, ceil(min(self._waits_s)))
        several = f"None of the {len(self._waits_s)} upstreams of this route" if len(self._waits_s) > 1 else ""
        return Refusal(
            Code.UPSTREAM_UNAVAILABLE,
            f"{several} could serve just now, so they are left alone for a moment."
            if several
            else "The upstream has failed too often just now, so it is left alone for a moment.",
            retry_after_s=wait_s,
            status=503,
            headers=(("X-Gatekeeper-Fault", BREAKER_OPEN),),
        )


class _Alone:
    """The usual case, without anything to choose or to keep. Written out, because an ``asynccontextmanager`` around
    the exchange's own costs each call a generator and four coroutines."""

    __slots__ = ("_answered", "_attempts", "_exchange", "_leave", "_started_ms")

    def __init__(self, attempts: Attempts) -> None:
        self._attempts = attempts
        self._answered = False
        self._started_ms = 0

    async def __aenter__(self) -> Incoming:
        attempts = self._attempts
        self._leave, self._exchange = attempts.enter_alone()
        self._started_ms = attempts.now_ms()
        try:
            incoming = await self._exchange.__aenter__()
        except BaseException as error:
            self._broke(error)
            raise
        try:
            _check_status(incoming)
        except Fault as fault:
            await self.__aexit__(Fault, fault, fault.__traceback__)
            raise
        self._leave.answered(incoming.status)
        self._answered = True
        return incoming

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._exchange.__aexit__(kind, error, trace)
        except BaseException as raised:
            error = raised
            raise
        finally:
            if error is not None:
                self._broke(error)

    def _broke(self, error: BaseException) -> None:
        if not isinstance(error, Fault):
            self._leave.left()
            return
        self._leave.broke(error)
        if not self._answered:
            self._attempts.failed_alone(error, self._started_ms)


def _check_status(incoming: Incoming) -> None:
    if not 200 <= incoming.status < 600:
        # The server cannot write such a status line (RFC 9110 15: treat it as a 5xx that is invalid).
        raise Fault("upstream", FaultKind.PROTOCOL, f"it answered with status {incoming.status}")


def _opened(upstream: Upstream, admitted: Admitted) -> AbstractAsyncContextManager[Incoming]:
    if admitted.injected_usage:
        return _injected(upstream, admitted)
    config = admitted.call.gateway.upstreams[admitted.candidate.upstream]
    return upstream.open(build_outgoing(admitted, config, inject=False))


@asynccontextmanager
async def _injected(upstream: Upstream, admitted: Admitted) -> AsyncIterator[Incoming]:
    """With our injected field; once more without it where a 400 names it."""
    config = admitted.call.gateway.upstreams[admitted.candidate.upstream]
    async with upstream.open(build_outgoing(admitted, config, inject=True)) as incoming:
        if incoming.status != 400:
            yield incoming
            return
        replayed = _Replayed(incoming)
        if b"stream_options" not in await replayed.peek():
            yield replayed
            return
    log.info("call %s: the upstream refuses stream_options; tried again without", admitted.call.id)
    async with upstream.open(build_outgoing(admitted, config, inject=False)) as incoming:
        yield incoming


class _Replayed:
    """An answer whose first bytes were looked at and are read again."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._seen: list[bytes] = []
        self.status: int = incoming.status
        self.headers: RawHeaders = incoming.headers

    async def peek(self) -> bytes:
        size = 0
        while size < _ERROR_BODY_BYTES_MAX and (chunk := await self._incoming.read()):
            self._seen.append(chunk)
            size += len(chunk)
        return b"".join(self._seen)

    async def read(self) -> bytes:
        return self._seen.pop(0) if self._seen else await self._incoming.read()
