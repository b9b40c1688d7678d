"""``gatekeeper plans``: what is sold."""

import argparse

from gatekeeper.cli.output import add_command, add_json_flag, grouped, print_json, print_table
from gatekeeper.cli.settings import add_config_flag, read_gateway_or_shipped
from gatekeeper.money import plain, units_text
from gatekeeper.rules.plans import Plan
from gatekeeper.web.admin import plan_json

_PER = {1: "unit", 1_000: "1K units", 1_000_000: "1M units"}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "plans", "show the plans of the configuration")
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints one line for each plan."""
    plans = read_gateway_or_shipped(arguments).plans.values()
    if arguments.json:
        print_json([plan_json(plan) for plan in plans])
    else:
        print_table(("ID", "NAME", "PER MONTH", "INCLUDED", "THEN", "PER MINUTE"), (_row(plan) for plan in plans))
    return 0


def _row(plan: Plan) -> tuple[str, ...]:
    quota = plan.quota
    included = "unlimited" if quota is None or quota.cap is None else grouped(units_text(quota.cap))
    then = "blocked"
    if plan.overage is not None:
        then = f"${plain(plan.overage.dollars)} per {_PER.get(plan.overage.per, grouped(str(plan.overage.per)))}"
    elif quota is None or quota.cap is None:
        then = "-"
    everybodys = [rate for rate in plan.rates if plan.named(rate) is None]
    rate = next((grouped(units_text(rate.cap)) for rate in everybodys if rate.per_ms == 60_000), "unlimited")
    return (plan.id, plan.name, f"${grouped(plain(plan.monthly_price))}", included, then, rate)
