"""``gatekeeper demo``: a fake provider, the gateway before it, a customer, a key, and a curl line that works."""

import argparse
import asyncio
import contextlib
import json
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path

import uvicorn

from gatekeeper.cli.init import shipped
from gatekeeper.cli.invoice import show_statement, statement_of
from gatekeeper.cli.output import PORT, add_command, complain_with_hint, grouped
from gatekeeper.cli.server import TellingServer, listen, run_loop, set_up_logging, uvicorn_server
from gatekeeper.clock import SystemClock
from gatekeeper.config.gateway import ServerConfig
from gatekeeper.demo.provider import TOKENS_PER_S, build_app, expected_usage
from gatekeeper.demo.stand import Stand, build_stand, paper_of
from gatekeeper.money import MICRO_PER_UNIT, dollars_text, units_text
from gatekeeper.rules.plans import Plan
from gatekeeper.stores import open_store
from gatekeeper.web.people import link_url

# A demo that ran for an hour may have written many.
_PAPER_LINES = 5
ASK = {"model": "demo-small", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = add_command(
        commands,
        "demo",
        "try it: a fake provider and a gateway, nothing else needed",
        "Start a fake provider (OpenAI, Anthropic and Gemini dialects) and a gateway before it on a fresh SQLite\n"
        "file, make a customer and a key, and print a curl line to paste.",
    )
    parser.add_argument(
        "--port", type=PORT, default=8080, metavar="N", help="the gateway's port (default: %(default)s)"
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST", help="its address (default: %(default)s)")
    parser.add_argument("--plan", default="starter", metavar="PLAN", help="the customer's plan (default: %(default)s)")
    parser.add_argument("--database", type=Path, metavar="FILE", help="keep the SQLite file here (default: temporary)")
    parser.add_argument(
        "--tokens-per-s",
        type=_pace,
        default=TOKENS_PER_S,
        metavar="N",
        help="the provider's pace (default: %(default)s; 0: at once)",
    )
    parser.set_defaults(run=run)


def _pace(text: str) -> float:
    try:
        pace = float(text)
    except ValueError:
        pace = -1
    if not 0 <= pace <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 to 1000000")
    return pace


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    set_up_logging(logging.WARNING)
    with contextlib.ExitStack() as stack:
        database: Path | None = arguments.database
        if database is None:
            database = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gatekeeper-demo-"))) / "demo.sqlite"
        database.parent.mkdir(parents=True, exist_ok=True)
        return run_loop(_serve(arguments, database))


async def _serve(arguments: argparse.Namespace, database: Path) -> int:
    try:
        front, back = listen(arguments.host, arguments.port), listen("127.0.0.1", 0)
    except OSError as error:
        complain_with_hint(
            f"cannot listen on {arguments.host}:{arguments.port}: {error.strerror}", "--port 0 takes any that is free"
        )
        return 1
    with front, back:
        plans = {path.name: path.read_text("utf-8") for path in sorted(shipped("plans").glob("*.toml"))}
        provider = _QuietServer(build_app(tokens_per_s=arguments.tokens_per_s))
        stand = await build_stand(
            f"http://127.0.0.1:{back.getsockname()[1]}",
            database,
            plans=plans,
            plan_id=arguments.plan,
            host=arguments.host,
        )
        gateway = uvicorn_server(stand.house.app, ServerConfig(host=arguments.host, drain_s=2))
        gateway.on_stop = stand.house.stop_accepting
        background = asyncio.create_task(provider.serve(sockets=[back]), name="fake provider")
        telling = asyncio.create_task(_tell_when_up(gateway, stand, front.getsockname()[:2]), name="telling")
        try:
            await gateway.serve(sockets=[front])
        finally:
            telling.cancel()
            provider.should_exit = True
            await asyncio.gather(background, telling, return_exceptions=True)
    if gateway.started:
        await _tell_bill(stand, database, kept=arguments.database is not None)
    return 0 if gateway.started else 1


async def _tell_bill(stand: Stand, database: Path, *, kept: bool) -> None:
    """What the customer's period comes to, and what Stripe would have been told: all is settled and written by now."""
    gateway, clock = stand.house.live.gateway, SystemClock()
    store = await open_store(gateway.database_url.reveal(), clock=clock)
    try:
        print("\nThe invoice of this period, by the ledger:\n")
        show_statement(await statement_of(store, gateway, stand.customer, clock.now_ms()))
    finally:
        await store.close()
    paper = paper_of(database)
    lines = paper.read_text("utf-8").splitlines() if paper.exists() else []
    ends = "" if kept else ", which ends with the demo (--database FILE keeps it)"
    print(f"\nWhat Stripe would have been told stands in {paper}{ends}; lines: {len(lines)}.", flush=True)
    for line in lines[-_PAPER_LINES:]:
        print(f"  {line}", flush=True)


class _QuietServer(uvicorn.Server):
    """The provider's server: signals belong to the gateway's."""

    def __init__(self, app: object) -> None:
        super().__init__(
            uvicorn.Config(
                app,  # type: ignore[arg-type]
                lifespan="off",
                log_config=None,
                access_log=False,
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]
        yield


async def _tell_when_up(server: TellingServer, stand: Stand, address: tuple[str, int]) -> None:
    await server.up.wait()
    url = f"http://[{address[0]}]:{address[1]}" if ":" in address[0] else f"http://{address[0]}:{address[1]}"
    usage = expected_usage("openai", ASK)
    print(welcome(url, stand, usage), flush=True)
    secret = await stand.house.operators.first_link()
    if secret is not None:
        print(f"The dashboard, once, to become its owner:\n\n  {link_url(url, secret)}\n", flush=True)


def welcome(url: str, stand: Stand, usage: dict[str, int]) -> str:
    """What is printed: where, a line to paste, and what it will be charged."""
    customer, key = stand.customer, stand.key
    plan = stand.house.live.gateway.plans[customer.plan_id]
    return f"""
gatekeeper demo: a gateway at {url}, a fake provider behind it, the four plans in plans/.
Customer {customer.id} (plan {plan.name}) has the key {key}

Stream a chat completion:

  curl -N {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\
    -H 'Content-Type: application/json' -d '{json.dumps(ASK)}'

It will be charged {charge_in_words(plan, usage)}.
See what was used, the record of the call, and the invoice so far:

  curl {url}/v1/usage -H 'Authorization: Bearer {key}'
  curl {url}/admin/requests -H 'X-Admin-Key: {stand.admin_key}'
  curl {url}/admin/customers/{customer.id}/invoices/preview -H 'X-Admin-Key: {stand.admin_key}'

Stripe is off. What it would be told is written to
  {stand.house.live.gateway.stripe.paper}
The official SDKs work with base_url="{url}/v1" (anthropic: "{url}") and this key. Ctrl-C ends it
and prints the invoice.
"""


def charge_in_words(plan: Plan, usage: Mapping[str, int]) -> str:
    """What a call with this usage is charged on a plan, as a part of a sentence."""
    tokens = f"{usage['total']} tokens ({usage['input']} in, {usage['output']} out)"
    quota = plan.quota
    if quota is None or quota.cap is None:
        return f"{tokens}: $0, plan {plan.name} includes all"
    said = f"{tokens}: $0 while within the {grouped(units_text(quota.cap))} that plan {plan.name} includes"
    if plan.overage is not None:
        said += f", ${dollars_text(plan.overage.charge_nano(usage['total'] * MICRO_PER_UNIT))} beyond them"
    return said
