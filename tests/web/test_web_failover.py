"""Fail-over before the first byte: who serves, what is charged, what is written of the others, and what is never sent
twice."""

import asyncio
import json
from collections.abc import Callable

import httpx
import pytest
from fakes.origin import Asked, Line, replays
from fakes.proxies import FakeClock
from fakes.stand import ADMIN_KEY, PLANS, ROUTES, Stand, running

from gatekeeper.meters import Outcome
from gatekeeper.proxy.breakers import Breakers

ASK = {"model": "gpt-4o", "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
FALLBACK = """
fallback = [{ upstream = "origin2" }]
show_upstream = true
"""
CHAT = """
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "origin"
"""


def answer(tokens_in: int = 3, tokens_out: int = 4, status: int = 200):
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    body = json.dumps({"id": "chatcmpl-1", "choices": [], "usage": usage}).encode()
    return replays(body, "application/json", status)


def says(status: int, body: bytes = b'{"error":{"message":"not now"}}', **headers: str):
    async def behave(asked: Asked, line: Line) -> None:
        await line.head(status, Content_Type="application/json", Content_Length=str(len(body)), **headers)
        await line.send(body)

    return behave


async def resets(asked: Asked, line: Line) -> None:
    line.writer.transport.abort()


async def never_asked(asked: Asked, line: Line) -> None:
    raise AssertionError("this upstream should not be asked")


async def is_silent(asked: Asked, line: Line) -> None:
    await line.gone()


def post(stand: Stand, body=ASK, path="/v1/chat/completions", **headers: str) -> httpx.Response:
    return httpx.post(
        stand.url + path, json=body, headers={"Authorization": f"Bearer {stand.key}", **headers}, timeout=20
    )


def refuse(stand: Stand, *numbers: int) -> None:
    for number in numbers:
        stand.run(stand.origins[number].stop())


def attempts(stand: Stand):
    found = stand.run(stand.house.store.attempts(stand.record().call_id))
    return [(row.number, row.upstream, row.model, row.status, row.fault) for row in found]


def ask_and_leave(stand: Stand, asked: Callable[[], bool]) -> None:
    """A client that hangs up as soon as an upstream was asked."""

    async def asking() -> None:
        _, writer = await asyncio.open_connection("127.0.0.1", int(stand.url.rpartition(":")[2]))
        body = json.dumps(ASK).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stand.key}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        while not asked():  # noqa: ASYNC110 - the other end of the stand
            await asyncio.sleep(0.01)
        writer.close()
        await writer.wait_closed()

    asyncio.run(asking())


def stopped_clock(stand: Stand) -> FakeClock:
    """Breakers by a clock that the test moves."""
    clock = FakeClock()
    stand.house.proxy.breakers = Breakers(clock)
    return clock


def billed(stand: Stand) -> tuple[str, str | None, int, int]:
    record = stand.record()
    assert stand.held_micro() == 0
    return record.upstream, record.model, record.units_micro, record.status


# --- the next one serves ------------------------------------------------------------------------------------------


def test_who_refuses_connections_is_passed_over_and_the_customer_pays_the_one_that_served(tmp_path):
    with running(tmp_path, never_asked, others=[answer()], routes=CHAT + FALLBACK) as stand:
        refuse(stand, 0)
        got = post(stand)
        assert (got.status_code, got.headers["x-gatekeeper-upstream"]) == (200, "origin2")
        assert billed(stand) == ("origin2", "gpt-4o", 7_000_000, 200)
        assert attempts(stand) == [(1, "origin", "gpt-4o", None, "connect")]
        (asked,) = stand.origins[1].asked
        assert json.loads(asked.body) == ASK
        assert asked.header("authorization") == "Bearer sk-upstream-secret-2"


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504, 529])
def test_an_answer_that_says_not_now_moves_on(tmp_path, status):
    with running(tmp_path, says(status), others=[answer()], routes=CHAT + FALLBACK) as stand:
        got = post(stand)
        assert (got.status_code, got.json()["usage"]["total_tokens"]) == (200, 7)
        assert billed(stand) == ("origin2", "gpt-4o", 7_000_000, 200)
        assert attempts(stand) == [(1, "origin", "gpt-4o", status, None)]


@pytest.mark.parametrize("status", [400, 401, 404, 422, 501])
def test_what_is_wrong_with_the_request_is_not_tried_elsewhere(tmp_path, status):
    with running(tmp_path, says(status), others=[never_asked], routes=CHAT + FALLBACK) as stand:
        assert post(stand).status_code == status
        assert attempts(stand) == []


def test_the_operator_says_which_answers_move_on(tmp_path):
    routes = CHAT + FALLBACK + "failover_status = [418]\n"
    with running(tmp_path, says(418), others=[says(500)], routes=routes) as stand:
        assert post(stand).status_code == 500
        assert attempts(stand) == [(1, "origin", "gpt-4o", 418, None)]


def test_a_stream_fails_over_and_streams(tmp_path):
    events = [
        b'data: {"choices":[{"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n',
        b"data: [DONE]\n\n",
    ]
    stream = replays(b"".join(events), "text/event-stream")
    with running(tmp_path, says(503), others=[stream], routes=CHAT + FALLBACK) as stand:
        got = post(stand, {**ASK, "stream": True})
        assert got.text == (events[0] + events[2]).decode(), "the usage chunk that we asked for is hidden again"
        assert billed(stand) == ("origin2", "gpt-4o", 7_000_000, 200)
        assert json.loads(stand.origins[1].asked[0].body)["stream_options"] == {"include_usage": True}


def test_a_fallback_may_know_the_model_by_another_name_and_nothing_else_of_the_body_changes(tmp_path):
    routes = CHAT + 'fallback = [{ upstream = "origin2", model = "gpt-4o-2" }]\n'
    body = b'{ "seed" : 12345678901234567890, "model":"gpt-4o", "messages":[ ] ,"max_tokens":50}'
    with running(tmp_path, says(500), others=[answer()], routes=routes) as stand:
        headers = {"Authorization": f"Bearer {stand.key}", "Content-Type": "application/json"}
        got = httpx.post(stand.url + "/v1/chat/completions", content=body, headers=headers)
        assert stand.origins[0].asked[0].body == body
        assert stand.origins[1].asked[0].body == body.replace(b'"gpt-4o"', b'"gpt-4o-2"')
        assert (got.headers["x-gatekeeper-model-requested"], got.headers["x-gatekeeper-model-used"]) == (
            "gpt-4o",
            "gpt-4o-2",
        )
        assert "x-gatekeeper-upstream" not in got.headers, "only where the operator says so"
        assert billed(stand) == ("origin2", "gpt-4o-2", 7_000_000, 200)
        assert stand.record().model_requested == "gpt-4o"


def test_a_model_in_the_path_is_replaced_there(tmp_path):
    routes = """
[[routes]]
name = "gemini"
path = "/v1beta/models/{model}:generateContent"
upstream = "origin"
fallback = [{ upstream = "origin2", model = "gemini-b" }]
"""
    usage = {"usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 4, "totalTokenCount": 7}}
    second = replays(json.dumps(usage).encode(), "application/json")
    with running(tmp_path, says(500), others=[second], routes=routes) as stand:
        got = post(stand, {"contents": []}, "/v1beta/models/gemini-a:generateContent?alt=json")
        assert got.status_code == 200
        assert stand.origins[1].asked[0].target == b"/v1beta/models/gemini-b:generateContent?alt=json"
        assert billed(stand) == ("origin2", "gemini-b", 7_000_000, 200)


# --- what may have been acted on ----------------------------------------------------------------------------------


def test_a_post_that_may_have_been_acted_on_is_not_sent_again(tmp_path):
    with running(tmp_path, resets, others=[never_asked], routes=CHAT + FALLBACK) as stand:
        got = post(stand)
        assert (got.status_code, got.json()["error"]["code"]) == (502, "upstream_unavailable")
        assert got.headers["x-gatekeeper-fault"] == "reset"
        assert attempts(stand) == [(1, "origin", "gpt-4o", None, "reset")]
        assert stand.record().units_micro == 0


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ('retry = "always"\n', {}),
        ("", {"Idempotency-Key": "k1"}),
        ('retry = "idempotent"\n', {"Idempotency-Key": "k1"}),
    ],
)
def test_it_is_where_twice_is_as_once(tmp_path, more, headers):
    with running(tmp_path, resets, others=[answer()], routes=CHAT + FALLBACK + more) as stand:
        assert post(stand, **headers).status_code == 200
        assert billed(stand) == ("origin2", "gpt-4o", 7_000_000, 200)


def test_a_key_does_not_help_where_only_what_was_not_sent_is_repeated(tmp_path):
    with running(tmp_path, resets, others=[never_asked], routes=CHAT + FALLBACK + 'retry = "unsent"\n') as stand:
        assert post(stand, **{"Idempotency-Key": "k1"}).status_code == 502


def test_who_is_silent_is_not_asked_again_elsewhere_by_default(tmp_path):
    with running(tmp_path, is_silent, others=[never_asked], routes=CHAT + FALLBACK, silence_s=0.3) as stand:
        got = post(stand)
        assert (got.status_code, got.headers["x-gatekeeper-fault"]) == (504, "first_byte_timeout")
        assert stand.record().outcome is Outcome.TIMED_OUT


def test_an_upload_of_which_a_piece_was_sent_stays_where_it_is(tmp_path):
    with running(tmp_path, says(503), others=[never_asked], routes=CHAT + FALLBACK) as stand:
        headers = {"Authorization": f"Bearer {stand.key}", "Content-Type": "multipart/form-data; boundary=x"}
        got = httpx.post(stand.url + "/v1/chat/completions", content=b"--x--\r\n" * 1000, headers=headers)
        assert got.status_code == 503
        assert attempts(stand) == []


def test_an_upload_goes_elsewhere_where_nobody_took_a_piece_of_it(tmp_path):
    with running(tmp_path, never_asked, others=[answer()], routes=CHAT + FALLBACK) as stand:
        refuse(stand, 0)
        headers = {"Authorization": f"Bearer {stand.key}", "Content-Type": "multipart/form-data; boundary=x"}
        got = httpx.post(stand.url + "/v1/chat/completions", content=b"--x--\r\n" * 1000, headers=headers)
        assert got.status_code == 200
        assert stand.origins[1].asked[0].body == b"--x--\r\n" * 1000


def test_after_the_first_byte_an_abort_is_an_abort(tmp_path):
    async def breaks_off(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        await line.chunk(b'data: {"choices":[{"delta":{"content":"Hi"}}]}\n\n')
        line.writer.transport.abort()

    routes = CHAT + FALLBACK + 'retry = "always"\n'
    with running(tmp_path, breaks_off, others=[never_asked], routes=routes) as stand:
        with pytest.raises(httpx.RemoteProtocolError):
            post(stand, {**ASK, "stream": True, "stream_options": {"include_usage": True}})
        assert stand.record().upstream == "origin"
        assert attempts(stand) == []


# --- nobody serves ------------------------------------------------------------------------------------------------


def test_the_last_answer_is_relayed_as_it_is(tmp_path):
    last = says(529, b'{"error":"overloaded"}', Retry_After="7")
    with running(
        tmp_path,
        says(500),
        others=[says(503), last],
        routes=CHAT + 'fallback = [{ upstream = "origin2" }, { upstream = "origin3" }]\n',
    ) as stand:
        got = post(stand)
        assert (got.status_code, got.content, got.headers["retry-after"]) == (529, b'{"error":"overloaded"}', "7")
        assert billed(stand) == ("origin3", "gpt-4o", 0, 529)
        assert attempts(stand) == [(1, "origin", "gpt-4o", 500, None), (2, "origin2", "gpt-4o", 503, None)]


def test_an_answer_is_kept_while_others_are_tried_and_told_where_they_do_not_answer(tmp_path):
    with running(tmp_path, says(429, b"wait", Retry_After="3"), others=[never_asked], routes=CHAT + FALLBACK) as stand:
        refuse(stand, 1)
        got = post(stand)
        assert (got.status_code, got.content, got.headers["retry-after"]) == (429, b"wait", "3")
        assert got.headers["x-gatekeeper-upstream"] == "origin"
        assert billed(stand) == ("origin", "gpt-4o", 0, 429)
        assert attempts(stand) == [(2, "origin2", "gpt-4o", None, "connect")]


def test_where_all_are_down_the_caller_is_told_so_without_internals(tmp_path):
    with running(tmp_path, never_asked, others=[never_asked], routes=CHAT + FALLBACK) as stand:
        refuse(stand, 0, 1)
        got = post(stand)
        assert (got.status_code, got.json()["error"]["code"]) == (502, "upstream_unavailable")
        assert got.headers["x-gatekeeper-fault"] == "connect"
        assert "127.0.0.1" not in got.text
        assert [row[:2] for row in attempts(stand)] == [(1, "origin"), (2, "origin2")]
        assert (stand.record().outcome, stand.record().units_micro) == (Outcome.UPSTREAM_FAILED, 0)
        assert stand.held_micro() == 0


def test_a_client_that_hangs_up_during_the_second_try_stops_it(tmp_path):
    with running(tmp_path, says(500), others=[is_silent], routes=CHAT + FALLBACK, silence_s=30) as stand:
        ask_and_leave(stand, lambda: bool(stand.origins[1].asked))
        record = stand.record()
        assert (record.upstream, record.outcome, record.status) == ("origin2", Outcome.CLIENT_CLOSED, None)
        assert attempts(stand) == [(1, "origin", "gpt-4o", 500, None)]
        assert stand.held_micro() == 0


# --- limits, rights and prices ------------------------------------------------------------------------------------

BUDGET = {
    **PLANS,
    "budget.toml": """
name = "Budget"
monthly_price = 0
[quota]
units = "unlimited"
window = "month"
[[limits]]
dollars = "1.00"
window = "day"
""",
}
PRICES = """
[[prices]]
model = "*"
upstream = "origin"
input = "1"
output = "1"
per = "1M tokens"
[[prices]]
model = "*"
upstream = "origin2"
input = "2"
output = "1000"
per = "1M tokens"
"""


def test_the_hold_bounds_the_dearest_and_the_one_that_served_is_paid(tmp_path):
    routes = CHAT + FALLBACK + PRICES
    with running(tmp_path, says(500), others=[answer(3, 4)], plans=BUDGET, plan="budget", routes=routes) as stand:
        got = post(stand)
        # 50 tokens of output at $1000 / 1M were held, though the first upstream takes a thousandth of it.
        assert 0.05 <= float(got.headers["x-budget-used"]) < 0.06
        record = stand.record()
        # 3 * $2 / 1M + 4 * $1000 / 1M
        assert (record.upstream, record.cost_nano) == ("origin2", 4_006_000)
        assert record.evidence["$price"]["output"] == "1000"
        assert stand.held_micro() == 0


def test_a_fallback_that_the_budget_cannot_bear_is_left_out(tmp_path):
    with running(
        tmp_path, says(500), others=[never_asked], plans=BUDGET, plan="budget", routes=CHAT + FALLBACK + PRICES
    ) as stand:
        got = post(stand, {**ASK, "max_tokens": 5_000})
        assert got.status_code == 500, "5,000 tokens there may cost $5 of a budget of $1"
        assert attempts(stand) == []


def test_a_fallback_without_a_price_is_left_out_where_dollars_count(tmp_path):
    here = PRICES.split("[[prices]]")[1]
    routes = CHAT + FALLBACK + "[[prices]]" + here
    body = {**ASK, "model": "nobody-knows"}
    with running(tmp_path, says(500), others=[never_asked], plans=BUDGET, plan="budget", routes=routes) as stand:
        assert post(stand, body).status_code == 500
        assert attempts(stand) == []


def test_a_fallback_whose_model_the_key_may_not_use_is_left_out(tmp_path):
    routes = CHAT + 'fallback = [{ upstream = "origin2", model = "other" }]\n'
    with running(tmp_path, says(500), others=[never_asked], routes=routes) as stand:
        stand.key = stand.make_key(models=("gpt-*",))
        assert post(stand).status_code == 500
        assert attempts(stand) == []


def test_limits_of_models_count_the_model_that_served(tmp_path):
    routes = (
        CHAT
        + 'fallback = [{ upstream = "origin2", model = "b" }]\n'
        + """
[[limits]]
scope = "model"
requests = 2
window = "day"
"""
    )
    with running(tmp_path, says(500), others=[answer()], routes=routes) as stand:
        assert [post(stand).status_code for _ in range(2)] == [200, 200]
        # The third finds the fallback's limit used up, and is still tried where it may be.
        assert post(stand).status_code == 500
        assert {record.model for record in stand.records(3)} == {"b", "gpt-4o"}
        odd = stand.run(stand.house.store.figures(0, 0))
        assert (odd.off_counters[0], odd.lines[0], odd.held) == (0, 0, ())


def test_the_operator_sees_the_attempts_and_the_customer_the_model(tmp_path):
    routes = CHAT + 'fallback = [{ upstream = "origin2", model = "b" }]\n'
    with running(tmp_path, says(500), others=[answer()], routes=routes) as stand:
        post(stand)
        call_id = stand.record().call_id
        theirs = httpx.get(f"{stand.url}/admin/requests/{call_id}", headers={"X-Admin-Key": ADMIN_KEY}).json()
        (row,) = theirs["attempts"]
        assert (row["number"], row["upstream"], row["model"], row["status"], row["fault"]) == (
            1,
            "origin",
            "gpt-4o",
            500,
            None,
        )
        assert (theirs["model"], theirs["model_requested"]) == ("b", "gpt-4o")
        mine = httpx.get(f"{stand.url}/v1/requests/{call_id}", headers={"Authorization": f"Bearer {stand.key}"}).json()
        assert "attempts" not in mine
        assert mine["model_requested"] == "gpt-4o"


# --- circuit breakers ---------------------------------------------------------------------------------------------

TRIPPY = "breaker = { failures = 3, window_s = 60, pause_s = 10 }"


def test_an_upstream_that_fails_is_left_alone_then_tried_with_one_call(tmp_path):
    well, probing = [False], asyncio.Event()

    async def behave(asked: Asked, line: Line) -> None:
        if well[0]:
            await probing.wait()
        await (answer() if well[0] else says(500))(asked, line)

    with running(tmp_path, behave, others=[answer()], routes=CHAT + FALLBACK, upstream=TRIPPY) as stand:
        clock = stopped_clock(stand)
        used = [post(stand).headers["x-gatekeeper-upstream"] for _ in range(5)]
        assert used == ["origin2"] * 5
        assert len(stand.origin.asked) == 3, "after three failures it is passed over"
        (standing, _) = stand.house.proxy.breakers.standings()
        assert (standing.upstream, standing.phase, standing.wait_s) == ("origin", "open", 10)
        rows = [stand.run(stand.house.store.attempts(record.call_id))[0] for record in stand.records(5)]
        assert [row.fault for row in rows] == [None, None, None, "breaker_open", "breaker_open"]
        well[0] = True
        clock.now_s += 10
        url = stand.url + "/v1/chat/completions"

        async def two() -> list[str]:
            async with httpx.AsyncClient(headers={"Authorization": f"Bearer {stand.key}"}) as client:
                first = asyncio.create_task(client.post(url, json=ASK))
                while len(stand.origin.asked) < 4:  # noqa: ASYNC110 - the other end of the stand
                    await asyncio.sleep(0.01)
                second = await client.post(url, json=ASK)
                stand.loop.call_soon_threadsafe(probing.set)
                return [each.headers["x-gatekeeper-upstream"] for each in (await first, second)]

        assert asyncio.run(two()) == ["origin", "origin2"], "one probe at a time"
        assert post(stand).headers["x-gatekeeper-upstream"] == "origin"


@pytest.mark.parametrize("more", ["", FALLBACK], ids=["alone", "with another"])
def test_a_probe_whose_client_hangs_up_gives_its_place_to_the_next_call(tmp_path, more):
    behaves = [says(500)]

    async def behave(asked: Asked, line: Line) -> None:
        await behaves[0](asked, line)

    with running(tmp_path, behave, others=[says(500)], routes=CHAT + more, upstream=TRIPPY, silence_s=30) as stand:
        clock = stopped_clock(stand)
        assert [post(stand).status_code for _ in range(3)] == [500] * 3
        clock.now_s += 10
        behaves[0] = is_silent
        ask_and_leave(stand, lambda: len(stand.origin.asked) == 4)
        stand.records(4)
        behaves[0] = answer()
        assert post(stand).status_code == 200


def test_an_upstream_without_another_is_refused_at_once_with_the_time_to_wait(tmp_path):
    with running(tmp_path, says(500), routes=CHAT, upstream="breaker = { failures = 2, pause_s = 30 }") as stand:
        assert [post(stand).status_code for _ in range(2)] == [500, 500]
        got = post(stand)
        assert (got.status_code, got.json()["error"]["code"]) == (503, "upstream_unavailable")
        assert 25 <= int(got.headers["retry-after"]) <= 30
        assert "left alone" in got.json()["error"]["message"]
        assert got.headers["x-should-retry"] == "true"
        assert len(stand.origin.asked) == 2
        assert stand.held_micro() == 0


def test_whom_an_open_breaker_sends_away_has_made_no_request(tmp_path):
    limit = '[[limits]]\nname = "calls"\nscope = "customer"\nrequests = 3\nwindow = "day"\n'
    with running(tmp_path, says(500), routes=CHAT + limit, upstream="breaker = { failures = 2 }") as stand:
        assert [post(stand).status_code for _ in range(5)] == [500, 500, 503, 503, 503]
        stand.records(5)
        told = httpx.get(stand.url + "/v1/budget", headers={"Authorization": f"Bearer {stand.key}"}).json()
        assert told["remaining"]["requests"] == "1"
        assert stand.run(stand.house.store.unbalanced()) == ([], [])


def test_mistakes_of_callers_open_no_breaker(tmp_path):
    with running(tmp_path, says(400), routes=CHAT, upstream="breaker = { failures = 1 }") as stand:
        assert [post(stand).status_code for _ in range(5)] == [400] * 5


def test_a_breaker_can_be_switched_off(tmp_path):
    with running(tmp_path, says(500), routes=ROUTES, upstream="breaker = false") as stand:
        assert [post(stand).status_code for _ in range(15)] == [500] * 15
        assert stand.house.breakers.standings() == []
