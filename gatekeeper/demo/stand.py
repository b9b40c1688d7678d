"""The demo's stand: a fake provider and a gateway in front of it, in one process, on a fresh SQLite file."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from gatekeeper.accounts import KeyWish
from gatekeeper.assembly import House, build_house
from gatekeeper.config import parse_gateway
from gatekeeper.config.gateway import Gateway
from gatekeeper.demo.provider import DEMO_KEYS
from gatekeeper.ports import Customer

CUSTOMER_ID = "demo"


@dataclass(frozen=True, slots=True)
class Stand:
    """A built gateway with one customer and his key."""

    house: House
    customer: Customer
    key: str
    admin_key: str


def paper_of(database: Path) -> Path:
    """Where the biller of the demo writes: beside the database."""
    return database.absolute().with_suffix(".paper.jsonl")


def demo_gateway(provider_url: str, database: Path, host: str, admin_key: str, plans: Mapping[str, str]) -> Gateway:
    """The demo's configuration; ``plans`` are the texts of the plan files by name. Raises Mistakes."""
    text = (Path(__file__).parent / "gateway.toml").read_text("utf-8")
    env = {
        "DEMO_HOST": host,
        "DEMO_DATABASE": f"sqlite:///{database.absolute()}",
        "DEMO_PROVIDER": provider_url,
        "DEMO_OPENAI_KEY": DEMO_KEYS["openai"],
        "DEMO_ANTHROPIC_KEY": DEMO_KEYS["anthropic"],
        "DEMO_GEMINI_KEY": DEMO_KEYS["gemini"],
        "ADMIN_API_KEY": admin_key,
    }
    gateway = parse_gateway(text, "demo/gateway.toml", plans, env)
    return replace(gateway, stripe=replace(gateway.stripe, paper=paper_of(database)))


async def build_stand(
    provider_url: str, database: Path, *, plans: Mapping[str, str], plan_id: str = "starter", host: str = "127.0.0.1"
) -> Stand:
    """The gateway, a customer on ``plan_id``, and a new key. Raises Mistakes, Fault."""
    admin_key = secrets.token_urlsafe(16)
    gateway = demo_gateway(provider_url, database, host, admin_key, plans)
    house = await build_house(gateway)
    try:
        customer = await house.store.customer(CUSTOMER_ID)
        if customer is None:
            customer = await house.accounts.create_customer("Demo customer", plan_id=plan_id, customer_id=CUSTOMER_ID)
        elif customer.plan_id != plan_id:
            customer = await house.accounts.set_plan(CUSTOMER_ID, plan_id)
        made = await house.accounts.create_key(CUSTOMER_ID, KeyWish(name="demo"))
    except BaseException:
        # Nobody will run it, so nobody else will close it.
        await house.upstream.close()
        await house.store.close()
        raise
    return Stand(house, customer, made.secret, admin_key)
