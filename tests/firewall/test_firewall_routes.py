"""What a route says holds in process too: its named meters, its cost, its condition, and one charge for one answer."""

from decimal import Decimal

import pytest

from gatekeeper import Firewall

TOP = """
[database]
url = "sqlite:///ledger.sqlite"
[keys]
mode = "none"
customer = "mesh"
[upstreams.openai]
url = "https://api.openai.com"
[[prices]]
model = "m"
input = 1
output = 2
per = "1M tokens"
"""
PLAN = """
name = "Free"
monthly_price = 0
[quota]
units = 1_000_000
window = "month"
when_used = "block"
"""
CHAT = "/v1/chat/completions"
RESPONSE_ID = "chatcmpl-9xQ2rT7vLmK4pZbN3sDf"


def route(name, *more):
    lines = ["[[routes]]", f'name = "{name}"', f'path = "{CHAT}"', 'upstream = "openai"', *more]
    return "\n".join(lines) + "\n"


@pytest.fixture
def opened(tmp_path):
    def write(*parts):
        (tmp_path / "plans").mkdir(exist_ok=True)
        (tmp_path / "plans" / "free.toml").write_text(PLAN)
        (tmp_path / "gateway.toml").write_text(TOP + "".join(parts))
        return Firewall(tmp_path / "gateway.toml")

    return write


def answer(response_id="none", **usage):
    return {"id": response_id, "usage": {"prompt_tokens": 12, "completion_tokens": 8, "total_tokens": 20, **usage}}


def test_a_named_meter_may_have_any_name(opened):
    named = 'meters = { meter = "usage().output", usage = "usage().input" }'
    with opened(route("chat", named)) as firewall:
        charged = firewall.request(tokens=100, model="m").settle(response=answer())
        assert (charged.units, charged.cost) == (20, Decimal("0.000028"))


def test_the_cost_that_a_route_reads_is_what_dollar_limits_count(opened):
    limit = '[[limits]]\nscope = "global"\ndollars = "1.00"\nwindow = "day"\n'
    with opened(route("chat", 'cost = "usage().cost"'), limit) as firewall:
        read = firewall.request(tokens=10, model="m").settle(response=answer(cost=0.75))
        assert read.cost == Decimal("0.75")
        listed = firewall.request(tokens=10, model="m").settle(response=answer())
        assert listed.cost == Decimal("0.000028")
        told = firewall.request(tokens=10, model="m").settle(input_tokens=10, output_tokens=0)
        assert told.cost == Decimal("0.00001")
        refused = firewall.request(tokens=1_000_000, model="m")
        assert (refused.reason, refused.limit.used) == ("exceeds_limit", Decimal("0.750038"))


def test_an_answer_that_costs_no_units_is_a_request_all_the_same(opened):
    limit = '[[limits]]\nscope = "global"\nrequests = 1\nwindow = "day"\n'
    with opened(route("chat", 'meter = "usage().requests ?? 0"'), limit) as firewall:
        assert firewall.request(tokens=10, model="m").release().units == 0
        assert firewall.request(tokens=10, model="m").settle(response=answer()).units == 0
        assert firewall.request(tokens=10, model="m").reason == "quota_exceeded"


def test_one_answer_is_charged_once(opened):
    with opened(route("chat")) as firewall:
        first, again = (firewall.request(tokens=100, model="m") for _ in range(2))
        assert first.settle(response=answer(RESPONSE_ID)).units == 20
        charged = again.settle(response=answer(RESPONSE_ID))
        assert (charged.units, charged.cost, charged.source) == (0, 0, "none")
        # A server that counts its answers begins anew when it starts.
        plain = [
            firewall.request(tokens=100, model="m").settle(response=answer("chatcmpl-123")).units for _ in range(2)
        ]
        assert plain == [20, 20]
    with opened(route("chat", "once_per_response = false")) as firewall:
        assert firewall.request(tokens=100, model="m").settle(response=answer(RESPONSE_ID)).units == 20


def test_conditions_choose_the_route_as_far_as_the_agent_tells_what_they_ask(opened):
    routes = [
        route("videos", "when = \"model startsWith 'video-'\"", 'meter = "usage().total * 10"'),
        route("trusted", "when = \"agentID == 'boss'\"", 'meter = "0"'),
        route("rest"),
    ]
    with opened(*routes) as firewall:

        def charged(**said):
            return firewall.request(tokens=300, endpoint=CHAT, **said).settle(response=answer()).units

        assert [charged(model="video-1"), charged(model="m", agent_id="boss"), charged(model="m")] == [200, 0, 20]
        named = firewall.request(tokens=300, endpoint="rest", model="video-1").settle(response=answer())
        assert named.units == 20


def test_a_condition_on_what_no_agent_tells_asks_for_the_name(opened):
    with opened(route("streams", 'when = "request.stream == true"'), route("rest")) as firewall:
        with pytest.raises(ValueError, match="depends on request: name one of them as endpoint: streams, rest"):
            firewall.request(tokens=3, endpoint=CHAT)
        assert firewall.request(tokens=3, endpoint="streams").allowed
    with opened(route("big", "when = \"model == 'big'\""), route("small", "when = \"model == 'small'\"")) as firewall:
        with pytest.raises(ValueError, match="takes this call"):
            firewall.request(tokens=3, endpoint=CHAT, model="other")
        assert firewall.request(tokens=3, endpoint=CHAT, model="small").allowed
