"""While the ledger is away: what each key may do all the same, where the operator says so (``on_ledger_failure``).

The rule: bounded for each key, in each process and outage; only for keys that were seen just before it, and never past
a limit that was seen to be used up. What was let through is settled, and counted, when the ledger is back.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import LedgerConfig, OnLedgerFailure
from gatekeeper.errors import Code, Fault, LimitState, Refusal
from gatekeeper.money import MICRO_PER_UNIT
from gatekeeper.ports import Holder, HoldOrder
from gatekeeper.proxy.access import Directory
from gatekeeper.proxy.call import Call
from gatekeeper.proxy.denials import refusal_of
from gatekeeper.rules.latches import is_latch, known_as
from gatekeeper.rules.limits import CounterKey, Denied, Granted, Mode, Reason, StockLine

log = logging.getLogger("gatekeeper.outage")
T = TypeVar("T")

NOTE = "admitted while the ledger was away"
# A healthy ledger answers in milliseconds; who may do without it does not wait for one that hangs.
WAIT_S = 2.0
# While it is away one call a second asks whether it is back.
RETRY_S = 1.0
# A ledger that comes and goes is away: else each time that it comes would renew all allowances.
ENDS_S = 60.0
# A key that was valid so short a time before. Afterwards nobody can have revoked it: that takes the ledger, too.
SEEN_S = 600.0
# Further keys are refused, further limits forgotten: some 5 MB each.
KEYS_MAX = 10_000
LIMITS_MAX = 20_000


class _Spent:
    """What one key was let through with."""

    __slots__ = ("requests", "units_micro")

    def __init__(self) -> None:
        self.requests = 0
        self.units_micro = 0


class Outage:
    """One for a process."""

    def __init__(self, clock: Clock, *, wait_s: float = WAIT_S) -> None:
        self.wait_s = wait_s
        self._clock = clock
        self._away = False
        self._began_s = 0.0
        self._failed_s = float("-inf")
        self._tried_s = float("-inf")
        self._spent: dict[str, _Spent] = {}
        self._used_up: OrderedDict[CounterKey, int] = OrderedDict()

    def trial(self, ledger: LedgerConfig) -> "Trial":
        """For one call: whether it asks the ledger, and what becomes of it where the ledger does not answer."""
        return Trial(self, ledger)

    @property
    def began_s(self) -> float:
        """When this outage began, on the monotonic clock."""
        return self._began_s

    def asks(self) -> bool:
        """Whether a call is to ask the ledger now."""
        return not self._away or self._clock.monotonic_s() - self._tried_s >= RETRY_S

    def tries(self) -> None:
        """A call is asking for its hold."""
        self._tried_s = self._clock.monotonic_s()

    def failed(self, cause: Exception) -> None:
        """The ledger did not answer."""
        now_s = self._clock.monotonic_s()
        if not self._away:
            why = str(cause) or "no answer in time"
            log.error("the ledger is away, calls go on within the allowances of their keys: %s", why)
            self._began_s = now_s
            if now_s - self._failed_s > ENDS_S:
                self._spent.clear()
        self._away, self._failed_s, self._tried_s = True, now_s, now_s

    def answered(self) -> None:
        """The ledger has answered a hold."""
        if self._away:
            log.warning("the ledger is back")
            self._away = False
        elif self._spent and self._clock.monotonic_s() - self._failed_s > ENDS_S:
            self._spent.clear()

    def saw(self, order: HoldOrder, answer: Granted | Denied) -> None:
        """Which limits that block were used up when they were last seen."""
        if isinstance(answer, Denied):
            if answer.reason in (Reason.USED, Reason.CLOSED):
                told = answer.limit
                for line in order.stock:
                    # What is closed is so in every window until its latch opens, and that row tells it.
                    if is_latch(line.key) is (answer.reason is Reason.CLOSED) and (
                        (line.limit, line.key.scope, *known_as(line.key))
                        == (told.name, told.scope, told.dimension, told.window)
                    ):
                        self._note(line, told.used)
            return
        for line, state in zip(order.stock, answer.stock, strict=False):
            if self._used_up or (line.cap is not None and state.used >= line.cap):
                self._note(line, state.used)

    def take(self, ledger: LedgerConfig, who: str, order: HoldOrder, units_micro: int) -> Granted:
        """Let a call through that may take so many units. Raises Refusal where its key has no allowance left, or one of
        its limits was used up."""
        self._check(order)
        spent = self._spent.get(who)
        if spent is None:
            if len(self._spent) >= KEYS_MAX:
                raise _refusal("too many keys call while the ledger is away")
            spent = self._spent[who] = _Spent()
        units_max = ledger.open_units_max * MICRO_PER_UNIT
        if spent.requests >= ledger.open_requests_max or spent.units_micro + units_micro > units_max:
            raise _refusal(f"key {who} has used its allowance while the ledger is away")
        spent.requests += 1
        spent.units_micro += units_micro
        return Granted(order.output_tokens)

    def settled(self, who: str, bound_micro: int, units_micro: int) -> None:
        """What a call that was let through has really taken."""
        spent = self._spent.get(who)
        if spent is not None:
            spent.units_micro = max(0, spent.units_micro + units_micro - bound_micro)

    def _check(self, order: HoldOrder) -> None:
        for line in order.stock:
            used, key = self._used_up.get(line.key), line.key
            if used is None or line.mode is not Mode.BLOCK or line.cap is None or used < line.cap:
                continue
            state = LimitState(line.limit, key.scope, *known_as(key), line.cap, used, 0, line.ends_ms)
            wait_s = None if line.ends_ms is None else max(1, -(-(line.ends_ms - order.now_ms) // 1000))
            reason = Reason.CLOSED if is_latch(key) else Reason.USED
            raise refusal_of(Denied(reason, state, line.amount(order.output_tokens), wait_s))

    def _note(self, line: StockLine, used: int) -> None:
        if line.mode is not Mode.BLOCK or line.cap is None or used < line.cap:
            self._used_up.pop(line.key, None)
            return
        self._used_up[line.key] = used
        self._used_up.move_to_end(line.key)
        while len(self._used_up) > LIMITS_MAX:
            self._used_up.popitem(last=False)


class Trial:
    """One call's questions to the ledger. Once one of them was not answered none is asked any more."""

    def __init__(self, outage: Outage, ledger: LedgerConfig) -> None:
        self._outage = outage
        self._ledger = ledger
        self._open = ledger.on_ledger_failure is OnLedgerFailure.OPEN
        self._away = self._open and not outage.asks()

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T | None:
        """The answer; None where the ledger is away and the call may go on without it. Raises Fault where it may not,
        and what else the question raises."""
        if not self._open:
            return await question()
        if self._away:
            return None
        try:
            async with asyncio.timeout(self._outage.wait_s):
                return await question()
        except (Fault, TimeoutError) as cause:
            self._away = True
            self._outage.failed(cause)
            return None

    async def holder(self, directory: Directory, call: Call) -> Holder:
        """Who calls; while the ledger is away, as far as it was known just before. Raises Refusal, or Fault."""
        anonymous = call.gateway.keys.anonymous_customer
        found = await self.ask(lambda: directory.holder(call.credentials, anonymous))
        if found is None:
            found = directory.recall(call.credentials, anonymous, self._outage.began_s - SEEN_S)
        if found is None:
            raise _refusal("the key was not seen before the ledger went away")
        return found

    async def hold(
        self, question: Callable[[], Awaitable[Granted | Denied]], order: HoldOrder
    ) -> Granted | Denied | None:
        """The ledger's answer to an order, remembered for when it is away; None: it is away."""
        if self._open and not self._away:
            self._outage.tries()
        answer = await self.ask(question)
        if answer is not None and self._open:
            self._outage.answered()
            self._outage.saw(order, answer)
        return answer

    def take(self, who: str, order: HoldOrder, units_micro: int) -> Granted:
        """See ``Outage.take``."""
        return self._outage.take(self._ledger, who, order, units_micro)


def _refusal(why: str) -> Refusal:
    return Refusal(Code.LEDGER_UNAVAILABLE, private=why)
