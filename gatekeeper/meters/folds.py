"""What the aggregates do with one item after the other. The same fold walks a list at the end and a stream as it comes.

The rule: a fold holds one value (or a counter), never the items, and what it holds is bounded.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

from gatekeeper.meters.values import (
    HELD_BYTES_MAX,
    HELD_KEYS_MAX,
    Unmeasurable,
    add,
    divide,
    kind,
    number,
    too_large,
    weight,
)

# How far a value may be believed: read from the answer; from a fallback; estimated; a test met a null.
READ, FELL_BACK, GUESSED, SAW_NULL = 1, 2, 4, 8
Marked = tuple[Any, int]
NOTHING: Marked = (None, 0)
_LARGE = "a slot holds at most 16 KiB and 256 keys; read a smaller part, such as one field"


class Fold(Protocol):
    """One aggregate at work. ``done``: nothing that follows can change the result."""

    done: bool

    def add(self, value: Any, marks: int) -> None:
        """The next item, or the function of it. Raises Unmeasurable."""
        ...

    def add_count(self, value: int) -> None:
        """The same for a count that was read: a small number, which takes no room."""
        ...

    def result(self) -> Marked:
        """What it comes to so far. Raises Unmeasurable."""
        ...


class _Counted(ABC):
    """A fold for which a count is an item like any other."""

    __slots__ = ()

    @abstractmethod
    def add(self, value: Any, marks: int) -> None:
        """As ``Fold.add``."""

    def add_count(self, value: int) -> None:
        self.add(value, READ)


class _Failed:
    """A value that could not be had or held; it only matters if it is the one that is asked for."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why


class _Heavy:
    """A value that takes part of what one slot may hold."""

    __slots__ = ("keys", "size", "value")

    def __init__(self, value: Any, size: int, keys: int) -> None:
        self.value = value
        self.size = size
        self.keys = keys


def _kept(value: Any) -> Any:
    return _Failed(_LARGE) if too_large(value) else value


def _given(marked: tuple[Any, int]) -> Marked:
    if isinstance(marked[0], _Failed):
        raise Unmeasurable(marked[0].why)
    return marked


class Last:
    """The last item that is not null. ``held``: it stands in a slot, where what it holds is bounded."""

    __slots__ = ("_bounded", "_held", "done")

    def __init__(self, held: bool) -> None:
        self.done = False
        self._bounded = held
        self._held: Marked = NOTHING

    def add(self, value: Any, marks: int) -> None:
        if value is not None:
            self._held = (_kept(value) if self._bounded else value), marks

    def add_count(self, value: int) -> None:
        self._held = value, READ

    def result(self) -> Marked:
        return _given(self._held)


class First(Last):
    """The first item that is not null."""

    __slots__ = ()

    def add(self, value: Any, marks: int) -> None:
        if value is not None and not self.done:
            super().add(value, marks)
            self.done = True

    def add_count(self, value: int) -> None:
        self.add(value, READ)


class At(_Counted):
    """The item number ``place`` from the front, null or not."""

    __slots__ = ("_held", "_left", "done")

    def __init__(self, place: int) -> None:
        self.done = False
        self._left = place
        self._held: Marked = NOTHING

    @property
    def empty(self) -> bool:
        """Whether the stream has been too short until now."""
        return not self.done

    def add(self, value: Any, marks: int) -> None:
        if not self._left:
            self._held = _kept(value), marks
            self.done = True
        self._left -= 1

    def fail(self, why: str) -> None:
        """The item could not be read."""
        self.add(_Failed(why), 0)

    def result(self) -> Marked:
        return _given(self._held)


class AtBack:
    """The item number ``place`` from the back (1 is the last), null or not: a ring of that many. All of them together
    have the room of one slot; one that does not fit in is an error, if it is the one that is asked for."""

    __slots__ = ("_place", "_ring", "done")

    def __init__(self, place: int) -> None:
        self.done = False
        self._place = place
        # A list: a deque takes 700 bytes for its first item, and there are 16 at most.
        self._ring: list[Marked] = []

    @property
    def empty(self) -> bool:
        """Whether the stream has been too short until now."""
        return len(self._ring) != self._place

    def put(self, marked: Marked) -> None:
        """The next item, which is known to be small."""
        ring = self._ring
        ring.append(marked)
        if len(ring) > self._place:
            del ring[0]

    def put_many(self, marked: Marked, count: int) -> None:
        """The same item, which is known to be small, so many times."""
        for _ in range(min(count, self._place)):
            self.put(marked)

    def add(self, value: Any, marks: int) -> None:
        own = weight(value)
        self.put((value if own == (0, 0) else self._weighed(value, own), marks))

    def _weighed(self, value: Any, own: tuple[int, int] | None) -> Any:
        if own is None:
            return _Failed(_LARGE)
        size, keys = own
        # Without the item that makes room.
        for held, _ in self._ring[1:] if len(self._ring) == self._place else self._ring:
            if type(held) is _Heavy:
                size += held.size
                keys += held.keys
        full = size > HELD_BYTES_MAX or keys > HELD_KEYS_MAX
        return _Failed(_LARGE) if full else _Heavy(value, *own)

    def add_count(self, value: int) -> None:
        self.put((value, READ))

    def fail(self, why: str) -> None:
        """The item could not be read."""
        self.put((_Failed(why), 0))

    def result(self) -> Marked:
        if self.empty:
            return NOTHING
        value, marks = self._ring[0]
        return (value.value, marks) if type(value) is _Heavy else _given((value, marks))


class Sum(_Counted):
    """The exact sum of what is not null; null for nothing."""

    __slots__ = ("_count", "_marks", "_total", "done")

    def __init__(self) -> None:
        self.done = False
        self._total = Decimal(0)
        self._count = 0
        self._marks = 0

    def add(self, value: Any, marks: int) -> None:
        if value is not None:
            self._total = add(self._total, value)
            self._count += 1
            self._marks |= marks

    def result(self) -> Marked:
        return (self._total, self._marks) if self._count else NOTHING


class Avg(Sum):
    """The sum divided by the number of what is not null."""

    __slots__ = ()

    def result(self) -> Marked:
        return (divide(self._total, self._count), self._marks) if self._count else NOTHING


class Max(_Counted):
    """The largest number; the marks are the winner's."""

    __slots__ = ("_held", "done")

    def __init__(self) -> None:
        self.done = False
        self._held: Marked = NOTHING

    def add(self, value: Any, marks: int) -> None:
        if value is None:
            return
        amount = number(value)
        holder, held = self._held
        beats = holder is None or self._beats(amount, holder)
        # Of equals the one that was read wins: its marks are better.
        if beats or (amount == holder and not held & READ):
            self._held = amount, marks

    def _beats(self, challenger: Decimal, holder: Decimal) -> bool:
        return challenger > holder

    def result(self) -> Marked:
        return self._held


class Min(Max):
    """The smallest number."""

    __slots__ = ()

    def _beats(self, challenger: Decimal, holder: Decimal) -> bool:
        return challenger < holder


class Count(_Counted):
    """How many items there are: each ``add`` of something true counts."""

    __slots__ = ("_count", "_marks", "done")

    def __init__(self, marks: int) -> None:
        self.done = False
        self._count = 0
        self._marks = marks

    def add(self, value: Any, marks: int) -> None:
        if holds(value):
            self._count += 1
            self._marks |= marks & ~SAW_NULL

    def result(self) -> Marked:
        return self._count, self._marks


class AnyOf(_Counted):
    """Whether one item passes."""

    __slots__ = ("_marks", "_value", "done")
    stops_at = True

    def __init__(self, marks: int) -> None:
        self.done = False
        self._value = not self.stops_at
        self._marks = marks

    def add(self, value: Any, marks: int) -> None:
        if self.done:
            return
        self._marks |= SAW_NULL if value is None else marks
        if holds(value) is self.stops_at:
            self._value = self.stops_at
            self.done = True

    def result(self) -> Marked:
        return self._value, self._marks


class AllOf(AnyOf):
    """Whether every item passes."""

    __slots__ = ()
    stops_at = False


class Merge(_Counted):
    """Shallow maps, overwritten field by field; null never overwrites."""

    __slots__ = ("_bounded", "_held", "_marks", "done")

    def __init__(self, held: bool) -> None:
        self.done = False
        self._bounded = held
        self._held: dict[str, Any] | None = None
        self._marks = 0

    def add(self, value: Any, marks: int) -> None:
        if value is None:
            return
        if not isinstance(value, dict):
            raise Unmeasurable(f"merge wants maps, found {kind(value)}")
        held = {} if self._held is None else self._held
        for key, part in value.items():
            if part is not None or key not in held:
                held[key] = part
        if self._bounded and too_large(held):
            raise Unmeasurable(_LARGE)
        self._held, self._marks = held, self._marks | marks

    def result(self) -> Marked:
        return self._held, self._marks


def twin(fold: Any) -> Any:
    """A fold that has seen the same, and goes its own way from now on."""
    made = copy.copy(fold)
    if isinstance(made, AtBack):
        made._ring = list(made._ring)
    elif isinstance(made, Merge) and made._held is not None:
        made._held = dict(made._held)
    return made


def holds(value: Any) -> bool:
    """A test's answer: null is false; anything else but a boolean is an error."""
    if value is True or value is False:
        return bool(value)
    if value is None:
        return False
    raise Unmeasurable(f"a test gives true or false, found {kind(value)}")


def fold_named(name: str, marks: int, *, held: bool) -> Callable[[], Fold]:
    """Makes the fold of a function; ``marks`` are those of what is walked (for counts of nothing); ``held``: it
    stands in a slot."""
    holding: dict[str, Callable[[bool], Fold]] = {"last": Last, "first": First, "merge": Merge}
    adding: dict[str, Callable[[], Fold]] = {"sum": Sum, "avg": Avg, "max": Max, "min": Min}
    counting: dict[str, Callable[[int], Fold]] = {"count": Count, "len": Count, "any": AnyOf, "all": AllOf}
    if name in holding:
        return lambda: holding[name](held)
    if name in adding:
        return adding[name]
    return lambda: counting[name](marks)
