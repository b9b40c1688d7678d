"""``[[prices]]`` and ``[costs]``: what providers charge where the public price list is silent or wrong for you.

The rule: prices are dated and added, never edited. One without ``until`` ends where the next of its pattern begins; two
that say something about the same day are a slip.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import StrEnum
from importlib.util import find_spec
from itertools import pairwise

from gatekeeper.config.amounts import day, dollars, per
from gatekeeper.config.gateway import CostsConfig, Unpriced
from gatekeeper.config.kinds import choice, flag, text, whole, word
from gatekeeper.config.reading import Cell, Table, Wrong
from gatekeeper.diagnostics import suggest
from gatekeeper.rules.prices import (
    INPUT_PARTS,
    OUTPUT_PARTS,
    PER_TOKENS,
    RATE_NAMES,
    Origin,
    PriceOverride,
    Rates,
    Tier,
    TokenPrice,
    in_order,
)

_PATTERN = word(r"[^\x00-\x1f]{1,256}", "the name of a model, or a pattern: gpt-4o*")
_PER_HINT = 'every price names its per: per = "1M tokens"'
# No model reads more.
_TOKENS = whole(1, 100_000_000)


class UnpricedWord(StrEnum):
    """What ``unpriced`` may say in one word."""

    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(slots=True)
class _Written:
    table: Table
    override: PriceOverride


def read_prices(top: Table, upstreams: Collection[str]) -> tuple[PriceOverride, ...]:
    """``[[prices]]`` in the order in which a price book asks; to be used only if nothing in the file is wrong."""
    written = [_Written(table, _override(table, upstreams)) for table in top.tables("prices")]
    if not top.file.wrong:
        _date(written)
    return in_order(tuple(each.override for each in written))


def read_costs(table: Table) -> CostsConfig:
    """``[costs]``. ``unpriced`` is a word, or the table of a ceiling price."""
    cell = table.cell("unpriced")
    found = CostsConfig()
    if cell is not None and isinstance(cell.value, dict):
        ceiling = table.take("unpriced", _ceiling, None)
        found = CostsConfig(Unpriced.CEILING, ceiling)
    elif cell is not None:
        said = table.take("unpriced", _unpriced, UnpricedWord.REFUSE)
        found = CostsConfig(Unpriced(said.value))
    found = replace(found, tokenizer=table.take("tokenizer", _tokenizer, False))
    table.finish()
    return found


def _tokenizer(cell: Cell) -> bool:
    wanted = flag(cell)
    if wanted and find_spec("rs_bpe") is None:
        raise Wrong("counting tokens needs a package that is not installed", "pip install 'gatekeeper[tokenizer]'")
    return wanted


def _unpriced(cell: Cell) -> UnpricedWord:
    if not isinstance(cell.value, str):
        hint = 'unpriced = { input = "30", output = "180", per = "1M tokens" }'
        raise Wrong('"refuse", "allow" or the table of a price is expected here', hint)
    return choice(UnpricedWord)(cell)


def _ceiling(cell: Cell) -> TokenPrice:
    table = cell.table()
    for name in ("input", "output"):
        if not table.has(name):
            table.file.complain(table.path, f"{name!r} is missing here", "a ceiling is for all tokens", at_key=True)
    price = TokenPrice(
        model="*",
        origin=Origin.CEILING,
        rates=_rates(table),
        per=table.need("per", per, PER_TOKENS, _PER_HINT),
        request=table.take("request", dollars, None),
    )
    table.finish()
    return price


def _override(table: Table, upstreams: Collection[str]) -> PriceOverride:
    pattern = table.need("model", _PATTERN, "", 'model = "gpt-4o*"')
    upstream = table.take("upstream", lambda cell: _upstream(cell, upstreams), None)
    rates = _rates(table)
    price = TokenPrice(
        model=pattern,
        origin=Origin.TOML,
        rates=rates,
        per=table.take("per", per, PER_TOKENS),
        tiers=_tiers(table, rates),
        request=table.take("request", dollars, None),
        search=table.take("search", dollars, None),
        hour=table.take("hour", dollars, None),
        from_ms=table.take("from", day, None),
        until_ms=table.take("until", day, None),
        provider=upstream or "",
    )
    tokens = [name for name in RATE_NAMES if table.has(name)]
    if tokens and "per" not in table.values:
        table.file.complain(table.path, "'per' is missing here", _PER_HINT, at_key=True)
    if not tokens and not (table.has("request") or table.has("hour")):
        hint = 'input = "2.50", output = "10.00" and per = "1M tokens"'
        table.file.complain(table.path, "this price names no price", hint, at_key=True)
    if price.from_ms is not None and price.until_ms is not None and price.until_ms <= price.from_ms:
        table.file.complain(
            (*table.path, "until"), "this price ends before it begins", "until is the first day without it"
        )
    table.finish()
    return PriceOverride(pattern, price, upstream)


def _rates(table: Table) -> Rates:
    found: dict[str, Decimal | None] = {name: table.take(name, dollars, None) for name in RATE_NAMES}
    for whole_name, parts in (("input", INPUT_PARTS), ("output", OUTPUT_PARTS)):
        for part in parts:
            if table.has(part) and not table.has(whole_name):
                message = f"{part!r} is a part of the {whole_name}, which has no price here"
                table.file.complain((*table.path, part), message, f"name {whole_name} too", at_key=True)
    return Rates(**found)


def _tiers(table: Table, base: Rates) -> tuple[Tier, ...]:
    """``tiers = [{ above = 200_000, input = "6" }]``: what a tier does not name costs what it costs below."""
    found: list[Tier] = []
    for entry in table.tables("tiers"):
        above = entry.need("above", _TOKENS, 0, "above = 200_000")
        named = {name: rate for name in RATE_NAMES if (rate := entry.take(name, dollars, None)) is not None}
        for name in named:
            if getattr(base, name) is None:
                entry.file.complain((*entry.path, name), f"there is no {name} below this tier", at_key=True)
        if found and above <= found[-1].above:
            entry.file.complain((*entry.path, "above"), "tiers begin one above the other", "write the lowest first")
            above = found[-1].above
        entry.finish()
        found.append(Tier(above, replace(found[-1].rates if found else base, **named)))
    return tuple(found)


def _upstream(cell: Cell, upstreams: Collection[str]) -> str:
    name = text(cell)
    if name not in upstreams:
        raise Wrong(
            f"there is no upstream {name!r}", suggest(name, upstreams) or f"known: {', '.join(sorted(upstreams))}"
        )
    return name


def _date(written: list[_Written]) -> None:
    """Each price without an end ends where the next of its pattern begins; overlaps are complained about."""
    groups: dict[tuple[str, str | None], list[_Written]] = {}
    for each in written:
        groups.setdefault((each.override.pattern.lower(), each.override.upstream), []).append(each)
    for group in groups.values():
        group.sort(key=lambda each: _start(each.override))
        for before, after in pairwise(group):
            earlier, later = before.override.price, after.override.price
            starts = _start(after.override)
            ends = earlier.until_ms
            if starts == _start(before.override) or (ends is not None and starts < ends):
                _overlap(before.table, after.table)
            elif ends is None:
                before.override = replace(before.override, price=replace(earlier, until_ms=later.from_ms))


def _start(override: PriceOverride) -> float:
    return float("-inf") if override.price.from_ms is None else override.price.from_ms


def _overlap(before: Table, after: Table) -> None:
    line = before.file.line(before.path)
    key = "from" if "from" in after.values else "model"
    message = f"the price on line {line} is for the same models and some of the same days"
    hint = "from = 2026-07-01 says when a new price begins; until is the first day without it"
    after.file.complain((*after.path, key), message, hint)
