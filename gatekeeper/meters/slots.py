"""What a meter keeps of a stream while it passes: one fold each, never the stream (Law 2).

The rule: a slot never raises. What goes wrong is kept as its error, and comes up where the slot is read.
"""

import codecs
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gatekeeper.meters.folds import FELL_BACK, NOTHING, READ, AnyOf, At, AtBack, Count, Fold, Marked, holds, twin
from gatekeeper.meters.kinds import Shape
from gatekeeper.meters.paths import NEEDLE_BYTES_MAX, is_silent
from gatekeeper.meters.run import STEPS_MAX, Code, Run
from gatekeeper.meters.seams import noted
from gatekeeper.meters.values import NUMBER_MAX, Unmeasurable
from gatekeeper.wire.events import Event
from gatekeeper.wire.memory import PROCESS, EventMemory, Share


class Feed(Enum):
    """What a slot is fed with."""

    EVENTS = "events"
    DATA = "events that are neither empty nor the [DONE] sentinel"
    RESPONSE = "the JSON body of an answer that is no stream"
    LINES = "lines of the body"
    FULL_LINES = "lines that hold more than white space"
    BODY = "the body's bytes"
    USAGE = "the events, for the usage record"


# The function of null is null, and the fold leaves nulls out.
NEUTRAL: Marked = (None, -1)


@dataclass(frozen=True, slots=True)
class Stage:
    """One step between the stream and the fold: a test, or a function of each item."""

    tests: bool
    place: int
    shape: Shape
    code: Code


@dataclass(frozen=True, slots=True)
class SlotPlan:
    """How to fill one slot. ``key`` is its canonical text; equal keys are one slot. ``looks``: where an event's bytes
    hold none of these needles, every path that the first function reads is null. ``path``: the keys that the code
    walks, where it does nothing else."""

    key: str
    shown: str
    feed: Feed
    fold: Callable[[], Any]
    shared: bool
    stages: tuple[Stage, ...] = ()
    place: int = 0
    shape: Shape = Shape.EVENT
    code: Code | None = None
    looks: tuple[tuple[bytes, bytes], ...] = ()
    path: tuple[str, ...] = ()


class Slot:
    """One slot at work in one run."""

    __slots__ = (
        "_absent", "_code", "_look", "_looks", "_path", "_places", "_ring", "_sober", "_sober_error", "_stages",
        "error", "fold", "plan", "run",
    )  # fmt: skip

    def __init__(self, plan: SlotPlan, run: Run) -> None:
        self.plan = plan
        self.run = run
        self.fold: Fold | At | AtBack = plan.fold()
        self.error: str | None = None
        self._code = plan.code
        self._stages = plan.stages
        self._looks = plan.looks if run.prefilter else ()
        # What the function gives for null, which is what it gives for an event without what is looked for.
        self._absent: Marked | None = None
        # The one thing to look for, where there is but one: the usual case has a shorter way.
        alone = len(self._looks) == 1 and len(self._looks[0][0]) <= NEEDLE_BYTES_MAX
        self._look = self._looks[0] if alone else None
        self._path = plan.path if alone else ()
        # The same fold without what fell back, from the first time that something did: an answer that turns out to
        # have failed is not charged its fallbacks.
        self._sober: Fold | At | AtBack | None = None
        self._sober_error: str | None = None
        self._places = isinstance(self.fold, At | AtBack)
        self._ring = self.fold if isinstance(self.fold, AtBack) else None

    def take(self, item: Any) -> None:
        """The next event or line."""
        look = self._look
        if look is not None:
            raw = item.raw
            # Not `in`: that one tries to read the needle as a number first, which takes longer than the search. From
            # the end it is a third faster on events of these sizes (measured).
            needle, escape = look
            at = raw.rfind(needle)
            if at < 0 or (not self._path and raw.startswith(b":null", at + len(needle)) and raw.find(needle) == at):
                if raw.find(b"\\") < 0 or raw.find(escape) < 0:
                    absent = self._absent
                    if absent is NEUTRAL:
                        return
                    if self._ring is not None and absent is not None:
                        self._ring.put(absent)
                        return
            elif self._path and self.error is None and not self.fold.done:
                # A path to a count is nearly all that meters read: what `_take` does, without the way through closures.
                value = item.json
                for key in self._path:
                    value = value.get(key) if type(value) is dict else None
                if type(value) is int and 0 <= value <= NUMBER_MAX:
                    self._add_count(value)
                    return
        if self.error is not None or (self.fold.done and self._sober is None):
            return
        try:
            if self._looks:
                if self._is_silent(item.raw):
                    # No path can be there: what the function gives for null, without looking at the JSON.
                    if self._absent is NEUTRAL or self._passes_by():
                        return
                else:
                    _ = item.json  # the function's own searches are spared
            self._take(item)
        except Unmeasurable as problem:
            self._fail(str(problem))
        except Exception as problem:  # noqa: BLE001 - the seam of Law 3: other slots go on
            self._fail(f"internal: {noted(problem, self.plan.shown)}")

    def _add_count(self, value: int) -> None:
        try:
            self.fold.add_count(value)
        except Unmeasurable as problem:
            self._fail(str(problem))

    def misses(self, raw: bytes) -> bool:
        """Whether ``repeat`` is all that it takes for every event whose bytes are these, but for the insides of
        strings that are values and for numbers."""
        if self.error is not None or (self.fold.done and self._sober is None):
            return True
        return self._absent is not None and bool(self._looks) and self._is_silent(raw)

    def repeat(self, count: int) -> None:
        """So many such events have passed."""
        absent, fold = self._absent, self.fold
        if absent is None or absent is NEUTRAL or self.error is not None or (fold.done and self._sober is None):
            return
        try:
            if isinstance(fold, AtBack):
                fold.put_many(absent, count)
                return
            for _ in range(count):
                self._add_absent(absent)
        except Unmeasurable as problem:
            self._fail(str(problem))

    def _is_silent(self, raw: bytes) -> bool:
        return all(is_silent(raw, needle, escape) for needle, escape in self._looks)

    def _fail(self, why: str) -> None:
        self.error = why
        frame = self.run.frame
        frame[1:] = [None if isinstance(held, Event) else held for held in frame[1:]]

    def _passes_by(self) -> bool:
        """Whether the event could be taken unread."""
        if self._absent is None:
            self._absent = self._of_nothing()
            if self._absent is None:
                # The function of null is an error: then every event is looked at.
                self._looks, self._look = (), None
                return False
            value, marks = self._absent
            counted = isinstance(self.fold, Count) and not holds(value) and not marks & FELL_BACK
            if counted or (value is None and not isinstance(self.fold, At | AtBack | AnyOf)):
                self._absent = NEUTRAL
                return True
        self._add_absent(self._absent)
        return True

    def _add_absent(self, absent: Marked) -> None:
        if self._sober is not None or absent[1] & FELL_BACK:
            self._add_soberly(None, absent[1] & FELL_BACK, absent)
        self.fold.add(*absent)

    def _of_nothing(self) -> Marked | None:
        """What the function gives where all of its paths are null; None where that is an error."""
        self.run.frame[self.plan.place] = None
        assert self._code is not None
        try:
            return self._code(self.run)
        except Unmeasurable:
            return None

    def _take(self, item: Any) -> None:
        found, fell = self._made(item)
        if fell or self._sober is not None:
            self._add_soberly(item, fell, found)
        if found is not None:
            _put(self.fold, found)

    def _made(self, item: Any) -> tuple[Marked | str | None, int]:
        """(what the fold gets of an item, whether anything on the way fell back): None where a test leaves it out, a
        text where it has no value, which matters only if that place is asked for."""
        run, frame = self.run, self.run.frame
        run.steps = STEPS_MAX
        fell = 0
        for stage in self._stages:
            frame[stage.place] = item
            marked = stage.code(run)
            frame[stage.place] = None
            fell |= marked[1] & FELL_BACK
            if not stage.tests:
                item = marked
            elif not holds(marked[0]):
                return None, fell
        if self._code is None:
            return (True, READ), fell
        frame[self.plan.place] = item
        try:
            marked = self._code(run)
        except Unmeasurable as problem:
            if not self._places:
                raise
            return str(problem), fell
        finally:
            # The event goes: a slot that held it would hold its whole JSON.
            frame[self.plan.place] = None
        return marked, fell | marked[1] & FELL_BACK

    def _add_soberly(self, item: Any, fell: int, found: Marked | str | None) -> None:
        """The item for the fold without what fell back. Called before the other one has it."""
        if self._sober is None:
            self._sober = twin(self.fold)
        if self._sober_error is not None:
            return
        zero, self.run.fallbacks_are_zero = self.run.fallbacks_are_zero, True
        try:
            if fell:
                found = self._made(item)[0]
            if found is not None:
                _put(self._sober, found)
        except Unmeasurable as problem:
            self._sober_error = str(problem)
        finally:
            self.run.fallbacks_are_zero = zero

    def result(self) -> Marked:
        """What the slot holds. Raises Unmeasurable."""
        if self.error is not None:
            raise Unmeasurable(self.error)
        fold = self.fold
        if self._sober is not None and self.run.fallbacks_are_zero:
            fold = self._sober
            if self._sober_error is not None:
                raise Unmeasurable(self._sober_error)
        if isinstance(fold, At | AtBack) and fold.empty and self._code is not None:
            # The item does not exist: the function of null, which need not be null (`count(response.items)` is 0).
            self.run.frame[self.plan.place] = None
            return self._code(self.run)
        return fold.result()


def _put(fold: Any, found: Marked | str) -> None:
    if isinstance(found, str):
        fold.fail(found)
    else:
        fold.add(*found)


class BodyLength:
    """``len(allData)``: characters of the body as UTF-8 text."""

    __slots__ = ("_decoder", "_length", "done")

    def __init__(self) -> None:
        self.done = False
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._length = 0

    def add(self, value: Any, marks: int) -> None:
        """The next bytes."""
        self._length += len(self._decoder.decode(value))

    def result(self) -> Marked:
        """Until now; a character that is cut off counts as one."""
        # A copy, so that reading does not change what follows.
        rest = codecs.getincrementaldecoder("utf-8")("replace")
        rest.setstate(self._decoder.getstate())
        return self._length + len(rest.decode(b"", final=True)), READ


class BodyHash:
    """``sha256(allData)``: of the decoded bytes."""

    __slots__ = ("_hash", "done")

    def __init__(self) -> None:
        self.done = False
        self._hash = hashlib.sha256()

    def add(self, value: Any, marks: int) -> None:
        """The next bytes."""
        self._hash.update(value)

    def result(self) -> Marked:
        """Hex."""
        return self._hash.hexdigest(), READ


class BodySearch:
    """``allData contains "..."``, wherever the bytes are cut."""

    __slots__ = ("_found", "_rest", "_wanted", "done")

    def __init__(self, wanted: bytes) -> None:
        self.done = False
        self._wanted = wanted
        self._rest = b""
        self._found = False

    def add(self, value: Any, marks: int) -> None:
        """The next bytes."""
        window = self._rest + value
        if self._wanted in window:
            self._found = self.done = True
        keep = len(self._wanted) - 1
        self._rest = window[-keep:] if keep else b""

    def result(self) -> Marked:
        """Whether it was seen."""
        return self._found, READ


class BodyText:
    """The whole body as text, where the route allows so many bytes and ``memory`` has room for them."""

    __slots__ = ("_bytes_max", "_held", "_share", "done")

    def __init__(self, bytes_max: int, *, memory: EventMemory = PROCESS) -> None:
        self.done = False
        self._share = Share(memory)
        self._bytes_max = bytes_max
        self._held = bytearray()

    def add(self, value: Any, marks: int) -> None:
        """The next bytes."""
        self._held += value
        fits = self._share.fits(len(self._held))
        if fits and len(self._held) <= self._bytes_max:
            return
        self._held = bytearray()
        self._share.fits(0)
        if fits:
            raise Unmeasurable(f"the body is larger than buffer_bytes_max ({self._bytes_max})")
        raise Unmeasurable("the body is too much for memory")

    def result(self) -> Marked:
        """Until now."""
        return self._held.decode("utf-8", "replace"), READ


class BodySlot(Slot):
    """A slot that is fed with bytes."""

    __slots__ = ()

    def take(self, item: Any) -> None:
        """The next bytes."""
        if self.error is None and not self.fold.done:
            try:
                self.fold.add(item, READ)
            except Unmeasurable as problem:
                self.error = str(problem)


class Nothing:
    """The fold of a slot that is read elsewhere."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = True

    def add(self, value: Any, marks: int) -> None:
        """Takes nothing."""

    def result(self) -> Marked:
        """Null."""
        return NOTHING
