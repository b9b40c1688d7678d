"""Who flushes, when, and for whom: one process for all, one batch of a customer at a time. Both databases.

Each docstring names the pitfall of metered billing that its test stands for.
"""

import asyncio

import pytest
from billing_stand import METER, Stand

from gatekeeper.rules.billing import BatchState
from gatekeeper.rules.windows import HOUR_MS
from gatekeeper.stores import open_store


def test_no_two_batches_of_a_customer_are_in_flight_at_once(billing, drift):
    """Pitfall 14: one call in flight for each customer and meter. Pitfall 30: two flushers send each batch once."""

    async def body(stand):
        await stand.enter(*(f"c{number}" for number in range(5)))
        for _ in range(4):
            for number in range(5):
                await stand.use(number + 1, f"c{number}")
            stand.clock.now_s += 1
            await stand.flusher.freeze()
        stand.biller.slow = True
        others = [stand.another(f"p{number}") for number in range(3)]
        # Not elected, and all at work all the same: what is sent once does not hang on the election.
        await asyncio.gather(*(one._send_due() for one in others), *(one._send_due() for one in others))
        while any(batch.state is not BatchState.SENT for batch in await stand.batches()):
            await stand.flusher._send_due()
        assert stand.biller.in_flight_most == 1
        assert len(stand.biller.asked) == len({batch.identifier for batch in stand.biller.asked}) == 20
        assert stand.biller.units() == 4 * 15
        assert drift(stand) == 0

    billing(body)


def test_two_flushers_freeze_each_row_once(billing, drift):
    """Pitfall 30: two flushers, each row in one batch."""

    async def body(stand):
        await stand.enter(*(f"c{number}" for number in range(8)))
        for number in range(8):
            await stand.use("1.5", f"c{number}")
        await asyncio.gather(*(stand.another(f"p{number}").freeze() for number in range(4)))
        assert len(await stand.batches()) == 8
        await stand.turn()
        assert stand.biller.units() == 8
        assert drift(stand) == 0

    billing(body)


def test_one_process_is_elected_and_replaced_when_it_is_gone(billing):
    """Pitfall 30: the others stand by."""

    async def body(stand):
        other = stand.another("p2")
        await stand.use(1)
        assert await stand.turn() == 1
        await stand.use(2)
        assert await other.turn() == 0
        stand.clock.now_s += 20
        assert await other.turn() == 0
        stand.clock.now_s += 11
        # The first one has said nothing for 31 seconds.
        assert await other.turn() == 1
        await stand.use(4)
        assert await stand.turn() == 0
        await other.drain(5.0)
        assert stand.biller.units() == 7
        await stand.use(8)
        stand.clock.now_s += 10
        # It resigned, so nobody has to wait for its lease; the next freeze comes with its own time.
        await stand.later(s=300)
        assert stand.biller.units() == 15

    billing(body)


def test_usage_is_frozen_every_interval_and_not_at_each_turn(billing_once):
    async def body(stand):
        await stand.turn()
        await stand.use(1)
        await stand.later(s=299)
        assert await stand.batches() == []
        await stand.later(s=1)
        assert [batch.value for batch in await stand.batches()] == [1]

    billing_once(body)


def test_a_customer_is_flushed_at_once_and_the_others_are_not(billing, drift):
    """Pitfall 48: the last batch precedes the cancel."""

    async def body(stand):
        await stand.enter("bob")
        await stand.use(5)
        await stand.use(6, "bob")
        stand.biller.script.append("down")
        await stand.flush()
        assert stand.biller.units() == 6
        await stand.use(7)
        await stand.use(8, "bob")
        assert await stand.flusher.flush("ada") == []
        assert (stand.biller.units("ada"), stand.biller.units("bob")) == (12, 6)
        assert drift(stand) == 0

    billing(body)


def test_a_flush_says_what_it_could_not_tell(billing_once):
    async def body(stand):
        await stand.use(5)
        stand.biller.script.append("down")
        (left,) = await stand.flusher.flush("ada", wait_s=5.0)
        assert (left.value, left.state, left.error) == (5, BatchState.WAITING, "biller: connect: nobody listens")

    billing_once(body)


def test_a_flush_waits_for_what_another_process_is_sending(billing_once):
    async def body(stand):
        await stand.use(5)
        await stand.flusher.freeze()
        (claimed,) = await stand.store.claim_batches(stand.clock.now_ms(), stand.clock.now_ms() + 90_000, 10)
        (left,) = await stand.flusher.flush("ada", wait_s=2.0)
        assert left.id == claimed.id
        assert stand.clock.slept == [pytest.approx(0.2)] * len(stand.clock.slept)
        assert len(stand.clock.slept) >= 10
        await stand.store.batch_sent(claimed, stand.clock.now_ms())
        assert await stand.flusher.flush("ada") == []

    billing_once(body)


def test_a_lease_that_was_lost_frees_and_changes_nothing(billing):
    """Pitfall 14: who comes back after its time must not let a third one in."""

    async def body(stand):
        await stand.use(5)
        await stand.flusher.freeze()
        now_ms = stand.clock.now_ms()
        (first,) = await stand.store.claim_batches(now_ms, now_ms + 1_000, 10)
        assert await stand.store.claim_batches(now_ms, now_ms + 1_000, 10) == []
        (second,) = await stand.store.claim_batches(now_ms + 1_001, now_ms + 9_000, 10)
        assert (first.attempts, second.attempts, second.identifier) == (1, 2, first.identifier)
        await stand.store.batch_unsent(first, "late", None, now_ms + 1_002)
        assert (await stand.batches())[0].state is BatchState.WAITING
        assert await stand.store.claim_batches(now_ms + 1_003, now_ms + 9_000, 10) == []
        await stand.store.batch_sent(second, now_ms + 1_004)
        assert (await stand.batches())[0].state is BatchState.SENT

    billing(body)


def test_how_far_behind_the_outbox_is(billing):
    async def body(stand):
        assert (await stand.flusher.backlog()).age_s(stand.clock.now_ms()) == 0
        began_ms = stand.clock.now_ms()
        await stand.use(1)
        backlog = await stand.flusher.backlog()
        assert (backlog.waiting, backlog.dead, backlog.unfrozen, backlog.oldest_ms) == (0, 0, 1, began_ms)
        stand.biller.script.extend(["down", "refuse"])
        await stand.flush()
        await stand.later(s=3_000)
        backlog = await stand.flusher.backlog()
        assert (backlog.waiting, backlog.dead, backlog.unfrozen, backlog.oldest_ms) == (0, 1, 0, None)
        await stand.use(1)
        stand.biller.script.append("down")
        await stand.flush()
        backlog = await stand.flusher.backlog()
        assert backlog.waiting == 1
        now_ms = stand.clock.now_ms()
        assert not backlog.is_behind(now_ms + HOUR_MS)
        assert backlog.is_behind(now_ms + HOUR_MS + 2_000)

    billing(body)


def test_two_writers_on_one_file_wait_for_each_other_and_meet_no_lock_error(billing_once, sqlite_url):
    """Pitfall 51: a transaction that begins by reading and then writes fails at once where another writer was quicker,
    however long it may wait. Two connections freeze, claim and settle at the same time; nobody is told of a lock."""

    async def body(stand):
        other = await open_store(sqlite_url, clock=stand.clock)
        try:
            second = Stand(other, stand.clock, stand.biller)

            async def write(one, who):
                for number in range(25):
                    await one.use("1.5", call_id=f"{who}-{number}")
                    # Each reads what is owed, and writes what follows from it.
                    await one.store.freeze(["ada"], {}, METER, f"{who}-{number}", stand.clock.now_ms())
                    now_ms = stand.clock.now_ms()
                    for batch in await one.store.claim_batches(now_ms, now_ms + 1, 5):
                        await one.store.batch_sent(batch, now_ms)

            await asyncio.gather(write(stand, "a"), write(second, "b"), write(stand, "c"), write(second, "d"))
            used = await stand.store.usage_total(0, 2**50)
            (residue,) = (await stand.store.counted("ada", 0, 0, stand.clock.now_ms())).left_micro.values()
            frozen = sum(batch.value for batch in await stand.store.batches(limit=1_000))
            assert (used.requests, used.units_micro) == (100, 150_000_000)
            assert frozen * 1_000_000 + residue == 150_000_000
        finally:
            await other.close()

    billing_once(body)
