"""The command line: words a person types. Each command lives in its own module and adds its parser here.

Exit codes: 0 done (also a server that was told to stop); 1 it could not be done (there is no such customer, the world
failed); 2 a mistake in what was written, in a file or on the command line; 130 interrupted.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from gatekeeper.cli import (
    accounts,
    check,
    demo,
    doctor,
    events,
    explain,
    functions,
    init,
    invoice,
    limits,
    meter,
    migrate,
    openapi,
    operators,
    outbox,
    plans,
    revenue,
    serve,
    simulate,
    spend,
    stripe,
    trial,
    usage,
)
from gatekeeper.cli.output import Unusable, complain, complain_with_hint, rendered
from gatekeeper.diagnostics import Mistakes
from gatekeeper.errors import Code, Fault, FaultKind, Refusal
from gatekeeper.version import __version__

COMMANDS = (
    serve,
    demo,
    init,
    check,
    meter,
    functions,
    trial,
    accounts,
    operators,
    plans,
    usage,
    limits,
    spend,
    invoice,
    revenue,
    outbox,
    stripe,
    events,
    explain,
    simulate,
    doctor,
    migrate,
    openapi,
)


def build_parser() -> argparse.ArgumentParser:
    """The whole command line; also read by the tests that hold the README against it."""
    parser = argparse.ArgumentParser(
        prog="gatekeeper",
        description="A streaming proxy that meters, limits and bills LLM APIs.",
        epilog="Start with 'gatekeeper demo', or 'gatekeeper init' and 'gatekeeper serve'.",
    )
    parser.add_argument("--version", action="version", version=f"gatekeeper {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        module.add_parser(commands)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
        sys.stdout.flush()
    except Mistakes as mistakes:
        complain(rendered(mistakes.mistakes))
        return 2
    except Unusable as unusable:
        complain_with_hint(str(unusable), unusable.hint)
        return 2
    except Refusal as refusal:
        unknown = "'gatekeeper customers list' and 'gatekeeper keys list' show what there is"
        complain_with_hint(refusal.public, refusal.hint or (unknown if refusal.code is Code.NOT_FOUND else None))
        return 2 if refusal.code is Code.BAD_REQUEST else 1
    except Fault as fault:
        complain_with_hint(*_explained(fault))
        return 1
    except BrokenPipeError:
        # `gatekeeper ... | head`: the reader has seen enough; nothing more may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        complain(f"error: {place}{error.strerror or error}")
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _explained(fault: Fault) -> tuple[str, str | None]:
    if fault.kind is not FaultKind.STORE:
        return str(fault), None
    message = str(fault).removeprefix(f"{fault.world}: {fault.kind}: ")
    return (
        f"the database cannot be used: {message}",
        "DATABASE_URL, else [database] url in gateway.toml, says where it is",
    )


if __name__ == "__main__":
    sys.exit(main())
