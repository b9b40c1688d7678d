"""All-or-nothing over several scopes, rates under parallel calls, and clocks that go backwards. On both databases."""

import asyncio

from gatekeeper.clock import SystemClock
from gatekeeper.rules.limits import BucketKey, CounterKey, Denied, Granted, Mode, RateLine, Reason, StockLine
from gatekeeper.rules.windows import Window, window_bounds
from gatekeeper.stores import open_store

SCOPES = (("global", "*"), ("user", "acme/u"), ("agent", "acme/a"))


def rows(sql, url):
    """Everything that counts, to the digit."""
    return sql(url, "SELECT * FROM counter ORDER BY 1, 2, 3"), sql(url, "SELECT * FROM bucket ORDER BY 1, 2, 3")


def test_where_the_third_scope_refuses_the_first_two_are_unchanged(with_store, make, sql, store_url):
    def order(call_id, agent_cap, **changes):
        lines = [
            StockLine(CounterKey(scope, subject, "units", "day", 0), scope, cap, Mode.BLOCK, 5, 1, None)
            for (scope, subject), cap in zip(SCOPES, (100, 100, agent_cap), strict=True)
        ]
        rates = [
            RateLine(BucketKey(scope, subject, "units", 60_000_000), scope, 10**9, 5, 5) for scope, subject in SCOPES
        ]
        return make.order(
            call_id, *lines, **{"rates": tuple(rates), "output_tokens": 3, "output_tokens_min": 3, **changes}
        )

    async def body(store):
        assert isinstance(await store.hold(order("first", 10)), Granted)
        before = await asyncio.to_thread(rows, sql, store_url)
        assert [row[-1] for row in before[0]] == [8, 8, 8]
        for n, refused in enumerate((order("small", 10), order("nothing", 0), order("again", 15))):
            found = await store.hold(refused)
            assert isinstance(found, Denied), n
            assert found.limit.name == "agent"
        full = RateLine(BucketKey("agent", "acme/a", "requests", 60_000), "agent-rate", 1, 1, 2)
        found = await store.hold(order("rate", 100, rates=(*order("x", 100).rates, full)))
        assert (found.reason, found.limit.name) == (Reason.EXCEEDS_RATE, "agent-rate")
        assert (await asyncio.to_thread(rows, sql, store_url))[0] == before[0]
        spent = {row[:4]: row[4] for row in (await asyncio.to_thread(rows, sql, store_url))[1]}
        assert spent | {row[:4]: row[4] for row in before[1]} == spent, "what was charged before is as it was"
        assert sum(spent.values()) == sum(row[4] for row in before[1])
        assert (await store.settle(make.settlement("first", 7))).first
        assert [row[-2:] for row in (await asyncio.to_thread(rows, sql, store_url))[0]] == [(7, 0)] * 3

    with_store(body)


def test_five_parallel_callers_get_no_more_than_100_units_a_minute(with_store, make, store_url):
    """LiteLLM 18730: 100 tokens a minute, 5 parallel calls, 663 passed."""
    key = BucketKey("key", "k1", "units", 60_000)
    line = RateLine(key, "tpm", 100 * make.MICRO, 20 * make.MICRO, 20 * make.MICRO)

    async def body(store):
        other = await open_store(store_url, clock=SystemClock())
        loop = asyncio.get_running_loop()
        began_s, admitted, refused = loop.time(), 0, []

        async def caller(number):
            nonlocal admitted
            for turn in range(30):
                ledger = (store, other)[turn % 2]
                found = await ledger.hold(make.order(f"c{number}-{turn}", rates=(line,)))
                if isinstance(found, Denied):
                    refused.append(found)
                    continue
                admitted += 1
                await ledger.settle(make.settlement(f"c{number}-{turn}", 20 * make.MICRO))

        try:
            await asyncio.gather(*(caller(number) for number in range(5)))
        finally:
            await other.close()
        took_s = loop.time() - began_s
        assert 5 <= admitted <= (100 + 100 * took_s / 60) // 20
        assert {(one.reason, one.limit.name) for one in refused} == {(Reason.RATE, "tpm")}
        assert all(1 <= one.retry_after_s <= 12 for one in refused)

    with_store(body)


class Standing:
    """Time that the test moves."""

    def __init__(self, now_ms):
        self.now = now_ms

    def now_ms(self):
        return self.now

    def monotonic_s(self):
        return self.now / 1000

    async def sleep(self, seconds):
        raise AssertionError("nothing here waits for time")


def test_a_clock_that_goes_backwards_gives_nothing_away_and_loses_nothing(store_url, make):
    async def run():
        clock = Standing(make.NOW_MS)
        store = await open_store(store_url, clock=clock)
        try:
            rate = make.rate(cap=3 * make.MICRO, key=BucketKey("key", "k1", "units", 10**15))
            for n, back_ms in enumerate((0, 5_000, 3_600_000)):
                clock.now = make.NOW_MS - back_ms
                order = make.order(f"c{n}", make.line(cap=3 * make.MICRO), rates=(rate,), now_ms=clock.now)
                assert isinstance(await store.hold(order), Granted)
            assert isinstance(await store.hold(make.order("c3", rates=(rate,), now_ms=clock.now)), Denied)
            # Held an hour "ago" for 30 s: nobody is taken for dead by a clock that is behind.
            assert await store.recover(clock.now, {}) == 0
            for n in range(3):
                assert (
                    await store.settle(make.settlement(f"c{n}", started_ms=clock.now, ended_ms=clock.now - 9))
                ).first
            (quota,) = await store.counters([make.QUOTA])
            assert (quota.used, quota.held) == (3 * make.MICRO, 0)
            assert await store.unbalanced() == ([], [])
        finally:
            await store.close()

    asyncio.run(run())


def test_a_call_that_runs_into_the_next_window_counts_where_it_was_admitted(with_store, make):
    """The last seconds of February, and the night in which Berlin's clocks go forward: a day of 23 hours."""

    async def body(store):
        turns = [
            (Window.MONTH, 1_772_323_199_000, "UTC"),  # 2026-02-28 23:59:59
            (Window.DAY, 1_774_738_799_000, "Europe/Berlin"),  # 2026-03-28 23:59:59, the day before
            (Window.DAY, 1_774_821_599_000, "Europe/Berlin"),  # 2026-03-29 23:59:59, that day
        ]
        for n, (window, before_ms, zone) in enumerate(turns):
            starts = [window_bounds(window, at, zone=zone) for at in (before_ms, before_ms + 1_000)]
            assert starts[0][1] == starts[1][0] == before_ms + 1_000, "it turns within that second"
            keys = [CounterKey("customer", f"c{n}", "units", window, start) for start, _ in starts]
            orders = [
                make.order(f"{n}-{at}", make.line(key=key, cap=make.MICRO), now_ms=before_ms + 1_000 * at)
                for at, key in enumerate(keys)
            ]
            # The new window is open although the old one is full and its call still runs.
            assert isinstance(await store.hold(orders[0]), Granted)
            assert isinstance(await store.hold(orders[1]), Granted)
            for at in (1, 0):
                assert (await store.settle(make.settlement(f"{n}-{at}"))).first
            assert [(one.used, one.held) for one in await store.counters(keys)] == [(make.MICRO, 0)] * 2
        day_ms = window_bounds(Window.DAY, turns[2][1], zone="Europe/Berlin")
        assert day_ms[1] - day_ms[0] == 23 * 3_600_000
        assert await store.unbalanced() == ([], [])

    with_store(body)


def test_a_plan_that_changes_under_way_keeps_the_lines_of_the_open_call(with_store, make):
    async def body(store):
        await store.hold(make.order("old", make.line(cap=10 * make.MICRO, fixed=8 * make.MICRO), plan_id="large"))
        # A smaller plan on the same counter: what the old call holds and used stays.
        small = make.order("new", make.line(cap=9 * make.MICRO, fixed=2 * make.MICRO), plan_id="small")
        found = await store.hold(small)
        assert (found.reason, found.limit.remaining) == (Reason.HELD, make.MICRO)
        assert (await store.settle(make.settlement("old", 8 * make.MICRO, plan_id="large"))).first
        found = await store.hold(small)
        assert found.reason is Reason.EXCEEDS_LIMIT
        larger = make.order("new", make.line(cap=20 * make.MICRO, fixed=12 * make.MICRO), plan_id="large")
        assert isinstance(await store.hold(larger), Granted)
        (quota,) = await store.counters([make.QUOTA])
        assert (quota.used, quota.held) == (8 * make.MICRO, 12 * make.MICRO)

    with_store(body)
