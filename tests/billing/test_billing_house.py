"""From a call to the biller: the whole gateway, as it is put together."""

import json
import socket

import httpx
import pytest
from fakes.origin import replays
from fakes.stand import PLANS, ROUTES, running

ANSWER = json.dumps({"id": "chatcmpl-1", "model": "gpt-4o", "usage": {"total_tokens": 17}}).encode()
BODY = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}]}
BILLED = {**PLANS, "pro.toml": PLANS["pro.toml"].replace('window = "month"', 'window = "billing_period"')}


def call(stand):
    headers = {"authorization": f"Bearer {stand.key}"}
    assert httpx.post(f"{stand.url}/v1/chat/completions", json=BODY, headers=headers).status_code == 200


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_what_was_used_is_on_paper_when_the_gateway_has_stopped(kind, request, tmp_path):
    """Pitfall 48: what is owed is flushed before the end."""
    url, paper = request.getfixturevalue(f"{kind}_url"), tmp_path / "paper.jsonl"
    routes = f'{ROUTES}[stripe]\npaper = "{paper}"\nmeter = "tokens"\n'
    with running(tmp_path, replays(ANSWER, "application/json"), routes=routes, plans=BILLED, database_url=url) as stand:
        call(stand)
        call(stand)
        records = stand.records(2)
        outbox = httpx.get(f"{stand.url}/readyz").json()["outbox"]
        assert outbox.keys() == {"waiting", "dead", "oldest_s", "behind"}
        assert (outbox["dead"], outbox["behind"]) == (0, False)
        (start_ms,) = {line.period_start_ms for line in stand.run(stand.house.store.batches())} or {None}
    lines = [json.loads(line) for line in paper.read_text().splitlines()]
    assert sum(int(line["units"]) for line in lines) == 34 == sum(one.units_micro for one in records) // 1_000_000
    assert {(line["customer_id"], line["meter"], line["late"]) for line in lines} == {("acme", "tokens", False)}
    assert start_ms is None or start_ms == lines[0]["period_start_ms"]


@pytest.mark.parametrize(("flag", "variable"), [("false", None), ("true", "false"), ("true", "0")])
def test_disabled_sends_nothing_and_the_ledger_is_complete(flag, variable, tmp_path):
    """Pitfall 50: the flag that turns it off, in the file or in the environment, leaves no request, and every call
    owed."""
    variables = {} if variable is None else {"STRIPE_METERING_ENABLED": variable}
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.setblocking(False)
        routes = (
            f'{ROUTES}[stripe]\nenabled = {flag}\nsecret_key = "sk_test_0123456789"\n'
            f'webhook_secrets = ["whsec_0123456789"]\napi_base = "http://127.0.0.1:{nobody.getsockname()[1]}"\n'
        )
        with running(
            tmp_path, replays(ANSWER, "application/json"), routes=routes, plans=BILLED, variables=variables
        ) as stand:
            call(stand)
            stand.record()
            assert stand.house.biller is None
            assert httpx.get(f"{stand.url}/readyz").json() == {"ready": True}
            assert stand.run(stand.house.store.backlog()).unfrozen == 1
        with pytest.raises(BlockingIOError):
            nobody.accept()
