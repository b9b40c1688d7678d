"""What a request asks for: pages, fields of a JSON body, texts. The rule: what is not understood is refused, never
guessed; every list is a page ``{"<things>": [...], "next": cursor or null}``."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from starlette.requests import Request

from gatekeeper.errors import Code, Refusal

PAGE_MAX = 1_000
T = TypeVar("T")
_TIME_MAX_MS = 253_402_300_799_000
_DIGITS_MAX = 18


def number_of(text: str) -> int | None:
    """A whole number in plain digits, None for anything else. One that is longer than all that anybody means is none:
    neither its beginning nor thousands of digits are worked out."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX else None


def limit_of(request: Request, most: int = PAGE_MAX) -> int:
    """``?limit=N``. Raises Refusal."""
    limit = number_of(request.query_params.get("limit", str(min(100, most))))
    if limit is None or not 1 <= limit <= most:
        raise Refusal(Code.BAD_REQUEST, f"limit is a number from 1 to {most}.")
    return limit


def page(name: str, rows: Sequence[T], limit: int, shown: Callable[[T], Any], cursor: Callable[[T], str]) -> Any:
    """A page of ``rows``, of which one more than ``limit`` were looked for: so it is known whether there are more."""
    here = rows[:limit]
    return {name: [shown(row) for row in here], "next": cursor(here[-1]) if len(rows) > limit else None}


def time_of(request: Request, name: str) -> int | None:
    """``?name=`` as milliseconds since 1970. Raises Refusal."""
    text = request.query_params.get(name)
    if text is None:
        return None
    time_ms = number_of(text)
    if time_ms is None or time_ms > _TIME_MAX_MS:
        raise Refusal(Code.BAD_REQUEST, f"{name} is a time in milliseconds since 1970.")
    return time_ms


def only(body: dict[str, Any], *names: str) -> dict[str, Any]:
    """The body, where it has no other fields. Raises Refusal."""
    unknown = sorted(set(body) - set(names))
    if unknown:
        fields = f"the fields are: {', '.join(names)}" if names else "there are no fields"
        raise Refusal(Code.BAD_REQUEST, f"unknown field {unknown[0][:40]!r}; {fields}.")
    return body


def take(body: dict[str, Any], name: str, kind: type[T]) -> T | None:
    """A field of one kind, None where it is not there. Raises Refusal."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        shown = {str: "a text", int: "a whole number", bool: "true or false", list: "a list"}[kind]
        raise Refusal(Code.BAD_REQUEST, f"{name} must be {shown}.")
    return value


def need(body: dict[str, Any], name: str, kind: type[T]) -> T:
    """A field that must be there. Raises Refusal."""
    value = take(body, name, kind)
    if value is None:
        raise Refusal(Code.BAD_REQUEST, f"{name} is missing.")
    return value


def texts(body: dict[str, Any], name: str) -> list[str] | None:
    """A list of texts, None where it is not there. Raises Refusal."""
    value = body.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Refusal(Code.BAD_REQUEST, f"{name} must be a list of texts.")
    return value
