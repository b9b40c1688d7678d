"""outbox, invoice and revenue: what is owed and what was told, as a person sees it; on both databases."""

import json
import re
import sqlite3
from datetime import UTC, datetime

import pytest
from fakes.past import MICRO, customer, hold, record, settle, stored

from gatekeeper.clock import SystemClock
from gatekeeper.config.plans import read_plan
from gatekeeper.rules.hints import Event
from gatekeeper.rules.windows import DAY_MS

SMALL = """
name = "Small"
monthly_price = "5.50"
[quota]
units = 10
window = "billing_period"
when_used = "overage"
[overage]
price = "0.002"
per = "1 token"
"""
PLAN, _ = read_plan(SMALL, "small.toml")


@pytest.fixture
def now_ms():
    return SystemClock().now_ms()


@pytest.fixture
def sql_of(postgres_execute):
    """Changes a database behind the ledger's back."""

    def run(url, statement):
        if url.startswith("sqlite"):
            with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
                connection.execute(statement)
            connection.close()
        else:
            postgres_execute(url, statement)

    return run


@pytest.fixture
def ledger(gateway, store_url, monkeypatch, now_ms):
    """ada used 4 + 5 + 6.5 units of 10 in this period, and 2 in the one before it."""
    (gateway / "plans" / "small.toml").write_text(SMALL)
    monkeypatch.setenv("DATABASE_URL", store_url)
    monkeypatch.delenv("STRIPE_SECRET_KEY", raising=False)
    anchor_ms = now_ms - 40 * DAY_MS

    async def body(store):
        await customer(store, "ada", "small", anchor_ms)
        await customer(store, "bob", "small", anchor_ms)
        calls = [("c0", 4, "gpt-4o", now_ms), ("c1", 5, "o3", now_ms), ("c2", 6.5, "gpt-4o", now_ms)]
        for name, units, model, started_ms in [*calls, ("old", 2, "gpt-4o", now_ms - 39 * DAY_MS)]:
            made = record(
                name,
                "small",
                int(units * MICRO),
                model=model,
                started_ms=started_ms,
                ended_ms=started_ms + 900,
                cost_nano=1_000_000,
            )
            await hold(store, made, PLAN, anchor_ms)
            await settle(store, made, PLAN)

    stored(store_url, body)
    return store_url


def freeze(url, now_ms, **changes):
    async def body(store):
        await store.freeze(["ada"], {}, "gatekeeper_units", "seed", now_ms)
        (batch,) = [one for one in await store.batches() if one.value == 15]
        claimed = await store.claim_batches(now_ms, now_ms + 1, 10)
        for one in claimed:
            await store.batch_unsent(one, "No such customer", None, now_ms, clear=True)
        return batch.id

    return stored(url, body)


def test_an_invoice_is_the_sum_of_its_lines_and_what_the_plan_says(cli, ledger, now_ms):
    done = cli("invoice", "ada", "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert found["monthly_price"] == "5.5"
    assert (found["included_units"], found["used_units"], found["overage_units"]) == ("10", "15.5", "5.5")
    assert (found["overage"], found["total"], found["total_cents"], found["agrees"]) == ("0.011", "5.511", 551, True)
    assert PLAN.period_charge_nano(int(15.5 * MICRO)) == 5_511_000_000
    assert found["period_start_ms"] <= now_ms < found["period_end_ms"]
    lines = {line["model"]: (line["requests"], line["units"], line["charge"]) for line in found["lines"]}
    assert lines == {"gpt-4o": (2, "10.5", "0.011"), "o3": (1, "5", "0")}
    shown = cli("invoice", "ada").out
    assert "Used 15.5 units; 10 are included." in shown
    assert "Overage            $0.011  (5.5 units)" in shown
    assert "Total              $5.511  (an invoice rounds it to 551 cents)" in shown


def test_an_invoice_of_a_period_that_is_over(cli, ledger, now_ms):
    began = datetime.fromtimestamp((now_ms - 40 * DAY_MS) / 1000, UTC)
    for day in (began.date(), datetime.fromtimestamp((now_ms - 35 * DAY_MS) / 1000, UTC).date()):
        found = json.loads(cli("invoice", "ada", "--period", str(day), "--json").out)
        assert (found["used_units"], found["overage"], found["total"]) == ("2", "0", "5.5")
        assert found["period_start_ms"] == now_ms - 40 * DAY_MS


def test_an_invoice_that_does_not_add_up_says_so(cli, ledger, sql_of):
    sql_of(ledger, "UPDATE usage_record SET charge_nano = charge_nano + 1 WHERE call_id = 'c2'")
    done = cli("invoice", "ada")
    assert done.code == 1
    assert "WRONG: the plan makes $5.511 of it." in done.out
    assert json.loads(cli("invoice", "ada", "--json").out)["agrees"] is False


@pytest.mark.parametrize(
    ("arguments", "code", "word"),
    [
        (("invoice", "nobody"), 1, "nobody"),
        (("invoice", "ada", "--period", "tomorrow"), 2, "'tomorrow' is no day"),
        (("invoice", "ada", "--period", "9999-12-31"), 2, "is no day"),
        (("outbox", "show", "mb_x"), 1, "There is no batch 'mb_x'."),
        (("outbox", "retry"), 2, "name a batch, or say --all-dead"),
        (("outbox", "retry", "mb_x"), 1, "There is no batch 'mb_x'."),
        (("outbox", "retry", "--all-dead", "--told"), 2, "are said of one batch"),
    ],
)
def test_what_cannot_be_meant_is_told(cli, ledger, arguments, code, word):
    done = cli(*arguments)
    assert done.code == code
    assert word in done.err


def test_the_outbox_shows_what_waits_and_what_was_given_up(cli, ledger, now_ms):
    found = json.loads(cli("outbox", "list", "--json").out)
    assert found["batches"] == []
    assert (found["backlog"]["unfrozen"], found["backlog"]["waiting"], found["backlog"]["dead"]) == (4, 0, 0)
    batch_id = freeze(ledger, now_ms)
    found = json.loads(cli("outbox", "list", "--state", "dead", "--json").out)
    # What was used 39 days ago is dead by its age.
    assert sorted((one["units"], one["state"]) for one in found["batches"]) == [("15", "dead"), ("2", "dead")]
    assert found["backlog"]["unfrozen"] == 0
    assert json.loads(cli("outbox", "list", "--customer", "bob", "--json").out)["batches"] == []
    shown = cli("outbox", "list").out
    assert batch_id in shown
    assert "No such customer" in shown
    assert "0 wait, 2 are dead, 0 calls are in no batch yet." in shown
    one = json.loads(cli("outbox", "show", batch_id, "--json").out)
    assert (one["units"], one["left_units"], one["identifier"], one["attempts"]) == ("15", "0.5", batch_id, 1)
    assert f"identifier       {batch_id}" in cli("outbox", "show", batch_id).out
    invoice = json.loads(cli("invoice", "ada", "--json").out)
    assert invoice["told_units"] == {"dead": "15"}
    assert "Told to the biller: 15 dead units." in cli("invoice", "ada").out


def test_the_outbox_is_retried(cli, ledger, now_ms):
    batch_id = freeze(ledger, now_ms)
    assert cli("outbox", "retry", batch_id).out == "1 batches are sent by the gateway, as soon as it runs.\n"
    assert json.loads(cli("outbox", "show", batch_id, "--json").out)["state"] == "waiting"
    assert json.loads(cli("outbox", "retry", "--all-dead", "--json").out) == {"changed": 1}
    assert cli("outbox", "retry", batch_id, "--unsent").code == 0
    assert cli("outbox", "retry", batch_id, "--told").out == "It is settled.\n"
    assert json.loads(cli("outbox", "show", batch_id, "--json").out)["error"] == "settled by hand"
    assert cli("outbox", "retry", batch_id, "--told").out == "It was settled before; nothing is changed.\n"
    assert cli("outbox", "retry", batch_id).out == "The biller has it; nothing is changed.\n"


def test_revenue_by_plan_has_margins_and_monthly_prices(cli, ledger):
    found = json.loads(cli("revenue", "--by", "plan", "--period", "last_30_days", "--json").out)
    (row,) = found["rows"]
    assert (row["plan"], row["charge"], row["cost"], row["margin"]) == ("small", "0.011", "0.003", "0.008")
    assert found["monthly"] == [{"plan": "small", "customers": 2, "monthly_price": "5.5", "total": "11"}]
    shown = cli("revenue", "--by", "model", "--period", "last_30_days").out
    assert [line.split()[0] for line in shown.splitlines()] == ["MODEL", "gpt-4o", "o3", "sum", "Monthly"]
    assert "Monthly prices: 2 on small at $5.5 are $11." in shown


def test_the_doctor_says_what_nobody_is_told_only_where_somebody_should_be(cli, ledger, gateway, sql_of):
    assert cli("doctor", "--json").code == 0
    file = gateway / "gateway.toml"
    text = file.read_text()
    assert "[stripe]\n" in text
    file.write_text(text.replace("[stripe]\n", '[stripe]\npaper = "paper.jsonl"\n', 1))
    checks = {check["name"]: check for check in json.loads(cli("doctor", "--json").out)["checks"]}
    # The call of 39 days ago.
    assert checks["unbilled"]["found"][0]["place"] == "ada"
    assert not checks["unbilled"]["ok"]


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE meter_batch SET value = value + 1 WHERE value = 15", "is not the sum of its rows"),
        ("UPDATE meter_batch SET carried_micro = carried_micro - 1 WHERE value = 15", "is not the sum of its rows"),
        ("UPDATE owed SET batch_id = NULL WHERE call_id = 'c0'", "is not the sum of its rows"),
        ("UPDATE owed SET batch_id = 'gone' WHERE call_id = 'c0'", "is in a batch that there is not"),
        ("UPDATE meter_batch SET customer_id = 'bob' WHERE value = 15", "is in the batch of another customer"),
        ("UPDATE meter_account SET residue_micro = residue_micro + 1", "carries something else"),
        ("DELETE FROM meter_account", "carries something else"),
        ("DELETE FROM meter_batch WHERE value = 15", "carries something else"),
    ],
)
def test_the_doctor_finds_batches_that_are_not_what_is_owed(cli, ledger, now_ms, sql_of, statement, words):
    freeze(ledger, now_ms)

    def checks():
        return {check["name"]: check for check in json.loads(cli("doctor", "--json").out)["checks"]}

    well = checks()
    assert well["batches"]["ok"]
    assert (well["batches"]["figures"]["batches"], well["batches"]["figures"]["units"]) == (2, 17)
    assert (well["dead letters"]["ok"], well["dead letters"]["figures"]) == (False, {"dead": 2})
    sql_of(ledger, statement)
    found = checks()["batches"]
    assert not found["ok"]
    assert any(words in odd["what"] for odd in found["found"]), found


def given_up_event(url, now_ms):
    """One event that is done, one that was given up, one that waits."""

    async def body(store):
        await store.keep_events([Event(f"evt_{n}", "invoice.paid", f'{{"id": "evt_{n}"}}') for n in "abc"], now_ms)
        for kept in await store.claim_events(now_ms, now_ms, 2):
            done = kept.event.id == "evt_a"
            await store.event_ended(kept, now_ms, error=None if done else "no plan has a price")

    stored(url, body)


def test_events_of_stripe_are_listed_shown_and_worked_on_again(cli, ledger, now_ms):
    given_up_event(ledger, now_ms)
    done = cli("stripe", "events", "list", "--state", "dead")
    assert (done.code, done.out.count("\n")) == (0, 2)
    assert re.search(r"evt_b +invoice\.paid +dead +1 .*no plan has a price", done.out)
    found = json.loads(cli("stripe", "events", "list", "--json").out)
    assert {one["event"]: one["state"] for one in found} == {"evt_a": "done", "evt_b": "dead", "evt_c": "waiting"}
    shown = cli("stripe", "events", "show", "evt_b")
    assert "no plan has a price" in shown.out
    assert shown.out.endswith('{"id": "evt_b"}\n')
    assert json.loads(cli("stripe", "events", "show", "evt_b", "--json").out)["body"] == {"id": "evt_b"}
    assert cli("stripe", "events", "retry").code == 2
    assert cli("stripe", "events", "retry", "evt_x").code == 1
    assert cli("stripe", "events", "retry", "evt_a").out == "It is done; nothing is changed.\n"
    assert json.loads(cli("stripe", "events", "retry", "--all-dead", "--json").out) == {"retried": 1}
    assert "1 events are worked on" in cli("stripe", "events", "retry", "evt_b").out
    assert json.loads(cli("stripe", "events", "list", "--state", "dead", "--json").out) == []


def test_a_batch_is_charged_at_stripe_only(cli, ledger, now_ms, monkeypatch):
    freeze(ledger, now_ms)
    (batch,) = [one for one in json.loads(cli("outbox", "list", "--json").out)["batches"] if one["units"] == "15"]
    refused = cli("outbox", "charge", batch["batch"])
    assert refused.code == 2
    assert "no secret key of Stripe" in refused.err
    monkeypatch.setenv("STRIPE_SECRET_KEY", "sk_test_0123456789")
    refused = cli("outbox", "charge", batch["batch"], "--dry-run")
    assert refused.code == 1
    assert "has no account at Stripe" in refused.err
    stored(ledger, lambda store: store.link_account("ada", "cus_1"))
    # 5.5 units above the 10 that are included, at $0.002.
    assert cli("outbox", "charge", batch["batch"], "--dry-run").out == "15 units of ada: 1 cents.\n"
    assert json.loads(cli("outbox", "charge", batch["batch"], "--dry-run", "--json").out)["invoice_item"] is None
