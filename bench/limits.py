"""The ratios that fail a run. The rule: never an absolute time, because machines differ and ratios hardly do."""

import tomllib
from dataclasses import dataclass
from pathlib import Path

from bench.figures import Table

LIMITS = Path(__file__).with_name("limits.toml")


@dataclass(frozen=True, slots=True)
class Limit:
    """``figure`` of the system ``of`` is at most ``max`` times that of the system ``beside``; at least ``min``."""

    name: str
    figure: str
    of: str
    beside: str
    max: float | None = None
    min: float | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """``kept`` is None where one of the two was not measured."""

    limit: Limit
    ratio: float | None
    kept: bool | None


def read_limits(path: Path = LIMITS) -> list[Limit]:
    """Raises ValueError for an entry that limits nothing, TypeError for one with unknown or missing keys."""
    limits = [Limit(**entry) for entry in tomllib.loads(path.read_text("utf-8"))["limit"]]
    for limit in limits:
        if (limit.max is None) == (limit.min is None):
            raise ValueError(f"{limit.name!r} needs either max or min")
    return limits


def judge(limits: list[Limit], table: Table) -> list[Verdict]:
    """Each limit against the medians."""
    return [_judged(limit, table) for limit in limits]


def _judged(limit: Limit, table: Table) -> Verdict:
    ours = table.get(limit.of, {}).get(limit.figure)
    theirs = table.get(limit.beside, {}).get(limit.figure)
    if ours is None or theirs is None or theirs.median <= 0:
        return Verdict(limit, None, None)
    ratio = ours.median / theirs.median
    return Verdict(limit, ratio, ratio <= limit.max if limit.max is not None else ratio >= (limit.min or 0))


def exit_code(verdicts: list[Verdict], *, noisy: bool, wrong: bool) -> int:
    """1 for a missed limit on a quiet machine, and for a wrong byte on any."""
    missed = any(verdict.kept is False for verdict in verdicts)
    return int(wrong or (missed and not noisy))
