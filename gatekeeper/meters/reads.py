"""Reading a path out of an event's JSON: with a search of the raw bytes first, and exact numbers.

The rule: the search only spares the parsing, it never changes what is read (Law 7); a float is read again, exactly.
"""

from decimal import Decimal
from typing import Any

from gatekeeper.meters.folds import NOTHING, READ, Marked
from gatekeeper.meters.paths import Step, is_silent, needles, stepped
from gatekeeper.meters.run import REQUEST_PLACE, Code, Run
from gatekeeper.meters.values import bounded, has_float
from gatekeeper.wire.events import UNREAD, Event

NULL_READ: Marked = (None, READ)


def json_path(place: int, steps: tuple[Step, ...]) -> Code:
    """The value at ``steps`` of the JSON of the event at ``place`` of the frame; null for no event."""
    mark = 0 if place == REQUEST_PLACE else READ
    null: Marked = (None, mark)
    look = needles(steps)

    def code(run: Run) -> Marked:
        event: Event | None = run.frame[place]
        if event is None:
            return null
        value = event.parsed
        if value is UNREAD:
            if look is not None and run.prefilter and is_silent(event.raw, *look):
                return null
            value = event.json
        value = stepped(value, steps)
        if type(value) is not int and has_float(value):
            value = stepped(event.json_exact, steps)
            if isinstance(value, Decimal):
                bounded(value)
        return value, mark

    return code


def event_member(place: int, name: str) -> Code:
    """``.event``, ``.data``, ``.id`` or ``.index`` of the event at ``place``."""

    def code(run: Run) -> Marked:
        event = run.frame[place]
        return NULL_READ if event is None else (getattr(event, name), READ)

    return code


def held(event: Event | None) -> Any:
    """An event as a slot may keep it: a map, ready for JSON."""
    if event is None:
        return None
    return {"index": event.index, "event": event.event, "id": event.id, "data": event.data}


def whole_event(place: int) -> Code:
    """The event itself, as a slot may keep it."""
    return lambda run: (held(run.frame[place]), READ)


def variable(place: int) -> Code:
    """A parameter that is a plain value."""

    def code(run: Run) -> Marked:
        marked: Marked = run.frame[place]
        return NOTHING if marked is None else marked

    return code
