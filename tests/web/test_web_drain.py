"""Who hangs up: ``on_disconnect = "drain"`` learns the usage, within bounds; hanging up makes no call cheap."""

import asyncio
import json

import httpx
import pytest
from fakes.origin import Asked, Line
from fakes.stand import Stand, running

from gatekeeper.meters import Mark, Outcome

ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Hello there"}]}
WORD = "x" * 30


def route(more: str) -> str:
    return f'[[routes]]\nname = "chat"\npath = "/v1/chat/completions"\nupstream = "origin"\n{more}\n'


def words(events: int, go_on: asyncio.Event, seen: list[int]):
    """Some words, then a wait until the client is gone, then the rest with the usage."""

    async def behave(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": WORD}}]}
        for number in range(events):
            if number == 5:
                await go_on.wait()
            await line.chunk(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            seen.append(number)
            await asyncio.sleep(0.002)
        usage = {"prompt_tokens": 4, "completion_tokens": 10 * events, "total_tokens": 4 + 10 * events}
        await line.chunk(b"data: " + json.dumps({"id": "c", "choices": [], "usage": usage}).encode() + b"\n\n")
        await line.chunk(b"data: [DONE]\n\n")
        await line.end()

    return behave


def hang_up_after(stand: Stand, events: int) -> None:
    headers = {"Authorization": f"Bearer {stand.key}"}
    with httpx.stream("POST", f"{stand.url}/v1/chat/completions", json=ASK, headers=headers) as answer:
        text = ""
        for piece in answer.iter_text():
            text += piece
            if text.count(WORD) >= events:
                return


def test_a_drained_call_is_charged_what_the_provider_says(tmp_path):
    go_on, seen = asyncio.Event(), []
    with running(tmp_path, words(40, go_on, seen), routes=route('on_disconnect = "drain"')) as stand:
        hang_up_after(stand, 5)
        stand.loop.call_soon_threadsafe(go_on.set)
        record = stand.record()
        assert (record.units_micro, record.source) == (404_000_000, Mark.MEASURED)
        assert record.outcome is Outcome.CLIENT_CLOSED
        assert seen[-1] == 39
        assert stand.held_micro() == 0


@pytest.mark.parametrize("bound", ["drain_tokens_max = 50", "drain_s = 0.3"])
def test_draining_ends_at_its_bounds_and_what_came_is_estimated(tmp_path, bound):
    go_on, seen = asyncio.Event(), []
    with running(tmp_path, words(2_000, go_on, seen), routes=route(f'on_disconnect = "drain"\n{bound}')) as stand:
        hang_up_after(stand, 5)
        stand.loop.call_soon_threadsafe(go_on.set)
        record = stand.record()
        assert (record.outcome, record.source) == (Outcome.CLIENT_CLOSED, Mark.ESTIMATED)
        assert seen[-1] < 1_999, "the upstream was cancelled"
        # Ten tokens a word: the five that were delivered, and at most the drained ones.
        assert record.units_micro >= 50_000_000


def test_hanging_up_just_before_the_usage_costs_what_was_delivered(tmp_path):
    go_on, seen = asyncio.Event(), []
    with running(tmp_path, words(6, go_on, seen), routes=route("")) as stand:
        hang_up_after(stand, 5)
        record = stand.record()
        assert (record.outcome, record.source) == (Outcome.CLIENT_CLOSED, Mark.ESTIMATED)
        # Five words of 30 bytes, and the input.
        assert record.units_micro >= 50_000_000 + 4_000_000
        assert record.note is not None
        assert stand.held_micro() == 0
        stand.loop.call_soon_threadsafe(go_on.set)
