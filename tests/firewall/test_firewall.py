"""The firewall as an agent uses it: a real gateway.toml, a real ledger, real threads."""

import asyncio
import json
import re
import subprocess
import sys
import threading
import time
from decimal import Decimal
from pathlib import Path

import pytest

import gatekeeper
from gatekeeper import AsyncFirewall, Firewall
from gatekeeper.diagnostics import Mistakes

GATEWAY = """
[database]
url = "sqlite:///ledger.sqlite"
[ledger]
hold_ttl_s = 1
heartbeat_s = 0.2
[keys]
mode = "none"
customer = "mesh"
[upstreams.openai]
url = "https://api.openai.com"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "openai"
meters = { output = "usage().output" }
[[routes]]
name = "count"
path = "/v1/count"
upstream = "openai"
free = true
"""
PLAN = """
name = "Free"
monthly_price = 0
[quota]
units = 1_000_000
window = "month"
when_used = "block"
"""
LIMITS = """
[[limits]]
name = "everybody"
scope = "global"
units = 1_000
window = "day"
[[limits]]
name = "one-user"
scope = "user"
units = 600
window = "day"
[[limits]]
name = "one-agent"
scope = "agent"
units = 300
window = "day"
"""
BODY = {
    "id": "chatcmpl-own-1",
    "choices": [{"message": {"content": "hi"}}],
    "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20},
}
STREAM = (
    b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
    b"data: [DONE]\n\n"
)


@pytest.fixture
def config(tmp_path):
    def write(limits=LIMITS, gateway=GATEWAY):
        (tmp_path / "plans").mkdir(exist_ok=True)
        (tmp_path / "plans" / "free.toml").write_text(PLAN)
        path = tmp_path / "gateway.toml"
        path.write_text(gateway + limits)
        return path

    return write


def test_a_call_is_held_settled_and_counted(config):
    with Firewall(config()) as firewall:
        verdict = firewall.request(agent_id="planner", user_id="alice", model="gpt-4o", tokens=200)
        assert verdict.allowed and verdict.reason is None and verdict.call_id
        second = firewall.request(agent_id="planner", user_id="alice", model="gpt-4o", tokens=200)
        assert not second.allowed
        assert second.reason == "limit_held"
        assert (second.limit.name, second.limit.held, second.limit.remaining) == ("one-agent", 200, 100)
        assert second.retry_after == 1
        charged = verdict.settle(tokens=50)
        assert (charged.units, charged.source, charged.first) == (50, "measured", True)
        assert firewall.request(agent_id="planner", user_id="alice", model="gpt-4o", tokens=200).allowed


def test_where_the_third_limit_refuses_the_first_two_are_unchanged(config):
    with Firewall(config()) as firewall:
        refused = firewall.request(agent_id="greedy", user_id="alice", tokens=301)
        assert (refused.allowed, refused.reason, refused.limit.name) == (False, "exceeds_limit", "one-agent")
        # Nothing of it stayed on the user or on everybody.
        assert firewall.request(agent_id="a", user_id="alice", tokens=300).allowed
        assert firewall.request(agent_id="b", user_id="alice", tokens=300).allowed
        other = firewall.request(agent_id="c", user_id="alice", tokens=1)
        assert (other.reason, other.limit.name, other.limit.held) == ("limit_held", "one-user", 600)
        assert firewall.request(agent_id="d", user_id="bob", tokens=300).allowed


def test_many_threads_never_pass_a_cap(config):
    allowed = []
    with Firewall(config(limits='[[limits]]\nscope = "agent"\nunits = 1_000\nwindow = "total"\n')) as firewall:

        def ask():
            for _ in range(5):
                verdict = firewall.request(agent_id="shared", tokens=100)
                if verdict.allowed:
                    allowed.append(verdict)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(allowed) == 10
        for verdict in allowed:
            verdict.settle(tokens=100)
        last = firewall.request(agent_id="shared", tokens=1)
        assert (last.reason, last.limit.used, last.limit.held) == ("quota_exceeded", 1_000, 0)
        assert last.retry_after is None


def test_the_providers_answer_is_metered_by_the_route(config):
    with Firewall(config()) as firewall:
        body = firewall.request(tokens=100, endpoint="/v1/chat/completions", model="gpt-4o").settle(response=BODY)
        assert (body.units, body.source) == (20, "measured")
        text = firewall.request(tokens=100, endpoint="chat", model="gpt-4o").settle(response=json.dumps(BODY))
        assert text.units == 20
        stream = firewall.request(tokens=100, model="gpt-4o")
        assert stream.settle(response=STREAM, content_type="text/event-stream").units == 7


def test_what_is_not_said_is_charged_as_asked_for(config):
    with Firewall(config()) as firewall:
        charged = firewall.request(tokens=90).settle()
        assert (charged.units, charged.source) == (90, "estimated")
        unread = firewall.request(tokens=80).settle(response=b"<html>no usage</html>", content_type="text/html")
        assert (unread.units, unread.source) == (80, "estimated")


def test_a_released_call_takes_nothing(config):
    with Firewall(config(limits='[[limits]]\nscope = "global"\nrequests = 1\nwindow = "day"\n')) as firewall:
        first = firewall.request(tokens=10)
        assert not firewall.request(tokens=10).allowed
        assert first.release().units == 0
        again = firewall.request(tokens=10)
        assert again.allowed
        again.settle(tokens=10)
        spent = firewall.request(tokens=10)
        assert (spent.reason, spent.limit.dimension) == ("quota_exceeded", "requests")


def test_settling_twice_counts_once(config):
    with Firewall(config()) as firewall:
        verdict = firewall.request(tokens=100, agent_id="a")
        assert verdict.settle(tokens=40) == verdict.settle(tokens=99)
        left = firewall.request(tokens=300, agent_id="a")
        assert (left.limit.used, left.limit.held) == (40, 0)


def test_a_dollar_limit_counts_prices(config):
    limits = '[[limits]]\nscope = "global"\ndollars = "0.01"\nwindow = "day"\n'
    with Firewall(config(limits=limits)) as firewall:
        verdict = firewall.request(model="gpt-4o", input_tokens=1_000, output_tokens=500)
        assert verdict.allowed
        charged = verdict.settle(input_tokens=1_000, output_tokens=500)
        # The list price of gpt-4o: $2.50 and $10 for a million tokens.
        assert charged.cost == Decimal("0.0075")
        refused = firewall.request(model="gpt-4o", input_tokens=1_000, output_tokens=500)
        assert (refused.reason, refused.limit.used) == ("exceeds_limit", Decimal("0.0075"))
        unknown = firewall.request(model="nobody-sells-this", tokens=1)
        assert (unknown.allowed, unknown.reason) == (False, "unpriced_model")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "say how many tokens"),
        ({"tokens": 5, "input_tokens": 5}, "say how many tokens"),
        ({"tokens": -1}, "whole number of tokens"),
        ({"tokens": 1.5}, "whole number of tokens"),
        ({"tokens": 5, "agent_id": "a b"}, "agent_id is 1 to 128"),
        ({"tokens": 5, "model": "x\n"}, "printable name"),
        ({"tokens": 5, "endpoint": "/v1/nothing"}, "no metered route has the endpoint '/v1/nothing'"),
        ({"tokens": 5, "endpoint": "/v1/count"}, "no metered route"),
        ({"tokens": 5, "customer_id": "stranger"}, "there is no customer 'stranger'"),
    ],
)
def test_what_is_asked_wrongly_is_said_and_holds_nothing(config, asked, told):
    with Firewall(config()) as firewall:
        with pytest.raises(ValueError, match=told):
            firewall.request(**asked)
        assert firewall.request(tokens=300, agent_id="fresh").allowed


def test_a_refused_call_cannot_be_settled(config):
    with Firewall(config()) as firewall:
        refused = firewall.request(tokens=301, agent_id="a")
        with pytest.raises(RuntimeError, match="exceeds_limit"):
            refused.settle(tokens=1)


def test_wrong_figures_settle_nothing(config):
    with Firewall(config()) as firewall:
        verdict = firewall.request(tokens=10)
        with pytest.raises(ValueError, match="one form"):
            verdict.settle(tokens=1, response=b"{}")
        with pytest.raises(ValueError, match="whole number"):
            verdict.settle(tokens=-1)
        assert verdict.settle(tokens=7).units == 7


def test_a_process_that_dies_leaves_nothing_held(config):
    path = config()
    dying = (
        "import os; from gatekeeper import Firewall\n"
        f"firewall = Firewall({str(path)!r})\n"
        "verdict = firewall.request(agent_id='a', tokens=300)\n"
        "assert verdict.allowed; verdict.report(120)\n"
        "import time; time.sleep(0.5); os._exit(9)\n"
    )
    assert subprocess.run([sys.executable, "-c", dying], timeout=60).returncode == 9
    with Firewall(path) as firewall:
        until = time.monotonic() + 20
        # The hold lives on for its second; then what was reported is charged and the rest is free.
        while not (verdict := firewall.request(agent_id="a", tokens=180)).allowed:
            assert verdict.reason == "limit_held" and time.monotonic() < until
            threading.Event().wait(0.05)
        over = firewall.request(agent_id="a", tokens=1)
        assert (over.limit.used, over.limit.held) == (120, 180)


def test_a_living_call_is_kept_alive_past_its_ttl(config):
    with Firewall(config()) as firewall:
        verdict = firewall.request(agent_id="a", tokens=300)
        threading.Event().wait(1.6)
        assert not firewall.request(agent_id="a", tokens=1).allowed
        assert not verdict.lost
        assert verdict.settle(tokens=300).units == 300


def test_it_works_with_asyncio_too(config):
    async def agents():
        async with AsyncFirewall(config()) as firewall:
            verdicts = await asyncio.gather(*(firewall.request(user_id="u", tokens=100) for _ in range(10)))
            allowed = [verdict for verdict in verdicts if verdict.allowed]
            await asyncio.gather(*(verdict.settle(tokens=100) for verdict in allowed))
            return len(allowed), await firewall.request(user_id="u", tokens=1)

    count, last = asyncio.run(agents())
    assert count == 6
    assert (last.reason, last.limit.name, last.limit.used) == ("quota_exceeded", "one-user", 600)


def test_two_firewalls_share_one_ledger(config):
    path = config()
    with Firewall(path) as one, Firewall(path) as other:
        assert one.request(agent_id="a", tokens=200).allowed
        refused = other.request(agent_id="a", tokens=200)
        assert (refused.reason, refused.limit.held) == ("limit_held", 200)


def test_a_wrong_file_is_told_with_its_place(config):
    path = config(limits="[[limits]]\nscope = 'everybody'\n")
    with pytest.raises(Mistakes) as caught:
        Firewall(path)
    assert "everybody" in str(caught.value)


def test_a_closed_firewall_says_so(config):
    firewall = Firewall(config())
    firewall.close()
    firewall.close()
    with pytest.raises(RuntimeError, match="closed"):
        firewall.request(tokens=1)


def test_the_package_offers_it_by_name():
    assert gatekeeper.Firewall is Firewall
    with pytest.raises(AttributeError, match="no attribute 'Firewal'"):
        _ = gatekeeper.Firewal


def test_the_examples_of_the_documentation_run(config, monkeypatch, capsys):
    page = (Path(__file__).resolve().parents[2] / "docs" / "firewall.md").read_text()
    blocking, with_asyncio = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(config(limits="").parent)
    exec(compile(blocking, "docs/firewall.md", "exec"), {"call_the_provider": lambda: BODY})
    assert capsys.readouterr().out == "20 0.00011\n"
    names = {}
    exec(compile(with_asyncio, "docs/firewall.md", "exec"), names)
    asyncio.run(names["work"]())
    with Firewall("gateway.toml") as firewall:
        assert asyncio.run(used(firewall)) == [850, 20]


async def used(firewall):
    house = firewall._inner.house
    records = asyncio.run_coroutine_threadsafe(house.store.records(), firewall._loop)
    return [record.units_micro // 1_000_000 for record in await asyncio.wrap_future(records)]
