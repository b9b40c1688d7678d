"""What the checker knows of each part before anything runs: its type, and the phase in which it has a value.

The rule: a phase only ever grows from part to whole; an aggregate or an index turns EVENT into FINISH.
"""

from dataclasses import dataclass
from enum import Enum, IntFlag, StrEnum

from gatekeeper.wire.shapes import SHAPES


class Kind(StrEnum):
    """The types. ANY is not known before the run; BODY is ``allData``; STREAM is a sequence that is never held."""

    NULL = "null"
    BOOL = "a boolean"
    NUMBER = "a number"
    TEXT = "a string"
    LIST = "a list"
    MAP = "a map"
    EVENT = "an event"
    USAGE = "a usage record"
    STREAM = "a stream"
    BODY = "the whole body"
    ANY = "any value"


class Phase(IntFlag):
    """When a value is known. Of several the sum: a part may need the request and the finish."""

    ALWAYS = 0
    REQUEST = 1
    FINISH = 2
    EVENT = 4


class Shape(Enum):
    """How an item of a stream is kept while it is looked at: as the event itself, as the event of which the value is
    ``.data``, or as a plain value."""

    EVENT = "event"
    DATA = "data"
    VALUE = "value"


@dataclass(frozen=True, slots=True)
class Type:
    """A kind; for streams and lists also what the items are."""

    kind: Kind
    item: "Type | None" = None
    shape: Shape = Shape.VALUE

    @property
    def of(self) -> "Type":
        """The type of an item."""
        return self.item or ANY


ANY = Type(Kind.ANY)
NULL = Type(Kind.NULL)
BOOL = Type(Kind.BOOL)
NUMBER = Type(Kind.NUMBER)
TEXT = Type(Kind.TEXT)
LIST = Type(Kind.LIST)
MAP = Type(Kind.MAP)
EVENT = Type(Kind.EVENT)
USAGE = Type(Kind.USAGE)
BODY = Type(Kind.BODY)

# An event's members. ``json`` is parsed, or null.
EVENT_MEMBERS = {"event": TEXT, "data": TEXT, "id": TEXT, "index": NUMBER, "json": ANY}


def joined(left: Type, right: Type) -> Type:
    """The type of a value that is either the one or the other."""
    if left == right or right.kind is Kind.NULL:
        return left
    return right if left.kind is Kind.NULL else ANY


def stream(item: Type, shape: Shape) -> Type:
    """A stream of such items."""
    return Type(Kind.STREAM, item, shape)


# What a usage record holds, from the table that it is made by: anything else is a slip of the pen.
USAGE_MEMBERS: dict[str, Type] = {
    **dict.fromkeys(("input", "output", "total", "output_billed"), NUMBER),
    **{name: NUMBER for shape in SHAPES for name in shape.counts},
    "billed": MAP,
    "message": USAGE,
    "output_placeholder": BOOL,
}
