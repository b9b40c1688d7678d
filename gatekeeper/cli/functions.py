"""``gatekeeper functions``: the registry of the metering language, as it is."""

import argparse

from gatekeeper.cli.output import Unusable, add_command, add_json_flag, print_json
from gatekeeper.diagnostics import suggest
from gatekeeper.meters import FUNCTIONS


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "functions", "list the functions of the metering language")
    parser.add_argument("name", metavar="NAME", nargs="?", help="this one only, with examples")
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints all functions, or one with its examples."""
    names = [function.name for function in FUNCTIONS]
    if arguments.name is not None and arguments.name not in names:
        near = suggest(arguments.name, names)
        raise Unusable(f"there is no function {arguments.name!r}", near or "'gatekeeper functions' lists them")
    found = [function for function in FUNCTIONS if arguments.name in (None, function.name)]
    if arguments.json:
        print_json(
            [
                {
                    "name": function.name,
                    "signature": function.signature,
                    "meaning": function.sentence,
                    "examples": [
                        {"expression": each.expression, "result": each.result, "body": each.body}
                        for each in function.examples
                    ],
                }
                for function in found
            ]
        )
        return 0
    for function in found:
        print(f"{function.signature}\n    {function.sentence}")
        if arguments.name is not None:
            for example in function.examples:
                over = "" if example.body is None else f"    over {example.body!r}"
                print(f"    {example}{over}")
    return 0
