"""Printing for people and for scripts. The rule: results on stdout, complaints on stderr, ``--json`` is one
value a line."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

from gatekeeper.diagnostics import Mistake
from gatekeeper.money import plain


class Unusable(Exception):
    """What was typed on the command line cannot be meant; the exit code is 2. ``hint`` says what to do."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        self.hint = hint
        super().__init__(message)


def complain(text: str) -> None:
    """To stderr."""
    print(text, file=sys.stderr)


def complain_with_hint(message: str, hint: str | None) -> None:
    """To stderr: what happened, and what to do."""
    complain(f"error: {message}" + (f"\nhint: {hint}" if hint else ""))


def rendered(mistakes: Iterable[Mistake]) -> str:
    """Every mistake with its place, a blank line between two. One of a whole file (it is missing) has no place."""
    return "\n\n".join(_without_place(one) if not one.source.text else one.render() for one in mistakes)


def _without_place(mistake: Mistake) -> str:
    text = f"{mistake.source.name}: {mistake.severity}: {mistake.message}"
    return text + (f"\n  hint: {mistake.hint}" if mistake.hint else "")


def _default(value: object) -> object:
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else plain(value)
    raise TypeError(type(value).__name__)


def print_json(value: Any) -> None:
    """One JSON value on one line, in ASCII, so that it is the same in every locale."""
    print(json.dumps(value, default=_default))


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Columns padded with blanks; figures to the right."""
    body = [tuple(row) for row in rows]
    widths = [max(len(line[column]) for line in (tuple(head), *body)) for column in range(len(head))]
    for line in (tuple(head), *body):
        cells = (
            cell.rjust(width) if _figure(cell) else cell.ljust(width) for cell, width in zip(line, widths, strict=True)
        )
        print("  ".join(cells).rstrip())


def _figure(cell: str) -> bool:
    return cell.removeprefix("$").replace(",", "").replace(".", "").isdigit()


def grouped(digits: str) -> str:
    """``1000000.5`` as people read it: ``1,000,000.5``."""
    whole, point, rest = digits.partition(".")
    return f"{int(whole):,}{point}{rest}"


def add_command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    description: str | None = None,
) -> argparse.ArgumentParser:
    """A command whose list entry and own --help say the same, unless there is more to say."""
    return commands.add_parser(
        name,
        help=text,
        description=description or f"{text[0].upper()}{text[1:]}.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def add_json_flag(parser: argparse.ArgumentParser) -> None:
    """``--json``, with one meaning everywhere."""
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")


def whole_number(least: int, most: int) -> Any:
    """An argparse type: a whole number between two bounds, both inclusive."""

    def read(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 18 or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return read


PORT = whole_number(0, 65_535)
STATUS = whole_number(100, 599)
