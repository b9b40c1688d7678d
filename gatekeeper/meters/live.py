"""What a ``live`` expression says while the answer streams: how many units have been delivered so far.

The rule: it is asked after each event, so that how the bytes are cut changes nothing (Law 1). Null and errors say
nothing, and it never falls: the largest value so far counts.
"""

from gatekeeper.meters.meter import Meter
from gatekeeper.meters.reading import Reading
from gatekeeper.meters.run import STEPS_MAX, Run


class Live:
    """One ``live`` expression over one response. ``run`` holds the slots that the stream fills."""

    __slots__ = ("_meter", "reading", "run")

    def __init__(self, meter: Meter, run: Run) -> None:
        self._meter = meter
        self.run = run
        self.reading: Reading | None = None

    def look(self) -> None:
        """An event has passed. Never raises; the work is bounded as that of one evaluation."""
        self.run.steps = STEPS_MAX
        found = self._meter.evaluate(self.run)
        if found.units is None:
            return
        known = self.reading
        if known is None or known.units is None or found.units > known.units:
            self.reading = found
