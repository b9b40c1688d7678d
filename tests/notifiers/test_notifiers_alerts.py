"""Customers' own thresholds: told once in each window, by one process, to him alone."""

import dataclasses
from decimal import Decimal

from notifiers_stand import gateway_of, webhook

from gatekeeper.meters import Mark, Outcome
from gatekeeper.money import Price
from gatekeeper.notifiers.alerts import LOOK_EVERY_S, AlertWatch
from gatekeeper.ports import Customer, Settlement, UsageRecord
from gatekeeper.ports.alerts import Alert, Measure
from gatekeeper.rules.limits import Mode, Scope, StockLimit, Window
from gatekeeper.rules.notices import wanted
from gatekeeper.rules.plans import Plan

MICRO = 1_000_000
QUOTA = StockLimit("quota", Scope.CUSTOMER, "units", Window.MONTH, 0, Mode.OVERAGE)
# Every unit is charged.
MILLI_DOLLAR = Plan("free", "Free", Decimal(0), QUOTA, overage=Price(Decimal("0.001")))


def watching(stand, events='["alert.reached"]'):
    stand.gateway = gateway_of(webhook(stand.receiver.url, events=events))
    stand.store.tell(wanted(one.subscription for one in stand.gateway.notifications))
    return AlertWatch(stand.store, lambda: stand.gateway, stand.clock)


async def customer(stand, name):
    now_ms = stand.clock.now_ms()
    await stand.store.create_customer(Customer(name, name, "free", now_ms, now_ms))


async def used(stand, call_id, customer_id, units, plan=None):
    now_ms = stand.clock.now_ms()
    record = UsageRecord(
        call_id, "2025-06", customer_id, "k1", None, None, "free", "chat", "local", "m", "POST", "/", 200,
        Outcome.COMPLETE, False, now_ms, now_ms + 1, None, units * MICRO, Mark.MEASURED,
    )  # fmt: skip
    await stand.store.settle(Settlement(record, {"units": units * MICRO}, plan, now_ms))


async def told(stand):
    await stand.store.fan_out([one.subscription for one in stand.gateway.notifications], stand.clock.now_ms())
    found = sorted((one.event for one in await stand.store.deliveries(limit=100)), key=lambda one: one.created_ms)
    return [(one.customer_id, one.content["alert"], one.content["reached"]) for one in found]


def alert(name, customer_id, threshold, **changes):
    made = Alert(name, customer_id, Measure.UNITS, Window.DAY, threshold * MICRO, 1)
    return dataclasses.replace(made, **changes)


def test_a_threshold_is_told_once_in_each_window_and_again_in_the_next(tell):
    async def body(stand):
        watch, again = watching(stand), watching(stand)
        await customer(stand, "ada")
        await customer(stand, "bob")
        assert await stand.store.add_alert(alert("a1", "ada", 100), 10)
        assert await stand.store.add_alert(alert("b1", "bob", 100), 10)
        turns = []

        async def turn():
            stand.clock.now_s += LOOK_EVERY_S + 1
            turns.append((await watch.turn(), await again.turn()))

        await used(stand, "c1", "ada", 99)
        await used(stand, "c2", "bob", 5)
        await turn()
        await used(stand, "c3", "ada", 1)
        await turn()
        await turn()
        stand.clock.now_s += 86_400
        await used(stand, "c4", "ada", 250)
        await turn()
        return turns, await told(stand)

    turns, found = tell(body)
    assert turns == [(0, 0), (1, 0), (0, 0), (1, 0)]
    assert found == [("ada", "a1", "100"), ("ada", "a1", "250")]


def test_a_threshold_of_money_looks_at_what_use_is_charged_with(tell):
    async def body(stand):
        watch = watching(stand)
        await customer(stand, "ada")
        dollar = Alert("a1", "ada", Measure.CHARGE, Window.MONTH, 10**9, 1)
        assert await stand.store.add_alert(dollar, 10)
        await used(stand, "c1", "ada", 999, MILLI_DOLLAR)
        first = await watch.turn()
        stand.clock.now_s += LOOK_EVERY_S + 1
        await used(stand, "c2", "ada", 1, MILLI_DOLLAR)
        return first, await watch.turn(), await told(stand)

    assert tell(body) == (0, 1, [("ada", "a1", "1")])


def test_nobody_looks_while_nobody_wants_to_hear(tell):
    async def body(stand):
        watch = watching(stand, '["spend.spike"]')
        await customer(stand, "ada")
        await stand.store.add_alert(alert("a1", "ada", 1), 10)
        await used(stand, "c1", "ada", 7)
        return await watch.turn(), (await stand.store.alerts("ada"))[0].told_ms

    assert tell(body) == (0, None)


def test_a_customer_has_a_bounded_number_of_alerts_each_once_and_drops_only_his_own(tell):
    async def body(stand):
        await customer(stand, "ada")
        made = [await stand.store.add_alert(alert(f"a{n}", "ada", n), 2) for n in (1, 2, 3)]
        same = await stand.store.add_alert(alert("a9", "ada", 1), 9)
        others = await stand.store.drop_alert("bob", "a1")
        own = await stand.store.drop_alert("ada", "a1")
        return made, same, others, own, [one.id for one in await stand.store.alerts("ada")]

    assert tell(body) == ([True, True, False], False, False, True, ["a2"])
