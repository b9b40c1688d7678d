"""``gatekeeper usage``: what a customer used in a period."""

import argparse

from gatekeeper.accounts import Accounts
from gatekeeper.cli.output import add_command, add_json_flag, print_json, print_table
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.money import dollars_text, units_text
from gatekeeper.ports import Customer, Store, UsageDay, UsageTotal
from gatekeeper.web.usage import period_bounds, total_json


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "usage", "show what a customer used")
    parser.add_argument("customer_id", metavar="CUSTOMER")
    parser.add_argument("--period", choices=("current_month", "last_30_days"))
    parser.add_argument("--start", metavar="YYYY-MM-DD", help="first day (UTC)")
    parser.add_argument("--end", metavar="YYYY-MM-DD", help="last day, inclusive")
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints one line a day, and the sum."""
    asked = {name: getattr(arguments, name) for name in ("period", "start", "end") if getattr(arguments, name)}
    start_ms, end_ms = period_bounds(asked, SystemClock().now_ms())

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> tuple[Customer, UsageTotal, list[UsageDay]]:
        customer = await accounts.customer(arguments.customer_id)
        total = await store.usage_total(start_ms, end_ms, customer_id=customer.id)
        return customer, total, list(await store.usage_by_day(start_ms, end_ms, customer_id=customer.id))

    customer, total, days = with_store(arguments, work)
    if arguments.json:
        rows = [{"day": day.day, **total_json(day.total)} for day in days]
        print_json({"customer": customer.id, "plan": customer.plan_id, **total_json(total), "days": rows})
    else:
        rows_shown = [*((day.day, day.total) for day in days), ("sum", total)]
        print_table(
            ("DAY", "REQUESTS", "UNITS", "OVERAGE $"),
            (
                (name, str(row.requests), units_text(row.units_micro), dollars_text(row.charge_nano))
                for name, row in rows_shown
            ),
        )
    return 0
