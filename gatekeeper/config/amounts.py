"""Kinds for what a limit or a price is written in: units, dollars, "per" how many tokens, a day, a time zone.

The rule: money is exact, every price names its "per", and "unlimited" is a word because 0 means none.
"""

import re
from datetime import UTC, date, datetime, time
from zoneinfo import ZoneInfo

from gatekeeper.config.kinds import figure, text
from gatekeeper.config.reading import Cell, Kind, Wrong, described
from gatekeeper.money import dollars_to_nano, units_to_micro

UNLIMITED = "unlimited"
# A billion dollars still fits the ledger's 64 bits as nano-dollars.
DOLLARS_MAX = 10**9
dollars = figure("a price", DOLLARS_MAX)

_PER = re.compile(r"([0-9]{1,9})\s*([KM]?)\s+(?:tokens?|units?)")
_SCALE = {"": 1, "K": 1_000, "M": 1_000_000}


def unit_cap(cell: Cell) -> int | None:
    """Units as millionths; None for the word ``unlimited``."""
    what = "a number of units"
    return None if _unlimited(cell, what) else units_to_micro(figure(what)(cell))


def request_cap(cell: Cell) -> int | None:
    """Requests as millionths; None for the word ``unlimited``."""
    what = "a number of requests"
    return None if _unlimited(cell, what) else units_to_micro(figure(what)(cell))


def dollar_cap(cell: Cell) -> int | None:
    """Dollars as nano-dollars; None for the word ``unlimited``."""
    what = "an amount of dollars"
    return None if _unlimited(cell, what) else dollars_to_nano(figure(what, DOLLARS_MAX)(cell))


def per(cell: Cell) -> int:
    """How many tokens a price is for: ``"1 token"``, ``"1K tokens"``, ``"1M tokens"``."""
    if isinstance(cell.value, int) and not isinstance(cell.value, bool):
        raise Wrong("a price's per names what it counts", f'write "{cell.value} tokens"')
    written = text(cell)
    found = _PER.fullmatch(written)
    if found is None or int(found[1]) == 0:
        raise Wrong(f"{written!r} is no quantity that a price can be per", '"1 token", "1K tokens" or "1M tokens"')
    return int(found[1]) * _SCALE[found[2]]


def day(cell: Cell) -> int:
    """A date as the epoch milliseconds of its first instant in UTC."""
    value = cell.value
    if isinstance(value, datetime) or not isinstance(value, date):
        raise Wrong(f"a date is expected here, this is {described(value)}", "as in 2026-01-31, without quotes or time")
    return int(datetime.combine(value, time(), UTC).timestamp()) * 1_000


def zone(cell: Cell) -> str:
    """The name of a time zone."""
    written = text(cell)
    try:
        ZoneInfo(written)
    except (ValueError, OSError, KeyError):
        raise Wrong(f"{written!r} is no known time zone", 'as in "UTC" or "Europe/Berlin"') from None
    return written


def _unlimited(cell: Cell, what: str) -> bool:
    if isinstance(cell.value, str) and not cell.value[:1].isdigit():
        if cell.value == UNLIMITED:
            return True
        raise Wrong(f"{cell.value!r} is not {what}", f'a number, or "{UNLIMITED}"; 0 means none')
    return False


CAPS: dict[str, Kind[int | None]] = {"units": unit_cap, "requests": request_cap, "dollars": dollar_cap}
