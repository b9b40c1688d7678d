"""The normalised usage of a response, whatever its provider: a fold over its events, driven by the table ``SHAPES``.

The rule: it is what the provider bills. Memory is constant (a few numbers for each shape seen), hostile values are
absent, nothing raises, and the search that spares the parsing changes nothing.
"""

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from gatekeeper.wire import paths
from gatekeeper.wire.events import Event
from gatekeeper.wire.paths import Inexact, Number, Path
from gatekeeper.wire.record import Row, State, Tree, add, record
from gatekeeper.wire.shapes import SHAPES, Shape

__all__ = ["SHAPES", "Shape", "UsageFold"]

# An ASCII letter can be written as \u00XX: a key spelled so must not slip through the search.
_ESCAPE = b"\\u00"
_PARTS_MAX = 1000  # iterations of one message; recorded: 3
_BILLED_MAX = 16  # kinds of billed units; documented: 5
# An event that replaces the one before it is kept as it is, and read when somebody asks: usage events have 150-900
# bytes, except where they repeat the whole answer.
_WAITING_BYTES_MAX = 1536
# A first event up to this size is kept, parsed, until the next one comes.
_KEPT_BYTES_MAX = 16 * 1024
_NUMBERS = frozenset({int, float, Decimal})
_ReadNumber = Callable[[Any], Number | None]


class _Place(NamedTuple):
    """Where one row's counts may stand. ``rank`` orders all places: as the table, then as the row's ``at``."""

    rank: int
    row: Row
    path: Path
    key: str | None  # the path, where it is one key
    guessed: bool
    starts: frozenset[str]  # the row's `need_starts`
    # An event with none of ``others`` at its top, and none of ``rivals`` in the object here, has nothing before it.
    sure: bool = False  # whether that can be said
    others: frozenset[str] = frozenset()
    rivals: frozenset[str] = frozenset()


class _Plan(NamedTuple):
    """The rows that are looked for, what finds their events in raw bytes, and their places by the event's keys."""

    rows: tuple[Row, ...]
    needles: tuple[bytes, ...]
    places: dict[str, tuple[_Place, ...]]
    deciding: frozenset[str]


# Null is an event, too.
_NO_EVENT = object()


class UsageFold:
    """Feed it every event of one response, then ask for the ``result``.

    ``shapes`` are tried in their order: ``(*own, *SHAPES)`` tries one's own first. ``prefilter=False`` parses every
    event: for the test that holds the two against each other.
    """

    __slots__ = (
        "_first",
        "_last",
        "_needles",
        "_opened",
        "_plan",
        "_prefilter",
        "_record",
        "_states",
        "_waiting",
        "said",
    )

    def __init__(self, shapes: tuple[Shape, ...] = SHAPES, *, prefilter: bool = True) -> None:
        self._plan = _plan(_rows(shapes), prefilter)
        self._needles = self._plan.needles
        self._prefilter = prefilter
        self._opened = False  # the first event decides which rows are looked for
        self._first: Any = _NO_EVENT  # that event, until the next one comes: a JSON answer has but one
        self._states: dict[Row, State] = {}
        self._record: dict[str, Any] | None = None  # made once for what is known; nobody changes it
        self._waiting: tuple[Row, bytes] | None = None
        self._last: _Place | None = None  # where the last event spoke, if its bytes wait
        # What the last event said: nothing; the shape in which it did, if its bytes wait; False: it was read at once.
        self.said: Row | Literal[False] | None = None

    @property
    def deciding(self) -> frozenset[str]:
        """The keys whose values decide whether and how an event is read."""
        return self._plan.deciding

    def pend(self, row: Row, raw: bytes) -> None:
        """Takes in an event that is known to speak of usage in this shape, like an earlier one (``said``)."""
        if self._waiting is not None and self._waiting[0] is not row:
            self._settle()
        self._record = None
        if self._states:
            self._states.pop(row, None)  # it is replaced whole
        self._waiting = (row, raw)
        if len(raw) > _WAITING_BYTES_MAX:
            self._settle()

    def feed(self, event: Event) -> None:
        """Take in one event. An event that cannot speak of usage is not parsed."""
        raw = event.raw
        if self._first is not _NO_EVENT:
            self._narrow()
        # Who has spoken last speaks again, mostly: then it is no use to search first.
        if self.said and self._last is not None:
            root = event.json
            if type(root) is dict and self._as_before(self._last, root, raw):
                return
        self.said = None
        if self._opened:
            for needle in self._needles:
                # Not `in`: that one tries to read the needle as a number first. From the end it is faster (measured).
                if raw.rfind(needle) >= 0:
                    break
            else:
                if raw.find(b"\\") < 0 or raw.find(_ESCAPE) < 0:
                    return
        try:
            self._offer(event.json, paths.number, raw)
        except Inexact:
            self._offer(event.json_exact, paths.number)
        if self._first is not _NO_EVENT and len(raw) > _KEPT_BYTES_MAX:
            # A server may send one huge event and then wait.
            self._narrow()

    def feed_json(self, value: Any) -> None:
        """Take in a JSON value that is parsed already; the elements of a list one by one."""
        for item in value if type(value) is list else [value]:
            self._offer(item, paths.number_of_float)

    def result(self) -> dict[str, Any] | None:
        """The record so far, or None if nothing spoke of usage. ``input``, ``output`` and ``total`` are always in it
        (None: unknown), everything else only where the provider said it. Parts never exceed the total."""
        if self._waiting is not None:
            self._settle()
        if self._record is None:
            for row in self._plan.rows if self._states else ():
                if row in self._states:
                    self._record = record(row, self._states[row])
                    break
        return self._record

    def _settle(self) -> None:
        """Reads the event that waits: exactly what would have been read when it came."""
        assert self._waiting is not None
        event = Event(0, "message", "", self._waiting[1])
        self._waiting = None
        try:
            self._offer(event.json, paths.number)
        except Inexact:
            self._offer(event.json_exact, paths.number)

    def _offer(self, root: Any, read: _ReadNumber, raw: bytes | None = None) -> None:
        """``raw``: the event's bytes, if they may wait."""
        if self._first is not _NO_EVENT:
            self._narrow()
        if type(root) is dict:
            places = self._plan.places
            group: tuple[_Place, ...] = ()
            for key in root:
                more = places.get(key)
                if more is not None:
                    group = _merged(group, more) if group else more
            for place in group:
                _, row, path, start, guessed, starts, sure, _, _ = place
                found = root.get(start) if start is not None else paths.dig(root, path)
                if type(found) is not dict or starts.isdisjoint(found):
                    continue
                if self._take(row, found, guessed, root, read, raw):
                    self._last = place if sure and self.said is row else None
                    break
        if not self._opened:
            self._opened = True
            self._first = root

    def _narrow(self) -> None:
        """Leaves the rows that fit the first event."""
        first, self._first = self._first, _NO_EVENT
        rows = tuple([row for row in self._plan.rows if not row.opening or paths.holds(row.opening, first)])
        self._plan = _plan(rows, self._prefilter)
        self._needles = self._plan.needles

    def _as_before(self, place: _Place, root: dict[str, Any], raw: bytes) -> bool:
        """Whether the event speaks of usage where the last one did that may wait, which stands before it no more."""
        found = root.get(place.key or "")
        if type(found) is not dict or not (place.others.isdisjoint(root) and place.rivals.isdisjoint(found)):
            return False
        row = place.row
        number = found.get(row.need_first)
        if type(number) is not int or not 0 <= number <= paths.NUMBER_MAX or len(raw) > _WAITING_BYTES_MAX:
            return False
        if row.quick is not None:
            key, values, negated = row.quick
            if (root.get(key) in values) is negated:
                return False
        elif not paths.holds(row.when, root):
            return False
        self.said = row
        waiting = self._waiting
        if waiting is not None and waiting[0] is row and not self._states:
            self._waiting = (row, raw)
        else:
            self.pend(row, raw)
        return True

    def _take(
        self, row: Row, found: dict[str, Any], guessed: bool, root: dict[str, Any], read: _ReadNumber, raw: bytes | None
    ) -> bool:
        """Whether this event speaks of usage here, in this shape; then it is remembered."""
        number = found.get(row.need_first)
        if type(number) is not int:
            number = _spoken(found, row.need)
            if number is None:
                return False
        if row.when and not paths.holds(row.when, root):
            return False
        if not self._opened:
            if not paths.holds(row.opening, root):
                return False
        elif raw is not None and row.waits and len(raw) <= _WAITING_BYTES_MAX and _is_count(number):
            self.said = row
            self.pend(row, raw)
            return True
        values: dict[Path, Number] = {}
        _read_all(found, row.tree, read, values)
        if values:
            self._remember(row, found, values, guessed, read)
        return bool(values)

    def _remember(
        self, row: Row, found: dict[str, Any], values: dict[Path, Number], guessed: bool, read: _ReadNumber
    ) -> None:
        # Everything is read before anything is changed: reading may ask for the exact JSON.
        parts = _add_up(paths.dig(found, row.iterations), row.tree, read) if row.iterations else {}
        billed = _units(paths.dig(found, row.billed), read) if row.billed else {}
        if guessed:
            guessed = values.pop(row.placeholder, None) is not None
        self.said = False
        if self._waiting is not None:
            self._settle()
        self._record = None
        state = self._states.get(row)
        if state is None or row.keep_last:
            state = self._states[row] = State()
        elif row.first:
            values.update((path, state.values[path]) for path in row.first if state.values.get(path))
        state.values.update(values)
        state.placeholder = guessed or state.placeholder
        state.parts = parts or state.parts
        state.billed = billed or state.billed


def _with_rivals(place: _Place, places: dict[str, list[_Place]]) -> _Place:
    """What must be absent so that the place is the first to be looked at."""
    if place.key is None or not place.row.waits:
        return place
    before = {key: [other for other in group if other.rank < place.rank] for key, group in places.items()}
    here = before.pop(place.key)
    if any(other.key != place.key for other in here):
        return place
    rivals = frozenset().union(*(other.starts for other in here))
    return place._replace(sure=True, others=frozenset(key for key, group in before.items() if group), rivals=rivals)


def _spoken(found: dict[str, Any], need: tuple[Path, ...]) -> Any:
    """The first needed number that is there, or None."""
    for path in need:
        step = path[0]
        number = found.get(step) if len(path) == 1 and type(step) is str else paths.dig(found, path)
        if type(number) in _NUMBERS:
            return number
    return None


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 <= number <= paths.NUMBER_MAX


def _merged(one: tuple[_Place, ...], other: tuple[_Place, ...]) -> tuple[_Place, ...]:
    """The places of several keys, in the order of the table."""
    return tuple(sorted({place.rank: place for place in (*one, *other)}.values(), key=lambda place: place.rank))


def _read_all(found: Any, tree: Tree, read: _ReadNumber, values: dict[Path, Number]) -> None:
    """All numbers of one shape that stand in one object, into ``values`` by their paths."""
    plain = type(found) is dict
    for step, path, inner in tree:
        value = found.get(step) if plain else paths.dig(found, (step,))
        if value is None:
            continue
        if inner:
            _read_all(value, inner, read, values)
        if path is None:
            continue
        if type(value) is int and 0 <= value <= paths.NUMBER_MAX:  # nearly always: spares a call
            values[path] = value
        elif (count := read(value)) is not None:
            values[path] = count


def _add_up(parts: Any, tree: Tree, read: _ReadNumber) -> dict[Path, Number]:
    """Field by field the sum over a list of objects; nothing from a list that is too long to be one."""
    sums: dict[Path, Number] = {}
    if type(parts) is not list or len(parts) > _PARTS_MAX:
        return sums
    for part in parts:
        values: dict[Path, Number] = {}
        if type(part) is dict:
            _read_all(part, tree, read, values)
        for path, value in values.items():
            sums[path] = add(sums.get(path, 0), value)
    return sums


def _units(found: Any, read: _ReadNumber) -> dict[str, Number]:
    if type(found) is not dict or len(found) > _BILLED_MAX:
        return {}
    counts = {name[:64]: read(value) for name, value in found.items()}
    return {name: count for name, count in counts.items() if count is not None}


@lru_cache(maxsize=64)
def _plan(rows: tuple[Row, ...], prefilter: bool) -> _Plan:
    keys = frozenset(key for row in rows for key in row.keys)
    found = paths.needles(keys) if prefilter else None
    places: dict[str, list[_Place]] = {}
    everywhere = [(row, path, guessed) for row in rows for path, guessed in row.at]
    for rank, (row, path, guessed) in enumerate(everywhere):
        for start in [path[0]] if path else row.need_starts:
            key = str(path[0]) if len(path) == 1 and type(path[0]) is str else None
            places.setdefault(str(start), []).append(_Place(rank, row, path, key, guessed, row.need_starts))
    return _Plan(
        rows,
        (b"",) if found is None else found,
        {key: tuple(_with_rivals(place, places) for place in group) for key, group in places.items()},
        frozenset().union(*(row.deciding for row in rows)),
    )


_BUILT_IN = tuple(Row(shape) for shape in SHAPES)
_ROW_OF = dict(zip(SHAPES, _BUILT_IN, strict=True))
# By identity: a shape is many strings, and hashing seventeen of them costs more than a small response.
_COMPILED: dict[int, tuple[tuple[Shape, ...], tuple[Row, ...]]] = {id(SHAPES): (SHAPES, _BUILT_IN)}
_COMPILED_MAX = 64


def _rows(shapes: tuple[Shape, ...]) -> tuple[Row, ...]:
    known = _COMPILED.get(id(shapes))
    if known is None:
        if len(_COMPILED) > _COMPILED_MAX:
            for stale in [key for key in _COMPILED if key != id(SHAPES)]:
                del _COMPILED[stale]
        known = _COMPILED[id(shapes)] = shapes, tuple(_ROW_OF.get(shape) or Row(shape) for shape in shapes)
    return known[1]
