"""When a window of a stock limit starts and turns. Pure arithmetic on instants: no clock, no time zone of the host.

The rule: the windows of one kind, zone and anchor are a partition of time. Every instant lies in exactly one, and
asking anywhere inside a window gives the same bounds, across daylight saving, leap days and missing midnights.
"""

from calendar import monthrange
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from gatekeeper.rules.limits import Window

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_YEAR_9999_MS = 253_370_764_800_000
# Billing periods have their customers' anchors: 5 MB at most, then it starts anew.
_LAST_MAX = 20_000
_LAST: dict[tuple[Window, str, int | None], tuple[int, int]] = {}


def window_bounds(
    window: Window, now_ms: int, *, zone: str = "UTC", anchor_ms: int | None = None
) -> tuple[int, int | None]:
    """(start, end) of the window around ``now_ms``, half-open, in epoch milliseconds; the end of ``total`` is None.

    Hours, days and months are those of the IANA ``zone``. An hour that a clock change repeats is two windows. A
    billing period starts at the anchor's day and time of day in ``zone``, or on the last day of a shorter month
    (Jan 31 -> Feb 28 -> Mar 31). Raises ValueError for a billing period without an anchor and for an unknown zone.
    """
    if window == Window.TOTAL:
        return 0, None
    # Asked for every line of every call: the windows of one kind are a partition, so the one that was found last is
    # found again for any instant inside it.
    kind = (window, zone, anchor_ms)
    last = _LAST.get(kind)
    if last is not None and last[0] <= now_ms < last[1]:
        return last
    start, end = _bounds(window, now_ms, zone, anchor_ms)
    if len(_LAST) >= _LAST_MAX:
        _LAST.clear()
    _LAST[kind] = start, end
    return start, end


def admitted_month(now_ms: int) -> str:
    """The UTC month of an instant, ``YYYY-MM``. It is fixed when a call is admitted and stays with it."""
    return utc_day(now_ms)[:-3]


def months_from(now_ms: int, count: int) -> list[str]:
    """The UTC month of an instant and those after it, ``count`` in all; none where the calendar ends."""
    if now_ms >= _YEAR_9999_MS:
        return []
    day = _utc(now_ms).date()
    return [_month_later(day.year, day.month, 1, months).isoformat()[:-3] for months in range(count)]


def utc_day(now_ms: int) -> str:
    """The UTC day of an instant, ``YYYY-MM-DD``."""
    return _day(now_ms // DAY_MS)


@lru_cache(64)
def _day(number: int) -> str:
    return _utc(number * DAY_MS).strftime("%Y-%m-%d")


def _bounds(window: Window, now_ms: int, zone: str, anchor_ms: int | None) -> tuple[int, int]:
    if window is Window.BILLING_PERIOD:
        if anchor_ms is None:
            raise ValueError("a billing period needs an anchor")
        return _billing_period(now_ms, anchor_ms, _zone(zone))
    if zone == "UTC" and window is not Window.MONTH:
        length = HOUR_MS if window is Window.HOUR else DAY_MS
        start = now_ms - now_ms % length
        return start, start + length
    found = _zone(zone)
    if window is Window.HOUR:
        return _hour(now_ms, found)
    today = _local(now_ms, found).date()
    if window is Window.DAY:
        first, after = today, today + timedelta(days=1)
    else:
        first = today.replace(day=1)
        after = _month_later(first.year, first.month, 1, 1)
    return _instant(first, time(), found), _instant(after, time(), found)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as cause:
        raise ValueError(f"{name!r} is not a time zone, as in 'Europe/Paris'") from cause


def _utc(now_ms: int) -> datetime:
    return _EPOCH + timedelta(milliseconds=now_ms)


def _local(now_ms: int, zone: ZoneInfo) -> datetime:
    return _utc(now_ms).astimezone(zone)


def _instant(day: date, at: time, zone: ZoneInfo) -> int:
    """The first instant at which clocks in ``zone`` have reached ``at`` on ``day``, also where that is skipped."""
    wanted = datetime.combine(day, at)
    found = (wanted.replace(tzinfo=zone).astimezone(UTC) - _EPOCH) // _MILLISECOND
    if _local(found, zone).replace(tzinfo=None) <= wanted:
        return found
    # The reading is skipped (clocks went forward over it): the window starts when they jump.
    return _first(lambda instant: _local(instant, zone).replace(tzinfo=None) >= wanted, found - DAY_MS, found)


def _hour(now_ms: int, zone: ZoneInfo) -> tuple[int, int]:
    """The hour on the clocks, cut where their offset changes, so that no hour is counted twice."""
    here = _local(now_ms, zone)
    into_ms = (here - here.replace(minute=0, second=0, microsecond=0)) // _MILLISECOND
    start, end = now_ms - into_ms, now_ms - into_ms + HOUR_MS
    offset = here.utcoffset()

    def same(instant: int) -> bool:
        return _local(instant, zone).utcoffset() == offset

    if not same(start):
        start = _first(same, start, now_ms)
    if not same(end - 1):
        end = _first(lambda instant: not same(instant), now_ms, end - 1)
    return start, end


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The first instant in (low, high] at which ``holds``; it holds at ``high`` and turns once."""
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


def _month_later(year: int, month: int, day: int, months: int) -> date:
    """``months`` after a month, on ``day`` or on its last day where it is shorter."""
    index = year * 12 + (month - 1) + months
    year, month = index // 12, index % 12 + 1
    return date(year, month, min(day, monthrange(year, month)[1]))


def _billing_period(now_ms: int, anchor_ms: int, zone: ZoneInfo) -> tuple[int, int]:
    anchor, here = _local(anchor_ms, zone), _local(now_ms, zone)

    def start_of(months: int) -> int:
        # Always from the anchor, never from the period before: else one February would shorten every later period.
        day = _month_later(anchor.year, anchor.month, anchor.day, months)
        return anchor_ms if months == 0 else _instant(day, anchor.time(), zone)

    months = (here.year - anchor.year) * 12 + here.month - anchor.month
    start = start_of(months)
    while start > now_ms:
        months -= 1
        start = start_of(months)
    end = start_of(months + 1)
    while end <= now_ms:
        months += 1
        start, end = end, start_of(months + 1)
    return start, end
