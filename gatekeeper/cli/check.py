"""``gatekeeper check``: read the whole configuration, execute its examples, and say everything that is wrong."""

import argparse
import asyncio
from decimal import Decimal
from pathlib import Path

from gatekeeper.cli.fuzz import fuzz
from gatekeeper.cli.output import add_command, add_json_flag, complain, print_json, rendered, whole_number
from gatekeeper.cli.recordings import Recording, read_with, request_view
from gatekeeper.cli.settings import add_config_flag, read_gateway, with_reader
from gatekeeper.config.gateway import Gateway, Route, RouteExample
from gatekeeper.diagnostics import Mistake, Mistakes
from gatekeeper.errors import Fault
from gatekeeper.meters import Outcome
from gatekeeper.money import amount_text, plain
from gatekeeper.rules.limits import Release, Scope
from gatekeeper.rules.overlays import Family, Overlay
from gatekeeper.stores import SqlStore
from gatekeeper.wire.shapes import Shape

# Small pieces, as a network would deliver them: the reading must not depend on it.
_CHUNK_BYTES = 7
# Where counter-examples are kept, to be replayed.
FUZZ_FOLDER = Path("gatekeeper-fuzz")
# Whoever checks a file does not wait for a database that is away.
_READ_WAIT_S = 3.0
_SHOWN_MAX = 20


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "check", "check the configuration, its expressions and its examples")
    add_config_flag(parser)
    add_json_flag(parser)
    parser.add_argument(
        "--fuzz", type=whole_number(1, 86_400), metavar="SECONDS", help="try every route's meter on made-up streams too"
    )
    parser.add_argument("--seed", type=whole_number(0, 2**32), metavar="N", help="repeat what --fuzz has tried")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit code 2 when anything is wrong; warnings alone are 0."""
    try:
        gateway = read_gateway(arguments)
    except Mistakes as mistakes:
        return _tell(mistakes.mistakes, arguments.json, "")
    failed = failed_examples(gateway)
    examples = sum(len(route.examples) for route in gateway.router.routes)
    examples += sum(len(plan.examples) for plan in gateway.plans.values())
    routes, plans = len(gateway.router.routes), len(gateway.plans)
    done = f"ok: {routes} routes, {plans} plans, {len(gateway.upstreams)} upstreams, {examples} examples executed"
    found = [] if arguments.fuzz is None else fuzz(gateway, arguments.fuzz, FUZZ_FOLDER, arguments.seed)
    for one in found:
        complain(one.text + "\n")
    overlays = overlays_of(gateway)
    code = _tell((*gateway.warnings, *failed), arguments.json, "" if failed or found else done, overlays)
    return 2 if found else code


def overlays_of(gateway: Gateway) -> tuple[Overlay, ...]:
    """The limits that operators have set over the files; none where there is no database to be read, because what is
    written can be checked without one."""

    async def work(store: SqlStore) -> tuple[Overlay, ...]:
        async with asyncio.timeout(_READ_WAIT_S):
            return (await store.limits_snapshot(0)).overlays

    try:
        return with_reader(gateway, work)
    except (Fault, OSError, ValueError):
        return ()


def _shown_overlay(overlay: Overlay) -> str:
    cap = "unlimited" if overlay.cap is None else amount_text(overlay.dimension, overlay.cap)
    whom = overlay.scope if overlay.scope is Scope.GLOBAL else f"{overlay.scope} {overlay.subject}"
    until = " until billing_period" if overlay.release is Release.BILLING_PERIOD else ""
    span = overlay.span if overlay.family is Family.STOCK else f"{overlay.span} ms"
    return f"  {overlay.id}  {whom}: {cap} {overlay.dimension} per {span} ({overlay.mode}{until}, {overlay.name})"


def _tell(mistakes: tuple[Mistake, ...], as_json: bool, done: str, overlays: tuple[Overlay, ...] = ()) -> int:
    errors = [mistake for mistake in mistakes if mistake.severity == "error"]
    if as_json:
        print_json(
            {
                "ok": not errors,
                "mistakes": [
                    {
                        "severity": one.severity,
                        "message": one.message,
                        "file": one.source.name,
                        "line": one.line,
                        "column": one.column,
                        "hint": one.hint,
                    }
                    for one in mistakes
                ],
                "overlays": [each.id for each in overlays],
            }
        )
        return 2 if errors else 0
    if mistakes:
        complain(rendered(mistakes) + "\n")
    if errors:
        complain(f"{len(errors)} mistake{'s' if len(errors) > 1 else ''}")
        return 2
    print(done)
    if overlays:
        print(f"{len(overlays)} limits were set by operators and beat what the files say ('gatekeeper limits list'):")
        for each in overlays[:_SHOWN_MAX]:
            print(_shown_overlay(each))
    return 0


def failed_examples(gateway: Gateway) -> tuple[Mistake, ...]:
    """The route examples that do not hold. (Plan examples are executed whenever a plan is read.)"""
    shapes = gateway.usage_shapes
    found = (_broken(route, example, shapes) for route in gateway.router.routes for example in route.examples)
    return tuple(mistake for mistake in found if mistake is not None)


def _broken(route: Route, example: RouteExample, shapes: tuple[Shape, ...]) -> Mistake | None:
    body = example.body
    if body is None:
        assert example.file is not None
        try:
            body = example.file.read_bytes()
        except OSError as error:
            return example.failed(f"the example's file cannot be read: {error.strerror}", f"it is {example.file}")
    recording = Recording("", body, example.content_type, example.content_encoding or "", example.status)
    request = request_view(example.request, example.method)
    reading = read_with({"meter": route.meter}, recording, request, Outcome.COMPLETE, _CHUNK_BYTES, shapes)["meter"]
    if reading.units != example.units:
        return example.failed(
            f"route {route.name!r}: the example is worth {_shown(example.units)}, the meter reads "
            f"{_shown(reading.units)} ({reading.source})",
            f"the meter is {route.meter.text}",
        )
    if example.mark is not None and reading.source is not example.mark:
        return example.failed(f"route {route.name!r}: the example is {example.mark}, the reading is {reading.source}")
    return None


def _shown(units: Decimal | None) -> str:
    return "nothing" if units is None else plain(units)
