"""One field of a JSON text set in place. The rule: every other byte stays as it came.

Reading and writing JSON anew would change numbers, drop duplicates and fail on deep nesting; here only the brackets
and strings are looked at, without recursion. The text must be valid JSON: the caller has parsed it.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_SHALLOW = re.compile(_STRING + rb'|[{}\[\]:,]|[^\s"{}\[\]:,]+', re.DOTALL)
# Deeper than the fields that are looked for, only what opens and closes matters.
_DEEP = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)


def with_field(body: bytes, path: tuple[str, ...], value: Any) -> bytes:
    """``body``, a JSON object, with the field at ``path`` set: every time that it stands there, as its first field
    where it does not. What is no object on the way is replaced by one."""
    return _with(body, body.index(b"{"), path, json.dumps(value, separators=(",", ":")).encode("ascii"))


def names_of(body: bytes) -> list[str]:
    """The names of the outermost object of a body that is valid JSON, twins included, in linear time at any depth."""
    return [name for name, _, _ in _fields(body, body.index(b"{"))]


def _with(body: bytes, start: int, path: tuple[str, ...], value: bytes) -> bytes:
    fields = list(_fields(body, start))
    mine = [(begin, end) for name, begin, end in fields if name == path[0]]
    inner = value
    for name in reversed(path[1:]):
        inner = b"{" + _named(name, inner) + b"}"
    if not mine:
        return body[: start + 1] + _named(path[0], inner) + (b"," if fields else b"") + body[start + 1 :]
    # From the end, so that the places of those before stay true.
    for begin, end in reversed(mine):
        if len(path) > 1 and body[begin] == ord("{"):
            body = _with(body, begin, path[1:], value)
        else:
            body = body[:begin] + inner + body[end:]
    return body


def _named(name: str, value: bytes) -> bytes:
    return json.dumps(name).encode("ascii") + b":" + value


def _fields(body: bytes, start: int) -> Iterator[tuple[str, int, int]]:
    """(name, begin, end) of each value in the object that opens at ``start``."""
    depth, at, end, begin = 0, start, start, -1
    name: str | None = None
    while (token := (_SHALLOW if depth < 2 else _DEEP).search(body, at)) is not None:
        at = token.end()
        mark = body[token.start() : token.start() + 1]
        if depth == 1 and name is not None and begin < 0 and mark not in b":":
            begin = token.start()
        if mark in b"{[":
            depth += 1
        elif mark in b"}]":
            depth -= 1
        elif depth == 1 and mark == b'"' and name is None:
            name = json.loads(token[0])
        if depth == 0 or (depth == 1 and mark == b","):
            if name is not None:
                yield name, begin, end
            name, begin = None, -1
            if depth == 0:
                return
        end = at
