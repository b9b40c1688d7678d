"""Pace, silence and hanging up: time is the fake clock's."""

import asyncio
import json

import pytest

from gatekeeper.demo.provider import DEMO_KEYS, build_app, expected_usage
from gatekeeper.demo.sending import SLOW_FIRST_BYTE_S

CHAT = {"model": "demo-small", "messages": [{"role": "user", "content": "Hello"}]}


class CountingClock:
    """Never waits, and remembers how long it was asked to."""

    def __init__(self) -> None:
        self.pauses_s: list[float] = []

    def now_ms(self) -> int:
        return 1_700_000_000_000

    def monotonic_s(self) -> float:
        return sum(self.pauses_s)

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)


class StoppedClock(CountingClock):
    """Time does not pass: a pause lasts until it is cancelled."""

    async def sleep(self, seconds: float) -> None:
        self.pauses_s.append(seconds)
        await asyncio.Event().wait()


def call(body: dict, clock: CountingClock, *, leave_after: int | None = None) -> list[dict]:
    """Send one chat request as ASGI; the caller hangs up after so many messages, or stays to the end."""

    async def talk() -> list[dict]:
        sent: list[dict] = []
        gone = asyncio.Event()
        if leave_after == 0:
            gone.set()
        pending = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

        async def receive() -> dict:
            if pending:
                return pending.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            sent.append(message)
            if len(sent) == leave_after:
                gone.set()

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/v1/chat/completions",
            "query_string": b"",
            "headers": [(b"authorization", f"Bearer {DEMO_KEYS['openai']}".encode())],
        }
        app = build_app(tokens_per_s=10, clock=clock)
        await asyncio.wait_for(app(scope, receive, send), 5)
        assert len(asyncio.all_tasks()) == 1, "something was left running"
        return sent

    return asyncio.run(talk())


def text_of(sent: list[dict]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)


def test_every_token_of_a_stream_takes_its_time():
    clock = CountingClock()
    sent = call({**CHAT, "stream": True}, clock)
    assert clock.pauses_s == [pytest.approx(0.1)] * expected_usage("openai", CHAT)["output"]
    assert sent[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_an_answer_at_once_takes_as_long_as_its_stream():
    clock = CountingClock()
    call(CHAT, clock)
    assert sum(clock.pauses_s) == pytest.approx(0.1 * expected_usage("openai", CHAT)["output"])


def test_the_slow_model_pauses_before_its_first_byte():
    clock = CountingClock()
    call({**CHAT, "model": "demo-slow", "stream": True, "max_tokens": 2}, clock)
    assert clock.pauses_s == [SLOW_FIRST_BYTE_S, pytest.approx(0.2), pytest.approx(0.2)]


def test_a_caller_that_hangs_up_ends_the_pause():
    clock = StoppedClock()
    sent = call({**CHAT, "stream": True}, clock, leave_after=2)
    assert len(clock.pauses_s) == 1
    assert b"[DONE]" not in text_of(sent)


def test_the_hanging_model_sends_nothing_until_the_caller_leaves():
    assert call({**CHAT, "model": "demo-hang"}, CountingClock(), leave_after=0) == []


def test_silence_in_the_middle_comes_after_some_text():
    # Head, role, and three tokens; then silence.
    sent = call({**CHAT, "model": "demo-hang-midstream", "stream": True}, CountingClock(), leave_after=5)
    assert text_of(sent).count(b'"content":') == 4
    assert sent[-1]["more_body"] is True


@pytest.mark.parametrize("stream", [True, False])
def test_a_reset_leaves_the_body_unfinished(stream):
    sent = call({**CHAT, "model": "demo-reset", "stream": stream}, CountingClock())
    assert text_of(sent)
    assert sent[-1]["more_body"] is True
