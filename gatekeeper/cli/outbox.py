"""``gatekeeper outbox``: what the biller was told, what waits, and what needs a person."""

import argparse
import datetime as dt
from collections.abc import Sequence

from gatekeeper.accounts import Accounts
from gatekeeper.cli.charge import add_charge
from gatekeeper.cli.output import (
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
from gatekeeper.errors import Code, Refusal
from gatekeeper.ports import Store
from gatekeeper.rules.billing import Backlog, Batch, BatchState
from gatekeeper.web.outbox import backlog_json, batch_json

_HINT = "'gatekeeper outbox list' shows what there is"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "outbox", "see and retry what the biller is told of usage")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = add_command(actions, "list", "list batches of usage, the latest first, and what waits")
    listing.add_argument("--state", choices=[*BatchState])
    listing.add_argument("--customer", metavar="CUSTOMER")
    listing.add_argument("--limit", type=whole_number(1, 10_000), default=50, help="(default: %(default)s)")
    listing.set_defaults(run=_list)
    show = add_command(actions, "show", "show one batch, by its id or identifier")
    show.add_argument("batch_id", metavar="BATCH")
    show.set_defaults(run=_show)
    retry = add_command(
        actions,
        "retry",
        "send again what was given up",
        "Send again, by the gateway and as soon as it runs, what was given up or waits after a failure. Whatever may\n"
        "have been counted is asked for first. Where that cannot be told, look into the biller's own account, and say\n"
        "what it has: --told or --unsent.",
    )
    retry.add_argument("batch_id", metavar="BATCH", nargs="?")
    retry.add_argument("--all-dead", action="store_true", help="everything that was given up")
    known = retry.add_mutually_exclusive_group()
    known.add_argument("--told", action="store_true", help="the biller has it, or it was charged by hand: it is done")
    known.add_argument("--unsent", action="store_true", help="the biller does not have it: send it without asking")
    retry.set_defaults(run=_retry)
    charge = add_charge(actions)
    for action in (listing, show, retry, charge):
        add_config_flag(action)
        add_json_flag(action)


def _list(arguments: argparse.Namespace) -> int:
    state = None if arguments.state is None else BatchState(arguments.state)

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> tuple[Sequence[Batch], Backlog, Backlog]:
        found = await store.batches(state=state, customer_id=arguments.customer, limit=arguments.limit)
        return found, await store.backlog(known_only=gateway.stripe.enabled), await store.backlog()

    found, backlog, whole = with_store(arguments, work)
    now_ms = SystemClock().now_ms()
    if arguments.json:
        batches = [batch_json(one, now_ms) for one in found]
        print_json({"backlog": backlog_json(backlog, whole, now_ms), "batches": batches})
        return 0
    print_table(
        ("BATCH", "CUSTOMER", "UNITS", "STATE", "AGE", "ATTEMPTS", "USED", "LAST ERROR"),
        (
            (
                one.id,
                one.customer_id,
                str(one.value),
                one.state,
                _age(now_ms - one.created_ms),
                str(one.attempts),
                _when(one.ts_ms),
                one.error or "",
            )
            for one in found
        ),
    )
    oldest = f"; the oldest is {_age(backlog.age_s(now_ms) * 1000)} old" if backlog.oldest_ms is not None else ""
    print(f"{backlog.waiting} wait, {backlog.dead} are dead, {backlog.unfrozen} calls are in no batch yet{oldest}.")
    if whole.unfrozen > backlog.unfrozen:
        print(f"{whole.unfrozen - backlog.unfrozen} more calls are owed by customers without an account at Stripe.")
    return 0


def _show(arguments: argparse.Namespace) -> int:
    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> Batch:
        return await _found(store, arguments.batch_id)

    batch = with_store(arguments, work)
    fields = batch_json(batch, SystemClock().now_ms())
    if arguments.json:
        print_json(fields)
        return 0
    width = max(map(len, fields))
    for name, value in fields.items():
        shown = f"{value} ({_when(value)})" if name.endswith("_ms") and isinstance(value, int) else value
        print(f"{name.ljust(width)}  {'-' if shown is None else shown}")
    return 0


def _retry(arguments: argparse.Namespace) -> int:
    by_hand = arguments.told or arguments.unsent
    if (arguments.batch_id is None) != arguments.all_dead:
        raise Unusable("name a batch, or say --all-dead", "'gatekeeper outbox list --state dead' shows them")
    if by_hand and arguments.batch_id is None:
        raise Unusable("--told and --unsent are said of one batch", _HINT)

    async def work(store: Store, accounts: Accounts, gateway: Gateway) -> int:
        now_ms = SystemClock().now_ms()
        if arguments.batch_id is None:
            return await store.retry_batches(now_ms)
        batch = await _found(store, arguments.batch_id)
        if by_hand:
            return int(await store.settle_by_hand(batch.id, now_ms, told=arguments.told))
        return await store.retry_batches(now_ms, batch.id)

    count = with_store(arguments, work)
    if arguments.json:
        print_json({"changed": count})
    elif arguments.told:
        print("It is settled." if count else "It was settled before; nothing is changed.")
    elif arguments.batch_id is not None and not count:
        print("The biller has it; nothing is changed.")
    else:
        print(f"{count} batches are sent by the gateway, as soon as it runs.")
    return 0


async def _found(store: Store, batch_id: str) -> Batch:
    batch = await store.batch(batch_id)
    if batch is None:
        raise Refusal(Code.NOT_FOUND, f"There is no batch {batch_id!r}.", hint=_HINT)
    return batch


def _age(ms: int) -> str:
    seconds = max(0, ms) // 1000
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"


def _when(ms: int) -> str:
    return dt.datetime.fromtimestamp(ms / 1000, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")
