"""Several meters over one response, in one pass over a copy of its bytes.

The rule: nothing in here raises into the stream (Law 3), and how the bytes are cut changes nothing (Law 1).
"""

from collections.abc import Mapping
from typing import Any

from gatekeeper.meters.folds import READ, Marked
from gatekeeper.meters.lines import LineCutter
from gatekeeper.meters.live import Live
from gatekeeper.meters.meter import Meter, lost, skipped
from gatekeeper.meters.reading import Outcome, Reading
from gatekeeper.meters.run import Prices, RequestView, Run, Tokenizer
from gatekeeper.meters.seams import noted
from gatekeeper.meters.slots import BodySlot, Feed, Slot
from gatekeeper.wire.events import Event
from gatekeeper.wire.framing import framer_for
from gatekeeper.wire.json_body import JsonFramer
from gatekeeper.wire.ndjson import LineFramer
from gatekeeper.wire.repeats import Repeats
from gatekeeper.wire.shapes import SHAPES, Shape
from gatekeeper.wire.signals import Signals
from gatekeeper.wire.sse import SseParser
from gatekeeper.wire.tap import EVENT_BYTES_MAX, Tap
from gatekeeper.wire.usage import UsageFold

_SENTINELS = frozenset({b"", b"[DONE]"})
_BLANK = b" \t\r\n\x0b\x0c"


class _Usage:
    """The fold of ``usage()``: the record is folded once for all meters."""

    __slots__ = ("_fold", "done", "final")

    def __init__(self, fold: UsageFold) -> None:
        self.done = True
        self.final: Marked | None = None
        self._fold = fold

    def add(self, value: Any, marks: int) -> None:
        """Fed elsewhere."""

    def add_count(self, value: int) -> None:
        """Fed elsewhere."""

    def result(self) -> Marked:
        """The record so far."""
        return self.final or (self._fold.result(), READ)

    def end(self) -> None:
        """Nothing follows: the record is made only once more."""
        self.final = (self._fold.result(), READ)


class Metering:
    """Feeds ``meters`` (by name) from one response. The order: ``begin``, ``feed`` ..., ``finish``. None of these ever
    raises; after an internal error every reading is an error."""

    __slots__ = (
        "_bodies", "_charge_errors", "_data", "_event_bytes_max", "_events", "_failure", "_full_lines",
        "_head", "_line_slots", "_lines", "_live", "_methods", "_missed", "_missing_slots", "_passed_by",
        "_prefilter", "_readings", "_repeats", "_responses", "_runs", "_signals", "_single_json", "_skims",
        "_status", "_tap", "_usage", "_usage_slot", "meters", "outcome", "request",
    )  # fmt: skip

    # Whether events may pass unmade where no slot looks at them.
    skims = True

    def __init__(
        self,
        meters: Mapping[str, Meter],
        request: RequestView,
        *,
        charge_errors: bool = False,
        meter_methods: frozenset[str] = frozenset({"POST"}),
        event_bytes_max: int = EVENT_BYTES_MAX,
        prices: Prices | None = None,
        tokenizer: Tokenizer | None = None,
        prefilter: bool = True,
        shapes: tuple[Shape, ...] = (),
        live: Meter | None = None,
    ) -> None:
        self.meters = meters
        self.request = request
        self.outcome = Outcome.COMPLETE
        self._charge_errors = charge_errors
        self._methods = meter_methods
        self._event_bytes_max = event_bytes_max
        self._usage = UsageFold(shapes or SHAPES, prefilter=prefilter)
        self._usage_slot = _Usage(self._usage)
        self._signals = Signals()
        self._prefilter = prefilter
        self._repeats = Repeats(self._usage, self._signals, event_bytes_max)
        self._missing_slots: tuple[Slot, ...] = ()
        # The framing, where events may be passed by unmade; how many were, since somebody was told.
        self._passed_by: SseParser | LineFramer | None = None
        self._missed = 0
        self._tap: Tap | None = None
        self._single_json = False
        self._failure: str | None = None
        self._readings: dict[str, Reading] | None = None
        self._status: int | None = None
        self._head: tuple[str, Mapping[str, str]] = ("", {})
        self._lines: LineCutter | None = None
        self._runs: dict[str, Run] = {}
        self._events: tuple[Slot, ...] = ()
        self._data: tuple[Slot, ...] = ()
        self._responses: tuple[Slot, ...] = ()
        self._line_slots: tuple[Slot, ...] = ()
        self._full_lines: tuple[Slot, ...] = ()
        self._bodies: tuple[Slot, ...] = ()
        self._skims = False
        self._live: Live | None = None
        try:
            self._open(live, prices, tokenizer, prefilter)
        except Exception as problem:  # noqa: BLE001 - the seam of Law 3
            self._failure = noted(problem, "begin")

    def _open(self, live: Meter | None, prices: Prices | None, tokenizer: Tokenizer | None, prefilter: bool) -> None:
        shared: dict[str, Slot] = {}
        runs: list[tuple[Meter, Run]] = []
        for name, meter in self.meters.items():
            run = meter.run(self.request, prices=prices, tokenizer=tokenizer, prefilter=prefilter)
            self._runs[name] = run
            runs.append((meter, run))
        if live is not None:
            run = live.run(self.request, prices=prices, tokenizer=tokenizer, prefilter=prefilter)
            self._live = Live(live, run)
            runs.append((live, run))
        for meter, run in runs:
            for plan in meter.plans:
                slot = shared.get(plan.key) if plan.shared else None
                if slot is None:
                    slot = (BodySlot if plan.feed is Feed.BODY else Slot)(plan, run)
                    self._place(slot, plan.feed)
                    if plan.shared:
                        shared[plan.key] = slot
                run.slots.append(slot)
        if self._line_slots or self._full_lines:
            self._lines = LineCutter(self._event_bytes_max)
        self._skims = self.skims and prefilter and self._live is None

    def _place(self, slot: Slot, feed: Feed) -> None:
        if feed is Feed.USAGE:
            slot.fold = self._usage_slot
        elif feed is Feed.EVENTS:
            self._events += (slot,)
        elif feed is Feed.DATA:
            self._data += (slot,)
        elif feed is Feed.RESPONSE:
            self._responses += (slot,)
        elif feed is Feed.BODY:
            self._bodies += (slot,)
        elif feed is Feed.LINES:
            self._line_slots += (slot,)
        else:
            self._full_lines += (slot,)

    # -- the pass --------------------------------------------------------------------------------------------------

    def begin(self, status: int, content_type: str, content_encoding: str, headers: Mapping[str, str]) -> None:
        """The answer's head. A second head (after a retry) begins the tap anew only if no byte was fed."""
        try:
            self._status = status
            self._head = (content_type, headers)
            self._passed_by = None
            self._tap = Tap(content_type, content_encoding, event_bytes_max=self._event_bytes_max)
            if self._skims and self._tap.plain and not self._bodies and self._lines is None:
                self._passed_by = self._tap.skips
            if self._responses:
                self._single_json = isinstance(framer_for(content_type, 1), JsonFramer)
        except Exception as problem:  # noqa: BLE001 - the seam of Law 3
            self._failure = noted(problem, "begin")

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the body, as they came from the wire (encoded)."""
        try:
            framer = self._passed_by
            if framer is not None and framer.idle and self._failure is None:
                known = self._repeats.skim(chunk)
                if known:
                    self._missed += self._repeats.count
                    self._tap.decoded_bytes += known  # type: ignore[union-attr]  # there is one, with its framing
                    if known == len(chunk):
                        return
                    chunk = chunk[known:]
            self._feed(chunk)
        except Exception as problem:  # noqa: BLE001 - the seam of Law 3
            self._failure = noted(problem, "feed")

    def _feed(self, chunk: bytes) -> None:
        """Bytes that are not known."""
        tap = self._tap
        if tap is None or self._failure is not None or self._readings is not None:
            return
        if self._missed:
            self._catch_up()
        decoded = tap.decode(chunk)
        if self._bodies or self._lines is not None:
            self._take_bytes(decoded)
        begins = self._passed_by is not None and self._passed_by.idle
        for event in tap.frame(decoded):
            self._take(event, decoded if begins else b"")
            begins = False

    def _catch_up(self) -> None:
        """Tells everybody of the events that were passed by."""
        missed, self._missed = self._missed, 0
        if self._passed_by is not None:
            self._passed_by.skip(missed)
        for slot in self._missing_slots:
            slot.repeat(missed)

    def _passes_over(self, raw: bytes) -> bool:
        """Whether events like this one need not be made for a slot."""
        slots = (*self._events, *self._data)
        if not all(slot.misses(raw) for slot in slots):
            return False
        self._missing_slots = slots
        return True

    def _take(self, event: Event, wire: bytes = b"") -> None:
        """``wire``: the chunk that begins with the event, where that may teach how to pass over others like it."""
        if not self._prefilter:
            self._usage.feed(event)
            self._signals.feed(event)
        else:
            repeats = self._repeats
            known = repeats.knows(event) or repeats.read(event)
            if known and wire and repeats.unframed:
                lines = isinstance(self._passed_by, LineFramer)
                repeats.learn_framing(event, wire if self._passes_over(event.raw) else b"", lines=lines)
        for slot in self._events:
            slot.take(event)
        if self._data:
            raw = event.raw
            # Nearly every payload is an object, which no sentinel is.
            if raw.startswith(b"{") or raw.strip(_BLANK) not in _SENTINELS:
                for slot in self._data:
                    slot.take(event)
        if self._live is not None:
            self._live.look()

    def _take_bytes(self, decoded: bytes) -> None:
        for slot in self._bodies:
            slot.take(decoded)
        if self._lines is not None:
            self._take_lines(self._lines.feed(decoded))

    def _take_lines(self, lines: list[str]) -> None:
        for line in lines:
            item = (line, READ)
            for slot in self._line_slots:
                slot.take(item)
            if self._full_lines and line.strip():
                for slot in self._full_lines:
                    slot.take(item)

    def _end(self, clean: bool) -> None:
        if self._tap is None:
            return
        self._catch_up()
        for event in self._tap.finish(clean):
            self._take(event)
            if self._single_json:
                for slot in self._responses:
                    slot.take(event)
        self._signals.feed_tail(self._tap.tail)
        if self._lines is not None:
            self._take_lines(self._lines.finish())

    # -- the end ---------------------------------------------------------------------------------------------------

    def finish(self, outcome: Outcome, *, duration_ms: int = 0, first_byte_ms: int | None = None) -> dict[str, Reading]:
        """The readings, by the meters' names. Called again it gives the same ones."""
        if self._readings is not None:
            return self._readings
        try:
            if self._failure is None:
                self._end(outcome is Outcome.COMPLETE)
                self._usage_slot.end()
        except Exception as problem:  # noqa: BLE001 - the seam of Law 3
            self._failure = noted(problem, "finish")
        self._passed_by = None
        erred = outcome is Outcome.COMPLETE and self.error_seen
        self.outcome = Outcome.UPSTREAM_ERROR if erred else outcome
        self._readings = {name: self._read(name, duration_ms, first_byte_ms) for name in self.meters}
        return self._readings

    def _read(self, name: str, duration_ms: int, first_byte_ms: int | None) -> Reading:
        why = self._not_metered()
        if why is not None:
            return skipped(why)
        if self._failure is not None or name not in self._runs:
            return lost(f"internal: {self._failure}")
        meter, run = self.meters[name], self._runs[name]
        missing = self._missing() if meter.plans else None
        if missing is not None:
            return lost(missing)
        end = run.end
        end.status, (end.content_type, end.headers) = self._status, self._head
        end.response_bytes = self.decoded_bytes
        end.outcome = self.outcome
        end.duration_ms, end.first_byte_ms = duration_ms, first_byte_ms
        run.fallbacks_are_zero = self.outcome is Outcome.UPSTREAM_ERROR
        return meter.evaluate(run)

    def _not_metered(self) -> str | None:
        if self.request.method not in self._methods:
            return "method"
        if self._status is None or (not 200 <= self._status < 300 and not self._charge_errors):
            return "status"
        return None

    def _missing(self) -> str | None:
        """Why what the slots saw is not the whole answer."""
        tap = self._tap
        if tap is None:
            return None
        if tap.error is not None:
            return tap.error
        if tap.dropped:
            return f"{tap.dropped} event(s) were larger than event_bytes_max, damaged, or too much for memory"
        if self._lines is not None and self._lines.dropped:
            return f"{self._lines.dropped} line(s) were larger than event_bytes_max, or too much for memory"
        return None

    # -- meanwhile -------------------------------------------------------------------------------------------------

    @property
    def live(self) -> Reading | None:
        """The largest reading of the ``live`` expression so far; None where it has found nothing yet."""
        return None if self._live is None else self._live.reading

    def usage_so_far(self) -> Mapping[str, Any] | None:
        """The usage record as it stands, or None."""
        try:
            return self._usage.result()
        except Exception as problem:  # noqa: BLE001 - the seam of Law 3
            self._failure = noted(problem, "usage_so_far")
            return None

    @property
    def terminal_seen(self) -> bool:
        """Whether the dialect's last event has passed."""
        return bool(self._signals.terminal)

    @property
    def error_seen(self) -> bool:
        """Whether the stream carried the dialect's error event."""
        return bool(self._signals.error)

    @property
    def response_id(self) -> str | None:
        """The provider's id of the answer."""
        return self._signals.response_id

    @property
    def text_bytes(self) -> int:
        """How many bytes of generated text have passed."""
        return self._signals.text_bytes

    @property
    def decoded_bytes(self) -> int:
        """How many bytes the answer has, decoded."""
        return 0 if self._tap is None else self._tap.decoded_bytes
