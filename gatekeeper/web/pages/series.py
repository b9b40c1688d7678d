"""Sums over time as points of a chart. Floats are for the eye alone: no figure is worked out from them."""

import datetime as dt
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from gatekeeper.rules.spent import Spent
from gatekeeper.rules.windows import DAY_MS, HOUR_MS

# (label, value of a row, "bars" or "line")
Line = tuple[str, Callable[[Spent], float], str]
_NOTHING = Spent()


def day_series(rows: Iterable[Spent], start_ms: int, end_ms: int, lines: Sequence[Line], unit: str) -> dict[str, Any]:
    """One point a UTC day, also for days without a call."""
    return _series(rows, range(start_ms // DAY_MS * DAY_MS, end_ms, DAY_MS), _day_ms, lines, unit)


def hour_series(rows: Iterable[Spent], start_ms: int, end_ms: int, lines: Sequence[Line], unit: str) -> dict[str, Any]:
    """One point an hour."""
    return _series(rows, range(start_ms // HOUR_MS * HOUR_MS, end_ms, HOUR_MS), int, lines, unit)


def _series(
    rows: Iterable[Spent], instants: range, when: Callable[[str], int], lines: Sequence[Line], unit: str
) -> dict[str, Any]:
    found = {when(row.part): row for row in rows if row.part is not None}
    points = [found.get(at_ms, _NOTHING) for at_ms in instants]
    return {
        "x": [at_ms // 1000 for at_ms in instants],
        "unit": unit,
        "series": [
            {"label": label, "kind": kind, "values": [value(row) for row in points]} for label, value, kind in lines
        ],
    }


def _day_ms(day: str) -> int:
    return (dt.date.fromisoformat(day).toordinal() - dt.date(1970, 1, 1).toordinal()) * DAY_MS
