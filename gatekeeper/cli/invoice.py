"""``gatekeeper invoice``: what one billing period of a customer comes to, line by line, before the biller says so."""

import argparse
import datetime as dt

from gatekeeper.accounts import Accounts
from gatekeeper.cli.output import Unusable, add_command, add_json_flag, grouped, print_json, print_table
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.money import dollars_text, nano_to_dollars, rounded, units_text
from gatekeeper.ports import Customer, Store
from gatekeeper.rules.limits import Window
from gatekeeper.rules.statements import Statement, statement
from gatekeeper.rules.windows import DAY_MS, window_bounds

CURRENT = "current"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "invoice",
        "show what a customer's billing period comes to",
        "Show what a customer's billing period comes to: the monthly price, what it includes, and what is charged\n"
        "above it, by route and model. Exact to a nano-dollar, worked out from the records; prorations, taxes and\n"
        "discounts are the biller's. Exit code 1 where the records do not add up to what the plan says.",
    )
    parser.add_argument("customer_id", metavar="CUSTOMER")
    parser.add_argument(
        "--period",
        default=CURRENT,
        metavar="YYYY-MM-DD",
        help="the billing period that begins on this day (UTC), or contains it; default: the current one",
    )
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the statement."""
    at_ms = _instant(arguments.period)

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Statement:
        return await statement_of(store, gateway, await accounts.customer(arguments.customer_id), at_ms)

    found = with_store(arguments, work)
    if arguments.json:
        print_json(statement_json(found))
    else:
        show_statement(found)
    return 0 if found.agrees else 1


async def statement_of(store: Store, gateway: Gateway, customer: Customer, at_ms: int) -> Statement:
    """The billing period of a customer that an instant lies in."""
    plan = gateway.plans.get(customer.plan_id)
    zone = "UTC" if plan is None or plan.quota is None else plan.quota.zone
    start_ms, end_ms = window_bounds(Window.BILLING_PERIOD, at_ms, zone=zone, anchor_ms=customer.anchor_ms)
    assert end_ms is not None
    lines = await store.statement_lines(customer.id, start_ms, end_ms)
    told = await store.statement_batches(customer.id, start_ms)
    return statement(customer.id, customer.plan_id, plan, (start_ms, end_ms), lines, told)


def statement_json(found: Statement) -> dict[str, object]:
    """A statement for machines: amounts are exact decimals, as text."""
    return {
        "customer_id": found.customer_id,
        "plan": found.plan_id,
        "period_start_ms": found.start_ms,
        "period_end_ms": found.end_ms,
        "monthly_price": dollars_text(found.fee_nano),
        "included_units": None if found.included_micro is None else units_text(found.included_micro),
        "used_units": units_text(found.used_micro),
        "overage_units": units_text(found.overage_micro),
        "overage": dollars_text(found.overage_nano),
        "total": dollars_text(found.total_nano),
        "total_cents": _cents(found.total_nano),
        "agrees": found.agrees,
        "lines": [
            {
                "plan": line.plan_id,
                "route": line.route,
                "model": line.model,
                "requests": line.requests,
                "units": units_text(line.units_micro),
                "charge": dollars_text(line.charge_nano),
            }
            for line in found.lines
        ],
        "told_units": {state: str(units) for state, units in found.told.items()},
    }


def show_statement(found: Statement) -> None:
    """A statement for people."""
    print(f"{found.customer_id}, plan {found.plan_id}, from {_when(found.start_ms)} to {_when(found.end_ms)} (UTC)\n")
    print_table(
        ("PLAN", "ROUTE", "MODEL", "REQUESTS", "UNITS", "OVERAGE $"),
        (
            (
                line.plan_id,
                line.route,
                line.model or "-",
                str(line.requests),
                grouped(units_text(line.units_micro)),
                dollars_text(line.charge_nano),
            )
            for line in found.lines
        ),
    )
    included = "unlimited" if found.included_micro is None else grouped(units_text(found.included_micro))
    print(f"\nUsed {grouped(units_text(found.used_micro))} units; {included} are included.")
    print(f"Monthly price      ${dollars_text(found.fee_nano)}")
    print(f"Overage            ${dollars_text(found.overage_nano)}  ({grouped(units_text(found.overage_micro))} units)")
    cents = _cents(found.total_nano)
    print(f"Total              ${dollars_text(found.total_nano)}  (an invoice rounds it to {cents} cents)")
    if found.told:
        told = ", ".join(f"{grouped(str(units))} {state}" for state, units in found.told.items())
        print(f"Told to the biller: {told} units.")
    if not found.agrees:
        assert found.expected_nano is not None
        print(f"WRONG: the plan makes ${dollars_text(found.expected_nano)} of it. See 'gatekeeper doctor'.")


def _cents(nano: int) -> int:
    return rounded(nano_to_dollars(nano), 100)


def _instant(period: str) -> int:
    """The last millisecond of that day: a period that begins on it has begun by then."""
    if period == CURRENT:
        return SystemClock().now_ms()
    try:
        day = dt.date.fromisoformat(period)
        if not 1970 <= day.year <= 9998:
            raise ValueError
    except ValueError:
        raise Unusable(f"{period!r} is no day", 'as in 2026-06-15, or "current"') from None
    return (day - dt.date(1970, 1, 1)).days * DAY_MS + DAY_MS - 1


def _when(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")
