"""What a price charges for a quantity, in cents. The rule: pure; Decimal inside, and one rounding for each line.

Sources: tiers https://docs.stripe.com/products-prices/pricing-models#tiered-pricing (graduated: each unit at the rate
of its own tier; a flat amount once for each tier that is reached); rounding
https://docs.stripe.com/billing/subscriptions/decimal-amounts ("rounding occurs on the line item level", 1.5 cents
become 2). That a graduated price makes one line for each tier is how invoices look, but is not documented (unverified).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from gatekeeper.money import EXACT, plain


@dataclass(frozen=True, slots=True)
class Charge:
    """One invoice line: ``quantity`` units at ``unit_cents`` each, ``cents`` in all."""

    quantity: int
    unit_cents: Decimal | None
    cents: int
    note: str = ""


def round_cents(cents: Decimal) -> int:
    """Whole cents, half away from zero."""
    return int(cents.to_integral_value(rounding=ROUND_HALF_UP))


def unit_cents(price: Mapping[str, Any]) -> Decimal:
    """The unit amount of a price that is not tiered."""
    return Decimal(price["unit_amount_decimal"] or 0)


def charges(price: Mapping[str, Any], quantity: int) -> list[Charge]:
    """The lines for ``quantity`` units (never negative) of a stored price."""
    if price["billing_scheme"] == "tiered":
        return _tiered(price["tiers"], price["tiers_mode"], quantity)
    divided = quantity
    if transform := price.get("transform_quantity"):
        divided, left = divmod(quantity, transform["divide_by"])
        divided += transform["round"] == "up" and left > 0
    each = unit_cents(price)
    return [Charge(quantity, each, round_cents(EXACT.multiply(each, Decimal(divided))))]


def total_cents(price: Mapping[str, Any], quantity: int) -> int:
    """The sum of the lines."""
    return sum(charge.cents for charge in charges(price, quantity))


def _tiered(tiers: Sequence[Mapping[str, Any]], mode: str, quantity: int) -> list[Charge]:
    made: list[Charge] = []
    below = 0
    for number, tier in enumerate(tiers, 1):
        top = tier["up_to"]
        if mode == "volume":
            # One tier, chosen by the whole quantity, prices all of it.
            if top is None or quantity <= top:
                return [_in_tier(tier, quantity, number)]
            continue
        inside = quantity - below if top is None else min(quantity, top) - below
        if inside > 0 or number == 1:
            made.append(_in_tier(tier, inside, number))
        if top is None or quantity <= top:
            break
        below = top
    return made


def _in_tier(tier: Mapping[str, Any], quantity: int, number: int) -> Charge:
    each = Decimal(tier["unit_amount_decimal"] or 0)
    flat = Decimal(tier["flat_amount_decimal"] or 0)
    cents = round_cents(EXACT.add(EXACT.multiply(each, Decimal(quantity)), flat))
    return Charge(quantity, each, cents, f"Tier {number} at {plain(each)} cents")
