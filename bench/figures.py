"""From what each round measured to one figure with its spread. The rule: what is compared was measured in one round."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

Round = Mapping[str, Mapping[str, float]]

# What a proxy adds: its figure less the same figure without a proxy.
_ADDED = {
    "alone_first_p50_ms": "added_first_p50_ms",
    "alone_first_p99_ms": "added_first_p99_ms",
    "alone_json_p50_ms": "added_json_p50_ms",
    "alone_json_p99_ms": "added_json_p99_ms",
    "paced50_first_p99_ms": "added_paced50_first_p99_ms",
}
DIRECT = "direct"
BARE = "bare"


@dataclass(frozen=True, slots=True)
class Figure:
    """The median of all rounds, and between what they lay."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def spread(self) -> float:
        """Highest less lowest, as a part of the median; 0 where there was one round."""
        return (self.high - self.low) / abs(self.median) if self.median else 0.0


Table = dict[str, dict[str, Figure]]


def derived(measured: Round) -> dict[str, dict[str, float]]:
    """A round with what follows from two systems of it: what a proxy adds to direct, and holds beyond the bare one."""
    found = {system: dict(figures) for system, figures in measured.items()}
    direct = measured.get(DIRECT, {})
    bare_kib = measured.get(BARE, {}).get("stream_kib")
    for system, figures in found.items():
        if system != DIRECT:
            for raw, added in _ADDED.items():
                if raw in figures and raw in direct:
                    figures[added] = figures[raw] - direct[raw]
        if bare_kib is not None and "stream_kib" in figures and system != BARE:
            figures["stream_over_bare_kib"] = figures["stream_kib"] - bare_kib
    return found


def summed(rounds: Iterable[Round]) -> Table:
    """System -> figure -> Figure over all rounds in which it was measured."""
    gathered: dict[str, dict[str, list[float]]] = {}
    for measured in rounds:
        for system, figures in derived(measured).items():
            for name, value in figures.items():
                gathered.setdefault(system, {}).setdefault(name, []).append(value)
    return {
        system: {name: Figure(median(v), min(v), max(v), len(v)) for name, v in figures.items()}
        for system, figures in gathered.items()
    }
