"""``gatekeeper operators``: who may come into the dashboard and the admin API."""

import argparse
import datetime as dt

from gatekeeper.accounts import Accounts
from gatekeeper.assembly import make_signins
from gatekeeper.cli.deeds import deed
from gatekeeper.cli.output import add_command, add_json_flag, print_json, print_table
from gatekeeper.cli.settings import add_config_flag, home_of, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.people.operators import Operators
from gatekeeper.ports import Store
from gatekeeper.ports.people import Login, Role
from gatekeeper.web.people import link_url, operator_json

PAGE = 500


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "operators", "who may come into the dashboard: add, list, link, disable")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    add = add_command(actions, "add", "make an operator, and print a link by which he chooses a password")
    add.add_argument("email", metavar="EMAIL")
    roles = [role.value for role in Role]
    add.add_argument("--role", choices=roles, default=Role.VIEWER.value, help="what he may do (default: %(default)s)")
    add.set_defaults(run=_add)
    listing = add_command(actions, "list", "list operators")
    listing.set_defaults(run=_list)
    link = add_command(actions, "link", "print a link that lets an operator in once, to choose a password")
    link.add_argument("email", metavar="EMAIL")
    link.set_defaults(run=_link)
    for name, text in (("disable", "sign an operator out everywhere, for good"), ("enable", "let him in again")):
        action = add_command(actions, name, text)
        action.add_argument("email", metavar="EMAIL")
        action.set_defaults(run=_set_disabled, disabled=name == "disable")
    for action in actions.choices.values():
        add_config_flag(action)
        add_json_flag(action)


def _add(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> tuple[Login, str]:
        operators = _operators(store, gateway)
        async with deed(store, "operators add", email=arguments.email, role=arguments.role) as doing:
            made = await operators.add(arguments.email, Role(arguments.role))
            doing.note({"subject": made.id})
            return made, link_url(home_of(gateway), await operators.link(made))

    _show_link(*with_store(arguments, work), arguments.json)
    return 0


def _link(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> tuple[Login, str]:
        operators = _operators(store, gateway)
        found = await operators.by_email(arguments.email)
        async with deed(store, "operators link", found.id, email=found.email):
            return found, link_url(home_of(gateway), await operators.link(found))

    _show_link(*with_store(arguments, work), arguments.json)
    return 0


def _list(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> list[Login]:
        operators, found = _operators(store, gateway), list[Login]()
        while page := await operators.listed(after=found[-1].id if found else "", limit=PAGE):
            found += page
        return found

    _show(with_store(arguments, work), arguments.json)
    return 0


def _set_disabled(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Login:
        operators = _operators(store, gateway)
        before = await operators.by_email(arguments.email)
        async with deed(store, f"operators {arguments.action}", before.id, email=before.email):
            return await operators.change(before, disabled=arguments.disabled)

    found = with_store(arguments, work)
    if arguments.json:
        print_json(operator_json(found))
    else:
        _show([found], as_json=False)
    return 0


def _operators(store: Store, gateway: Gateway) -> Operators:
    clock = SystemClock()
    return Operators(store, make_signins(gateway, store, clock), clock)


def _show_link(login: Login, url: str, as_json: bool) -> None:
    if as_json:
        print_json({**operator_json(login), "link": url})
    else:
        print(f"{login.email} ({login.role}) signs in once with this link, within an hour, and chooses a password:")
        print(url)


def _show(logins: list[Login], as_json: bool) -> None:
    if as_json:
        print_json([operator_json(login) for login in logins])
        return
    print_table(
        ("ID", "EMAIL", "ROLE", "LAST SIGNED IN", "STATE"),
        ((row.id, row.email, str(row.role), _when(row.last_ms), _state(row)) for row in logins),
    )


def _when(ms: int | None) -> str:
    return "never" if ms is None else dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M")


def _state(login: Login) -> str:
    if login.disabled_ms is not None:
        return "disabled"
    return "active" if login.password is not None else "no password yet"
