"""The normalised usage of a response, whatever its provider: a fold over its events, driven by the table ``SHAPES``.

The rule: it is what the provider bills. Memory is constant (a few numbers for each shape seen), hostile values are
absent, nothing raises, and the search that spares the parsing changes nothing.
"""

from collections.abc import Callable
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple

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
_NUMBERS = frozenset({int, float, Decimal})
_ReadNumber = Callable[[Any], Number | None]


class _Place(NamedTuple):
    """Where one row's counts may stand. ``rank`` orders all places: as the table, then as the row's ``at``."""

    rank: int
    row: Row
    path: Path
    guessed: bool


class _Plan(NamedTuple):
    """The rows that are looked for, what finds their events in raw bytes, and their places by the event's keys."""

    rows: tuple[Row, ...]
    needles: tuple[bytes, ...]
    places: dict[str, tuple[_Place, ...]]


class UsageFold:
    """Feed it every event of one response, then ask for the ``result``.

    ``prefilter=False`` parses every event: for the test that holds the two against each other.
    """

    __slots__ = ("_opened", "_plan", "_prefilter", "_states")

    def __init__(self, shapes: tuple[Shape, ...] = SHAPES, *, prefilter: bool = True) -> None:
        self._plan = _plan(_BUILT_IN if shapes is SHAPES else _compiled(shapes), prefilter)
        self._prefilter = prefilter
        self._opened = False  # the first event decides which rows are looked for
        self._states: dict[Row, State] = {}

    def feed(self, event: Event) -> None:
        """Take in one event. An event that cannot speak of usage is not parsed."""
        if self._opened:
            raw = event.raw
            for needle in self._plan.needles:
                if raw.find(needle) >= 0:
                    break
            else:
                if raw.find(b"\\") < 0 or raw.find(_ESCAPE) < 0:
                    return
        try:
            self._offer(event.json, paths.number)
        except Inexact:
            self._offer(event.json_exact, paths.number)

    def feed_json(self, value: Any) -> None:
        """Take in a JSON value that is parsed already; the elements of a list one by one."""
        for item in value if type(value) is list else [value]:
            self._offer(item, paths.number_of_float)

    def result(self) -> dict[str, Any] | None:
        """The record so far, or None if nothing spoke of usage. ``input``, ``output`` and ``total`` are always in it
        (None: unknown), everything else only where the provider said it. Parts never exceed the total."""
        for row in self._plan.rows if self._states else ():
            if row in self._states:
                return record(row, self._states[row])
        return None

    def _offer(self, root: Any, read: _ReadNumber) -> None:
        if type(root) is dict:
            places = self._plan.places
            groups = [group for key in root if (group := places.get(key)) is not None]
            if len(groups) > 1:
                found = {place.rank: place for group in groups for place in group}
                groups = [tuple(found[rank] for rank in sorted(found))]
            for place in groups[0] if groups else ():
                if self._take(place, root, read):
                    break
        if not self._opened:
            self._opened = True
            rows = tuple(row for row in self._plan.rows if not row.opening or paths.holds(row.opening, root))
            self._plan = _plan(rows, self._prefilter)

    def _take(self, place: _Place, root: dict[str, Any], read: _ReadNumber) -> bool:
        """Whether this event speaks of usage here, in this shape; then it is remembered."""
        row = place.row
        found = paths.dig(root, place.path)
        if type(found) is not dict or row.need_starts.isdisjoint(found) or not _speaks(found, row.need):
            return False
        if row.when and not paths.holds(row.when, root):
            return False
        if not self._opened and not paths.holds(row.opening, root):
            return False
        values: dict[Path, Number] = {}
        _read_all(found, row.tree, read, values)
        if values:
            self._remember(row, found, values, place.guessed, read)
        return bool(values)

    def _remember(
        self, row: Row, found: dict[str, Any], values: dict[Path, Number], guessed: bool, read: _ReadNumber
    ) -> None:
        # Everything is read before anything is changed: reading may ask for the exact JSON.
        parts = _add_up(paths.dig(found, row.iterations), row.tree, read) if row.iterations else {}
        billed = _units(paths.dig(found, row.billed), read) if row.billed else {}
        if guessed:
            guessed = values.pop(row.placeholder, None) is not None
        state = self._states.get(row)
        if state is None or row.keep_last:
            state = self._states[row] = State()
        elif row.first:
            values.update((path, state.values[path]) for path in row.first if state.values.get(path))
        state.values.update(values)
        state.placeholder = guessed or state.placeholder
        state.parts = parts or state.parts
        state.billed = billed or state.billed


def _speaks(found: dict[str, Any], need: tuple[Path, ...]) -> bool:
    for path in need:  # noqa: SIM110 - a generator would cost more than the search
        if type(paths.dig(found, path)) in _NUMBERS:
            return True
    return False


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
            places.setdefault(str(start), []).append(_Place(rank, row, path, guessed))
    return _Plan(rows, (b"",) if found is None else found, {key: tuple(group) for key, group in places.items()})


@lru_cache(maxsize=16)
def _compiled(shapes: tuple[Shape, ...]) -> tuple[Row, ...]:
    return tuple(Row(shape) for shape in shapes)


_BUILT_IN = tuple(Row(shape) for shape in SHAPES)
