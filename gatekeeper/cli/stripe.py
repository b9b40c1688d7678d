"""``gatekeeper stripe``: bring the plans into a Stripe account, or see what differs there; what Stripe has sent.

``plan`` answers scripts with its exit code, as ``terraform plan -detailed-exitcode`` does: 0 nothing to do, 2 something
differs, 1 it could not be found out (the configuration is wrong, Stripe is away, or no change could settle it).
"""

import argparse
import asyncio
import secrets
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from gatekeeper.billing.catalogue import Applied, apply, compare
from gatekeeper.cli.output import (
    Unusable,
    add_command,
    add_json_flag,
    complain,
    complain_with_hint,
    print_json,
    print_table,
    rendered,
)
from gatekeeper.cli.settings import add_config_flag, read_gateway
from gatekeeper.cli.stripe_events import add_actions
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.diagnostics import Mistakes
from gatekeeper.ports import Catalogue
from gatekeeper.rules.billing import NotTaken
from gatekeeper.rules.catalogue import CannotSell, Endpoint, Sold, wanted
from gatekeeper.rules.catalogue import Wanted as WantedCatalogue
from gatekeeper.rules.drift import Action, Change, Difference

T = TypeVar("T")

DIFFERS = 2
_SIGNS = {Action.CREATE: "+", Action.UPDATE: "~", Action.ARCHIVE: "-", Action.DELETE: "-"}
_NO_KEY = "set STRIPE_SECRET_KEY (sk_test_... to try), or [stripe] secret_key; [stripe] enabled may still be false"
_CODES = "exit codes: 0 nothing to do, 2 something differs, 1 it could not be found out"


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(commands, "stripe", "bring the plans into a Stripe account; see what it has sent")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    plan = add_command(
        actions,
        "plan",
        "show what 'apply' would do; changes nothing",
        f"Show what 'apply' would do; changes nothing.\n\n{_CODES}",
    )
    plan.set_defaults(run=_plan)
    doing = add_command(
        actions, "apply", "make meter, products, prices, portal and webhook endpoints as the plans say; repeatable"
    )
    doing.add_argument("--live", action="store_true", help="yes, with this key for real money")
    doing.set_defaults(run=_apply)
    for action in (plan, doing):
        add_config_flag(action)
        add_json_flag(action)
    add_actions(actions)


def _plan(arguments: argparse.Namespace) -> int:
    """All that is wrong is a 1, because a 2 says that something differs."""

    async def work(catalogue: Catalogue, want: WantedCatalogue) -> tuple[Difference, Sold]:
        _say_mode(catalogue, arguments)
        return await compare(catalogue, want, SystemClock())

    try:
        difference, sold = _with_catalogue(arguments, work)
    except Mistakes as mistakes:
        complain(rendered(mistakes.mistakes))
        return 1
    except Unusable as unusable:
        complain_with_hint(str(unusable), unusable.hint)
        return 1
    except NotTaken as refused:
        complain(f"error: Stripe: {refused.public}")
        return 1
    if arguments.json:
        print_json(
            {
                "changes": [change_json(change) for change in difference.changes],
                "problems": difference.problems,
                "notes": difference.notes,
                "prices": _prices_json(sold),
                "portal": sold.portal_id,
            }
        )
    else:
        _show(difference)
    return 1 if difference.problems else DIFFERS if difference.changes else 0


def _apply(arguments: argparse.Namespace) -> int:
    def show(change: Change, secret: str) -> None:
        _show_secret(change, secret, as_json=arguments.json)

    async def work(catalogue: Catalogue, want: WantedCatalogue) -> Applied:
        _say_mode(catalogue, arguments)
        if catalogue.live and not arguments.live:
            hint = "look at 'gatekeeper stripe plan', then add --live"
            raise Unusable("this key is for live mode, where real money moves", hint)
        if arguments.live and not catalogue.live:
            raise Unusable("--live was given, and this key is for test mode", "leave --live away, or use the live key")
        return await apply(catalogue, want, SystemClock(), secrets.token_hex(8), show)

    try:
        applied = _with_catalogue(arguments, work)
    except CannotSell as cannot:
        for problem in cannot.problems:
            complain(f"error: {problem}")
        complain("Nothing was changed.")
        return 1
    except NotTaken as refused:
        complain_with_hint(f"Stripe: {refused.public}", "what was done stays; run it again when this is settled")
        return 1
    if arguments.json:
        changes = [change_json(change) for change in applied.done]
        sold = applied.sold
        print_json({"done": changes, "notes": applied.notes, "prices": _prices_json(sold), "portal": sold.portal_id})
        return 0
    for change in applied.done:
        _show_change(change)
    for note in applied.notes:
        print(f"note: {note}")
    print(f"{_counted(applied.done)}. The account is as the plans say.")
    print_table(
        ("PLAN", "LICENSED PRICE", "METERED PRICE"),
        ((plan, prices.licensed or "-", prices.metered or "-") for plan, prices in sorted(applied.sold.prices.items())),
    )
    return 0


def _with_catalogue(arguments: argparse.Namespace, work: Callable[[Catalogue, WantedCatalogue], Awaitable[T]]) -> T:
    gateway = read_gateway(arguments)
    if gateway.stripe.secret_key is None:
        raise Unusable("there is no secret key of Stripe", _NO_KEY)

    async def run() -> T:
        # Imported late: the SDK takes longer to load than most commands take in all.
        from gatekeeper.billers.stripe_catalogue import StripeCatalogue

        catalogue = StripeCatalogue(gateway.stripe)
        try:
            return await work(catalogue, _wanted(gateway, live=catalogue.live))
        finally:
            await catalogue.close()

    return asyncio.run(run())


def _wanted(gateway: Gateway, *, live: bool) -> WantedCatalogue:
    return wanted(gateway.plans, gateway.stripe.meter, gateway.server.public_url, live=live)


def _say_mode(catalogue: Catalogue, arguments: argparse.Namespace) -> None:
    mode = "live" if catalogue.live else "test"
    if arguments.json:
        print_json({"mode": mode})
    else:
        print(f"Stripe, {mode} mode" + (": real money" if catalogue.live else ""))


def _show(difference: Difference) -> None:
    for change in difference.changes:
        _show_change(change)
    for note in difference.notes:
        print(f"note: {note}")
    for problem in difference.problems:
        complain(f"error: {problem}")
    if difference.problems:
        complain("'gatekeeper stripe apply' changes nothing before this is settled.")
    elif difference.changes:
        print(f"{_counted(difference.changes)}. 'gatekeeper stripe apply' does it.")
    else:
        print("Nothing to do: the account is as the plans say.")


def _show_change(change: Change) -> None:
    held = f" ({change.id})" if change.id is not None else ""
    why = f": {change.why}" if change.why else ""
    print(f"{_SIGNS[change.action]} {change.action} {change.kind} {change.title}{held}{why}")
    for detail in change.details:
        if detail.before is None:
            print(f"    {detail.name}: {detail.after}")
        elif detail.after is None:
            print(f"    {detail.name}: {detail.before}")
        else:
            print(f"    {detail.name}: {detail.before} -> {detail.after}")


def _show_secret(change: Change, secret: str, *, as_json: bool) -> None:
    """At once, and out of the buffer: it is never told again."""
    endpoint = change.what
    assert isinstance(endpoint, Endpoint), change
    if as_json:
        print_json({"webhook_secret": secret, "url": endpoint.url, "payload": endpoint.payload})
    else:
        print(f"The secret that signs {endpoint.payload} events to {endpoint.url}, shown only now:")
        print(f"    {secret}")
        print("    Add it to STRIPE_WEBHOOK_SECRET in .env (several with commas), or to [stripe] webhook_secrets.")
    sys.stdout.flush()


def _counted(changes: tuple[Change, ...]) -> str:
    words = {Action.CREATE: "created", Action.UPDATE: "updated", Action.ARCHIVE: "archived", Action.DELETE: "deleted"}
    counts = Counter(change.action for change in changes)
    told = ", ".join(f"{counts[action]} {word}" for action, word in words.items() if counts[action])
    return told or "Nothing to do"


def change_json(change: Change) -> dict[str, Any]:
    """A change for scripts."""
    return {
        "action": change.action,
        "kind": change.kind,
        "name": change.title,
        "id": change.id,
        "why": change.why or None,
        "fields": {detail.name: {"before": detail.before, "after": detail.after} for detail in change.details},
    }


def _prices_json(sold: Sold) -> dict[str, dict[str, str | None]]:
    return {plan_id: prices._asdict() for plan_id, prices in sold.prices.items()}
