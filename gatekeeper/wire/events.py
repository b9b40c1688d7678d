"""One event of a response, whatever the framing: its bytes, and its JSON when somebody asks for it.

The rule: nothing here raises, and nothing is parsed before it is read. JSON that cannot be read is None.
"""

import json
from decimal import MAX_EMAX, MIN_EMIN, ROUND_05UP, Context, Decimal, DecimalException
from typing import Any, NoReturn

import orjson

# Longer integers are read as Decimal: CPython refuses int() of more than 4,300 digits, in quadratic time below that.
_INT_DIGITS_MAX = 400
# Of still longer numbers so many digits stay, the last one never 0 or 5 where something was cut off: too many for a
# count even so, but megabytes of digits would take twenty times their room wherever somebody looks at them.
_DIGITS_MAX = 10_000
_LONG = Context(prec=_DIGITS_MAX, rounding=ROUND_05UP, Emin=MIN_EMIN, Emax=MAX_EMAX, traps=[])
_BLANK = b" \t\r\n\x0b\x0c"
_BOM = b"\xef\xbb\xbf"
# What valid JSON may start with; `[DONE]` passes and fails in the parser.
_JSON_STARTS = frozenset(b'{["-0123456789tfn')
# "Not parsed yet"; None is an answer.
UNREAD: Any = object()
_loads = orjson.loads


class Event:
    """``index`` counts from 0; ``event`` is the event's name (``message`` by default); ``id`` the last event id;
    ``raw`` the payload's bytes as they came, several lines joined by LF; ``parsed`` its JSON, or UNREAD until somebody
    has asked for it."""

    __slots__ = ("_data", "_exact", "event", "id", "index", "parsed", "raw")

    _data: str
    _exact: Any

    def __init__(self, index: int, event: str, id: str, raw: bytes) -> None:
        self.index = index
        self.event = event
        self.id = id
        self.raw = raw
        self.parsed = UNREAD

    @property
    def data(self) -> str:
        """The payload as text: UTF-8, bad bytes become U+FFFD."""
        try:
            return self._data
        except AttributeError:
            self._data = self.raw.decode("utf-8", "replace")
            return self._data

    @property
    def json(self) -> Any:
        """The payload as JSON, or None. Parsed once, by orjson, and exactly where orjson refuses.

        A float in it is inexact (it may be an integer over 2^64): read that value from ``json_exact``.
        """
        value = self.parsed
        if value is UNREAD:
            try:
                value = self.parsed = _loads(self.raw)
            except orjson.JSONDecodeError:
                value = self.parsed = self.json_exact
        return value

    @property
    def json_exact(self) -> Any:
        """The payload as JSON with every fraction a Decimal and every integer exact, or None. Parsed once."""
        try:
            return self._exact
        except AttributeError:
            self._exact = parse_exact(self.raw)
            return self._exact

    def __repr__(self) -> str:
        return f"Event(index={self.index}, event={self.event!r}, id={self.id!r}, raw={self.raw!r})"


def parse_exact(raw: bytes) -> Any:
    """JSON with every number exact (int or Decimal), or None; blank bytes and a BOM before it are skipped.

    Lenient where people are (a lone surrogate, bytes that are not UTF-8), strict where money is: NaN and Infinity
    are refused, as is anything nested too deeply to read.
    """
    raw = raw.strip(_BLANK).removeprefix(_BOM).lstrip(_BLANK)
    if not raw or raw[0] not in _JSON_STARTS:
        return None
    try:
        text = raw.decode("utf-8", "replace")
        return json.loads(text, parse_float=_fraction, parse_int=_integer, parse_constant=_refuse)
    except (ValueError, RecursionError, DecimalException):
        return None


def _integer(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _INT_DIGITS_MAX else _fraction(digits)


def _fraction(digits: str) -> Decimal:
    return Decimal(digits) if len(digits) <= _DIGITS_MAX else _LONG.create_decimal(digits)


def _refuse(name: str) -> NoReturn:
    raise ValueError(name)
