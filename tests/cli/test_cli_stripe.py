"""``gatekeeper stripe`` as a person and as a script use it, before a fake Stripe."""

import asyncio
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gatekeeper.demo.stripe import FakeStripe

# What keeps a test from reading the reader's own account.
VARIABLES = ("STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "STRIPE_METERING_ENABLED")


@contextmanager
def served(fake: FakeStripe) -> Iterator[str]:
    """The fake on a thread of its own, because a command has a loop of its own."""
    ready: list[str] = []
    listening, over = threading.Event(), threading.Event()

    async def run() -> None:
        async with fake.serve() as url:
            ready.append(url)
            listening.set()
            await asyncio.to_thread(over.wait)

    failed: list[BaseException] = []

    def thread() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            failed.append(error)
        finally:
            listening.set()

    running = threading.Thread(target=thread)
    running.start()
    listening.wait()
    try:
        yield ready[0]
    finally:
        over.set()
        running.join()
    assert failed == []


@pytest.fixture
def shop(gateway: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeStripe]:
    """The shipped configuration before an empty account in test mode."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    fake = FakeStripe()
    with served(fake) as url:
        settle(gateway, fake, url)
        yield fake


def settle(gateway: Path, fake: FakeStripe, url: str, public_url: str | None = None) -> None:
    """Write into gateway.toml where the account is, and where the gateway is reached from it."""
    path = gateway / "gateway.toml"
    text = re.sub(r"^(secret_key|api_base|public_url) = .*\n", "", path.read_text(), flags=re.MULTILINE)
    more = {"[stripe]": f'secret_key = "{fake.secret_key}"\napi_base = "{url}"'}
    if public_url is not None:
        more["[server]"] = f'public_url = "{public_url}"'
    for table, written in more.items():
        text, times = re.subn(rf"^{re.escape(table)}\n", f"{table}\n{written}\n", text, flags=re.MULTILINE)
        assert times == 1, table
    path.write_text(text)


def test_plan_says_what_apply_does_and_then_there_is_nothing_to_do(shop: FakeStripe, cli: Callable[..., Any]) -> None:
    first = cli("stripe", "plan")
    assert first.code == 2, first.err
    lines = first.out.splitlines()
    assert lines[0] == "Stripe, test mode"
    assert "+ create price starter metered" in lines
    assert "    price: up to 100000 $0, then $0.002 each, of meter gatekeeper_units, per month" in lines
    assert "note: plan 'free' is free: nothing of it is in Stripe" in lines
    assert lines[-1] == "10 created. 'gatekeeper stripe apply' does it."
    assert shop.objects("product") == []
    done = cli("stripe", "apply")
    assert done.code == 0, done.err
    assert "10 created. The account is as the plans say." in done.out
    starter = next(line for line in done.out.splitlines() if line.startswith("starter"))
    assert all(shop.object(price)["active"] for price in starter.split()[1:])
    again = cli("stripe", "plan")
    assert (again.code, again.out.splitlines()[-1]) == (0, "Nothing to do: the account is as the plans say.")
    assert "Nothing to do. The account is as the plans say." in cli("stripe", "apply").out


def test_a_changed_price_is_shown_with_both_amounts(shop: FakeStripe, cli: Callable[..., Any], folder: Path) -> None:
    assert cli("stripe", "apply").code == 0
    plan = folder / "plans" / "enterprise.toml"
    plan.write_text(plan.read_text().replace("499", "599"))
    told = cli("stripe", "plan")
    assert told.code == 2
    assert "+ create price enterprise licensed\n    price: $599 per month" in told.out
    assert "    price: $499 per month\n    active: yes -> no" in told.out


def test_json_says_the_mode_first_and_then_all_of_it(shop: FakeStripe, cli: Callable[..., Any]) -> None:
    told = cli("stripe", "plan", "--json")
    assert told.code == 2
    mode, plan = map(json.loads, told.out.splitlines())
    assert mode == {"mode": "test"}
    assert plan["problems"] == [] and plan["prices"] == {} and plan["portal"] is None
    made = next(one for one in plan["changes"] if one["name"] == "enterprise licensed")
    assert (made["action"], made["kind"], made["id"]) == ("create", "price", None)
    assert made["fields"]["price"] == {"before": None, "after": "$499 per month"}
    _, applied = map(json.loads, cli("stripe", "apply", "--json").out.splitlines())
    assert len(applied["done"]) == 10
    assert applied["prices"]["enterprise"]["metered"] is None
    assert shop.object(applied["prices"]["enterprise"]["licensed"])["unit_amount"] == 49_900
    assert shop.object(applied["portal"])["object"] == "billing_portal.configuration"


def test_a_live_key_asks_for_live_and_a_test_key_refuses_it(gateway: Path, cli: Callable[..., Any]) -> None:
    fake = FakeStripe(livemode=True)
    with served(fake) as url:
        settle(gateway, fake, url)
        assert cli("stripe", "plan").out.startswith("Stripe, live mode: real money\n")
        refused = cli("stripe", "apply")
        assert refused.code == 2 and "add --live" in refused.err
        assert fake.objects("product") == []
        assert cli("stripe", "apply", "--live").code == 0
        assert len(fake.objects("product")) == 3
    other = FakeStripe()
    with served(other) as url:
        settle(gateway, other, url)
        assert cli("stripe", "apply", "--live").code == 2
        assert other.objects("product") == []


def test_what_no_change_can_settle_is_a_1_and_changes_nothing(
    shop: FakeStripe, cli: Callable[..., Any], folder: Path
) -> None:
    plan = folder / "plans" / "enterprise.toml"
    plan.write_text(plan.read_text().replace("price_enterprise_llmgateway", "price_1NxAbCdEfGhIjKlM"))
    told = cli("stripe", "plan")
    assert told.code == 1 and "has none of that id or lookup key" in told.err
    done = cli("stripe", "apply")
    assert done.code == 1 and "Nothing was changed." in done.err
    assert shop.objects("product") == []


def test_plan_answers_1_for_whatever_is_wrong_because_2_says_that_something_differs(
    gateway: Path, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    without = cli("stripe", "plan")
    assert without.code == 1 and "STRIPE_SECRET_KEY" in without.err
    assert cli("stripe", "apply").code == 2
    monkeypatch.setenv("STRIPE_SECRET_KEY", "pk_test_published")
    wrong = cli("stripe", "plan")
    assert wrong.code == 1 and "sk_test_" in wrong.err and "pk_test_published" not in wrong.err
    (gateway / "gateway.toml").write_text("[server]\nport = 'x'\n")
    assert cli("stripe", "plan").code == 1


def test_a_key_that_is_refused_and_a_stripe_that_is_away_are_said_in_one_line(
    shop: FakeStripe, cli: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_theWrongOne")
    told = cli("stripe", "plan")
    assert told.code == 1 and "the key is refused" in told.err and "theWrongOne" not in told.err
    assert len(told.err.splitlines()) == 1


def test_each_webhook_secret_is_shown_once_and_with_what_to_do(gateway: Path, cli: Callable[..., Any]) -> None:
    fake = FakeStripe()
    with served(fake) as url:
        settle(gateway, fake, url, "https://llm.example.com")
        done = cli("stripe", "apply")
        assert done.code == 0, done.err
        made = [*fake.objects("webhook_endpoint"), *fake.objects("v2.core.event_destination")]
        secrets = [line.strip() for line in done.out.splitlines() if line.strip().startswith("whsec_")]
        assert len(secrets) == len(set(secrets)) == len(made) == 2
        assert "STRIPE_WEBHOOK_SECRET in .env" in done.out
        assert "whsec_" not in cli("stripe", "apply").out
    other = FakeStripe()
    with served(other) as url:
        settle(gateway, other, url, "https://llm.example.com")
        lines = [json.loads(line) for line in cli("stripe", "apply", "--json").out.splitlines()]
    told = [line for line in lines if "webhook_secret" in line]
    assert [one["payload"] for one in told] == ["snapshot", "thin"]
    assert {one["url"] for one in told} == {"https://llm.example.com/webhooks/stripe"}
