"""A real database goes away under a gateway that may go on without it, and every call is counted in the end."""

import json
from urllib.parse import urlsplit

import httpx
from fakes.origin import Asked, Line
from fakes.stand import ROUTES, running

from gatekeeper.accounts import KeyWish
from gatekeeper.proxy.outage import NOTE
from gatekeeper.rules.limits import CounterKey, Window
from gatekeeper.rules.windows import window_bounds

LIMITS = """
[[limits]]
name = "each-key"
scope = "key"
units = 100_000
window = "month"
[[limits]]
name = "all"
scope = "global"
requests = 1_000
window = "total"
"""
ASK = {"model": "m", "messages": [], "max_tokens": 9}


async def answers(asked: Asked, line: Line) -> None:
    body = json.dumps({"usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}}).encode()
    await line.head(200, Content_Type="application/json", Content_Length=str(len(body)))
    await line.send(body)


def test_calls_go_on_without_the_database_and_are_counted_when_it_is_back(
    tmp_path, postgres_url, postgres_server, postgres_execute
):
    name = urlsplit(postgres_url).path[1:]
    kick = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
    ledger = f'journal = "{tmp_path}/waiting"\non_ledger_failure = "open"\nopen_requests_max = 3'
    with running(tmp_path, answers, routes=ROUTES + LIMITS, database_url=postgres_url, ledger=ledger) as stand:

        def call(secret: str) -> httpx.Response:
            key = {"Authorization": f"Bearer {secret}"}
            return httpx.post(f"{stand.url}/v1/chat/completions", json=ASK, headers=key, timeout=30)

        other = stand.run(stand.house.accounts.create_key("acme", KeyWish(name="never seen"))).secret
        assert call(stand.key).status_code == 200
        postgres_execute(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false", kick)
        try:
            assert [call(stand.key).status_code for _ in range(4)] == [200, 200, 200, 503]
            assert call(other).status_code == 503
            # Each as it began and as it ended.
            assert any(file.read_bytes().count(b"\n") == 6 for file in (tmp_path / "waiting").iterdir())
        finally:
            postgres_execute(postgres_server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        records = stand.records(4)
        assert [record.note for record in records] == [None, NOTE, NOTE, NOTE]
        assert {record.units_micro for record in records} == {7_000_000}
        start_ms, _ = window_bounds(Window.MONTH, records[0].started_ms)
        keys = [
            CounterKey("key", records[0].key_id or "", "units", "month", start_ms),
            CounterKey("global", "*", "requests", "total", 0),
        ]
        states = stand.run(stand.house.store.counters(keys))
        assert [(state.used, state.held) for state in states] == [(28_000_000, 0), (4_000_000, 0)]
        assert stand.run(stand.house.store.unbalanced()) == ([], [])
        assert stand.held_micro() == 0
    assert list((tmp_path / "waiting").iterdir()) == []
