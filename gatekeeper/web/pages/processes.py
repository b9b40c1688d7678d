"""What the processes of this host count of themselves, for pages: what the gateway adds to a call, how many are open,
and which configuration each process has. Counted since each began; see ``tallies``."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gatekeeper.tallies import summed

Told = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Process:
    """One of them. ``has_latest``: its configuration is the one that this process has."""

    pid: int
    alive: bool
    generation: str
    loaded_ms: int | None
    open_calls: int
    has_latest: bool


def processes_of(told: Sequence[Told]) -> list[Process]:
    """All of them, this one first."""
    mine = told[0].get("generation", "") if told else ""
    return [
        Process(
            pid=each.get("pid", 0),
            alive=bool(each.get("alive")),
            generation=each.get("generation", ""),
            loaded_ms=each.get("loaded_ms"),
            open_calls=_sum([each], "open_calls", ()) or 0,
            has_latest=each.get("generation", "") == mine,
        )
        for each in told
    ]


def open_calls(told: Iterable[Told]) -> int:
    """Calls that are being served, by those that live."""
    return _sum([each for each in told if each.get("alive")], "open_calls", ()) or 0


def added_ms(told: Sequence[Told], percent: int) -> float | None:
    """So long at most the gateway had so many of a hundred calls in its own hands; None: more than it counts apart, or
    there was no call."""
    found = _sum(told, "added_seconds", ("both",))
    if found is None:
        return None
    bounds, counts, _ = found
    reached, wanted = 0, -(-sum(counts) * percent // 100)
    for bound, calls in zip(bounds, counts, strict=False):
        reached += calls
        if wanted and reached >= wanted:
            return float(bound) * 1000
    return None


def at_most(ms: float | None) -> str:
    """``≤ 1 ms`` for people."""
    return "–" if ms is None else f"≤ {ms:g} ms"


def _sum(told: Iterable[Told], name: str, labels: tuple[str, ...]) -> Any:
    found = (figure for each in told for figure in each.get("figures", ()) if figure[0] == name)
    return summed(found).get((name, labels))
