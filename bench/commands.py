"""What the commands beside the truthful provider have in common: their words, what they say, and what they print."""

import argparse
import json
import random
import sys
from datetime import UTC, datetime

from bench.chaos_audit import Report
from bench.machine import describe


def words(name: str, about: str | None) -> argparse.ArgumentParser:
    """The words that each of them takes."""
    made = argparse.ArgumentParser(prog=f"python -m bench.{name}", description=about)
    made.add_argument("--database", choices=("sqlite", "postgres"), default="sqlite")
    made.add_argument("--seed", type=int, help="of all that is left to chance (default: a new one)")
    made.add_argument("--json", action="store_true", help="print the results as JSON instead of the table")
    return made


def asked(made: argparse.ArgumentParser) -> argparse.Namespace:
    """What was asked for; ``seed`` is a number now, and was said."""
    found = made.parse_args()
    if found.seed is None:
        found.seed = random.SystemRandom().randrange(1 << 32)
    say(f"seed {found.seed}")
    return found


def say(text: str) -> None:
    """A line about what is going on."""
    print(text, file=sys.stderr, flush=True)


def printed(reports: list[Report], *, as_json: bool) -> int:
    """The tables, or one line of JSON; the exit code."""
    if as_json:
        found = [{"name": one.name, "figures": one.figures, "wrong": one.wrong} for one in reports]
        when = datetime.now(UTC).isoformat(timespec="seconds")
        print(json.dumps({"when": when, "machine": describe(), "reports": found}))
    else:
        for report in reports:
            print(f"\n{report.name}: {'WRONG' if report.wrong else 'ok'}")
            width = max(map(len, report.figures), default=0)
            for name, figure in report.figures.items():
                print(f"  {name:{width}}  {figure:,}" if isinstance(figure, int) else f"  {name:{width}}  {figure}")
            for said in report.wrong:
                print(f"  WRONG: {said}")
    return 1 if any(report.wrong for report in reports) else 0
