"""What each slot saw, event by event: a Metering that looks at every slot after every event.

The rule: it only looks; the readings are those of a plain Metering. What it keeps is bounded.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from gatekeeper.meters.evidence import plain_json
from gatekeeper.meters.meter import Meter
from gatekeeper.meters.metering import Metering
from gatekeeper.meters.reading import Outcome, Reading
from gatekeeper.meters.run import RequestView
from gatekeeper.meters.slots import Slot
from gatekeeper.meters.values import Unmeasurable
from gatekeeper.wire.events import Event

# Of the changes of one slot, the first and the last so many are kept; a person reads no more.
SIGHTINGS_MAX = 4
_Sighting = tuple[int | None, Any]


class Seen:
    """The changes of one slot: (index of the event, the value then). None as index: known only at the end."""

    __slots__ = ("_before", "first", "last", "omitted")

    def __init__(self) -> None:
        self.first: list[_Sighting] = []
        self.last: deque[_Sighting] = deque(maxlen=SIGHTINGS_MAX)
        self.omitted = 0
        self._before: Any = None

    def look(self, event: int | None, slot: Slot) -> None:
        """Notes the slot's value if it has changed."""
        try:
            value = plain_json(slot.result()[0])
        except Unmeasurable as problem:
            value = {"error": str(problem)}
        if value == self._before:
            return
        self._before = value
        if len(self.first) < SIGHTINGS_MAX:
            self.first.append((event, value))
            return
        self.omitted += len(self.last) == SIGHTINGS_MAX
        self.last.append((event, value))

    def plain(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "saw": [{"event": event, "value": value} for event, value in (*self.first, *self.last)],
            "omitted": self.omitted,
        }


class Watching(Metering):
    """``seen``: for each meter, what each of its slots saw, in the order of its plans."""

    skims = False

    def __init__(self, meters: Mapping[str, Meter], request: RequestView) -> None:
        super().__init__(meters, request)
        self.events = 0
        self.seen = {name: tuple(Seen() for _ in meter.plans) for name, meter in meters.items()}

    def _take(self, event: Event, wire: bytes = b"") -> None:
        super()._take(event, wire)
        self.events += 1
        self._look(event.index)

    def finish(self, outcome: Outcome, *, duration_ms: int = 0, first_byte_ms: int | None = None) -> dict[str, Reading]:
        """The readings, as ever; then a last look, at what only the end makes known."""
        readings = super().finish(outcome, duration_ms=duration_ms, first_byte_ms=first_byte_ms)
        self._look(None)
        return readings

    def _look(self, event: int | None) -> None:
        for name, run in self._runs.items():
            for slot, seen in zip(run.slots, self.seen[name], strict=True):
                if event is None or slot in self._events or slot in self._data or slot.fold is self._usage_slot:
                    seen.look(event, slot)
