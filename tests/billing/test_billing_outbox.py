"""What is frozen: whole units, one period a batch, each row once; and what is sent is counted once. Both databases.

Each docstring names the pitfall of metered billing that its test stands for.
"""

import asyncio
from dataclasses import replace

import pytest
from billing_stand import LICENCE, METER, PLAN
from fakes.past import hold, record, settle

from gatekeeper.rules.billing import BatchState
from gatekeeper.rules.windows import DAY_MS, HOUR_MS
from gatekeeper.stores.database import Ask, AskMany


def test_usage_becomes_one_batch_and_one_report(billing, drift):
    """Pitfall 9: an event without a timestamp is dated by whoever receives it."""

    async def body(stand):
        start_ms, end_ms = stand.period
        await stand.use(7)
        stand.clock.now_s += 60
        last_ms = stand.clock.now_ms()
        await stand.use("5.25")
        stand.clock.now_s += 30
        (batch,) = await stand.flush()
        assert (batch.customer_id, batch.meter, batch.value, batch.left_micro) == ("ada", METER, 12, 250_000)
        assert (batch.period_start_ms, batch.period_end_ms, batch.late) == (start_ms, end_ms, False)
        assert batch.ts_ms == last_ms
        assert (batch.state, batch.attempts, batch.error) == (BatchState.SENT, 1, None)
        (asked,) = stand.biller.asked
        assert (asked.identifier, asked.value, asked.ts_ms) == (batch.identifier, 12, last_ms)
        assert len(asked.identifier) <= 100
        assert drift(stand) == 0
        assert (await stand.store.backlog())[:3] == (0, 0, 0)

    billing(body)


def test_a_duplicate_is_success_and_the_next_batch_proceeds(billing, drift):
    """Pitfall 1: a rejected duplicate must not stall the queue."""

    async def body(stand):
        await stand.use(3)
        stand.biller.script.append("lost")
        (batch,) = await stand.flush()
        assert (batch.state, stand.biller.units()) == (BatchState.WAITING, 3)
        await stand.use(4)
        await stand.flusher.freeze()
        await stand.later(s=5)
        assert [(one.value, one.state) for one in await stand.batches()] == [
            (3, BatchState.SENT),
            (4, BatchState.SENT),
        ]
        assert stand.biller.units() == 7
        assert drift(stand) == 0

    billing(body)


def test_a_batch_does_not_change_by_what_is_used_while_it_is_tried_again(billing, drift):
    """Pitfall 4: a retry that recomputes its sum counts twice. Pitfall 5: a restart keeps the identifier."""

    async def body(stand):
        await stand.use(100)
        stand.biller.script.extend(["lost", "unknown"])
        (first,) = await stand.flush()
        await stand.use(50)
        await stand.later(s=5)
        # Another process, that knows nothing but the database.
        stand.flusher = stand.another("p2")
        stand.clock.now_s += 31
        await stand.flush()
        asked = [batch for batch in stand.biller.asked if batch.id == first.id]
        assert len(asked) == 3
        assert len({(batch.identifier, batch.value, batch.ts_ms, batch.period_start_ms) for batch in asked}) == 1
        assert stand.biller.units() == 150
        assert drift(stand) == 0

    billing(body)


def test_fractions_are_carried_until_they_are_a_unit(billing, drift):
    """Pitfall 20: a thousand rows of a thousandth are one unit, neither none nor a thousand."""

    async def body(stand):
        for _ in range(4):
            await asyncio.gather(*(stand.use("0.001") for _ in range(250)))
            await stand.flush()
        batches = await stand.batches()
        assert [(batch.value, batch.state) for batch in batches] == [
            *[(0, BatchState.EMPTY)] * 3,
            (1, BatchState.SENT),
        ]
        assert [batch.carried_micro for batch in batches] == [0, 250_000, 500_000, 750_000]
        assert (stand.biller.units(), batches[-1].left_micro) == (1, 0)
        assert drift(stand) == 0

    billing(body)


def test_what_a_correction_takes_back_is_taken_from_the_next_batch(billing, drift, sql):
    async def body(stand):
        await stand.use(10)
        await stand.flush()
        # What the late true settle of a recovered call writes: the difference.
        now_ms, (start_ms, end_ms) = stand.clock.now_ms(), stand.period
        sql(
            "INSERT INTO owed (call_id, customer_id, plan_id, period_start_ms, started_ms, settled_ms, units_micro,"
            f" charge_nano, period_end_ms) VALUES ('c#correction', 'ada', 'pro', {start_ms}, {now_ms}, {now_ms},"
            f" -4500000, 0, {end_ms})"
        )
        (_, empty) = await stand.flush()
        assert (empty.value, empty.state, empty.left_micro) == (0, BatchState.EMPTY, -4_500_000)
        await stand.use(2)
        await stand.flush()
        await stand.use(3)
        (*_, last) = await stand.flush()
        assert (last.value, last.carried_micro, last.left_micro) == (0, -2_500_000, 500_000)
        await stand.use(1)
        (*_, last) = await stand.flush()
        assert (last.value, last.left_micro) == (1, 500_000)
        assert stand.biller.units() == 11
        # The test wrote the correction into what is owed, and not into the records.
        assert drift(stand) == -4_500_000

    billing(body)


def test_a_batch_never_spans_a_period(billing, drift):
    """Pitfall 10: usage one second before and one second after the turn makes two batches."""

    async def body(stand):
        _, end_ms = stand.period
        stand.clock.now_s = end_ms / 1000 - 1
        await stand.use(3)
        stand.clock.now_s = end_ms / 1000 + 1
        await stand.use(4)
        before, after = sorted(await stand.flush(), key=lambda batch: batch.ts_ms)
        assert (before.value, before.period_end_ms, before.ts_ms) == (3, end_ms, end_ms - 1_000)
        assert (after.value, after.period_start_ms, after.ts_ms) == (4, end_ms, end_ms + 1_000)
        assert not before.late
        assert not after.late
        assert drift(stand) == 0

    billing(body)


@pytest.mark.parametrize(("minutes", "is_late"), [(50, False), (51, True)])
def test_what_is_settled_late_is_billed_to_the_present_period(billing, drift, minutes, is_late):
    """Pitfall 31: after its invoice was closed, usage of a period goes to the next one, and says so."""

    async def body(stand):
        start_ms, end_ms = stand.period
        stand.clock.now_s = (end_ms + minutes * 60_000) / 1000
        await stand.use(5, started_ms=end_ms - 1_000)
        await stand.use(2)
        batches = sorted(await stand.flush(), key=lambda batch: batch.period_start_ms)
        found = [(batch.value, batch.period_start_ms, batch.late) for batch in batches]
        if is_late:
            assert found == [(7, end_ms, True)]
        else:
            assert found == [(5, start_ms, False), (2, end_ms, False)]
        assert drift(stand) == 0

    billing(body)


@pytest.mark.parametrize("minutes", [1, 51])
def test_a_call_that_ends_while_the_period_turns_counts_where_it_was_admitted(billing, drift, sql, minutes):
    """Pitfall 31: the new period resets nothing. The quota row is that of the window of admission, whenever the call is
    settled; its units are billed to that period until its invoice is closed, and then to the present one."""

    async def body(stand):
        start_ms, end_ms = stand.period
        stand.clock.now_s = end_ms / 1000 - 1
        before = {"started_ms": end_ms - 1_000, "ended_ms": end_ms + minutes * 60_000}
        old = record("old", PLAN.id, 12_500_000, **before)
        await hold(stand.store, old, PLAN, stand.anchor_ms)
        stand.clock.now_s = (end_ms + minutes * 60_000) / 1000
        now_ms = stand.clock.now_ms()
        new = record("new", PLAN.id, 4_000_000, started_ms=now_ms, ended_ms=now_ms)
        await hold(stand.store, new, PLAN, stand.anchor_ms)
        await settle(stand.store, new, PLAN)
        settled = await settle(stand.store, old, PLAN)
        # 2.5 above the 10 that the old window includes; the 4 of the new one are no part of it.
        assert settled.charge_nano == 5_000_000
        counters = sql(
            "SELECT start_ms, used, held FROM counter WHERE dimension = 'units' AND subject = 'ada' ORDER BY 1"
        )
        assert [tuple(row) for row in counters] == [(start_ms, 12_500_000, 0), (end_ms, 4_000_000, 0)]
        found = sorted((one.period_start_ms, one.value, one.late) for one in await stand.flush())
        if minutes == 1:
            assert found == [(start_ms, 12, False), (end_ms, 4, False)]
        else:
            assert found == [(end_ms, 16, True)]
        assert drift(stand) == 0

    billing(body)


def test_what_is_frozen_after_the_invoice_was_closed_goes_to_the_present_period(billing, drift):
    async def body(stand):
        _, end_ms = stand.period
        await stand.use(5)
        stand.clock.now_s = (end_ms + 2 * HOUR_MS) / 1000
        (batch,) = await stand.flush()
        assert (batch.period_start_ms, batch.late, batch.ts_ms) == (end_ms, True, end_ms + 2 * HOUR_MS)
        assert drift(stand) == 0

    billing(body)


def test_a_clock_that_runs_ahead_dates_nothing_in_the_future(billing_once):
    """Pitfall 8: a timestamp more than five minutes ahead is refused."""

    async def body(stand):
        _, end_ms = stand.period
        now_ms = stand.clock.now_ms()
        await stand.use(4, started_ms=now_ms + 20 * 60_000, settled_ms=now_ms)
        await stand.flusher.freeze()
        (batch,) = await stand.batches()
        assert (batch.value, batch.ts_ms) == (4, now_ms)
        await stand.use(5, started_ms=now_ms + 20 * 60_000, settled_ms=now_ms)
        # A host whose clock is in the next period already.
        stand.clock.now_s = end_ms / 1000 - 3_600
        await stand.use(6, started_ms=end_ms + 1, settled_ms=stand.clock.now_ms())
        await stand.flusher.freeze()
        _, batch = await stand.batches()
        assert (batch.value, batch.ts_ms) == (5, now_ms + 20 * 60_000)
        stand.clock.now_s = end_ms / 1000 - 100
        await stand.flusher.freeze()
        *_, ahead = await stand.batches()
        assert (ahead.value, ahead.ts_ms) == (6, end_ms)
        assert ahead.ts_ms - stand.clock.now_ms() <= 5 * 60_000

    billing_once(body)


def test_a_plan_without_a_meter_is_owed_and_never_reported(billing, sql):
    async def body(stand):
        await stand.enter("eva", plan_id="enterprise")
        await stand.use(50, "eva", plan=LICENCE)
        await stand.use(3, "eva", plan=PLAN)
        (batch,) = await stand.flush()
        assert (batch.customer_id, batch.value) == ("eva", 3)
        assert sorted(sql("SELECT batch_id FROM owed")) == sorted([("-",), (batch.id,)])
        assert (await stand.store.backlog()).unfrozen == 0

    billing(body)


def test_one_customer_who_cannot_be_frozen_does_not_stop_the_others(billing_once, caplog):
    async def body(stand):
        await stand.enter("bob")
        await stand.use(1)
        await stand.use(2, "bob")
        # Its residue would not fit: it can only have been written by hand.
        await stand.store._database.write(lambda: spoil())
        await stand.flush()
        assert [(batch.customer_id, batch.value) for batch in await stand.batches()] == [("bob", 2)]
        assert (await stand.store.backlog()).unfrozen == 2
        assert "what ada owes could not be frozen" in caplog.text

    def spoil():
        account = {"customer_id": "ada", "meter": METER}
        yield Ask("ensure_account", account)
        yield Ask("set_residue", {**account, "residue_micro": -(2**63) + 1})
        yield AskMany("add_owed", [("x", "ada", "pro", 0, 2**61, 2**60, 0, -(2**62), 0)])

    billing_once(body)


def test_the_periods_of_a_moved_anchor_are_kept_apart(billing, drift):
    async def body(stand):
        start_ms, end_ms = stand.period
        await stand.use(5)
        # The subscription starts today.
        known = await stand.store.customer("ada")
        stand.anchor_ms = stand.clock.now_ms() + 1_000
        await stand.store.update_customer(replace(known, anchor_ms=stand.anchor_ms))
        stand.clock.now_s += 2
        await stand.use(6)
        found = sorted((batch.period_start_ms, batch.period_end_ms, batch.value) for batch in await stand.flush())
        assert found == [(start_ms, end_ms, 5), (*stand.period, 6)]
        assert stand.period[0] == stand.anchor_ms
        assert end_ms - start_ms < 32 * DAY_MS
        assert drift(stand) == 0

    billing(body)


def test_what_a_customer_without_an_account_owes_waits_for_one(billing, drift):
    """A biller that knows nobody of that name would refuse each batch for good."""

    async def body(stand):
        stand.flushing = replace(stand.flushing, known_only=True)
        await stand.enter("bob", "eva")
        known = await stand.store.customer("bob")
        await stand.store.update_customer(replace(known, stripe_customer_id="cus_b"))
        await stand.use(5)
        await stand.use(6, "bob")
        await stand.use(7, "eva", plan=LICENCE)
        (batch,) = await stand.flush()
        assert (batch.customer_id, stand.biller.asked[0].account) == ("bob", "cus_b")
        assert await stand.flusher.flush("ada") == []
        backlog = await stand.flusher.backlog()
        assert (backlog.unfrozen, backlog.oldest_ms) == (0, None)
        assert (await stand.store.backlog()).unfrozen == 2
        known = await stand.store.customer("ada")
        await stand.store.update_customer(replace(known, stripe_customer_id="cus_a"))
        await stand.flush()
        assert (stand.biller.units("ada"), stand.biller.units("bob"), stand.biller.units("eva")) == (5, 6, 0)
        assert drift(stand) == 0

    billing(body)
