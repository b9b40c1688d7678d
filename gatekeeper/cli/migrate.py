"""``gatekeeper migrate``: bring the database to the present schema."""

import argparse

from gatekeeper.accounts import Accounts
from gatekeeper.cli.output import add_command
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import Store


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "migrate", "bring the database to the present schema (serve does so too)")
    add_config_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Opening a store migrates it; this says so in a command of its own, for deployments that want the step."""

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> None:
        await store.ping()

    with_store(arguments, work)
    print("The database is at the present schema.")
    return 0
