"""simulate: plans that did not change give what was charged, to the nano-dollar; other plans what they promise."""

import asyncio
import json
import tempfile
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from fakes.past import MICRO, NOW_MS, customer, hold, metered, record, settle, stored
from hypothesis import given, settings
from hypothesis import strategies as st

from gatekeeper.cli.simulate import Simulation
from gatekeeper.config import load_gateway
from gatekeeper.meters import compile_meter
from gatekeeper.money import Price
from gatekeeper.rules.limits import Mode, Scope, StockLimit, Window
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.simulate import Terms
from gatekeeper.rules.windows import DAY_MS, HOUR_MS

STREAM = (Path(__file__).resolve().parents[1] / "streams" / "openai_chat_usage.sse").read_bytes()
# Where a file costs no fsync: these tests make many.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
FOR_EVER_MS = 2**62


def plan(plan_id, window=Window.MONTH, cap=10, price=None, per=1, monthly="0", zone="UTC"):
    """A plan that blocks, or charges what lies beyond."""
    mode = Mode.BLOCK if price is None else Mode.OVERAGE
    quota = StockLimit("quota", Scope.CUSTOMER, "units", window, None if cap is None else cap * MICRO, mode, zone)
    overage = None if price is None else Price(Decimal(price), per)
    return Plan(plan_id, plan_id, Decimal(monthly), quota, overage)


PLANS = {
    one.id: one
    for one in (
        plan("free"),
        plan("starter", cap=20, price="0.002", monthly="29"),
        plan("odd", cap=3, price="0.0000000007", per=3, monthly="1.5"),
        plan("paris", cap=3, price="0.001", zone="Europe/Paris"),
        plan("daily", Window.DAY, cap=2, price="0.01"),
        plan("period", Window.BILLING_PERIOD, cap=15, price="0.003", monthly="99"),
        plan("total", Window.TOTAL, cap=30, price="1"),
        Plan("enterprise", "enterprise", Decimal(499), None),
    )
}

calls = st.lists(
    st.tuples(
        st.sampled_from(["ada", "bob"]),
        st.sampled_from(sorted(PLANS)),
        # Three months around the change of clocks, by the hour; many at the same instant.
        st.integers(-60 * 24, 60 * 24).map(lambda hours: NOW_MS + hours * HOUR_MS) | st.just(NOW_MS),
        st.integers(0, 12_345_678),
        # Whether it was held, settled late after a recovery, or is only recovered.
        st.sampled_from(["settled", "held", "late", "lost"]),
    ),
    max_size=24,
)


async def live(store, past):
    """The calls as they came: some hold at once and end in another order."""
    anchors = {"ada": NOW_MS - 40 * DAY_MS, "bob": NOW_MS - 3 * DAY_MS}
    for customer_id, anchor_ms in anchors.items():
        await customer(store, customer_id, "free", anchor_ms)
    made = []
    for number, (customer_id, plan_id, started_ms, units_micro, way) in enumerate(past):
        one = record(f"c{number:03}", plan_id, units_micro, customer_id=customer_id, started_ms=started_ms)
        made.append((replace(one, ended_ms=started_ms + 900), way))
        if way != "settled":
            # A lost call is known by its last progress; the hold has it already.
            await hold(store, one, PLANS[plan_id], anchors[customer_id])
    await store.recover(FOR_EVER_MS, PLANS, limit=0)
    lost = [one for one, way in made if way in ("late", "lost")]
    kept = [one for one, way in made if way == "held"]
    await asyncio.gather(*(settle(store, one, PLANS[one.plan_id]) for one in kept))
    if lost:
        while await store.recover(FOR_EVER_MS, PLANS, limit=100):
            pass
    for one, way in reversed(made):
        if way in ("settled", "late"):
            await settle(store, one, PLANS[one.plan_id])


def replayed(past, terms, page=3):
    """What a simulation tells of such a ledger, and what the database says was charged (customer -> nano-dollars)."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:

        async def body(store):
            await live(store, past)
            simulation = Simulation(terms, FOR_EVER_MS, None, None, page=page)
            told = await simulation.run(store)
            charged = {}
            for one in await store.records(limit=1_000):
                if one.started_ms >= terms.since_ms:
                    charged[one.customer_id] = charged.get(one.customer_id, 0) + one.charge_nano
            return dict(told.customers), charged

        return stored(f"sqlite:///{folder}/x.sqlite", body)


@settings(max_examples=120, deadline=None)
@given(past=calls, since_day=st.none() | st.integers(-70, 70))
def test_plans_that_did_not_change_give_what_was_charged_to_the_nano(past, since_day):
    since_ms = 0 if since_day is None else NOW_MS + since_day * DAY_MS
    customers, charged = replayed(past, Terms(PLANS, PLANS, since_ms=since_ms))
    for customer_id, one in customers.items():
        for period in one.periods:
            assert period.overage_then_nano == period.overage_now_nano, period
            assert period.units_then_micro == period.units_now_micro
        assert one.then_nano == one.now_nano
        assert (one.refused, one.cut) == (0, 0)
        assert sum(period.overage_now_nano for period in one.periods) == charged[customer_id]


@settings(max_examples=60, deadline=None)
@given(past=calls, window=st.sampled_from(list(Window)), cap=st.integers(0, 30))
def test_one_plan_for_all_charges_each_window_as_a_whole(past, window, cap):
    tried = plan("tried", window, cap, "0.0000000013", 7, monthly="10")
    terms = Terms(PLANS, {"tried": tried}, dict.fromkeys(PLANS, "tried"))
    customers, _ = replayed(past, terms)
    for one in customers.values():
        for period in one.periods:
            assert period.overage_then_nano == tried.overage_nano(0, period.units_then_micro)
    units = {name: sum(p.units_then_micro for p in one.periods) for name, one in customers.items()}
    taken = {}
    for customer_id, _, _, units_micro, way in past:
        taken[customer_id] = taken.get(customer_id, 0) + (0 if way == "lost" else units_micro)
    assert units == taken


@settings(max_examples=40, deadline=None)
@given(past=calls, cap=st.integers(0, 30))
def test_a_quota_that_blocks_admits_nothing_once_it_is_used_up(past, cap):
    tried = plan("tried", Window.TOTAL, cap)
    customers, _ = replayed(past, Terms({}, {"tried": tried}, dict.fromkeys(PLANS, "tried")))
    for customer_id, one in customers.items():
        mine = sorted(
            (started_ms, number, 0 if way == "lost" else units, way)
            for number, (name, _, started_ms, units, way) in enumerate(past)
            if name == customer_id
        )
        used = refused = 0
        for _, _, units, way in mine:
            # A recovery charged nothing, so it is its correction that counts: it belongs to an admitted call.
            if used >= cap * MICRO and units and way != "late":
                refused += 1
            else:
                used += units
        assert one.refused == refused
        assert sum(period.units_then_micro for period in one.periods) == used


def test_pages_of_any_size_tell_the_same():
    past = [("ada", "starter", NOW_MS, 7 * MICRO, way) for way in ("settled", "held", "late", "lost") * 4]
    terms = Terms(PLANS, {**PLANS, "starter": plan("starter", cap=5, price="0.5")})
    first, *others = [replayed(past, terms, page)[0] for page in (1, 2, 5, 1_000)]
    assert first["ada"].then_nano != first["ada"].now_nano
    assert all(other == first for other in others)


# --- the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(gateway, store_url, monkeypatch):
    """Ada on Free with 9,000 and 900 units, and Bob on Starter with 99,990 and 20; in plans/ as they are shipped."""
    monkeypatch.setenv("DATABASE_URL", store_url)
    plans = load_gateway(Path("gateway.toml"), {}).plans
    meter = compile_meter("usage().total")

    async def body(store):
        for customer_id, plan_id, amounts in (("ada", "free", (9_000, 900)), ("bob", "starter", (99_990, 20))):
            await customer(store, customer_id, plan_id)
            for number, units in enumerate(amounts):
                one = metered(f"{customer_id}{number}", plan_id, meter, STREAM, customer_id=customer_id)
                usage = {**one.evidence["usage()"], "output": units - 12, "total": units}
                one = replace(one, units_micro=units * MICRO, evidence={"usage()": usage}, usage=usage)
                await settle(store, replace(one, started_ms=NOW_MS + number * DAY_MS), plans[plan_id])

    stored(store_url, body)
    return store_url


@pytest.fixture
def tried(gateway):
    """A directory with the shipped plans, to be changed."""
    folder = gateway / "tried"
    folder.mkdir()
    for path in (gateway / "plans").glob("*.toml"):
        text = path.read_text()
        (folder / path.name).write_text(text[: text.index("[[example]]")] if "[[example]]" in text else text)
    return folder


def changed(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_the_plans_as_they_are_make_no_difference(cli, ledger):
    done = cli("simulate", "--plans", "plans")
    assert (done.code, done.err) == (0, "")
    assert [line.split() for line in done.out.splitlines()] == [
        ["CUSTOMER", "CALLS", "NOW", "THEN", "DIFFERENCE", "REFUSED", "CUT"],
        ["ada", "2", "$0", "$0", "$0", "0", "0"],
        ["bob", "2", "$29.02", "$29.02", "$0", "0", "0"],
        ["sum", "4", "$29.02", "$29.02", "$0", "0", "0"],
    ]


def test_another_price_quota_and_fee_are_charged_and_refused(cli, ledger, tried):
    changed(tried / "starter.toml", "100_000", "90_000")
    changed(tried / "starter.toml", "monthly_price = 29", "monthly_price = 19")
    changed(tried / "free.toml", "10_000", "8_000")
    told = json.loads(cli("simulate", "--plans", "tried", "--json").out)
    ada, bob = told["customers"]
    assert (ada["refused"], ada["cut"], ada["difference"]) == (1, 1, "0")
    assert ada["periods"][0]["units_then"] == "9000"
    # 10,010 beyond at $0.002, and $19.
    assert (bob["charge_now"], bob["charge_then"], bob["difference"]) == ("29.02", "39.02", "10")
    assert (bob["fees_then"], bob["periods"][0]["overage_then"]) == ("19", "20.02")
    assert told["total"]["difference"] == "10"
    assert "+$10" in cli("simulate", "--plans", "tried").out


PAIRS = """
[[limits]]
scope = "user,model"
subject = "each,gpt-4o"
units = 100
window = "day"
release = "billing_period"
[[limits]]
scope = "customer,model"
dollars = "0.01"
window = "month"
[[rates]]
scope = "key,route"
subject = "each,chat"
requests = 1
"""


def test_limits_of_pairs_beside_the_quota_are_read_and_change_nothing(cli, ledger, tried, gateway, store_url):
    """Also of calls that counted on pairs, and closed one: their charges are what they were."""
    for name in ("free", "starter"):
        path = gateway / "plans" / f"{name}.toml"
        text = path.read_text()
        path.write_text(text[: text.index("[[example]]")] + PAIRS)
        (tried / f"{name}.toml").write_text(path.read_text())
    plans = load_gateway(Path("gateway.toml"), {}).plans

    async def body(store):
        for customer_id, plan_id in (("ada", "free"), ("bob", "starter")):
            who = {"customer_id": customer_id, "user_id": "ann", "started_ms": NOW_MS + 2 * DAY_MS}
            one = record(f"{customer_id}-pairs", plan_id, 90 * MICRO, **who)
            made = replace(one, ended_ms=one.started_ms + 900)
            await hold(store, made, plans[plan_id])
            await settle(store, replace(made, units_micro=100 * MICRO), plans[plan_id])

    stored(store_url, body)
    told = json.loads(cli("simulate", "--plans", "tried", "--json").out)
    assert [(one["calls"], one["difference"], one["refused"]) for one in told["customers"]] == [(3, "0", 0)] * 2
    assert [one["charge_then"] for one in told["customers"]] == ["0", "29.22"]
    assert json.loads(cli("simulate", "--plans", "plans", "--json").out) == told


def test_a_pair_that_names_somebody_in_a_plan_to_try_is_told_with_its_place(cli, ledger, tried):
    path = tried / "free.toml"
    path.write_text(path.read_text() + PAIRS.replace("each,gpt-4o", "ada/ann,gpt-4o"))
    done = cli("simulate", "--plans", "tried")
    assert (done.code, done.out) == (2, "")
    assert "'ada/ann' is one customer's" in done.err
    assert "tried/free.toml:" in done.err


def test_a_quota_that_waits_for_the_billing_period_refuses_the_days_after(cli, ledger, tried):
    changed(tried / "free.toml", "10_000", "9_000")
    changed(tried / "free.toml", 'window = "month"', 'window = "day"')

    def refused(*flags):
        found = json.loads(cli("simulate", "--plans", "tried", "--json", "--customer", "ada", *flags).out)["total"]
        return found["calls"], found["refused"], found["cut"]

    # 9,000 on one day and 900 on the next: a day that opens again refuses nothing.
    assert refused() == (2, 0, 0)
    changed(tried / "free.toml", 'window = "day"', 'window = "day"\nrelease = "billing_period"')
    assert refused() == (2, 1, 0)
    # What was used before the first day that is looked at has closed it too.
    assert refused("--since", "2026-06-16") == (1, 1, 0)
    changed(tried / "free.toml", "9_000", "9_001")
    assert refused() == (2, 0, 0)


def test_customers_of_a_plan_are_moved_to_another(cli, ledger, tried):
    (tried / "free.toml").unlink()
    refused = cli("simulate", "--plans", "tried")
    assert (refused.code, refused.out) == (2, "")
    assert "calls on plan 'free'" in refused.err
    assert "--move free=PLAN" in refused.err
    told = json.loads(cli("simulate", "--plans", "tried", "--move", "free=starter", "--json").out)
    assert [one["difference"] for one in told["customers"]] == ["29", "0"]


def test_days_and_a_customer_are_picked(cli, ledger):
    def calls_of(*flags):
        return json.loads(cli("simulate", "--plans", "plans", "--json", *flags).out)["total"]

    assert calls_of("--customer", "bob")["calls"] == 2
    later = calls_of("--customer", "bob", "--since", "2026-06-16")
    # What was used before stands on the counter.
    assert (later["calls"], later["charge_now"], later["charge_then"]) == (1, "29.02", "29.02")
    assert calls_of("--until", "2026-06-15")["calls"] == 2
    assert calls_of("--since", "2030-01-01")["calls"] == 0


def test_another_meter_reads_the_evidence_again(cli, ledger, gateway):
    text = (gateway / "gateway.toml").read_text()
    (gateway / "other.toml").write_text(
        text.replace('meter = "usage().total"', 'meter = "usage().input + 2 * usage().output"')
    )
    told = json.loads(cli("simulate", "--meters", "other.toml", "--json").out)
    assert (told["read_again"], told["not_read_again"]) == (4, {})
    ada, bob = told["customers"]
    assert ada["periods"][0]["units_then"] == str(2 * 9_900 - 24)
    assert bob["periods"][0]["overage_then"] == str(Decimal(2 * 100_010 - 24 - 100_000) * 2 / 1000)


def test_calls_whose_evidence_does_not_suffice_are_counted_as_they_were(cli, ledger, gateway):
    text = (gateway / "gateway.toml").read_text()
    other = 'meter = "last(events, .json.usage.total_tokens)"'
    (gateway / "other.toml").write_text(text.replace('meter = "usage().total"', other))
    done = cli("simulate", "--meters", "other.toml", "--plans", "plans")
    assert done.code == 0
    assert done.out.splitlines()[-1].split() == ["sum", "4", "$29.02", "$29.02", "$0", "0", "0"]
    assert done.err == "note: 4 calls of route 'chat' cannot be read again from their evidence: counted as they were\n"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "nothing to try"),
        (("--plans", "nowhere"), "no directory"),
        (("--plans", "."), "no plan in"),
        (("--plans", "plans", "--move", "free"), "OLD=NEW"),
        (("--plans", "plans", "--move", "free=strter"), "did you mean 'starter'"),
        (("--plans", "plans", "--since", "June"), "not a day"),
        (("--plans", "plans", "--since", "2026-06-02", "--until", "2026-06-01"), "--until lies before"),
        (("--plans", "plans", "--customer", "eve"), "no customer 'eve'"),
    ],
)
def test_what_cannot_be_simulated_is_said(cli, ledger, gateway, flags, said):
    (gateway / "gateway.toml").rename(gateway / "config")
    done = cli("simulate", "--config", "config", *flags)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_a_plan_with_a_mistake_is_shown_with_its_place(cli, ledger, tried):
    changed(tried / "starter.toml", '"billing_period"', '"year"')
    done = cli("simulate", "--plans", "tried")
    assert (done.code, done.out) == (2, "")
    assert "tried/starter.toml:" in done.err
    assert "^" in done.err
