"""Customers' own thresholds: once in a while, in one process, the figures of those who call are looked at.

The rule: a threshold is told once in each of its windows, and never holds a call up. What was used is read where the
reports read it; the event's id is made of alert and window, so that whoever tells it twice is heard once.
"""

import hashlib
import json
import logging
from collections.abc import Callable
from typing import Any, Protocol

from gatekeeper.clock import Clock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Fault
from gatekeeper.money import dollars_text, units_text
from gatekeeper.ports import Events, Spending
from gatekeeper.ports.alerts import Alert, Alerts, Measure
from gatekeeper.rules.limits import Scope, Window
from gatekeeper.rules.notices import Kind
from gatekeeper.rules.windows import HOUR_MS, window_bounds

LOOK_EVERY_S = 30.0
# A call counts from its start, and a stream may have begun long before it is on record.
LOOK_BACK_MS = 6 * HOUR_MS
PAGE = 200

log = logging.getLogger("gatekeeper.events")


class Known(Alerts, Events, Spending, Protocol):
    """What is asked of the store."""


class AlertWatch:
    """One for a process. ``run`` works until it is cancelled; ``turn`` is one round."""

    def __init__(self, store: Known, gateway: Callable[[], Gateway], clock: Clock) -> None:
        self._store = store
        self._gateway = gateway
        self._clock = clock

    async def run(self) -> None:
        """Work for ever; a database that is away is logged and asked again at the next turn."""
        while True:
            try:
                await self.turn()
            except Fault as fault:
                log.error("alerts wait: %s", fault)
            except Exception:
                log.exception("a turn of the alerts failed")
            await self._clock.sleep(LOOK_EVERY_S)

    async def turn(self) -> int:
        """Look at all, in one process; returns how many were told. Raises Fault."""
        now_ms = self._clock.now_ms()
        wanted = any(Kind.ALERT_REACHED in one.subscription.kinds for one in self._gateway().notifications)
        # A little less than a turn: the process that looked last is not too early by a hair.
        if not wanted or not await self._store.first("alerts", now_ms, now_ms + int(LOOK_EVERY_S * 900)):
            return 0
        told, after = 0, ""
        while page := await self._store.alerts_in_use(now_ms - LOOK_BACK_MS, after=after, limit=PAGE):
            for alert, anchor_ms in page:
                told += await self._look(alert, anchor_ms, now_ms)
            after = page[-1][0].id
        return told

    async def _look(self, alert: Alert, anchor_ms: int, now_ms: int) -> bool:
        start_ms, end_ms = window_bounds(alert.window, now_ms, anchor_ms=anchor_ms)
        if alert.told_ms == start_ms:
            return False
        spent = await self._store.spend_total(Scope.CUSTOMER, alert.customer_id, start_ms, now_ms + 1)
        reached = spent.units_micro if alert.measure is Measure.UNITS else spent.charge_nano
        if reached < alert.threshold:
            return False
        digest = hashlib.sha256(json.dumps([alert.id, start_ms]).encode()).hexdigest()[:40]
        content = _content(alert, reached, start_ms, end_ms)
        await self._store.emit(Kind.ALERT_REACHED, f"alert_{digest}", alert.customer_id, content)
        await self._store.alert_told(alert.id, start_ms)
        return True


def _content(alert: Alert, reached: int, start_ms: int, end_ms: int | None) -> dict[str, Any]:
    text = units_text if alert.measure is Measure.UNITS else dollars_text
    return {
        "alert": alert.id,
        "measure": alert.measure,
        "window": alert.window,
        "threshold": text(alert.threshold),
        "reached": text(reached),
        "starts_ms": start_ms,
        "resets_ms": None if alert.window is Window.TOTAL else end_ms,
    }
