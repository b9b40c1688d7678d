"""The record that one function of the language is: what it takes, what it gives, one sentence, examples that run."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from gatekeeper.meters.kinds import ANY, Kind, Type


class Style(Enum):
    """How the compiler treats a call."""

    PLAIN = "values in, value out"
    FOLD = "walks a stream or a list"
    PIPE = "a stream or list in, one out"
    FALLBACK = "the first argument that is there"
    SOURCE = "reads the stream"
    SPECIAL = "known to the compiler by name"


@dataclass(frozen=True, slots=True)
class Example:
    """``expression`` gives ``result`` (JSON; a number with its exact digits), over ``body`` where it reads one."""

    expression: str
    result: str
    body: str | None = None
    content_type: str = "text/event-stream"

    def __str__(self) -> str:
        return f"{self.expression}  ->  {self.result}"


@dataclass(frozen=True, slots=True)
class Function:
    """One function. ``run`` takes values for PLAIN ones; a null argument makes the result null unless ``sees_null``.

    ``argument`` says what the second argument of a FOLD or PIPE is: ``f`` (a value of each item) or ``p`` (a test).
    """

    name: str
    signature: str
    sentence: str
    examples: tuple[Example, ...]
    params: tuple[Kind, ...] = ()
    optional: int = 0
    rest: Kind | None = None
    gives: Type = ANY
    run: Callable[..., Any] | None = None
    style: Style = Style.PLAIN
    sees_null: bool = False
    argument: str = ""

    @property
    def least(self) -> int:
        """The fewest arguments."""
        return len(self.params) - self.optional

    @property
    def most(self) -> int | None:
        """The most arguments, or None."""
        return None if self.rest is not None else len(self.params)


def ex(expression: str, result: str, body: str | None = None, content_type: str = "text/event-stream") -> Example:
    """Shorter to write in the tables."""
    return Example(expression, result, body, content_type)
