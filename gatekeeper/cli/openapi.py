"""``gatekeeper openapi``: the document of the API, for generators of clients. It needs no configuration."""

import argparse

from gatekeeper.cli.output import add_command, print_json
from gatekeeper.web.openapi.document import document


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "openapi",
        "print the OpenAPI document of the API",
        "Print the OpenAPI 3.1 document of all URLs that programs use, as a gateway serves it at /admin/openapi.json.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the document."""
    print_json(document())
    return 0
