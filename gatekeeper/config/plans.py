"""One file of plans/ -> Plan. The file's name is the plan's id.

The rule: money is a whole number or a string, never a TOML float, and every price names its "per".
"""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePath
from zoneinfo import ZoneInfo

from gatekeeper.config.examples import fail_examples
from gatekeeper.config.kinds import choice, figure, flag, text, word
from gatekeeper.config.reading import Cell, Table, TomlFile, Wrong
from gatekeeper.diagnostics import Severity
from gatekeeper.money import MICRO_PER_UNIT, Price, dollars_text, units_to_micro
from gatekeeper.rules.limits import REQUESTS, UNITS, Mode, RateLimit, Scope, StockLimit, Window
from gatekeeper.rules.plans import Example, Plan

UNLIMITED = "unlimited"
# A million is the quantity that provider price lists are written in, so people compare plans there.
COMPARED_UNITS = 1_000_000

_PER = re.compile(r"(\d{1,9})\s*([KM]?)\s+(?:tokens?|units?)")
_SCALE = {"": 1, "K": 1_000, "M": 1_000_000}
_NAME = word(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "1 to 64 letters, digits, '.', '_' or '-'")
_PLAN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Exhausted(StrEnum):
    """What happens when a plan's quota is used up."""

    BLOCK = "block"
    OVERAGE = "overage"


class Per(StrEnum):
    """The spans of time that a rate limit may name."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"


class LimitMode(StrEnum):
    """What a further limit of a plan does when it is reached: refuse, or only count and show."""

    BLOCK = "block"
    WARN = "warn"


# A billion dollars still fits the ledger's 64 bits as nano-dollars.
_DOLLARS = figure("a price", 10**9)
_PER_MS = {Per.SECOND: 1_000, Per.MINUTE: 60_000, Per.HOUR: 3_600_000}


def read_plan(text: str, filename: str) -> tuple[Plan | None, TomlFile]:
    """The plan with its examples executed, and the file with what was found wrong. None if that is an error."""
    file = TomlFile(text, filename)
    if file.broken:
        return None, file
    plan_id = PurePath(filename).stem
    if not _PLAN_ID.fullmatch(plan_id):
        file.complain((), f"{plan_id!r} cannot be a plan's id", "name the file in lower case: starter.toml")
    plan = _plan(file.top(), plan_id)
    if not file.wrong:
        fail_examples(plan, file)
    return (None if file.wrong else plan), file


def warn_of_dear_overage(plans: Mapping[str, Plan], files: Mapping[str, TomlFile]) -> None:
    """Warn of plans that cost more at a million units than the next plan up: is their price's "per" right?

    ``files`` holds each plan's file by the plan's id.
    """
    compared = COMPARED_UNITS * MICRO_PER_UNIT
    for plan in plans.values():
        dearer = [other for other in plans.values() if other.monthly_price > plan.monthly_price]
        if plan.overage is None or not plan.admits(compared) or not dearer:
            continue
        up = min(dearer, key=lambda other: (other.monthly_price, other.id))
        here, there = plan.period_charge_nano(compared), up.period_charge_nano(compared)
        if not up.admits(compared) or here <= there:
            continue
        message = (
            f"{COMPARED_UNITS:,} units a period cost ${dollars_text(here)} on {plan.id!r} "
            f"and ${dollars_text(there)} on the next plan, {up.id!r}"
        )
        million = dollars_text(plan.overage.charge_nano(compared))
        hint = f"above the quota this price is ${million} per 1M tokens: is its 'per' right?"
        files[plan.id].complain(("overage", "price"), message, hint, severity=Severity.WARNING)


def _plan(top: Table, plan_id: str) -> Plan:
    name = top.take("name", text, plan_id)
    monthly = top.need("monthly_price", _DOLLARS, Decimal(0), 'dollars a month: monthly_price = "29.50"')
    quota = top.take("quota", _quota, None)
    overage = top.take("overage", _overage, None)
    limits = [(table, _limit(table)) for table in top.tables("limits")]
    rates = [(table, _rate(table)) for table in top.tables("rates")]
    plan = Plan(
        id=plan_id,
        name=name,
        monthly_price=monthly,
        quota=quota,
        overage=overage,
        limits=tuple(limit for _, limit in limits),
        rates=tuple(rate for _, rate in rates),
        clamp_output=top.take("clamp_output", flag, False),
        stripe_price=top.take("stripe_price", text, None),
        metered_price=top.take("metered_price", text, None),
        examples=tuple(_example(entry) for entry in top.tables("example")),
    )
    _overage_fits(top, quota, overage)
    # A wrong limit stands as a placeholder that could look like another one.
    if not top.file.wrong:
        _distinct([*limits, *rates], quota)
    top.finish()
    return plan


def _overage_fits(top: Table, quota: StockLimit | None, overage: Price | None) -> None:
    priced = quota is not None and quota.mode is Mode.OVERAGE
    if priced and "overage" not in top.values:
        hint = 'add [overage] with price = "0.002" and per = "1K tokens", or block'
        top.file.complain(("quota", "when_used"), "overage has no price", hint)
    if overage is not None and "quota" not in top.values:
        top.file.complain(("overage",), "there is no quota that this could be above", "add a [quota]")
    elif overage is not None and quota is not None and not priced:
        hint = 'write when_used = "overage" in [quota], or take [overage] away'
        top.file.complain(("overage",), "the quota blocks, so nothing is ever charged at this price", hint)
    if priced and quota is not None and quota.cap is None:
        top.file.complain(("quota", "units"), "nothing lies above an unlimited quota", "name what the price includes")


def _distinct(limits: Sequence[tuple[Table, StockLimit | RateLimit]], quota: StockLimit | None) -> None:
    """Names tell limits apart for people, and what they count tells their rows apart in the ledger."""
    names = {"quota"}
    counted = set() if quota is None else {_row(quota)}
    for table, limit in limits:
        if limit.name in names or _row(limit) in counted:
            counts = f"{limit.dimension} of one {limit.scope} in the same time"
            what = f"counts the {counts}" if _row(limit) in counted else f"is named {limit.name!r}"
            table.file.complain(
                table.path, f"another limit of this plan {what}", "keep the one that is meant", at_key=True
            )
        names.add(limit.name)
        counted.add(_row(limit))


def _row(limit: StockLimit | RateLimit) -> tuple[str, str, str | int]:
    return limit.scope, limit.dimension, limit.window if isinstance(limit, StockLimit) else limit.per_ms


def _quota(cell: Cell) -> StockLimit:
    table = cell.table()
    mode = table.take("when_used", choice(Exhausted), Exhausted.BLOCK)
    limit = StockLimit(
        name="quota",
        scope=Scope.CUSTOMER,
        dimension=UNITS,
        window=table.take("window", choice(Window), Window.MONTH),
        cap=table.need("units", _cap, 0, 'a number, or "unlimited"; 0 means none'),
        mode=Mode(mode.value),
        zone=table.take("zone", _zone, "UTC"),
    )
    table.finish()
    return limit


def _overage(cell: Cell) -> Price:
    table = cell.table()
    price = table.need("price", _DOLLARS, Decimal(0), 'dollars, as a string: price = "0.002"')
    per = table.need("per", _per, 1, 'every price names its per: per = "1K tokens"')
    table.finish()
    return Price(price, per)


def _limit(table: Table) -> StockLimit:
    dimension, cap = _dimension(table)
    window = table.need("window", choice(Window), Window.DAY, 'as in "day" or "billing_period"')
    scope = table.take("scope", choice(Scope), Scope.CUSTOMER)
    limit = StockLimit(
        name=table.take("name", _NAME, f"{scope.value}-{dimension}-{window.value}"),
        scope=scope,
        dimension=dimension,
        window=window,
        cap=cap,
        mode=Mode(table.take("mode", choice(LimitMode), LimitMode.BLOCK).value),
        zone=table.take("zone", _zone, "UTC"),
    )
    table.finish()
    return limit


def _rate(table: Table) -> RateLimit:
    dimension, cap = _dimension(table)
    per = table.take("per", choice(Per), Per.MINUTE)
    scope = table.take("scope", choice(Scope), Scope.CUSTOMER)
    if cap is None or cap == 0:
        table.file.complain(
            (*table.path, dimension), "a rate limit is a number above 0", "take the [[rates]] away instead"
        )
    limit = RateLimit(
        name=table.take("name", _NAME, f"{scope.value}-{dimension.replace(':', '-')}-per-{per.value}"),
        scope=scope,
        dimension=dimension,
        cap=cap or MICRO_PER_UNIT,
        per_ms=_PER_MS[per],
    )
    table.finish()
    return limit


def _dimension(table: Table) -> tuple[str, int | None]:
    """What is counted and how much of it, from the one of the keys ``units`` and ``requests`` that is there."""
    found = {key: table.take(key, _cap, 0) for key in (UNITS, REQUESTS) if table.has(key)}
    if len(found) != 1:
        hint = "units = 10_000, or requests = 60"
        table.file.complain(table.path, "a limit counts either units or requests", hint, at_key=True)
        return UNITS, 1
    return next(iter(found.items()))


def _cap(cell: Cell) -> int | None:
    """Units (or requests) as millionths; None for the word ``unlimited``."""
    if isinstance(cell.value, str) and not cell.value[:1].isdigit():
        if cell.value == UNLIMITED:
            return None
        raise Wrong(f"{cell.value!r} is no number of units", f'a number, or "{UNLIMITED}"; 0 means none')
    return units_to_micro(figure("a number of units")(cell))


def _per(cell: Cell) -> int:
    if isinstance(cell.value, int) and not isinstance(cell.value, bool):
        raise Wrong("a price's per names what it counts", f'write "{cell.value} tokens"')
    written = text(cell)
    found = _PER.fullmatch(written)
    if found is None or int(found[1]) == 0:
        raise Wrong(f"{written!r} is no quantity that a price can be per", '"1 token", "1K tokens" or "1M tokens"')
    return int(found[1]) * _SCALE[found[2]]


def _zone(cell: Cell) -> str:
    written = text(cell)
    try:
        ZoneInfo(written)
    except (ValueError, OSError, KeyError):
        raise Wrong(f"{written!r} is no known time zone", 'as in "UTC" or "Europe/Berlin"') from None
    return written


def _example(table: Table) -> Example:
    units = table.need("units", figure("a number of units"), Decimal(0))
    charge: Decimal | None = table.take("charge", figure("a charge"), None)
    refused = table.take("refused", flag, False)
    if table.has("charge") == refused:
        hint = 'charge = "29.002" or refused = true'
        message = "an example says either what is charged or that it is refused"
        table.file.complain(table.path, message, hint, at_key=True)
    example = Example(units_to_micro(units), None if refused else charge, table.take("name", text, ""))
    table.finish()
    return example
