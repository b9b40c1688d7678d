"""The hold of a stream, extended in slices while its output grows. The rule: what is not held is not relayed; an
extension that is refused cuts the stream, at the next event boundary."""

import asyncio

from gatekeeper.clock import Clock
from gatekeeper.errors import Code, Fault, GatekeeperError, Refusal
from gatekeeper.ports import Extension, Ledger
from gatekeeper.proxy.call import Admitted, Interrupt
from gatekeeper.proxy.denials import refusal_of
from gatekeeper.proxy.observe import Observation
from gatekeeper.rules.limits import Denied, Granted

# While the ledger is away nothing more is held and so nothing more is relayed: asked again after this pause.
_PAUSE_S = 0.25
# The last token is not worth a send for every three bytes of framing.
ROOM_BYTES_MIN = 256
_ROOM_BYTES_MAX = 1 << 20


class Cut(GatekeeperError):
    """The budget inside the stream is used up. ``refusal`` is what the client is told in the stream."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(str(refusal))


class Growth:
    """One stream's hold. ``spent`` is cheap and asked after every chunk; ``more`` waits for the ledger."""

    def __init__(
        self, admitted: Admitted, observation: Observation, ledger: Ledger, clock: Clock, interrupt: Interrupt
    ) -> None:
        self._admitted = admitted
        self._observation = observation
        self._ledger = ledger
        self._clock = clock
        self._interrupt = interrupt
        self._slice = admitted.call.route.hold_slice_tokens
        self._held = admitted.granted.output_tokens
        # The client's bound is in tokens, `live` in units.
        self._most = admitted.ask.output_tokens if admitted.call.route.live is None else None
        self._asking: asyncio.Task[Granted | Denied | None] | None = None
        # As it was last looked at: nothing is delivered between the look after one chunk and that before the next.
        self._reached = 0
        self._set_marks()

    def _set_marks(self) -> None:
        """Ask ahead at half a slice before the end, so that a stream at its usual pace never waits. An upstream that
        keeps to the client's own bound ends there; one that does not is asked for too, with room for our estimate."""
        kept = self._most is not None and self._held >= self._most
        self._end = self._held + (self._most // 2 + self._slice // 2 if kept and self._most is not None else 0)
        self._ahead = max(0, self._end - self._slice // 2)

    @property
    def room_bytes(self) -> int:
        """So many bytes of body cannot hold more text than is held for (a few more at the very end)."""
        left = self._end - self._reached
        return max(ROOM_BYTES_MIN, min(self._observation.bytes_for(left), _ROOM_BYTES_MAX))

    @property
    def spent(self) -> bool:
        """Whether all that is held has been relayed. Begins to ask ahead of that."""
        seen = self._reached = self._observation.output_reached
        if seen < self._ahead:
            return False
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(), name=f"extend {self._admitted.call.id}")
        elif self._asking.done():
            # An answer that came in time costs the stream nothing. A refusal is looked at when it must be.
            self._take(self._asking, last=seen >= self._end)
        return seen >= self._end

    async def more(self) -> None:
        """Wait until more is held. Raises Cut."""
        wait_s = self._admitted.call.gateway.ledger.settle_wait_s
        until_s = self._clock.monotonic_s() + wait_s
        while self.spent:
            asking = self._asking
            assert asking is not None
            await asyncio.wait({asking})
            if not asking.cancelled() and isinstance(asking.exception(), Fault):
                if self._clock.monotonic_s() >= until_s:
                    raise Cut(Refusal(Code.LEDGER_UNAVAILABLE, private=str(asking.exception())))
                self._asking = None
                await self._clock.sleep(_PAUSE_S)
                continue
            self._take(asking, last=True)

    async def stop(self) -> None:
        """Wait for a question under way: what it was granted belongs to the hold and is released with it."""
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()
            await asyncio.wait({self._asking})

    def _take(self, asking: "asyncio.Task[Granted | Denied | None]", *, last: bool) -> None:
        if asking.cancelled() or asking.exception() is not None:
            failure = None if asking.cancelled() else asking.exception()
            if failure is not None and not isinstance(failure, Fault):
                raise failure
            return
        answer = asking.result()
        if isinstance(answer, Denied):
            if last:
                raise Cut(refusal_of(answer))
            return
        self._asking = None
        if answer is None:
            self._interrupt.fire(Interrupt.HOLD_LOST)
            return
        self._held += answer.output_tokens
        self._set_marks()

    async def _ask(self) -> Granted | Denied | None:
        progress = self._observation.progress()
        now_ms = self._clock.now_ms()
        left = self._slice if self._most is None else self._most - self._held
        missing = min(self._slice, left) if left > 0 else self._slice
        # What is seen already must fit too, however large the last piece was.
        wanted = max(missing, self._observation.output_reached + missing - self._held)
        return await self._ledger.extend(
            Extension(
                call_id=self._admitted.call.id,
                output_tokens=wanted,
                output_tokens_min=1,
                units_micro=progress.units_micro,
                output_seen=progress.output_seen,
                expires_ms=now_ms + int(self._admitted.call.gateway.ledger.hold_ttl_s * 1000),
                now_ms=now_ms,
            )
        )
