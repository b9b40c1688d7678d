"""``gatekeeper doctor``: whether the ledger adds up, asked of the database by SQL of its own.

The rule: it only reads, also while a gateway runs, and says each figure that it has looked at.
"""

import argparse

from gatekeeper.cli.output import add_command, add_json_flag, print_json, whole_number
from gatekeeper.cli.settings import add_config_flag, read_gateway, with_reader
from gatekeeper.clock import SystemClock
from gatekeeper.rules.diagnosis import Check, all_well
from gatekeeper.stores import SqlStore
from gatekeeper.web.health import Verdict, check_json, verdict


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "doctor",
        "check that the ledger adds up",
        "Check that the ledger adds up: nothing is held by nobody, every counter is the sum of its calls, what is\n"
        "owed is what was charged, batches for the biller are what is owed, and how many calls of each route were\n"
        "not measured. It only reads, also beside a gateway that runs. Exit code 1 where anything is wrong.",
    )
    parser.add_argument(
        "--days", type=whole_number(1, 36_500), default=30, metavar="N", help="of which routes are judged (default: 30)"
    )
    parser.add_argument(
        "--alarm",
        type=whole_number(0, 100),
        default=5,
        metavar="PERCENT",
        help="of a route's complete calls that may go unmeasured (default: 5)",
    )
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints one line for each check. Exit code 1 when one is wrong."""
    gateway = read_gateway(arguments)

    async def work(store: SqlStore) -> Verdict:
        return await verdict(store, gateway, SystemClock(), arguments.days, arguments.alarm)

    checks = with_reader(gateway, work, any_schema=True).checks
    if arguments.json:
        print_json({"ok": all_well(checks), "checks": [check_json(check) for check in checks]})
    else:
        _show(checks)
    return 0 if all_well(checks) else 1


def _show(checks: tuple[Check, ...]) -> None:
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.name.ljust(width)}  {'ok   ' if check.ok else 'WRONG'}  {check.said}")
        for odd in check.found.rows:
            print(f"{' ' * width}         {odd.place}: {odd.what}")
        more = check.found.total - len(check.found.rows)
        if more > 0 and check.found.rows:
            print(f"{' ' * width}         and {more} more")
    wrong = sum(not check.ok for check in checks)
    print(f"{wrong} of {len(checks)} checks are wrong." if wrong else f"All {len(checks)} checks are ok.")
