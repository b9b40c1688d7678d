"""Caps that stay closed until the billing period turns, and limits of two scopes, on both databases."""

import asyncio
from dataclasses import replace
from decimal import Decimal

from gatekeeper.clock import SystemClock
from gatekeeper.ports import Customer, Progress
from gatekeeper.rules.declared import DeclaredLimit
from gatekeeper.rules.diagnosis import all_well, diagnose
from gatekeeper.rules.latches import is_latch
from gatekeeper.rules.limits import (
    ONE_REQUEST,
    SCOPES,
    Denied,
    Granted,
    Mode,
    Pair,
    Reason,
    Release,
    Scope,
    StockLimit,
    Window,
    names_model,
)
from gatekeeper.rules.lines import Bounds, Subject, stock_lines
from gatekeeper.rules.overlays import Family, Overlay
from gatekeeper.rules.plans import Plan
from gatekeeper.rules.windows import DAY_MS
from gatekeeper.stores import open_store

PLAN = Plan("pro", "Pro", Decimal(0), None)
DAILY = StockLimit("daily", Pair.USER_MODEL, "requests", Window.DAY, 3 * ONE_REQUEST, release=Release.BILLING_PERIOD)


def lines(make, now_ms, resets=None, limit=DAILY, **who):
    anchor_ms = make.NOW_MS - 10 * DAY_MS
    subject = replace(Subject("acme", "pro", "chat", anchor_ms, "k1", "ann", "bot", "gpt-4o"), **who)
    return stock_lines(PLAN, subject, Bounds(), now_ms, [DeclaredLimit(limit)], resets or {})


def order(make, name, now_ms, **more):
    stock = lines(make, now_ms, **more)
    return make.order(name, *stock, now_ms=now_ms, user_id="ann", agent_id="bot")


def ended(make, name, now_ms):
    return make.settlement(name, started_ms=now_ms, user_id="ann", agent_id="bot")


async def call(store, make, name, now_ms, **more):
    verdict = await store.hold(order(make, name, now_ms, **more))
    if isinstance(verdict, Granted):
        await store.settle(ended(make, name, now_ms))
    return verdict


async def balanced(store, make):
    now_ms = make.NOW_MS + 40 * DAY_MS
    figures = await store.figures(0, now_ms)
    return await store.unbalanced() == ([], []) and all_well(diagnose(figures, now_ms, 100))


def test_a_cap_that_was_hit_stays_closed_until_the_period_turns_and_the_doctor_is_content(with_store, make):
    async def body(store):
        await store.create_customer(Customer("acme", "Acme", "pro", make.NOW_MS, make.NOW_MS - 10 * DAY_MS))
        for number in range(3):
            assert isinstance(await call(store, make, f"c{number}", make.NOW_MS), Granted)
        tomorrow = make.NOW_MS + DAY_MS
        denied = await call(store, make, "no", tomorrow)
        assert isinstance(denied, Denied)
        assert (denied.reason, denied.limit.used, denied.limit.window) == (Reason.CLOSED, 3 * ONE_REQUEST, "day")
        turn_ms = denied.limit.resets_ms
        assert isinstance(await call(store, make, "no", turn_ms - 1), Denied)
        assert isinstance(await call(store, make, "turned", turn_ms), Granted)
        # Another model has a day and a latch of its own.
        stock = lines(make, tomorrow, model="gpt-4o-mini")
        made = make.order("mini", *stock, now_ms=tomorrow, user_id="ann", model="gpt-4o-mini")
        assert isinstance(await store.hold(made), Granted)
        more = {"started_ms": tomorrow, "user_id": "ann", "model": "gpt-4o-mini"}
        await store.settle(make.settlement("mini", **more))
        resets = {(Pair.USER_MODEL, "acme/ann,gpt-4o", "requests", Window.DAY): tomorrow}
        assert isinstance(await call(store, make, "reset", tomorrow + 1, resets=resets), Granted)
        (latch,) = [line.key for line in lines(make, make.NOW_MS) if is_latch(line.key)]
        (state,) = await store.counters([latch])
        assert (state.used, state.held) == (3 * ONE_REQUEST, 0)
        assert await balanced(store, make)

    with_store(body)


def test_of_many_calls_at_once_in_two_processes_the_latch_lets_none_through_the_next_day(store_url, make):
    """Two stores are two processes: the row decides, nobody remembers."""

    async def body():
        stores = [await open_store(store_url, clock=SystemClock()) for _ in range(2)]
        try:
            days = [make.NOW_MS + number % 2 * DAY_MS for number in range(40)]
            found = await asyncio.gather(
                *(call(stores[number % 2], make, f"c{number}", at) for number, at in enumerate(days))
            )
            granted = sum(isinstance(one, Granted) for one in found)
            # Each day at most its cap; once one day was hit nothing is admitted any more.
            assert 3 <= granted <= 6
            for number, store in enumerate(stores):
                later = await call(store, make, f"later{number}", make.NOW_MS + 2 * DAY_MS)
                assert isinstance(later, Denied)
                assert later.reason is Reason.CLOSED
            assert await balanced(stores[0], make)
        finally:
            for store in stores:
                await store.close()

    asyncio.run(body())


def test_a_call_that_was_recovered_closes_it_and_its_truth_opens_it_again(with_store, make):
    limit = replace(DAILY, dimension="units", cap=5 * make.MICRO)

    async def body(store):
        now_ms, tomorrow = make.NOW_MS, make.NOW_MS + DAY_MS
        await store.hold(order(make, "lost", now_ms, limit=limit))
        await store.renew([Progress("lost", 6 * make.MICRO, output_seen=True)], now_ms + 1_000)
        assert await store.recover(now_ms + 60_000, {"pro": PLAN}) == 1
        denied = await call(store, make, "no", tomorrow, limit=limit)
        assert isinstance(denied, Denied)
        assert denied.reason is Reason.CLOSED
        settled = await store.settle(ended(make, "lost", now_ms))
        assert (settled.first, settled.record.units_micro) == (True, make.MICRO)
        assert isinstance(await call(store, make, "yes", tomorrow, limit=limit), Granted)
        assert await balanced(store, make)

    with_store(body)


def test_every_scope_and_pair_counts_on_its_own_row_and_the_doctor_knows_whose_it_is(with_store, make):
    limits = [DeclaredLimit(StockLimit(f"l{n}", scope, "units", Window.DAY, None)) for n, scope in enumerate(SCOPES)]
    subject = Subject("acme", "pro", "chat", 0, "k1", "ann", "bot", "gpt-4o")

    async def body(store):
        stock = stock_lines(PLAN, subject, Bounds(), make.NOW_MS, limits)
        assert [line.key.scope for line in stock] == [*SCOPES]
        made = make.order("c1", *stock, user_id="ann", agent_id="bot")
        assert isinstance(await store.hold(made), Granted)
        await store.settle(ended(make, "c1", make.NOW_MS))
        states = await store.counters([line.key for line in stock])
        assert [state.used for state in states] == [make.MICRO] * len(SCOPES)
        assert await balanced(store, make)
        # Somebody else's row is found.
        wrong = stock[0].key._replace(scope="user,model", subject="acme/bob,gpt-4o")
        await store.hold(make.order("c2", replace(stock[0], key=wrong), user_id="ann"))
        await store.settle(make.settlement("c2", user_id="ann"))
        figures = await store.figures(0, make.NOW_MS + DAY_MS)
        assert [odd.what for odd in figures.lines.rows] == ["counts on the user,model acme/bob,gpt-4o"]

    with_store(body)


def test_what_an_operator_set_keeps_its_pair_and_its_release(with_store, make):
    overlay = Overlay(
        "lim_1",
        Family.STOCK,
        "mine",
        Pair.USER_MODEL,
        "each,gpt-4o",
        "requests",
        "day",
        5,
        Mode.BLOCK,
        "UTC",
        1,
        1,
        release=Release.BILLING_PERIOD,
    )

    async def body(store):
        assert await store.add_overlay(overlay)
        (found,) = (await store.limits_snapshot(0)).overlays
        assert found == overlay
        assert type(found.scope) is Pair
        assert await store.change_overlay(replace(overlay, release=Release.WINDOW))
        (found,) = (await store.limits_snapshot(0)).overlays
        assert (found.release, found.version) == (Release.WINDOW, 2)

    with_store(body)


def test_a_truth_of_another_model_than_was_recovered_moves_the_count_and_the_doctor_is_content(
    with_store, sql, store_url, make
):
    """A call was held on the limits of both models, recovered as the first, and served by the second in the end."""
    scopes = (Scope.MODEL, Pair.CUSTOMER_MODEL, Pair.USER_MODEL, Scope.CUSTOMER)
    limits = [DeclaredLimit(StockLimit(f"l{n}", scope, "units", Window.DAY, None)) for n, scope in enumerate(scopes)]
    subject = Subject("acme", "pro", "chat", 0, "k1", "ann", "bot", "gpt-4o")
    other = replace(subject, model="o1,mini")

    async def body(store):
        first, second = (stock_lines(PLAN, who, Bounds(), make.NOW_MS, limits) for who in (subject, other))
        both = first + tuple(line for line in second if names_model(line.key.scope))
        assert isinstance(await store.hold(make.order("c1", *both, user_id="ann", agent_id="bot")), Granted)
        await store.renew([Progress("c1", 5 * make.MICRO, output_seen=True)], make.NOW_MS + 1_000)
        assert await store.recover(make.NOW_MS + 60_000, {"pro": PLAN}) == 1
        truth = make.settlement("c1", 3 * make.MICRO, user_id="ann", agent_id="bot", model="o1,mini")
        assert (await store.settle(truth)).first
        states = await store.counters([line.key for line in both])
        assert [state.used // make.MICRO for state in states] == [0, 0, 0, 3, 3, 3, 3]
        assert await balanced(store, make)
        # The rest of a subject must be its own also in a correction.
        text = "UPDATE usage_record SET lines = replace(lines, 'acme/ann,o1', 'acme/bob,o1')"
        await asyncio.to_thread(sql, store_url, text)
        figures = await store.figures(0, make.NOW_MS + DAY_MS)
        assert [odd.what for odd in figures.lines.rows] == ["counts on the user,model acme/bob,o1,mini"]

    with_store(body)
