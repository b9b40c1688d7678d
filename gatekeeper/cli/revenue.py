"""``gatekeeper revenue``: what comes in by use and by monthly prices, what providers take, and what is left."""

import argparse
from typing import Any

from gatekeeper.accounts import Accounts
from gatekeeper.cli.output import add_command, add_json_flag, print_json, print_table, whole_number
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import Store
from gatekeeper.rules.spent import SpendBy
from gatekeeper.web.revenue import BY, revenue_report
from gatekeeper.web.usage import period_bounds


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "revenue",
        "show revenue and margin by day, plan, model, customer or route",
        "Show what was charged by use, what providers took, and the margin, told apart by one thing. Beside it stand\n"
        "the monthly prices of all customers as they are now: these come once a billing period, whatever is used.",
    )
    parser.add_argument("--by", choices=BY, default=SpendBy.DAY, help="what sums are told apart by (default: day)")
    parser.add_argument("--period", choices=("current_month", "last_30_days"))
    parser.add_argument("--start", metavar="YYYY-MM-DD", help="first day (UTC)")
    parser.add_argument("--end", metavar="YYYY-MM-DD", help="last day, inclusive")
    parser.add_argument(
        "--limit", type=whole_number(1, 10_000), default=100, metavar="N", help="rows at most (default: 100)"
    )
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each part, the sum, and the monthly prices."""
    asked = {name: getattr(arguments, name) for name in ("period", "start", "end") if getattr(arguments, name)}
    start_ms, end_ms = period_bounds(asked, SystemClock().now_ms())
    by = SpendBy(arguments.by)

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> dict[str, Any]:
        return await revenue_report(store, gateway.plans, by, start_ms, end_ms, arguments.limit)

    told = with_store(arguments, work)
    if arguments.json:
        print_json(told)
        return 0
    shown = [*((row[by.value], row) for row in told["rows"]), ("sum", told["total"])]
    print_table(
        (by.upper(), "REQUESTS", "UNITS", "CHARGE $", "COST $", "MARGIN $"),
        (
            (
                "-" if part is None else str(part),
                str(row["requests"]),
                row["units"],
                row["charge"],
                row["cost"],
                row["margin"],
            )
            for part, row in shown
        ),
    )
    if told["total"]["unpriced_requests"]:
        print(f"{told['total']['unpriced_requests']} requests have no known cost; they count as $0.")
    for one in told["monthly"]:
        price = "?" if one["monthly_price"] is None else one["monthly_price"]
        print(f"Monthly prices: {one['customers']} on {one['plan']} at ${price} are ${one['total'] or '?'}.")
    return 0
