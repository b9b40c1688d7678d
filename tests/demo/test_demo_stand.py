"""The demo's stand: the shipped routes before the fake provider, one customer, a new key, and nothing left open."""

import asyncio
import gc
import tomllib
from pathlib import Path

import pytest

from gatekeeper.demo.provider import DEMO_MODELS
from gatekeeper.demo.stand import CUSTOMER_ID, Stand, build_stand, demo_gateway
from gatekeeper.errors import Refusal
from gatekeeper.rules.keys import well_formed

ROOT = Path(__file__).resolve().parents[2]
PLANS = {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "plans").glob("*.toml")}
PROVIDER = "http://127.0.0.1:9"


def build(database: Path, plan_id: str = "starter") -> tuple[str, str, list[str]]:
    """Builds a stand and takes it down; the key, the customer's plan, and the ids of all keys."""

    async def work() -> tuple[str, str, list[str]]:
        stand: Stand = await build_stand(PROVIDER, database, plans=PLANS, plan_id=plan_id)
        async with stand.house.running():
            keys = await stand.house.store.keys(CUSTOMER_ID, after="", limit=100)
            return stand.key, stand.customer.plan_id, [key.id for key in keys]

    return asyncio.run(work())


def test_the_demo_serves_every_shipped_route_that_its_provider_answers(tmp_path):
    demo = demo_gateway(PROVIDER, tmp_path / "demo.sqlite", "127.0.0.1", "admin", PLANS)
    shipped = tomllib.loads((ROOT / "gateway.toml.example").read_text(encoding="utf-8"))["routes"]
    answered = {route["name"]: route["path"] for route in shipped if route["upstream"] not in ("mistral", "local")}
    assert {route.name for route in demo.router.routes} == set(answered)
    assert set(demo.plans) == {"free", "starter", "pro", "enterprise"}
    (chat,) = [route for route in demo.router.routes if route.name == "chat"]
    assert chat.models == DEMO_MODELS
    assert {warning.source.name for warning in demo.warnings} <= {"starter.toml"}


def test_a_second_demo_on_the_same_file_keeps_the_customer_and_makes_a_new_key(tmp_path):
    first, plan, keys = build(tmp_path / "demo.sqlite")
    assert well_formed(first)
    assert (plan, len(keys)) == ("starter", 1)
    second, plan, keys = build(tmp_path / "demo.sqlite", "pro")
    assert second != first
    assert (plan, len(keys)) == ("pro", 2)


def test_a_plan_that_is_not_there_is_refused_and_nothing_stays_open(tmp_path):
    with pytest.raises(Refusal, match="no plan 'gold'"):
        build(tmp_path / "demo.sqlite", "gold")
    # An open database or thread would warn here, and warnings are errors.
    gc.collect()
    build(tmp_path / "demo.sqlite")
