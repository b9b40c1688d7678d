"""``[costs] tokenizer``: what an estimate says, while holds and charges stay as they are."""

import json

import httpx
import pytest
from fakes.origin import replays
from fakes.stand import PLANS, running

from gatekeeper import tokenizer

PLAN = {
    **PLANS,
    "budget.toml": """
name = "Budget"
monthly_price = 0
[quota]
units = "unlimited"
window = "month"
[[limits]]
dollars = "1"
window = "day"
""",
}
ROUTE = """
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "origin"
[[prices]]
model = "gpt-4o"
input = "1000"
output = "0"
per = "1M tokens"
"""
# 420 bytes, 20 tokens of the longest kind.
ASK = {"model": "gpt-4o", "max_tokens": 5, "messages": [{"role": "user", "content": "internationalization " * 20}]}
BODY = json.dumps({"id": "c", "choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 1}}).encode()


@pytest.mark.skipif(not tokenizer.installed(), reason="pip install 'gatekeeper[tokenizer]'")
def test_the_estimate_counts_tokens_and_hold_and_charge_stay_as_they_are(tmp_path):
    seen = []
    for switch in ("", "[costs]\ntokenizer = true\n"):
        folder = tmp_path / str(len(seen))
        folder.mkdir()
        with running(
            folder, replays(BODY, "application/json"), plan="budget", plans=PLAN, routes=ROUTE + switch
        ) as stand:
            headers = {"Authorization": f"Bearer {stand.key}"}
            answer = httpx.post(stand.url + "/v1/chat/completions", json=ASK, headers=headers)
            assert answer.status_code == 200
            record = stand.record()
            estimated, left = answer.headers["x-cost-estimated"], answer.headers["x-budget-remaining"]
            seen.append((estimated, left, record.cost_nano, record.units_micro))
    (plain, *before), (counted, *after) = seen
    assert before == after
    # A quarter of the bytes; by the tokenizer the words and a few marks, at $0.001 a token.
    assert float(plain) > 0.105
    assert 0.060 <= float(counted) < 0.100
