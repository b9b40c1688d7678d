"""What becomes of a batch: its answer is a no, is lost, comes too late, or was wrong. Both databases.

Each docstring names the pitfall of metered billing that its test stands for.
"""

import asyncio

import pytest
from billing_stand import METER

from gatekeeper.billing import outbox
from gatekeeper.errors import Fault, FaultKind
from gatekeeper.rules.billing import RESEND_SAFE_MS, BatchState


def test_what_could_not_be_sent_before_its_invoice_was_closed_goes_to_the_present_period(billing, drift):
    async def body(stand):
        start_ms, end_ms = stand.period
        stand.clock.now_s = end_ms / 1000 - 10
        await stand.use(5)
        # The last of these answers is after the end, and before the invoice is closed.
        stand.biller.script.extend(["down", "throttle"])
        (frozen,) = await stand.flush()
        await stand.later(s=30)
        await stand.later(hours=1.1)
        (batch,) = await stand.batches()
        now_ms = stand.clock.now_ms()
        assert (batch.state, batch.late, batch.attempts) == (BatchState.SENT, True, 3)
        assert (batch.identifier, batch.value) == (frozen.identifier, frozen.value)
        assert (frozen.period_start_ms, frozen.late) == (start_ms, False)
        assert (batch.period_start_ms, batch.ts_ms) == (end_ms, now_ms)
        assert [one.ts_ms for one in stand.biller.counted] == [now_ms]
        assert await stand.store.event(f"outbox_late_{batch.id}") is None
        assert drift(stand) == 0

    billing(body)


def test_what_the_sums_do_not_have_goes_to_the_present_period_too(billing, drift):
    async def body(stand):
        _, end_ms = stand.period
        stand.clock.now_s = end_ms / 1000 - 10
        await stand.use(5)
        stand.biller.script.append("unknown")
        await stand.flush()
        await stand.later(hours=25)
        (batch,) = await stand.batches()
        assert (batch.state, batch.late, batch.period_start_ms) == (BatchState.SENT, True, end_ms)
        assert len(stand.biller.summaries) == len(stand.biller.counted) == 1
        assert drift(stand) == 0

    billing(body)


def test_a_batch_that_was_perhaps_counted_keeps_its_period_and_is_told_when_it_arrives_late(billing_once):
    async def body(stand):
        _, end_ms = stand.period
        stand.clock.now_s = end_ms / 1000 - 10
        await stand.use(5)
        stand.biller.script.append("unknown")
        await stand.flush()
        await stand.later(hours=1.1)
        (batch,) = await stand.batches()
        assert batch.state is BatchState.SENT
        assert (await stand.store.event(f"outbox_late_{batch.id}")).content["units"] == "5"

    billing_once(body)


def test_a_resend_after_a_day_asks_first_and_does_not_count_twice(billing, drift):
    """Pitfall 6: identifiers are only refused for 24 hours; after that a blind resend counts again."""

    async def body(stand):
        await stand.use(9)
        stand.biller.script.append("lost")
        (batch,) = await stand.flush()
        await stand.later(hours=25)
        (again,) = await stand.batches()
        assert again.state is BatchState.SENT
        assert len(stand.biller.asked) == 1
        assert stand.biller.summaries == [(batch.ts_ms // 60_000 * 60_000, batch.ts_ms // 60_000 * 60_000 + 60_000)]
        assert stand.biller.units() == 9
        assert drift(stand) == 0

    billing(body)


def test_what_never_arrived_is_sent_again_after_a_day(billing, drift):
    async def body(stand):
        await stand.use(9)
        stand.biller.script.append("unknown")
        await stand.flush()
        stand.biller.script.append("throttle")
        await stand.later(hours=25)
        (batch,) = await stand.batches()
        # Still older than a day: the second attempt surely counted nothing.
        assert batch.first_sent_ms is not None
        assert stand.clock.now_ms() - batch.first_sent_ms > RESEND_SAFE_MS
        await stand.later(hours=1)
        (batch,) = await stand.batches()
        assert (batch.state, stand.biller.units(), len(stand.biller.summaries)) == (BatchState.SENT, 9, 2)
        assert drift(stand) == 0

    billing(body)


def test_what_cannot_be_told_apart_is_given_up_to_a_person(billing_once):
    async def body(stand):
        await stand.use(9)
        stand.biller.script.append("lost")
        await stand.flush()
        # Somebody else reports for the same customer in the same minute.
        stand.biller.counted.append(stand.biller.counted[0])
        await stand.later(hours=25)
        (batch,) = await stand.batches()
        assert batch.state is BatchState.DEAD
        assert "do not tell whether it was counted" in batch.error
        assert (await stand.store.event(f"outbox_dead_{batch.id}_2")) is not None
        assert await stand.store.settle_by_hand(batch.id, stand.clock.now_ms(), told=True)
        assert (await stand.batches())[0].state is BatchState.SENT
        assert not await stand.store.settle_by_hand(batch.id, stand.clock.now_ms(), told=True)

    billing_once(body)


def test_a_person_may_say_that_the_biller_does_not_have_it(billing_once):
    async def body(stand):
        await stand.use(9)
        stand.biller.script.append("unknown")
        await stand.flush()
        stand.biller.summary_fault = Fault("biller", FaultKind.RESET, "no sums today")
        await stand.later(hours=25)
        (batch,) = await stand.batches()
        assert (batch.state, batch.error) == (BatchState.WAITING, "biller: reset: no sums today")
        assert await stand.store.settle_by_hand(batch.id, stand.clock.now_ms(), told=False)
        await stand.turn()
        assert ((await stand.batches())[0].state, stand.biller.units()) == (BatchState.SENT, 9)

    billing_once(body)


def test_usage_older_than_35_days_is_given_up_told_and_warned_of_long_before(billing, drift):
    """Pitfall 7: an event older than 35 days is refused; somebody has to charge it by hand."""

    async def body(stand):
        await stand.use(9)
        stand.biller.script.append("down")
        (batch,) = await stand.flush()
        assert await stand.store.event(f"outbox_aging_{batch.id}") is None
        stand.biller.script.append("down")
        await stand.later(days=3.1)
        warned = await stand.store.event(f"outbox_aging_{batch.id}")
        assert warned.content == {
            "batch": batch.id,
            "customer_id": "ada",
            "meter": METER,
            "identifier": batch.identifier,
            "period_start_ms": batch.period_start_ms,
            "ts_ms": batch.ts_ms,
            "units": "9",
            "attempts": 2,
            "error": "biller: connect: nobody listens",
        }
        await stand.later(days=33)
        (batch,) = await stand.batches()
        assert (batch.state, len(stand.biller.asked)) == (BatchState.DEAD, 2)
        assert "35 days" in batch.error
        told = await stand.store.event(f"outbox_dead_{batch.id}_3")
        # No customer is mailed what the operator has to see to.
        assert (told.customer_id, told.content["customer_id"]) == (None, "ada")
        assert drift(stand) == 0

    billing(body)


def test_usage_that_was_never_frozen_for_36_days_is_a_dead_letter_of_its_own(billing, drift):
    """Pitfall 7: also where nobody was billed for so long, as while Stripe was disabled."""

    async def body(stand):
        await stand.use("9.5")
        stand.clock.now_s += 36 * 86_400
        await stand.use(3)
        old, new = sorted(await stand.flush(), key=lambda batch: batch.ts_ms)
        assert (old.value, old.state, old.left_micro) == (9, BatchState.DEAD, 500_000)
        assert (new.value, new.state, new.left_micro) == (3, BatchState.SENT, 500_000)
        assert await stand.store.event(f"outbox_dead_{old.id}_0") is not None
        assert stand.biller.units() == 3
        assert drift(stand) == 0

    billing(body)


def test_more_digits_than_a_biller_takes_are_refused_here(billing, drift, sql):
    """Pitfall 16: a value of more than 15 digits never leaves, nor does anything that is no whole number."""

    async def body(stand):
        now_ms, (start_ms, end_ms) = stand.clock.now_ms(), stand.period
        row = f"'ada', 'pro', {start_ms}, {now_ms}, {now_ms}, {2**63 - 1}, 0, {end_ms}"
        rows = ", ".join(f"('c{number}', {row})" for number in range(110))
        sql(
            "INSERT INTO owed (call_id, customer_id, plan_id, period_start_ms, started_ms, settled_ms, units_micro,"
            f" charge_nano, period_end_ms) VALUES {rows}"
        )
        (batch,) = await stand.flush()
        total = 110 * (2**63 - 1)
        assert (batch.value, batch.left_micro) == divmod(total, 1_000_000)
        assert len(str(batch.value)) == 16
        assert (batch.state, stand.biller.asked) == (BatchState.DEAD, [])
        assert "15 digits" in batch.error

    billing(body)


def test_a_no_for_good_is_a_dead_letter_until_a_person_retries(billing, drift):
    async def body(stand):
        await stand.use(9)
        stand.biller.script.append("refuse")
        (batch,) = await stand.flush()
        assert (batch.state, batch.error) == (BatchState.DEAD, "No such customer: 'cus_1'")
        # It was surely not counted: a later attempt need not ask.
        assert batch.first_sent_ms is None
        event = await stand.store.event(f"outbox_dead_{batch.id}_1")
        assert (event.kind, event.content["error"]) == ("gatekeeper.outbox.dead", "No such customer: 'cus_1'")
        await stand.later(days=2)
        assert len(stand.biller.asked) == 1
        assert await stand.store.retry_batches(stand.clock.now_ms(), batch.id) == 1
        await stand.turn()
        assert ((await stand.batches())[0].state, stand.biller.units()) == (BatchState.SENT, 9)
        assert drift(stand) == 0

    billing(body)


def test_a_biller_that_is_asked_too_often_is_left_alone_for_as_long_as_it_says(billing_once):
    """Pitfall 11: a 429 is not retried by the SDK, and its Retry-After must be kept here."""

    async def body(stand):
        await stand.use(9)
        stand.biller.script.append("throttle")
        await stand.flush()
        await stand.later(s=59)
        assert len(stand.biller.asked) == 1
        await stand.later(s=1)
        assert [batch.state for batch in await stand.batches()] == [BatchState.SENT]

    billing_once(body)


def test_a_biller_that_never_answers_ends_the_attempt(billing_once):
    async def body(stand):
        assert outbox.ATTEMPT_S < outbox.LEASE_S / 2
        await stand.use(9)
        stand.biller.script.append("hang")
        await stand.flusher.freeze()
        # What is cancelled in the middle leaves its lease behind, and is sent by whoever comes when that is over.
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(stand.turn(), 0.05)
        await stand.flusher.drain(0.05)
        stand.flusher = stand.another("p2")
        await stand.later(s=31)
        assert len(stand.biller.asked) == 1
        await stand.later(s=90)
        assert [(batch.state, batch.attempts) for batch in await stand.batches()] == [(BatchState.SENT, 2)]

    billing_once(body)


def test_a_report_that_is_found_wrong_is_sent_again_under_a_new_identifier(billing):
    """Pitfall 15: 200 means accepted, not counted."""

    async def body(stand):
        await stand.use(5)
        (batch,) = await stand.flush()
        now_ms = stand.clock.now_ms()
        changed = await stand.store.reopen_batch(batch.identifier, "no such customer", now_ms)
        assert (changed.identifier, changed.state) == (f"{batch.id}-2", BatchState.WAITING)
        # The same report, told again.
        assert await stand.store.reopen_batch(batch.identifier, "no such customer", now_ms) is None
        event = await stand.store.event(f"outbox_reopened_{changed.identifier}")
        assert (event.content["batch"], event.content["error"]) == (batch.id, "no such customer")
        await stand.turn()
        (batch,) = await stand.batches()
        assert (batch.state, batch.value, batch.ts_ms) == (BatchState.SENT, changed.value, changed.ts_ms)
        assert [one.identifier for one in stand.biller.counted] == [batch.id, f"{batch.id}-2"]
        for number in (3, 4, 5):
            changed = await stand.store.reopen_batch(batch.identifier, "again", now_ms)
            await stand.turn()
            (batch,) = await stand.batches()
            assert batch.identifier == f"{batch.id}-{number}"
        assert (batch.state, batch.reopened) == (BatchState.DEAD, 4)

    billing(body)
