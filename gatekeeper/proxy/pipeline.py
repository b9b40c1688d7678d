"""The route of a request through the rooms: admit, open, forward, settle. The rule: once admitted, settle runs on
every way out, and the end of the body waits for the durable record."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any
from urllib.parse import unquote_to_bytes

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Durability, Route
from gatekeeper.errors import TIMEOUTS, Code, Fault, FaultKind, GatekeeperError, Refusal
from gatekeeper.frozen import record
from gatekeeper.meters import Mark, Outcome
from gatekeeper.money import units_to_micro
from gatekeeper.ports import Incoming, Ledger, RawHeaders, Settlement, Upstream
from gatekeeper.proxy.admit import Admission
from gatekeeper.proxy.attempts import Attempts
from gatekeeper.proxy.bounds import opening_takes
from gatekeeper.proxy.breakers import Breakers
from gatekeeper.proxy.call import Aborted, Admitted, Call, Caller, CallerGone, Interrupt, Rereadable
from gatekeeper.proxy.costs import Costs
from gatekeeper.proxy.forward import ClientLeft, forward, has_body
from gatekeeper.proxy.growth import Cut, Growth
from gatekeeper.proxy.observe import Observation
from gatekeeper.proxy.outgoing import response_headers
from gatekeeper.proxy.pulse import Pulse
from gatekeeper.proxy.settle import Settler, Settling, finished
from gatekeeper.proxy.soft import SoftCaps
from gatekeeper.rules import replays
from gatekeeper.rules.limits import DOLLARS, ONE_REQUEST, REQUESTS, UNITS
from gatekeeper.rules.routing import Match
from gatekeeper.tallies import Tallies

log = logging.getLogger("gatekeeper.proxy")

# The note of a call of whose end nobody knows.
LOST = "recovered"


@record(frozen=True, slots=True)
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
        breakers: Breakers | None = None,
        soft: SoftCaps | None = None,
        tallies: Tallies | None = None,
    ) -> None:
        self._tallies = tallies or Tallies()
        self.breakers = breakers or Breakers(clock)
        self._soft = soft
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
            await self._serve(call, caller, task)
        finally:
            self._serving.discard(task)

    async def choose(self, call: Call, caller: Rereadable, candidates: Sequence[Match[Route]]) -> Call:
        """The call on the one of several routes that takes it. Raises Refusal, or CallerGone."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            return await self._admission.choose(call, caller, candidates)
        finally:
            self._serving.discard(task)

    @property
    def open_calls(self) -> int:
        """How many calls are being served."""
        return len(self._serving)

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

    async def _serve(self, call: Call, caller: Caller, task: "asyncio.Task[Any]") -> None:
        admitted = await self._admission.admit(call, caller)
        interrupt = Interrupt(task)
        observation = Observation(admitted, self._costs.prices(call))
        if admitted.open_micro is None:
            self._pulse.add(call.id, observation, interrupt)
        attempts = Attempts(
            admitted,
            self._upstream,
            self.breakers,
            self._clock,
            lambda now: observation.watch(now, self._costs.prices(call, now.candidate.upstream)),
        )
        ending = Ending(Outcome.UPSTREAM_FAILED)
        try:
            caller.watch(lambda: interrupt.fire(Interrupt.CLIENT_GONE))
            ending = await self._exchange(attempts, caller, observation, interrupt)
            caller.unwatch()
            await interrupt.disarm()
        except asyncio.CancelledError:
            # A shutdown, not a client: what was delivered is settled by the estimate, as for one who hangs up.
            ending = Ending(Outcome.CLIENT_CLOSED)
            raise
        finally:
            caller.unwatch()
            self._pulse.remove(call.id)
            ended_s = self._clock.monotonic_s()
            settling = self._settle(attempts, observation, ending.outcome)
        await self._finish(admitted, caller, ending, settling)
        if attempts.asked_s is not None and ending.outcome is Outcome.COMPLETE:
            # Who broke off, and who was told of a failure, says nothing of how quick we are.
            self._tallies.passed(attempts.asked_s - call.started_s, self._clock.monotonic_s() - ended_s)

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

    def _settle(self, attempts: Attempts, observation: Observation, outcome: Outcome) -> Settling:
        admitted = attempts.admitted
        now_ms = self._clock.now_ms()
        elapsed_ms = self._elapsed_ms(admitted.call)
        record = observation.record(outcome, now_ms, elapsed_ms)
        metered = not admitted.call.route.free and admitted.call.method in admitted.call.route.meter_methods
        actual: dict[str, int] = {}
        if metered:
            # Whom we sent away before anybody was asked has made no request.
            requests = ONE_REQUEST if attempts.begun else 0
            actual = {UNITS: record.units_micro, REQUESTS: requests, DOLLARS: record.cost_nano or 0}
            actual |= {f"{UNITS}:{name}": units_to_micro(Decimal(read)) for name, read in record.meters.items()}
        self._admission.settled(admitted, record.units_micro)
        once = _once_per_response(admitted, record.response_id)
        if self._soft is not None:
            self._soft.settled(admitted.soft, actual)
        failed = tuple(attempts.failed)
        stock, rates = admitted.stock, admitted.rates
        settlement = Settlement(record, actual, admitted.plan, now_ms, once, stock, rates, failed)
        # Before anything is counted for whoever watches: what goes wrong there loses no record.
        settling = self._settler.begin(settlement, opened=admitted.open_micro is not None)
        # The plain texts behind the members: to hash a member is done in Python.
        outcome_text, source_text = record.outcome._value_, record.source._value_
        self._tallies.ended(record.route, outcome_text, source_text, record.units_micro, record.usage)
        for each in failed:
            self._tallies.failed(each.upstream, each.fault or f"status_{each.status}")
        return settling

    async def _open(self, admitted: Admitted) -> None:
        """No hold tells of a call that was let through while the ledger is away: the journal does. Raises Refusal."""
        now_ms, takes = self._clock.now_ms(), admitted.candidate.bounds.rate_units.amount
        units_micro, cost_nano = min(takes, admitted.open_micro or 0), admitted.cost_estimate_nano
        record = Observation(admitted).record(Outcome.CUT, now_ms, self._elapsed_ms(admitted.call))
        record = replace(
            record,
            units_micro=units_micro,
            source=Mark.ESTIMATED,
            note=f"{LOST}; {admitted.note}",
            cost_nano=cost_nano,
            evidence={},
            meter_hash="",
        )
        actual = opening_takes(admitted, units_micro, cost_nano or 0)
        try:
            await self._settler.open(
                Settlement(record, actual, admitted.plan, now_ms, stock=admitted.stock, rates=admitted.rates)
            )
        except Fault as fault:
            raise Refusal(Code.LEDGER_UNAVAILABLE, private=str(fault)) from fault

    def _elapsed_ms(self, call: Call) -> int:
        return int((self._clock.monotonic_s() - call.started_s) * 1000)

    async def _exchange(
        self, attempts: Attempts, caller: Caller, observation: Observation, interrupt: Interrupt
    ) -> Ending:
        call = attempts.admitted.call
        try:
            if attempts.admitted.open_micro is not None:
                await self._open(attempts.admitted)
            return await self._relayed(attempts, caller, observation, interrupt)
        except ClientLeft as left:
            return Ending(Outcome.COMPLETE if left.finished else Outcome.CLIENT_CLOSED)
        except CallerGone:
            return Ending(Outcome.CLIENT_CLOSED)
        except Cut as cut:
            log.info("call %s is cut: %s", call.id, cut)
            return Ending(Outcome.CUT, said=cut.refusal)
        except Aborted as aborted:
            return Ending(Outcome.CUT, failure=aborted)
        except Refusal as refusal:
            # The request body passed its bound while it was streamed up; or all upstreams are left alone.
            return Ending(Outcome.UPSTREAM_FAILED, failure=_told(refusal, observation))
        except Fault as fault:
            log.warning("call %s: %s", call.id, fault)
            outcome = Outcome.TIMED_OUT if fault.kind in TIMEOUTS else Outcome.UPSTREAM_FAILED
            return Ending(outcome, failure=_told(refusal_of_fault(fault), observation))
        except asyncio.CancelledError:
            if not interrupt.absorb():
                raise
            if interrupt.reason == Interrupt.CLIENT_GONE:
                # SDKs hang up at the last event: what came after it carries nothing.
                return Ending(Outcome.COMPLETE if observation.terminal_seen else Outcome.CLIENT_CLOSED)
            lost = Refusal(Code.LEDGER_UNAVAILABLE, private="the hold was closed by somebody else")
            return Ending(Outcome.CUT, failure=_told(lost, observation))

    async def _relayed(
        self, attempts: Attempts, caller: Caller, observation: Observation, interrupt: Interrupt
    ) -> Ending:
        asked_s = attempts.asked_s = self._clock.monotonic_s()
        async with attempts.open() as incoming:
            admitted, call = attempts.admitted, attempts.admitted.call
            self._tallies.answered(admitted.candidate.upstream, self._clock.monotonic_s() - asked_s)
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


def _once_per_response(admitted: Admitted, response_id: str | None) -> bool:
    """Whether the id of the answer may make it free. Where the caller can have chosen it, it may not; a GET names what
    it fetches, and makes nothing."""
    call = admitted.call
    if not call.route.once_per_response or replays.unique_part(response_id) is None:
        return False
    if call.method in ("GET", "HEAD"):
        return True
    if not isinstance(admitted.body, bytes):
        return False
    sent = [unquote_to_bytes(call.path), unquote_to_bytes(call.credentials.query), admitted.body]
    return not replays.told_by_caller(response_id, [*sent, *(value for _, value in call.headers)])


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
