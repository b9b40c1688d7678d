"""What is forgotten nobody can miss: decisions stay the same, the doctor stays content, and one process does it."""

import asyncio

from gatekeeper.clock import SystemClock
from gatekeeper.rules.limits import BucketKey, CounterKey, Granted
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.stores import forgetting, open_store
from gatekeeper.stores.database import alone
from gatekeeper.stores.forgetting import AT_ONCE, Forgetter

MINUTE = 60_000
ALL_FIGURES = "SELECT scope, subject, dimension, span, start_ms, used, held FROM counter ORDER BY 1, 2, 3, 4, 5"
BUCKETS = "SELECT subject FROM bucket ORDER BY 1"


async def turns(store, now_ms, count=1):
    """So many turns of a process of its own."""
    forgetter = Forgetter(store._database)
    for _ in range(count):
        await forgetter.turn(now_ms)
    return forgetter


def test_buckets_that_have_drained_at_any_rate_are_forgotten(with_store, store_url, sql, make):
    now_ms = make.NOW_MS + 100 * DAY_MS
    idle_ms = now_ms - 36 * DAY_MS
    rows = {
        "charged lately": (0, now_ms - 34 * DAY_MS),
        "drained": (1_440 * make.MICRO - 1, idle_ms - 1),
        # At one unit a minute this takes one minute longer than the day that it had beyond the 35.
        "in debt": (1_440 * make.MICRO, idle_ms),
        "full": (2**63 - 1, idle_ms - 9_000 * DAY_MS),
    }
    values = ", ".join(f"('key', '{name}', 'units', {MINUTE}, {spent}, {at})" for name, (spent, at) in rows.items())
    with_store(lambda store: store.ping())
    sql(store_url, f"INSERT INTO bucket (scope, subject, dimension, per_ms, spent, at_ms) VALUES {values}")
    with_store(lambda store: turns(store, now_ms))
    assert sql(store_url, BUCKETS) == [("charged lately",), ("full",), ("in debt",)]


def test_counters_that_count_anything_stay_and_the_doctor_is_content(with_store, store_url, sql, make):
    other = CounterKey("user", "refused", "units", "hour", make.MONTH_MS)
    ever = CounterKey("key", "k1", "units", "total", 0)
    held = CounterKey("user", "slow", "units", "hour", make.MONTH_MS)

    async def body(store):
        await store.hold(make.order("a", make.line()))
        await store.settle(make.settlement("a"))
        # Refused calls, and one that took nothing, leave counters of nothing behind.
        for call_id, key in (("b", other), ("c", ever)):
            assert not isinstance(await store.hold(make.order(call_id, make.line(key=key, cap=0))), Granted)
        await store.hold(make.order("d", make.line(key=other._replace(subject="idle"))))
        await store.settle(make.settlement("d", 0))
        await store.hold(make.order("e", make.line(key=held)))
        before = len(await store._database.report(alone("empty_counters", before_ms=2**62, limit=9)))
        await turns(store, make.NOW_MS + 70 * DAY_MS)
        unbalanced = await store.unbalanced()
        # What was forgotten begins anew, also for the process that knew the row.
        answers = await asyncio.gather(
            *(store.hold(make.order(f"again-{n}", make.line(key=other, cap=2 * make.MICRO))) for n in range(3))
        )
        return before, unbalanced, [isinstance(answer, Granted) for answer in answers], await store.unbalanced()

    assert with_store(body) == (2, ([], []), [True, True, False], ([], []))
    assert sql(store_url, ALL_FIGURES) == [
        (*make.QUOTA, make.MICRO, 0),
        (*ever, 0, 0),
        (*other, 0, 2 * make.MICRO),
        (*held, 0, make.MICRO),
    ]


def test_what_was_written_since_it_was_found_stays(with_store, store_url, sql, make):
    key, bucket = CounterKey("user", "x", "units", "hour", make.MONTH_MS), BucketKey("key", "k9", "units", MINUTE)

    async def body(store):
        await store.hold(make.order("a", make.line(key=key), rates=(make.rate(key=bucket),)))
        for query, row in (("forget_counters", (*key, 0, 0)), ("forget_buckets", (*bucket, 0, 0))):
            await store._database.write(lambda query=query, row=row: forgetting._many(query, [row]))
        return await store.counters([key])

    (state,) = with_store(body)
    assert state.held == make.MICRO
    assert sql(store_url, BUCKETS) == [("k9",)]


def test_one_process_forgets_until_it_has_been_gone_for_a_day(store_url, sql, make):
    async def body():
        first, second = [await open_store(store_url, clock=SystemClock()) for _ in range(2)]
        now_ms, left = make.NOW_MS + 99 * DAY_MS, []

        async def turn(forgetter, now_ms):
            await asyncio.to_thread(
                sql,
                store_url,
                f"INSERT INTO bucket VALUES ('key', 'k', 'units', {MINUTE}, 0, 0) ON CONFLICT DO NOTHING",
            )
            await forgetter.turn(now_ms)
            left.append(len(await asyncio.to_thread(sql, store_url, BUCKETS)))

        one, two = Forgetter(first._database), Forgetter(second._database)
        await turn(one, now_ms)
        await turn(two, now_ms)
        await turn(one, now_ms + DAY_MS - 1)
        await turn(two, now_ms + DAY_MS - 1)
        await turn(two, now_ms + DAY_MS + 3_600_000)
        await turn(one, now_ms + DAY_MS + 3_600_000)
        await first.close()
        await second.close()
        return left

    assert asyncio.run(body()) == [0, 1, 1, 1, 0, 1]


def test_much_is_forgotten_in_several_turns(with_store, store_url, sql, make):
    with_store(lambda store: store.ping())
    numbers = f"WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {AT_ONCE + 700})"
    insert = "INSERT INTO bucket (scope, subject, dimension, per_ms, spent, at_ms)"
    sql(store_url, f"{insert} {numbers} SELECT 'key', 'k' || i, 'units', {MINUTE}, 5, 0 FROM n")

    async def body(store):
        forgetter = await turns(store, make.NOW_MS)
        left = len(await store._database.report(alone("idle_buckets", before_ms=make.NOW_MS, limit=9_999)))
        await forgetter.turn(make.NOW_MS)
        return left, len(await store._database.report(alone("idle_buckets", before_ms=make.NOW_MS, limit=9_999)))

    assert with_store(body) == (700, 0)
