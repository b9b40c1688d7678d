"""``cost`` on a route: what the provider takes is read from its answer, and dollar limits settle on it."""

import json

import httpx
from fakes.origin import Asked, Line, replays
from fakes.stand import PLANS, Stand, running

from gatekeeper.cli.explain import _settled
from gatekeeper.config import parse_gateway
from gatekeeper.explanation import explain_call
from gatekeeper.meters import Outcome

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
PRICED = '[[prices]]\nmodel = "gpt-4o"\ninput = "2.50"\noutput = "10.00"\nper = "1M tokens"\n'
STATED = 'cost = "usage().cost * 1.1"'
ASK = {"model": "gpt-4o", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


def routes(*more: str) -> str:
    lines = ["[[routes]]", 'name = "chat"', 'path = "/v1/chat/completions"', 'upstream = "origin"', *more]
    return "\n".join(lines) + "\n" + PRICED


def usage(**more: float) -> dict[str, float]:
    return {"prompt_tokens": 100, "completion_tokens": 900, "total_tokens": 1_000, **more}


def usage_counts() -> dict[str, int]:
    return {"input": 100, "output": 900, "total": 1_000}


def answers(status: int = 200, **more: float):
    body = json.dumps({"id": "c", "choices": [], "usage": usage(**more)}).encode()
    return replays(body, "application/json", status)


def post(stand: Stand, **more: object) -> httpx.Response:
    headers = {"Authorization": f"Bearer {stand.key}"}
    return httpx.post(stand.url + "/v1/chat/completions", json={**ASK, **more}, headers=headers)


def explained(stand: Stand, gateway=None):
    """What ``gatekeeper explain`` tells of the one call: the figures, and the lines for people."""
    record = stand.record()
    entries = stand.run(stand.house.store.entries(record.call_id))
    holding = stand.run(stand.house.store.holding(record.call_id))
    told = explain_call(entries, holding, gateway or stand.house.live.gateway)
    return told, "\n".join(_settled(told))


def test_a_dollar_limit_settles_on_what_the_provider_says_that_it_takes(tmp_path):
    with running(tmp_path, answers(cost=0.004), plans=DOLLARS, plan="budget", routes=routes(STATED)) as stand:
        first, second = post(stand), post(stand)
        assert (first.status_code, second.status_code) == (200, 200)
        assert [record.cost_nano for record in stand.records(2)] == [4_400_000, 4_400_000]
        refused = post(stand)
        # By the price list the first call alone had taken $0.00925.
        assert (refused.status_code, refused.json()["error"]["code"]) == (402, "exceeds_limit")
        assert refused.json()["error"]["limit"]["used"] == "0.0088"


def test_what_was_read_is_kept_explained_and_read_again(tmp_path):
    with running(tmp_path, answers(cost=0.004), routes=routes(STATED)) as stand:
        post(stand)
        kept = stand.record().evidence["$cost"]
        assert (kept["source"], kept["dollars"], kept["used"]) == ("measured", "0.0044", True)
        told, lines = explained(stand)
        assert (told["cost"]["cost"], told["cost"]["again"], told["cost"]["same"]) == ("0.0044", "0.0044", True)
        assert told["warnings"] == []
        assert "usage().cost * 1.1  [" in lines
        assert "$0.0044, measured" in lines
        assert "$0.0044 at the provider; again: the same" in lines
        assert "$cost" not in told["reading"]["evidence"]
        key = {"Authorization": f"Bearer {stand.key}"}
        mine = httpx.get(f"{stand.url}/v1/requests/{stand.record().call_id}", headers=key).json()
        assert "$cost" not in mine["evidence"], "what the provider takes is the operator's business"
        assert mine["usage"] == usage_counts()
        assert mine["evidence"] == {"usage()": usage_counts()}
        operator = {"X-Admin-Key": "admin-secret"}
        theirs = httpx.get(f"{stand.url}/admin/requests/{stand.record().call_id}", headers=operator).json()
        assert theirs["usage"] == {**usage_counts(), "cost": "0.004"}
        assert theirs["evidence"]["$cost"]["used"] is True


def test_an_expression_that_was_changed_since_is_said_so(tmp_path):
    with running(tmp_path, answers(cost=0.004), routes=routes(STATED)) as stand:
        post(stand)
        text = '[upstreams.origin]\nurl = "http://127.0.0.1:1"\n'
        other = parse_gateway(text + routes('cost = "usage().cost * 2"'), "gateway.toml", PLANS, {})
        told, _ = explained(stand, other)
        assert (told["cost"]["again"], told["cost"]["same"]) == ("0.008", False)
        assert any("another one today" in said for said in told["warnings"])
        none = parse_gateway(text + routes(), "gateway.toml", PLANS, {})
        told, _ = explained(stand, none)
        assert told["cost"]["same"] is None
        assert any("no 'cost' any more" in said for said in told["warnings"])


def test_where_it_finds_nothing_the_price_list_counts(tmp_path):
    with running(tmp_path, answers(), routes=routes(STATED)) as stand:
        post(stand)
        record = stand.record()
        assert record.cost_nano == 9_250_000
        assert record.evidence["$cost"]["used"] is False
        told, lines = explained(stand)
        assert (told["cost"]["cost"], told["cost"]["same"]) == ("0.00925", True)
        assert "nothing, none; the price list counts" in lines


def test_the_price_list_can_be_part_of_it_and_it_is_rounded_once(tmp_path):
    cost = 'cost = "cost(model, usage()) * 1.1 + 0.0000000004"'
    with running(tmp_path, answers(), routes=routes(cost)) as stand:
        post(stand)
        # $0.010175 and 0.4 of a nano-dollar.
        assert stand.record().cost_nano == 10_175_000
        assert stand.record().evidence["$cost"]["dollars"] == "0.0101750004"
        assert explained(stand)[0]["cost"]["same"] is True


def test_a_cost_that_cannot_be_is_no_cost(tmp_path):
    with running(tmp_path, answers(), routes=routes('cost = "usage().total - 5000"')) as stand:
        post(stand)
        record = stand.record()
        assert (record.cost_nano, record.evidence["$cost"]["source"]) == (9_250_000, "error")


def test_an_answer_that_is_an_error_costs_nothing_and_is_not_read(tmp_path):
    with running(tmp_path, answers(429, cost=0.004), routes=routes(STATED)) as stand:
        assert post(stand).status_code == 429
        record = stand.record()
        assert (record.cost_nano, record.units_micro) == (0, 0)
        assert "$cost" not in record.evidence


def test_a_model_without_a_price_has_no_bound_before_the_call_and_is_refused_under_a_dollar_limit(tmp_path):
    with running(tmp_path, answers(cost=0.004), plans=DOLLARS, plan="budget", routes=routes(STATED)) as stand:
        refused = post(stand, model="nobody-knows-this-model")
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "unpriced_model")
    (tmp_path / "b").mkdir()
    text = routes(STATED) + '[costs]\nunpriced = "allow"\n'
    with running(tmp_path / "b", answers(cost=0.004), plans=DOLLARS, plan="budget", routes=text) as stand:
        assert post(stand, model="nobody-knows-this-model").status_code == 200
        assert stand.record().cost_nano == 4_400_000


def test_of_a_stream_that_broke_off_the_dearer_figure_counts(tmp_path):
    async def behave(asked: Asked, line: Line) -> None:
        await line.head(200, Content_Type="text/event-stream", Transfer_Encoding="chunked")
        words = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": "x" * 30}}]}
        for _ in range(3_000):
            await line.chunk(b"data: " + json.dumps(words).encode() + b"\n\n")
        await line.end()

    flat = routes('cost = "0.000001 + 0 * requestBytes"')
    with running(tmp_path, behave, plans=DOLLARS, plan="budget", routes=flat) as stand:
        post(stand, stream=True, max_tokens=100_000)
        record = stand.record()
        assert record.outcome is Outcome.CUT
        assert 9_000_000 <= record.cost_nano <= 10_400_000
        assert record.evidence["$cost"]["used"] is False
        assert explained(stand)[0]["cost"]["same"] is True


def test_meters_may_have_any_name(tmp_path):
    meters = 'meters = { usage = "1", meter = "2", cost = "3" }'
    with running(tmp_path, answers(cost=0.004), routes=routes(STATED, meters)) as stand:
        post(stand)
        record = stand.record()
        assert (record.units_micro, record.cost_nano) == (1_000_000_000, 4_400_000)
        assert record.meters == {"usage": "1", "meter": "2", "cost": "3"}
        assert record.usage["cost"] == "0.004"
