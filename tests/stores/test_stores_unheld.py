"""Calls that the ledger never held: they count on every limit that they met, once, wherever they were kept."""

import asyncio
import os
from dataclasses import replace

from gatekeeper.rules.limits import ONE_REQUEST, BucketKey, CounterKey, Mode, Reason
from gatekeeper.stores.journal import FileJournal

MICRO = 1_000_000
MONTH_MS = 1_780_272_000_000
USER = CounterKey("user", "acme/ada", "units", "month", MONTH_MS)
DOLLARS = CounterKey("global", "*", "dollars", "month", MONTH_MS)
CALLS = BucketKey("user", "acme/ada", "requests", 3_600_000)


def _forgotten(make, call_id, units=5, *, now_ms=None, **changes):
    """A settlement that says what its call was to be held on: a quota, declared limits, rates."""
    stock = (
        make.line(fixed=90 * MICRO, mode=Mode.OVERAGE),
        make.line(key=USER, limit="each user", soft_at=80, per_output=7),
        make.line(key=DOLLARS, limit="all", cap=None),
        make.line(key=DOLLARS._replace(scope="model", subject="another"), limit="model"),
    )
    rates = (make.rate(amount=60 * MICRO), make.rate(key=CALLS, limit="calls", cap=9 * MICRO, amount=ONE_REQUEST))
    made = make.settlement(call_id, units * MICRO, plan=make.plan(cap=2 * MICRO), cost_nano=40, **changes)
    actual = {**made.actual, "dollars": 40}
    return replace(made, actual=actual, stock=stock, rates=rates)


async def _used(store, make):
    states = await store.counters([make.QUOTA, USER, DOLLARS, DOLLARS._replace(scope="model", subject="another")])
    assert [state.held for state in states] == [0] * 4
    assert await store.unbalanced() == ([], [])
    return [state.used for state in states]


def test_a_call_that_was_never_held_counts_on_all_that_it_met(with_store, make):
    async def body(store):
        for first in (True, False):
            settled = await store.settle(_forgotten(make, "c1"))
            assert settled.first is first
        # Three units beyond what the plan includes, priced by the line that says so.
        assert settled.record.charge_nano == make.plan(cap=2 * MICRO).overage_nano(0, 5 * MICRO)
        assert settled.record.overrun_micro == 0
        # The limit of a model that did not serve counts nothing.
        assert await _used(store, make) == [5 * MICRO, 5 * MICRO, 40, 0]
        await store.settle(_forgotten(make, "c2", 96))
        line = make.line(key=USER, limit="each user")
        assert (await store.hold(make.order("c3", line))).reason is Reason.USED

    with_store(body)


def test_a_call_without_any_limit_counts_nowhere(with_store, make):
    async def body(store):
        await store.settle(replace(_forgotten(make, "c1"), stock=(), rates=()))
        assert await _used(store, make) == [0, 0, 0, 0]

    with_store(body)


def test_rates_count_what_has_not_drained_since_the_call_began(with_store, make):
    async def body(store):
        async def spent():
            states = await store.buckets([(make.BUCKET, 100 * MICRO), (CALLS, 9 * MICRO)])
            return [state.spent for state in states]

        now_ms = store._clock.now_ms()
        await store.settle(_forgotten(make, "old", 50, started_ms=now_ms - 3_600_000))
        assert await spent() == [0, 0]
        # Half of an hour's worth has drained.
        await store.settle(_forgotten(make, "late", 80, started_ms=now_ms - 1_800_000))
        units, calls = await spent()
        assert 29 * MICRO < units <= 30 * MICRO
        assert calls == 0
        await store.settle(_forgotten(make, "now", 65, started_ms=now_ms))
        units, calls = await spent()
        assert 93 * MICRO < units <= 95 * MICRO
        assert 0 < calls <= ONE_REQUEST
        assert (await store.hold(make.order("c9", rates=(make.rate(amount=9 * MICRO),)))).reason is Reason.RATE

    with_store(body)


def test_a_call_that_is_held_counts_on_its_hold_alone(with_store, make):
    async def body(store):
        await store.hold(make.order("c1", make.line(), rates=(make.rate(amount=60 * MICRO),)))
        await store.settle(_forgotten(make, "c1"))
        assert await _used(store, make) == [5 * MICRO, 0, 0, 0]
        (bucket,) = await store.buckets([(make.BUCKET, 100 * MICRO)])
        assert 4 * MICRO < bucket.spent <= 5 * MICRO

    with_store(body)


def test_the_journal_keeps_what_a_call_was_to_be_held_on(with_store, make, tmp_path):
    strange = {"evidence": {"big": 2**80, "text": "\ud800"}, "response_id": "resp_68a1b2c3d4e5f60718293a4b"}

    async def body(store):
        dead, heir = FileJournal(tmp_path / "j", "dead"), FileJournal(tmp_path / "j", "heir")
        kept = replace(_forgotten(make, "c1"), once_per_response=True)
        await dead.append(kept)
        await dead.append(replace(_forgotten(make, "c2", **strange), once_per_response=True))
        await dead.append(make.settlement("c3"))
        os.close(dead._file)
        found = {one.record.call_id: one.settlement(kept.plan) for one in await heir.orphans()}
        assert found["c1"] == kept
        assert (found["c3"].stock, found["c3"].rates, found["c3"].once_per_response) == (None, (), False)
        assert found["c2"].stock == kept.stock
        settled = await asyncio.gather(*(store.settle(one) for one in (*found.values(), *found.values())))
        assert sum(one.first for one in settled) == 3
        assert await _used(store, make) == [11 * MICRO, 10 * MICRO, 80, 0]
        again = await store.settle(replace(_forgotten(make, "c4", **strange), once_per_response=True))
        assert again.record.note == "replayed"
        for call_id in found:
            await heir.done(call_id)
        await heir.close()

    with_store(body)


def test_a_line_of_before_that_was_kept_is_settled_too(with_store, make, tmp_path):
    async def body(store):
        dead, heir = FileJournal(tmp_path / "j", "dead"), FileJournal(tmp_path / "j", "heir")
        await dead.append(_forgotten(make, "c1"))
        os.close(dead._file)
        (file,) = (tmp_path / "j").iterdir()
        text = file.read_text()
        start = text.index(',"once_per_response"')
        file.write_text(text[:start] + "}\n")
        (one,) = await heir.orphans()
        settled = await store.settle(one.settlement(make.plan(cap=2 * MICRO)))
        assert (settled.first, settled.record.units_micro) == (True, 5 * MICRO)
        assert await _used(store, make) == [5 * MICRO, 0, 0, 0]
        await heir.done("c1")
        await heir.close()

    with_store(body)
