"""The ledger's laws on one process: what is held, what is counted, and that it counts once. On both databases."""

import asyncio
from dataclasses import replace

import pytest

from gatekeeper.errors import Fault
from gatekeeper.rules.limits import Denied, Granted, Mode, Reason


def _figures(state):
    return [(counter.used, counter.held) for counter in state]


def test_a_hold_is_held_and_a_settle_counts_what_was_taken(with_store, make):
    async def body(store):
        granted = await store.hold(make.order("c1", make.line(fixed=5 * make.MICRO)))
        assert isinstance(granted, Granted)
        assert granted.stock[0].held == 5 * make.MICRO
        assert _figures(await store.counters([make.QUOTA])) == [(0, 5 * make.MICRO)]
        settled = await store.settle(make.settlement("c1", 3 * make.MICRO))
        assert settled.first
        assert _figures(await store.counters([make.QUOTA])) == [(3 * make.MICRO, 0)]
        assert await store.unbalanced() == ([], [])
        return settled

    assert with_store(body).record.units_micro == 3_000_000


def test_settling_any_number_of_times_counts_once(with_store, make):
    """Pitfall 23: a settle that comes four times at once, and once more."""

    async def body(store):
        await store.hold(make.order("c1", make.line()))
        together = await asyncio.gather(*(store.settle(make.settlement("c1")) for _ in range(4)))
        later = await store.settle(make.settlement("c1", 77))
        assert sorted(settled.first for settled in [*together, later]) == [False] * 4 + [True]
        assert {settled.record.units_micro for settled in [*together, later]} == {make.MICRO}
        return _figures(await store.counters([make.QUOTA])), await store.usage_total(0, 2**50)

    figures, total = with_store(body)
    assert figures == [(1_000_000, 0)]
    assert (total.requests, total.units_micro) == (1, 1_000_000)


def test_of_400_concurrent_holds_on_a_cap_of_100_exactly_100_pass(with_store, make):
    """Pitfall 22: many at the same moment never pass a cap."""

    async def body(store):
        orders = [make.order(f"c{n}", make.line()) for n in range(400)]
        answers = await asyncio.gather(*(store.hold(order) for order in orders))
        granted = [order.call_id for order, found in zip(orders, answers, strict=True) if isinstance(found, Granted)]
        denied = {found.reason for found in answers if isinstance(found, Denied)}
        full = _figures(await store.counters([make.QUOTA]))
        await asyncio.gather(*(store.settle(make.settlement(call_id)) for call_id in granted))
        return len(granted), denied, full, _figures(await store.counters([make.QUOTA])), await store.unbalanced()

    full, empty = [(0, 100_000_000)], [(100_000_000, 0)]
    assert with_store(body) == (100, {Reason.HELD}, full, empty, ([], []))


def test_all_lines_are_held_or_none(with_store, make):
    async def body(store):
        requests = make.line(cap=0, key=make.REQUESTS)
        denied = await store.hold(make.order("c1", make.line(), requests, rates=(make.rate(),)))
        assert denied.reason is Reason.USED
        assert _figures(await store.counters([make.QUOTA, make.REQUESTS])) == [(0, 0), (0, 0)]
        assert (await store.buckets([(make.BUCKET, 100 * make.MICRO)]))[0].spent == 0

    with_store(body)


def test_holding_twice_for_one_call_holds_once(with_store, make):
    async def body(store):
        order = make.order("c1", make.line(fixed=0, per_output=make.MICRO), output_tokens=200, output_tokens_min=1)
        first = await store.hold(order)
        again = await asyncio.gather(store.hold(order), store.hold(order))
        assert {found.output_tokens for found in [first, *again]} == {100}
        assert _figures(await store.counters([make.QUOTA])) == [(0, 100 * make.MICRO)]
        await store.settle(make.settlement("c1"))
        with pytest.raises(Fault, match="over"):
            await store.hold(order)

    with_store(body)


def test_more_than_was_held_is_counted_whole_and_the_next_call_is_refused(with_store, make):
    """Pitfall 28: what was really used beats the estimate, and is used up."""

    async def body(store):
        await store.hold(make.order("c1", make.line(fixed=40 * make.MICRO)))
        settled = await store.settle(make.settlement("c1", 130 * make.MICRO))
        assert settled.record.overrun_micro == 90 * make.MICRO
        denied = await store.hold(make.order("c2", make.line()))
        assert (denied.reason, denied.limit.used) == (Reason.USED, 130 * make.MICRO)

    with_store(body)


def test_overage_is_charged_to_the_digit_over_many_calls(with_store, make, sql, store_url):
    plan = make.plan(cap=10 * make.MICRO, price="0.0000000007")

    async def body(store):
        calls = [f"c{n}" for n in range(40)]
        line = make.line(cap=10 * make.MICRO, mode=Mode.OVERAGE)
        await asyncio.gather(*(store.hold(make.order(call, line)) for call in calls))
        settled = await asyncio.gather(*(store.settle(make.settlement(call, 1_333_333, plan=plan)) for call in calls))
        return sum(found.record.charge_nano for found in settled)

    whole = plan.overage_nano(0, 40 * 1_333_333)
    assert with_store(body) == whole == 30
    assert sql(store_url, "SELECT SUM(charge_nano), SUM(units_micro), COUNT(*) FROM owed") == [
        (whole, 40 * 1_333_333, 40)
    ]
    assert sql(store_url, "SELECT DISTINCT customer_id, plan_id, batch_id FROM owed") == [("acme", "pro", None)]


def test_a_rate_is_charged_at_admission_and_corrected_at_the_end(with_store, make):
    cap = 100 * make.MICRO

    async def body(store):
        async def spent():
            return (await store.buckets([(make.BUCKET, cap)]))[0].spent

        rate = make.rate(amount=60 * make.MICRO)
        assert isinstance(await store.hold(make.order("c1", rates=(rate,))), Granted)
        denied = await store.hold(make.order("c2", rates=(rate,)))
        assert denied.reason is Reason.RATE
        # 20 units too many, at 100 an hour: a fifth of an hour.
        assert 700 <= denied.retry_after_s <= 720
        assert cap // 2 < await spent() <= 60 * make.MICRO
        await store.settle(make.settlement("c1", 150 * make.MICRO))
        assert 140 * make.MICRO < await spent() <= 150 * make.MICRO
        assert (await store.hold(make.order("c3", rates=(make.rate(),)))).reason is Reason.RATE

    with_store(body)


def test_a_call_that_was_never_held_counts_on_the_limits_of_its_plan(with_store, make, sql, store_url):
    plan = make.plan(cap=2 * make.MICRO)

    async def body(store):
        first = await store.settle(make.settlement("c1", 5 * make.MICRO, plan=plan))
        again = await store.settle(make.settlement("c1", 5 * make.MICRO, plan=plan))
        assert (first.first, again.first) == (True, False)
        assert again.record == first.record
        assert first.record.charge_nano == plan.overage_nano(0, 5 * make.MICRO) == 6_000_000
        assert _figures(await store.counters([make.QUOTA])) == [(5 * make.MICRO, 0)]
        assert await store.unbalanced() == ([], [])
        assert (await store.record("c1")).units_micro == 5 * make.MICRO

    with_store(body)


def test_a_call_without_a_quota_is_owed_in_its_billing_period_where_its_plan_is_billed(
    with_store, make, sql, store_url
):
    async def body(store):
        billed = replace(make.plan(), quota=None, overage=None, metered_price="price_1")
        free = replace(billed, metered_price=None)
        for call_id, plan in (("c1", billed), ("c2", free), ("c3", None)):
            await store.hold(make.order(call_id))
            await store.settle(make.settlement(call_id, plan=plan))

    with_store(body)
    # Nobody is told of what was free. No such customer in this test: periods start with the months.
    assert sql(store_url, "SELECT call_id, period_start_ms, units_micro FROM owed") == [
        ("c1", make.MONTH_MS, make.MICRO)
    ]


def test_a_bad_order_does_not_disturb_the_others(with_store, make):
    async def body(store):
        bad = [
            make.order("bad-figures", make.line(fixed=-1)),
            make.order("bad-text", make.line(), owner="\x00"),
            make.order("bad-number", make.line(), expires_ms=2**70),
        ]
        good = [make.order(f"c{n}", make.line()) for n in range(5)]
        answers = await asyncio.gather(*(store.hold(order) for order in [*bad, *good]), return_exceptions=True)
        assert isinstance(answers[0], Fault)
        assert isinstance(answers[2], Fault)
        assert all(isinstance(found, Granted) for found in answers[3:])
        # SQLite stores a NUL, Postgres does not.
        held = 5 + isinstance(answers[1], Granted)
        assert _figures(await store.counters([make.QUOTA])) == [(0, held * make.MICRO)]

    with_store(body)


def test_text_that_no_database_stores_does_not_lose_a_settle(with_store, make):
    async def body(store):
        foreign = {"model": "a\x00b", "path": "/\ud800", "response_id": "é\x00"}
        seen = {"evidence": {"n": float("nan"), "big": 2**80, "text": "\ud800\x00"}, "usage": {"a": [1, None]}}
        await store.settle(make.settlement("c1", **foreign, **seen))
        found = await store.record("c1")
        assert (found.model, found.path, found.response_id) == ("a\ufffdb", "/?", "é\ufffd")
        assert found.usage == {"a": [1, None]}
        assert found.evidence["big"] == 2**80

    with_store(body)


def test_a_number_above_64_bits_is_refused_and_nothing_is_counted(with_store, make):
    async def body(store):
        await store.hold(make.order("c1", make.line(cap=None)))
        with pytest.raises(Fault, match="64 bits"):
            await store.settle(make.settlement("c1", 2**63))
        denied = await store.hold(make.order("c2", make.line(cap=None, fixed=2**63 - 1)))
        assert denied.reason is Reason.HELD
        denied = await store.hold(make.order("c3", make.line(cap=None, fixed=2**64)))
        assert denied.reason is Reason.EXCEEDS_LIMIT
        assert _figures(await store.counters([make.QUOTA])) == [(0, make.MICRO)]
        assert (await store.settle(make.settlement("c1"))).first

    with_store(body)
