"""What is counted while calls go by: plain integers of one process, bumped on the way and read when somebody asks.

The rule: counting costs a call some microseconds at most, takes no lock and no clock, and can fail nothing. All of it
only grows; what stands for a moment (open streams, memory) is asked of whoever knows.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

# Seconds. What the gateway itself adds is some milliseconds; what an upstream takes may be minutes.
ADDED_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0)
UPSTREAM_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
COMMIT_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)
BATCH = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0)


class Histogram:
    """How often what was how much: ``counts[i]`` of at most ``bounds[i]``, and above the bound before it; the last one
    of more than all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def told(self) -> list[Any]:
        """As plain JSON."""
        return [list(self.bounds), list(self.counts), self.total]


class Figure(NamedTuple):
    """One figure as it is told: plain JSON. ``value`` is a number, or what a histogram tells."""

    name: str
    labels: tuple[str, ...]
    value: Any


class _Calls:
    """The calls of one route that ended alike."""

    __slots__ = ("count", "input_tokens", "output_tokens", "units_micro")

    def __init__(self) -> None:
        self.count = 0
        self.units_micro = 0
        self.input_tokens = 0
        self.output_tokens = 0


class Tallies:
    """One for a process. The names of figures are those under which ``web.metrics`` tells them."""

    def __init__(self) -> None:
        self.before = Histogram(ADDED_S)
        self.after = Histogram(ADDED_S)
        self.added = Histogram(ADDED_S)
        self.batch_sizes = Histogram(BATCH)
        self.batch_seconds = Histogram(COMMIT_S)
        self._calls: dict[tuple[str, str, str], _Calls] = {}
        self._refusals: dict[str, int] = {}
        self._upstreams: dict[str, Histogram] = {}
        self._failures: dict[tuple[str, str], int] = {}

    def ended(self, route: str, outcome: str, source: str, units_micro: int, usage: Mapping[str, Any] | None) -> None:
        """A call that was admitted is over."""
        key = (route, outcome, source)
        calls = self._calls.get(key)
        if calls is None:
            calls = self._calls[key] = _Calls()
        calls.count += 1
        calls.units_micro += units_micro
        if usage is not None:
            tokens_in, tokens_out = usage.get("input"), usage.get("output")
            # A provider may send anything here; only what is surely a count is added up.
            if type(tokens_in) is int:
                calls.input_tokens += tokens_in
            if type(tokens_out) is int:
                calls.output_tokens += tokens_out

    def passed(self, before_s: float, after_s: float) -> None:
        """How long a call was in our hands before its upstream was asked, and after the answer had ended."""
        self.before.add(before_s)
        self.after.add(after_s)
        self.added.add(before_s + after_s)

    def answered(self, upstream: str, seconds: float) -> None:
        """How long an upstream took until the head of its answer."""
        found = self._upstreams.get(upstream)
        if found is None:
            found = self._upstreams[upstream] = Histogram(UPSTREAM_S)
        found.add(seconds)

    def failed(self, upstream: str, fault: str) -> None:
        """A try that did not serve its call."""
        self._failures[upstream, fault] = self._failures.get((upstream, fault), 0) + 1

    def refused(self, code: str) -> None:
        """A call was refused by us."""
        self._refusals[code] = self._refusals.get(code, 0) + 1

    def figures(self) -> Iterable[Figure]:
        """All of it, as it is now."""
        for key, calls in list(self._calls.items()):
            yield Figure("requests", key, calls.count)
            yield Figure("units", key, calls.units_micro)
            yield Figure("tokens", (key[0], "input"), calls.input_tokens)
            yield Figure("tokens", (key[0], "output"), calls.output_tokens)
        for code, count in list(self._refusals.items()):
            yield Figure("refusals", (code,), count)
        for upstream, histogram in list(self._upstreams.items()):
            yield Figure("upstream_seconds", (upstream,), histogram.told())
        for failure, count in list(self._failures.items()):
            yield Figure("upstream_failures", failure, count)
        yield Figure("added_seconds", ("before",), self.before.told())
        yield Figure("added_seconds", ("after",), self.after.told())
        yield Figure("added_seconds", ("both",), self.added.told())
        yield Figure("batch_size", (), self.batch_sizes.told())
        yield Figure("batch_seconds", (), self.batch_seconds.told())


def summed(all_of_them: Iterable[Figure]) -> dict[tuple[str, tuple[str, ...]], Any]:
    """Figures of the same name and labels as one: numbers are added, histograms of the same bounds too."""
    found: dict[tuple[str, tuple[str, ...]], Any] = {}
    for name, labels, value in all_of_them:
        key = (name, tuple(labels))
        before = found.get(key)
        if before is None:
            found[key] = value
        elif not isinstance(value, list):
            found[key] = before + value
        elif before[0] == value[0]:
            counts = [one + other for one, other in zip(before[1], value[1], strict=True)]
            found[key] = [before[0], counts, before[2] + value[2]]
    return found
