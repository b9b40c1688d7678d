"""What no call tells by itself: breakers, as one process and as several see them, and spend far above the usual."""

import json
from collections import Counter

import httpx
import pytest
from fakes.origin import replays
from fakes.stand import ROUTES, running
from notifiers_stand import gateway_of, webhook

from gatekeeper.meters import Mark, Outcome
from gatekeeper.notifiers.watch import Watch
from gatekeeper.ports import Settlement, UsageRecord
from gatekeeper.rules.notices import wanted

EVENTS = '["breaker.changed", "spend.spike"]'
HOUR_S = 3_600


def watching(stand, events=EVENTS):
    stand.gateway = gateway_of(webhook(stand.receiver.url, events=events))
    stand.store.tell(wanted(one.subscription for one in stand.gateway.notifications))
    return Watch(stand.store, lambda: stand.gateway, stand.clock)


async def told(stand):
    """Kind and content of all events, oldest first."""
    subscriptions = [one.subscription for one in stand.gateway.notifications]
    await stand.store.fan_out(subscriptions, stand.clock.now_ms())
    found = [one.event for one in await stand.store.deliveries(limit=100)]
    return [(one.kind.removeprefix("gatekeeper."), one.content) for one in sorted(found, key=lambda e: e.created_ms)]


async def spent(stand, call_id, dollars, ago_s, customer_id="acme"):
    """A call of so many dollars."""
    started_ms = stand.clock.now_ms() - ago_s * 1_000
    record = UsageRecord(
        call_id, "2025-06", customer_id, "k1", None, None, "free", "chat", "local", "m", "POST", "/", 200,
        Outcome.COMPLETE, False, started_ms, started_ms + 1, None, 1, Mark.MEASURED, cost_nano=int(dollars * 10**9),
    )  # fmt: skip
    await stand.store.settle(Settlement(record, {}, None, started_ms))


def test_a_breaker_is_told_once_when_it_opens_and_once_when_it_closes(tell):
    async def body(stand):
        first, second = watching(stand), watching(stand)
        for is_open, is_closed in ((True, False), (False, False), (True, False), (False, False), (False, True)):
            for watch in (first, second):
                watch.breaker("local", is_open=is_open, is_closed=is_closed)
                await watch.turn()
            stand.clock.now_s += 10
        # A process that never saw it open says nothing of its end.
        third = watching(stand)
        third.breaker("local", is_open=False, is_closed=True)
        await third.turn()
        return await told(stand)

    found = tell(body)
    assert [(kind, content["upstream"], content["state"]) for kind, content in found] == [
        ("breaker.changed", "local", "open"),
        ("breaker.changed", "local", "closed"),
    ]


def test_spend_far_above_the_usual_is_told_once_an_hour_by_one_process(tell):
    async def body(stand):
        for hour in range(1, 50):
            await spent(stand, f"usual{hour}", 1, hour * HOUR_S + 60)
        await spent(stand, "now", 30, 60)
        watches = [watching(stand) for _ in range(3)]
        counts = []
        for _ in range(2):
            for watch in watches:
                await watch.turn()
            counts.append(len(await told(stand)))
        stand.clock.now_s += HOUR_S
        await spent(stand, "again", 90, 60)
        for watch in watches:
            await watch.turn()
        return counts, await told(stand)

    counts, found = tell(body)
    assert counts == [3, 3]
    assert Counter((kind, content["scope"], content["subject"]) for kind, content in found) == {
        ("spend.spike", "global", "*"): 2,
        ("spend.spike", "customer", "acme"): 2,
        ("spend.spike", "key", "k1"): 2,
    }
    content = next(content for _, content in found if content["scope"] == "customer")
    assert (content["last_hour"], content["usual_per_hour"], content["times"]) == ("30", "1", "30")


def test_nobody_looks_for_what_nobody_wants_to_hear(tell):
    async def body(stand):
        await spent(stand, "now", 30, 60)
        watch = watching(stand, '["limit.threshold"]')
        watch.breaker("local", is_open=True, is_closed=False)
        await watch.turn()
        # It did not even ask whether it is the first.
        return await told(stand), await stand.store.first("spikes", stand.clock.now_ms(), 2**50)

    assert tell(body) == ([], True)


def test_customers_are_not_told_what_providers_take(tell):
    async def body(stand):
        watch = watching(stand)
        await spent(stand, "now", 30, 60)
        await watch.turn()
        await told(stand)
        return {one.event.customer_id for one in await stand.store.deliveries()}

    assert tell(body) == {None}


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_an_upstream_that_is_left_alone_is_told_by_the_whole_gateway(kind, request, tmp_path):
    url = request.getfixturevalue(f"{kind}_url")
    routes = f"{ROUTES}[[notifications]]\n{webhook('http://127.0.0.1:9/', events=EVENTS)}\n"
    breaker = "breaker = { failures = 2, pause_s = 30 }"
    with running(
        tmp_path, replays(b"{}", "application/json", 500), routes=routes, upstream=breaker, database_url=url
    ) as stand:
        for _ in range(3):
            headers = {"Authorization": f"Bearer {stand.key}"}
            httpx.post(f"{stand.url}/v1/embeddings", content=json.dumps({"model": "m", "input": "x"}), headers=headers)

        async def is_told():
            found = await stand.house.store.deliveries()
            return [one.event.content["state"] for one in found] == ["open"]

        stand.wait_until(is_told)
