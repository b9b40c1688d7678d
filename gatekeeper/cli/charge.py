"""``gatekeeper outbox charge``: an invoice item for a batch that no invoice counts any more."""

import argparse

from gatekeeper.accounts import Accounts
from gatekeeper.billing.charging import Charged, charge
from gatekeeper.cli.output import Unusable, add_command, complain, print_json
from gatekeeper.cli.settings import with_store
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import Gateway
from gatekeeper.ports import Store
from gatekeeper.rules.billing import NotTaken


def add_charge(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Adds the command below ``gatekeeper outbox``."""
    parser = add_command(
        actions,
        "charge",
        "charge a batch by an invoice item",
        "Make an invoice item at Stripe of a batch that was given up, or that arrived when the invoice of its period\n"
        "was closed: what its calls were charged above what their plan includes. However often it is asked for, one\n"
        "item is made; then the batch is settled.",
    )
    parser.add_argument("batch_id", metavar="BATCH")
    parser.add_argument("--dry-run", action="store_true", help="only say what it comes to")
    parser.add_argument("--uncounted", action="store_true", help="yes, it is on no invoice at Stripe: somebody looked")
    parser.set_defaults(run=_run)
    return parser


def _run(arguments: argparse.Namespace) -> int:
    try:
        charged = with_store(arguments, lambda store, accounts, gateway: _charge(arguments, store, accounts, gateway))
    except NotTaken as refused:
        complain(f"error: Stripe: {refused.public}")
        return 1
    made = charged.item_id
    if arguments.json:
        print_json({"batch": charged.batch.id, "cents": charged.cents, "invoice_item": made})
    elif arguments.dry_run:
        print(f"{charged.batch.value} units of {charged.batch.customer_id}: {charged.cents} cents.")
    elif made is None:
        print("It comes to nothing: the plan includes it. The batch is settled.")
    else:
        print(f"{charged.cents} cents are on the customer's next invoice ({made}). The batch is settled.")
    return 0


async def _charge(arguments: argparse.Namespace, store: Store, accounts: Accounts, gateway: Gateway) -> Charged:
    if gateway.stripe.secret_key is None:
        raise Unusable("there is no secret key of Stripe", "set STRIPE_SECRET_KEY, or [stripe] secret_key")
    # Imported late: the SDK takes longer to load than most commands take in all.
    from gatekeeper.billers.stripe_sales import StripeSales

    sales, now_ms = StripeSales(gateway.stripe), SystemClock().now_ms()
    try:
        return await charge(
            store, sales, arguments.batch_id, now_ms, uncounted=arguments.uncounted, look=arguments.dry_run
        )
    finally:
        await sales.close()
