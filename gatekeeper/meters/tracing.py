"""A stream event by event, each beside the slots that it changed: what the playground shows.

The rule: it only looks; the readings are those of a plain Metering. What it keeps is bounded, and it may be stopped
between two events, because whoever pastes a stream chooses how much work it is.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from gatekeeper.meters.evidence import plain_json
from gatekeeper.meters.meter import Meter
from gatekeeper.meters.metering import Metering
from gatekeeper.meters.reading import Outcome, Reading
from gatekeeper.meters.run import Prices, RequestView, Run
from gatekeeper.meters.slots import Slot
from gatekeeper.meters.values import Unmeasurable
from gatekeeper.wire.events import Event
from gatekeeper.wire.shapes import Shape

# Of a stream the first and the last so many events are kept; a person reads no more.
FIRST_MAX = 200
LAST_MAX = 50
# An event's payload and a slot's value are shown so far; the whole values stand in the evidence.
DATA_LETTERS = 600
VALUE_LETTERS = 300
# How the ``live`` expression is called among the meters.
LIVE = "live"


class Change(NamedTuple):
    """A slot (its number in the meter's plans) that has another value than before. ``shown``: JSON, cut where long."""

    meter: str
    slot: int
    shown: str


@dataclass(frozen=True, slots=True)
class Step:
    """One event, and what it changed; ``index`` None is the end of the answer. ``live``: the units delivered so far."""

    index: int | None
    event: str
    data: str
    data_letters: int
    changes: tuple[Change, ...]
    live: Decimal | None


class Tracing(Metering):
    """``first``, ``omitted`` and ``last`` are the events in order; ``stopped`` says that ``go_on`` ended it before the
    stream did: then the readings are of no use."""

    skims = False

    def __init__(
        self,
        meters: Mapping[str, Meter],
        request: RequestView,
        go_on: Callable[[], bool],
        *,
        live: Meter | None = None,
        shapes: tuple[Shape, ...] = (),
        prices: Prices | None = None,
    ) -> None:
        super().__init__(meters, request, live=live, shapes=shapes, prices=prices)
        self.events = 0
        self.stopped = False
        self.omitted = 0
        self.first: list[Step] = []
        self.last: deque[Step] = deque(maxlen=LAST_MAX)
        self._go_on = go_on
        # Keys that no slot has stand for "nothing was seen yet", which is shown like null.
        self._before: dict[tuple[str, int], str] = {}

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body, unless it was stopped."""
        if self.stopped or not self._go_on():
            self.stopped = True
            return
        super().feed(chunk)

    def finish(self, outcome: Outcome, *, duration_ms: int = 0, first_byte_ms: int | None = None) -> dict[str, Reading]:
        """The readings, as ever; then a last look, at what only the end makes known."""
        readings = super().finish(outcome, duration_ms=duration_ms, first_byte_ms=first_byte_ms)
        changes = self._changes(at_end=True)
        if changes:
            self._keep(Step(None, "", "", 0, changes, self._live_units()))
        return readings

    def _take(self, event: Event, wire: bytes = b"") -> None:
        if self.stopped or not self._go_on():
            self.stopped = True
            return
        super()._take(event, wire)
        self.events += 1
        data = event.data
        shown = data if len(data) <= DATA_LETTERS else data[:DATA_LETTERS]
        self._keep(Step(event.index, event.event, shown, len(data), self._changes(at_end=False), self._live_units()))

    def _keep(self, step: Step) -> None:
        if len(self.first) < FIRST_MAX:
            self.first.append(step)
            return
        self.omitted += len(self.last) == LAST_MAX
        self.last.append(step)

    def _live_units(self) -> Decimal | None:
        return None if self.live is None else self.live.units

    def _changes(self, *, at_end: bool) -> tuple[Change, ...]:
        found: list[Change] = []
        for name, run in self._all_runs().items():
            for number, slot in enumerate(run.slots):
                if not at_end and not self._is_fed_by_events(slot):
                    continue
                shown = _shown(slot)
                if shown != self._before.get((name, number), "null"):
                    self._before[name, number] = shown
                    found.append(Change(name, number, shown))
        return tuple(found)

    def _all_runs(self) -> dict[str, Run]:
        return self._runs if self._live is None else {**self._runs, LIVE: self._live.run}

    def _is_fed_by_events(self, slot: Slot) -> bool:
        return slot in self._events or slot in self._data or slot.fold is self._usage_slot


def _shown(slot: Slot) -> str:
    try:
        value: Any = plain_json(slot.result()[0])
    except Unmeasurable as problem:
        value = {"error": str(problem)}
    text = json.dumps(value, ensure_ascii=False)
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= VALUE_LETTERS else text[: VALUE_LETTERS - 4] + " ..."
