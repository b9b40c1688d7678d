"""Limits over HTTP: exact under concurrency, refused in words that SDKs understand, charged to the digit."""

import asyncio
import json
import sqlite3
from collections.abc import Callable
from typing import Any

import anthropic
import openai
import pytest
from fakes.origin import Asked, Line
from fakes.raw import DONE, ask, chat, completion, delta, event, request, usage_chunk
from fakes.raw import request as _request
from fakes.stand import Stand, running

from gatekeeper.rules.limits import BucketKey, CounterKey

CALLS, FIT = 400, 100
SMALL = chat(max_tokens=10)
HOLD = len(SMALL) + 10


def plan(text: str) -> dict[str, str]:
    """Plans for one test: ``pro`` is the customer's."""
    return {"pro.toml": 'name = "Pro"\nmonthly_price = 0\n' + text, "free.toml": 'name = "Free"\nmonthly_price = 0\n'}


def blocked(units: int, more: str = "") -> dict[str, str]:
    return plan(f'{more}\n[quota]\nunits = {units}\nwindow = "month"\nwhen_used = "block"\n')


def answers(body: bytes) -> Callable[[Asked, Line], Any]:
    async def behave(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
        await line.send(body)

    return behave


def guard_sqlite(url: str, cap_micro: int) -> None:
    """The database itself refuses what passes the cap: no sampling."""
    with sqlite3.connect(url.removeprefix("sqlite:///")) as database:
        for event_name in ("INSERT", "UPDATE"):
            database.execute(
                f"CREATE TRIGGER guard_{event_name} BEFORE {event_name} ON counter"
                f" WHEN NEW.used + NEW.held > {cap_micro} BEGIN SELECT RAISE(ABORT, 'above the cap'); END"
            )
        with pytest.raises(sqlite3.IntegrityError, match="above the cap"):
            database.execute("INSERT INTO counter VALUES ('x', 'x', 'x', 'x', 0, ?, 1)", (cap_micro,))
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_of_400_calls_against_room_for_100_exactly_100_are_admitted(tmp_path, kind, request, postgres_execute):
    """Pitfall 22, through the server."""
    url = request.getfixturevalue(f"{kind}_url")
    decided = asyncio.Event()

    async def keeps_all_answers(asked: Asked, line: Line) -> None:
        await decided.wait()
        await answers(completion(3, 4))(asked, line)

    with running(tmp_path, keeps_all_answers, plans=blocked(FIT * HOLD), database_url=url) as stand:
        if kind == "sqlite":
            guard_sqlite(url, FIT * HOLD * 1_000_000)
        else:
            postgres_execute(
                url, f"ALTER TABLE counter ADD CONSTRAINT guard CHECK (used + held <= {FIT * HOLD * 1_000_000})"
            )
        statuses = asyncio.run(_all_at_once(stand, decided))
        assert sorted(statuses) == [200] * FIT + [429] * (CALLS - FIT)
        records = stand.records(FIT)
        assert len(records) == FIT == len(stand.origin.asked)
        assert stand.held_micro() == 0
        (counter,) = stand.run(stand.house.store.counters([_quota(stand)]))
        assert (counter.used, counter.held) == (sum(record.units_micro for record in records), 0)
        assert counter.used == FIT * 7_000_000
        assert stand.run(stand.house.store.unbalanced()) == ([], [])


def _quota(stand: Stand) -> CounterKey:
    from gatekeeper.rules.lines import Bounds, Subject, stock_lines

    gateway = stand.house.live.gateway
    subject = Subject("acme", "pro", "", 0)
    now_ms = stand.house.proxy._clock.now_ms()
    (line,) = stock_lines(gateway.plans["pro"], subject, Bounds(), now_ms)
    return line.key


async def _all_at_once(stand: Stand, decided: asyncio.Event) -> list[int]:
    """Every call on a connection of its own. The answers are let go when each of the calls is decided."""
    host, port = stand.url.removeprefix("http://").split(":")
    refused = 0

    async def one() -> int:
        nonlocal refused
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(request(stand.key, SMALL))
            status = int((await reader.readuntil(b"\r\n"))[9:12])
            refused += status != 200
            await reader.readuntil(b"\r\n\r\n")
            return status
        finally:
            writer.close()
            await writer.wait_closed()

    async def lets_go() -> None:
        async with asyncio.timeout(60):
            while refused + len(stand.origin.asked) < CALLS:  # noqa: ASYNC110 - what two sides count together
                await asyncio.sleep(0.01)
        stand.loop.call_soon_threadsafe(decided.set)

    statuses, _ = await asyncio.gather(asyncio.gather(*(one() for _ in range(CALLS))), lets_go())
    return list(statuses)


# --- what a refusal says ------------------------------------------------------------------------------------------


def test_hello_on_free_is_admitted_and_the_next_call_waits_as_long_as_it_is_told(tmp_path):
    with running(tmp_path, answers(completion(900, 100)), plan="free") as stand:
        first = ask(stand.url, request(stand.key, chat()))
        assert first.status == 200
        assert (first.header("x-ratelimit-limit"), first.header("x-quota-limit")) == ("1000", "10000")
        second = ask(stand.url, request(stand.key, chat()))
        assert (second.status, second.error["code"]) == (429, "rate_limited")
        assert second.header("x-should-retry") == "true"
        wait_s = int(second.header("retry-after") or 0)
        assert 1 <= wait_s <= 60
        assert second.error["limit"]["dimension"] == "units"

        def let_pass(seconds: int) -> None:
            """The bucket as it will be: its time is moved back instead of ours forth."""
            with sqlite3.connect(tmp_path / "gateway.sqlite") as database:
                database.execute("UPDATE bucket SET at_ms = at_ms - ?", (seconds * 1000,))
            database.close()

        let_pass(wait_s - 2)
        assert ask(stand.url, request(stand.key, chat())).status == 429
        let_pass(2)
        assert ask(stand.url, request(stand.key, chat())).status == 200


def test_a_used_up_quota_is_told_with_its_reset_and_is_not_to_be_retried(tmp_path):
    with running(tmp_path, answers(completion(600, 400)), plans=blocked(1000)) as stand:
        assert ask(stand.url, request(stand.key, SMALL)).status == 200
        refused = ask(stand.url, request(stand.key, SMALL))
        assert (refused.status, refused.error["code"]) == (402, "quota_exceeded")
        assert (refused.header("x-should-retry"), refused.error["type"]) == ("false", "insufficient_quota")
        limit = refused.error["limit"]
        assert (limit["used"], limit["cap"], limit["remaining"]) == ("1000", "1000", "0")
        assert int(refused.header("retry-after") or 0) > 0
        assert len(stand.records()) == 1


def test_a_call_that_may_cost_more_than_is_left_is_told_what_is_missing(tmp_path):
    with running(tmp_path, answers(completion()), plans=blocked(HOLD)) as stand:
        larger = chat(max_tokens=11)
        refused = ask(stand.url, request(stand.key, larger))
        assert (refused.status, refused.error["code"]) == (402, "exceeds_limit")
        assert "1 short" in refused.error["message"]
        assert refused.header("x-should-retry") == "false"
        assert ask(stand.url, request(stand.key, SMALL)).status == 200


GEMINI = {"contents": [{"parts": [{"text": "Hi"}]}]}


@pytest.mark.parametrize(
    ("path", "body", "where"),
    [
        ("/v1/chat/completions", {"messages": [], "max_tokens": 5000}, ["max_tokens"]),
        ("/v1/chat/completions", {"messages": [], "max_completion_tokens": 5000, "max_tokens": 9},
         ["max_completion_tokens"]),
        ("/v1/chat/completions", {"messages": [], "model": "gpt-4o"}, ["max_tokens"]),
        ("/v1/chat/completions", {"messages": [], "model": "o3-mini"}, ["max_completion_tokens"]),
        ("/v1/completions", {"prompt": "x"}, ["max_tokens"]),
        ("/v1/responses", {"input": "x", "max_output_tokens": 4999}, ["max_output_tokens"]),
        ("/v1/messages", {"messages": [], "max_tokens": 5000}, ["max_tokens"]),
        ("/v1beta/models/m:generateContent", GEMINI, ["generationConfig", "maxOutputTokens"]),
        ("/v1beta/models/m:generateContent", {**GEMINI, "generation_config": {"max_output_tokens": 8000}},
         ["generation_config", "max_output_tokens"]),
    ],
)  # fmt: skip
def test_the_output_is_clamped_to_what_is_left_in_every_spelling(tmp_path, path, body, where):
    with running(tmp_path, answers(completion(1, 1)), plans=blocked(1000, "clamp_output = true")) as stand:
        text = json.dumps(body).encode()
        answer = ask(stand.url, request(stand.key, text, path=path))
        assert answer.status == 200
        left = 1000 - len(text)
        assert answer.header("x-gatekeeper-output-clamped") == str(left)
        sent = json.loads(stand.origin.asked[0].body)
        expected = json.loads(text)
        place = expected
        for name in where[:-1]:
            place = place.setdefault(name, {})
        place[where[-1]] = left
        assert sent == expected


@pytest.mark.parametrize("depth", [900, 990, 1000, 1010])
def test_a_deep_body_is_clamped_like_any_other(tmp_path, depth):
    with running(tmp_path, answers(completion(1, 1)), plans=blocked(5000, "clamp_output = true")) as stand:
        body = b'{"messages":[],"max_tokens":9000,"deep":' + b"[" * depth + b"]" * depth + b"}"
        assert ask(stand.url, request(stand.key, body)).status == 200
        assert stand.origin.asked[0].body == body.replace(b"9000", str(5000 - len(body)).encode())
        stand.record()
        assert stand.held_micro() == 0


def test_overage_is_charged_to_the_digit(tmp_path):
    text = """[quota]
units = 10
window = "month"
when_used = "overage"
[overage]
price = "0.0010000005"
per = "1 token"
"""
    with running(tmp_path, answers(completion(3, 4)), plans=plan(text)) as stand:
        for _ in range(4):
            assert ask(stand.url, request(stand.key, SMALL)).status == 200
        charges = [record.charge_nano for record in stand.records(4)]
        # 4 of the second call, then 7 and 7 above the 10 that are included: 18 x 1,000,000.5 in whole nano-dollars.
        assert sum(charges) == 18_000_009
        assert charges[0] == 0
        assert ask(stand.url, request(stand.key, SMALL)).header("x-quota-remaining") == "0"


def test_the_headers_tell_what_is_left_after_the_hold(tmp_path):
    text = """[quota]
units = 1000
window = "month"
[[rates]]
units = 500
per = "minute"
"""
    with running(tmp_path, answers(completion()), plans=plan(text)) as stand:
        answer = ask(stand.url, request(stand.key, SMALL))
        assert answer.header("x-quota-limit") == "1000"
        assert answer.header("x-quota-used") == str(HOLD)
        assert answer.header("x-quota-remaining") == str(1000 - HOLD)
        assert answer.header("x-ratelimit-limit") == "500"
        assert 0 < int(answer.header("x-quota-reset") or 0) <= 31 * 86_400
        assert 0 < int(answer.header("x-ratelimit-reset") or 0) <= 60


def test_an_input_larger_than_the_rate_can_never_pass_and_is_told_so(tmp_path):
    text = '[[rates]]\nunits = 50\nper = "minute"\n'
    with running(tmp_path, answers(completion()), plans=plan(text)) as stand:
        refused = ask(stand.url, request(stand.key, chat(padding="x" * 2000)))
        assert (refused.status, refused.error["code"]) == (429, "exceeds_rate")
        assert (refused.header("x-should-retry"), refused.header("retry-after")) == ("false", None)


# --- the SDKs -----------------------------------------------------------------------------------------------------


def test_the_openai_sdk_raises_its_own_errors_and_does_not_retry_a_used_up_quota(tmp_path):
    with running(tmp_path, answers(completion(600, 400)), plans=blocked(1000)) as stand:
        with openai.OpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=3) as client:
            ask_it = lambda: client.chat.completions.create(  # noqa: E731
                model="m", messages=[{"role": "user", "content": "Hi"}], max_tokens=9
            )
            ask_it()
            with pytest.raises(openai.APIStatusError) as caught:
                ask_it()
        assert (caught.value.status_code, caught.value.code) == (402, "quota_exceeded")
        assert len(stand.records()) == 1


def test_the_sdks_raise_their_rate_limit_errors(tmp_path):
    text = '[[rates]]\nrequests = 1\nper = "minute"\n'
    with running(tmp_path, answers(completion()), plans=plan(text)) as stand:
        assert ask(stand.url, request(stand.key, SMALL)).status == 200
        with (
            openai.OpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0) as client,
            pytest.raises(openai.RateLimitError) as ours,
        ):
            client.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
        assert ours.value.code == "rate_limited"
        with (
            anthropic.Anthropic(base_url=stand.url, api_key=stand.key, max_retries=0) as other,
            pytest.raises(anthropic.RateLimitError) as theirs,
        ):
            other.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
        body: Any = theirs.value.body
        assert (body["type"], body["error"]["type"]) == ("error", "rate_limit_error")
        assert body["error"]["code"] == "rate_limited"


# --- the usage that only we asked for -----------------------------------------------------------------------------


@pytest.mark.parametrize("piece", [1, 7, 100_000])
def test_usage_is_asked_for_and_hidden_again(tmp_path, piece):
    shown = delta("Hel") + delta("lo", finish="stop")
    body = shown + usage_chunk(5, 2) + DONE

    async def behave(asked: Asked, line: Line) -> None:
        assert json.loads(asked.body)["stream_options"] == {"include_usage": True}
        assert asked.header("accept-encoding") == "identity"
        await line.head(200, Content_Type="text/event-stream", Content_Length=str(len(body)))
        for start in range(0, len(body), piece):
            await line.send(body[start : start + piece])

    with running(tmp_path, behave) as stand:
        text = chat(True)
        answer = ask(stand.url, request(stand.key, text, headers={"Accept-Encoding": "gzip"}))
        assert (answer.body, answer.ended) == (shown + DONE, True)
        assert answer.header("content-length") is None
        assert stand.origin.asked[0].body == b'{"stream_options":{"include_usage":true},' + text[1:]
        assert stand.record().units_micro == 7_000_000


def test_a_server_that_refuses_stream_options_is_asked_once_without(tmp_path):
    async def behave(asked: Asked, line: Line) -> None:
        if b"stream_options" in asked.body:
            text = b'{"error":{"message":"unknown field: stream_options"}}'
            await line.head(400, Content_Type="application/json", Content_Length=str(len(text)))
            await line.send(text)
            return
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        await line.chunk(delta("Hello", finish="stop") + DONE)
        await line.end()

    with running(tmp_path, behave) as stand:
        answer = ask(stand.url, request(stand.key, chat(True)))
        assert answer.body == delta("Hello", finish="stop") + DONE
        assert [asked.body == chat(True) for asked in stand.origin.asked] == [False, True]
        record = stand.record()
        assert (record.source, record.status) == ("estimated", 200)


@pytest.mark.parametrize("times", [1, 300])
def test_another_400_passes_with_all_its_bytes(tmp_path, times):
    text = b'{"error":{"message":"no such model"}}' * times

    async def behave(asked: Asked, line: Line) -> None:
        await line.head(400, Content_Type="application/json", Content_Length=str(len(text)))
        for start in range(0, len(text), 1000):
            await line.send(text[start : start + 1000])

    with running(tmp_path, behave) as stand:
        answer = ask(stand.url, request(stand.key, chat(True)))
        assert (answer.status, answer.body, answer.header("content-length")) == (400, text, str(len(text)))
        assert len(stand.origin.asked) == 1
        assert stand.record().units_micro == 0


def test_an_error_within_a_stream_charges_only_what_was_measured(tmp_path):
    async def behave(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        await line.chunk(delta("x" * 900) + event({"error": {"message": "overloaded", "type": "server_error"}}))
        await line.end()

    with running(tmp_path, behave) as stand:
        assert ask(stand.url, request(stand.key, chat(True))).ended
        record = stand.record()
        assert (record.outcome, record.units_micro) == ("upstream_error", 0)


@pytest.mark.parametrize(
    ("policy", "units", "source"), [("estimate", None, "estimated"), ("default", 42, "default"), ("free", 0, "none")]
)
def test_what_cannot_be_measured_is_charged_by_the_routes_policy(tmp_path, policy, units, source):
    """Pitfall 27: an answer without usage is marked and charged by policy, never silently free."""
    routes = f"""
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "origin"
unmeasured = "{policy}"
{"unmeasured_default = 42" if policy == "default" else ""}
"""
    with running(tmp_path, answers(b'{"choices":[{"message":{"content":"Hi there"}}]}'), routes=routes) as stand:
        assert ask(stand.url, request(stand.key, chat())).status == 200
        record = stand.record()
        assert record.source == source
        assert record.units_micro > 0 if units is None else record.units_micro == units * 1_000_000
        assert stand.held_micro() == 0


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_odd_texts_are_stored_or_refused_but_lose_no_call(tmp_path, kind, request):
    body = json.dumps({"id": "a\0b\ud800", "model": "x\0", "usage": {"total_tokens": 10**40, "note": "\0"}}).encode()
    url = request.getfixturevalue(f"{kind}_url")
    with running(tmp_path, answers(body), database_url=url) as stand:
        assert ask(stand.url, _request(stand.key, chat())).ended
        assert stand.record().units_micro < 10**9
        for model in ("gpt\0", "x" * 300, "a\nb"):
            refused = ask(stand.url, _request(stand.key, json.dumps({"model": model, "messages": []}).encode()))
            assert (refused.status, refused.error["code"]) == (400, "bad_request")
        huge = chat(max_tokens=2**62, n=2**62)
        assert ask(stand.url, _request(stand.key, huge)).status == 200
        stand.records(2)
        assert stand.held_micro() == 0


def test_calls_of_one_bucket_count_together(tmp_path):
    text = '[[rates]]\nrequests = 5\nper = "minute"\n'
    with running(tmp_path, answers(completion()), plans=plan(text)) as stand:
        statuses = [ask(stand.url, request(stand.make_key(), SMALL)).status for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        (bucket,) = stand.run(
            stand.house.store.buckets([(BucketKey("customer", "acme", "requests", 60_000), 5_000_000)])
        )
        assert bucket.spent <= 5_000_000
