"""What a call costs at its provider: a dated price for tokens, the exact cost of a usage record, a bound for holds.

The rule: exact Decimal until the end, rounded once, and what has no price is None, never 0. Where a record leaves a
choice (parts that overlap, tokens of unknown kind) the dearer reading counts.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from decimal import ROUND_CEILING, Decimal
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from gatekeeper.money import EXACT, NANO_PER_DOLLAR, dollars_to_nano, plain
from gatekeeper.rules.rates import INT64_MAX

# Price lists are written for a million tokens.
PER_TOKENS = 1_000_000
_SECONDS_PER_HOUR = Decimal(3_600)
_ZERO = Decimal(0)
_FRACTION = re.compile(r"[0-9]{1,19}\.[0-9]{1,50}")
# As the usage record: no call has more of anything.
_COUNT_WHOLE_MAX = 10**18
_COUNT_MAX = Decimal(_COUNT_WHOLE_MAX)


class Origin(StrEnum):
    """Who says what something costs."""

    TOML = "toml"
    GENAI_PRICES = "genai-prices"
    CEILING = "ceiling"


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars for every ``TokenPrice.per`` tokens of each kind, named as in the usage record.

    ``input`` includes all that is read, ``output`` all that is written (reasoning too). A part without a rate of its
    own costs what its whole costs. An ``input`` or ``output`` of None is not sold: tokens of it have no price.
    """

    input: Decimal | None = None
    output: Decimal | None = None
    cached_input: Decimal | None = None
    cache_write: Decimal | None = None
    # The part of cache_write that is kept for an hour.
    cache_write_1h: Decimal | None = None
    audio_input: Decimal | None = None
    image_input: Decimal | None = None
    reasoning: Decimal | None = None
    audio_output: Decimal | None = None
    image_output: Decimal | None = None


# What each part is priced like without a rate of its own, and what it is cut out of.
INPUT_PARTS = ("cached_input", "cache_write", "cache_write_1h", "audio_input", "image_input")
OUTPUT_PARTS = ("reasoning", "audio_output", "image_output")
_PARTS = frozenset((*INPUT_PARTS, *OUTPUT_PARTS))
RATE_NAMES = tuple(field.name for field in fields(Rates))


@dataclass(frozen=True, slots=True)
class Tier:
    """The rates of ALL tokens of a call that reads more than ``above`` input tokens."""

    above: int
    rates: Rates


@dataclass(frozen=True, slots=True)
class TokenPrice:
    """One dated price. Tokens cost ``rates`` for every ``per`` of them, or the rates of the highest of ``tiers``
    (ascending) that the input passes. ``request`` is dollars for each call, ``search`` for each search that the
    provider counted beside tokens, ``hour`` for an hour of audio where seconds are counted.

    Valid from ``from_ms`` (inclusive) until ``until_ms`` (exclusive), epoch milliseconds; None is open.
    """

    model: str
    origin: Origin
    rates: Rates = Rates()
    per: int = PER_TOKENS
    tiers: tuple[Tier, ...] = ()
    request: Decimal | None = None
    search: Decimal | None = None
    hour: Decimal | None = None
    from_ms: int | None = None
    until_ms: int | None = None
    provider: str = ""

    def __post_init__(self) -> None:
        assert self.per > 0, self.per
        assert list(self.tiers) == sorted(self.tiers, key=lambda tier: tier.above), self.tiers

    def valid(self, at_ms: int) -> bool:
        """Whether this is the price at that instant."""
        return (self.from_ms is None or self.from_ms <= at_ms) and (self.until_ms is None or at_ms < self.until_ms)

    def rates_for(self, input_tokens: Decimal | int) -> Rates:
        """The rates of a call with so much input."""
        passed = [tier for tier in self.tiers if input_tokens > tier.above]
        return passed[-1].rates if passed else self.rates

    def evidence(self) -> Mapping[str, Any]:
        """This price as JSON, with all figures as text, to be stored with the record that it priced. The same object
        each time: not to be changed."""
        return _kept(self).evidence

    def _shown(self) -> dict[str, Any]:
        shown: dict[str, Any] = {"model": self.model, "source": self.origin.value, "per": self.per, **_text(self.rates)}
        if self.provider:
            shown["provider"] = self.provider
        if self.tiers:
            shown["tiers"] = [{"above": tier.above, **_text(tier.rates)} for tier in self.tiers]
        for name in ("request", "search", "hour"):
            if getattr(self, name) is not None:
                shown[name] = plain(getattr(self, name))
        for name in ("from_ms", "until_ms"):
            if getattr(self, name) is not None:
                shown[name] = getattr(self, name)
        return shown


def price_of(shown: Mapping[str, Any]) -> TokenPrice:
    """The price that ``TokenPrice.evidence`` has written. Raises KeyError, ValueError, TypeError or ArithmeticError for
    anything else."""
    figures = {name: Decimal(shown[name]) for name in ("request", "search", "hour") if name in shown}
    return TokenPrice(
        model=shown["model"],
        origin=Origin(shown["source"]),
        rates=_rates_of(shown),
        per=int(shown["per"]),
        tiers=tuple(Tier(int(tier["above"]), _rates_of(tier)) for tier in shown.get("tiers", ())),
        from_ms=shown.get("from_ms"),
        until_ms=shown.get("until_ms"),
        provider=shown.get("provider", ""),
        **figures,
    )


def _rates_of(shown: Mapping[str, Any]) -> Rates:
    return Rates(**{name: Decimal(shown[name]) for name in RATE_NAMES if name in shown})


class Bound(NamedTuple):
    """What a call can cost at most: nano-dollars a token of input and of output, and for the call itself."""

    input_nano: int
    output_nano: int
    request_nano: int


def bound(price: TokenPrice, input_tokens: int | None = None) -> Bound:
    """The dearest rates that can apply, each rounded UP, so that a hold is never below the cost.

    ``input_tokens`` is the most that the input can have: tiers that it cannot reach are left out; None leaves none
    out. Searches and seconds of audio cannot be seen beforehand and are not in it.
    """
    reached = sum(input_tokens is None or input_tokens > tier.above for tier in price.tiers)
    return _kept(price).bounds[reached]


def _bound(price: TokenPrice, reached: int) -> Bound:
    """With the first ``reached`` tiers, which ascend."""
    found = [price.rates, *(tier.rates for tier in price.tiers[:reached])]
    dearest_input = max(_dearest(rates, ("input", *INPUT_PARTS)) for rates in found)
    dearest_output = max(_dearest(rates, ("output", *OUTPUT_PARTS)) for rates in found)
    return Bound(
        _nano_up(dearest_input, price.per), _nano_up(dearest_output, price.per), _nano_up(price.request or _ZERO, 1)
    )


class _Kept:
    """What follows from a price alone: worked out once, where it was 40 us of every call."""

    __slots__ = ("bounds", "evidence", "price")

    def __init__(self, price: TokenPrice) -> None:
        self.price = price
        self.bounds = [_bound(price, reached) for reached in range(len(price.tiers) + 1)]
        self.evidence: Mapping[str, Any] = price._shown()


# By identity, because hashing the figures would cost more than is saved; the entry keeps its price alive, so no other
# object can get the same number. A gateway has some dozens in use; what a reload left behind goes when it is full.
_KEPT: dict[int, _Kept] = {}
_KEPT_MAX = 4_096


def _kept(price: TokenPrice) -> _Kept:
    found = _KEPT.get(id(price))
    if found is None:
        if len(_KEPT) >= _KEPT_MAX:
            _KEPT.clear()
        found = _KEPT[id(price)] = _Kept(price)
    return found


def cost_dollars(price: TokenPrice, usage: Mapping[str, Any]) -> Decimal | None:
    """The exact cost of a record in the shape of ``usage()``, not rounded. Does not raise.

    None where the price does not cover what was counted, or nothing was. An output that the record does not know is
    not priced: whoever cuts a stream puts its estimate into the record first.
    """
    counts = _counts(usage)
    found: list[Decimal] = []
    wholes = _wholes(counts)
    if wholes is not None and (price.rates.input is not None or price.rates.output is not None):
        tokens = _tokens_cost(price, counts, wholes)
        if tokens is None:
            return None
        found.append(tokens)
    if price.hour is not None and "seconds" in counts:
        found.append(EXACT.divide(EXACT.multiply(price.hour, counts["seconds"]), _SECONDS_PER_HOUR))
    if wholes is not None and price.search is not None and "requests" in counts:
        found.append(EXACT.multiply(price.search, counts["requests"]))
    if price.request is not None:
        # A reranker counts nothing but its requests; elsewhere a call is one.
        times = counts.get("requests", Decimal(1)) if wholes is None else Decimal(1)
        found.append(EXACT.multiply(price.request, times))
    total = _ZERO
    for each in found:
        total = EXACT.add(total, each)
    return total if found else None


def cost_nano(price: TokenPrice, usage: Mapping[str, Any]) -> int | None:
    """The same in nano-dollars, rounded once; at most what the ledger can store."""
    dollars = cost_dollars(price, usage)
    return None if dollars is None else min(dollars_to_nano(dollars), INT64_MAX)


class PriceList(Protocol):
    """Somebody who knows the prices of models."""

    def price(self, model: str, at_ms: int, upstream: str = "", url: str = "") -> TokenPrice | None:
        """The price of a model at an instant, as ``upstream`` (its name and its base URL) sells it; None is unknown.
        Does not raise."""
        ...


@dataclass(frozen=True, slots=True)
class PriceOverride:
    """A price that the operator declares, for models that match ``pattern`` (``*`` is any text; case does not matter),
    at one upstream or at all."""

    pattern: str
    price: TokenPrice
    upstream: str | None = None

    def covers(self, model: str, at_ms: int, upstream: str) -> bool:
        """Whether this says what the model costs there and then."""
        here = self.upstream is None or self.upstream == upstream
        return here and self.price.valid(at_ms) and matches(self.pattern, model)

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """What is more specific sorts first: one upstream, then a whole name, then more letters."""
        return self.upstream is None, "*" in self.pattern, -len(self.pattern.replace("*", ""))


@dataclass(frozen=True, slots=True)
class PriceBook:
    """All that is known of prices: the declared ones in the order in which they are asked, then the public list, then
    the declared ceiling for all that neither knows."""

    overrides: tuple[PriceOverride, ...] = ()
    fallback: PriceList | None = None
    ceiling: TokenPrice | None = None

    def price(self, model: str | None, at_ms: int, upstream: str = "", url: str = "") -> TokenPrice | None:
        """The price, or None: then nothing is known, which is not the same as free. A call without a model is only
        covered by the pattern ``*`` and by the ceiling. Does not raise."""
        for override in self.overrides:
            if override.covers(model or "", at_ms, upstream):
                return override.price
        found = self.fallback.price(model, at_ms, upstream, url) if model and self.fallback is not None else None
        return found or self.ceiling

    def at(self, upstream: str, url: str = "") -> "UpstreamPrices":
        """The prices of one upstream."""
        return UpstreamPrices(self, upstream, url)


@dataclass(frozen=True, slots=True)
class UpstreamPrices:
    """The book as one upstream sells. It is a ``gatekeeper.meters.Prices``."""

    book: PriceBook
    upstream: str
    url: str = ""

    def price(self, model: str | None, at_ms: int) -> TokenPrice | None:
        """The price of a model here, or None."""
        return self.book.price(model, at_ms, self.upstream, self.url)

    def cost(self, model: str, usage: Mapping[str, Any], at_ms: int) -> Decimal | None:
        """Dollars for a usage record; None without a price. Does not raise."""
        price = self.price(model, at_ms)
        return None if price is None else cost_dollars(price, usage)


def in_order(overrides: tuple[PriceOverride, ...]) -> tuple[PriceOverride, ...]:
    """The order in which a book asks: the most specific first, of equals the one that was written first."""
    return tuple(sorted(overrides, key=lambda override: override.rank))


def matches(pattern: str, name: str) -> bool:
    """Whether a name has the shape of a pattern, in linear time. ``*`` is any text, also none; case does not matter."""
    first, *rest = pattern.lower().split("*")
    name = name.lower()
    if not rest:
        return name == first
    *middle, last = rest
    at, end = len(first), len(name) - len(last)
    if at > end or not name.startswith(first) or not name.endswith(last):
        return False
    for piece in middle:
        found = name.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def _counts(usage: Mapping[str, Any]) -> dict[str, Decimal]:
    """The counts of a record that are numbers. What the provider says it bills (Cohere) beats what the model read."""
    counts = {name: found for name, value in usage.items() if (found := _number(value)) is not None}
    billed = usage.get("billed")
    if isinstance(billed, Mapping):
        for ours, theirs in (("input", "input_tokens"), ("output", "output_tokens")):
            found = _number(billed.get(theirs))
            if found is not None and "image_tokens" not in billed:
                counts[ours] = found
    return counts


def _number(value: object) -> Decimal | None:
    if type(value) is int:
        return Decimal(value) if 0 <= value <= _COUNT_WHOLE_MAX else None if value < 0 else _COUNT_MAX
    # A stored record writes fractions as text, so that no digit is lost.
    if isinstance(value, str) and not _FRACTION.fullmatch(value):
        return None
    if isinstance(value, bool) or not isinstance(value, int | Decimal | float | str):
        return None
    number = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return min(number, _COUNT_MAX) if number.is_finite() and number >= 0 else None


def _wholes(counts: Mapping[str, Decimal]) -> tuple[Decimal, Decimal, Decimal] | None:
    """Input, output, and what is neither for all that is known; None where no tokens were counted."""
    read, written, total = counts.get("input"), counts.get("output"), counts.get("total")
    if read is None and written is None:
        return None if total is None else (_ZERO, _ZERO, total)
    if total is None:
        return read or _ZERO, written or _ZERO, _ZERO
    if read is None:
        read = max(_ZERO, EXACT.subtract(total, written or _ZERO))
    if written is None:
        written = max(_ZERO, EXACT.subtract(total, read))
    return read, written, _ZERO


def _tokens_cost(
    price: TokenPrice, counts: Mapping[str, Decimal], wholes: tuple[Decimal, Decimal, Decimal]
) -> Decimal | None:
    read, written, neither = wholes
    rates = price.rates_for(EXACT.add(read, neither))
    if (read and rates.input is None) or (written and rates.output is None):
        return None
    if _PARTS.isdisjoint(counts) and not neither:
        # Most calls: two products instead of eight sums.
        whole = EXACT.add(EXACT.multiply(_rate(rates, "input"), read), EXACT.multiply(_rate(rates, "output"), written))
        return EXACT.divide(whole, Decimal(price.per))
    kept_hour = min(counts.get("cache_write_1h", _ZERO), counts.get("cache_write", _ZERO))
    amounts = {**counts, "cache_write_1h": kept_hour}
    amounts["cache_write"] = EXACT.subtract(counts.get("cache_write", _ZERO), kept_hour)
    total = EXACT.add(
        _whole_cost(read, rates, "input", INPUT_PARTS, amounts),
        _whole_cost(written, rates, "output", OUTPUT_PARTS, amounts),
    )
    if neither:
        dearest = max(_dearest(rates, ("input", *INPUT_PARTS)), _dearest(rates, ("output", *OUTPUT_PARTS)))
        total = EXACT.add(total, EXACT.multiply(neither, dearest))
    return EXACT.divide(total, Decimal(price.per))


def _whole_cost(
    count: Decimal, rates: Rates, whole: str, parts: tuple[str, ...], amounts: Mapping[str, Decimal]
) -> Decimal:
    """Each token once: the dearest parts first, as far as the whole reaches, the rest at the whole's own rate."""
    rest_rate = _rate(rates, whole)
    priced = [(_rate(rates, part), amounts[part]) for part in parts if amounts.get(part)]
    cost, left = _ZERO, count
    for rate, amount in sorted(priced, reverse=True):
        taken = min(amount, left)
        cost = EXACT.add(cost, EXACT.multiply(rate, taken))
        left = EXACT.subtract(left, taken)
    return EXACT.add(cost, EXACT.multiply(rest_rate, left))


def _rate(rates: Rates, name: str) -> Decimal:
    """The rate of a kind of tokens, or of what it is a part of."""
    own: Decimal | None = getattr(rates, name)
    if own is None and name == "cache_write_1h":
        own = rates.cache_write
    if own is None:
        own = rates.output if name in OUTPUT_PARTS else rates.input if name in INPUT_PARTS else None
    return _ZERO if own is None else own


def _dearest(rates: Rates, names: tuple[str, ...]) -> Decimal:
    return max(_rate(rates, name) for name in names)


def _nano_up(dollars: Decimal, per: int) -> int:
    nano = EXACT.divide(EXACT.multiply(dollars, Decimal(NANO_PER_DOLLAR)), Decimal(per))
    return int(nano.to_integral_value(rounding=ROUND_CEILING))


def _text(rates: Rates) -> dict[str, str]:
    found = {name: getattr(rates, name) for name in RATE_NAMES}
    return {name: plain(rate) for name, rate in found.items() if rate is not None}
