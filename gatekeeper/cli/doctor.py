"""``gatekeeper doctor``: whether the ledger adds up, asked of the database by SQL of its own.

The rule: it only reads, also while a gateway runs, and says each figure that it has looked at.
"""

import argparse
from typing import Any

from gatekeeper.cli.output import add_command, add_json_flag, print_json, whole_number
from gatekeeper.cli.settings import add_config_flag, read_gateway, with_reader
from gatekeeper.clock import SystemClock
from gatekeeper.rules.billing import BACKLOG_BOUND_MS
from gatekeeper.rules.diagnosis import Check, Figures, all_well, check_schema, diagnose
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.stores import SqlStore

SHOWN_MAX = 20


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
    clock = SystemClock()
    grace_ms = int(gateway.ledger.hold_ttl_s * 1000)

    async def work(store: SqlStore) -> tuple[tuple[int, int], Figures | None]:
        schema = await store.schema()
        if not check_schema(*schema).ok:
            return schema, None
        now_ms = clock.now_ms()
        # After an outage of the database the sweeper itself waits for one whole expiry.
        since_ms = now_ms - arguments.days * DAY_MS
        # Where nobody is told, all of it waits, and that is no mistake.
        unbilled_ms = now_ms - BACKLOG_BOUND_MS if gateway.stripe.reports else 0
        return schema, await store.figures(since_ms, now_ms - grace_ms, unbilled_ms=unbilled_ms, limit=SHOWN_MAX)

    schema, figures = with_reader(gateway, work, any_schema=True)
    checks: tuple[Check, ...] = (check_schema(*schema),)
    if figures is not None:
        checks += diagnose(figures, clock.now_ms(), arguments.alarm)
    if arguments.json:
        print_json({"ok": all_well(checks), "checks": [_json(check) for check in checks]})
    else:
        _show(checks)
    return 0 if all_well(checks) else 1


def _json(check: Check) -> dict[str, Any]:
    rows = [{"place": odd.place, "what": odd.what} for odd in check.found.rows]
    return {"name": check.name, "ok": check.ok, "said": check.said, "figures": check.figures, "found": rows}


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
