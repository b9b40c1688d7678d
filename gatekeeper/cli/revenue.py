"""``gatekeeper revenue``: what comes in by use and by monthly prices, what providers take, and what is left."""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

from gatekeeper.accounts import Accounts
from gatekeeper.cli.output import add_command, add_json_flag, print_json, print_table, whole_number
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.money import dollars_text, dollars_to_nano
from gatekeeper.ports import Store
from gatekeeper.rules.limits import Scope
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.spent import SpendBy, Spent
from gatekeeper.web.spend import spent_json
from gatekeeper.web.usage import day_of, period_bounds

_BY = (SpendBy.DAY, SpendBy.PLAN, SpendBy.MODEL)


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "revenue",
        "show revenue and margin by day, plan or model",
        "Show what was charged by use, what providers took, and the margin, by day, plan or model. Beside it stand\n"
        "the monthly prices of all customers as they are now: these come once a billing period, whatever is used.",
    )
    parser.add_argument("--by", choices=_BY, default=SpendBy.DAY, help="what sums are told apart by (default: day)")
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

    async def work(
        store: Store, accounts: Accounts, gateway: Gateway
    ) -> tuple[Sequence[Spent], Spent, list[dict[str, Any]]]:
        rows = await store.spend_by(by, Scope.GLOBAL, "", start_ms, end_ms, limit=arguments.limit)
        total = await store.spend_total(Scope.GLOBAL, "", start_ms, end_ms)
        return rows, total, monthly_prices(gateway.plans, await store.customers_by_plan())

    rows, total, monthly = with_store(arguments, work)
    if arguments.json:
        print_json(
            {
                "period_start": day_of(start_ms),
                "period_end": day_of(end_ms - 1),
                "by": by,
                "rows": [{by.value: row.part, **spent_json(row)} for row in rows],
                "total": spent_json(total),
                "monthly": monthly,
            }
        )
        return 0
    shown = [*((row.part, spent_json(row)) for row in rows), ("sum", spent_json(total))]
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
    if total.unpriced:
        print(f"{total.unpriced} requests have no known cost; they count as $0.")
    for one in monthly:
        price = "?" if one["monthly_price"] is None else one["monthly_price"]
        print(f"Monthly prices: {one['customers']} on {one['plan']} at ${price} are ${one['total'] or '?'}.")
    return 0


def monthly_prices(plans: Mapping[str, Plan], customers: Mapping[str, int]) -> list[dict[str, Any]]:
    """What the customers of each plan pay a month; None for a plan that is not on sale any more."""
    found = []
    for plan_id, count in customers.items():
        plan = plans.get(plan_id)
        price = None if plan is None else dollars_to_nano(plan.monthly_price)
        found.append(
            {
                "plan": plan_id,
                "customers": count,
                "monthly_price": None if price is None else dollars_text(price),
                "total": None if price is None else dollars_text(price * count),
            }
        )
    return found
