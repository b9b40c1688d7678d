"""Customers, keys and what was used: one contract, both databases."""

import asyncio
from dataclasses import fields, replace

import pytest

from gatekeeper.errors import Fault
from gatekeeper.meters.reading import Mark, Outcome
from gatekeeper.ports import Customer, Holder, Key, UsageTotal

ACME = Customer("acme", "Acme", "pro", 1, 2, "a@example.org", None, "cus_1")
KEY = Key("k1", "acme", "main", "gk_live_1234", 5)
FULL = Key("k2", "acme", "agent", "gk_live_5678", 6, 7, 8, 9, ("chat",), ("gpt-*", "o3"), "u", "a", True)
DAY_MS = 86_400_000


def test_a_customer_is_stored_once_and_changed_whole(with_store):
    async def body(store):
        assert await store.create_customer(ACME)
        assert not await store.create_customer(replace(ACME, name="Other"))
        assert await store.customer("acme") == ACME
        assert await store.customer("nobody") is None
        changed = replace(ACME, name="Acme & Co", plan_id="free", anchor_ms=9, email=None, disabled_ms=3)
        assert await store.update_customer(replace(changed, created_ms=777))
        assert await store.customer("acme") == changed
        assert not await store.update_customer(replace(ACME, id="nobody"))

    with_store(body)


def test_pages_go_on_after_the_last_id(with_store):
    async def body(store):
        for name in ("b", "a", "d", "c"):
            await store.create_customer(replace(ACME, id=name))
            await store.create_key(replace(KEY, id=f"k{name}", customer_id=name), f"digest-{name}")
        assert [found.id for found in await store.customers(limit=3)] == ["a", "b", "c"]
        assert [found.id for found in await store.customers(after="c")] == ["d"]
        assert [found.id for found in await store.keys(after="ka", limit=2)] == ["kb", "kc"]
        assert [found.id for found in await store.keys("d")] == ["kd"]
        assert await store.keys("d", after="kd") == []

    with_store(body)


def test_a_key_is_found_by_its_digest_with_its_customer(with_store):
    async def body(store):
        await store.create_customer(ACME)
        assert await store.create_key(KEY, "d1")
        assert await store.create_key(FULL, "d2")
        assert not await store.create_key(replace(KEY, id="k3"), "d1")
        assert not await store.create_key(KEY, "d3")
        assert await store.holder("d1") == Holder(KEY, ACME)
        assert await store.holder("d2") == Holder(FULL, ACME)
        assert await store.holder("d3") is None
        assert await store.key("k2") == FULL
        assert await store.key("k3") is None
        with pytest.raises(Fault):
            await store.create_key(replace(KEY, id="k4", customer_id="nobody"), "d4")

    with_store(body)


def test_a_key_that_may_use_nothing_is_not_one_that_may_use_all(with_store):
    async def body(store):
        await store.create_customer(ACME)
        await store.create_key(replace(KEY, routes=(), models=None), "d1")
        found = await store.key("k1")
        assert (found.routes, found.models) == ((), None)

    with_store(body)


def test_the_first_revocation_stays_and_last_use_only_goes_forward(with_store):
    async def body(store):
        await store.create_customer(ACME)
        await store.create_key(KEY, "d1")
        assert await store.revoke_key("k1", 100)
        assert await store.revoke_key("k1", 200)
        assert not await store.revoke_key("k9", 100)
        await store.touch_keys({"k1": 50, "k9": 1})
        await store.touch_keys({"k1": 40})
        await store.touch_keys({})
        found = (await store.holder("d1")).key
        assert (found.revoked_ms, found.last_used_ms) == (100, 50)

    with_store(body)


def test_every_field_of_a_record_comes_back(with_store, make):
    record = make.record(
        "c1",
        user_id="u",
        agent_id="a",
        model="o3",
        status=None,
        outcome=Outcome.CLIENT_CLOSED,
        streamed=False,
        first_byte_ms=None,
        source=Mark.DEFAULT,
        note="n",
        cost_nano=5,
        usage={"input": {"total": 3}},
        meters={"images": "2"},
        evidence={"last": [1, None, "x"]},
        meter_hash="abc",
        request_bytes=10,
        response_bytes=2**40,
        response_id="resp_1",
        model_requested="o1",
    )

    async def body(store):
        settled = await store.settle(replace(make.settlement("c1"), record=record))
        assert settled.record == record
        assert await store.record("c1") == record
        assert await store.record("c1", customer_id="acme") == record
        assert await store.record("c1", customer_id="other") is None
        assert await store.record("c2") is None
        assert await store.records() == [record]

    with_store(body)
    usual = make.record("c1")
    same = [field.name for field in fields(record) if getattr(record, field.name) == getattr(usual, field.name)]
    # What the test leaves as usual is no default that a lost column could hide behind.
    assert not [name for name in same if getattr(usual, name) in (None, 0, "")] or same[-1] == "overrun_micro"


def test_usage_is_summed_by_customer_key_and_day_in_half_open_bounds(with_store, make, sql, store_url):
    start = make.NOW_MS - make.NOW_MS % DAY_MS
    calls = [
        ("c1", start - 1, "acme", "k1", 1, None),
        ("c2", start, "acme", "k1", 2, 10),
        ("c3", start + 5, "acme", "k2", 3, 20),
        ("c4", start + DAY_MS - 1, "other", None, 4, None),
        ("c5", start + DAY_MS, "acme", "k1", 5, None),
    ]

    async def body(store):
        for call_id, at, customer, key, units, cost in calls:
            changes = {"started_ms": at, "customer_id": customer, "key_id": key, "cost_nano": cost}
            await store.settle(make.settlement(call_id, units * make.MICRO, **changes))
        day = (start, start + DAY_MS)
        assert await store.usage_total(*day) == UsageTotal(3, 9 * make.MICRO, 0, 30, start + DAY_MS - 1)
        assert await store.usage_total(*day, customer_id="acme") == UsageTotal(2, 5 * make.MICRO, 0, 30, start + 5)
        assert (await store.usage_total(*day, key_id="k1")).requests == 1
        assert (await store.usage_total(*day, customer_id="other", key_id="k1")) == UsageTotal()
        days = await store.usage_by_day(0, 2**50, customer_id="acme")
        assert [(found.day, found.total.units_micro) for found in days] == [
            ("2026-06-14", 1 * make.MICRO),
            ("2026-06-15", 5 * make.MICRO),
            ("2026-06-16", 5 * make.MICRO),
        ]
        latest = await store.records(customer_id="acme", limit=2)
        assert [found.call_id for found in latest] == ["c5", "c3"]
        assert [found.call_id for found in await store.records(before_ms=start + 5)] == ["c2", "c1"]

    with_store(body)
    assert sql(store_url, "SELECT api_key_id, date, tokens, requests FROM api_key_usage ORDER BY 1, 2") == [
        ("k1", "2026-06-14", 1, 1),
        ("k1", "2026-06-15", 2, 1),
        ("k1", "2026-06-16", 5, 1),
        ("k2", "2026-06-15", 3, 1),
    ]


def test_counters_and_buckets_that_nobody_used_are_zeros(with_store, make):
    async def body(store):
        await store.ping()
        (counter,) = await store.counters([make.QUOTA])
        (bucket,) = await store.buckets([(make.BUCKET, 5)])
        assert (counter.used, counter.held, bucket.spent) == (0, 0, 0)
        assert await store.counters([]) == await store.buckets([]) == []

    with_store(body)


def test_many_readers_at_once_are_all_answered(with_store):
    async def body(store):
        await store.create_customer(ACME)
        found = await asyncio.gather(*(store.customer("acme") for _ in range(50)))
        assert set(found) == {ACME}

    with_store(body)


def test_calls_recovered_long_ago_are_forgotten_and_their_records_stay(with_store, make, sql, store_url):
    later_ms = make.NOW_MS + 36 * DAY_MS

    async def body(store):
        await store.hold(make.order("c1", make.line()))
        assert await store.recover(make.NOW_MS + 30_000, {}) == 1
        assert await store.recover(make.NOW_MS + 34 * DAY_MS, {}) == 0

    with_store(body)
    assert sql(store_url, "SELECT call_id, state FROM hold") == [("c1", "recovered")]

    async def again(store):
        assert await store.recover(later_ms, {}) == 0
        # Too late for a correction: it is on record as it was recovered.
        settled = await store.settle(make.settlement("c1", 5 * make.MICRO))
        assert (settled.first, settled.record.units_micro, settled.record.note) == (False, 0, "recovered")
        assert await store.unbalanced() == ([], [])

    with_store(again)
    assert sql(store_url, "SELECT COUNT(*) FROM hold") == [(0,)]
