"""How figures and instants are written on pages: the filters of the templates. The rule: integers in (nano-dollars,
millionths of a unit, epoch milliseconds), text for people out; no float is asked what money is."""

import datetime as dt
from typing import Any

from jinja2 import pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from gatekeeper.money import amount_text, dollars_text, rounded_ratio, units_text

# An instant that a date cannot hold (a counter without an end, say) is shown as it is.
_YEAR_9999_MS = 253_402_300_799_000
_SECOND_MS, _MINUTE_MS, _HOUR_MS, _DAY_MS = 1_000, 60_000, 3_600_000, 86_400_000


def grouped(digits: str) -> str:
    """``1234567.5`` as ``1,234,567.5``."""
    sign, digits = ("−", digits[1:]) if digits.startswith("-") else ("", digits)
    whole, point, rest = digits.partition(".")
    return f"{sign}{int(whole):,}{point}{rest}"


def count(number: int) -> str:
    """A whole number in groups."""
    return grouped(str(number))


def units(micro: int | None) -> str:
    """Units, exact, in groups."""
    return "–" if micro is None else grouped(units_text(micro))


def dollars(nano: int | None) -> str:
    """Dollars to the cent; below a dollar as far as four digits say something; see ``dollars_exact``."""
    if nano is None:
        return "–"
    sign, nano = ("−" if nano < 0 else ""), abs(nano)
    if nano == 0 or nano >= 1_000_000_000:
        cents = rounded_ratio(nano, 10_000_000)
        return f"{sign}${cents // 100:,}.{cents % 100:02}"
    places = min(9, max(2, 13 - len(str(nano))))
    kept = rounded_ratio(nano, 10 ** (9 - places))
    text = f"{kept // 10**places}.{kept % 10**places:0{places}}"
    text = text.rstrip("0")
    whole, _, rest = text.partition(".")
    return f"{sign}${whole}.{rest:0<2}"


def dollars_exact(nano: int | None) -> str:
    """Dollars to the last digit that is stored."""
    return "–" if nano is None else f"${grouped(dollars_text(nano))}".replace("$−", "−$")


def cents(amount: int | None, currency: str = "usd") -> str:
    """Whole cents, as an invoice says them."""
    if amount is None:
        return "–"
    sign, amount = ("−" if amount < 0 else ""), abs(amount)
    text = f"{amount // 100:,}.{amount % 100:02}"
    return f"{sign}${text}" if currency == "usd" else f"{sign}{text} {currency.upper()}"


def amount(stored: int | None, dimension: str) -> str:
    """An amount of a limit in the unit of its dimension."""
    if stored is None:
        return "unlimited"
    return dollars(stored) if dimension == "dollars" else grouped(amount_text(dimension, stored))


def percent(part: int, whole: int) -> str:
    """``12.5 %``; nothing of nothing is no share."""
    if whole <= 0:
        return "–"
    tenths = rounded_ratio(1000 * part, whole)
    return f"{tenths // 10}.{tenths % 10} %" if tenths % 10 else f"{tenths // 10} %"


def millis(ms: int | None) -> str:
    """A duration: ``87 ms``, ``1.2 s``, ``3 min``."""
    if ms is None:
        return "–"
    if ms < _SECOND_MS:
        return f"{ms} ms"
    if ms < _MINUTE_MS:
        return f"{ms // 1000}.{ms % 1000 // 100} s"
    return span(ms)


def span(ms: int) -> str:
    """A length of time in its largest word: ``2 h``, ``3 days``."""
    if ms >= 2 * _DAY_MS:
        return f"{ms // _DAY_MS} days"
    if ms >= _HOUR_MS:
        return f"{ms // _HOUR_MS} h"
    if ms >= _MINUTE_MS:
        return f"{ms // _MINUTE_MS} min"
    return f"{ms // _SECOND_MS} s"


def instant(ms: int, pattern: str = "%Y-%m-%d %H:%M") -> str:
    """An instant in UTC, without the word."""
    when_ = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)
    return when_.strftime(pattern)


def _time(ms: int, text: str) -> Markup:
    full = instant(ms, "%Y-%m-%dT%H:%M:%S") + f".{ms % 1000:03}Z"
    title = instant(ms, "%Y-%m-%d %H:%M:%S") + " UTC"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(full, title, text)


def when(ms: int | None) -> str:
    """``2026-11-21 05:50 UTC`` as a <time> element."""
    if ms is None:
        return "–"
    if not 0 <= ms < _YEAR_9999_MS:
        return escape(str(ms))
    return _time(ms, instant(ms) + " UTC")


def precise(ms: int) -> str:
    """``2026-11-21 05:50:07`` as a <time> element, for columns that say UTC above them."""
    return _time(ms, instant(ms, "%Y-%m-%d %H:%M:%S")) if 0 <= ms < _YEAR_9999_MS else escape(str(ms))


@pass_context
def ago(context: Context, ms: int | None) -> str:
    """How long ago (or in how long) an instant is, as a <time> element that tells the instant when pointed at."""
    if ms is None:
        return "never"
    if not 0 <= ms < _YEAR_9999_MS:
        return escape(str(ms))
    passed_ms = int(context["now_ms"]) - ms
    if abs(passed_ms) < 5 * _SECOND_MS:
        return _time(ms, "just now")
    return _time(ms, f"{span(passed_ms)} ago" if passed_ms > 0 else f"in {span(-passed_ms)}")


FILTERS: dict[str, Any] = {
    "ago": ago,
    "amount": amount,
    "cents": cents,
    "count": count,
    "dollars": dollars,
    "dollars_exact": dollars_exact,
    "grouped": grouped,
    "millis": millis,
    "percent": percent,
    "precise": precise,
    "span": span,
    "units": units,
    "when": when,
}
