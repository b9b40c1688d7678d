"""``gatekeeper stripe events``: what Stripe has sent, what was given up, and trying that again."""

import argparse
import datetime as dt
import json
from collections.abc import Sequence

from gatekeeper.accounts import Accounts
from gatekeeper.cli.output import Unusable, add_command, add_json_flag, print_json, print_table, whole_number
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Store
from gatekeeper.ports.subscriptions import Letter

_STATES = ("waiting", "done", "dead")
_HINT = "'gatekeeper stripe events list' shows what there is; what has ended is forgotten after 40 days"


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the commands below ``gatekeeper stripe``."""
    parser = add_command(actions, "events", "see what Stripe has sent, and work again on what was given up")
    doing = parser.add_subparsers(dest="doing", metavar="ACTION", required=True)
    listing = add_command(doing, "list", "list events, the latest first")
    listing.add_argument("--state", choices=_STATES)
    listing.add_argument("--limit", type=whole_number(1, 10_000), default=50, help="(default: %(default)s)")
    listing.set_defaults(run=_list)
    show = add_command(doing, "show", "show one event, and its body as it came")
    show.add_argument("event_id", metavar="EVENT")
    show.set_defaults(run=_show)
    retry = add_command(
        doing,
        "retry",
        "work again on what was given up",
        "Work again, by the gateway and as soon as it runs, on what was given up. It does no harm: an event is a\n"
        "hint, and what follows from it is fetched from Stripe.",
    )
    retry.add_argument("event_id", metavar="EVENT", nargs="?")
    retry.add_argument("--all-dead", action="store_true", help="everything that was given up")
    retry.set_defaults(run=_retry)
    for action in (listing, show, retry):
        add_config_flag(action)
        add_json_flag(action)


def _list(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Sequence[Letter]:
        return await store.letters(state=arguments.state, limit=arguments.limit)

    found = with_store(arguments, work)
    if arguments.json:
        print_json([_json(one) for one in found])
        return 0
    print_table(
        ("EVENT", "KIND", "STATE", "ATTEMPTS", "RECEIVED", "NEXT OR ENDED", "LAST ERROR"),
        (
            (
                one.event.id,
                one.event.kind,
                one.state,
                str(one.attempts),
                _when(one.received_ms),
                _when(one.next_ms),
                one.error or "",
            )
            for one in found
        ),
    )
    return 0


def _show(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Letter:
        return await _found(store, arguments.event_id)

    found = with_store(arguments, work)
    fields = _json(found)
    if arguments.json:
        print_json({**fields, "body": json.loads(found.event.text)})
        return 0
    width = max(map(len, fields))
    for name, value in fields.items():
        shown = f"{value} ({_when(value)})" if name.endswith("_ms") and isinstance(value, int) else value
        print(f"{name.ljust(width)}  {'-' if shown is None else shown}")
    print(found.event.text)
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    if (arguments.event_id is None) != arguments.all_dead:
        raise Unusable("name an event, or say --all-dead", "'gatekeeper stripe events list --state dead' shows them")

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> int:
        if arguments.event_id is not None:
            await _found(store, arguments.event_id)
        return await store.retry_events(SystemClock().now_ms(), arguments.event_id)

    count = with_store(arguments, work)
    if arguments.json:
        print_json({"retried": count})
    elif arguments.event_id is not None and not count:
        print("It is done; nothing is changed.")
    else:
        print(f"{count} events are worked on by the gateway, as soon as it runs.")
    return 0


async def _found(store: Store, event_id: str) -> Letter:
    found = await store.letter(event_id)
    if found is None:
        raise Refusal(Code.NOT_FOUND, f"There is no event {event_id!r}.", hint=_HINT)
    return found


def _json(one: Letter) -> dict[str, object]:
    return {
        "event": one.event.id,
        "kind": one.event.kind,
        "state": one.state,
        "attempts": one.attempts,
        "received_ms": one.received_ms,
        "next_ms": one.next_ms,
        "error": one.error,
    }


def _when(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
