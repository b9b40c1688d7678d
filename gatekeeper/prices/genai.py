"""The public price list of the package genai-prices (MIT), which lies in the package as plain data.

The rules: nothing here asks the network (the package's own updates are never started); the package is imported when
the first price is asked for, because that takes a quarter of a second (``warm`` does it beforehand); only dated plain
``TokenPrice`` values leave this room.
"""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

from gatekeeper.rules.prices import Origin, Rates, Tier, TokenPrice, cost_dollars

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, Provider

# Model names come from callers: what is remembered of them is bounded. A deployment has some dozens.
REMEMBERED_MAX = 4_096
# No provider's model has a longer name, and every pattern of the list is tried on it.
MODEL_LETTERS_MAX = 256

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_THOUSAND = Decimal(1_000)
# Our kind of token: its name in the list, in dollars a million.
_RATES = {
    "input": "input_mtok",
    "output": "output_mtok",
    "cached_input": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio_input": "input_audio_mtok",
    "image_input": "input_image_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_output": "output_audio_mtok",
    "image_output": "output_image_mtok",
}


class _Entry(NamedTuple):
    """One price of a model; ``active`` says whether it is the price at an instant (None: always)."""

    price: TokenPrice | None
    active: Callable[[datetime], bool] | None


class GenaiPrices:
    """The list. It is a ``rules.prices.PriceList`` and, with the provider guessed from the model, a ``meters.Prices``.

    Safe to share; one for the process is enough.
    """

    def __init__(self, remembered_max: int = REMEMBERED_MAX) -> None:
        self._entries = lru_cache(maxsize=remembered_max)(_entries)

    @property
    def remembered(self) -> int:
        """How many look-ups are remembered."""
        return self._entries.cache_info().currsize

    def warm(self) -> None:
        """Import the list now, so that no call has to wait for it."""
        _list()

    def price(self, model: str, at_ms: int, upstream: str = "", url: str = "") -> TokenPrice | None:
        """The price of a model at an instant; None where the list has none. Does not raise.

        Who sells it is known by the URL, else by the upstream's name, else guessed from the model's name. A seller
        that its URL gives away is believed: what it does not list is not looked for elsewhere.
        """
        if not model or len(model) > MODEL_LETTERS_MAX:
            return None
        entries = self._entries(model.lower(), upstream.lower(), url)
        if len(entries) == 1:
            return entries[0].price
        at = _instant(at_ms)
        # As the list is meant: the last that is active, or the first.
        for entry in reversed(entries):
            if entry.active is None or entry.active(at):
                return entry.price
        return entries[0].price if entries else None

    def cost(self, model: str, usage: Mapping[str, Any], at_ms: int) -> Decimal | None:
        """Dollars for a usage record; None without a price. Does not raise."""
        price = self.price(model, at_ms)
        return None if price is None else cost_dollars(price, usage)


def _list() -> ModuleType:
    from genai_prices import data

    return data


def _instant(at_ms: int) -> datetime:
    try:
        return _EPOCH + timedelta(milliseconds=at_ms)
    except OverflowError:
        return _EPOCH


def _entries(model: str, upstream: str, url: str) -> tuple[_Entry, ...]:
    found = _find(model, upstream, url)
    if found is None:
        return ()
    seller, listed = found
    prices = listed.prices
    if not isinstance(prices, list):
        return (_Entry(_price(prices, listed, seller), None),)
    starts = sorted(start for entry in prices if (start := getattr(entry.constraint, "start_date", None)) is not None)
    entries = []
    for entry in prices:
        start = getattr(entry.constraint, "start_date", None)
        later = [other for other in starts if start is None or other > start]
        dated = _price(entry.prices, listed, seller, start, later[0] if later else None)
        entries.append(_Entry(dated, entry.constraint.active if entry.constraint is not None else None))
    return tuple(entries)


def _find(model: str, upstream: str, url: str) -> "tuple[Provider, ModelInfo] | None":
    """Who sells the model, and as what. Not through the package's own look-up, which remembers every name for ever."""
    sellers: list[Provider] = _list().providers
    by_url = next((each for each in sellers if url and re.match(each.api_pattern, url)), None)
    if by_url is not None:
        listed = by_url.find_model(model, all_providers=sellers)
        return None if listed is None else (by_url, listed)
    prefix, _, rest = model.partition("/")
    guesses = (
        (_named(sellers, upstream), model),
        (next((each for each in sellers if rest and each.id == prefix), None), rest),
        (_made_by(sellers, model), model),
    )
    for seller, name in guesses:
        listed = seller.find_model(name, all_providers=sellers) if seller is not None else None
        if seller is not None and listed is not None:
            return seller, listed
    return None


def _named(sellers: "list[Provider]", upstream: str) -> "Provider | None":
    if not upstream:
        return None
    exact = next((each for each in sellers if each.id == upstream), None)
    near = (each for each in sellers if each.provider_match is not None and each.provider_match.is_match(upstream))
    return exact or next(near, None)


def _made_by(sellers: "list[Provider]", model: str) -> "Provider | None":
    matching = (each for each in sellers if each.model_match is not None and each.model_match.is_match(model))
    return next(matching, None)


def _price(
    listed: "ModelPrice", model: "ModelInfo", seller: "Provider", start: date | None = None, end: date | None = None
) -> TokenPrice | None:
    """None where the list has no figure that we could count with: an empty entry is not a promise that it is free."""
    starts = {tier.start for name in _RATES.values() for tier in getattr(getattr(listed, name), "tiers", ())}
    price = TokenPrice(
        model=model.id,
        origin=Origin.GENAI_PRICES,
        rates=_rates(listed, -1),
        tiers=tuple(Tier(above, _rates(listed, above)) for above in sorted(starts)),
        request=_each(listed, "requests_kcount", _THOUSAND),
        search=_each(listed, "web_searches_kcount", _THOUSAND),
        hour=_each(listed, "audio_hours") or _each(listed, "input_audio_hours"),
        from_ms=_midnight_ms(start),
        until_ms=_midnight_ms(end),
        provider=seller.id,
    )
    counted = (price.rates.input, price.rates.output, price.request, price.hour)
    return None if all(figure is None for figure in counted) else price


def _rates(listed: "ModelPrice", above: int) -> Rates:
    """The rates of a call whose input passes the tier that begins at ``above``; -1 passes none."""
    found: dict[str, Decimal] = {}
    for ours, theirs in _RATES.items():
        value = getattr(listed, theirs)
        if value is not None and not isinstance(value, Decimal):
            passed = [tier.price for tier in value.tiers if tier.start <= above]
            value = passed[-1] if passed else value.base
        if value is not None:
            found[ours] = value
    return Rates(**found)


def _each(listed: "ModelPrice", name: str, per: Decimal = Decimal(1)) -> Decimal | None:
    value = getattr(listed, name)
    value = value if value is None or isinstance(value, Decimal) else value.base
    return None if value is None else value / per


def _midnight_ms(day: date | None) -> int | None:
    if day is None:
        return None
    return (datetime.combine(day, time(), UTC) - _EPOCH) // timedelta(milliseconds=1)
