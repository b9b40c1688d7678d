"""Which route a URL belongs to. Decided on the raw bytes of the target: nothing is decoded or folded first. Where a
route has a condition on the request (``when``), the URL only says which routes may take it: a Choice."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from gatekeeper.frozen import record

_NAME = re.compile(r"(\{[^{}]*\})")
_BRACED = re.compile(rb"\{(\w+)\}")
_WRITABLE = re.compile(r"[\x21-\x7e]+")


class PatternKind(StrEnum):
    """How a route's path is written."""

    EXACT = "exact"
    TEMPLATE = "template"
    PREFIX = "prefix"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A route's path: exact (``/v1/messages``), prefix (``/v1/*``) or template (``/v1beta/models/{model}:generate``).

    A ``{name}`` takes one or more bytes other than ``/``; at most one stands between two slashes, so that matching
    is linear in the path. ``literal`` is the number of literal bytes.
    """

    text: str
    kind: PatternKind
    regex: re.Pattern[bytes] = field(compare=False)
    literal: int
    names: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Pattern":
        """Raises ValueError, with a sentence for people, for a path that cannot be a route."""
        if not text.startswith("/"):
            raise ValueError("a path begins with '/'")
        if "?" in text or "#" in text:
            raise ValueError("a path holds neither '?' nor '#'")
        if not _WRITABLE.fullmatch(text):
            raise ValueError("a path is ASCII without blanks; other letters are written as they are sent, with %XX")
        prefix = text.endswith("/*")
        body = text[:-1] if prefix else text
        if "*" in body:
            raise ValueError("'*' may only stand at the end, after '/'")
        names: list[str] = []
        literal = 0
        parts: list[str] = []
        for piece in _NAME.split(body):
            if piece.startswith("{") and piece.endswith("}"):
                name = piece[1:-1]
                if not (name.isascii() and name.isidentifier()):
                    raise ValueError(f"{piece!r} is not a name in braces, as in '{{model}}'")
                if name in names:
                    raise ValueError(f"{piece!r} stands twice")
                if names and "/" not in parts[-1]:
                    raise ValueError(f"a '/' stands between two names, also before {piece!r}")
                names.append(name)
                parts.append(f"(?P<{name}>[^/]+)")
            elif "{" in piece or "}" in piece:
                raise ValueError("a brace is not closed")
            else:
                literal += len(piece.encode())
                parts.append(re.escape(piece))
        kind = PatternKind.PREFIX if prefix else PatternKind.TEMPLATE if names else PatternKind.EXACT
        pattern = "".join(parts) + (".*" if prefix else "")
        return cls(text, kind, re.compile(pattern.encode(), re.DOTALL), literal, tuple(names))

    @property
    def shape(self) -> str:
        """The text without the names: two patterns of one shape match the same paths."""
        return _NAME.sub("{}", self.text)

    def match(self, path: bytes) -> Mapping[str, str] | None:
        """The template's names with the bytes that they took (latin-1), or None."""
        found = self.regex.fullmatch(path)
        return None if found is None else {name: text.decode("latin-1") for name, text in found.groupdict().items()}


def rewritten(rewrite: str | None, pattern: Pattern, path: bytes, names: Mapping[str, str]) -> bytes:
    """The path as the upstream gets it: ``rewrite`` may hold the template's names in braces, and ends in ``*`` for what
    a prefix route left. None keeps the path."""
    if rewrite is None:
        return path
    # In one pass: what a name took may itself look like a name.
    made = _BRACED.sub(lambda found: names[found[1].decode()].encode("latin-1"), rewrite.encode("latin-1"))
    if pattern.kind is PatternKind.PREFIX and made.endswith(b"*"):
        made = made[:-1] + path[len(pattern.text) - 1 :]
    return made


def with_name(pattern: Pattern, path: bytes, name: str, value: str) -> bytes:
    """A path that the pattern matches, with what one of its names took replaced; every other byte stays."""
    found = pattern.regex.fullmatch(path)
    assert found is not None, (pattern.text, path)
    begin, end = found.span(name)
    return path[:begin] + value.encode("latin-1") + path[end:]


class Routable(Protocol):
    """What the router needs to know of a route."""

    @property
    def name(self) -> str:
        """Its name, unique."""
        ...

    @property
    def pattern(self) -> Pattern:
        """Its path."""
        ...

    @property
    def methods(self) -> frozenset[str] | None:
        """The methods that it takes; None takes all."""
        ...

    @property
    def host(self) -> str | None:
        """The host that it answers to (lower case, no port); None answers to all."""
        ...

    @property
    def priority(self) -> int:
        """Higher is tried first."""
        ...

    @property
    def when(self) -> object | None:
        """The condition on the request, if there is one. What it is, the router need not know."""
        ...


R = TypeVar("R", bound=Routable)

_SPECIFIC = {PatternKind.EXACT: 0, PatternKind.TEMPLATE: 1, PatternKind.PREFIX: 2}


@record(frozen=True, slots=True)
class Match(Generic[R]):
    """The route, and what its template's names took."""

    route: R
    names: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Choice(Generic[R]):
    """The routes that may take the request, first asked first. All have a condition but perhaps the last."""

    candidates: tuple[Match[R], ...]


@dataclass(frozen=True, slots=True)
class NoMethod:
    """The path is known, the method is not. ``allowed`` is for the Allow header."""

    allowed: tuple[str, ...]


class Router(Generic[R]):
    """Routes in the order in which they are tried: priority, host before any host, exact before template before
    prefix, more literal bytes first; of one rank those with a condition first, as they are written."""

    def __init__(self, routes: Sequence[R]) -> None:
        self._ordered = sorted(routes, key=_order)
        # One dictionary look-up finds the usual case: an exact path that only one route names.
        self._exact: dict[bytes, list[R]] = {}
        for route in self._ordered:
            if route.pattern.kind is PatternKind.EXACT:
                self._exact.setdefault(route.pattern.text.encode(), []).append(route)
        self._only_exact = {
            path: found[0]
            for path, found in self._exact.items()
            if len(found) == 1
            and found[0].when is None
            and not any(
                other is not found[0] and other.priority > found[0].priority and other.pattern.match(path) is not None
                for other in self._ordered
            )
            and not any(other.host is not None and other.pattern.match(path) is not None for other in self._ordered)
        }

    @property
    def routes(self) -> tuple[R, ...]:
        """All routes, first tried first."""
        return tuple(self._ordered)

    def quick(self, path: bytes, method: str) -> Match[R] | None:
        """The route of a path that only one route can take, whatever the host; None where ``find`` must look."""
        route = self._only_exact.get(path)
        return Match(route, {}) if route is not None and (route.methods is None or method in route.methods) else None

    def find(self, path: bytes, method: str, host: str | None = None) -> Match[R] | Choice[R] | NoMethod | None:
        """The first route that takes this path, host and method, or those of which the request decides; which methods
        would do; or None."""
        quick = self.quick(path, method)
        if quick is not None:
            return quick
        allowed: set[str] = set()
        asked: list[Match[R]] = []
        for route in self._ordered:
            if route.host is not None and route.host != host:
                continue
            names = route.pattern.match(path)
            if names is None:
                continue
            if route.methods is None or method in route.methods:
                match = Match(route, names)
                if route.when is None:
                    return Choice((*asked, match)) if asked else match
                asked.append(match)
                continue
            allowed |= route.methods
        if asked:
            return Choice(tuple(asked))
        return NoMethod(tuple(sorted(allowed))) if allowed else None


def _order(route: Routable) -> tuple[int, bool, int, int, bool, str]:
    pattern = route.pattern
    rank = (-route.priority, route.host is None, _SPECIFIC[pattern.kind], -pattern.literal)
    # The order in which conditions are written is meant: sorting keeps it.
    return (*rank, route.when is None, route.name if route.when is None else "")
