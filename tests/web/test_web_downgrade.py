"""Soft limits: a cheaper model serves from a part of the cap on, openly, and the cap still holds."""

import json
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import httpx
from fakes.origin import Asked, Line, replays
from fakes.stand import PLANS, Stand, running

ASK = {"model": "big", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}
CHAT = """
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "origin"
downgrade = ["big", "small"]
"""
PRICES = """
[[prices]]
model = "big"
input = 0
output = "1000"
per = "1M tokens"
[[prices]]
model = "small"
input = 0
output = "10"
per = "1M tokens"
"""
SOFT = {
    **PLANS,
    "soft.toml": """
name = "Soft"
monthly_price = 0
[quota]
units = "unlimited"
window = "month"
[[limits]]
name = "spend"
dollars = "1.00"
window = "day"
mode = "soft"
""",
}


def speaks(*outputs: int):
    """Answers with so many tokens of output, one after another, the last one for ever."""
    left = list(outputs)

    async def behave(asked: Asked, line: Line) -> None:
        output = left.pop(0) if len(left) > 1 else left[0]
        usage = {"prompt_tokens": 0, "completion_tokens": output, "total_tokens": output}
        await replays(json.dumps({"choices": [], "usage": usage}).encode(), "application/json")(asked, line)

    return behave


def post(stand: Stand, body=ASK, path="/v1/chat/completions", **headers: str) -> httpx.Response:
    return httpx.post(stand.url + path, json=body, headers={"Authorization": f"Bearer {stand.key}", **headers})


def soft(tmp_path, behave, **more):
    return running(tmp_path, behave, **{"plans": SOFT, "plan": "soft", "routes": CHAT + PRICES, **more})


def asked_models(stand: Stand) -> list[str]:
    return [json.loads(asked.body)["model"] for asked in stand.origin.asked]


def test_a_cheaper_model_serves_from_the_line_on_and_says_so(tmp_path):
    with soft(tmp_path, speaks(700, 100)) as stand:
        first, second = post(stand), post(stand)
        assert (first.status_code, second.status_code) == (200, 200)
        assert "x-gatekeeper-model-used" not in first.headers
        assert second.headers["x-gatekeeper-model-requested"] == "big"
        assert second.headers["x-gatekeeper-model-used"] == "small"
        # $0.70 used; 100 tokens of the model that was asked for may take $0.10 more: 80 % of $1.
        assert asked_models(stand) == ["big", "small"]
        one, other = stand.records(2)
        assert (one.model, one.model_requested, one.cost_nano) == ("big", None, 700_000_000)
        assert (other.model, other.model_requested, other.cost_nano) == ("small", "big", 1_000_000)
        assert "soft limit spend" in other.note
        assert stand.held_micro() == 0


def test_small_calls_stay_with_the_model_that_was_asked_for_until_they_reach_the_line(tmp_path):
    with soft(tmp_path, speaks(700, 10)) as stand:
        post(stand)
        assert "x-gatekeeper-model-used" not in post(stand, {**ASK, "max_tokens": 30}).headers


def test_it_goes_back_only_below_the_band(tmp_path):
    with soft(tmp_path, speaks(700, 0)) as stand:
        post(stand)
        bounds = [60, 100, 60, 50, 49, 60, 100]
        used = [
            post(stand, {**ASK, "max_tokens": bound}).headers.get("x-gatekeeper-model-used", "big") for bound in bounds
        ]
        # 76 %, 80 % (down), 76 % (still down), 75 %, 74.9 % (up), 76 % (up), 80 % (down)
        assert used == ["big", "small", "small", "small", "big", "big", "small"]


def test_at_the_cap_it_blocks_whatever_the_model(tmp_path):
    with soft(tmp_path, speaks(1_000)) as stand:
        assert post(stand).status_code == 200
        for body in (ASK, {**ASK, "model": "small"}):
            got = post(stand, body)
            assert (got.status_code, got.json()["error"]["code"]) == (402, "budget_exceeded")


def test_who_wants_no_cheaper_model_is_refused_instead(tmp_path):
    with soft(tmp_path, speaks(700)) as stand:
        header = {"X-Gatekeeper-No-Downgrade": "1"}
        assert post(stand, **header).status_code == 200
        got = post(stand, **header)
        assert (got.status_code, got.json()["error"]["code"]) == (402, "budget_soft_cap")
        assert got.json()["error"]["limit"]["name"] == "spend"
        assert got.json()["error"]["limit"]["used"] == "0.7"
        assert "small" in got.json()["error"]["message"]
        assert got.headers["x-should-retry"] == "false"
        assert 0 < int(got.headers["retry-after"]) <= 86_400
        assert post(stand, **{"X-Gatekeeper-No-Downgrade": "0"}).headers["x-gatekeeper-model-used"] == "small"
        assert len(stand.records(2)) == 2
        assert stand.origin.asked[0].header("x-gatekeeper-no-downgrade") is None


def test_without_a_cheaper_model_a_soft_limit_only_blocks_at_its_cap(tmp_path):
    with soft(tmp_path, speaks(700, 100)) as stand:
        other = {**ASK, "model": "small"}
        assert [post(stand).status_code, post(stand, other).status_code] == [200, 200]
        assert asked_models(stand) == ["big", "small"]
        assert stand.records(2)[1].model_requested is None


def test_the_scope_of_a_key_holds_for_the_model_that_is_used_as_well(tmp_path):
    with soft(tmp_path, speaks(700, 100)) as stand:
        post(stand)
        stand.key = stand.make_key(models=("big",))
        assert "x-gatekeeper-model-used" not in post(stand).headers
        assert asked_models(stand) == ["big", "big"]


def test_a_chain_goes_on_to_what_fits(tmp_path):
    middle = '[[prices]]\nmodel = "middle"\ninput = 0\noutput = "1000"\nper = "1M tokens"\n'
    routes = CHAT.replace('["big", "small"]', '["big", "middle", "small"]') + PRICES + middle
    with soft(tmp_path, speaks(950, 1), routes=routes) as stand:
        post(stand)
        got = post(stand)
        assert got.headers["x-gatekeeper-model-used"] == "small", "100 tokens of the middle one may take $0.10 of $0.05"


def test_the_plan_may_name_the_chain_and_its_quota_the_line(tmp_path):
    plans = {
        **PLANS,
        "soft.toml": """
name = "Soft"
monthly_price = 0
downgrade = [["big", "small"], ["huge", "big"]]
[quota]
units = 1_000
window = "month"
when_used = "soft"
soft_at = 50
""",
    }
    routes = CHAT.replace('downgrade = ["big", "small"]\n', "") + PRICES
    with soft(tmp_path, speaks(480, 10), plans=plans, routes=routes) as stand:
        assert [post(stand, {**ASK, "model": "huge"}).status_code, post(stand).status_code] == [200, 200]
        assert asked_models(stand) == ["huge", "small"]
        assert post(stand, {**ASK, "max_tokens": 900}).status_code == 402


def test_a_stream_is_downgraded_before_it_begins_and_never_within(tmp_path):
    async def behave(asked: Asked, line: Line) -> None:
        count = 700 if json.loads(asked.body)["model"] == "big" else 5
        usage = {"prompt_tokens": 0, "completion_tokens": count, "total_tokens": count}
        events = [{"choices": [{"index": 0, "delta": {"content": "word " * count}, "finish_reason": "stop"}]}]
        events += [{"choices": [], "usage": usage}]
        body = b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events) + b"data: [DONE]\n\n"
        await replays(body, "text/event-stream")(asked, line)

    with soft(tmp_path, behave) as stand:
        streamed = {**ASK, "max_tokens": 790, "stream": True}
        assert [post(stand, streamed).text.endswith("data: [DONE]\n\n") for _ in range(2)] == [True, True]
        assert asked_models(stand) == ["big", "small"]


def test_a_model_in_the_path_is_replaced_there(tmp_path):
    routes = """
[[routes]]
name = "gemini"
path = "/v1beta/models/{model}:generateContent"
upstream = "origin"
downgrade = ["big", "small"]
"""
    usage = {"usageMetadata": {"promptTokenCount": 0, "candidatesTokenCount": 900, "totalTokenCount": 900}}
    answer = replays(json.dumps(usage).encode(), "application/json")
    with soft(tmp_path, answer, routes=routes + PRICES) as stand:
        body = {"contents": [], "generationConfig": {"maxOutputTokens": 100}}
        for _ in range(2):
            assert post(stand, body, "/v1beta/models/big:generateContent").status_code == 200
        targets = [asked.target for asked in stand.origin.asked]
        assert targets == [b"/v1beta/models/big:generateContent", b"/v1beta/models/small:generateContent"]
        assert stand.records(2)[1].path == "/v1beta/models/big:generateContent"


def test_a_cheaper_model_may_fail_over_too(tmp_path):
    routes = CHAT + 'fallback = [{ upstream = "origin2" }]\n' + PRICES

    async def behave(asked: Asked, line: Line) -> None:
        small = json.loads(asked.body)["model"] == "small"
        body = b'{"usage":{"prompt_tokens":0,"completion_tokens":700,"total_tokens":700}}'
        await replays(b"no" if small else body, "application/json", 503 if small else 200)(asked, line)

    with soft(tmp_path, behave, others=[speaks(5)], routes=routes) as stand:
        assert [post(stand).status_code for _ in range(2)] == [200, 200]
        record = stand.records(2)[1]
        assert (record.upstream, record.model, record.model_requested) == ("origin2", "small", "big")


def test_many_at_once_never_pass_the_cap(tmp_path):
    # After the first one every call is a cheaper one, at $0.01: 30 of them fit.
    routes = CHAT + PRICES.replace('"10"', '"100"')
    with (
        soft(tmp_path, speaks(700, 100), routes=routes) as stand,
        closing(sqlite3.connect(tmp_path / "gateway.sqlite")) as ledger,
    ):
        # At any instant, not when somebody looks.
        ledger.execute("CREATE TABLE passed (used, held)")
        ledger.execute(
            "CREATE TRIGGER watch AFTER UPDATE ON counter WHEN NEW.dimension = 'dollars' "
            "AND NEW.used + NEW.held > 1000000000 BEGIN INSERT INTO passed VALUES (NEW.used, NEW.held); END"
        )
        ledger.commit()
        assert post(stand).status_code == 200
        with ThreadPoolExecutor(8) as pool:
            statuses = [each.status_code for each in pool.map(lambda _: post(stand), range(40))]
        assert set(statuses) <= {200, 402, 429}
        first, *others = stand.records(1 + statuses.count(200))
        assert first.model == "big"
        assert {record.model for record in others} == {"small"}
        assert first.cost_nano + sum(record.cost_nano for record in others) <= 1_000_000_000
        assert stand.held_micro() == 0
        assert ledger.execute("SELECT * FROM passed").fetchall() == []
