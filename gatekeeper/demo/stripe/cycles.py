"""Billing periods from an anchor. The rule: pure; every boundary is counted from the anchor, never from the last one.

Source: https://docs.stripe.com/billing/subscriptions/billing-cycle: a monthly subscription anchored on January 31 bills
on the last day of the months that are shorter, and on the 31st again in those that are not.
"""

import calendar
from datetime import UTC, datetime, timedelta

_MONTHS = {"month": 1, "year": 12}
_DAYS = {"day": 1, "week": 7}


def boundary_s(anchor_s: int, interval: str, interval_count: int, number: int) -> int:
    """The boundary ``number`` intervals after the anchor (0 is the anchor itself), epoch seconds UTC."""
    anchor = datetime.fromtimestamp(anchor_s, UTC)
    if interval in _DAYS:
        return int((anchor + timedelta(days=_DAYS[interval] * interval_count * number)).timestamp())
    month = anchor.month - 1 + _MONTHS[interval] * interval_count * number
    year, month = anchor.year + month // 12, month % 12 + 1
    day = min(anchor.day, calendar.monthrange(year, month)[1])
    return int(anchor.replace(year=year, month=month, day=day).timestamp())


def next_boundary_s(anchor_s: int, interval: str, interval_count: int, after_s: int) -> int:
    """The first boundary later than ``after_s``, counting backwards from the anchor too."""
    number = _guess(anchor_s, interval, interval_count, after_s)
    while boundary_s(anchor_s, interval, interval_count, number) > after_s:
        number -= 1
    while (found := boundary_s(anchor_s, interval, interval_count, number)) <= after_s:
        number += 1
    return found


def _guess(anchor_s: int, interval: str, interval_count: int, after_s: int) -> int:
    days = (after_s - anchor_s) // 86_400
    interval_days = _DAYS[interval] if interval in _DAYS else 30 * _MONTHS[interval]
    return days // (interval_days * interval_count)
