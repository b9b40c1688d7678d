"""``gatekeeper customers`` and ``gatekeeper keys``."""

import argparse
import datetime as dt
import re

from gatekeeper.accounts import Accounts, KeyWish, NewKey
from gatekeeper.cli.deeds import deed
from gatekeeper.cli.output import add_command, add_json_flag, print_json, print_table
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Customer, Key, Store
from gatekeeper.web.admin import customer_json, key_json

PAGE = 500
_UNITS_MS = {"m": 60_000, "h": 3_600_000, "d": 86_400_000}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds both commands."""
    _add_customers(add_command(commands, "customers", "create, list and change customers"))
    _add_keys(add_command(commands, "keys", "create, list and revoke API keys"))


def _add_customers(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = add_command(actions, "create", "make a customer")
    create.add_argument("name", help="the customer's name")
    create.add_argument("--id", dest="customer_id", help="an id of your own (default: one is made)")
    create.add_argument("--plan", help="the plan (default: [keys] default_plan)")
    create.add_argument("--email")
    create.set_defaults(run=_create_customer)
    listing = add_command(actions, "list", "list customers")
    listing.set_defaults(run=_list_customers)
    plan = add_command(actions, "set-plan", "put a customer on another plan, at once")
    plan.add_argument("customer_id", metavar="CUSTOMER")
    plan.add_argument("plan", metavar="PLAN")
    plan.set_defaults(run=_set_plan)
    for name, text in (("disable", "refuse every call of a customer"), ("enable", "admit a customer again")):
        action = add_command(actions, name, text)
        action.add_argument("customer_id", metavar="CUSTOMER")
        action.set_defaults(run=_set_disabled, disabled=name == "disable")
    for action in actions.choices.values():
        add_config_flag(action)
        add_json_flag(action)


def _add_keys(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    create = add_command(actions, "create", "make a key; it is shown this once")
    create.add_argument("customer_id", metavar="CUSTOMER")
    create.add_argument("--name", default="", help="to tell keys apart")
    create.add_argument("--expires", metavar="WHEN", help="a day (2027-01-31) or a span (30d, 12h)")
    create.add_argument("--route", action="append", metavar="NAME", help="only this route (may be repeated)")
    create.add_argument("--model", action="append", metavar="PATTERN", help="only these models, as 'gpt-4o*'")
    create.add_argument("--user", help="calls with this key belong to this user")
    create.add_argument("--agent", help="calls with this key belong to this agent")
    create.add_argument("--may-assert", action="store_true", help="believe X-User-Id and X-Agent-Id of its calls")
    create.set_defaults(run=_create_key)
    listing = add_command(actions, "list", "list keys")
    listing.add_argument("customer_id", metavar="CUSTOMER", nargs="?")
    listing.set_defaults(run=_list_keys)
    revoke = add_command(actions, "revoke", "refuse a key from now on")
    revoke.add_argument("key_id", metavar="KEY_ID")
    revoke.set_defaults(run=_revoke_key)
    for action in actions.choices.values():
        add_config_flag(action)
        add_json_flag(action)


def parse_expiry(text: str, now_ms: int) -> int:
    """``2027-01-31`` (its first instant, UTC) or a span such as ``30d``. Raises Refusal."""
    span = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if span:
        return now_ms + int(span[1]) * _UNITS_MS[span[2]]
    try:
        day = dt.date.fromisoformat(text)
    except ValueError as error:
        raise Refusal(Code.BAD_REQUEST, f"{text!r} is neither a day (2027-01-31) nor a span (30d, 12h).") from error
    return int(dt.datetime(day.year, day.month, day.day, tzinfo=dt.UTC).timestamp()) * 1000


def _create_customer(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Customer:
        async with deed(store, "customers create") as doing:
            made = await accounts.create_customer(
                arguments.name, plan_id=arguments.plan, customer_id=arguments.customer_id, email=arguments.email
            )
            doing.note({"subject": made.id, "after": customer_json(made)})
            return made

    _show_customers([with_store(arguments, work)], arguments.json, one=True)
    return 0


def _list_customers(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> list[Customer]:
        found: list[Customer] = []
        while page := await store.customers(after=found[-1].id if found else "", limit=PAGE):
            found += page
        return found

    _show_customers(with_store(arguments, work), arguments.json)
    return 0


def _set_plan(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Customer:
        async with deed(store, "customers set-plan", arguments.customer_id, plan=arguments.plan):
            return await accounts.set_plan(arguments.customer_id, arguments.plan)

    _show_customers([with_store(arguments, work)], arguments.json, one=True)
    return 0


def _set_disabled(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Customer:
        async with deed(store, f"customers {arguments.action}", arguments.customer_id):
            return await accounts.set_disabled(arguments.customer_id, arguments.disabled)

    _show_customers([with_store(arguments, work)], arguments.json, one=True)
    return 0


def _show_customers(customers: list[Customer], as_json: bool, *, one: bool = False) -> None:
    if as_json:
        rows = [customer_json(customer) for customer in customers]
        print_json(rows[0] if one else rows)
        return
    print_table(
        ("ID", "NAME", "PLAN", "STATE"),
        ((row.id, row.name, row.plan_id, "disabled" if row.disabled_ms is not None else "active") for row in customers),
    )


def _create_key(arguments: argparse.Namespace) -> int:
    expires_ms = parse_expiry(arguments.expires, SystemClock().now_ms()) if arguments.expires else None
    wish = KeyWish(
        name=arguments.name,
        expires_ms=expires_ms,
        routes=arguments.route,
        models=arguments.model,
        user_id=arguments.user,
        agent_id=arguments.agent,
        may_assert=arguments.may_assert,
    )

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> NewKey:
        async with deed(store, "keys create", arguments.customer_id) as doing:
            made = await accounts.create_key(arguments.customer_id, wish)
            doing.note({"subject": made.key.id, "after": key_json(made.key)})
            return made

    made = with_store(arguments, work)
    if arguments.json:
        print_json({**key_json(made.key), "key": made.secret})
    else:
        print(f"{made.key.id} of {made.key.customer_id}; this is the only time that the key is shown:")
        print(made.secret)
    return 0


def _list_keys(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> list[Key]:
        if arguments.customer_id is not None:
            await accounts.customer(arguments.customer_id)
        found: list[Key] = []
        while page := await store.keys(arguments.customer_id, after=found[-1].id if found else "", limit=PAGE):
            found += page
        return found

    keys = with_store(arguments, work)
    if arguments.json:
        print_json([key_json(key) for key in keys])
    else:
        print_table(
            ("ID", "CUSTOMER", "NAME", "KEY", "LAST USED", "STATE"),
            (
                (key.id, key.customer_id, key.name, key.shown + "...", _when(key.last_used_ms), _state(key))
                for key in keys
            ),
        )
    return 0


def _revoke_key(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Key:
        async with deed(store, "keys revoke", arguments.key_id):
            return await accounts.revoke_key(arguments.key_id)

    key = with_store(arguments, work)
    if arguments.json:
        print_json(key_json(key))
    else:
        print(f"{key.id} is revoked; it is refused everywhere within a second.")
    return 0


def _when(ms: int | None) -> str:
    return "never" if ms is None else dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")


def _state(key: Key) -> str:
    if key.revoked_ms is not None:
        return "revoked"
    if key.expires_ms is not None and key.expires_ms <= SystemClock().now_ms():
        return "expired"
    return "active"
