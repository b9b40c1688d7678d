"""``gatekeeper simulate``: yesterday's real usage under tomorrow's plans and meters, customer by customer.

The rule: it only reads. Records are taken page by page; what is kept of each customer is a few sums a period.
"""

import argparse
import datetime as dt
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gatekeeper.cli.output import Unusable, add_command, add_json_flag, complain, print_json, print_table
from gatekeeper.cli.settings import add_config_flag, read_gateway, with_reader
from gatekeeper.config import load_gateway
from gatekeeper.config.gateway import Route
from gatekeeper.config.plans import read_plan
from gatekeeper.diagnostics import Mistake, Mistakes, Severity, suggest
from gatekeeper.explanation import again_on, instant
from gatekeeper.money import dollars_text, units_text
from gatekeeper.ports import Entry
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.remeter import RECOVERED
from gatekeeper.rules.simulate import Past, Replay, Replayed, Terms, lead_ms
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.stores import SqlStore

# A record is about a kilobyte, more where its meter has read much.
PAGE = 1_000
_FOR_EVER_MS = 2**62


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "simulate",
        "show what recorded usage would be charged on other plans",
        "Show what recorded usage would be charged on other plans or by other meters: for each customer the charge\n"
        "as it was and as it would be (the overage, and the monthly price of each billing period with calls), and\n"
        "the calls that the new quota would have refused. Limits and rates beside the quota are not tried. It only\n"
        "reads.",
    )
    parser.add_argument("--plans", type=Path, metavar="DIR", help="the plans to try, one TOML file each")
    parser.add_argument(
        "--meters", type=Path, metavar="FILE", help="another gateway.toml: its meters read the evidence of each call"
    )
    parser.add_argument(
        "--move",
        type=_move,
        action="append",
        default=[],
        metavar="OLD=NEW",
        help="put customers of one plan on another",
    )
    parser.add_argument("--since", type=_day_ms, default=0, metavar="DAY", help="first day (UTC; default: all)")
    parser.add_argument("--until", type=_day_ms, metavar="DAY", help="last day, inclusive")
    parser.add_argument("--customer", metavar="ID", help="this customer only")
    add_config_flag(parser)
    add_json_flag(parser)
    parser.set_defaults(run=run)


def _day_ms(text: str) -> int:
    try:
        day = dt.date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day, as 2027-01-31") from error
    if not 1970 <= day.year < 9999:
        raise argparse.ArgumentTypeError(f"{text!r} does not lie between 1970 and 9998")
    return (day - dt.date(1970, 1, 1)).days * DAY_MS


def _move(text: str) -> tuple[str, str]:
    old, sign, new = text.partition("=")
    if not (old and sign and new):
        raise argparse.ArgumentTypeError(f"{text!r} does not say OLD=NEW, as free=starter")
    return old, new


@dataclass(slots=True)
class Told:
    """What came out: each customer, and how many calls another meter could not read again."""

    customers: list[tuple[str, Replayed]] = field(default_factory=list)
    reread: int = 0
    unread: dict[str, int] = field(default_factory=dict)


def run(arguments: argparse.Namespace) -> int:
    """Prints one line for each customer, and the sums."""
    if arguments.plans is None and arguments.meters is None:
        raise Unusable("there is nothing to try", "--plans DIR, --meters FILE, or both")
    gateway = read_gateway(arguments)
    other = load_gateway(arguments.meters, os.environ) if arguments.meters is not None else None
    then = other.plans if arguments.plans is None and other is not None else read_plans(arguments.plans)
    terms = Terms(gateway.plans, then, dict(arguments.move), arguments.since)
    until_ms = _FOR_EVER_MS if arguments.until is None else arguments.until + DAY_MS
    if until_ms <= arguments.since:
        raise Unusable("--until lies before --since")
    routes = {} if other is None else {route.name: route for route in other.router.routes}
    simulation = Simulation(terms, until_ms, routes if other is not None else None, arguments.customer)
    told = with_reader(gateway, simulation.run)
    if arguments.json:
        print_json(_json(told, reads=other is not None))
    else:
        _show(told)
    return 0


def read_plans(folder: Path) -> Mapping[str, Plan]:
    """The plans of a directory, with their examples executed. Raises Mistakes, Unusable, OSError."""
    if not folder.is_dir():
        raise Unusable(f"there is no directory {str(folder)!r} with plans")
    plans: dict[str, Plan] = {}
    wrong: list[Mistake] = []
    for path in sorted(folder.glob("*.toml")):
        plan, file = read_plan(path.read_text(encoding="utf-8"), str(path))
        wrong += [mistake for mistake in file.mistakes if mistake.severity is Severity.ERROR]
        if plan is not None:
            plans[path.stem] = plan
    if wrong:
        raise Mistakes(wrong)
    if not plans:
        raise Unusable(f"there is no plan in {str(folder)!r}")
    return plans


class Simulation:
    """One run over the records, ``page`` at a time. ``routes`` None reads no evidence again."""

    def __init__(
        self,
        terms: Terms,
        until_ms: int,
        routes: Mapping[str, Route] | None,
        customer_id: str | None,
        *,
        page: int = PAGE,
    ) -> None:
        self._terms = terms
        self._until_ms = until_ms
        self._routes = routes
        self._customer_id = customer_id
        self._page = page
        self._told = Told()
        self._records = 0

    async def run(self, store: SqlStore) -> Told:
        """All customers with records, in the order of their ids."""
        lead = lead_ms(self._terms.then)
        start_ms = 0 if lead is None else max(0, self._terms.since_ms - lead)
        self._check_plans(await store.plans_used(start_ms, self._until_ms))
        after = ""
        while (user := await self._next(store, after)) is not None:
            after, anchor_ms = user
            replayed = await self._replay(store, after, anchor_ms, start_ms)
            if replayed.calls or replayed.periods:
                self._told.customers.append((after, replayed))
            if self._customer_id is not None:
                break
        if sys.stderr.isatty() and self._records:
            complain("")
        return self._told

    async def _next(self, store: SqlStore, after: str) -> tuple[str, int] | None:
        if self._customer_id is None:
            return await store.next_user(after)
        customer = await store.customer(self._customer_id)
        if customer is None:
            raise Unusable(f"there is no customer {self._customer_id!r}", "'gatekeeper customers list' shows them")
        return customer.id, customer.anchor_ms

    def _check_plans(self, used: Sequence[str]) -> None:
        known = self._terms.then
        for old, new in self._terms.moves.items():
            if new not in known:
                raise Unusable(f"--move {old}={new}: there is no plan {new!r} to try", suggest(new, known))
        for plan_id in used:
            if self._terms.moved(plan_id) not in known:
                hint = f"--move {plan_id}=PLAN, where PLAN is one of: {', '.join(sorted(known))}"
                raise Unusable(f"there are calls on plan {plan_id!r}, which is not among those to try", hint)

    async def _replay(self, store: SqlStore, customer_id: str, anchor_ms: int, start_ms: int) -> Replayed:
        replay = Replay(self._terms, anchor_ms)
        recovered: dict[str, int] = {}
        after: tuple[int, str] | None = None
        while page := await store.history(customer_id, start_ms, self._until_ms, after=after, limit=self._page):
            for entry in page:
                replay.take(self._past(entry, recovered))
            after = page[-1].record.started_ms, page[-1].record.call_id
            self._records += len(page)
            if sys.stderr.isatty():
                print(f"\r{self._records:,} records", end="", file=sys.stderr, flush=True)
        return replay.finish()

    def _past(self, entry: Entry, recovered: dict[str, int]) -> Past:
        record = entry.record
        return Past(
            record.call_id,
            record.started_ms,
            record.plan_id,
            record.units_micro,
            record.charge_nano,
            entry.counted,
            entry.corrects,
            None if self._routes is None else self._read_again(entry, self._routes, recovered),
        )

    def _read_again(self, entry: Entry, routes: Mapping[str, Route], recovered: dict[str, int]) -> int | None:
        """What the other meter reads; None where it cannot be known, or where it is the same meter."""
        record = entry.record
        route = routes.get(record.route)
        if record.note == RECOVERED:
            recovered[record.call_id] = record.units_micro
        elif route is not None and route.meter.hash == record.meter_hash and not route.free:
            return None
        again = None if route is None else again_on(route, record)
        if again is None or again.units_micro is None:
            if record.started_ms >= self._terms.since_ms:
                self._told.unread[record.route] = self._told.unread.get(record.route, 0) + 1
            return None
        self._told.reread += record.started_ms >= self._terms.since_ms
        # A correction tells the whole truth in its evidence, and has the difference to what the recovery counted.
        return again.units_micro - (recovered.get(entry.corrects, 0) if entry.corrects is not None else 0)


def _sums(customers: Sequence[tuple[str, Replayed]]) -> dict[str, Any]:
    now, then = (sum(getattr(one, name) for _, one in customers) for name in ("now_nano", "then_nano"))
    return {
        "calls": sum(one.calls for _, one in customers),
        "charge_now": dollars_text(now),
        "charge_then": dollars_text(then),
        "difference": dollars_text(then - now),
        "refused": sum(one.refused for _, one in customers),
        "cut": sum(one.cut for _, one in customers),
    }


def _json(told: Told, *, reads: bool) -> dict[str, Any]:
    customers = [
        {
            "customer": customer_id,
            **_sums([(customer_id, one)]),
            "fees_now": dollars_text(one.fees_now_nano),
            "fees_then": dollars_text(one.fees_then_nano),
            "periods": [
                {
                    "window": period.window,
                    "start": instant(period.start_ms),
                    "units_now": units_text(period.units_now_micro),
                    "units_then": units_text(period.units_then_micro),
                    "overage_now": dollars_text(period.overage_now_nano),
                    "overage_then": dollars_text(period.overage_then_nano),
                }
                for period in one.periods
            ],
        }
        for customer_id, one in told.customers
    ]
    read = {"read_again": told.reread, "not_read_again": told.unread} if reads else {}
    return {"customers": customers, "total": _sums(told.customers), **read}


def _show(told: Told) -> None:
    print_table(("CUSTOMER", "CALLS", "NOW", "THEN", "DIFFERENCE", "REFUSED", "CUT"), _rows(told))
    for route, count in sorted(told.unread.items()):
        complain(
            f"note: {count} calls of route {route!r} cannot be read again from their evidence: counted as they were"
        )


def _rows(told: Told) -> Iterator[tuple[str, ...]]:
    for customer_id, one in [*told.customers, ("sum", None)]:
        sums = _sums(told.customers if one is None else [(customer_id, one)])
        yield (
            customer_id,
            str(sums["calls"]),
            _dollars(sums["charge_now"]),
            _dollars(sums["charge_then"]),
            _dollars(sums["difference"], sign="+"),
            str(sums["refused"]),
            str(sums["cut"]),
        )


def _dollars(text: str, sign: str = "") -> str:
    if text.startswith("-"):
        return f"-${text[1:]}"
    return f"{sign if text != '0' else ''}${text}"
