"""Money and units: Decimal inside one calculation, integers everywhere else.

Dollars are stored as nano-dollars (10^-9 $), units as millionths. ``rounded`` is the only place in the
product where a Decimal becomes an integer; it rounds half-even, as does ``rounded_ratio`` for what is a fraction.
"""

from dataclasses import dataclass, field
from decimal import ROUND_HALF_EVEN, Context, Decimal

NANO_PER_DOLLAR = 1_000_000_000
MICRO_PER_UNIT = 1_000_000
# 50 digits hold the product of any two stored figures (19 digits each) without rounding.
EXACT = Context(prec=50, rounding=ROUND_HALF_EVEN)


def rounded(value: Decimal, scale: int) -> int:
    """THE rounding function: ``value * scale`` as an integer, half-even. Raises ValueError for NaN and infinity."""
    if not value.is_finite():
        raise ValueError(f"not a finite number: {value}")
    return int(EXACT.multiply(value, Decimal(scale)).to_integral_value(rounding=ROUND_HALF_EVEN))


def rounded_ratio(numerator: int, denominator: int) -> int:
    """The integer next to a fraction (``denominator`` > 0), half-even; exact, however large the two are."""
    whole, rest = divmod(numerator, denominator)
    twice = 2 * rest
    return whole + 1 if twice > denominator or (twice == denominator and whole & 1) else whole


def units_to_micro(units: Decimal) -> int:
    """Units as stored: millionths."""
    return rounded(units, MICRO_PER_UNIT)


def dollars_to_nano(dollars: Decimal) -> int:
    """Dollars as stored: nano-dollars."""
    return rounded(dollars, NANO_PER_DOLLAR)


def micro_to_units(micro: int) -> Decimal:
    """The exact inverse of ``units_to_micro``."""
    return EXACT.divide(Decimal(micro), Decimal(MICRO_PER_UNIT))


def nano_to_dollars(nano: int) -> Decimal:
    """The exact inverse of ``dollars_to_nano``."""
    return EXACT.divide(Decimal(nano), Decimal(NANO_PER_DOLLAR))


def plain(value: Decimal) -> str:
    """A decimal in plain digits: no exponent, no trailing zeros (``1E+2`` is written ``100``)."""
    text = format(value, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text in ("-0", "") else text


def units_text(micro: int) -> str:
    """Units for people and JSON: ``87``, ``0.5``."""
    return _digits(micro, MICRO_PER_UNIT, 6)


def dollars_text(nano: int) -> str:
    """Dollars for people and JSON, exact: ``0.002``."""
    return _digits(nano, NANO_PER_DOLLAR, 9)


def _digits(amount: int, scale: int, places: int) -> str:
    """As ``plain`` of the exact quotient, a tenth of its time: nine such figures stand in the head of every answer."""
    whole, rest = divmod(abs(amount), scale)
    text = f"{whole}.{rest:0{places}}".rstrip("0") if rest else str(whole)
    return f"-{text}" if amount < 0 else text


def amount_text(dimension: str, amount: int) -> str:
    """An amount in a limit's stored unit, for people and JSON: dollars from nano-dollars, all else from millionths."""
    return dollars_text(amount) if dimension == "dollars" else units_text(amount)


@dataclass(frozen=True, slots=True)
class Price:
    """``dollars`` for every ``per`` units. A price always names its "per"."""

    dollars: Decimal
    per: int = 1
    # Nano-dollars for a millionth of a unit, as a fraction: a charge is worked out under a lock, at every settle.
    _ratio: tuple[int, int] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        assert self.per > 0, self.per
        assert self.dollars.is_finite() and self.dollars >= 0, self.dollars
        over, under = self.dollars.as_integer_ratio()
        ratio = over * NANO_PER_DOLLAR, under * MICRO_PER_UNIT * self.per
        object.__setattr__(self, "_ratio", ratio)

    def charge_nano(self, units_micro: int) -> int:
        """What ``units_micro`` millionths of a unit cost, rounded once to nano-dollars."""
        over, under = self._ratio
        return rounded_ratio(units_micro * over, under)

    def step_nano(self, before_micro: int, after_micro: int) -> int:
        """What the step from one running total to the next costs.

        The difference of two rounded totals: any number of steps adds up to the charge of the whole to the
        digit, so a thousand sub-nano calls are neither lost nor rounded up (billing pitfall 20).
        """
        return self.charge_nano(after_micro) - self.charge_nano(before_micro)
