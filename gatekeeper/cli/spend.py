"""``gatekeeper spend``: what was used, charged and paid to providers, by day, model, route or customer."""

import argparse
from typing import Any

from gatekeeper.accounts import Accounts
from gatekeeper.cli.output import add_command, add_json_flag, print_json, print_table, whole_number
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import Store
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.spent import SpendBy
from gatekeeper.web.spend import read_scope, spend_report
from gatekeeper.web.usage import period_bounds

ROWS_MAX = 10_000


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "spend",
        "show what was used, charged and paid to providers",
        "Show what was used, charged by use and paid to providers in a period. The margin is the one less the other;\n"
        "monthly prices are not in it.",
    )
    parser.add_argument("--by", choices=[*SpendBy], default=SpendBy.DAY, help="what sums are told apart by")
    parser.add_argument("--scope", choices=[*Scope], help="only the calls of one subject of this scope")
    parser.add_argument("--subject", metavar="NAME", help="that subject; users and agents as customer/name")
    parser.add_argument("--period", choices=("current_month", "last_30_days"))
    parser.add_argument("--start", metavar="YYYY-MM-DD", help="first day (UTC)")
    parser.add_argument("--end", metavar="YYYY-MM-DD", help="last day, inclusive")
    parser.add_argument(
        "--limit", type=whole_number(1, ROWS_MAX), default=100, metavar="N", help="rows at most (default: 100)"
    )
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints a line for each part, and the sum of the period."""
    named = {name: getattr(arguments, name) for name in ("scope", "subject") if getattr(arguments, name)}
    scope, subject = read_scope(named)
    asked = {name: getattr(arguments, name) for name in ("period", "start", "end") if getattr(arguments, name)}
    now_ms = SystemClock().now_ms()
    start_ms, end_ms = period_bounds(asked, now_ms)
    by = SpendBy(arguments.by)

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> dict[str, Any]:
        return await spend_report(store, scope, subject, by, start_ms, end_ms, now_ms, arguments.limit)

    found = with_store(arguments, work)
    if arguments.json:
        print_json({"scope": scope, "subject": subject or None, **found})
        return 0
    rows = [*((row[by.value], row) for row in found["rows"]), ("sum", found["total"])]
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
            for part, row in rows
        ),
    )
    hour = found["rate"]["last_hour"]
    print(f"In the last hour: {hour['requests']} requests, {hour['units']} units, cost ${hour['cost']}.")
    if found["total"]["unpriced_requests"]:
        print(f"{found['total']['unpriced_requests']} requests have no known cost; they count as $0.")
    return 0
