"""Budgets inside a stream: holds that grow, a clean cut, and limits in dollars."""

import gzip
import json

import anthropic
import httpx
import openai
import pytest
from fakes.origin import Asked, Line, replays
from fakes.stand import PLANS, ROUTES, Stand, running

from gatekeeper.meters import Mark, Outcome

SMALL = {
    **PLANS,
    "small.toml": """
name = "Small"
monthly_price = 0
clamp_output = true
[quota]
units = 2_000
window = "month"
when_used = "block"
""",
}
ASK = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}
WORD = "x" * 30  # about ten tokens by the estimate of three bytes each
CAP_MICRO = 2_000_000_000


def piece(text: str) -> bytes:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def chats(events: int, *, split: int = 0):
    """A chat of so many words, with its usage where it was asked for; every piece cut in two at ``split``."""

    async def behave(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        for _ in range(events):
            data = piece(WORD)
            for part in (data[:split], data[split:]) if split else (data,):
                await line.chunk(part)
        usage = {"prompt_tokens": 5, "completion_tokens": 10 * events, "total_tokens": 5 + 10 * events}
        await line.chunk(b"data: " + json.dumps({"id": "c1", "choices": [], "usage": usage}).encode() + b"\n\n")
        await line.chunk(b"data: [DONE]\n\n")
        await line.end()

    return behave


def post(stand: Stand, body=ASK, path="/v1/chat/completions", **headers: str) -> httpx.Response:
    return httpx.post(stand.url + path, json=body, headers={"Authorization": f"Bearer {stand.key}", **headers})


def guard_the_cap(stand: Stand) -> None:
    """The database itself refuses any row in which used + held passes the cap."""

    async def install() -> None:
        database = stand.house.store._database
        await database._writer.run(
            lambda: database._writer.connection.execute(
                "CREATE TRIGGER guard BEFORE UPDATE ON counter WHEN NEW.dimension = 'units' AND NEW.held > OLD.held "
                f"AND NEW.used + NEW.held > {CAP_MICRO} BEGIN SELECT RAISE(ABORT, 'the cap was passed'); END"
            )
        )

    stand.run(install())


def test_a_stream_without_a_bound_is_extended_while_it_runs_and_left_as_it_was_asked(tmp_path):
    with running(tmp_path, chats(150), plans=SMALL, plan="small") as stand:
        guard_the_cap(stand)
        answer = post(stand)
        assert answer.text.endswith("data: [DONE]\n\n")
        assert answer.text.count(WORD) == 150
        assert "max_tokens" not in json.loads(stand.origin.asked[0].body)
        assert "x-gatekeeper-output-clamped" not in answer.headers
        record = stand.record()
        assert (record.units_micro, record.source, record.outcome) == (1_505_000_000, Mark.MEASURED, Outcome.COMPLETE)
        assert stand.held_micro() == 0


@pytest.mark.parametrize("split", [0, 25])
def test_a_stream_that_uses_up_its_budget_is_cut_at_an_event_boundary(tmp_path, split):
    with running(tmp_path, chats(5_000, split=split), plans=SMALL, plan="small") as stand:
        guard_the_cap(stand)
        answer = post(stand)
        *events, last, rest = answer.text.split("\n\n")
        assert rest == ""
        assert all(json.loads(event.removeprefix("data: ")) for event in events)
        error = json.loads(last.removeprefix("data: "))["error"]
        assert error["code"] in ("quota_exceeded", "exceeds_limit", "limit_held")
        assert error["limit"]["cap"] == "2000"
        assert "[DONE]" not in answer.text
        record = stand.record()
        assert (record.outcome, record.source) == (Outcome.CUT, Mark.ESTIMATED)
        # What was sent is charged, and it is all of the quota that a hold of whole slices lets through.
        assert 1_900_000_000 <= record.units_micro <= CAP_MICRO + 40_000_000
        assert stand.held_micro() == 0
        again = post(stand)
        assert again.status_code == 402


def test_the_openai_client_is_told_of_the_cut(tmp_path):
    with running(tmp_path, chats(5_000), plans=SMALL, plan="small") as stand:
        client = openai.OpenAI(base_url=stand.url + "/v1", api_key=stand.key, max_retries=0)
        with client, client.chat.completions.create(**ASK) as stream, pytest.raises(openai.APIError, match="limit"):
            for _ in stream:
                pass


def test_the_anthropic_client_is_told_of_the_cut(tmp_path):
    async def behave(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        start = {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": [],
                 "model": "m", "stop_reason": None, "stop_sequence": None,
                 "usage": {"input_tokens": 5, "output_tokens": 1}}}  # fmt: skip
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        for event in (start, block):
            await line.chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        delta = {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": WORD}}
        for _ in range(5_000):
            await line.chunk(f"event: content_block_delta\ndata: {json.dumps(delta)}\n\n".encode())
        await line.end()

    with running(tmp_path, behave, plans=SMALL, plan="small") as stand:
        client = anthropic.Anthropic(base_url=stand.url, api_key=stand.key, max_retries=0)
        asked = {"model": "m", "max_tokens": 100_000, "messages": ASK["messages"]}
        with (
            client,
            client.messages.create(**asked, stream=True) as stream,
            pytest.raises(anthropic.APIStatusError, match="limit"),
        ):
            for _ in stream:
                pass
        assert stand.record().outcome is Outcome.CUT


def test_an_encoded_stream_cannot_be_told_and_is_aborted(tmp_path):
    async def behave(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked", Content_Encoding="gzip")
        packed = gzip.compress(b"".join(piece(WORD + str(number)) for number in range(2_000)))
        for start in range(0, len(packed), 200):
            await line.chunk(packed[start : start + 200])
        await line.end()

    with running(tmp_path, behave, plans=SMALL, plan="small") as stand:
        body = {**ASK, "stream_options": {"include_usage": True}}
        with pytest.raises(httpx.RemoteProtocolError):
            post(stand, body)
        record = stand.record()
        assert record.outcome is Outcome.CUT
        assert stand.held_micro() == 0


def test_a_plan_that_never_blocks_is_never_asked_for_more(tmp_path):
    with running(tmp_path, chats(300), plan="pro") as stand:
        assert post(stand).text.endswith("data: [DONE]\n\n")
        assert stand.record().units_micro == 3_005_000_000


DOLLARS = {
    **PLANS,
    "budget.toml": """
name = "Budget"
monthly_price = 0
[quota]
units = "unlimited"
window = "month"
[[limits]]
dollars = "0.01"
window = "day"
""",
}
PRICED = """
[[prices]]
model = "gpt-4o"
input = "2.50"
output = "10.00"
per = "1M tokens"
"""
JSON_ASK = {"model": "gpt-4o", "max_tokens": 100, "messages": ASK["messages"]}


def answers(tokens_in: int, tokens_out: int):
    usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
    return replays(json.dumps({"id": "c", "choices": [], "usage": usage}).encode(), "application/json")


def test_a_dollar_limit_counts_what_the_provider_takes(tmp_path):
    with running(tmp_path, answers(100, 900), plans=DOLLARS, plan="budget", routes=ROUTES + PRICED) as stand:
        first = post(stand, JSON_ASK)
        assert first.status_code == 200
        record = stand.record()
        # 100 * $2.50 / 1M + 900 * $10 / 1M
        assert record.cost_nano == 9_250_000
        assert record.evidence["$price"]["output"] == "10"
        assert float(first.headers["x-budget-remaining"]) < 0.01
        assert first.headers["x-budget-limit"] == "0.01"
        assert "x-cost-estimated" in first.headers
        assert first.headers["x-budget-remaining-customer"] == first.headers["x-budget-remaining"]
        mine = httpx.get(f"{stand.url}/v1/requests/{record.call_id}", headers={"X-API-Key": stand.key}).json()
        assert (mine["cost"], "$price" in mine["evidence"]) == ("0.00925", False)
        # What remains is less than 100 tokens of output may cost.
        second = post(stand, JSON_ASK)
        assert second.status_code == 402
        assert second.json()["error"]["code"] == "exceeds_limit"
        assert second.json()["error"]["limit"]["used"] == "0.00925"


def test_a_budget_that_is_used_up_says_so_in_dollars(tmp_path):
    with running(tmp_path, answers(100, 2_000), plans=DOLLARS, plan="budget", routes=ROUTES + PRICED) as stand:
        assert post(stand, JSON_ASK).status_code == 200
        refused = post(stand, JSON_ASK)
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "budget_exceeded")
        assert "0.02025 used" in refused.json()["error"]["message"]
        assert refused.headers["x-should-retry"] == "false"
        assert int(refused.headers["retry-after"]) <= 86_400


def test_a_model_without_a_price_does_not_pass_a_dollar_limit_for_nothing(tmp_path):
    """Pitfall 52: what an unknown model costs is unknown, so it is refused."""
    with running(tmp_path, answers(1, 1), plans=DOLLARS, plan="budget") as stand:
        refused = post(stand, {**JSON_ASK, "model": "nobody-knows-this-model"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unpriced_model")
        assert stand.origin.asked == []


def test_the_provider_cost_is_shown_to_the_operator_only(tmp_path):
    with running(tmp_path, answers(100, 900)) as stand:
        post(stand, JSON_ASK)
        call_id = stand.record().call_id
        key = {"Authorization": f"Bearer {stand.key}"}
        mine = httpx.get(f"{stand.url}/v1/requests/{call_id}", headers=key).json()
        assert "cost" not in mine
        assert "$price" not in mine["evidence"]
        theirs = httpx.get(f"{stand.url}/admin/requests/{call_id}", headers={"X-Admin-Key": "admin-secret"}).json()
        assert theirs["cost"] == "0.00925"


def test_limits_of_the_gateway_hold_for_every_agent_by_itself(tmp_path):
    limits = """
[[limits]]
scope = "agent"
requests = 1
window = "day"
[[limits]]
scope = "agent"
subject = "vip"
requests = 2
window = "day"
"""
    with running(tmp_path, answers(1, 1), routes=ROUTES + limits) as stand:
        stand.key = stand.make_key(may_assert=True)
        statuses = [
            post(stand, JSON_ASK, **{"X-Agent-Id": agent}).status_code for agent in ("a", "a", "b", "vip", "vip", "vip")
        ]
        assert statuses == [200, 402, 200, 200, 200, 402]
        assert post(stand, JSON_ASK).status_code == 200, "a call without an agent meets no limit of agents"
