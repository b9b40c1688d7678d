"""``gatekeeper limits``: the limits that stand, and how an operator sets, removes and resets them."""

import argparse
from dataclasses import asdict
from typing import Any

from gatekeeper.cli.deeds import deed
from gatekeeper.cli.output import Unusable, add_command, add_json_flag, print_json, print_table
from gatekeeper.cli.settings import add_config_flag, with_limits
from gatekeeper.clock import SystemClock
from gatekeeper.config.limits import LimitMode
from gatekeeper.overlays import Limits, Wish, read_scope
from gatekeeper.ports import Store
from gatekeeper.rules.declared import EACH
from gatekeeper.rules.limits import DOLLARS, REQUESTS, SCOPES, UNITS, CounterKey, Release, Scope, Window
from gatekeeper.rules.overlays import Standing
from gatekeeper.web.budgets import budget_json, found_limits, limit_states, parse_cap

_PER_MS = {"second": 1_000, "minute": 60_000, "hour": 3_600_000}
Row = tuple[Standing, dict[str, Any] | None]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "limits",
        "list, set, remove and reset limits",
        "List the limits that stand, and set, remove or reset them while the gateway runs. What is set here beats\n"
        "gateway.toml until it is removed; every process follows within half a second.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "list limits, with where they come from and what is used")
    listing.add_argument("--scope", choices=[*SCOPES], metavar="SCOPE", help="only limits of this scope")
    listing.add_argument("--subject", metavar="NAME", help="what holds for this one (needs --scope)")
    listing.set_defaults(run=_list)
    _add_set(add_command(actions, "set", "set a limit, or change one that was set"))
    remove = add_command(actions, "remove", "take a limit away that was set; what the files say holds again")
    remove.add_argument("limit_id", metavar="ID")
    remove.set_defaults(run=_remove)
    reset = add_command(actions, "reset", "begin the count of one subject anew; what was used stays on record")
    reset.add_argument("limit_id", metavar="ID")
    reset.add_argument("--subject", metavar="NAME", help="whose count, where the limit counts each by itself")
    reset.add_argument("--reason", default="", metavar="TEXT", help="kept with the reset")
    reset.set_defaults(run=_reset)
    for action in actions.choices.values():
        add_config_flag(action)
        add_json_flag(action)


def _add_set(parser: argparse.ArgumentParser) -> None:
    several = "two of them with a comma between: user,model"
    parser.add_argument(
        "--scope", choices=[*SCOPES], metavar="SCOPE", required=True, help=f"one of {', '.join(Scope)}; or {several}"
    )
    meant = "whom it means (default: each by itself); of two scopes both, as in each,gpt-4o"
    parser.add_argument("--subject", default=EACH, metavar="NAME", help=meant)
    caps = parser.add_mutually_exclusive_group(required=True)
    for name in (UNITS, REQUESTS, DOLLARS):
        caps.add_argument(f"--{name}", metavar="N", help='how many, or "unlimited"')
    parser.add_argument("--meter", metavar="NAME", help="count the units of this meter")
    spans = parser.add_mutually_exclusive_group(required=True)
    spans.add_argument("--window", choices=[*Window], help="count over this")
    spans.add_argument("--per", choices=[*_PER_MS], help="a rate")
    parser.add_argument("--mode", choices=[*LimitMode], help="what happens when it is reached (default: block)")
    parser.add_argument("--zone", metavar="NAME", help="the time zone of the window (default: UTC)")
    parser.add_argument(
        "--release", choices=[*Release], help="when it opens again once it was hit (default: with its window)"
    )
    parser.add_argument("--name", metavar="NAME", help="to tell limits apart")
    parser.set_defaults(run=_set)


def _list(arguments: argparse.Namespace) -> int:
    if arguments.subject is not None and arguments.scope is None:
        raise Unusable("--subject needs --scope", f"one of {', '.join(Scope)}")

    async def work(store: Store, limits: Limits) -> list[Row]:
        scope = None if arguments.scope is None else read_scope(arguments.scope)
        found = await found_limits(limits, scope, arguments.subject)
        return await _with_states(store, limits, found, arguments.subject)

    _show(with_limits(arguments, work), arguments.json)
    return 0


def _set(arguments: argparse.Namespace) -> int:
    dimension, written = next(
        (name, getattr(arguments, name)) for name in (UNITS, REQUESTS, DOLLARS) if getattr(arguments, name) is not None
    )
    if arguments.meter is not None and dimension != UNITS:
        raise Unusable(f"a meter counts units, not {dimension}", "write --units N")
    wish = Wish(
        scope=arguments.scope,
        dimension=f"{UNITS}:{arguments.meter}" if arguments.meter is not None else dimension,
        cap=parse_cap(dimension, written.replace("_", "")),
        subject=arguments.subject,
        window=arguments.window,
        per_ms=None if arguments.per is None else _PER_MS[arguments.per],
        mode=arguments.mode,
        zone=arguments.zone,
        name=arguments.name,
        release=arguments.release,
    )

    async def work(store: Store, limits: Limits) -> list[Row]:
        async with deed(store, "limits set", asked=asdict(wish)) as doing:
            found = await limits.put(wish)
            doing.note({"subject": found.id})
        return await _with_states(store, limits, [found], None)

    _show(with_limits(arguments, work), arguments.json, one=True)
    return 0


def _remove(arguments: argparse.Namespace) -> int:
    async def work(store: Store, limits: Limits) -> Standing | None:
        async with deed(store, f"limits {arguments.action}", arguments.limit_id):
            return await limits.remove(arguments.limit_id)

    left = with_limits(arguments, work)
    if arguments.json:
        print_json({"removed": arguments.limit_id, "holds": None if left is None else budget_json(left)})
    elif left is None:
        print(f"{arguments.limit_id} is removed; nothing holds in its place.")
    else:
        print(f"{arguments.limit_id} is removed; what the {left.declared.origin} says holds again:")
        _show([(left, None)], as_json=False)
    return 0


def _reset(arguments: argparse.Namespace) -> int:
    async def work(store: Store, limits: Limits) -> CounterKey:
        facts = {"of": arguments.subject, "reason": arguments.reason}
        async with deed(store, "limits reset", arguments.limit_id, **facts):
            return await limits.reset(arguments.limit_id, arguments.subject, arguments.reason)

    key = with_limits(arguments, work)
    if arguments.json:
        print_json({"id": arguments.limit_id, "subject": key.subject, "reset_ms": key.start_ms})
    else:
        print(f"{arguments.limit_id}: the {key.dimension} of {key.scope} {key.subject} count from 0 again.")
    return 0


async def _with_states(store: Store, limits: Limits, found: list[Standing], subject: str | None) -> list[Row]:
    states = await limit_states(limits, store, found, SystemClock().now_ms(), subject)
    return list(zip(found, states, strict=True))


def _show(rows: list[Row], as_json: bool, *, one: bool = False) -> None:
    if as_json:
        told = [budget_json(found) | {"state": state} for found, state in rows]
        print_json(told[0] if one else told)
        return
    print_table(
        ("ID", "NAME", "WHOM", "CAP", "OF", "MODE", "FROM", "USED"),
        (_cells(budget_json(found), state) for found, state in rows),
    )


def _cells(told: dict[str, Any], state: dict[str, Any] | None) -> tuple[str, ...]:
    whom = told["scope"] if told["scope"] == Scope.GLOBAL else f"{told['scope']} {told['subject']}"
    per = told["window"] if "window" in told else f"{told['per_ms'] // 1000} s"
    used = "" if state is None else state.get("used", state.get("spent", ""))
    where = f"plan {told['plan']}" if told["plan"] else told["from"]
    cap = "unlimited" if told["cap"] is None else told["cap"]
    mode = told["mode"]
    if told.get("release") == Release.BILLING_PERIOD:
        mode = f"{mode} until billing_period"
        used = f"{used} (closed)" if state is not None and state.get("closed_until_ms") else used
    return told["id"], told["name"], whom, cap, f"{told['dimension']} per {per}", mode, where, used
