"""From a call to the receiver: the whole gateway, as it is put together."""

import asyncio
import json
import threading

import httpx
import pytest
from fakes.origin import replays
from fakes.stand import PLANS, ROUTES, running
from notifiers_stand import SECRET, Receiver, signed_by, webhook

QUOTA = PLANS["pro.toml"].replace("1_000_000", "20")
ANSWER = json.dumps({"id": "chatcmpl-1", "model": "gpt-4o", "usage": {"total_tokens": 17}}).encode()


@pytest.fixture
def receiver():
    """A receiver in a thread of its own, so that it outlives the gateway."""
    taken, started, stop = Receiver(), threading.Event(), threading.Event()

    async def serve():
        await taken.origin.start()
        started.set()
        await asyncio.to_thread(stop.wait)
        await taken.origin.stop()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    started.wait(10)
    yield taken
    stop.set()
    thread.join(10)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_call_is_told_with_the_threshold_that_it_reached(kind, request, tmp_path, receiver):
    url = request.getfixturevalue(f"{kind}_url")
    routes = f"{ROUTES}[[notifications]]\n{webhook(receiver.url)}\n"
    plans = {**PLANS, "pro.toml": QUOTA}
    behave = replays(ANSWER, "application/json")
    with running(tmp_path, behave, routes=routes, plans=plans, database_url=url) as stand:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
        headers = {"authorization": f"Bearer {stand.key}"}
        answer = httpx.post(f"{stand.url}/v1/chat/completions", json=body, headers=headers)
        assert answer.status_code == 200
        assert httpx.get(f"{stand.url}/readyz").status_code == 200
        record = stand.record()
    # What had not been told by itself was told before the end.
    assert len(receiver.events) == 2
    assert all(signed_by(asked, SECRET) for asked in receiver.asked)
    usage = receiver.events[record.call_id]
    assert (usage["type"], usage["subject"]) == ("gatekeeper.usage.recorded", "acme")
    assert (usage["data"]["units"], usage["data"]["model"]) == ("17", "gpt-4o")
    (limit,) = (event for event in receiver.events.values() if event["type"] == "gatekeeper.limit.threshold")
    assert (limit["data"]["threshold"], limit["data"]["used"], limit["data"]["cap"]) == (80, "17", "20")
    assert limit["data"]["call_id"] == record.call_id


def test_a_gateway_that_tells_nobody_writes_nothing(tmp_path):
    with running(tmp_path, replays(ANSWER, "application/json")) as stand:
        body = {"model": "gpt-4o", "messages": []}
        headers = {"authorization": f"Bearer {stand.key}"}
        httpx.post(f"{stand.url}/v1/chat/completions", json=body, headers=headers)
        stand.record()
        assert stand.run(stand.house.store.due([], 2**50)) == (False, [])
