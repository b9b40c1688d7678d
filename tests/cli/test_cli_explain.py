"""explain: every figure of a record beside the same figure worked out again, and what has changed since."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from fakes.past import MICRO, NOW_MS, customer, hold, metered, record, settle, stored

from gatekeeper.config import load_gateway
from gatekeeper.meters import compile_meter
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import Attempt, Progress, Settlement
from gatekeeper.rules.prices import cost_nano, price_of

STREAM = (Path(__file__).resolve().parents[1] / "streams" / "openai_chat_usage.sse").read_bytes()
SILENT = (Path(__file__).resolve().parents[1] / "streams" / "openai_chat_no_usage.sse").read_bytes()
METER = compile_meter("usage().total")
PRICE = price_of({"model": "gpt-4o", "source": "toml", "per": 1_000_000, "input": "2.5", "output": "10"})
# A call of 15 units that crosses the 100,000 which plan Starter includes, by 5.
BEFORE = 99_990 * MICRO


@pytest.fixture
def call(cli, gateway, store_url, monkeypatch):
    """``call(record)``: settles it on plan Starter after 99,990 units, and gives what explain says of it."""
    monkeypatch.setenv("DATABASE_URL", store_url)
    plan = load_gateway(Path("gateway.toml"), {}).plans["starter"]

    async def begun(store):
        await customer(store, "ada", "starter")
        await settle(store, record("before", "starter", BEFORE), plan)

    stored(store_url, begun)

    def run(made, *flags):
        async def body(store):
            await hold(store, made, plan)
            await settle(store, made, plan)

        stored(store_url, body)
        return cli("explain", made.call_id, *flags)

    return run


def told(done):
    assert (done.code, done.err) == (0, "")
    return json.loads(done.out)


def priced(made):
    """The record with what the provider took, as the proxy writes it."""
    return replace(
        made, cost_nano=cost_nano(PRICE, made.usage or {}), evidence={**made.evidence, "$price": PRICE.evidence()}
    )


def test_a_call_is_explained_from_the_answer_to_the_charge(call):
    done = call(priced(metered("c1", "starter", METER, STREAM)))
    assert done.code == 0
    assert (
        done.out.splitlines()
        == [
            "Call c1: 15 units, charged $0.01",
            "  who       customer ada, plan starter, key k1",
            "  what      POST /v1/chat/completions: route chat, upstream openai, model gpt-4o, streamed",
            "  when      2026-06-15 12:00:00.000 UTC",
            "  ended     complete, status 200, after 900 ms",
            f"  meter     usage().total  [{METER.hash}]",
            '  evidence  usage() = {"input": 12, "output": 3, "total": 15, "cached_input": 8, "reasoning": 1}',
            "  read      measured",
            "  policy    the reading counts as it is",
            "  again     15 units, measured: the same",
            "  quota     100,000 included per billing_period since 2026-06-15 12:00:00.000: 99,990 -> 100,005",
            "  overage   5 beyond at $0.002 per 1 unit = $0.01, less 0 beyond before = $0: $0.01",
            "  charge    $0.01 for 15 units",
            "  counted   15 on quota (customer ada, units per billing_period) (99,990 -> 100,005)",
            "  price     gpt-4o (toml), $ per 1,000,000: input 2.5, output 10",
            "  cost      $0.00006 at the provider; again: the same; charge less cost: $0.00994",
            "  overrun   14 units more than were held",
        ][:-1]
    )


def test_the_same_stands_in_json_with_exact_amounts(call):
    found = told(call(priced(metered("c1", "starter", METER, STREAM)), "--json"))
    assert (found["units"], found["charge"], found["warnings"]) == ("15", "0.01", [])
    assert found["reading"]["again"] == {"units": "15", "source": "measured", "same": True}
    (step,) = found["steps"]
    assert (step["quota"]["before"], step["quota"]["after"]) == ("99990", "100005")
    assert (step["overage"]["beyond_before"], step["overage"]["beyond_after"]) == ("0", "5")
    assert (found["cost"]["cost"], found["cost"]["same"], found["cost"]["margin"]) == ("0.00006", True, "0.00994")


@pytest.mark.parametrize(
    ("changes", "policy", "units"),
    [
        (
            {"source": Mark.ESTIMATED, "note": "unmeasured: input estimated 12, output 30", "units_micro": 42 * MICRO},
            "nothing was read: unmeasured = 'estimate'",
            "42",
        ),
        (
            {"outcome": Outcome.UPSTREAM_FAILED, "source": Mark.NONE, "note": "upstream failed, nothing measured"},
            "the upstream failed and nothing was measured: it is not sold on a guess",
            "0",
        ),
        (
            {"evidence": {"$skipped": "status"}, "status": 429, "source": Mark.NONE, "note": "status"},
            "not metered: status",
            "0",
        ),
    ],
)
def test_what_was_not_measured_names_its_policy(call, changes, policy, units):
    found = told(call(metered("c1", "starter", METER, SILENT, **changes), "--json"))
    assert found["reading"]["policy"] == policy
    assert found["reading"]["again"]["units"] == units
    assert found["reading"]["again"]["same"] is True
    assert found["warnings"] == []


def test_another_meter_today_is_said_and_reads_what_the_evidence_holds(call, gateway):
    text = (gateway / "gateway.toml").read_text()
    assert 'meter = "usage().total"' in text
    (gateway / "gateway.toml").write_text(text.replace('meter = "usage().total"', 'meter = "usage().output * 10"'))
    found = told(call(metered("c1", "starter", METER, STREAM), "--json"))
    assert found["reading"]["again"] == {"units": "30", "source": "measured", "same": False}
    (warning,) = found["warnings"]
    assert "another one today" in warning
    assert METER.hash in warning


def test_evidence_that_another_meter_does_not_have_is_said(call, gateway):
    text = (gateway / "gateway.toml").read_text()
    other = 'meter = "last(events, .json.usage.total_tokens)"'
    (gateway / "gateway.toml").write_text(text.replace('meter = "usage().total"', other))
    found = told(call(metered("c1", "starter", METER, STREAM), "--json"))
    assert found["reading"]["again"] is None
    assert found["reading"]["policy"].startswith("the evidence does not hold last(")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"units_micro": 16 * MICRO}, "the evidence gives 15 units (measured) today, the record has 16"),
        ({"source": Mark.DEFAULT}, "the record has 15 (default)"),
        ({"route": "gone"}, "there is no route 'gone' any more"),
        ({"cost_nano": 1}, "give 0.00006, the record has $0.000000001"),
    ],
)
def test_a_record_that_its_own_evidence_contradicts_is_said(call, changes, said):
    made = priced(metered("c1", "starter", METER, STREAM))
    done = call(replace(made, **changes))
    assert done.code == 0
    (warning,) = [line for line in done.out.splitlines() if "WARNING" in line]
    assert said in warning


def test_a_plan_that_has_another_price_today_is_said(cli, call, gateway):
    plan = gateway / "plans" / "starter.toml"
    text = plan.read_text()
    made = metered("c1", "starter", METER, STREAM)
    call(made)
    plan.write_text(text[: text.index("[[example]]")].replace('"0.002"', '"0.003"'))
    (warning,) = told(cli("explain", "c1", "--json"))["warnings"]
    assert warning == "by plan 'starter' of today this is $0.015, the record has $0.01: has the plan changed?"


def test_a_call_in_flight_says_what_it_holds(cli, call, store_url):
    plan = load_gateway(Path("gateway.toml"), {}).plans["starter"]
    stored(store_url, lambda store: hold(store, record("open", "starter", 0), plan))
    done = cli("explain", "open")
    assert done.out.splitlines()[0] == "Call open is in flight: nothing is charged yet."
    assert "  holds     1 of quota (customer ada, units per billing_period)" in done.out
    assert told(cli("explain", "open", "--json"))["held"][0]["amount"] == "1"


def test_a_recovery_and_its_correction_are_told_step_by_step(cli, call, store_url):
    plan = load_gateway(Path("gateway.toml"), {}).plans["starter"]
    made = metered("c1", "starter", METER, STREAM)

    async def lost(store):
        await hold(store, made, plan)
        assert await store.recover(NOW_MS + 40_000, {"starter": plan}) == 1

    stored(store_url, lost)
    before = told(cli("explain", "c1", "--json"))
    assert before["units"] == "0"
    assert before["history"] == [
        "its process died; the sweeper charged the last progress (0 of 1 held, 1 at our risk)",
        "a late true settle would append a correction",
    ]
    stored(store_url, lambda store: settle(store, made, plan))
    after = told(cli("explain", "c1", "--json"))
    assert (after["units"], after["charge"], after["warnings"]) == ("15", "0.01", [])
    assert [step["charge"] for step in after["steps"]] == ["0", "0.01"]
    assert after["history"][-1] == "the true settle came later: 15 units and $0.01 were added as a correction"


DAILY = """
[[limits]]
name = "daily"
units = 10
window = "day"
release = "billing_period"

[[limits]]
name = "spent"
dollars = "0.00005"
window = "day"
release = "billing_period"
"""
CLOSED = "(customer ada, units per day) reached its cap of 10: closed until the billing period turns"


def test_a_limit_that_the_call_closed_is_named_as_people_know_it(cli, gateway, store_url, monkeypatch):
    path = gateway / "plans" / "starter.toml"
    text = path.read_text()
    path.write_text(text[: text.index("[[example]]")] + DAILY)
    monkeypatch.setenv("DATABASE_URL", store_url)
    plan = load_gateway(Path("gateway.toml"), {}).plans["starter"]
    made = priced(metered("c1", "starter", METER, STREAM))

    async def begun(store):
        await hold(store, made, plan)

    async def ended(store):
        await settle(store, made, plan)

    stored(store_url, begun)
    shown = cli("explain", "c1").out
    assert "  holds     1 of daily (customer ada, units per day)" in shown
    assert "hit:" not in shown + cli("explain", "c1", "--json").out
    stored(store_url, ended)
    shown = cli("explain", "c1").out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in shown if line.startswith("  closed")] == [
        f"daily {CLOSED}",
        "spent (customer ada, dollars per day) reached its cap of $0.00005: closed until the billing period turns",
    ]
    assert "  counted   15 on daily (customer ada, units per day) (0 -> 15)" in shown
    found = told(cli("explain", "c1", "--json"))
    assert [(line["dimension"], line["window"], line["cap"]) for line in found["closed"]] == [
        ("units", "day", "10"),
        ("dollars", "day", "0.00005"),
    ]
    assert "hit:" not in json.dumps(found)


def test_a_correction_below_the_cap_is_told_as_what_opens_it_again(cli, gateway, store_url, monkeypatch):
    path = gateway / "plans" / "starter.toml"
    text = path.read_text()
    path.write_text(text[: text.index("[[example]]")] + DAILY.replace("units = 10", "units = 20"))
    monkeypatch.setenv("DATABASE_URL", store_url)
    plan = load_gateway(Path("gateway.toml"), {}).plans["starter"]
    made = metered("c1", "starter", METER, STREAM)

    async def lost(store):
        await hold(store, made, plan)
        await store.renew([Progress("c1", 21 * MICRO, output_seen=True)], NOW_MS + 1_000)
        assert await store.recover(NOW_MS + 60_000, {"starter": plan}) == 1
        await settle(store, made, plan)

    stored(store_url, lost)
    found = told(cli("explain", "c1", "--json"))
    assert [(line["closed"], line["cap"]) for line in found["closed"]] == [(True, "20"), (False, None)]
    shown = cli("explain", "c1").out.splitlines()
    assert "  opened    daily (customer ada, units per day) did not reach its cap after all: open again" in shown


def test_a_request_that_is_not_there_is_said(cli, call):
    done = cli("explain", "nothing")
    assert (done.code, done.out) == (1, "")
    assert "no request 'nothing'" in done.err
    assert "X-Gatekeeper-Call-Id" in done.err


def test_a_price_comes_back_from_what_was_stored():
    shown = {
        "model": "m",
        "source": "genai-prices",
        "per": 1_000_000,
        "input": "1.25",
        "cached_input": "0.125",
        "output": "10",
        "provider": "openai",
        "tiers": [{"above": 200_000, "input": "2.5", "output": "15"}],
        "request": "0.01",
        "from_ms": 5,
    }
    assert price_of(shown).evidence() == shown


def test_who_did_not_serve_and_what_was_asked_for_stand_in_the_explanation(cli, gateway, store_url, monkeypatch):
    monkeypatch.setenv("DATABASE_URL", store_url)
    made = replace(metered("c1", "starter", METER, STREAM), model="gpt-4o-mini", model_requested="gpt-4o")
    tries = (
        Attempt(1, "openai", "gpt-4o-mini", NOW_MS, NOW_MS + 12, fault="first_byte_timeout"),
        Attempt(2, "azure", "gpt-4o-mini", NOW_MS, NOW_MS + 30, status=503),
        Attempt(3, "local", None, NOW_MS, NOW_MS, fault="breaker_open"),
    )

    async def body(store):
        await customer(store, "ada", "starter")
        await store.settle(Settlement(made, {"units": made.units_micro}, None, made.ended_ms, attempts=tries))

    stored(store_url, body)
    shown = cli("explain", "c1").out.splitlines()
    assert [line.split(maxsplit=1)[1] for line in shown if line.startswith("  tried")] == [
        "1. openai, gpt-4o-mini: first byte timeout after 12 ms",
        "2. azure, gpt-4o-mini: status 503 after 30 ms",
        "3. local: passed over, because it had failed too often",
    ]
    assert any("asked for" in line and "gpt-4o; gpt-4o-mini served" in line for line in shown)
    found = told(cli("explain", "c1", "--json"))
    assert (found["model_requested"], [row["fault"] for row in found["attempts"]]) == (
        "gpt-4o",
        ["first_byte_timeout", None, "breaker_open"],
    )
