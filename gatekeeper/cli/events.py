"""``gatekeeper events``: what was told to whom, what could not be, and a receiver to try web hooks with."""

import argparse
import datetime as dt
import os
from collections.abc import Sequence

from gatekeeper.accounts import Accounts
from gatekeeper.cli.listening import listen_for_events
from gatekeeper.cli.output import (
    PORT,
    Unusable,
    add_command,
    add_json_flag,
    print_json,
    print_table,
    whole_number,
)
from gatekeeper.cli.settings import add_config_flag, with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.config.notifications import key_of_secret
from gatekeeper.config.reading import Wrong
from gatekeeper.errors import Code, Refusal
from gatekeeper.notifiers.cloudevents import cloud_event
from gatekeeper.ports import Store
from gatekeeper.rules.notices import Delivery, Event
from gatekeeper.web.notices import delivery_json

_STATES = ("waiting", "sent", "dead")
_HINT = "'gatekeeper events list' shows what there is; what was sent is forgotten after 7 days"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "events", "see and retry outgoing notifications, or receive them to try")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "list deliveries, the latest event first")
    listing.add_argument("--state", choices=_STATES)
    listing.add_argument("--target", metavar="NAME", help="only to this entry of [[notifications]]")
    listing.add_argument("--limit", type=whole_number(1, 10_000), default=50, help="(default: %(default)s)")
    listing.set_defaults(run=_list)
    show = add_command(actions, "show", "show an event as it is sent, and how its deliveries stand")
    show.add_argument("event_id", metavar="EVENT")
    show.set_defaults(run=_show)
    retry = add_command(actions, "retry", "send again, at once, what was given up or waits after a failure")
    retry.add_argument("event_id", metavar="EVENT", nargs="?")
    retry.add_argument("--all-dead", action="store_true", help="everything that was given up")
    retry.add_argument("--target", metavar="NAME", help="only to this entry of [[notifications]]")
    retry.set_defaults(run=_retry)
    for action in (listing, show, retry):
        add_config_flag(action)
    listen = add_command(actions, "listen", "receive web hooks on loopback, verify and print them, until interrupted")
    listen.add_argument("--port", type=PORT, default=9000, help="(default: %(default)s)")
    listen.add_argument("--secret", metavar="whsec_...", help="(default: the variable GATEKEEPER_WEBHOOK_SECRET)")
    listen.set_defaults(run=_listen)
    for action in (listing, show, retry):
        add_json_flag(action)


def _list(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Sequence[Delivery]:
        return await store.deliveries(state=arguments.state, target=arguments.target, limit=arguments.limit)

    found = with_store(arguments, work)
    if arguments.json:
        print_json([delivery_json(one) for one in found])
    else:
        print_table(
            ("EVENT", "KIND", "TARGET", "STATE", "ATTEMPTS", "NEXT OR ENDED", "LAST ERROR"),
            (
                (
                    one.event.id,
                    one.event.kind.removeprefix("gatekeeper."),
                    one.target,
                    one.state,
                    str(one.attempts),
                    _when(one.next_ms),
                    one.error or "",
                )
                for one in found
            ),
        )
    return 0


def _show(arguments: argparse.Namespace) -> int:
    async def work(
        store: Store, accounts: Accounts, gateway: Gateway
    ) -> tuple[Event | None, str | None, list[Delivery]]:
        event = await store.event(arguments.event_id)
        deliveries = await store.deliveries(event_id=arguments.event_id) if event is not None else []
        return event, gateway.server.public_url, list(deliveries)

    event, source, deliveries = with_store(arguments, work)
    if event is None:
        raise Refusal(Code.NOT_FOUND, f"There is no event {arguments.event_id!r}.", hint=_HINT)
    envelope = cloud_event(event, source)
    if arguments.json:
        print_json({"event": envelope, "deliveries": [delivery_json(one) for one in deliveries]})
        return 0
    print_json(envelope)
    print_table(
        ("TARGET", "STATE", "ATTEMPTS", "NEXT OR ENDED", "LAST ERROR"),
        ((one.target, one.state, str(one.attempts), _when(one.next_ms), one.error or "") for one in deliveries),
    )
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    if (arguments.event_id is None) != arguments.all_dead:
        raise Unusable("name an event, or say --all-dead", "'gatekeeper events list --state dead' shows them")

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> int:
        if arguments.event_id is not None and await store.event(arguments.event_id) is None:
            raise Refusal(Code.NOT_FOUND, f"There is no event {arguments.event_id!r}.", hint=_HINT)
        now_ms = SystemClock().now_ms()
        return await store.retry(now_ms, event_id=arguments.event_id, target=arguments.target)

    count = with_store(arguments, work)
    if arguments.json:
        print_json({"retried": count})
    else:
        print(f"{count} deliveries are sent again by the gateway, as soon as it runs.")
    return 0


def _listen(arguments: argparse.Namespace) -> int:
    written = arguments.secret or os.environ.get("GATEKEEPER_WEBHOOK_SECRET", "")
    try:
        key = key_of_secret(written)
    except Wrong as wrong:
        raise Unusable(f"--secret: {wrong.message}", wrong.hint) from None
    listen_for_events(arguments.port, key, SystemClock().now_ms)
    return 0


def _when(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
