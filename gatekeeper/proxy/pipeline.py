"""The route of a request through the rooms: admit, open, forward, settle. The rule: once admitted, settle runs on
every way out, and the end of the body waits for the durable record."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Durability
from gatekeeper.errors import TIMEOUTS, Code, Fault, FaultKind, GatekeeperError, Refusal
from gatekeeper.meters import Outcome
from gatekeeper.money import units_to_micro
from gatekeeper.ports import Incoming, Ledger, RawHeaders, Settlement, Upstream
from gatekeeper.proxy.admit import Admission
from gatekeeper.proxy.call import Aborted, Admitted, Call, Caller, CallerGone, Interrupt
from gatekeeper.proxy.costs import Costs
from gatekeeper.proxy.forward import ClientLeft, forward, has_body
from gatekeeper.proxy.growth import Cut, Growth
from gatekeeper.proxy.observe import Observation
from gatekeeper.proxy.outgoing import build_outgoing, response_headers
from gatekeeper.proxy.pulse import Pulse
from gatekeeper.proxy.settle import Settler, Settling, finished
from gatekeeper.rules.limits import DOLLARS, ONE_REQUEST, REQUESTS, UNITS

log = logging.getLogger("gatekeeper.proxy")

# Enough of an error body to see whether it names our injected field.
_ERROR_BODY_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Ending:
    """How the exchange ended, and what the client must still be sent after the record is durable."""

    outcome: Outcome
    tail: bytes | None = None
    head: tuple[int, RawHeaders] | None = None
    # Said as the last event of a stream that was cut.
    said: Refusal | None = None
    failure: GatekeeperError | None = None


class Proxy:
    """Serves calls on configured routes. One for the process."""

    def __init__(
        self,
        admission: Admission,
        upstream: Upstream,
        settler: Settler,
        pulse: Pulse,
        clock: Clock,
        *,
        ledger: Ledger,
        costs: Costs,
    ) -> None:
        self._admission = admission
        self._ledger = ledger
        self._costs = costs
        self._upstream = upstream
        self._settler = settler
        self._pulse = pulse
        self._clock = clock
        self._serving: set[asyncio.Task[Any]] = set()

    async def serve(self, call: Call, caller: Caller) -> None:
        """Raises Refusal before anything was sent, Aborted after, CallerGone when nobody is there any more."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            await self._serve(call, caller)
        finally:
            self._serving.discard(task)

    async def drain(self, wait_s: float) -> int:
        """Wait for the calls that are being served, at most ``wait_s``, then cancel them and wait until each has begun
        to settle; returns how many were cancelled."""
        serving = set(self._serving)
        if not serving:
            return 0
        _, left = await asyncio.wait(serving, timeout=wait_s)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        return len(left)

    async def _serve(self, call: Call, caller: Caller) -> None:
        admitted = await self._admission.admit(call, caller)
        interrupt = Interrupt()
        observation = Observation(admitted, self._costs.prices(call))
        self._pulse.add(call.id, observation, interrupt)
        ending = Ending(Outcome.UPSTREAM_FAILED)
        try:
            caller.watch(lambda: interrupt.fire(Interrupt.CLIENT_GONE))
            ending = await self._exchange(admitted, caller, observation, interrupt)
            caller.unwatch()
            await interrupt.disarm()
        except asyncio.CancelledError:
            # A shutdown, not a client: what was delivered is settled by the estimate, as for one who hangs up.
            ending = Ending(Outcome.CLIENT_CLOSED)
            raise
        finally:
            caller.unwatch()
            self._pulse.remove(call.id)
            settling = self._settle(admitted, observation, ending.outcome)
        await self._finish(admitted, caller, ending, settling)

    async def _finish(self, admitted: Admitted, caller: Caller, ending: Ending, settling: Settling) -> None:
        ledger = admitted.call.gateway.ledger
        waits = ledger.durability is Durability.STRICT and ending.outcome is not Outcome.CLIENT_CLOSED
        if waits and not await finished(settling, ledger.settle_wait_s) and ending.failure is None:
            raise Aborted("the record of this call could not be made durable in time")
        if ending.failure is not None:
            raise ending.failure
        if ending.head is not None:
            await caller.start(*ending.head)
        if ending.said is not None:
            said = caller.told(ending.said)
            if said is None:
                raise Aborted(str(ending.said))
            await caller.end(said)
        if ending.tail is not None:
            await caller.end(ending.tail)

    def _settle(self, admitted: Admitted, observation: Observation, outcome: Outcome) -> Settling:
        now_ms = self._clock.now_ms()
        elapsed_ms = self._elapsed_ms(admitted.call)
        record = observation.record(outcome, now_ms, elapsed_ms)
        metered = not admitted.call.route.free and admitted.call.method in admitted.call.route.meter_methods
        actual: dict[str, int] = {}
        if metered:
            actual = {UNITS: record.units_micro, REQUESTS: ONE_REQUEST, DOLLARS: record.cost_nano or 0}
            actual |= {f"{UNITS}:{name}": units_to_micro(Decimal(read)) for name, read in record.meters.items()}
        return self._settler.begin(Settlement(record, actual, admitted.plan, now_ms))

    def _elapsed_ms(self, call: Call) -> int:
        return int((self._clock.monotonic_s() - call.started_s) * 1000)

    async def _exchange(
        self, admitted: Admitted, caller: Caller, observation: Observation, interrupt: Interrupt
    ) -> Ending:
        try:
            return await self._relayed(admitted, caller, observation, interrupt)
        except ClientLeft as left:
            return Ending(Outcome.COMPLETE if left.finished else Outcome.CLIENT_CLOSED)
        except CallerGone:
            return Ending(Outcome.CLIENT_CLOSED)
        except Cut as cut:
            log.info("call %s is cut: %s", admitted.call.id, cut)
            return Ending(Outcome.CUT, said=cut.refusal)
        except Aborted as aborted:
            return Ending(Outcome.CUT, failure=aborted)
        except Refusal as refusal:
            # The request body passed its bound while it was streamed up.
            return Ending(Outcome.UPSTREAM_FAILED, failure=_told(refusal, observation))
        except Fault as fault:
            log.warning("call %s: %s", admitted.call.id, fault)
            outcome = Outcome.TIMED_OUT if fault.kind in TIMEOUTS else Outcome.UPSTREAM_FAILED
            return Ending(outcome, failure=_told(refusal_of_fault(fault), observation))
        except asyncio.CancelledError:
            if not interrupt.absorb():
                raise
            if interrupt.reason == Interrupt.CLIENT_GONE:
                return Ending(Outcome.CLIENT_CLOSED)
            lost = Refusal(Code.LEDGER_UNAVAILABLE, private="the hold was closed by somebody else")
            return Ending(Outcome.CUT, failure=_told(lost, observation))

    async def _relayed(
        self, admitted: Admitted, caller: Caller, observation: Observation, interrupt: Interrupt
    ) -> Ending:
        call = admitted.call
        async with self._open(admitted) as incoming:
            if not 200 <= incoming.status < 600:
                # The server cannot write such a status line (RFC 9110 15: treat it as a 5xx that is invalid).
                raise Fault("upstream", FaultKind.PROTOCOL, f"it answered with status {incoming.status}")
            observation.head(incoming.status, incoming.headers, self._elapsed_ms(call))
            hides = admitted.injected_usage and 200 <= incoming.status < 300
            # The server would wait for the body that a 304 only tells the length of.
            keep_length = not hides and incoming.status not in (204, 304)
            headers = response_headers(admitted, incoming.headers, keep_length=keep_length)
            if not has_body(call.method, incoming.status, incoming.headers):
                await incoming.read()
                return Ending(Outcome.COMPLETE, tail=b"", head=(incoming.status, headers))
            observation.facts.started = True
            await caller.start(incoming.status, headers)
            growth = self._growth(admitted, incoming, observation, interrupt)
            try:
                tail = await forward(admitted, incoming, caller, observation, interrupt, growth)
            finally:
                if growth is not None:
                    await growth.stop()
            return Ending(Outcome.COMPLETE, tail=tail)

    def _growth(
        self, admitted: Admitted, incoming: Incoming, observation: Observation, interrupt: Interrupt
    ) -> Growth | None:
        """Only where a limit can refuse is there anything to ask: else the held figure would grow for show."""
        if not (admitted.extends and 200 <= incoming.status < 300):
            return None
        return Growth(admitted, observation, self._ledger, self._clock, interrupt)

    @asynccontextmanager
    async def _open(self, admitted: Admitted) -> AsyncIterator[Incoming]:
        """Open upstream; once more without our injected field where a 400 names it."""
        config = admitted.call.gateway.upstreams[admitted.call.route.upstream]
        if admitted.injected_usage:
            async with self._upstream.open(build_outgoing(admitted, config, inject=True)) as incoming:
                if incoming.status != 400:
                    yield incoming
                    return
                replayed = _Replayed(incoming)
                if b"stream_options" not in await replayed.peek():
                    yield replayed
                    return
            log.info("call %s: the upstream refuses stream_options; tried again without", admitted.call.id)
        async with self._upstream.open(build_outgoing(admitted, config, inject=False)) as incoming:
            yield incoming


class _Replayed:
    """An answer whose first bytes were looked at and are read again."""

    def __init__(self, incoming: Incoming) -> None:
        self._incoming = incoming
        self._seen: list[bytes] = []
        self.status = incoming.status
        self.headers = incoming.headers

    async def peek(self) -> bytes:
        size = 0
        while size < _ERROR_BODY_BYTES_MAX and (chunk := await self._incoming.read()):
            self._seen.append(chunk)
            size += len(chunk)
        return b"".join(self._seen)

    async def read(self) -> bytes:
        return self._seen.pop(0) if self._seen else await self._incoming.read()


def _told(refusal: Refusal, observation: Observation) -> GatekeeperError:
    """Before the head: a refusal in words. After it: an abort is the only honest end."""
    return Aborted(str(refusal)) if observation.facts.started else refusal


def refusal_of_fault(fault: Fault) -> Refusal:
    """502 or 504, with the reason in the log only."""
    if fault.kind in TIMEOUTS:
        code = Code.UPSTREAM_TIMEOUT
    elif fault.kind in (FaultKind.PROTOCOL, FaultKind.TRUNCATED):
        code = Code.UPSTREAM_PROTOCOL
    else:
        code = Code.UPSTREAM_UNAVAILABLE
    return Refusal(code, private=str(fault), headers=(("X-Gatekeeper-Fault", fault.kind.value),))
