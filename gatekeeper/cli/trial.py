"""``gatekeeper try``: what a recorded response would be charged on each plan."""

import argparse
from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from gatekeeper.cli.meter import CHUNK_BYTES
from gatekeeper.cli.output import Unusable, add_command, add_json_flag, grouped, print_json, print_table
from gatekeeper.cli.recordings import add_recording_flags, read_recording, read_with, request_view
from gatekeeper.cli.settings import add_config_flag, read_gateway_or_shipped
from gatekeeper.config.gateway import Gateway
from gatekeeper.diagnostics import suggest
from gatekeeper.meters import Meter, Outcome, compile_meter
from gatekeeper.money import dollars_text, plain, units_to_micro
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.quotes import quote

USAGE = "usage().total"


@dataclass(frozen=True, slots=True)
class _Charge:
    """``dollars`` is None where the plan refuses the call, and where nothing was read."""

    plan: str
    dollars: str | None
    refused: bool
    why: str


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "try",
        "show what a recorded response would be charged",
        "Show what a recorded response would be charged on each plan, by the plans of gateway.toml (where there is\n"
        "none: by the plans that are shipped).",
    )
    parser.add_argument(
        "file", metavar="FILE", help="a response's body (.sse, .ndjson, .json, each also .gz); - is stdin"
    )
    parser.add_argument("--plan", metavar="PLAN", help="this plan only")
    parser.add_argument("--used", type=_units, default=Decimal(0), metavar="N", help="units used before, this period")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--route", metavar="NAME", help="use this route's meter")
    which.add_argument("--meter", metavar="EXPR", help=f"use this expression (default: {USAGE})")
    add_recording_flags(parser)
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def _units(text: str) -> Decimal:
    try:
        value = Decimal(text)
    except InvalidOperation as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from error
    if not value.is_finite() or not 0 <= value <= 10**12:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 0 and 10^12")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Prints the reading, then one line for each plan."""
    gateway = read_gateway_or_shipped(arguments)
    if arguments.plan is not None:
        _expect("plan", arguments.plan, gateway.plans)
    meter = _meter(arguments, gateway)
    request = request_view(arguments.request.read_bytes() if arguments.request else None)
    recording = read_recording(arguments.file, arguments.content_type, arguments.content_encoding, arguments.status)
    reading = read_with({"m": meter}, recording, request, Outcome.COMPLETE, CHUNK_BYTES, gateway.usage_shapes)["m"]
    plans = [plan for plan in gateway.plans.values() if arguments.plan in (None, plan.id)]
    charges = [_charge(plan, arguments.used, reading.units) for plan in plans]
    units = None if reading.units is None else plain(reading.units)
    if arguments.json:
        rows = [{"plan": each.plan, "charge": each.dollars, "refused": each.refused} for each in charges]
        print_json({"units": units, "source": reading.source, "note": reading.note, "charges": rows})
        return 0
    note = f" ({reading.note})" if reading.note else ""
    print(f"{meter.text}  ->  {'nothing' if units is None else grouped(units)}, {reading.source}{note}")
    print_table(
        ("PLAN", "CHARGE", "WHY"),
        ((each.plan, "-" if each.dollars is None else f"${each.dollars}", each.why) for each in charges),
    )
    return 0


def _expect(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise Unusable(f"there is no {kind} {name!r}; there are: {', '.join(sorted(known))}", suggest(name, known))


def _meter(arguments: argparse.Namespace, gateway: Gateway) -> Meter:
    if arguments.route is None:
        return compile_meter(arguments.meter or USAGE)
    routes = {route.name: route for route in gateway.router.routes}
    _expect("route", arguments.route, routes)
    return routes[arguments.route].meter


def _charge(plan: Plan, used: Decimal, units: Decimal | None) -> _Charge:
    found = quote(plan, units_to_micro(used), None if units is None else units_to_micro(units))
    dollars = None if found.charge_nano is None else dollars_text(found.charge_nano)
    return _Charge(plan.id, dollars, found.refused, found.why)
