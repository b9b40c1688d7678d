"""What reached the fake: a log that tests can question. The rule: everything is logged, also what was refused."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any


@dataclass(slots=True)
class Request:
    """One call. ``params`` are texts as they came (nested); ``headers`` have lower-case names. ``status`` is what was
    answered, None while in flight or when the connection was broken; ``replayed`` came from an idempotency key."""

    method: str
    path: str
    params: Mapping[str, Any]
    headers: Mapping[str, str]
    at_ms: int
    in_flight: int
    status: int | None = None
    replayed: bool = False
    refusal: str = ""

    @property
    def idempotency_key(self) -> str | None:
        """The key, if one was sent."""
        return self.headers.get("idempotency-key")


@dataclass(slots=True)
class RequestLog:
    """All calls in the order of their coming, and those that the SDK's types refuse."""

    all: list[Request] = field(default_factory=list)
    invalid: list[Request] = field(default_factory=list)
    in_flight: int = 0
    max_in_flight: int = 0
    in_flight_by_meter: dict[tuple[str, str], int] = field(default_factory=dict)
    max_in_flight_by_meter: int = 0

    def __len__(self) -> int:
        return len(self.all)

    def to(self, path: str, method: str = "*") -> list[Request]:
        """Calls whose path and method match (``fnmatch`` patterns)."""
        return list(self._matching(path, method))

    def clear(self) -> None:
        """Forget what came so far (not what is in flight)."""
        self.all.clear()
        self.invalid.clear()
        self.max_in_flight = self.in_flight
        self.max_in_flight_by_meter = max(self.in_flight_by_meter.values(), default=0)

    def _matching(self, path: str, method: str) -> Iterator[Request]:
        for request in self.all:
            if fnmatchcase(request.path, path) and fnmatchcase(request.method, method):
                yield request
