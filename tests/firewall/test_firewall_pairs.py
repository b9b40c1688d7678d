"""Limits of two scopes as an agent meets them, and caps that wait for the billing period."""

import asyncio
import threading

import pytest

from gatekeeper import AsyncFirewall, Firewall
from gatekeeper.clock import SystemClock

GATEWAY = """
[database]
url = "sqlite:///ledger.sqlite"
[keys]
mode = "none"
customer = "mesh"
[upstreams.openai]
url = "https://api.openai.com"
[[routes]]
name = "chat"
path = "/v1/chat/completions"
upstream = "openai"
[[routes]]
name = "images"
path = "/v1/images"
upstream = "openai"
"""
LIMITS = """
[[limits]]
name = "strong"
scope = "agent,model"
subject = "each,gpt-4o"
requests = 2
window = "day"
[[limits]]
name = "planner"
scope = "agent,model"
subject = "mesh/planner,gpt-4o"
requests = 3
window = "day"
[[limits]]
name = "pictures"
scope = "user,route"
subject = "each,images"
units = 100
window = "month"
[[limits]]
name = "daily"
scope = "user,agent"
subject = "each,latched"
units = 50
window = "day"
release = "billing_period"
"""
PLAN = """
monthly_price = 0
[[limits]]
name = "of-plan"
scope = "customer,model"
subject = "each,o1"
requests = 1
window = "day"
[[rates]]
name = "fast"
scope = "user,model"
subject = "each,mini"
units = 1_000
"""


@pytest.fixture
def config(tmp_path):
    (tmp_path / "plans").mkdir()
    (tmp_path / "plans" / "free.toml").write_text(PLAN)
    path = tmp_path / "gateway.toml"
    path.write_text(GATEWAY + LIMITS)
    return path


def test_each_agent_has_so_many_calls_to_one_model_and_whom_a_limit_names_has_more(config):
    with Firewall(config) as firewall:

        def allowed(agent, model="gpt-4o"):
            verdict = firewall.request(agent_id=agent, model=model, tokens=1, endpoint="chat")
            return verdict.settle(tokens=1).first if verdict.allowed else verdict.reason

        assert [allowed("coder") for _ in range(3)] == [True, True, "quota_exceeded"]
        assert [allowed("planner") for _ in range(4)] == [True, True, True, "quota_exceeded"]
        assert allowed("coder", "gpt-4o-mini") is True
        refused = firewall.request(agent_id="coder", model="gpt-4o", tokens=1, endpoint="chat")
        found = refused.limit
        assert (found.name, found.scope, found.used, found.remaining) == ("strong", "agent,model", 2, 0)
        assert 0 < refused.retry_after <= 86_400
        # Nobody's agent, or no model: no pair.
        assert firewall.request(model="gpt-4o", tokens=1, endpoint="chat").allowed
        assert firewall.request(agent_id="coder", tokens=1, endpoint="chat").allowed


def test_a_pair_with_a_route_counts_the_endpoint(config):
    with Firewall(config) as firewall:
        assert firewall.request(user_id="ann", tokens=100, endpoint="/v1/images").allowed
        refused = firewall.request(user_id="ann", tokens=1, endpoint="images")
        assert (refused.reason, refused.limit.name, refused.limit.held) == ("limit_held", "pictures", 100)
        assert firewall.request(user_id="ann", tokens=1_000, endpoint="chat").allowed
        assert firewall.request(user_id="bob", tokens=100, endpoint="images").allowed


def test_what_a_plan_says_of_one_model_holds_for_its_customers(config):
    with Firewall(config) as firewall:
        first = firewall.request(model="o1", tokens=5, endpoint="chat")
        assert first.allowed
        assert firewall.request(model="o1", tokens=5, endpoint="chat").reason == "limit_held"
        first.settle(tokens=5)
        refused = firewall.request(model="o1", tokens=5, endpoint="chat")
        assert (refused.reason, refused.limit.name, refused.limit.scope) == (
            "quota_exceeded",
            "of-plan",
            "customer,model",
        )
        assert firewall.request(user_id="ann", model="mini", tokens=1_000, endpoint="chat").allowed
        slow = firewall.request(user_id="ann", model="mini", tokens=1_000, endpoint="chat")
        assert (slow.reason, slow.limit.name) == ("rate_limited", "fast")
        assert firewall.request(user_id="bob", model="mini", tokens=1_000, endpoint="chat").allowed


def test_a_released_call_takes_nothing_of_its_pair(config):
    with Firewall(config) as firewall:
        for _ in range(5):
            verdict = firewall.request(agent_id="coder", model="gpt-4o", tokens=1, endpoint="chat")
            assert verdict.allowed
            verdict.release()


def test_many_threads_never_pass_the_cap_of_a_pair(config):
    allowed = []
    with Firewall(config) as firewall:

        def ask():
            for _ in range(3):
                verdict = firewall.request(agent_id="planner", model="gpt-4o", tokens=1, endpoint="chat")
                if verdict.allowed:
                    allowed.append(verdict)

        threads = [threading.Thread(target=ask) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(allowed) == 3


class Ahead:
    """A clock that somebody moves on: a real one, some days later, which never says the same instant twice."""

    def __init__(self):
        self._clock, self.days, self._asked = SystemClock(), 0, 0

    def now_ms(self):
        self._asked += 1
        return self._clock.now_ms() + self.days * 86_400_000 + self._asked

    def __getattr__(self, name):
        return getattr(self._clock, name)


def test_a_day_that_was_used_up_stays_closed_the_day_after(config):
    clock = Ahead()

    async def body():
        async with AsyncFirewall(config, clock=clock) as firewall:

            async def ask(agent="latched"):
                return await firewall.request(user_id="ann", agent_id=agent, tokens=50, endpoint="chat")

            # The customer is made by this call, whose billing period is his first.
            await (await ask()).settle(tokens=50)
            clock.days = 1
            refused = await ask()
            assert (refused.allowed, refused.reason, refused.limit.window) == (False, "quota_exceeded", "day")
            assert refused.retry_after > 86_400
            assert (await ask("other")).allowed
            clock.days = 32
            assert (await ask()).allowed

    asyncio.run(body())
