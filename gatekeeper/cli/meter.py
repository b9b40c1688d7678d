"""``gatekeeper meter``: try an expression before it bills anyone. Its output is stable: scripts rely on it."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gatekeeper.cli.history import kept_history
from gatekeeper.cli.output import Unusable, add_command, add_json_flag, complain, print_json, rendered, whole_number
from gatekeeper.cli.recordings import Recording, add_recording_flags, feed, read_recording, request_view
from gatekeeper.diagnostics import Mistake, Severity
from gatekeeper.meters import FUNCTIONS, NAMES, Context, Meter, Outcome, Reading, RequestView, check_expression
from gatekeeper.meters.watching import Watching
from gatekeeper.money import plain

CHUNK_BYTES = 64 * 1024
PROMPT = "meter> "


@dataclass(frozen=True, slots=True)
class _Over:
    """What expressions are evaluated over, read once. Without a stream: one empty body."""

    request: RequestView
    recordings: tuple[Recording, ...]
    outcome: Outcome
    chunk_bytes: int


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "meter",
        "evaluate a metering expression over a recorded response",
        "Evaluate a metering expression over recorded responses, exactly as a route would.\n"
        "Without an expression: a prompt, that takes any expression (a text, a list, an event).",
    )
    parser.add_argument("expression", metavar="EXPR", nargs="?", help="the expression; without it, a prompt")
    parser.add_argument(
        "--stream", action="append", metavar="FILE", help="the response's body; '-' is stdin; may be given many times"
    )
    add_recording_flags(parser)
    parser.add_argument("--outcome", choices=[outcome.value for outcome in Outcome], default="complete", metavar="O",
                        help=f"how the call ended: {', '.join(Outcome)} (default: %(default)s)")  # fmt: skip
    parser.add_argument(
        "--chunk",
        type=whole_number(1, 2**30),
        default=CHUNK_BYTES,
        metavar="BYTES",
        help="feed pieces of this size (default: %(default)s); the reading is the same for each",
    )
    parser.add_argument(
        "--explain",
        action="store_true",
        help="show the tree with phases and slots, and what each slot saw in which event",
    )
    add_json_flag(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Evaluates; exit code 2 for a mistake in an expression."""
    if arguments.expression is None:
        return _prompt(arguments)
    meter = _checked(arguments.expression, Context.METER, arguments.json)
    if meter is None:
        return 2
    _evaluate(meter, _read(arguments), arguments)
    return 0


def _read(arguments: argparse.Namespace) -> _Over:
    if (arguments.stream or []).count("-") > 1:
        raise Unusable("stdin can be read once only", "give '--stream -' once")
    request = request_view(arguments.request.read_bytes() if arguments.request else None)
    recordings = tuple(
        read_recording(name, arguments.content_type, arguments.content_encoding, arguments.status)
        for name in arguments.stream or ()
    )
    empty = Recording("", b"", "", "", arguments.status)
    return _Over(request, recordings or (empty,), Outcome(arguments.outcome), arguments.chunk)


def _checked(text: str, context: Context, as_json: bool) -> Meter | None:
    """The meter, or None after its mistakes were told. Warnings are told too."""
    meter, mistakes = check_expression(text, context=context)
    if meter is None and as_json:
        first = next(mistake for mistake in mistakes if mistake.severity is Severity.ERROR)
        print_json({"mistake": _mistake_json(first)})
    elif mistakes:
        complain(rendered(mistakes))
    return meter


def _evaluate(meter: Meter, over: _Over, arguments: argparse.Namespace) -> None:
    many = len(over.recordings) > 1
    for recording in over.recordings:
        name = recording.name if many else None
        watching = Watching({"m": meter}, over.request)
        reading = feed(watching, recording, over.outcome, over.chunk_bytes)["m"]
        if arguments.json:
            _show_json(reading, name, (meter, watching) if arguments.explain else None)
            continue
        if arguments.explain:
            streamed = bool(arguments.stream)
            print(meter.explain(watching.seen["m"] if streamed else ()))
            told = (
                f"{recording.name}: {watching.events} event{'' if watching.events == 1 else 's'}, " if streamed else ""
            )
            print(f"\n{told}source {reading.source}")
        _show(reading, name)


def _show_json(reading: Reading, name: str | None, explained: tuple[Meter, Watching] | None) -> None:
    shown: dict[str, Any] = {} if name is None else {"stream": name}
    shown |= {
        "units": None if reading.units is None else plain(reading.units),
        "source": reading.source,
        "note": reading.note,
        "slots": reading.evidence,
    }
    if reading.value is not None:
        shown["value"] = _bare(reading)
    if explained is not None:
        meter, watching = explained
        shown["explain"] = meter.explain()
        shown["events"] = watching.events
        shown["saw"] = {plan.key: seen.plain() for plan, seen in zip(meter.plans, watching.seen["m"], strict=True)}
    print_json(shown)


def _show(reading: Reading, name: str | None) -> None:
    number = reading.units is not None and reading.value is not None and set(reading.value) == {"value"}
    if reading.value is not None and not number:
        print_json(_bare(reading) if name is None else {"stream": name, "value": _bare(reading)})
    else:
        units = "null" if reading.units is None else plain(reading.units)
        print(units if name is None else f"{units}  {name}")
    if reading.source != "measured":
        about = "" if name is None else f"{name}: "
        complain(f"{about}source: {reading.source}" + (f" ({reading.note})" if reading.note else ""))


def _bare(reading: Reading) -> Any:
    """A record as it is; any other value (only the prompt gives one) out of the wrapping that makes it a map."""
    assert reading.value is not None
    return reading.value["value"] if set(reading.value) == {"value"} else reading.value


def _mistake_json(mistake: Mistake) -> dict[str, Any]:
    return {"message": mistake.message, "line": mistake.line, "column": mistake.column, "hint": mistake.hint}


def _prompt(arguments: argparse.Namespace) -> int:
    """Read, check, evaluate, print, until the end of input. Fed by a pipe it prints results only, and its exit code is
    2 if any line was a mistake."""
    if "-" in (arguments.stream or ()):
        raise Unusable("the prompt and '--stream -' cannot both read stdin", "give EXPR, or name a file")
    over = _read(arguments)
    wrong = False
    for line in _typed() if sys.stdin.isatty() else sys.stdin:
        if not line.strip():
            continue
        meter = _checked(line.rstrip("\n"), Context.TRIAL, arguments.json)
        if meter is None:
            wrong = True
        else:
            _evaluate(meter, over, arguments)
    return 2 if wrong and not sys.stdin.isatty() else 0


def _typed() -> Iterator[str]:
    """Lines that a person types, with history and completion where the platform has them."""
    with contextlib.suppress(ImportError):
        import readline

        names = sorted({function.name for function in FUNCTIONS} | set(NAMES))
        readline.set_completer(lambda text, state: [*(n for n in names if n.startswith(text)), None][state])
        readline.parse_and_bind("tab: complete")
    print("An expression a line; TAB completes names; Ctrl-D ends.")
    with kept_history():
        while True:
            try:
                yield input(PROMPT)
            except EOFError:
                print()
                return
