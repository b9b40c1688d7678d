"""One file of plans/ -> Plan. The file's name is the plan's id.

The rule: money is a whole number or a string, never a TOML float, and every price names its "per".
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import PurePath

from gatekeeper.config.amounts import dollars, per, unit_cap, zone
from gatekeeper.config.examples import fail_examples
from gatekeeper.config.failover import chains
from gatekeeper.config.kinds import choice, figure, flag, text, whole
from gatekeeper.config.limits import check_windows, complain_of_twins, read_rate, read_stock, soft_at
from gatekeeper.config.reading import Cell, Table, TomlFile, Wrong
from gatekeeper.diagnostics import Severity, suggest
from gatekeeper.money import MICRO_PER_UNIT, Price, dollars_text, units_to_micro
from gatekeeper.rules.declared import EACH, DeclaredLimit, DeclaredRate
from gatekeeper.rules.limits import UNITS, Mode, Release, Scope, StockLimit, Window
from gatekeeper.rules.plans import DISABLE, Example, Plan

# A million is the quantity that provider price lists are written in, so people compare plans there.
COMPARED_UNITS = 1_000_000

_PLAN_ID = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class Exhausted(StrEnum):
    """What happens when a plan's quota is used up."""

    BLOCK = "block"
    OVERAGE = "overage"
    SOFT = "soft"


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


def check_on_cancel(plans: Mapping[str, Plan], files: Mapping[str, TomlFile]) -> None:
    """Whether each plan that customers move to at the end of a subscription exists, and costs nothing.

    ``files`` holds each plan's file by the plan's id; one that is wrong exists all the same.
    """
    for plan in plans.values():
        name = plan.on_cancel
        if name is None or name == DISABLE:
            continue
        file = files[plan.id]
        if name not in files:
            hint = suggest(name, files) or f'a plan, or "{DISABLE}", which turns the customer\'s keys off'
            file.complain(("on_cancel",), f"there is no plan {name!r}", hint)
        elif name in plans and plans[name].monthly_price:
            hint = f'name a plan without a monthly price, or "{DISABLE}"'
            file.complain(("on_cancel",), f"nobody pays for {name!r} once the subscription has ended", hint)


def _on_cancel(cell: Cell) -> str:
    name = text(cell)
    if not _PLAN_ID.fullmatch(name):
        raise Wrong(f"{name!r} cannot be a plan's id", f'the name of a file in plans/, or "{DISABLE}"')
    return name


def _plan(top: Table, plan_id: str) -> Plan:
    name = top.take("name", text, plan_id)
    monthly = top.need("monthly_price", dollars, Decimal(0), 'dollars a month: monthly_price = "29.50"')
    quota = top.take("quota", _quota, None)
    overage = top.take("overage", _overage, None)
    limits = [(table, read_stock(table, None)) for table in top.tables("limits")]
    rates = [(table, read_rate(table, None)) for table in top.tables("rates")]
    declared: list[DeclaredLimit | DeclaredRate] = [*(each for _, each in limits), *(each for _, each in rates)]
    plan = Plan(
        id=plan_id,
        name=name,
        monthly_price=monthly,
        quota=quota,
        overage=overage,
        limits=tuple(each.limit for _, each in limits),
        rates=tuple(each.limit for _, each in rates),
        clamp_output=top.take("clamp_output", flag, False),
        stripe_price=top.take("stripe_price", text, None),
        metered_price=top.take("metered_price", text, None),
        examples=tuple(_example(entry) for entry in top.tables("example")),
        downgrade=top.take("downgrade", chains, ()),
        on_cancel=top.take("on_cancel", _on_cancel, None),
        # Stripe's bound, for trial_period_days.
        trial_days=top.take("trial_days", whole(0, 730), 0),
        subjects=tuple((each.limit.name, each.subject) for each in declared if each.subject != EACH),
    )
    _overage_fits(top, quota, overage)
    # A wrong limit stands as a placeholder that could look like another one.
    if not top.file.wrong:
        complain_of_twins([*limits, *rates], "of this plan", () if quota is None else (DeclaredLimit(quota),))
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


def _quota(cell: Cell) -> StockLimit:
    table = cell.table()
    mode = table.take("when_used", choice(Exhausted), Exhausted.BLOCK)
    limit = StockLimit(
        name="quota",
        scope=Scope.CUSTOMER,
        dimension=UNITS,
        window=table.take("window", choice(Window), Window.MONTH),
        cap=table.need("units", unit_cap, 0, 'a number, or "unlimited"; 0 means none'),
        mode=Mode(mode.value),
        zone=table.take("zone", zone, "UTC"),
        soft_at=soft_at(table, soft=mode is Exhausted.SOFT),
        release=table.take("release", choice(Release), Release.WINDOW),
    )
    check_windows(table, limit)
    table.finish()
    return limit


def _overage(cell: Cell) -> Price:
    table = cell.table()
    price = table.need("price", dollars, Decimal(0), 'dollars, as a string: price = "0.002"')
    quantity = table.need("per", per, 1, 'every price names its per: per = "1K tokens"')
    table.finish()
    return Price(price, quantity)


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
