"""Which part of a report is read from sums of hours and days, and which from the records. Pure arithmetic.

The rule: the pieces of a report are a partition of its time. A day or hour is read from its sums only where all of it
lies in the report, it was summed up, and nothing of it was settled late since.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from gatekeeper.rules.windows import DAY_MS, HOUR_MS

ALL_HOURS = (1 << 24) - 1


@dataclass(frozen=True, slots=True)
class Rolled:
    """What of a UTC day is summed up as a report needs it: bit n of ``hours`` for its hour n, ``whole`` for the day."""

    hours: int = 0
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Pieces:
    """The starts of the days and hours that are read from their sums, and the [start, end) of what is read from the
    records."""

    days: tuple[int, ...] = ()
    hours: tuple[int, ...] = ()
    spans: tuple[tuple[int, int], ...] = ()


def pieces(
    start_ms: int,
    end_ms: int,
    rolled: Mapping[int, Rolled],
    late_hours: Collection[int] = (),
    *,
    longest_ms: int = DAY_MS,
) -> Pieces:
    """The partition of [start, end). ``rolled`` by the start of the day; ``longest_ms``: no piece is longer (an hour
    for a history by the hour; less than that, and all of it is read from the records)."""
    days: list[int] = []
    hours: list[int] = []
    late = frozenset(late_hours)
    late_days = {hour_ms - hour_ms % DAY_MS for hour_ms in late}
    if longest_ms >= HOUR_MS:
        for day_ms in sorted(rolled):
            of_day = rolled[day_ms]
            if day_ms + DAY_MS <= start_ms or day_ms >= end_ms:
                continue
            inside = start_ms <= day_ms and day_ms + DAY_MS <= end_ms
            if of_day.whole and inside and longest_ms >= DAY_MS and day_ms not in late_days:
                days.append(day_ms)
                continue
            for number in range(24):
                hour_ms = day_ms + number * HOUR_MS
                fits = start_ms <= hour_ms and hour_ms + HOUR_MS <= end_ms
                if fits and of_day.hours >> number & 1 and hour_ms not in late:
                    hours.append(hour_ms)
    return Pieces(tuple(days), tuple(hours), _between(start_ms, end_ms, days, hours))


def joined(first: Pieces, second: Pieces) -> Pieces:
    """Two partitions of times that do not meet, as one."""
    return Pieces(first.days + second.days, first.hours + second.hours, first.spans + second.spans)


def _between(start_ms: int, end_ms: int, days: list[int], hours: list[int]) -> tuple[tuple[int, int], ...]:
    """What the sums leave over."""
    spans = []
    at_ms = start_ms
    for taken_ms, length_ms in sorted([*((day, DAY_MS) for day in days), *((hour, HOUR_MS) for hour in hours)]):
        if taken_ms > at_ms:
            spans.append((at_ms, taken_ms))
        at_ms = taken_ms + length_ms
    if at_ms < end_ms:
        spans.append((at_ms, end_ms))
    return tuple(spans)
