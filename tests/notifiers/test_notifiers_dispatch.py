"""At least once: nothing is lost while a receiver, a process or the way is down, and nobody is flooded meanwhile."""

import asyncio
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from notifiers_stand import gateway_of, telling, webhook

from gatekeeper.notifiers import dispatch
from gatekeeper.rules.notices import ATTEMPTS_MAX
from gatekeeper.stores import open_store

WORKER = Path(__file__).with_name("notifiers_worker.py")
ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"


def test_a_receiver_that_is_down_for_a_while_loses_nothing(tell):
    async def body(stand):
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.receiver.origin.stop()
        port = stand.receiver.origin.port
        names = [f"limit_{number}" for number in range(30)]
        await stand.emit(*names)
        # Three hours, looked at every minute.
        await stand.turns(dispatcher, 180, step_s=60)
        assert {state for state, _, _ in (await stand.states()).values()} == {"waiting"}
        stand.receiver.origin._server = await asyncio.start_server(stand.receiver.origin._serve, "127.0.0.1", port)
        await stand.turns(dispatcher, 240, step_s=60)
        assert {state for state, _, _ in (await stand.states()).values()} == {"sent"}
        assert sorted(stand.receiver.events) == sorted(names)

    tell(body)


def test_what_fails_is_tried_for_a_day_with_growing_pauses_and_then_given_up(tell):
    async def body(stand):
        stand.receiver.answer = 500
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit("limit_1")
        times = []
        for _ in range(27 * 60 * 2):
            before = len(stand.receiver.asked)
            await stand.turns(dispatcher)
            if len(stand.receiver.asked) > before:
                times.append(stand.clock.now_s)
            stand.clock.now_s += 30
        assert len(times) == ATTEMPTS_MAX
        pauses = [later - sooner for sooner, later in pairwise(times)]
        assert pauses == sorted(pauses)
        assert pauses[-1] == 3 * 3600
        assert 24 <= (times[-1] - times[0]) / 3600 <= 26
        assert await stand.states() == {"limit_1": ("dead", ATTEMPTS_MAX, "the receiver answered 500")}
        # Every attempt was the same event, dated anew.
        assert len({asked.body for asked in stand.receiver.asked}) == 1
        assert len({asked.header("webhook-timestamp") for asked in stand.receiver.asked}) == ATTEMPTS_MAX
        # An operator who has mended it begins anew.
        stand.receiver.answer = 200
        assert await stand.store.retry(stand.clock.now_ms(), event_id="limit_1") == 1
        stand.clock.now_s += 60
        await stand.turns(dispatcher)
        assert await stand.states() == {"limit_1": ("sent", 1, None)}

    tell(body)


def test_a_target_that_is_down_is_asked_for_one_thing_at_a_time_and_the_rest_loses_no_attempts(tell):
    async def body(stand):
        stand.receiver.answer = 503
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit(*(f"limit_{number}" for number in range(20)))
        await stand.turns(dispatcher)
        assert len(stand.receiver.asked) == dispatch.BATCH_MAX
        await stand.turns(dispatcher)
        assert len(stand.receiver.asked) == dispatch.BATCH_MAX
        stand.clock.now_s += 1
        await stand.turns(dispatcher)
        assert len(stand.receiver.asked) == dispatch.BATCH_MAX + 1
        assert sum(attempts for _, attempts, _ in (await stand.states()).values()) == dispatch.BATCH_MAX + 1

    tell(body)


def test_one_event_that_is_refused_does_not_hold_up_the_others(tell):
    async def body(stand):
        async def answer(asked):
            return 400 if asked.header("webhook-id") == "limit_3" else 204

        stand.receiver.answer = answer
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit(*(f"limit_{number}" for number in range(20)))
        await stand.turns(dispatcher, 4)
        states = await stand.states()
        assert states.pop("limit_3") == ("waiting", 1, "the receiver answered 400")
        assert set(states.values()) == {("sent", 1, None)}

    tell(body)


def test_a_target_that_hangs_does_not_hold_up_another(tell):
    async def body(stand):
        hanging = asyncio.Event()

        async def answer(asked):
            if asked.target == b"/slow":
                await hanging.wait()
            return 204

        stand.receiver.answer = answer
        slow = webhook(f"http://127.0.0.1:{stand.receiver.origin.port}/slow", "slow", '["limit.threshold"]')
        dispatcher = stand.dispatcher(slow, webhook(stand.receiver.url))
        # The same ids go to both targets, at the same time.
        await stand.emit(*(f"limit_{number}" for number in range(24)))
        while len([one for one in await stand.store.deliveries(target="ops") if one.state == "sent"]) < 24:
            await dispatcher.turn()
            await asyncio.sleep(0.005)
        assert {one.state for one in await stand.store.deliveries(target="slow")} == {"waiting"}
        hanging.set()
        await stand.turns(dispatcher, 4)
        assert {one.state for one in await stand.store.deliveries()} == {"sent"}

    tell(body)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_two_dispatchers_never_send_the_same_claim_at_once(kind, request):
    url = request.getfixturevalue(f"{kind}_url")

    async def body():
        async with telling(url) as stand:

            async def answer(asked):
                await asyncio.sleep(0.002)
                return 204

            stand.receiver.answer = answer
            second = await open_store(url, clock=stand.clock)
            pair = [stand.dispatcher(webhook(stand.receiver.url)), stand.dispatcher(store=second)]
            await stand.emit(*(f"limit_{number}" for number in range(100)))
            for _ in range(60):
                await asyncio.gather(*(stand.turns(one) for one in pair))
            await asyncio.gather(*(one.drain(0.0) for one in stand.dispatchers))
            stand.dispatchers.clear()
            await second.close()
            assert set((await stand.states()).values()) == {("sent", 1, None)}
            assert stand.receiver.collisions == []
            assert len(stand.receiver.asked) == len(stand.receiver.events) == 100

    asyncio.run(body())


@pytest.mark.parametrize("where", ["before", "after"])
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_dispatcher_that_is_killed_between_post_and_mark_is_made_up_for(kind, where, request):
    url = request.getfixturevalue(f"{kind}_url")

    async def body():
        async with telling(url) as stand:
            # The other process has a clock of its own.
            await stand.emit("limit_1")
            command = [sys.executable, str(WORKER), url, stand.receiver.url, where]
            paths = os.pathsep.join([str(ROOT), str(TESTS), str(WORKER.parent)])
            process = await asyncio.create_subprocess_exec(
                *command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
            )
            assert await process.stdout.readline() == b"posted\n"
            process.kill()
            await process.wait()
            # The receiver has it; whether we know that depends on where it died.
            assert sorted(stand.receiver.events) == ["limit_1"]
            ((state, attempts, _),) = (await stand.states()).values()
            assert (state, attempts) == ("sent" if where == "after" else "waiting", 1)
            (standing,) = await stand.store.deliveries()
            dispatcher = stand.dispatcher(webhook(stand.receiver.url))
            stand.clock.now_s = (standing.next_ms - 1) / 1000
            await stand.turns(dispatcher)
            assert len(stand.receiver.asked) == 1
            stand.clock.now_s += 1
            await stand.turns(dispatcher)
            # Once more, under the same id, so that whoever keeps the first of each id has it once.
            assert len(stand.receiver.asked) == (1 if where == "after" else 2)
            assert {asked.header("webhook-id") for asked in stand.receiver.asked} == {"limit_1"}
            assert len({asked.body for asked in stand.receiver.asked}) == 1
            assert [state for state, _, _ in (await stand.states()).values()] == ["sent"]

    asyncio.run(body())


def test_the_dispatcher_goes_on_by_itself_until_nothing_is_due(tell):
    async def body(stand):
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit(*(f"limit_{number}" for number in range(50)))
        running = asyncio.create_task(dispatcher.run())
        await stand.receiver.has(50)
        await stand.emit("late")
        await stand.receiver.has(51)
        running.cancel()
        await asyncio.wait({running})
        assert running.cancelled()

    tell(body)


def test_what_is_due_is_told_before_the_end_and_what_cannot_be_is_left(tell):
    async def body(stand):
        dispatcher = stand.dispatcher(webhook(stand.receiver.url))
        await stand.emit(*(f"limit_{number}" for number in range(30)))
        await dispatcher.drain(10.0)
        assert len(stand.receiver.events) == 30

        async def hang(asked):
            await asyncio.sleep(3600)

        stand.receiver.answer = hang
        await stand.emit("last")
        dispatcher = stand.dispatcher()
        await dispatcher.drain(0.2)
        assert (await stand.states())["last"] == ("waiting", 1, None)

    tell(body)


def test_a_reload_is_followed(tell):
    async def body(stand):
        dispatcher = stand.dispatcher(webhook(stand.receiver.url, "a"))
        await stand.emit("limit_1")
        await stand.turns(dispatcher)
        stand.gateway = gateway_of(webhook(stand.receiver.url, "b", '["limit.threshold"]', "thresholds = [95]"))
        await dispatcher.turn()
        # The store was told at once: usage is not wanted any more, nor 80 per cent.
        assert not await stand.store.emit("gatekeeper.usage.recorded", "c1", "acme", {})
        await stand.emit("limit_2")
        await stand.emit("limit_3", threshold=95)
        stand.store.tell(None)
        await stand.turns(dispatcher)
        assert sorted(stand.receiver.events) == ["limit_1", "limit_3"]
        stand.gateway = gateway_of()
        assert await dispatcher.turn() == 0
        assert [one.target for one in await stand.store.deliveries()] == ["b", "a"]

    tell(body)


def test_a_target_that_cannot_be_built_waits_and_the_others_are_told(tell, caplog):
    async def body(stand):
        broken = webhook(stand.receiver.url, "broken", more='ca_file = "missing.pem"')
        dispatcher = stand.dispatcher(broken, webhook(stand.receiver.url))
        await stand.emit("limit_1")
        await stand.turns(dispatcher)
        states = {one.target: one.state for one in await stand.store.deliveries()}
        assert states == {"broken": "waiting", "ops": "sent"}

    tell(body)
    assert "'broken'" in caplog.text


def test_a_target_whose_code_fails_is_noted_without_its_words(tell, caplog):
    class Broken:
        async def send(self, event, customer):
            raise ZeroDivisionError("secret-word")

        async def close(self):
            pass

    async def body(stand):
        stand.gateway = gateway_of(webhook(stand.receiver.url))
        dispatcher = dispatch.Dispatcher(
            stand.store, lambda: stand.gateway, lambda *_: Broken(), stand.clock, lambda: 0.0
        )
        await stand.emit("limit_1")
        await stand.turns(dispatcher)
        assert await stand.states() == {"limit_1": ("waiting", 1, "a mistake of ours: ZeroDivisionError")}

    tell(body)
    assert "secret-word" not in caplog.text
